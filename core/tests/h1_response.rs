//! Heads of responses: every rule as a row of input and verdict.

use proptest::prelude::*;
use ruststrom_core::h1::{
    FieldIndex, HeadLimits, ParsedResponse, ResponseContext, find_response_end, parse_response, was_offered,
};
use ruststrom_core::http::{Framing, Version, Violation as V};

const LIMITS: HeadLimits = HeadLimits { head_bytes: 8192, fields: 20, target_bytes: 100 };
const GET: ResponseContext = ResponseContext { head: false, upgrade: false };
const HEAD: ResponseContext = ResponseContext { head: true, upgrade: false };
const UPGRADE: ResponseContext = ResponseContext { head: false, upgrade: true };

fn with<T>(raw: &[u8], asked: ResponseContext, look: impl FnOnce(&ParsedResponse<'_>) -> T) -> Result<T, V> {
    let mut store = FieldIndex::new();
    parse_response(raw, &mut store, &LIMITS, asked).map(|a| look(&a))
}

fn ok(lines: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{lines}\r\n")
}

#[test]
fn refused() {
    let line = |line: &str| format!("{line}\r\nA: b\r\n\r\n");
    let table: Vec<(String, V)> = vec![
        (line("HTTP/1.2 200 OK"), V::Version),
        (line("HTTP/2.0 200 OK"), V::Version),
        (line("HTTP/1.1 20 OK"), V::StatusLine),
        (line("HTTP/1.1 2000 OK"), V::StatusLine),
        (line("HTTP/1.1 20x OK"), V::StatusLine),
        (line("HTTP/1.1 099 OK"), V::StatusLine),
        (line("HTTP/1.1  200 OK"), V::StatusLine),
        (line("HTTP/1.1 200OK"), V::StatusLine),
        (line("HTTP/1.1 200 O\0K"), V::StatusLine),
        (line("HTTP/1.1"), V::StatusLine),
        (line("http/1.1 200 OK"), V::StatusLine),
        (line("ICY 200 OK"), V::StatusLine),
        (line("\r\nHTTP/1.1 200 OK"), V::StatusLine),
        ("HTTP/1.1 200 OK\nA: b\r\n\r\n".into(), V::BareLf),
        ("HTTP/1.1 200 OK\r\nA: b\n\r\n".into(), V::BareLf),
        ("HTTP/1.1 200 O\rK\r\nA: b\r\n\r\n".into(), V::BareCr),
        (ok("A: b\r\n c\r\n"), V::ObsFold),
        (ok(" A: b\r\n"), V::ObsFold),
        (ok("A\r\n"), V::FieldName),
        (ok(": b\r\n"), V::FieldName),
        (ok("A b: c\r\n"), V::FieldName),
        (ok("Content/Length: 0\r\n"), V::FieldName),
        (ok("Content\nLength: 0\r\n"), V::BareLf),
        (ok("Content\rLength: 0\r\n"), V::BareCr),
        (ok("A: \0\r\n"), V::FieldValue),
        (ok(&"A: b\r\n".repeat(21)), V::TooManyFields),
        (ok(&format!("A: {}\r\n", "b".repeat(8192))), V::HeadTooLarge),
        (ok("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"), V::LengthWithTransferEncoding),
        (ok("Content-Length: 3\r\nContent-Length: 3\r\n"), V::SeveralLengths),
        (ok("Content-Length: 3, 3\r\n"), V::SeveralLengths),
        (ok("Content-Length: -3\r\n"), V::Length),
        (ok("Content-Length :3x\r\n"), V::Length),
        (ok("Transfer-Encoding: gzip, chunked\r\n"), V::UnknownCoding),
        (ok("Transfer-Encoding: gzip\r\n"), V::TransferEncoding),
        (ok("Transfer-Encoding: chunked, gzip\r\n"), V::TransferEncoding),
        (ok("Transfer-Encoding: identity\r\n"), V::TransferEncoding),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".into(), V::TransferEncodingIn10),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: x\r\n\r\n".into(), V::Length),
        (
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n".into(),
            V::UnexpectedSwitch,
        ),
        ("HTTP/1.1 200 OK\r\n".into(), V::StatusLine),
        (ok("") + "HTTP", V::StatusLine),
        (String::new(), V::StatusLine),
    ];
    for (raw, violation) in table {
        assert_eq!(with(raw.as_bytes(), GET, |_| ()), Err(violation), "{raw:?}");
    }
    for raw in [
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\r\n",
        "HTTP/1.0 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ] {
        assert_eq!(with(raw.as_bytes(), UPGRADE, |_| ()), Err(V::UnexpectedSwitch), "{raw:?}");
    }
}

#[test]
fn framing_and_persistence() {
    use Framing::{Chunked, Close, Length, None as Nothing};
    // Head, asked, framing, declared length, reusable.
    let table: &[(&str, ResponseContext, Framing, Option<u64>, bool)] = &[
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", GET, Length(3), Some(3), true),
        ("HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\n", GET, Length(3), Some(3), true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", GET, Length(0), Some(0), true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\n", GET, Length(3), Some(3), false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", GET, Chunked, None, true),
        ("HTTP/1.1 200 OK\r\n\r\n", GET, Close, None, false),
        ("HTTP/1.0 200 OK\r\n\r\n", GET, Close, None, false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n", GET, Length(3), Some(3), false),
        (
            "HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n",
            GET,
            Length(3),
            Some(3),
            true,
        ),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", GET, Close, None, false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", HEAD, Nothing, Some(3), true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", HEAD, Nothing, None, true),
        ("HTTP/1.1 200 OK\r\n\r\n", HEAD, Nothing, None, true),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", GET, Nothing, Some(3), true),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n", GET, Nothing, None, true),
        (
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
            GET,
            Nothing,
            None,
            true,
        ),
        ("HTTP/1.1 100 Continue\r\nContent-Length: 3\r\n\r\n", GET, Nothing, None, true),
        ("HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", GET, Length(0), Some(0), true),
        (
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            UPGRADE,
            Nothing,
            None,
            true,
        ),
        ("HTTP/1.1 999 Odd\r\nContent-Length: 1\r\n\r\n", GET, Length(1), Some(1), true),
    ];
    for (raw, asked, framing, length, keep_alive) in table {
        let found = with(raw.as_bytes(), *asked, |a| (a.framing, a.content_length, a.keep_alive));
        assert_eq!(found, Ok((*framing, *length, *keep_alive)), "{raw:?}");
    }
}

#[test]
fn status_lines() {
    let table: &[(&str, u16, &str, Version)] = &[
        ("HTTP/1.1 200 OK", 200, "OK", Version::HTTP_11),
        ("HTTP/1.0 404 Not Found", 404, "Not Found", Version::HTTP_10),
        ("HTTP/1.1 200 ", 200, "", Version::HTTP_11),
        ("HTTP/1.1 200", 200, "", Version::HTTP_11),
        ("HTTP/1.1 200 Gut, schön", 200, "Gut, schön", Version::HTTP_11),
        ("HTTP/1.1 103 Early Hints", 103, "Early Hints", Version::HTTP_11),
    ];
    for (line, status, reason, version) in table {
        for lines in ["", "A: b\r\n"] {
            let raw = format!("{line}\r\n{lines}\r\n");
            let found = with(raw.as_bytes(), GET, |a| {
                (a.status.as_u16(), String::from_utf8(a.reason.to_vec()).unwrap(), a.version, a.is_interim())
            });
            assert_eq!(found, Ok((*status, (*reason).to_owned(), *version, *status == 103)), "{raw:?}");
        }
    }
}

#[test]
fn what_else_it_says() {
    let look = |lines: &str| {
        with(ok(&format!("Content-Length: 0\r\n{lines}")).as_bytes(), GET, |a| {
            (a.keep_alive_timeout, a.has_date, a.lists_fields, a.upgrade.is_some())
        })
        .unwrap()
    };
    assert_eq!(look(""), (None, false, false, false));
    assert_eq!(look("Keep-Alive: timeout=5, max=100\r\n"), (Some(5), false, false, false));
    assert_eq!(look("Keep-Alive: max=1,Timeout=99999999999\r\n"), (Some(u32::MAX), false, false, false));
    assert_eq!(look("Keep-Alive: timeout=x\r\n"), (None, false, false, false));
    assert_eq!(look("Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"), (None, true, false, false));
    // A date that may not pass is none.
    assert_eq!(look("Date: x\r\nConnection: date\r\n"), (None, false, true, false));
    assert_eq!(look("Connection: upgrade\r\nUpgrade: a\r\n"), (None, false, false, false));
    let required =
        "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\nConnection: upgrade\r\nUpgrade: a/1\r\n\r\n";
    assert_eq!(with(required.as_bytes(), GET, |a| a.upgrade.map(<[u8]>::to_vec)), Ok(Some(b"a/1".to_vec())));
}

/// RFC 9110 §7.8: a server must not switch to what was not offered.
#[test]
fn switches_to_what_was_offered() {
    // Offered, accepted, whether that is right.
    let table = [
        ("websocket", "websocket", true),
        ("websocket", "WebSocket", true),
        ("websocket", "h2c", false),
        ("websocket", "web", false),
        ("websocket", "websocket, chat", false),
        ("a, chat/2 ,b", "chat/2", true),
        ("a, chat/2 ,b", "chat/3", false),
        ("a, chat/2 ,b", "chat", true),
        ("chat", "chat/2", true),
        ("a, b", "b, a", true),
        ("a/1", "a/1/2", false),
        ("", "websocket", false),
    ];
    for (offered, accepted, good) in table {
        assert_eq!(was_offered(offered.as_bytes(), accepted.as_bytes()), good, "{offered} {accepted}");
    }
}

#[test]
fn ends_of_heads() {
    let whole = ok("A: b\r\n");
    let table: Vec<(String, Result<Option<usize>, V>)> = vec![
        (String::new(), Ok(None)),
        ("HT".into(), Ok(None)),
        (whole.clone(), Ok(Some(whole.len()))),
        (format!("{whole}body\n"), Ok(Some(whole.len()))),
        (whole[..whole.len() - 1].to_owned(), Ok(None)),
        ("HTTP/1.1 200 OK\n".into(), Err(V::BareLf)),
        ("\r\nHTTP/1.1".into(), Err(V::StatusLine)),
        ("SSH-2.0".into(), Err(V::StatusLine)),
        ("HTTP/2".into(), Err(V::Version)),
    ];
    for (raw, expected) in table {
        assert_eq!(find_response_end(raw.as_bytes(), 0), expected, "{raw:?}");
    }
}

proptest! {
    #[test]
    fn nothing_panics(
        raw in proptest::collection::vec(any::<u8>(), 0..200),
        head in any::<bool>(),
        upgrade in any::<bool>(),
    ) {
        let asked = ResponseContext { head, upgrade };
        let whole = [b"HTTP/1.1 200 ", raw.as_slice(), b"\r\n\r\n"].concat();
        for raw in [&raw, &whole] {
            let _ = find_response_end(raw, 0);
            let _ = with(raw, asked, |_| ());
        }
    }
}
