//! Header fields and trailers that clients and backends add to their messages, and what must become of them.
//! All follow from the id of the exchange, so that both ends know them.

use crate::codings;
use crate::credentials;
use crate::http2::HTTP_2;
use crate::random::mix;

/// A field as one end sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) value: String,
    pub(crate) fate: Fate,
}

/// The fields of a head.
pub(crate) type FieldList = Vec<(&'static str, String)>;

/// What the proxy makes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It arrives as it is.
    Passes,
    /// It belongs to the connection alone, or `Connection` names it.
    HopByHop,
    /// The proxy sets it itself; of a trusted peer it is kept, or continued.
    Forwarding,
}

fn field(name: &'static str, value: impl Into<String>, fate: Fate) -> Field {
    Field { name, value: value.into(), fate }
}

/// The query of a request with its question mark, if it has one.
pub(crate) fn query(id: u64) -> &'static str {
    ["", "", "", "?", "?q=/a/r2&x", "?a=1?b/../c"][mix(id ^ 0x9e7) as usize % 6]
}

/// The further fields of a request of this version, in their order.
pub(crate) fn of_request(id: u64, version: u8) -> Vec<Field> {
    use Fate::{Forwarding, HopByHop, Passes};
    let bits = mix(id ^ 0xf1e1d5);
    let has = |bit: u32, of: u64| (bits >> (bit * 4)) & 15 < of;
    let mut all = Vec::new();
    if has(0, 6) {
        all.push(field("Cookie", format!("c{id}=\"v {id}\"; d=e"), Passes));
    }
    if has(1, 4) {
        all.push(field("x-Multi", format!("one {id}"), Passes));
        all.push(field("Accept", "text/html;q=0.5, */*", Passes));
        all.push(field("x-Multi", format!("two,{id}"), Passes));
    }
    if has(2, 3) {
        all.push(field("Keep-Alive", "timeout=5", HopByHop));
        all.push(field("Proxy-Connection", "keep-alive", HopByHop));
    }
    if has(3, 3) {
        all.push(field("Connection", "x-Nominated, cookie , Authorization", HopByHop));
        all.push(field("X-Nominated", format!("secret {id}"), HopByHop));
        all.push(field("Authorization", format!("Basic {id}"), Passes));
    }
    if has(4, 4) {
        all.push(field("X-Forwarded-For", "203.0.113.9", Forwarding));
        all.push(field("X-Forwarded-Proto", "https", Forwarding));
    }
    if has(5, 3) {
        all.push(field("X_Forwarded_For", "203.0.113.10", Forwarding));
        all.push(field("x-real-ip", "203.0.113.11", Forwarding));
        all.push(field("X-Request-ID", format!("forged-{id}"), Forwarding));
        all.push(field("X-Forwarded_Host", "evil.test", Forwarding));
    }
    if has(6, 3) {
        all.push(field("TE", "trailers, deflate", HopByHop));
    }
    if has(7, 3) {
        all.push(field("x_under_score", format!("{id}"), Passes));
        all.push(field("X-Empty", "", Passes));
    }
    if version == HTTP_2 {
        // There are no fields of a connection (RFC 9113 §8.2.2), but for one that says what is understood.
        all.retain(|f| f.name != "Connection" && (f.fate != HopByHop || f.name == "TE"));
    }
    all
}

/// Those that matter to middlewares of its pool. `credentials`: it needs a name and a password. `codes`: its
/// response may be compressed.
pub(crate) fn for_middlewares(id: u64, credentials: bool, codes: bool) -> Vec<Field> {
    let mut all = Vec::new();
    if credentials {
        let values = credentials::of_request(id).fields;
        all.extend(values.iter().map(|value| field("Authorization", *value, Fate::Passes)));
        all.extend(credentials::claimed_user(id).map(|user| field("x-remote-User", user, Fate::Passes)));
    }
    if codes {
        all.extend(codings::accepted(id).map(|(value, _)| field("Accept-Encoding", value, Fate::Passes)));
    }
    all
}

/// The further fields of a response, in their order.
pub(crate) fn of_response(id: u64) -> Vec<Field> {
    use Fate::{HopByHop, Passes};
    let bits = mix(id ^ 0xa45);
    let has = |bit: u32, of: u64| (bits >> (bit * 4)) & 15 < of;
    let mut all = Vec::new();
    if has(0, 5) {
        all.push(field("Set-Cookie", format!("a={id}; Path=/; HttpOnly"), Passes));
        all.push(field("set-cookie", format!("b=\"{id}\""), Passes));
    }
    if has(1, 4) {
        all.push(field("Server", "sim/1.0 (x)", Passes));
        all.push(field("X-MULTI", format!("one {id}"), Passes));
        all.push(field("X-MULTI", format!("two {id}"), Passes));
    }
    if has(2, 3) {
        all.push(field("Keep-Alive", "timeout=500, max=1000", HopByHop));
    }
    if has(3, 3) {
        all.push(field("Connection", "X-Hop", HopByHop));
        all.push(field("X-Hop", format!("{id}"), HopByHop));
    }
    if has(4, 2) {
        all.push(field("ETag", format!("\"{id}\""), Passes));
        all.push(field("X-Empty", "", Passes));
    }
    all
}

/// Whether a chunked response has trailers.
pub(crate) fn response_has_trailers(id: u64) -> bool {
    mix(id ^ 0x7a11) & 3 == 0
}

/// The trailer section of a chunked message: what is sent of it.
pub(crate) fn trailers(id: u64) -> Vec<String> {
    let mut all = vec![format!("X-Trailer: {id}")];
    if mix(id ^ 0x7a12) & 1 == 0 {
        all.insert(0, "Content-Length: 7".into());
        all.push("Host: evil.test".into());
        all.push("Authorization: Basic x".into());
    }
    all
}

/// The trailers that arrive of a message with these fields: those for framing, routing and authentication do
/// not, and none does if `Connection` names fields, since a trailer might be one of them.
pub(crate) fn passed_trailers(id: u64, head: &[Field]) -> Vec<String> {
    if head.iter().any(|f| f.name == "Connection") { Vec::new() } else { vec![format!("X-Trailer: {id}")] }
}

/// Whether these are the trailers that should be there. `lower`: they have come over HTTP/2.
pub(crate) fn same_trailers(received: &[String], want: &[String], lower: bool) -> bool {
    let lowered = |line: &String| match line.split_once(':') {
        Some((name, value)) => format!("{}:{value}", name.to_ascii_lowercase()),
        None => line.clone(),
    };
    if !lower {
        return received == want;
    }
    received.iter().eq(want.iter().map(lowered).collect::<Vec<_>>().iter())
}

/// The fields of a head that are none of `own`, and those that should be there: what differs, if anything.
/// `lower`: names have come over HTTP/2.
pub(crate) fn difference(
    received: &[(&str, &str)],
    own: &[&str],
    want: &[(&str, String)],
    lower: bool,
) -> Option<String> {
    let is_own = |name: &str| own.iter().any(|o| o.eq_ignore_ascii_case(name));
    let left: Vec<_> = received.iter().filter(|(name, _)| !is_own(name)).copied().collect();
    // The proxy has its own spelling of what it writes itself.
    let is = |n: &str, name: &str| n == name || lower && n == name.to_ascii_lowercase();
    let same = left.len() == want.len()
        && left.iter().zip(want).all(|((n, v), (name, value))| is(n, name) && v == value);
    (!same).then(|| format!("fields {left:?}, not {want:?}"))
}

/// The same where the order among fields of different names does not matter, nor their case.
pub(crate) fn difference_in_any_order(
    received: &[(&str, &str)],
    own: &[&str],
    want: &[(&str, String)],
) -> Option<String> {
    let is_own = |name: &str| own.iter().any(|o| o.eq_ignore_ascii_case(name));
    let mut left: Vec<_> = received
        .iter()
        .filter(|(name, _)| !is_own(name))
        .map(|(name, value)| (name.to_ascii_lowercase(), *value))
        .collect();
    let mut want: Vec<_> = want.iter().map(|(name, value)| (name.to_ascii_lowercase(), &**value)).collect();
    // Stable: the order of one name's fields stays.
    left.sort_by(|a, b| a.0.cmp(&b.0));
    want.sort_by(|a, b| a.0.cmp(&b.0));
    (left != want).then(|| format!("fields {left:?}, not {want:?}"))
}
