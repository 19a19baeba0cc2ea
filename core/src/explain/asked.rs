//! The request that is asked about: from a URL and fields to a listener and bytes.

use std::fmt;
use std::net::IpAddr;

use crate::config::{Config, Listener, ListenerKind};
use crate::http::Host;
use crate::time::Wall;

/// A request that is asked about.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The method, as it is to be sent.
    pub method: &'a str,
    /// `http://host/path?query`, the same with `https`, or a bare target such as `/path`, which comes by plain
    /// HTTP and has no host. What follows a `#` is not sent.
    pub url: &'a str,
    /// Field lines, `Name: value` each. A `Host` takes the place of the URL's.
    pub fields: &'a [String],
    /// Who is connected.
    pub peer: IpAddr,
    /// The name of the listener; `None`: the first one that fits the URL.
    pub listener: Option<&'a str>,
    /// The time, for `Date`.
    pub wall: Wall,
    /// The name of this machine, for `X-Forwarded-Server`.
    pub hostname: &'a str,
    /// The place in the configuration of the certificate that a client gets which names this server
    /// (RFC 6066 §3); `None`: none, and the handshake fails.
    pub certificate: &'a dyn Fn(Option<&str>) -> Option<u16>,
}

/// Why a request cannot be sent at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Neither a URL nor a target.
    Url(String),
    /// No listener has this name; here are those that there are.
    UnknownListener(String, Vec<String>),
    /// The admin listener has no pools.
    AdminListener,
    /// The listener serves the other scheme.
    OtherScheme(String, &'static str),
    /// No listener serves this scheme.
    NoListener(&'static str),
    /// A field that is no `Name: value`, or text with a line break.
    Field(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => {
                write!(f, "\"{}\" is no URL; write http://…, https://… or /path", url.escape_debug())
            }
            Self::UnknownListener(name, known) => {
                let name = name.escape_debug();
                write!(f, "there is no listener \"{name}\"; there are: {}", known.join(", "))
            }
            Self::AdminListener => f.write_str("the admin listener serves no pools"),
            Self::OtherScheme(name, scheme) => write!(f, "the listener \"{name}\" does not serve {scheme}"),
            Self::NoListener("https") => {
                f.write_str("no listener serves https; it needs an address and a certificate")
            }
            Self::NoListener(scheme) => write!(f, "no listener serves {scheme}"),
            Self::Field(text) => {
                write!(f, "\"{}\" is no field; write 'Name: value', in one line", text.escape_debug())
            }
        }
    }
}

/// What is sent, and where.
pub(super) struct Sent<'a> {
    pub(super) asked: Asked<'a>,
    /// Place of its listener in the configuration.
    pub(super) listener: u16,
    pub(super) secure: bool,
    /// The host of the URL, without port.
    pub(super) server: &'a str,
    pub(super) host: String,
    pub(super) target: &'a str,
    /// Head and content.
    pub(super) bytes: Vec<u8>,
}

/// Content that a declared length is followed by; of a longer one this much is sent.
const MAX_CONTENT: usize = 64 << 10;

impl<'a> Asked<'a> {
    /// The request as bytes, and the listener that it goes to.
    pub(super) fn sent(&self, config: &Config) -> Result<Sent<'a>, Problem> {
        let url = self.url.split('#').next().unwrap_or_default();
        let (scheme, rest) = match url.split_once("://") {
            Some((scheme, rest)) if !url.starts_with('/') => (scheme, rest),
            _ if url.starts_with('/') || url == "*" => ("", url),
            _ => return Err(Problem::Url(self.url.into())),
        };
        let secure = match &*scheme.to_ascii_lowercase() {
            "https" => true,
            "http" | "" => false,
            _ => return Err(Problem::Url(self.url.into())),
        };
        let (authority, target) = match scheme {
            "" => ("", rest),
            _ => rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len())),
        };
        let parsed = Host::parse(authority.as_bytes());
        let server = parsed.and_then(|host| std::str::from_utf8(host.name).ok()).unwrap_or(authority);
        let port = parsed.and_then(|host| host.port);
        let listener = self.listener(config, secure, port)?;
        let (bytes, host) = self.bytes(authority, target)?;
        let target = if target.is_empty() { "/" } else { target };
        Ok(Sent { asked: *self, listener, secure, server, host, target, bytes })
    }

    fn listener(&self, config: &Config, secure: bool, port: Option<u16>) -> Result<u16, Problem> {
        let (kind, scheme) =
            if secure { (ListenerKind::Https, "https") } else { (ListenerKind::Http, "http") };
        let all = || (0..=u16::MAX).zip(&config.listeners);
        if let Some(name) = self.listener {
            let named = || all().filter(|(_, listener)| *listener.name == *name);
            let Some((_, first)) = named().next() else {
                let mut known: Vec<String> = config.listeners.iter().map(|l| l.name.to_string()).collect();
                known.dedup();
                return Err(Problem::UnknownListener(name.into(), known));
            };
            if first.kind == ListenerKind::Admin {
                return Err(Problem::AdminListener);
            }
            let right = preferred(named().filter(|(_, listener)| listener.kind == kind), port);
            return right.ok_or_else(|| Problem::OtherScheme(name.into(), scheme));
        }
        preferred(all().filter(|(_, listener)| listener.kind == kind), port)
            .ok_or(Problem::NoListener(scheme))
    }

    /// The request, and its host.
    fn bytes(&self, authority: &str, target: &str) -> Result<(Vec<u8>, String), Problem> {
        let has_break = |text: &str| text.contains(['\r', '\n']);
        for text in [self.method, self.url] {
            if has_break(text) {
                return Err(Problem::Url(text.into()));
            }
        }
        let (mut fields, mut host, mut length) = (String::new(), None, 0);
        let mut chunked = false;
        for line in self.fields {
            let Some((name, value)) = line.split_once(':').filter(|_| !has_break(line)) else {
                return Err(Problem::Field(line.clone()));
            };
            match &*name.to_ascii_lowercase() {
                "host" => host = host.or(Some(value.trim().to_owned())),
                "content-length" => length = value.trim().parse::<usize>().unwrap_or(0),
                "transfer-encoding" => chunked = value.trim().eq_ignore_ascii_case("chunked"),
                _ => {}
            }
            fields.push_str(line);
            fields.push_str("\r\n");
        }
        // As clients write it (RFC 9112 §3.2.1).
        let slash = if target.starts_with('/') || target == "*" { "" } else { "/" };
        let mut text = format!("{} {slash}{target} HTTP/1.1\r\n", self.method);
        if host.is_none() && !authority.is_empty() {
            text.push_str(&format!("Host: {authority}\r\n"));
        }
        text.push_str(&fields);
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        match chunked {
            true => bytes.extend_from_slice(b"0\r\n\r\n"),
            false => bytes.resize(bytes.len() + length.min(MAX_CONTENT), b'x'),
        }
        Ok((bytes, host.unwrap_or_else(|| authority.to_owned())))
    }
}

/// The first listener with this port, or else the first.
fn preferred<'c>(
    listeners: impl Iterator<Item = (u16, &'c Listener)> + Clone,
    port: Option<u16>,
) -> Option<u16> {
    let mut same_port = listeners.clone().filter(|(_, listener)| Some(listener.address.port()) == port);
    let mut listeners = listeners;
    same_port.next().or_else(|| listeners.next()).map(|(place, _)| place)
}
