//! Host names, networks and the addresses of listeners, as text.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::diagnostic::{Diagnostic, clip};
use super::literal::quote;
use super::suggest;

/// Why a text is no address.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AddressError {
    pub(super) reason: String,
    /// What to do about it, if no text is known that could be written instead.
    help: Option<&'static str>,
    /// Texts that were probably meant, the likeliest first.
    candidates: Vec<Candidate>,
}

#[derive(Debug, PartialEq, Eq)]
struct Candidate {
    text: String,
    /// When it is the right one: "if the port is 80".
    condition: String,
}

impl AddressError {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), help: None, candidates: Vec::new() }
    }

    pub(super) fn with_help(self, help: &'static str) -> Self {
        Self { help: Some(help), ..self }
    }

    /// Adds a text that was probably meant. It may itself be wrong: see [`AddressError::settle`].
    pub(super) fn or(self, text: impl Into<String>) -> Self {
        self.or_if(text, "")
    }

    /// [`AddressError::or`] under a condition.
    pub(super) fn or_if(mut self, text: impl Into<String>, condition: impl Into<String>) -> Self {
        self.candidates.push(Candidate { text: text.into(), condition: condition.into() });
        self
    }

    /// The text contains variables.
    pub(super) fn variables() -> Self {
        Self::new("variables are not written so").with_help(suggest::VARIABLES)
    }

    /// Keeps of the candidates those that `check` accepts; one that has an error is replaced by the
    /// candidates of that error.
    pub(super) fn settle(mut self, check: &dyn Fn(&str) -> Option<AddressError>) -> Self {
        /// More mistakes in one text than this are not followed.
        const MAX_STEPS: usize = 4;
        let mut open: Vec<(Candidate, usize)> = self.candidates.drain(..).map(|c| (c, 0)).rev().collect();
        while let Some((candidate, steps)) = open.pop() {
            match check(&candidate.text) {
                None if self.candidates.iter().all(|c| c.text != candidate.text) => {
                    self.candidates.push(candidate);
                }
                Some(error) if steps < MAX_STEPS => {
                    open.extend(error.candidates.into_iter().rev().map(|c| (c, steps + 1)));
                }
                _ => {}
            }
        }
        self
    }

    /// Puts `prefix` before each candidate.
    pub(super) fn after(mut self, prefix: &str) -> Self {
        self.candidates.iter_mut().for_each(|c| c.text.insert_str(0, prefix));
        self
    }

    /// The candidates.
    #[cfg(test)]
    pub(super) fn suggested(&self) -> impl Iterator<Item = &str> {
        self.candidates.iter().map(|c| &*c.text)
    }

    /// Sets the help and the suggestions of the diagnostic for a string of the file.
    pub(super) fn explain(&self, diagnostic: &mut Diagnostic) {
        diagnostic.help = self.help.map(Into::into);
        let quoted: Vec<String> = self.candidates.iter().map(|c| quote(&c.text)).collect();
        let condition = self.candidates.first().map_or("", |c| &c.condition);
        let help = format!("write {} {condition}", quoted.join(" or "));
        for text in quoted {
            diagnostic.suggest(help.trim_end(), diagnostic.span.clone(), text);
        }
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

/// Where to listen: an IP address and a port, which may be 0 (any free one). `port` is the usual one.
pub(super) fn listener(text: &str, port: u16) -> Result<SocketAddr, AddressError> {
    let read = |text: &str| text.parse().map_err(|_| listener_error(text, port));
    read(text).map_err(|error: AddressError| error.settle(&|text| read(text).err()))
}

/// Why a text is no listener's address.
fn listener_error(text: &str, usual_port: u16) -> AddressError {
    if suggest::is_variable(text) {
        return AddressError::variables();
    }
    if text.starts_with("unix:") || text.starts_with('/') {
        return AddressError::new("a listener has an IP address and a port, it is no Unix socket");
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let host = rest.split('/').next().unwrap_or_default();
        return AddressError::new(format!("a listener has no scheme `{}://`", clip(scheme))).or(host);
    }
    if let Some(word) = text.split([' ', '\t', ',', ';', '/']).find(|word| !word.is_empty())
        && word != text
    {
        return AddressError::new("nothing but an IP address and a port stands here").or(word);
    }
    let (host, port) = match split_port(text, usual_port) {
        Ok(parts) => parts,
        Err(error) => return error,
    };
    let everywhere = format!("[::]:{port}");
    let every = "for every address";
    match host {
        "" | "*" => AddressError::new("the address before the port is missing").or_if(everywhere, every),
        "localhost" => AddressError::new("a listener needs an IP address")
            .or(format!("127.0.0.1:{port}"))
            .or(format!("[::1]:{port}")),
        _ if host.contains(':') => {
            AddressError::new("an IPv6 address stands in brackets").or(format!("[{host}]:{port}"))
        }
        _ => AddressError::new("a listener needs an IP address").or_if(everywhere, every),
    }
}

/// Splits `host:port`; the host is not checked. `usual_port` is what to suggest if there is no port.
pub(super) fn split_port(text: &str, usual_port: u16) -> Result<(&str, u16), AddressError> {
    if text.parse::<Ipv6Addr>().is_ok() {
        // `::1:8080` is an IPv6 address of its own, but hardly meant to be one.
        return match text.rsplit_once(':') {
            Some((host, port)) if host.parse::<Ipv6Addr>().is_ok() && port.parse::<u16>().is_ok() => {
                Err(AddressError::new("an IPv6 address stands in brackets").or(format!("[{host}]:{port}")))
            }
            _ => Err(no_port(text, usual_port)),
        };
    }
    if text.parse::<Ipv4Addr>().is_ok() || text.ends_with(']') {
        return Err(no_port(text, usual_port));
    }
    if let Some((host, port)) = text.split_once(']')
        && !port.is_empty()
        && port.bytes().all(|b| b.is_ascii_digit())
    {
        return Err(AddressError::new("there is no `:` before the port").or(format!("{host}]:{port}")));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
            return Err(AddressError::new("the address before the port is missing").or(format!(":{text}")));
        }
        return Err(no_port(text, usual_port));
    };
    if port.is_empty() {
        return Err(no_port(host, usual_port));
    }
    match port.parse::<u16>() {
        Ok(n) if port.bytes().all(|b| b.is_ascii_digit()) => Ok((host, n)),
        _ => {
            let error = AddressError::new(format!("\"{}\" is not a port from 1 to 65535", clip(port)));
            Err(match port.to_ascii_lowercase().as_str() {
                "http" => error.or(format!("{host}:80")),
                "https" => error.or(format!("{host}:443")),
                _ => error,
            })
        }
    }
}

/// The error for a host alone.
fn no_port(host: &str, usual_port: u16) -> AddressError {
    let bare = host.contains(':') && !host.starts_with('[');
    let host = if bare { format!("[{host}]") } else { host.to_owned() };
    let condition = format!("if it is {usual_port}");
    AddressError::new("the port is missing").or_if(format!("{host}:{usual_port}"), condition)
}

/// The network that a text which is none was probably meant to be.
pub(super) fn meant_network(text: &str) -> Option<String> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("localhost") {
        return Some("127.0.0.1".into());
    }
    // `10.0.0.0/255.0.0.0`
    let by_mask = || {
        let (address, mask) = text.split_once('/')?;
        let mask = mask.parse::<Ipv4Addr>().ok()?.to_bits();
        let is_prefix = mask.leading_ones() + mask.trailing_zeros() == 32;
        is_prefix.then(|| format!("{address}/{}", mask.leading_ones()))
    };
    // `10.*`, `10.0.0.*`
    let by_star = || {
        let bytes: Vec<&str> = text.trim_end_matches(".*").split('.').collect();
        let missing = 4_usize.checked_sub(bytes.len()).filter(|_| text.ends_with(".*"))?;
        Some(format!("{}{}/{}", bytes.join("."), ".0".repeat(missing), 8 * bytes.len()))
    };
    // `127.0.0.1:8080`, `[::1]:80`
    let without_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip().to_string());
    let found = by_mask().or_else(by_star).or_else(without_port).unwrap_or_else(|| text.to_owned());
    network(&found).ok().map(|_| found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners() {
        for text in ["[::]:80", "0.0.0.0:443", "127.0.0.1:0", "[::1]:8080"] {
            assert_eq!(listener(text, 80), Ok(text.parse().unwrap()), "{text}");
        }
        let everywhere: &[&str] = &["[::]:80"];
        let bad: [(&str, &str, &[&str]); 23] = [
            (":80", "the address before the port is missing", everywhere),
            ("*:80", "the address before the port is missing", everywhere),
            ("80", "the address before the port is missing", everywhere),
            ("localhost:80", "a listener needs an IP address", &["127.0.0.1:80", "[::1]:80"]),
            ("localhost", "the port is missing", &["127.0.0.1:80", "[::1]:80"]),
            ("example.com:80", "a listener needs an IP address", everywhere),
            ("::1", "the port is missing", &["[::1]:80"]),
            ("::", "the port is missing", &["[::]:80"]),
            ("[::]", "the port is missing", &["[::]:80"]),
            ("[::]80", "there is no `:` before the port", &["[::]:80"]),
            (":::80", "an IPv6 address stands in brackets", &["[::]:80"]),
            ("::1:8080", "an IPv6 address stands in brackets", &["[::1]:8080"]),
            ("0.0.0.0", "the port is missing", &["0.0.0.0:80"]),
            ("0.0.0.0:99999", "\"99999\" is not a port from 1 to 65535", &[]),
            ("0.0.0.0:https", "\"https\" is not a port from 1 to 65535", &["0.0.0.0:443"]),
            ("http://0.0.0.0:80", "a listener has no scheme `http://`", &["0.0.0.0:80"]),
            ("http://localhost:81/x", "a listener has no scheme `http://`", &["127.0.0.1:81", "[::1]:81"]),
            ("0.0.0.0:80 ssl", "nothing but an IP address and a port stands here", &["0.0.0.0:80"]),
            ("80/tcp", "nothing but an IP address and a port stands here", everywhere),
            ("$LISTEN", "variables are not written so", &[]),
            ("0.0.0.0:$PORT", "variables are not written so", &[]),
            ("unix:/run/a", "a listener has an IP address and a port, it is no Unix socket", &[]),
            ("", "the port is missing", everywhere),
        ];
        for (text, reason, suggested) in bad {
            let error = listener(text, 80).expect_err(text);
            let texts: Vec<&str> = error.suggested().collect();
            assert_eq!((&*error.reason, &*texts), (reason, suggested), "{text}");
            assert!(texts.iter().all(|text| listener(text, 80).is_ok()), "{text}");
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
        let meant = [
            ("10.0.0.0/255.0.0.0", Some("10.0.0.0/8")),
            ("10.0.0.0/255.0.255.0", None),
            ("10.*", Some("10.0.0.0/8")),
            ("192.168.7.*", Some("192.168.7.0/24")),
            ("localhost", Some("127.0.0.1")),
            (" ::1", Some("::1")),
            ("[::1]:80", Some("::1")),
            ("10.0.0.0/33", None),
            ("proxy", None),
        ];
        for (text, expected) in meant {
            assert_eq!(meant_network(text).as_deref(), expected, "{text}");
        }
    }
}
