//! `addresses` of a pool: its backends.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use toml::de::DeValue;

use super::address::{AddressError, host_name, split_port};
use super::diagnostic::clip;
use super::literal::quote;
use super::model::{Address, Backend, Protocol};
use super::reader::{self, Section};
use super::report::{HostName, Report, Span, Value};
use super::suggest;
use super::tls_target::{Alpn, BackendTls, TlsName, TlsTarget};
use super::unix_socket;

const KEYS: &[&str] = &["address", "weight", "max_connections", "backup"];

/// The backends of a pool in the order of the file; `None` if any has an error. `tls`: how TLS is spoken to
/// those with `https://`.
pub(super) fn read(
    pool: &Section<'_>,
    tls: &Arc<BackendTls>,
    report: &mut Report<'_>,
) -> Option<Vec<Backend>> {
    let value = pool.required("addresses", "[\"127.0.0.1:8080\"]", report)?;
    let DeValue::Array(items) = value.get_ref() else {
        let error = report.mistyped(value, "`addresses`", "a list like [\"127.0.0.1:8080\"]");
        if let Some(text) = value.get_ref().as_str().filter(|text| parse_address(text).is_ok()) {
            error.write(format!("[{}]", quote(text)));
        }
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
        let Some((backend, span)) = read_one(item, tls, report) else {
            valid = false;
            continue;
        };
        // Two spellings of one address are one backend.
        let identity = match &backend.address {
            Address::Ip(ip) => (ip.ip().to_canonical().to_string(), ip.port()),
            Address::Name { host, port } => (host.trim_end_matches('.').to_owned(), *port),
            Address::Unix(path) => (unix_socket::identity(path), 0),
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
fn read_one(item: &Value<'_>, tls: &Arc<BackendTls>, report: &mut Report<'_>) -> Option<(Backend, Span)> {
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
        Ok((label, address, scheme)) => {
            let protocol = match scheme {
                Scheme::Http => Protocol::Http1,
                Scheme::Https => Protocol::Https(Arc::new(tls_target(&label, &address, tls))),
                Scheme::H2c => Protocol::H2c,
            };
            if let Address::Name { host, .. } = &address {
                report.places.host_names.push(HostName { host: host.clone(), span: span.clone() });
            }
            let max_connections = Some(max_connections).filter(|&n| n > 0);
            let host = if matches!(address, Address::Unix(_)) { "localhost".into() } else { label.clone() };
            Some((Backend { label, host, address, protocol, weight, max_connections, backup }, span))
        }
        Err(error) => {
            let message = format!("bad address \"{}\": {error}", clip(text));
            error.explain(report.error(span, message));
            None
        }
    }
}

/// What TLS to a backend needs to know of it.
fn tls_target(label: &str, address: &Address, settings: &Arc<BackendTls>) -> TlsTarget {
    let own = match address {
        Address::Ip(ip) => TlsName::Ip(ip.ip().to_canonical()),
        Address::Name { host, .. } => TlsName::of_host(host),
        // No scheme stands before it, so nobody asks; as `Host` of its checks.
        Address::Unix(_) => TlsName::of_host("localhost"),
    };
    let name = settings.server_name.clone().unwrap_or(own);
    let target = |settings, http1| TlsTarget { label: label.into(), name: name.clone(), settings, http1 };
    let http1 = matches!(settings.alpn, Alpn::Http2First | Alpn::Http1First).then(|| {
        let settings = BackendTls { alpn: Alpn::Http1, ..(**settings).clone() };
        Arc::new(target(Arc::new(settings), None))
    });
    target(settings.clone(), http1)
}

/// How a backend is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
    H2c,
}

/// A backend's label, address and scheme.
type Read = (Box<str>, Address, Scheme);

fn parse_address(text: &str) -> Result<Read, AddressError> {
    read_address(text).map_err(|error| error.settle(&|text| read_address(text).err()))
}

fn read_address(text: &str) -> Result<Read, AddressError> {
    if let Some(path) = unix_socket::path(text) {
        return path.map(|path| (text.into(), Address::Unix(path.into()), Scheme::Http));
    }
    let (prefix, scheme, label) = match text.split_once("://") {
        None => ("", Scheme::Http, text),
        Some((scheme, rest)) => {
            let prefix = &text[..text.len() - rest.len()];
            match scheme.to_ascii_lowercase().as_str() {
                "http" => (prefix, Scheme::Http, rest),
                "https" => (prefix, Scheme::Https, rest),
                "h2c" => (prefix, Scheme::H2c, rest),
                _ => return Err(unknown_scheme(scheme, rest)),
            }
        }
    };
    if let Ok(address) = label.parse::<SocketAddr>() {
        return match address.ip().to_canonical() {
            _ if address.port() == 0 => Err(AddressError::new("port 0 can't be connected to")),
            ip if ip.is_unspecified() => {
                let local = if ip.is_ipv4() { "127.0.0.1" } else { "[::1]" };
                let here = format!("{prefix}{local}:{}", address.port());
                Err(AddressError::new("this address is for listening only").or_if(here, "for this machine"))
            }
            _ => Ok((label.into(), Address::Ip(address), scheme)),
        };
    }
    if suggest::is_variable(label) {
        return Err(AddressError::variables());
    }
    name_and_port(prefix, label, if scheme == Scheme::Https { 443 } else { 80 })
        .map(|(host, port)| (label.into(), Address::Name { host, port }, scheme))
}

fn unknown_scheme(scheme: &str, rest: &str) -> AddressError {
    let error = AddressError::new(format!("unknown scheme \"{}\"", clip(scheme)));
    match scheme.to_ascii_lowercase().as_str() {
        "tcp" | "ws" => error.or(rest),
        "tls" | "ssl" | "wss" => error.or(format!("https://{rest}")),
        "h2" | "grpc" => error.or(format!("h2c://{rest}")),
        _ => error.with_help("schemes are http://, https:// and h2c://"),
    }
}

/// The host name and port of a backend's address that is no IP address. `prefix` is what stands before it,
/// `usual_port` the port to suggest if it has none.
fn name_and_port(prefix: &str, label: &str, usual_port: u16) -> Result<(Box<str>, u16), AddressError> {
    let error = |reason: &str, meant: &str| Err(AddressError::new(reason).or(format!("{prefix}{meant}")));
    if label.trim() != label {
        return error("there are blanks around it", label.trim());
    }
    if let Some((host, path)) = label.split_once('/') {
        let reason =
            if path.is_empty() { "a backend's address ends with its port" } else { "a backend has no path" };
        return if host.is_empty() { Err(AddressError::new(reason)) } else { error(reason, host) };
    }
    if let Some((_, host)) = label.rsplit_once('@') {
        return error("a backend's address has no user", host);
    }
    if let Some((host, rest)) = label.split_once([' ', '\t']) {
        let is_setting = rest.contains('=') || rest.trim() == "backup";
        let reason = match is_setting {
            true => "settings of a backend are keys of a table like { address = \"host:80\", weight = 2 }",
            false => "only letters, digits, `-`, `_` and `.` are allowed",
        };
        return if is_setting { error(reason, host) } else { Err(AddressError::new(reason)) };
    }
    let (host, port) = split_port(label, usual_port).map_err(|error| error.after(prefix))?;
    if host.is_empty() {
        let reason = "the host before the port is missing";
        let here = format!("{prefix}127.0.0.1:{port}");
        return Err(AddressError::new(reason).or_if(here, "for this machine"));
    }
    if host.starts_with('[') {
        return Err(AddressError::new("there is no IPv6 address between the brackets"));
    }
    if host.contains(':') {
        return match host.parse::<IpAddr>() {
            Ok(_) => error("an IPv6 address stands in brackets", &format!("[{host}]:{port}")),
            Err(_) => Err(AddressError::new("it has more than one `:`")),
        };
    }
    let host = host_name(host).map_err(AddressError::new)?;
    if port == 0 {
        return Err(AddressError::new("port 0 can't be connected to"));
    }
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let name = |host: &str, port| Address::Name { host: host.into(), port };
        let ip = |text: &str| Address::Ip(text.parse().unwrap());
        let good = [
            ("127.0.0.1:8080", "127.0.0.1:8080", ip("127.0.0.1:8080"), Scheme::Http),
            ("[::1]:80", "[::1]:80", ip("[::1]:80"), Scheme::Http),
            ("http://app:80", "app:80", name("app", 80), Scheme::Http),
            (
                "https://App.Example.com:443",
                "App.Example.com:443",
                name("app.example.com", 443),
                Scheme::Https,
            ),
            ("h2c://[2001:db8::1]:9000", "[2001:db8::1]:9000", ip("[2001:db8::1]:9000"), Scheme::H2c),
            (
                "my_app-1.svc.cluster.local.:1",
                "my_app-1.svc.cluster.local.:1",
                name("my_app-1.svc.cluster.local.", 1),
                Scheme::Http,
            ),
            ("unix:/run/app.sock", "unix:/run/app.sock", Address::Unix("/run/app.sock".into()), Scheme::Http),
        ];
        for (text, label, address, scheme) in good {
            assert_eq!(parse_address(text), Ok((label.into(), address, scheme)), "{text}");
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
            ("2001:db8::1:80", "an IPv6 address stands in brackets"),
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

    #[test]
    fn suggestions() {
        let cases: [(&str, &[&str]); 27] = [
            ("app", &["app:80"]),
            ("https://app", &["https://app:443"]),
            ("https://app/x", &["https://app:443"]),
            ("http://app:80/", &["http://app:80"]),
            ("http://user@app/x", &["http://app:80"]),
            ("h2c://[::1]", &["h2c://[::1]:80"]),
            ("8080", &["127.0.0.1:8080"]),
            (":8080", &["127.0.0.1:8080"]),
            ("::1", &["[::1]:80"]),
            ("::1:8080", &["[::1]:8080"]),
            ("2001:db8:0:0:0:0:0:1:80", &["[2001:db8:0:0:0:0:0:1]:80"]),
            ("[::1]8080", &["[::1]:8080"]),
            ("0.0.0.0:80", &["127.0.0.1:80"]),
            ("https://[::]:8443", &["https://[::1]:8443"]),
            ("app:http", &["app:80"]),
            ("tcp://app:81", &["app:81"]),
            ("wss://app", &["https://app:443"]),
            ("grpc://app:50051", &["h2c://app:50051"]),
            ("ftp://app:21", &[]),
            (" app:80 ", &["app:80"]),
            ("app:80 weight=5", &["app:80"]),
            ("app:0", &[]),
            ("/run/app.sock", &["unix:/run/app.sock"]),
            ("http://unix:/run/app.sock", &["unix:/run/app.sock"]),
            ("unix:app.sock weight=5", &["unix:/run/app.sock"]),
            ("${BACKEND}:80", &[]),
            ("{env.APP}", &[]),
        ];
        for (text, expected) in cases {
            let error = parse_address(text).expect_err(text);
            let found: Vec<&str> = error.suggested().collect();
            assert_eq!(found, expected, "{text}");
            assert!(found.iter().all(|text| parse_address(text).is_ok()), "{text}");
        }
    }
}
