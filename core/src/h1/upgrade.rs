//! Which protocols an `Upgrade` may switch to (RFC 9110 §7.8).

use memchr::memchr;

use super::framing_fields::{list, trim};

/// Whether a 101 whose `Upgrade` is `accepted` may be followed: every protocol that it names was in
/// `offered`, the `Upgrade` of the request. Versions count where both name one.
#[must_use]
#[cold]
pub fn was_offered(offered: &[u8], accepted: &[u8]) -> bool {
    // The length of the name, and whether a version follows it.
    let parts = |protocol: &[u8]| {
        let slash = memchr(b'/', protocol);
        (slash.unwrap_or(protocol.len()), slash.is_some())
    };
    list(accepted).all(|to| {
        list(offered).any(|from| {
            let ((to_name, to_version), (from_name, from_version)) = (parts(to), parts(from));
            if to_version && from_version {
                to.eq_ignore_ascii_case(from)
            } else {
                to[..to_name].eq_ignore_ascii_case(&from[..from_name])
            }
        })
    })
}

/// Whether a protocol of an `Upgrade` would carry requests past the proxy: HTTP/2 in the clear, HTTP again,
/// or TLS. Such an offer is ignored (RFC 9110 §7.8 allows it), since no rule could be applied to the requests
/// inside the tunnel.
pub(super) fn carries_http(protocols: &[u8]) -> bool {
    list(protocols).any(|protocol| {
        let name = protocol.split(|&b| b == b'/').next().map_or(protocol, trim);
        [&b"h2c"[..], b"h2", b"h3", b"http", b"https", b"tls", b"ssl"]
            .iter()
            .any(|bad| name.eq_ignore_ascii_case(bad))
    })
}
