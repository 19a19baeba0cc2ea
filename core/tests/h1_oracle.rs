//! Our own way of cutting heads into lines, beside httparse: what both read they read alike, and what it
//! alone takes is one of the leniencies that we do without.

use proptest::prelude::*;
use ruststrom_core::h1::{
    FieldIndex, HeadLimits, ResponseContext, parse_request_prefix, parse_response_prefix,
};
use ruststrom_core::http::Version;

const LIMITS: HeadLimits = HeadLimits { head_bytes: 8192, fields: 40, target_bytes: 4096 };

type Lines = Vec<(Vec<u8>, Vec<u8>)>;

/// Pieces that heads are made of, good and bad: mostly good ones, or nothing would get far.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        Just("Host"),
        Just("A"),
        Just("Content-Length"),
        Just("X-Quite-A-Long-Name-Of-A-Field"),
        Just("dAtE"),
        Just("te")
    ];
    let good = (
        name,
        prop_oneof![Just(": "), Just(":"), Just(":\t "), Just(":  ")],
        "[ -~]{0,40}",
        prop_oneof![4 => Just(""), 1 => Just(" \t")],
    );
    let bytes = prop::collection::vec(
        prop_oneof![6 => 0x20..0x7f_u8, 2 => any::<u8>(), 1 => Just(b':'), 1 => Just(b'\r'), 1 => Just(b'\n')],
        0..12,
    );
    prop_oneof![
        20 => good.prop_map(|(name, colon, value, blanks)| format!("{name}{colon}{value}{blanks}\r\n").into_bytes()),
        1 => (bytes.clone(), bytes.clone()).prop_map(|(a, b)| [&a[..], b": ", &b, b"\r\n"].concat()),
        1 => bytes,
        1 => Just(b"A : b\r\n".to_vec()),
        1 => any::<u8>().prop_map(|b| [b"Content", &[b][..], b"Length: 1\r\n"].concat()),
    ]
}

fn head(line: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (
        line,
        prop::collection::vec(piece(), 0..8),
        prop_oneof![6 => Just("\r\n"), 1 => Just("\n"), 1 => Just("")],
        prop::collection::vec(any::<u8>(), 0..20),
    )
        .prop_map(|(line, pieces, end, rest)| [line, pieces.concat(), end.as_bytes().to_vec(), rest].concat())
}

fn request_line() -> impl Strategy<Value = Vec<u8>> {
    let method = prop_oneof![8 => Just("GET".to_owned()), 1 => "[!-~]{0,12}"];
    let version = prop_oneof![8 => Just("HTTP/1.1"), 2 => Just("HTTP/1.0"), 1 => Just("HTTP/1.2"), 1 => Just("HTTP/1"), 1 => Just("a")];
    let end = prop_oneof![8 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r")];
    (method, "/[!-~]{0,30}", version, end)
        .prop_map(|(method, target, version, end)| format!("{method} {target} {version}{end}").into_bytes())
}

fn status_line() -> impl Strategy<Value = Vec<u8>> {
    let version = prop_oneof![8 => Just("HTTP/1.1"), 2 => Just("HTTP/1.0"), 1 => Just("HTTP/2.0")];
    let status = prop_oneof![8 => "[1-9][0-9][0-9]", 1 => "[0-9a]{1,4}"];
    let reason = prop_oneof![4 => " [ -~\t]{0,20}", 1 => Just(String::new()), 1 => "[ -\u{ff}]{0,5}"];
    (version, status, reason)
        .prop_map(|(version, status, reason)| format!("{version} {status}{reason}\r\n").into_bytes())
}

fn lines(headers: &[httparse::Header<'_>]) -> Lines {
    headers.iter().map(|h| (h.name.as_bytes().to_vec(), h.value.to_vec())).collect()
}

/// Only CRLF ends a line of ours.
fn has_bare_lf(head: &[u8]) -> bool {
    head.iter().enumerate().any(|(at, &b)| b == b'\n' && (at == 0 || head[at - 1] != b'\r'))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn requests(bytes in head(request_line())) {
        let mut room = [httparse::EMPTY_HEADER; 40];
        let mut theirs = httparse::Request::new(&mut room);
        let read = theirs.parse(&bytes);
        let (mut store, mut scratch) = (FieldIndex::new(), Vec::new());
        let ours = parse_request_prefix(&bytes, &mut store, &LIMITS, &mut scratch);
        if let Ok(Some((ours, n))) = &ours {
            prop_assert_eq!(read, Ok(httparse::Status::Complete(*n)));
            prop_assert_eq!(ours.method.as_str(), theirs.method.unwrap_or_default());
            prop_assert_eq!(ours.target.raw, theirs.path.unwrap_or_default().as_bytes());
            prop_assert_eq!(ours.version == Version::HTTP_11, theirs.version == Some(1));
            prop_assert_eq!(ours.fields.iter().map(|f| (f.name.to_vec(), f.value.to_vec())).collect::<Lines>(), lines(theirs.headers));
        }
        if let (Ok(None), Ok(httparse::Status::Complete(n))) = (&ours, read) {
            prop_assert!(false, "we wait, but {} is a head", bytes[..n].escape_ascii());
        }
        if let (Err(ruststrom_core::h1::ParseError::Malformed), Ok(httparse::Status::Complete(n))) = (&ours, read) {
            prop_assert!(has_bare_lf(&bytes[..n]), "only httparse reads {}", bytes[..n].escape_ascii());
        }
    }

    #[test]
    fn responses(bytes in head(status_line())) {
        let mut room = [httparse::EMPTY_HEADER; 40];
        let mut theirs = httparse::Response::new(&mut room);
        let mut config = httparse::ParserConfig::default();
        config.allow_spaces_after_header_name_in_responses(true);
        let read = config.parse_response(&mut theirs, &bytes);
        let mut store = FieldIndex::new();
        let ours = parse_response_prefix(&bytes, &mut store, &LIMITS, ResponseContext::default());
        if let Ok(Some((ours, n))) = &ours {
            prop_assert_eq!(read, Ok(httparse::Status::Complete(*n)));
            prop_assert_eq!(Some(ours.status.as_u16()), theirs.code);
            prop_assert_eq!(ours.version == Version::HTTP_11, theirs.version == Some(1));
            // It shows no reason beyond ASCII.
            let reason = theirs.reason.unwrap_or_default().as_bytes();
            prop_assert!(ours.reason == reason || !ours.reason.is_ascii(), "{:?} {reason:?}", ours.reason);
            prop_assert_eq!(ours.fields.iter().map(|f| (f.name.to_vec(), f.value.to_vec())).collect::<Lines>(), lines(theirs.headers));
        }
        if let (Ok(None), Ok(httparse::Status::Complete(n))) = (&ours, read) {
            prop_assert!(false, "we wait, but {} is a head", bytes[..n].escape_ascii());
        }
        if let (Err(ruststrom_core::h1::ParseError::Malformed), Ok(httparse::Status::Complete(n))) = (&ours, read) {
            prop_assert!(has_bare_lf(&bytes[..n]), "only httparse reads {}", bytes[..n].escape_ascii());
        }
    }
}
