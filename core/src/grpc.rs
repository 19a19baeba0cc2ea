//! What gRPC over HTTP/2 asks of a proxy beside passing its calls on: errors of our own as the statuses of
//! gRPC, and the deadline of a call. What a call says is not looked at.

use std::time::Duration;

use crate::cause::Cause;
use crate::http::{HeaderKind, RequestHead};

/// The media type of calls and their responses; a message format follows it behind a `+`.
pub const MEDIA_TYPE: &[u8] = b"application/grpc";

/// The fields by which a response says how a call has ended.
pub const STATUS_FIELD: &[u8] = b"grpc-status";
/// The field that says it to people.
pub const MESSAGE_FIELD: &[u8] = b"grpc-message";

/// How a call has ended, of those that a proxy has reason for. The numbers are those of gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Nobody knows why.
    Unknown = 2,
    /// It took longer than its client gave it.
    DeadlineExceeded = 4,
    /// Its client may not do that.
    PermissionDenied = 7,
    /// Too much of something, or too often.
    ResourceExhausted = 8,
    /// There is no such method.
    Unimplemented = 12,
    /// Something is broken.
    Internal = 13,
    /// Nobody can serve it now.
    Unavailable = 14,
    /// Its client has not said who it is.
    Unauthenticated = 16,
}

impl Status {
    /// That of an error of our own with this status of HTTP. It is what gRPC's table says of errors without a
    /// status, but that what is too large or too often says so, and that a time that has passed is a
    /// deadline.
    #[must_use]
    pub fn of(http: u16, cause: Option<Cause>) -> Self {
        match http {
            _ if cause == Some(Cause::DeadlineExceeded) => Self::DeadlineExceeded,
            400 | 500 => Self::Internal,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 | 501 => Self::Unimplemented,
            408 => Self::DeadlineExceeded,
            413 | 414 | 429 | 431 => Self::ResourceExhausted,
            502..=504 => Self::Unavailable,
            _ => Self::Unknown,
        }
    }

    /// As `grpc-status` has it.
    #[must_use]
    pub fn digits(self) -> &'static str {
        match self {
            Self::Unknown => "2",
            Self::DeadlineExceeded => "4",
            Self::PermissionDenied => "7",
            Self::ResourceExhausted => "8",
            Self::Unimplemented => "12",
            Self::Internal => "13",
            Self::Unavailable => "14",
            Self::Unauthenticated => "16",
        }
    }
}

/// Whether a request is a call. gRPC-Web, whose errors browsers read from the content, is another protocol.
#[must_use]
pub fn is_call(head: &RequestHead) -> bool {
    let media_type = head.fields().get(HeaderKind::ContentType).unwrap_or_default();
    let Some((name, rest)) = media_type.split_at_checked(MEDIA_TYPE.len()) else { return false };
    name.eq_ignore_ascii_case(MEDIA_TYPE) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

/// How long the client of a call waits for it, if it says so. One that says it in no form that gRPC has is
/// taken for one that says nothing; what is said twice is no form.
#[must_use]
pub fn timeout(head: &RequestHead) -> Option<Duration> {
    // Every client of gRPC says that it takes trailers, and hardly anybody else does.
    if !head.te_trailers || !is_call(head) {
        return None;
    }
    let mut said = head.fields().iter().filter(|field| field.name.eq_ignore_ascii_case(b"grpc-timeout"));
    let value = said.next()?.value;
    if said.next().is_some() { None } else { parsed_timeout(value) }
}

/// 1 to 8 digits and a unit.
fn parsed_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let n = digits.iter().fold(0, |n, digit| n * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(n * 3600),
        b'M' => Duration::from_secs(n * 60),
        b'S' => Duration::from_secs(n),
        b'm' => Duration::from_millis(n),
        b'u' => Duration::from_micros(n),
        b'n' => Duration::from_nanos(n),
        _ => return None,
    })
}

/// A text as `grpc-message` has it: what is not printable ASCII, and `%`, is percent-encoded.
#[must_use]
pub fn message(text: &[u8]) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = Vec::with_capacity(text.len());
    for byte in text {
        match byte {
            b' '..=b'~' if *byte != b'%' => out.push(*byte),
            _ => out.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts() {
        let table: [(&str, Option<Duration>); 22] = [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("4m", Some(Duration::from_millis(4))),
            ("5u", Some(Duration::from_micros(5))),
            ("6n", Some(Duration::from_nanos(6))),
            ("0n", Some(Duration::ZERO)),
            ("00000010S", Some(Duration::from_secs(10))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("100000000n", None),
            ("", None),
            ("S", None),
            ("10", None),
            ("1s", None),
            ("1h", None),
            ("+1S", None),
            ("-1S", None),
            (" 1S", None),
            ("1 S", None),
            ("1.5S", None),
            ("1S ", None),
            ("\u{661}S", None),
        ];
        for (value, expected) in table {
            assert_eq!(parsed_timeout(value.as_bytes()), expected, "{value:?}");
        }
    }

    #[test]
    fn messages() {
        let table: [(&[u8], &str); 4] = [
            (b"503 Service Unavailable: no_backend", "503 Service Unavailable: no_backend"),
            (b"100%", "100%25"),
            ("gr\u{fc}n\r\n".as_bytes(), "gr%C3%BCn%0D%0A"),
            (b"\0\x7f~ ", "%00%7F~ "),
        ];
        for (text, expected) in table {
            assert_eq!(message(text), expected.as_bytes());
        }
    }

    #[test]
    fn digits_are_the_numbers() {
        for http in 0..600 {
            let status = Status::of(http, None);
            assert_eq!(status.digits(), (status as u8).to_string());
        }
    }
}
