//! Which fields may stand in a trailer section.

use super::{Field, HeaderKind, may_be_taken_for};

/// Whether a field of a trailer section may be forwarded (RFC 9110 §6.5.1): none may that frames, routes,
/// authenticates, controls or describes content.
pub(crate) fn may_trail(field: &Field<'_>) -> bool {
    let name = field.name;
    const PREFIXES: [&str; 4] = ["content-", "if-", "x-forwarded-", "proxy-"];
    const NAMES: [&str; 12] = [
        "age",
        "allow",
        "expires",
        "forwarded",
        "http2-settings",
        "location",
        "pragma",
        "range",
        "vary",
        "warning",
        "www-authenticate",
        "accept-ranges",
    ];
    field.kind == HeaderKind::Other
        && !PREFIXES.iter().any(|p| name.get(..p.len()).is_some_and(|n| n.eq_ignore_ascii_case(p.as_bytes())))
        && !NAMES.iter().any(|n| name.eq_ignore_ascii_case(n.as_bytes()))
        // What middlewares say of a client.
        && !may_be_taken_for(name, b"X-Remote-User")
}
