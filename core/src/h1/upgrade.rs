//! Which protocols an `Upgrade` may switch to (RFC 9110 §7.8).

use memchr::{memchr, memmem};

use super::seen::{list, trim};

/// Whether every protocol of `answered`, the `Upgrade` of a 101, was among those of `forwarded`, the head
/// that went to the backend: to anything else it must not switch (RFC 9110 §7.8). A version counts where both
/// name one.
#[must_use]
#[cold]
pub fn was_offered(forwarded: &[u8], responded: &[u8]) -> bool {
    const NAME: &[u8] = b"\r\nUpgrade: ";
    let Some(at) = memmem::find(forwarded, NAME) else { return false };
    let line = &forwarded[at + NAME.len()..];
    let offered = &line[..memchr(b'\r', line).unwrap_or(line.len())];
    let parts = |protocol: &'_ [u8]| -> (usize, bool) {
        let name = memchr(b'/', protocol);
        (name.unwrap_or(protocol.len()), name.is_some())
    };
    list(responded).all(|to| {
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

/// Whether a protocol of an `Upgrade` would carry requests past us: HTTP/2 in the clear, HTTP again, or TLS.
/// Such an offer is ignored (RFC 9110 §7.8 allows it): a tunnel would hide the requests in it from every rule
/// here.
pub(super) fn carries_http(protocols: &[u8]) -> bool {
    list(protocols).any(|protocol| {
        let name = protocol.split(|&b| b == b'/').next().map_or(protocol, trim);
        [&b"h2c"[..], b"h2", b"h3", b"http", b"https", b"tls", b"ssl"]
            .iter()
            .any(|bad| name.eq_ignore_ascii_case(bad))
    })
}
