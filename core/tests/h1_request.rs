//! Heads of requests: every rule as a row of input and verdict.

use proptest::prelude::*;
use ruststrom_core::h1::{FieldIndex, HeadLimits, ParsedRequest, find_request_end, parse_request, too_large};
use ruststrom_core::http::{Framing, HeaderKind, Version, Violation as V};

const LIMITS: HeadLimits = HeadLimits { head_bytes: 8192, fields: 20, target_bytes: 100 };

fn with<T>(raw: &[u8], limits: &HeadLimits, look: impl FnOnce(&ParsedRequest<'_>) -> T) -> Result<T, V> {
    let (mut store, mut scratch) = (FieldIndex::new(), Vec::new());
    parse_request(raw, &mut store, limits, &mut scratch).map(|r| look(&r))
}

/// `GET / HTTP/1.1`, `Host: a`, these lines.
fn get(lines: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

fn post(lines: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

#[test]
fn refused() {
    let get10 = |lines: &str| format!("GET / HTTP/1.0\r\n{lines}\r\n");
    let line = |line: &str| format!("{line}\r\nHost: a\r\n\r\n");
    let table: Vec<(String, V)> = vec![
        // RFC 9112 §2.2
        (get("A: b\n"), V::BareLf),
        (get("A: b\r"), V::BareCr),
        (get("A: b\rc\r\n"), V::BareCr),
        ("GET / HTTP/1.1\nHost: a\r\n\r\n".into(), V::BareLf),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n".into(), V::BareLf),
        ("GET / HTTP/1.1\n\nHost: a\r\n\r\n".into(), V::BareLf),
        ("GET / HTTP/1.1\r\r\nHost: a\r\n\r\n".into(), V::BareCr),
        ("GET / HTTP/1.1\rHost: a\r\n\r\n".into(), V::BareCr),
        ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".into(), V::BareLf),
        ("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n".into(), V::BareCr),
        (format!("{}{}", "\r\n".repeat(5), get("")), V::StartLine),
        (" GET / HTTP/1.1\r\nHost: a\r\n\r\n".into(), V::Method),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n".into(), V::ObsFold),
        // §2.3, §3
        (line("GET / HTTP/1.2"), V::Version),
        (line("GET / HTTP/2.0"), V::Version),
        (line("GET / HTTP/0.9"), V::Version),
        (line("GET / HTTP/1.10"), V::StartLine),
        (line("GET / HTTP/11"), V::StartLine),
        (line("GET / http/1.1"), V::StartLine),
        (line("GET / HTTP/1.1 "), V::StartLine),
        (line("GET /"), V::StartLine),
        ("GET / a\r\n\r\n".into(), V::StartLine),
        (line("GET"), V::StartLine),
        (line("GET  / HTTP/1.1"), V::StartLine),
        (line("GET /  HTTP/1.1"), V::StartLine),
        (line("GET\t/ HTTP/1.1"), V::Method),
        (line("GET / a HTTP/1.1"), V::StartLine),
        (line("GE(T / HTTP/1.1"), V::Method),
        (line("\x16\x03\x01 / HTTP/1.1"), V::Method),
        ("PRI * HTTP/2.0\r\n\r\n".into(), V::Version),
        // §3.2
        (line("GET * HTTP/1.1"), V::Target),
        (line("GET a HTTP/1.1"), V::Target),
        (line("GET /\x7f HTTP/1.1"), V::Target),
        (line("GET /ä HTTP/1.1"), V::Target),
        (line("GET /# HTTP/1.1"), V::Target),
        (line("GET /%zz HTTP/1.1"), V::TargetEscape),
        (line("GET /../a HTTP/1.1"), V::TargetClimbs),
        (line(&format!("GET /{} HTTP/1.1", "a".repeat(100))), V::TargetTooLong),
        (line("CONNECT a:443 HTTP/1.1"), V::Connect),
        (line("CONNECT / HTTP/1.1"), V::Connect),
        ("GET / HTTP/1.1\r\n\r\n".into(), V::MissingHost),
        ("GET http://a/ HTTP/1.1\r\n\r\n".into(), V::MissingHost),
        (get("Host: a\r\n"), V::DuplicateHost),
        (get("hOST: b\r\n"), V::DuplicateHost),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n".into(), V::Host),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n".into(), V::Host),
        ("GET / HTTP/1.1\r\nHost: a, a\r\n\r\n".into(), V::Host),
        ("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n".into(), V::Host),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".into(), V::Host),
        ("GET / HTTP/1.1\r\nHost: a:x\r\n\r\n".into(), V::Host),
        ("GET http://a/ HTTP/1.1\r\nHost: a b\r\n\r\n".into(), V::Host),
        ("GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n".into(), V::Host),
        (get10("Host: a b\r\n"), V::Host),
        // §5
        (get("A : b\r\n"), V::BlankBeforeColon),
        (get("Content-Length : 3\r\n"), V::BlankBeforeColon),
        (get("A\t: b\r\n"), V::BlankBeforeColon),
        (get("A: b\r\n c\r\n"), V::ObsFold),
        (get("A: b\r\n\tc: d\r\n"), V::ObsFold),
        (get("A:\r\n b\r\n"), V::ObsFold),
        (get("A\r\n"), V::FieldName),
        (get(": b\r\n"), V::FieldName),
        (get("A(: b\r\n"), V::FieldName),
        (get("Ä: b\r\n"), V::FieldName),
        (get("A\0: b\r\n"), V::FieldName),
        // Nearly the name of a field that no other spelling of passes.
        (get("Content/Length: 0\r\n"), V::FieldName),
        (get("Transfer Encoding: chunked\r\n"), V::FieldName),
        (get("X-Forwarded\0For: b\r\n"), V::FieldName),
        (get("Content\nLength: 0\r\n"), V::BareLf),
        (get("Content\rLength: 0\r\n"), V::BareCr),
        (get("A: \0\r\n"), V::FieldValue),
        (get("A: b\x01c\r\n"), V::FieldValue),
        (get("A: b\x0bc\r\n"), V::FieldValue),
        (get("A: b\x7f\r\n"), V::FieldValue),
        (get(&"A: b\r\n".repeat(20)), V::TooManyFields),
        (get(&format!("A: {}\r\n", "b".repeat(8192))), V::HeadTooLarge),
        (line(&format!("GET /{} HTTP/1.1", "a".repeat(8192))), V::TargetTooLong),
        // The line behind the last field that there is room for is looked at, too.
        (get(&format!("{}A : b\r\n{0}", "A: b\r\n".repeat(19))), V::BlankBeforeColon),
        (get(&format!("{}A: \x01\r\n{0}", "A: b\r\n".repeat(19))), V::FieldValue),
        (get(&format!("{}A: b\n{0}", "A: b\r\n".repeat(19))), V::BareLf),
        (get(&format!("{}A: \x01\r\n{0}", "A: b\r\n".repeat(20))), V::TooManyFields),
        // Limits come before a target with wrong bytes.
        (get(&"A: b\r\n".repeat(20)).replacen('/', "/\x7f", 1), V::TooManyFields),
        (line(&format!("GET /\x7f{} HTTP/1.1", "a".repeat(100))), V::TargetTooLong),
        (line("GET http://a\x7f/ HTTP/1.1"), V::Host),
        // §6
        (post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"), V::LengthWithTransferEncoding),
        (post("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"), V::LengthWithTransferEncoding),
        (post("Transfer-Encoding: \r\nContent-Length: 3\r\n"), V::LengthWithTransferEncoding),
        (post("Content-Length: 3\r\nContent-Length: 4\r\n"), V::SeveralLengths),
        // Every field that says something about the content or this hop, and none besides.
        (
            get10(
                "Transfer-Encoding: chunked\r\nContent-Length: 3\r\nConnection: x\r\nUpgrade: x\r\n\
                 Expect: 100-continue\r\nTE: trailers\r\nMax-Forwards: 3\r\nKeep-Alive: x\r\n",
            ),
            V::TransferEncodingIn10,
        ),
        (post("Content-Length: 3\r\nContent-Length: 3\r\n"), V::SeveralLengths),
        (post("Content-Length: 3, 3\r\n"), V::SeveralLengths),
        (post("Content-Length: ,3\r\n"), V::SeveralLengths),
        (post("Content-Length:\r\n"), V::Length),
        (post("Content-Length: +3\r\n"), V::Length),
        (post("Content-Length: -3\r\n"), V::Length),
        (post("Content-Length: 3 3\r\n"), V::Length),
        (post("Content-Length: 0x3\r\n"), V::Length),
        (post("Content-Length: 3.0\r\n"), V::Length),
        (post("Content-Length: \"3\"\r\n"), V::Length),
        (post("Content-Length: 9223372036854775808\r\n"), V::ContentTooLarge),
        (post("Content-Length: 18446744073709551617\r\n"), V::ContentTooLarge),
        (post("Transfer-Encoding:\r\n"), V::TransferEncoding),
        (post("Transfer-Encoding: ,\r\n"), V::TransferEncoding),
        (post("Transfer-Encoding: identity\r\n"), V::TransferEncoding),
        (post("Transfer-Encoding: xchunked\r\n"), V::TransferEncoding),
        (post("Transfer-Encoding: chunkedx\r\n"), V::TransferEncoding),
        (post("Transfer-Encoding: \"chunked\"\r\n"), V::TransferEncoding),
        (post("Transfer-Encoding: chunked;a=b\r\n"), V::TransferEncoding),
        (post("Transfer-Encoding: chunked, gzip\r\n"), V::TransferEncoding),
        (post("Transfer-Encoding: chunked, chunked\r\n"), V::TransferEncoding),
        (post("Transfer-Encoding: chunked, gzip, chunked\r\n"), V::TransferEncoding),
        (post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), V::TransferEncoding),
        (post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"), V::TransferEncoding),
        (post("Transfer-Encoding: gzip, chunked\r\n"), V::UnknownCoding),
        (post("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"), V::UnknownCoding),
        (get10("Transfer-Encoding: chunked\r\n"), V::TransferEncodingIn10),
        (get10("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"), V::TransferEncodingIn10),
        // RFC 9110 §7.6.1, §9.3.8, §10.1.1
        (get(&format!("Connection: {}\r\n", "a,".repeat(33))), V::TooManyOptions),
        ("TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n".into(), V::TraceContent),
        ("TRACE / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".into(), V::TraceContent),
        (post("Content-Length: 3\r\nExpect: 200-ok\r\n"), V::Expectation),
        (post("Content-Length: 3\r\nExpect: 100-continue, a\r\n"), V::Expectation),
        // Not a whole head.
        (String::new(), V::StartLine),
        ("GET / HTTP/1.1\r\nHost: a\r\n".into(), V::StartLine),
        (get("") + "GET", V::StartLine),
    ];
    for (raw, violation) in table {
        assert_eq!(with(raw.as_bytes(), &LIMITS, |_| ()), Err(violation), "{raw:?}");
    }
}

#[test]
fn framing() {
    let table = [
        (get(""), Framing::None),
        (post(""), Framing::None),
        (post("Content-Length: 0\r\n"), Framing::Length(0)),
        (post("content-length:\t 00042 \t\r\n"), Framing::Length(42)),
        (get("Content-Length: 9223372036854775807\r\n"), Framing::Length(u64::MAX >> 1)),
        (post("Transfer-Encoding: chunked\r\n"), Framing::Chunked),
        (post("TRANSFER-ENCODING:Chunked\r\n"), Framing::Chunked),
        (post("Transfer-Encoding: ,\t chunked ,\r\n"), Framing::Chunked),
        (post("Transfer-Encoding: \r\nTransfer-Encoding: chunked\r\n"), Framing::Chunked),
        // Other spellings frame nothing.
        (post("Content_Length: 5\r\nTransfer_Encoding: chunked\r\n"), Framing::None),
        ("POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\n".to_owned(), Framing::Length(5)),
    ];
    for (raw, framing) in table {
        assert_eq!(with(raw.as_bytes(), &LIMITS, |r| r.framing), Ok(framing), "{raw:?}");
    }
}

#[test]
fn persistence() {
    let table = [
        (Version::HTTP_11, "", true),
        (Version::HTTP_11, "Connection: close\r\n", false),
        (Version::HTTP_11, "Connection: Keep-Alive, CLOSE\r\n", false),
        (Version::HTTP_11, "Connection: x\r\nConnection: close\r\n", false),
        (Version::HTTP_11, "Proxy-Connection: close\r\n", true),
        (Version::HTTP_10, "", false),
        (Version::HTTP_10, "Connection: keep-alive\r\n", true),
        (Version::HTTP_10, "Connection: a, Keep-Alive\r\n", true),
        (Version::HTTP_10, "Connection: keep-alive, close\r\n", false),
        (Version::HTTP_10, "Proxy-Connection: keep-alive\r\n", false),
    ];
    for (version, lines, expected) in table {
        let raw = format!("GET / {version:?}\r\nHost: a\r\n{lines}\r\n");
        assert_eq!(
            with(raw.as_bytes(), &LIMITS, |r| (r.version, r.keep_alive)),
            Ok((version, expected)),
            "{raw:?}"
        );
    }
}

#[test]
fn hosts() {
    let table = [
        ("GET / HTTP/1.1\r\nHost: a.example:8080\r\n\r\n", "a.example:8080"),
        ("GET http://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", "b.example"),
        ("GET http://b.example HTTP/1.0\r\n\r\n", "b.example"),
        ("GET / HTTP/1.0\r\nHost: a\r\n\r\n", "a"),
        ("GET / HTTP/1.0\r\n\r\n", ""),
        ("OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "[::1]:80"),
    ];
    for (raw, host) in table {
        assert_eq!(
            with(raw.as_bytes(), &LIMITS, |r| String::from_utf8(r.host.to_vec()).unwrap()).as_deref(),
            Ok(host),
            "{raw:?}"
        );
    }
}

#[test]
fn upgrades_and_expectations() {
    // Lines; the protocols, whether a 100 is waited for.
    let table = [
        ("Connection: Upgrade\r\nUpgrade: websocket\r\n", Some("websocket"), false),
        ("Connection: keep-alive, UPGRADE\r\nUpgrade: foo/2, websocket\r\n", Some("foo/2, websocket"), false),
        ("Upgrade: websocket\r\n", None, false),
        ("Connection: upgrade\r\n", None, false),
        ("Connection: upgrade\r\nUpgrade:\r\n", None, false),
        ("Connection: upgrade\r\nUpgrade: a\r\nUpgrade: b\r\n", None, false),
        // What would carry requests past every rule here.
        ("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n", None, false),
        ("Connection: upgrade\r\nUpgrade: websocket, H2C\r\n", None, false),
        ("Connection: upgrade\r\nUpgrade: HTTP/2.0\r\n", None, false),
        ("Connection: upgrade\r\nUpgrade: TLS/1.0\r\n", None, false),
        ("Content-Length: 1\r\nExpect: 100-Continue\r\n", None, true),
        ("Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n", None, true),
        ("Expect: 100-continue\r\n", None, false),
        ("Content-Length: 0\r\nExpect: 100-continue\r\n", None, false),
        ("Content-Length: 1\r\nExpect:\r\n", None, false),
    ];
    for (lines, upgrade, expect) in table {
        let raw = post(lines);
        let found = with(raw.as_bytes(), &LIMITS, |r| {
            (r.upgrade.map(|u| String::from_utf8(u.to_vec()).unwrap()), r.expect_continue)
        });
        assert_eq!(found, Ok((upgrade.map(str::to_owned), expect)), "{raw:?}");
    }
    // HTTP/1.0 knows neither.
    let raw = "POST / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\nExpect: a\r\nExpect: 100-continue\r\n\r\n";
    assert_eq!(
        with(raw.as_bytes(), &LIMITS, |r| (r.upgrade.is_some(), r.expect_continue)),
        Ok((false, false))
    );
}

#[test]
fn methods() {
    // Method; whether it is idempotent; whether it is HEAD; the `Max-Forwards` that counts.
    let table = [
        ("GET", true, false, None),
        ("HEAD", true, true, None),
        ("PUT", true, false, None),
        ("DELETE", true, false, None),
        ("OPTIONS", true, false, Some(3)),
        ("TRACE", true, false, Some(3)),
        ("POST", false, false, None),
        ("PATCH", false, false, None),
        ("get", false, false, None),
        ("M!#$%&'*+-.^_`|~1", false, false, None),
    ];
    for (method, idempotent, is_head, max_forwards) in table {
        let raw = format!("{method} / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 3\r\n\r\n");
        let found = with(raw.as_bytes(), &LIMITS, |r| {
            (r.method == *method, r.method.is_idempotent(), r.is_head, r.max_forwards)
        });
        assert_eq!(found, Ok((true, idempotent, is_head, max_forwards)), "{method}");
    }
}

#[test]
fn marks() {
    // What `Connection` names is marked, but for what has to stay.
    let raw = get(
        "Connection: close, A, b,host, content-length, Authorization, cookie, X-Forwarded-For, cache-control\r\nA: 1\r\nCookie: c\r\n\
                   B: 2\r\nContent-Length: 3\r\na: 4\r\nAuthorization: d\r\nX-Forwarded-For: e\r\nCache-Control: f\r\nX_Real_IP: g\r\nC: h\r\n",
    );
    let found = with(raw.as_bytes(), &LIMITS, |r| {
        (r.lists_fields, r.fields.iter().map(|f| f.kind).collect::<Vec<_>>())
    });
    use HeaderKind::*;
    let expected = vec![
        Host,
        Connection,
        ConnectionListed,
        Cookie,
        ConnectionListed,
        ContentLength,
        ConnectionListed,
        Authorization,
        XForwardedFor,
        ConnectionListed,
        UnderscoreAlias,
        Other,
    ];
    assert_eq!(found, Ok((true, expected)));

    let found = with(get("Connection: keep-alive, te\r\nTE: gzip, Trailers\r\n").as_bytes(), &LIMITS, |r| {
        (r.lists_fields, r.te_trailers)
    });
    assert_eq!(found, Ok((false, true)));
    let found = with(get("A: 1\r\nCookie: b\r\nCookie: c\r\na: 2\r\n").as_bytes(), &LIMITS, |r| {
        let named: Vec<Vec<u8>> = r.fields.named(b"A").map(<[u8]>::to_vec).collect();
        (
            r.fields.len(),
            r.fields.is_empty(),
            r.fields.get(HeaderKind::Cookie).map(<[u8]>::to_vec),
            r.fields.get(HeaderKind::Via).is_none(),
            named,
        )
    });
    assert_eq!(found, Ok((5, false, Some(b"b".to_vec()), true, vec![b"1".to_vec(), b"2".to_vec()])));
}

#[test]
fn values_are_trimmed_and_may_be_beyond_ascii() {
    let found = with(get("A:b\r\nC: \t ä d \t\r\nE:\r\nF:   \r\n").as_bytes(), &LIMITS, |r| {
        r.fields
            .iter()
            .skip(1)
            .map(|f| {
                (String::from_utf8(f.name.to_vec()).unwrap(), String::from_utf8(f.value.to_vec()).unwrap())
            })
            .collect::<Vec<_>>()
    });
    let expected =
        [("A", "b"), ("C", "ä d"), ("E", ""), ("F", "")].map(|(n, v)| (n.to_owned(), v.to_owned()));
    assert_eq!(found, Ok(expected.to_vec()));
}

#[test]
fn ends_of_heads() {
    let whole = get("A: b\r\n");
    let table: Vec<(String, Result<Option<usize>, V>)> = vec![
        (String::new(), Ok(None)),
        ("G".into(), Ok(None)),
        ("\r".into(), Ok(None)),
        ("\r\n\r\n".into(), Ok(None)),
        (whole.clone(), Ok(Some(whole.len()))),
        (format!("{whole}GET / HTTP"), Ok(Some(whole.len()))),
        (format!("\r\n{whole}"), Ok(Some(whole.len() + 2))),
        (format!("{}{whole}", "\r\n".repeat(4)), Ok(Some(whole.len() + 8))),
        (whole[..whole.len() - 1].to_owned(), Ok(None)),
        (whole[..whole.len() - 2].to_owned(), Ok(None)),
        ("\r\n".repeat(5), Err(V::StartLine)),
        ("GET / HTTP/1.1\nHost: a\n\n".into(), Err(V::BareLf)),
        ("GET / HTTP/1.1\r\nHost: a\n".into(), Err(V::BareLf)),
        ("\n".into(), Err(V::BareLf)),
        ("\rG".into(), Err(V::BareCr)),
        ("\x16\x03\x01\x02\0".into(), Err(V::Method)),
        ("\0".into(), Err(V::Method)),
        ("GE\0".into(), Err(V::Method)),
        ("{\"json\": 1}".into(), Err(V::Method)),
    ];
    for (raw, expected) in table {
        assert_eq!(find_request_end(raw.as_bytes(), 0), expected, "{raw:?}");
        // Resumed at every byte it comes to the same.
        let (mut found, mut from) = (Ok(None), 0);
        for n in 0..=raw.len() {
            found = find_request_end(&raw.as_bytes()[..n], from);
            from = n;
            if found != Ok(None) {
                break;
            }
        }
        assert_eq!(found, expected, "{raw:?} byte by byte");
    }
}

#[test]
fn what_is_too_large() {
    let target = format!("\r\nGET /{}", "a".repeat(120));
    assert_eq!(too_large(target.as_bytes(), &LIMITS), V::TargetTooLong);
    let fields = format!("GET / HTTP/1.1\r\nA: {}", "a".repeat(120));
    assert_eq!(too_large(fields.as_bytes(), &LIMITS), V::HeadTooLarge);
}

#[test]
fn names_and_statuses() {
    let mut names: Vec<&str> = V::ALL.iter().map(|v| v.name()).collect();
    for violation in V::ALL {
        assert!(
            [400, 413, 414, 417, 421, 431, 501, 505].contains(&violation.status().as_u16()),
            "{violation:?}"
        );
        assert!(
            violation.name().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
            "{violation:?}"
        );
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), V::ALL.len(), "names are distinct");
}

/// Bytes that look enough like a request to get deep into the reader.
/// Logs rely on it: no method or host can end a quoted text or a line.
#[test]
fn methods_and_hosts_need_no_escapes() {
    let plain = |text: &[u8]| text.iter().all(|b| matches!(b, 0x21..0x7f) && !matches!(b, b'"' | b'\\'));
    let mut taken = 0;
    for b in 0..=255 {
        let heads = [
            [b"G", &[b][..], b"T / HTTP/1.1\r\nHost: a\r\n\r\n"].concat(),
            [b"GET / HTTP/1.1\r\nHost: a", &[b][..], b"b\r\n\r\n"].concat(),
            [b"GET / HTTP/1.1\r\nHost: [::", &[b][..], b"]:80\r\n\r\n"].concat(),
            [b"GET http://a", &[b][..], b"b/ HTTP/1.1\r\nHost: a\r\n\r\n"].concat(),
        ];
        for raw in heads {
            taken += with(&raw, &LIMITS, |r| {
                assert!(plain(r.method.as_str().as_bytes()) && plain(r.host), "{}", raw.escape_ascii())
            })
            .map_or(0, |()| 1);
        }
    }
    assert!(taken > 150, "{taken}");
}

fn almost_a_request() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just("GET ".to_owned()),
        Just("/ HTTP/1.1\r\n".to_owned()),
        Just("POST http://a/%2e%2E/%4".to_owned()),
        Just("Host: a\r\n".to_owned()),
        Just("Content-Length: 5\r\n".to_owned()),
        Just("Transfer-Encoding: chunked\r\n".to_owned()),
        Just("Connection: a, Host, close\r\n".to_owned()),
        Just("\r\n".to_owned()),
        Just("\r".to_owned()),
        Just("\n".to_owned()),
        Just(": ".to_owned()),
        "[a-zA-Z-]{1,20}: ?[ -~]{0,20}\r\n",
        "\\PC{0,8}",
        ".{0,8}",
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #[test]
    fn nothing_panics(
        raw in prop_oneof![almost_a_request(), proptest::collection::vec(any::<u8>(), 0..200)],
    ) {
        let _ = find_request_end(&raw, 0);
        let _ = with(&raw, &LIMITS, |_| ());
        let mut ended = raw.clone();
        ended.extend_from_slice(b"\r\n\r\n");
        let _ = find_request_end(&ended, raw.len());
        let _ = with(&ended, &LIMITS, |_| ());
        let _ = too_large(&raw, &LIMITS);
    }

    #[test]
    fn a_head_that_is_taken_was_found(raw in almost_a_request()) {
        let raw = [raw.as_slice(), b"\r\n\r\n"].concat();
        if with(&raw, &LIMITS, |_| ()).is_ok() {
            prop_assert_eq!(find_request_end(&raw, 0), Ok(Some(raw.len())));
        }
    }
}
