//! `addresses` of a pool: its backends.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use toml::de::DeValue;

use super::address::{AddressError, host_name, split_port};
use super::diagnostic::clip;
use super::model::{Address, Backend, Protocol};
use super::reader::{self, Section};
use super::report::{Report, Span, Value};

const KEYS: &[&str] = &["address", "weight", "max_connections", "backup"];

/// The backends of a pool in the order of the file; `None` if any has an error.
pub(super) fn read(pool: &Section<'_>, report: &mut Report<'_>) -> Option<Vec<Backend>> {
    let value = pool.required("addresses", "[\"127.0.0.1:8080\"]", report)?;
    let DeValue::Array(items) = value.get_ref() else {
        report.mistyped(value, "`addresses`", "a list like [\"127.0.0.1:8080\"]");
        return None;
    };
    if items.len() > usize::from(u16::MAX) {
        report.error(value.span(), "a pool has at most 65535 backends");
        return None;
    }
    let mut seen = BTreeSet::new();
    let mut backends = Vec::with_capacity(items.len());
    let mut valid = true;
    for item in items {
        let Some((backend, span)) = read_one(item, report) else {
            valid = false;
            continue;
        };
        // Two spellings of one address are one backend.
        let identity = match &backend.address {
            Address::Ip(ip) => (ip.ip().to_canonical().to_string(), ip.port()),
            Address::Name { host, port } => (host.trim_end_matches('.').to_owned(), *port),
        };
        if seen.insert(identity) {
            backends.push(backend);
        } else {
            report.error(span, format!("\"{}\" is already in this pool", clip(&backend.label))).help =
                Some("give it a `weight` if it should get more than the others".into());
        }
    }
    valid.then_some(backends)
}

/// A backend, written as a string or as a table, and where its address is written.
fn read_one(item: &Value<'_>, report: &mut Report<'_>) -> Option<(Backend, Span)> {
    let (address, section) = match item.get_ref() {
        DeValue::String(text) => (Some((text.as_ref(), item.span())), None),
        DeValue::Table(_) => {
            let section = Section::new(item, "a backend", KEYS, report)?;
            let value = section.required("address", "\"127.0.0.1:8080\"", report);
            let text = value.and_then(|v| Some((reader::string(v, "`address`", report)?, v.span())));
            (text, Some(section))
        }
        _ => {
            report.mistyped(item, "each of `addresses`", "a string like \"127.0.0.1:8080\" or a table");
            return None;
        }
    };
    // The other keys are checked even if the address is missing.
    let weight = section.as_ref().map_or(1, |s| s.integer_u32("weight", 0..=1000, 1, report));
    let max_connections =
        section.as_ref().map_or(0, |s| s.integer_u32("max_connections", 0..=10_000_000, 0, report));
    let backup = section.as_ref().is_some_and(|s| s.boolean("backup", false, report));
    let (text, span) = address?;
    match parse_address(text) {
        Ok((label, address, protocol)) => {
            match protocol {
                Protocol::Http1 => {}
                Protocol::Https => report.not_built(span.clone(), "`https://` backends are"),
                Protocol::H2c => report.not_built(span.clone(), "`h2c://` backends are"),
            }
            let max_connections = Some(max_connections).filter(|&n| n > 0);
            Some((Backend { label, address, protocol, weight, max_connections, backup }, span))
        }
        Err(error) => {
            let message = format!("bad address \"{}\": {error}", clip(text));
            report.error(span, message).help = error.help;
            None
        }
    }
}

/// A backend's label, address and protocol.
fn parse_address(text: &str) -> Result<(Box<str>, Address, Protocol), AddressError> {
    let (protocol, label) = match text.split_once("://") {
        None => (Protocol::Http1, text),
        Some((scheme, rest)) => match scheme.to_ascii_lowercase().as_str() {
            "http" => (Protocol::Http1, rest),
            "https" => (Protocol::Https, rest),
            "h2c" => (Protocol::H2c, rest),
            _ => {
                return Err(AddressError::new(format!("unknown scheme \"{}\"", clip(scheme)))
                    .with_help("use http://, https:// or h2c://"));
            }
        },
    };
    if let Some((host, path)) = label.split_once('/') {
        let reason =
            if path.is_empty() { "a backend's address ends with its port" } else { "a backend has no path" };
        return Err(AddressError::new(reason).with_help(format!("write \"{host}\"")));
    }
    if label.contains('@') {
        return Err(AddressError::new("a backend's address has no user"));
    }
    if let Ok(address) = label.parse::<SocketAddr>() {
        return match address.port() {
            0 => Err(AddressError::new("port 0 can't be connected to")),
            _ if address.ip().to_canonical().is_unspecified() => {
                Err(AddressError::new("this address is for listening only"))
            }
            _ => Ok((label.into(), Address::Ip(address), protocol)),
        };
    }
    let (host, port) = split_port(label)?;
    if host.is_empty() {
        return Err(AddressError::new("the host before the port is missing"));
    }
    if host.starts_with('[') {
        return Err(AddressError::new("there is no IPv6 address between the brackets"));
    }
    if host.contains(':') {
        return Err(match host.parse::<IpAddr>() {
            Ok(_) => AddressError::new("an IPv6 address stands in brackets")
                .with_help(format!("write \"[{host}]:{port}\"")),
            Err(_) => AddressError::new("it has more than one `:`"),
        });
    }
    let host = host_name(host).map_err(AddressError::new)?;
    if port == 0 {
        return Err(AddressError::new("port 0 can't be connected to"));
    }
    Ok((label.into(), Address::Name { host, port }, protocol))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
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
            assert_eq!(parse_address(text), Ok((label.into(), address, protocol)), "{text}");
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
        for (text, reason) in bad {
            assert_eq!(parse_address(text).map_err(|e| e.reason), Err(reason.to_owned()), "{text}");
        }
    }
}
