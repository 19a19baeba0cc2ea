//! Addresses as text: of listeners, of backends, of networks.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;

use super::model::{Address, Protocol};

/// Why a text is no address, and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) why: String,
    pub(super) help: Option<String>,
}

fn wrong<T>(why: impl Into<String>, help: impl Into<Option<String>>) -> Result<T, Wrong> {
    Err(Wrong { why: why.into(), help: help.into() })
}

/// A host name in lower case (RFC 1123 §2.1, and `_`, which real names have).
pub(crate) fn host_name(text: &str) -> Result<Box<str>, &'static str> {
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

/// An IP address or a CIDR, cut to its prefix.
pub(crate) fn network(text: &str) -> Result<IpNet, &'static str> {
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
        // Clients are compared as what they are, so networks of mapped addresses are networks of v4
        // addresses.
        IpNet::V6(v6) if v6.prefix_len() >= 96 && v6.addr().to_ipv4_mapped().is_some() => {
            let v4 = v6.addr().to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED);
            IpNet::new(IpAddr::V4(v4), v6.prefix_len() - 96).unwrap_or(net)
        }
        _ => net,
    })
}

/// Where to listen: an IP address and a port, which may be 0 (any free one).
pub(super) fn listener(text: &str) -> Result<SocketAddr, Wrong> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let rest = rest.trim_end_matches('/');
        return wrong(
            format!("a listener has no scheme `{}://`", super::suggest::clip(scheme)),
            Some(format!("write \"{rest}\"")),
        );
    }
    let (host, port) = split_port(text)?;
    match host {
        "" | "*" => wrong(
            "the address before the port is missing",
            Some(format!("write \"[::]:{port}\" for every address")),
        ),
        "localhost" => wrong(
            "a listener needs an IP address",
            Some(format!("write \"127.0.0.1:{port}\" or \"[::1]:{port}\"")),
        ),
        _ if host.contains(':') => {
            wrong("an IPv6 address stands in brackets", Some(format!("write \"[{host}]:{port}\"")))
        }
        _ => {
            wrong("a listener needs an IP address", Some(format!("write \"[::]:{port}\" for every address")))
        }
    }
}

/// `host:port`, where host may still be anything.
fn split_port(text: &str) -> Result<(&str, u16), Wrong> {
    let no_port = |host: &str| {
        let host =
            if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
        wrong("the port is missing", Some(format!("write \"{host}:80\" if it is 80")))
    };
    if text.parse::<IpAddr>().is_ok() || text.ends_with(']') {
        return no_port(text);
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
            return wrong("the address before the port is missing", None);
        }
        return no_port(text);
    };
    if port.is_empty() {
        return no_port(host);
    }
    match port.parse::<u16>() {
        Ok(n) if port.bytes().all(|b| b.is_ascii_digit()) => Ok((host, n)),
        _ => wrong(format!("\"{}\" is not a port from 1 to 65535", super::suggest::clip(port)), None),
    }
}

/// A backend: its label, where it is, what it speaks.
pub(super) fn backend(text: &str) -> Result<(Box<str>, Address, Protocol), Wrong> {
    let (protocol, label) = match text.split_once("://") {
        None => (Protocol::Http1, text),
        Some((scheme, rest)) => match scheme.to_ascii_lowercase().as_str() {
            "http" => (Protocol::Http1, rest),
            "https" => (Protocol::Https, rest),
            "h2c" => (Protocol::H2c, rest),
            _ => {
                let why = format!("unknown scheme \"{}\"", super::suggest::clip(scheme));
                return wrong(why, Some("use http://, https:// or h2c://".to_owned()));
            }
        },
    };
    if let Some((host, path)) = label.split_once('/') {
        let why =
            if path.is_empty() { "a backend's address ends with its port" } else { "a backend has no path" };
        return wrong(why, Some(format!("write \"{host}\"")));
    }
    if label.contains('@') {
        return wrong("a backend's address has no user", None);
    }
    if let Ok(address) = label.parse::<SocketAddr>() {
        return match address.port() {
            0 => wrong("port 0 can't be connected to", None),
            _ if address.ip().to_canonical().is_unspecified() => {
                wrong("this address is for listening only", None)
            }
            _ => Ok((label.into(), Address::Ip(address), protocol)),
        };
    }
    let (host, port) = split_port(label)?;
    if host.is_empty() {
        return wrong("the host before the port is missing", None);
    }
    if host.starts_with('[') {
        return wrong("there is no IPv6 address between the brackets", None);
    }
    if host.contains(':') {
        return match host.parse::<IpAddr>() {
            Ok(_) => wrong("an IPv6 address stands in brackets", Some(format!("write \"[{host}]:{port}\""))),
            Err(_) => wrong("it has more than one `:`", None),
        };
    }
    match host_name(host) {
        Ok(_) if port == 0 => wrong("port 0 can't be connected to", None),
        Ok(host) => Ok((label.into(), Address::Name { host, port }, protocol)),
        Err(why) => wrong(why, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends() {
        let name = |host: &str, port| Address::Name { host: host.into(), port };
        let ip = |text: &str| Address::Ip(text.parse().unwrap());
        let good = [
            ("127.0.0.1:8080", "127.0.0.1:8080", ip("127.0.0.1:8080"), Protocol::Http1),
            ("[::1]:80", "[::1]:80", ip("[::1]:80"), Protocol::Http1),
            ("http://app:80", "app:80", name("app", 80), Protocol::Http1),
            (
                "https://App.Example.com:443",
                "App.Example.com:443",
                name("app.example.com", 443),
                Protocol::Https,
            ),
            ("h2c://[2001:db8::1]:9000", "[2001:db8::1]:9000", ip("[2001:db8::1]:9000"), Protocol::H2c),
            (
                "my_app-1.svc.cluster.local.:1",
                "my_app-1.svc.cluster.local.:1",
                name("my_app-1.svc.cluster.local.", 1),
                Protocol::Http1,
            ),
        ];
        for (text, label, address, protocol) in good {
            assert_eq!(backend(text), Ok((label.into(), address, protocol)), "{text}");
        }
        let bad = [
            ("", "the port is missing"),
            ("app", "the port is missing"),
            ("127.0.0.1", "the port is missing"),
            ("[::1]", "the port is missing"),
            ("::1", "the port is missing"),
            ("app:", "the port is missing"),
            ("8080", "the address before the port is missing"),
            (":80", "the host before the port is missing"),
            ("app:0", "port 0 can't be connected to"),
            ("127.0.0.1:0", "port 0 can't be connected to"),
            ("app:65536", "\"65536\" is not a port from 1 to 65535"),
            ("app:+80", "\"+80\" is not a port from 1 to 65535"),
            ("app:http", "\"http\" is not a port from 1 to 65535"),
            ("2001:db8::1:80", "the port is missing"),
            ("[::1::]:80", "there is no IPv6 address between the brackets"),
            ("127.0.0.300:80", "it ends like an IPv4 address but is none"),
            ("0.0.0.0:80", "this address is for listening only"),
            ("[::]:80", "this address is for listening only"),
            ("ftp://app:80", "unknown scheme \"ftp\""),
            ("http://app:80/", "a backend's address ends with its port"),
            ("http://app:80/x", "a backend has no path"),
            ("user@app:80", "a backend's address has no user"),
            ("a b:80", "only letters, digits, `-`, `_` and `.` are allowed"),
            ("a..b:80", "each part between dots has 1 to 63 characters"),
            ("-a:80", "no part may begin or end with `-`"),
            ("bücher.example:80", "it is not ASCII: write the `xn--` form"),
        ];
        for (text, why) in bad {
            assert_eq!(backend(text).map_err(|w| w.why), Err(why.to_owned()), "{text}");
        }
    }

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
        for (text, why) in bad {
            assert_eq!(listener(text).map_err(|w| w.why), Err(why.to_owned()), "{text}");
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
        for (text, wanted) in good {
            assert_eq!(network(text), Ok(wanted.parse().unwrap()), "{text}");
        }
        for text in
            ["", "10.0.0.0/33", "10.0.0/8", "::1/129", "10.0.0.0/", "10.0.0.0/+8", "x/8", "10.0.0.0/8/8"]
        {
            assert!(network(text).is_err(), "{text}");
        }
    }
}
