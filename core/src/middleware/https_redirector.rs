//! `HttpsRedirector`: sends clients of plain HTTP to the same place over HTTPS.

use std::num::NonZeroU16;

use http::{Method, StatusCode};

use super::{Action, Ctx, Middleware};
use crate::cause::Cause;
use crate::http::{HeaderKind, Host, Scheme, Violation};
use crate::local_reply::LocalReply;

/// Redirects what did not come by HTTPS.
#[derive(Debug)]
pub(super) struct HttpsRedirector {
    /// The port that locations name; `None`: that of the scheme, which needs no name.
    port: Option<NonZeroU16>,
}

/// Longest name of a host (RFC 1035 §2.3.4), with a final dot.
const MAX_NAME_BYTES: usize = 254;

impl HttpsRedirector {
    /// `port`: where this proxy takes HTTPS.
    pub(super) fn new(port: Option<NonZeroU16>) -> Self {
        Self { port: port.filter(|port| port.get() != 443) }
    }
}

impl Middleware for HttpsRedirector {
    fn on_request(&self, ctx: &mut Ctx<'_>) -> Action {
        if ctx.scheme() == Scheme::Https {
            return Action::Continue;
        }
        let host = ctx.request.host();
        let Some(name) = host_name(host) else {
            let violation = if host.is_empty() { Violation::MissingHost } else { Violation::Host };
            return Action::reply(LocalReply::error(Cause::BadRequest(violation)));
        };
        // Where a trusted proxy says what its client spoke, the client connected to that proxy, and the port
        // of HTTPS is the proxy's.
        let elsewhere = ctx.connection.trusted && ctx.request.field(HeaderKind::XForwardedProto).is_some();
        let port = self.port.filter(|_| !elsewhere);
        let status = match *ctx.request.method() {
            Method::GET | Method::HEAD => StatusCode::MOVED_PERMANENTLY,
            // The method has to stay (RFC 9110 §15.4.9).
            _ => StatusCode::PERMANENT_REDIRECT,
        };
        let target = std::str::from_utf8(ctx.request.sent_target()).unwrap_or("/");
        Action::reply(LocalReply::new(status).with_field("Location", &location(name, port, target)))
    }

    fn sees_responses(&self) -> bool {
        false
    }
}

/// `target`: path and query as they were sent, or `*`, which an authority without a path stands for
/// (RFC 9112 §3.2.4).
fn location(name: &str, port: Option<NonZeroU16>, target: &str) -> String {
    let mut location = ["https://", name].concat();
    if let Some(port) = port {
        location.push(':');
        location.push_str(&port.to_string());
    }
    if target != "*" {
        if target.starts_with('?') {
            location.push('/');
        }
        location.push_str(target);
    }
    location
}

/// The name in an authority, without its port, if nobody can read it as another one: an IPv6 address in
/// brackets, or labels of letters, digits, `-` and `_`. RFC 3986 §3.2.2 allows more, which clients decode or
/// cut off in ways of their own.
fn host_name(authority: &[u8]) -> Option<&str> {
    let name = std::str::from_utf8(Host::parse(authority)?.name).ok()?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let labels = name.strip_suffix('.').unwrap_or(name);
    let good = name.starts_with('[')
        || name.len() <= MAX_NAME_BYTES
            && labels.split('.').all(|label| !label.is_empty() && label.bytes().all(plain));
    good.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations() {
        let table = [
            ("a.test", 443, "/", "https://a.test/"),
            ("a.test", 8443, "/x?y=%7E", "https://a.test:8443/x?y=%7E"),
            ("[2001:db8::1]", 8443, "//b.test/../", "https://[2001:db8::1]:8443//b.test/../"),
            ("a.test", 0, "?q", "https://a.test/?q"),
            ("a.test", 0, "", "https://a.test"),
            ("a.test", 8443, "*", "https://a.test:8443"),
        ];
        for (name, port, target, expected) in table {
            let redirector = HttpsRedirector::new(NonZeroU16::new(port));
            assert_eq!(location(name, redirector.port, target), expected);
        }
    }

    #[test]
    fn only_names_that_everybody_reads_alike() {
        let long = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
        for (authority, name) in [
            ("A.test:80", "A.test"),
            ("a.test.", "a.test."),
            ("a.test.:8080", "a.test."),
            ("a_b-c.test", "a_b-c.test"),
            ("192.0.2.1:", "192.0.2.1"),
            ("[::1]:80", "[::1]"),
            (&long, &long),
        ] {
            assert_eq!(host_name(authority.as_bytes()), Some(name));
        }
        let longer = format!("{long}.eee");
        let bad = ["", ":80", ".", "..", ".a", "a..b", "a%2Fb", "a%41", "a,b", "a;b", "a&b", "a$b", "a'b"];
        let worse =
            ["a@b", "a/b", "a\\b", "a b", "a:b", "a:1:2", "a:65536", "::1", "[::1", "a!", "~a", &longer];
        for authority in bad.iter().chain(&worse) {
            assert_eq!(host_name(authority.as_bytes()), None, "{authority}");
        }
    }
}
