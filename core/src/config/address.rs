//! Host names, networks and the addresses of listeners, as text.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;

use super::diagnostic::clip;

/// Why a text is no address.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AddressError {
    pub(super) reason: String,
    /// What to write instead, if that is known.
    pub(super) help: Option<String>,
}

impl AddressError {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), help: None }
    }

    pub(super) fn with_help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for AddressError {}

/// A host name in lower case (RFC 1123 §2.1, and `_`, which real names have).
pub(super) fn host_name(text: &str) -> Result<Box<str>, &'static str> {
    let bare = text.strip_suffix('.').unwrap_or(text);
    let last = bare.rsplit('.').next().unwrap_or_default();
    if text.is_empty() {
        Err("it is empty")
    } else if !text.is_ascii() {
        Err("it is not ASCII: write the `xn--` form")
    } else if bare.len() > 253 {
        Err("it is longer than 253 bytes")
    } else if bare.split('.').any(|label| label.is_empty() || label.len() > 63) {
        Err("each part between dots has 1 to 63 characters")
    } else if !bare.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        Err("only letters, digits, `-`, `_` and `.` are allowed")
    } else if bare.split('.').any(|label| label.starts_with('-') || label.ends_with('-')) {
        Err("no part may begin or end with `-`")
    } else if last.bytes().all(|b| b.is_ascii_digit()) && bare.parse::<Ipv4Addr>().is_err() {
        Err("it ends like an IPv4 address but is none")
    } else {
        Ok(text.to_ascii_lowercase().into())
    }
}

/// An IP address or a CIDR network, whose bits beyond the prefix are cleared.
pub(super) fn network(text: &str) -> Result<IpNet, &'static str> {
    let Some((address, prefix)) = text.split_once('/') else {
        return text
            .parse::<IpAddr>()
            .map(|ip| IpNet::from(ip.to_canonical()))
            .map_err(|_| "it is no IP address");
    };
    let ip: IpAddr = address.parse().map_err(|_| "the part before `/` is no IP address")?;
    let prefix = Some(prefix)
        .filter(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|p| p.parse().ok());
    let range =
        if ip.is_ipv4() { "the prefix must be from 0 to 32" } else { "the prefix must be from 0 to 128" };
    let net = prefix.and_then(|prefix| IpNet::new(ip, prefix).ok()).ok_or(range)?.trunc();
    Ok(match net {
        // A client's v4-mapped address is compared as an IPv4 address, so a v4-mapped network has to be an
        // IPv4 network.
        IpNet::V6(v6) if v6.prefix_len() >= 96 && v6.addr().to_ipv4_mapped().is_some() => {
            let v4 = v6.addr().to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED);
            IpNet::new(IpAddr::V4(v4), v6.prefix_len() - 96).unwrap_or(net)
        }
        _ => net,
    })
}

/// Where to listen: an IP address and a port, which may be 0 (any free one).
pub(super) fn listener(text: &str) -> Result<SocketAddr, AddressError> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let reason = format!("a listener has no scheme `{}://`", clip(scheme));
        let help = format!("write \"{}\"", rest.trim_end_matches('/'));
        return Err(AddressError::new(reason).with_help(help));
    }
    let (host, port) = split_port(text)?;
    let (reason, help) = match host {
        "" | "*" => {
            ("the address before the port is missing", format!("write \"[::]:{port}\" for every address"))
        }
        "localhost" => {
            ("a listener needs an IP address", format!("write \"127.0.0.1:{port}\" or \"[::1]:{port}\""))
        }
        _ if host.contains(':') => {
            ("an IPv6 address stands in brackets", format!("write \"[{host}]:{port}\""))
        }
        _ => ("a listener needs an IP address", format!("write \"[::]:{port}\" for every address")),
    };
    Err(AddressError::new(reason).with_help(help))
}

/// Splits `host:port`; the host is not checked.
pub(super) fn split_port(text: &str) -> Result<(&str, u16), AddressError> {
    let no_port = |host: &str| {
        let host =
            if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
        Err(AddressError::new("the port is missing").with_help(format!("write \"{host}:80\" if it is 80")))
    };
    if text.parse::<IpAddr>().is_ok() || text.ends_with(']') {
        return no_port(text);
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
            return Err(AddressError::new("the address before the port is missing"));
        }
        return no_port(text);
    };
    if port.is_empty() {
        return no_port(host);
    }
    match port.parse::<u16>() {
        Ok(n) if port.bytes().all(|b| b.is_ascii_digit()) => Ok((host, n)),
        _ => Err(AddressError::new(format!("\"{}\" is not a port from 1 to 65535", clip(port)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners() {
        for text in ["[::]:80", "0.0.0.0:443", "127.0.0.1:0", "[::1]:8080"] {
            assert_eq!(listener(text), Ok(text.parse().unwrap()), "{text}");
        }
        let bad = [
            (":80", "the address before the port is missing"),
            ("*:80", "the address before the port is missing"),
            ("80", "the address before the port is missing"),
            ("localhost:80", "a listener needs an IP address"),
            ("example.com:80", "a listener needs an IP address"),
            ("::1", "the port is missing"),
            ("0.0.0.0", "the port is missing"),
            ("0.0.0.0:99999", "\"99999\" is not a port from 1 to 65535"),
            ("http://0.0.0.0:80", "a listener has no scheme `http://`"),
        ];
        for (text, reason) in bad {
            assert_eq!(listener(text).map_err(|e| e.reason), Err(reason.to_owned()), "{text}");
        }
    }

    #[test]
    fn networks() {
        let good = [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::1", "::1/128"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.0.0.1", "10.0.0.1/32"),
            ("::/0", "::/0"),
        ];
        for (text, expected) in good {
            assert_eq!(network(text), Ok(expected.parse().unwrap()), "{text}");
        }
        for text in
            ["", "10.0.0.0/33", "10.0.0/8", "::1/129", "10.0.0.0/", "10.0.0.0/+8", "x/8", "10.0.0.0/8/8"]
        {
            assert!(network(text).is_err(), "{text}");
        }
    }
}
