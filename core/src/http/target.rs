//! Request targets (RFC 9112 §3.2) and hosts (RFC 9110 §7.2).
//!
//! What is refused: control characters, blanks, bytes beyond ASCII and `#` anywhere; in the path also `\`,
//! broken escapes, `%00`, and dot segments that climb above the root, now or once a backend decodes `%2F` and
//! `%5C`. What passes although RFC 3986 has no place for it: the printable characters ``"<>[]^`{|}``, because
//! browsers send several of them raw and none of them ends, splits or escapes anything. They pass unchanged
//! (RFC 9112 §3.2 advises against correcting a target). The query is passed byte for byte: escapes there are
//! data, and a lone `%` is what browsers make of one that a user typed.

use super::{Method, Violation, hex};

/// The form that a target was sent in (RFC 9112 §3.2). The authority form belongs to CONNECT alone, which is
/// refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `/path?query`.
    Origin,
    /// `http://host/path?query`: its authority wins over `Host`.
    Absolute,
    /// `*`, with OPTIONS only.
    Asterisk,
}

/// The scheme of a target in the absolute form (RFC 9110 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `http:`
    Http,
    /// `https:`: only to be served over a secured connection (RFC 9110 §7.4).
    Https,
}

/// A request target, normalised once: routing, middlewares, logs and forwarding all use this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestTarget<'a> {
    /// The form that it was sent in.
    pub form: Form,
    /// The normalised path: begins with `/`, or is `*`.
    pub path: &'a [u8],
    /// What follows the first `?`, byte for byte as sent.
    pub query: Option<&'a [u8]>,
    /// The scheme of the absolute form.
    pub scheme: Option<Scheme>,
    /// The authority of the absolute form.
    pub authority: Option<&'a [u8]>,
    /// `path` or `path?query` in one piece, or `*`: what is forwarded.
    pub normalised: &'a [u8],
    /// Path and query as they were sent: for redirects, which keep them byte for byte.
    pub raw: &'a [u8],
}

/// A host and port, from `Host` or an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host<'a> {
    /// Without port; an IPv6 address keeps its brackets. Compare without regard to case.
    pub name: &'a [u8],
    /// The port, if one was given.
    pub port: Option<u16>,
}

/// Bits of [`CLASS`].
const BAD: u8 = 1;
const ESCAPE: u8 = 2;
const DOT: u8 = 4;
const BACKSLASH: u8 = 16;
const UNRESERVED: u8 = 32;
const REG_NAME: u8 = 64;
const QUESTION: u8 = 128;

/// The class of each byte in a target or host.
static CLASS: [u8; 256] = {
    let mut table = [BAD; 256];
    let mut b = 0x21;
    while b < 0x7f {
        table[b] = 0;
        b += 1;
    }
    let mut b = 0;
    while b < 128 {
        let c = b as u8;
        if c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_' | b'~') {
            table[b] |= UNRESERVED | REG_NAME;
        }
        // RFC 3986 §2.2, sub-delims.
        if matches!(c, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=') {
            table[b] |= REG_NAME;
        }
        b += 1;
    }
    table[b'#' as usize] |= BAD;
    table[b'%' as usize] |= ESCAPE;
    table[b'.' as usize] |= DOT;
    table[b'?' as usize] |= QUESTION;
    table[b'\\' as usize] |= BACKSLASH;
    table
};

impl<'a> RequestTarget<'a> {
    /// The target `raw` of a method other than CONNECT, if it is a path in which nothing has to be changed,
    /// without a query: one look at each byte is enough.
    #[inline(always)]
    pub(crate) fn plain_path(raw: &'a [u8]) -> Option<Self> {
        if raw.first() != Some(&b'/') {
            return None;
        }
        let seen = raw.iter().fold(0, |seen, &b| seen | CLASS[b as usize]);
        (seen & (BAD | BACKSLASH | ESCAPE | QUESTION | DOT) == 0).then_some(Self {
            form: Form::Origin,
            path: raw,
            query: None,
            scheme: None,
            authority: None,
            normalised: raw,
            raw,
        })
    }

    /// Parses a request target. Borrows from `raw` if nothing has to be changed, else writes the normalised
    /// form into `scratch`, which it clears.
    ///
    /// # Errors
    /// The rule that the target breaks.
    pub fn parse(method: &Method, raw: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<Self, Violation> {
        match raw.first() {
            _ if *method == Method::CONNECT => Err(Violation::Connect),
            Some(b'/') => Self::normalise(Form::Origin, None, raw, scratch),
            Some(b'*') if raw.len() == 1 && *method == Method::OPTIONS => {
                Ok(Self::asterisk(Form::Asterisk, None, raw))
            }
            _ => Self::absolute(method, raw, scratch),
        }
    }

    fn asterisk(form: Form, authority: Option<&'a [u8]>, raw: &'a [u8]) -> Self {
        Self { form, path: b"*", query: None, scheme: None, authority, normalised: b"*", raw }
    }

    /// RFC 9112 §3.2.2. Userinfo is refused (RFC 9110 §4.2.4), so is an empty host (§4.2.1).
    #[cold]
    fn absolute(method: &Method, raw: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<Self, Violation> {
        let schemes = [(Scheme::Http, &b"http://"[..]), (Scheme::Https, b"https://")];
        let begins = |s: &[u8]| raw.get(..s.len()).is_some_and(|r| r.eq_ignore_ascii_case(s));
        let (scheme, prefix) = schemes.into_iter().find(|(_, s)| begins(s)).ok_or(Violation::Target)?;
        let rest = &raw[prefix.len()..];
        let end = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#')).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        if !valid_host(authority) {
            return Err(Violation::Host);
        }
        if rest.is_empty() && *method == Method::OPTIONS {
            // RFC 9112 §3.2.4: the last proxy sends `*` instead.
            return Ok(Self {
                scheme: Some(scheme),
                ..Self::asterisk(Form::Absolute, Some(authority), rest)
            });
        }
        let target = Self::normalise(Form::Absolute, Some(authority), rest, scratch)?;
        Ok(Self { scheme: Some(scheme), ..target })
    }

    /// `raw` is path and query. The path is empty only in the absolute form, and then becomes `/` (RFC 9110
    /// §4.2.3).
    fn normalise(
        form: Form,
        authority: Option<&'a [u8]>,
        raw: &'a [u8],
        scratch: &'a mut Vec<u8>,
    ) -> Result<Self, Violation> {
        let seen = raw.iter().fold(0, |seen, &b| seen | CLASS[b as usize]);
        let hidden = seen & DOT != 0 && raw.windows(2).any(|pair| pair == b"/.");
        if seen & (BAD | BACKSLASH | ESCAPE | QUESTION) == 0 && !hidden && !raw.is_empty() {
            return Ok(Self { form, path: raw, query: None, scheme: None, authority, normalised: raw, raw });
        }
        let (path, rest) = raw.split_at(memchr::memchr(b'?', raw).unwrap_or(raw.len()));
        let in_path = path.iter().fold(0, |seen, &b| seen | CLASS[b as usize]);
        if seen & BAD != 0 || in_path & BACKSLASH != 0 {
            return Err(Violation::Target);
        }
        let query = rest.split_first().map(|(_, query)| query);
        if !path.is_empty() && in_path & ESCAPE == 0 && (!hidden || !has_dot_segment(path)) {
            return Ok(Self { form, path, query, scheme: None, authority, normalised: raw, raw });
        }
        scratch.clear();
        rewrite(path, scratch)?;
        let end = scratch.len();
        scratch.extend_from_slice(rest);
        let normalised: &'a [u8] = scratch;
        Ok(Self { form, path: &normalised[..end], query, scheme: None, authority, normalised, raw })
    }
}

fn has_dot_segment(path: &[u8]) -> bool {
    path.split(|&b| b == b'/').any(|segment| matches!(segment, b"." | b".."))
}

/// RFC 3986 §6.2.2: escapes of unreserved characters are decoded, the hex of the others made upper case, dot
/// segments (also escaped ones) removed. Linear: a segment is popped at most once.
fn rewrite(path: &[u8], out: &mut Vec<u8>) -> Result<(), Violation> {
    let mut segments = path.strip_prefix(b"/").unwrap_or(path).split(|&b| b == b'/').peekable();
    while let Some(segment) = segments.next() {
        let mark = out.len();
        out.push(b'/');
        let escaped_slash = decode(segment, out)?;
        let last = segments.peek().is_none();
        match &out[mark + 1..] {
            b"." => out.truncate(mark),
            b".." => {
                out.truncate(mark);
                let parent = memchr::memrchr(b'/', out).ok_or(Violation::TargetClimbs)?;
                out.truncate(parent);
            }
            // A backend that decodes `%2F` or `%5C` would see a dot segment here.
            written if escaped_slash && has_hidden_dot_segment(written) => {
                return Err(Violation::TargetClimbs);
            }
            _ => continue,
        }
        if last {
            out.push(b'/');
        }
    }
    Ok(())
}

/// Appends one segment with its escapes decoded or in upper case; returns whether an escaped `/` or `\` is in
/// it.
fn decode(segment: &[u8], out: &mut Vec<u8>) -> Result<bool, Violation> {
    let mut escaped_slash = false;
    let mut rest = segment;
    while let Some(at) = memchr::memchr(b'%', rest) {
        out.extend_from_slice(&rest[..at]);
        let value = rest.get(at + 1..at + 3).and_then(hex::byte).filter(|&value| value != 0);
        let value = value.ok_or(Violation::TargetEscape)?;
        if CLASS[value as usize] & UNRESERVED != 0 {
            out.push(value);
        } else {
            escaped_slash |= matches!(value, b'/' | b'\\');
            out.push(b'%');
            out.extend_from_slice(&hex::upper(value));
        }
        rest = &rest[at + 3..];
    }
    out.extend_from_slice(rest);
    Ok(escaped_slash)
}

fn has_hidden_dot_segment(mut segment: &[u8]) -> bool {
    loop {
        let end = segment.windows(3).position(|w| matches!(w, b"%2F" | b"%5C"));
        if matches!(&segment[..end.unwrap_or(segment.len())], b"." | b"..") {
            return true;
        }
        let Some(end) = end else { return false };
        segment = &segment[end + 3..];
    }
}

impl<'a> Host<'a> {
    /// Splits and checks `uri-host [":" port]` (RFC 9110 §7.2). An empty name is none: `http` URIs have no
    /// such host (§4.2.1).
    #[must_use]
    #[inline]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        // Most have no escapes.
        let end = value.iter().position(|&b| CLASS[b as usize] & REG_NAME == 0).unwrap_or(value.len());
        match &value[end..] {
            [] if end > 0 => Some(Self { name: value, port: None }),
            [b':', digits @ ..] if end > 0 => Self::with_port(&value[..end], digits),
            _ => Self::parse_slowly(value),
        }
    }

    /// With the port that comes behind the colon, perhaps none.
    #[inline]
    fn with_port(name: &'a [u8], digits: &[u8]) -> Option<Self> {
        if digits.len() > 5 {
            return None;
        }
        let mut port = 0;
        for &d in digits {
            port = port * 10 + u32::from(d.is_ascii_digit().then(|| d - b'0')?);
        }
        let port = if digits.is_empty() { None } else { Some(u16::try_from(port).ok()?) };
        Some(Self { name, port })
    }

    fn parse_slowly(value: &'a [u8]) -> Option<Self> {
        let (name, rest) = if value.first() == Some(&b'[') {
            let end = memchr::memchr(b']', value)?;
            // Only IPv6: there is no later version (RFC 3986 §3.2.2).
            std::str::from_utf8(&value[1..end]).ok()?.parse::<std::net::Ipv6Addr>().ok()?;
            value.split_at(end + 1)
        } else {
            let (mut end, mut seen) = (value.len(), 0);
            for (at, &b) in value.iter().enumerate() {
                let class = CLASS[b as usize];
                if class & (REG_NAME | ESCAPE) == 0 {
                    end = at;
                    break;
                }
                seen |= class;
            }
            let (name, rest) = value.split_at(end);
            if seen & ESCAPE != 0 && !good_escapes(name) {
                return None;
            }
            (name, rest)
        };
        if name.is_empty() {
            return None;
        }
        match rest {
            [] => Some(Self { name, port: None }),
            [b':', digits @ ..] => Self::with_port(name, digits),
            _ => None,
        }
    }
}

fn good_escapes(name: &[u8]) -> bool {
    memchr::memchr_iter(b'%', name)
        .all(|at| name.get(at + 1..at + 3).and_then(hex::byte).is_some_and(|value| value != 0))
}

/// Whether a `Host` field value or an authority is one.
#[inline]
#[must_use]
pub fn valid_host(value: &[u8]) -> bool {
    Host::parse(value).is_some()
}

#[cfg(test)]
mod tests {
    use super::{Form, Host, RequestTarget, Scheme};
    use crate::http::{Method, Violation};

    /// `normalised`, or the violation.
    fn origin(raw: &str) -> Result<String, Violation> {
        let mut scratch = Vec::new();
        let t = RequestTarget::parse(&Method::GET, raw.as_bytes(), &mut scratch)?;
        let whole = [t.path, if t.query.is_some() { b"?" } else { b"" }, t.query.unwrap_or(b"")].concat();
        assert_eq!(whole, t.normalised, "{raw}");
        assert_eq!(t.raw, raw.as_bytes());
        Ok(String::from_utf8(t.normalised.to_vec()).unwrap())
    }

    #[test]
    fn normalised() {
        let table = [
            ("/", "/"),
            ("/?", "/?"),
            ("/a/b.css?x=1", "/a/b.css?x=1"),
            ("/a//b///", "/a//b///"),
            ("//", "//"),
            // Escapes.
            ("/%41%7a%2D%2e%5f%7E", "/Az-._~"),
            ("/%2f%3a%c3%a4%20", "/%2F%3A%C3%A4%20"),
            ("/%25%34%31", "/%2541"),
            ("/a%5cb", "/a%5Cb"),
            ("/%0d%0a", "/%0D%0A"),
            // Dot segments.
            ("/.", "/"),
            ("/./", "/"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/a/../", "/"),
            ("/a/b/../c", "/a/c"),
            ("/a/b/../../c", "/c"),
            ("/a/./b", "/a/b"),
            ("/a//../b", "/a/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/a/%2e/b", "/a/b"),
            ("/.a/..b/c./d../...", "/.a/..b/c./d../..."),
            ("/a%2Fb/../c", "/c"),
            ("/..;/a", "/..;/a"),
            // Dots after the question mark are data, so is everything else there.
            ("/a?/../b", "/a?/../b"),
            ("/a/../b?/../%41%zz%00%", "/b?/../%41%zz%00%"),
            ("/a??b?", "/a??b?"),
            ("/?\\", "/?\\"),
            // Printable, if not in RFC 3986.
            ("/a|b\"<>[]^`{}", "/a|b\"<>[]^`{}"),
            ("/?a|b\"<>[]^`{}", "/?a|b\"<>[]^`{}"),
        ];
        for (raw, expected) in table {
            assert_eq!(origin(raw).as_deref(), Ok(expected), "{raw}");
            // Normalising twice changes nothing.
            assert_eq!(origin(expected).as_deref(), Ok(expected), "{raw}");
        }
    }

    #[test]
    fn refused() {
        use Violation::{Target as T, TargetClimbs as C, TargetEscape as E};
        let table = [
            ("", T),
            ("a", T),
            ("*", T),
            ("/#", T),
            ("/?#", T),
            ("/a b", T),
            ("/a\tb", T),
            ("/\u{7f}", T),
            ("/ä", T),
            ("/?ä", T),
            ("/a\\b", T),
            ("/\\..\\b", T),
            ("/%", E),
            ("/%4", E),
            ("/%4/1", E),
            ("/%zz", E),
            ("/%00", E),
            ("/a%00?", E),
            ("/..", C),
            ("/../a", C),
            ("/a/../..", C),
            ("/a/../../b", C),
            ("/%2e%2e/a", C),
            ("/a/..%2fb", C),
            ("/a%2f..", C),
            ("/a%5C..%5Cb", C),
            ("/a/%2e%2e%2fb", C),
            ("/.%2fa", C),
            ("/a/b%2f.%2fc", C),
            ("a.example:80", T),
            ("ftp://a/", T),
            ("http:/a", T),
            ("http:a", T),
            ("http://", Violation::Host),
            ("http:///a", Violation::Host),
            ("http://u@a/", Violation::Host),
            ("http://:80/", Violation::Host),
            ("http://a:b/", Violation::Host),
            ("http://a#b", T),
        ];
        for (raw, expected) in table {
            assert_eq!(origin(raw), Err(expected), "{raw}");
        }
        for method in ["CONNECT", "connect"] {
            let refused =
                RequestTarget::parse(&method.parse().unwrap(), b"a.example:443", &mut Vec::new()).map(|_| ());
            assert_eq!(refused, Err(if method == "CONNECT" { Violation::Connect } else { T }));
        }
    }

    #[test]
    fn other_forms() {
        // method, target, form, authority, normalised, raw
        let table = [
            ("OPTIONS", "*", Form::Asterisk, None, "*", "*"),
            ("GET", "http://a.example", Form::Absolute, Some("a.example"), "/", ""),
            (
                "GET",
                "HTTPS://A.example:8443/x/../y?z",
                Form::Absolute,
                Some("A.example:8443"),
                "/y?z",
                "/x/../y?z",
            ),
            ("GET", "http://a.example?q", Form::Absolute, Some("a.example"), "/?q", "?q"),
            ("GET", "http://[::1]:80/", Form::Absolute, Some("[::1]:80"), "/", "/"),
            ("OPTIONS", "http://a.example", Form::Absolute, Some("a.example"), "*", ""),
            ("OPTIONS", "http://a.example/", Form::Absolute, Some("a.example"), "/", "/"),
            ("OPTIONS", "http://a.example?q", Form::Absolute, Some("a.example"), "/?q", "?q"),
        ];
        for (method, sent, form, authority, normalised, raw) in table {
            let mut scratch = Vec::new();
            let t = RequestTarget::parse(&method.parse().unwrap(), sent.as_bytes(), &mut scratch).unwrap();
            let scheme = (form == Form::Absolute).then_some(if sent.starts_with("HTTPS") {
                Scheme::Https
            } else {
                Scheme::Http
            });
            assert_eq!(t.scheme, scheme, "{sent}");
            let found = (t.form, t.authority, t.normalised, t.raw);
            assert_eq!(
                found,
                (form, authority.map(str::as_bytes), normalised.as_bytes(), raw.as_bytes()),
                "{sent}"
            );
        }
    }

    #[test]
    fn unchanged_targets_are_borrowed() {
        let mut scratch = b"untouched".to_vec();
        RequestTarget::parse(&Method::GET, b"/a/b.c/..d?e=%41", &mut scratch).unwrap();
        assert_eq!(scratch, b"untouched");
    }

    #[test]
    fn hosts() {
        type Split = Option<(&'static str, Option<u16>)>;
        let table: &[(&str, Split)] = &[
            ("a.example", Some(("a.example", None))),
            ("a.example:80", Some(("a.example", Some(80)))),
            ("a.example:", Some(("a.example", None))),
            ("127.0.0.1:65535", Some(("127.0.0.1", Some(65535)))),
            ("a_b-c~d!$&'()*+,;=", Some(("a_b-c~d!$&'()*+,;=", None))),
            ("a%41", Some(("a%41", None))),
            ("[::1]", Some(("[::1]", None))),
            ("[2001:db8::1]:8080", Some(("[2001:db8::1]", Some(8080)))),
            ("[::ffff:1.2.3.4]:1", Some(("[::ffff:1.2.3.4]", Some(1)))),
            ("", None),
            (":80", None),
            ("a:65536", None),
            ("a:123456", None),
            ("a:-1", None),
            ("a:b", None),
            ("a:1:2", None),
            ("a b", None),
            ("a@b", None),
            ("a/b", None),
            ("a?b", None),
            ("a#b", None),
            ("a\\b", None),
            ("a<b", None),
            ("a%4", None),
            ("a%zz", None),
            ("a%00", None),
            ("ä", None),
            ("::1", None),
            ("[::1", None),
            ("[::1]x", None),
            ("[::g]", None),
            ("[v1.a]", None),
            ("[fe80::1%25eth0]", None),
            ("[]", None),
        ];
        for (value, expected) in table {
            let found = Host::parse(value.as_bytes()).map(|h| (h.name, h.port));
            assert_eq!(found, expected.map(|(name, port)| (name.as_bytes(), port)), "{value}");
        }
    }
}
