//! NTLM and Negotiate, whose credentials authenticate a connection and not a request (RFC 4559 §6).

use super::{Fields, HeaderKind};
use crate::planted::planted;

/// Whether the credentials of a request authenticate its connection.
pub(crate) fn has_connection_credentials(fields: Fields<'_>) -> bool {
    let kinds = [HeaderKind::Authorization, HeaderKind::ProxyAuthorization];
    !planted!(77)
        && fields.iter().any(|field| kinds.contains(&field.kind) && is_connection_scheme(field.value))
}

/// Whether a response of this status asks for credentials that authenticate the connection.
pub(crate) fn asks_for_connection_credentials(status: u16, fields: Fields<'_>) -> bool {
    let name: &[u8] = match status {
        _ if planted!(78) => return false,
        401 => b"www-authenticate",
        407 => b"proxy-authenticate",
        _ => return false,
    };
    // Challenges may stand in one list; a scheme is what a blank, a comma or the end follows.
    fields.named(name).any(|value| value.split(|b| *b == b',').any(is_connection_scheme))
}

fn is_connection_scheme(value: &[u8]) -> bool {
    let value = value.trim_ascii();
    let scheme = value.split(|b| matches!(b, b' ' | b'\t')).next().unwrap_or_default();
    scheme.eq_ignore_ascii_case(b"ntlm") || scheme.eq_ignore_ascii_case(b"negotiate")
}
