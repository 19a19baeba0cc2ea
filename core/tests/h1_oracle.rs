//! The parser of heads beside the naive one of `fuzz/`, which has the rules from the RFCs the long way round:
//! both accept the same heads and read them alike, and no whole head is waited for.

use proptest::prelude::*;
use ruststrom_core::h1::{
    FieldIndex, HeadLimits, ResponseContext, parse_request_prefix, parse_response_prefix,
};
use ruststrom_core::http::Version;

#[path = "../../fuzz/src/bodies/naive.rs"]
#[allow(dead_code, reason = "shared with the fuzz targets")]
mod naive;

const LIMITS: HeadLimits = HeadLimits { head_bytes: 8192, fields: 8, target_bytes: 30 };

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
    let sign = prop::sample::select(b":\r\n".to_vec());
    let byte = prop_oneof![6 => 0x20..0x7f_u8, 2 => any::<u8>(), 3 => sign];
    let bytes = prop::collection::vec(byte, 0..12);
    prop_oneof![
        20 => good.prop_map(|(name, colon, value, blanks)| {
            format!("{name}{colon}{value}{blanks}\r\n").into_bytes()
        }),
        1 => (bytes.clone(), bytes.clone()).prop_map(|(a, b)| [&a[..], b": ", &b, b"\r\n"].concat()),
        1 => bytes,
        1 => Just(b"A : b\r\n".to_vec()),
        4 => meaning(),
        1 => any::<u8>().prop_map(|b| [b"Content", &[b][..], b"Length: 1\r\n"].concat()),
    ]
}

/// Lines that change what a head means.
fn meaning() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just("Host: a.example\r\n"),
        Just("Content-Length: 3\r\n"),
        Just("Content-Length:0000000000000000000003\r\n"),
        Just("Content-Length: 9223372036854775808\r\n"),
        Just("Transfer-Encoding: chunked\r\n"),
        Just("Transfer-Encoding: gzip, chunked\r\n"),
        Just("Connection: close\r\n"),
        Just("Connection: keep-alive, A, Host\r\n"),
        Just("Connection: upgrade\r\n"),
        Just("Upgrade: websocket\r\n"),
        Just("Expect: 100-continue\r\n"),
        Just("Expect: a\r\n"),
    ]
    .prop_map(|line| line.as_bytes().to_vec())
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
    let wrong = prop::sample::select(vec!["HTTP/1.2", "HTTP/1", "a"]);
    let version = prop_oneof![8 => Just("HTTP/1.1"), 2 => Just("HTTP/1.0"), 3 => wrong];
    let end = prop_oneof![8 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r")];
    let host = prop_oneof![4 => Just("Host: h\r\n"), 1 => Just("")];
    (method, "/[!-~]{0,30}", version, end, host).prop_map(|(method, target, version, end, host)| {
        format!("{method} {target} {version}{end}{host}").into_bytes()
    })
}

fn status_line() -> impl Strategy<Value = Vec<u8>> {
    let version = prop_oneof![8 => Just("HTTP/1.1"), 2 => Just("HTTP/1.0"), 1 => Just("HTTP/2.0")];
    let status = prop_oneof![8 => "[1-9][0-9][0-9]", 1 => "[0-9a]{1,4}"];
    let reason = prop_oneof![4 => " [ -~\t]{0,20}", 1 => Just(String::new()), 1 => "[ -\u{ff}]{0,5}"];
    (version, status, reason)
        .prop_map(|(version, status, reason)| format!("{version} {status}{reason}\r\n").into_bytes())
}

type Lines = Vec<(Vec<u8>, Vec<u8>)>;

/// 10 or 11, as the naive parser has it.
fn version_number(version: Version) -> u8 {
    if version == Version::HTTP_11 { 11 } else { 10 }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn requests(bytes in head(request_line())) {
        let (mut index, mut scratch) = (FieldIndex::new(), Vec::new());
        let ours = parse_request_prefix(&bytes, &mut index, &LIMITS, &mut scratch);
        let end = naive::end(&bytes);
        let theirs = end.and_then(|end| naive::request(&bytes[..end], &LIMITS));
        match (ours, theirs) {
            (Ok(Some((ours, n))), Some(theirs)) => {
                prop_assert_eq!(Some(n), end);
                let fields: Lines = ours.fields.iter().map(|f| (f.name.to_vec(), f.value.to_vec())).collect();
                let ours = naive::Request {
                    method: ours.method.as_str().into(),
                    path: ours.target.path.to_vec(),
                    query: ours.target.query.map(<[u8]>::to_vec),
                    host: ours.host.to_vec(),
                    version: version_number(ours.version),
                    fields,
                    framing: ours.framing,
                    keep_alive: ours.keep_alive,
                    expect: ours.expect_continue,
                    upgrade: ours.upgrade.map(<[u8]>::to_vec),
                };
                prop_assert_eq!(ours, theirs);
            }
            (Ok(Some((ours, _))), None) => prop_assert!(false, "accepted against the rules: {ours:?}"),
            (Ok(None), _) => prop_assert!(end.is_none(), "a whole head is waited for"),
            (Err(why), theirs) => prop_assert!(theirs.is_none(), "{why} although {theirs:?}"),
        }
    }

    #[test]
    fn responses(bytes in head(status_line()), of_head in any::<bool>(), upgrade in any::<bool>()) {
        let context = ResponseContext { head: of_head, upgrade };
        let mut index = FieldIndex::new();
        let ours = parse_response_prefix(&bytes, &mut index, &LIMITS, context);
        let end = if bytes.starts_with(b"HTTP/") { naive::end(&bytes) } else { None };
        let theirs = end.and_then(|end| naive::response(&bytes[..end], &LIMITS, context));
        match (ours, theirs) {
            (Ok(Some((ours, n))), Some(theirs)) => {
                prop_assert_eq!(Some(n), end);
                let fields: Lines = ours.fields.iter().map(|f| (f.name.to_vec(), f.value.to_vec())).collect();
                let ours = naive::Response {
                    status: ours.status.as_u16(),
                    reason: ours.reason.to_vec(),
                    version: version_number(ours.version),
                    fields,
                    framing: ours.framing,
                    keep_alive: ours.keep_alive,
                    upgrade: ours.upgrade.map(<[u8]>::to_vec),
                };
                prop_assert_eq!(ours, theirs);
            }
            (Ok(Some((ours, _))), None) => prop_assert!(false, "accepted against the rules: {ours:?}"),
            (Ok(None), _) => prop_assert!(end.is_none(), "a whole head is waited for"),
            (Err(why), theirs) => prop_assert!(theirs.is_none(), "{why} although {theirs:?}"),
        }
    }
}
