//! Heads on the way through: what came in, and the exact bytes that go out. By HTTP/2 goes the same.

use std::sync::LazyLock;

use proptest::prelude::*;
use ruststrom_core::Instant;
use ruststrom_core::h1::{
    FieldIndex, ForwardedHeaders, HeadLimits, RequestForward, ResponseContext, ResponseForward, TrailerIndex,
    Trailers, Writer, client_framing, forward_interim, forward_request, forward_response, forward_trailers,
    parse_request, parse_response, parse_trailers,
};
use ruststrom_core::h2::hpack::{BlockLimits, Decoder, FieldBlock, Fit};
use ruststrom_core::h2::{self, frame};
use ruststrom_core::http::ip::IpText;
use ruststrom_core::http::{Framing, HeaderKind, RequestHead, ResponseHead, Version};
use ruststrom_core::wire::Multiplexed;

const LIMITS: HeadLimits = HeadLimits { head_bytes: 8192, fields: 100, target_bytes: 4096 };
const DATE: &[u8; 29] = b"Sun, 06 Nov 1994 08:49:37 GMT";

const ID: &[u8; 32] = b"0123456789abcdef0000000000000001";
static PEER: LazyLock<IpText> = LazyLock::new(|| IpText::new([192, 0, 2, 7].into()));
static HTTP: LazyLock<ForwardedHeaders> = LazyLock::new(|| ForwardedHeaders::new("http", 8080, "edge"));

fn forward() -> RequestForward<'static> {
    RequestForward {
        peer: &PEER,
        forwarded_headers: &HTTP,
        request_id: ID,
        trusted: false,
        client: &PEER,
        client_certificate: None,
        via: true,
        keep_expect: false,
        own_body: None,
        default_host: b"backend:81",
    }
}

/// Names, lower case, and values in alphabetical order, without those that are HTTP/1.1's own.
fn fields_of_text(text: &str) -> Vec<(String, String)> {
    let lines = text.split("\r\n").skip(1).take_while(|line| !line.is_empty());
    let field = |line: &str| {
        let (name, value) = line.split_once(':').expect("a field");
        (name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned())
    };
    let own = ["connection", "upgrade", "transfer-encoding", "host", "trailer"];
    let mut fields: Vec<_> = lines.map(field).filter(|(name, _)| !own.contains(&&name[..])).collect();
    fields.sort();
    fields
}

/// The pseudo-header fields of the one head that a connection of HTTP/2 has to send, and its other fields as
/// [`fields_of_text`] has them.
fn sent_by_http2(conn: &h2::Conn, preface: usize) -> (String, Vec<(String, String)>) {
    let mut bytes = &conn.transmit()[preface..];
    let mut block = FieldBlock::new();
    while let Some((header, rest)) = bytes.split_first_chunk() {
        let header = frame::FrameHeader::parse(header);
        let (payload, behind) = rest.split_at(header.len as usize);
        bytes = behind;
        if header.kind == frame::kind::HEADERS {
            assert_eq!(header.flags & frame::flag::END_HEADERS, frame::flag::END_HEADERS);
            let limits = BlockLimits { list_bytes: 60_000, fields: 200, hard_bytes: 60_000 };
            assert_eq!(Decoder::new().decode(payload, &limits, &mut block), Ok(Fit::Whole));
        }
    }
    let (mut pseudo, mut fields) = (String::new(), Vec::new());
    for field in block.iter() {
        let (name, value) = (String::from_utf8_lossy(field.name), String::from_utf8_lossy(field.value));
        assert!(field.good_name && field.good_value, "{name}: {value}");
        if field.pseudo.is_some() {
            assert!(fields.is_empty(), "they come first");
            pseudo.push_str(&format!("{name} {value}\n"));
        } else if name != "trailer" {
            fields.push((name.into_owned(), value.into_owned()));
        }
    }
    fields.sort();
    (pseudo, fields)
}

/// What HTTP/1.1 says to a backend, HTTP/2 says too.
fn same_by_http2(text: &str, head: &RequestHead, f: &RequestForward<'_>) {
    let mut conn = h2::Conn::new(h2::Role::Client, h2::Limits::default(), Instant::ZERO);
    let stream = conn.open().expect("a stream");
    let framing = match f.own_body.unwrap_or(head.framing()) {
        Framing::Length(n) => Framing::Length(n),
        _ => Framing::None,
    };
    assert!(conn.send_request(stream, head, &RequestForward { own_body: Some(framing), ..*f }));
    let (pseudo, fields) = sent_by_http2(&conn, frame::PREFACE.len());
    assert_eq!(fields, fields_of_text(text));
    let mut words = text.split(' ');
    let (method, path) = (words.next().expect("a method"), words.next().expect("a target"));
    let host = text.split("\r\n").find_map(|line| line.to_lowercase().strip_prefix("host:").map(str::len));
    assert!(pseudo.contains(&format!(":method {method}\n")) && pseudo.contains(&format!(":path {path}\n")));
    assert!(host.is_some() && pseudo.contains("\n:authority ") && pseudo.contains(":scheme http\n"));
}

/// What HTTP/1.1 says to a client, HTTP/2 says too.
fn same_response_by_http2(text: &str, head: &ResponseHead, f: Option<&ResponseForward<'_>>) {
    let mut conn = h2::Conn::new(h2::Role::Server, h2::Limits::default(), Instant::ZERO);
    let mut client = h2::Conn::new(h2::Role::Client, h2::Limits::default(), Instant::ZERO);
    let stream = client.open().expect("a stream");
    client.send_head(stream, true, false, |w| {
        for (name, value) in [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")] {
            w.pseudo(name.as_bytes(), value.as_bytes());
        }
    });
    let asked = client.transmit();
    conn.recv_buf()[..asked.len()].copy_from_slice(asked);
    conn.handle_recv(asked.len());
    while conn.poll_event(&mut h2::Received::default(), Instant::ZERO).is_some() {}
    assert!(match f {
        None => conn.send_interim(stream, head),
        Some(f) => conn.send_response(stream, head, f),
    });
    let (pseudo, fields) = sent_by_http2(&conn, 0);
    let (mut expected, mut status) = (fields_of_text(text), head.status().as_u16());
    if status == 101 {
        // Extended CONNECT succeeds, and has no key that could be answered (RFC 8441 §5).
        expected.retain(|(name, _)| name != "sec-websocket-accept");
        status = 200;
    }
    assert_eq!(fields, expected);
    assert_eq!(pseudo, format!(":status {status}\n"));
}

fn out(raw: &[u8], f: &RequestForward<'_>) -> String {
    let (mut store, mut scratch, mut room) = (FieldIndex::new(), Vec::new(), [0; 16384]);
    let request = parse_request(raw, &mut store, &LIMITS, &mut scratch)
        .unwrap_or_else(|v| panic!("{v:?}: {}", String::from_utf8_lossy(raw)));
    let mut w = Writer::new(&mut room);
    forward_request(&mut w, &(&request).into(), f);
    let n = w.finish().unwrap();
    // Room that is too small is noticed, whatever its size.
    for at in [0, 1, n / 2, n - 1] {
        let mut w = Writer::new(&mut room[..at]);
        forward_request(&mut w, &(&request).into(), f);
        assert_eq!(w.finish(), None);
    }
    let mut w = Writer::new(&mut room[..n]);
    forward_request(&mut w, &(&request).into(), f);
    let text = String::from_utf8(w.written().to_vec()).unwrap();
    same_by_http2(&text, &(&request).into(), f);
    text
}

/// What every forwarded request ends with.
fn tail(host: &str) -> String {
    format!(
        "Via: 1.1 rust-strom\r\nX-Forwarded-For: 192.0.2.7\r\nX-Real-IP: 192.0.2.7\r\nX-Forwarded-Host: {host}\r\nX-Forwarded-Proto: http\r\n\
         X-Forwarded-Port: 8080\r\nX-Forwarded-Server: edge\r\nX-Request-ID: 0123456789abcdef0000000000000001\r\n\r\n"
    )
}

#[test]
fn requests() {
    // What came; what goes, up to `Via`.
    let table = [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n"),
        (
            "\r\nGET /x/../y?z HTTP/1.1\r\nAccept: */*\r\nhost: a\r\nUSER-agent: u\r\nAccept: b\r\n\r\n",
            "GET /y?z HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nUSER-agent: u\r\nAccept: b\r\n",
        ),
        // Blanks around values are made one before them.
        (
            "GET / HTTP/1.1\r\nA:b\r\nHost:a\r\nC: \t d \t\r\nE:\r\nF:  \r\nG: \r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nC: d\r\nE: \r\nF: \r\nG: \r\n",
        ),
        // The authority of the target wins.
        ("GET http://b:81/p HTTP/1.1\r\nHost: a\r\n\r\n", "GET /p HTTP/1.1\r\nHost: b:81\r\n"),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: a\r\n"),
        (
            "OPTIONS http://a HTTP/1.1\r\nHost: a\r\nMax-Forwards: 7\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 6\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 7\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 7\r\n",
        ),
        // Framing is re-made and comes last.
        (
            "POST / HTTP/1.1\r\nContent-length: 003\r\nHost: a\r\nA: b\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nA: b\r\nContent-Length: 3\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTRANSFER-encoding: ,Chunked\r\nTrailer: T\r\nA: b\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTrailer: T\r\nA: b\r\nTransfer-Encoding: chunked\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTrailer: T\r\nContent-Length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n",
        ),
        // Hop by hop, named ones too; not what has to stay.
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-A, Host, Cookie\r\nKeep-Alive: timeout=5\r\nX-A: 1\r\nProxy-Connection: x\r\nCookie: c\r\nTE: gzip\r\nUpgrade: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nCookie: c\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: TE\r\nTE: gzip;q=1, trailers\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: k\r\nConnection: upgrade\r\nUpgrade: websocket\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, TE\r\nUpgrade: websocket\r\nTE: trailers\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: upgrade, TE\r\nUpgrade: websocket\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: s\r\nA: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n",
        ),
        // Fields that the proxy sets are dropped from the client's request, in whatever spelling.
        (
            "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nx_forwarded_for: 2.2.2.2\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\n\
             X-Forwarded-Server: s\r\nX-Real-IP: 3.3.3.3\r\nX_Real-IP: 4\r\nX-Request-ID: r\r\ncontent_length: 5\r\nTransfer_Encoding: chunked\r\nA: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n",
        ),
        // Via of others stays.
        ("GET / HTTP/1.1\r\nVia: 1.0 x\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nVia: 1.0 x\r\n"),
        // An expectation that we meet ourselves.
        (
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: b\r\nProxy-Authorization: c\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: b\r\nProxy-Authorization: c\r\n",
        ),
    ];
    for (raw, expected) in table {
        let host = expected.split("Host: ").nth(1).unwrap().split("\r\n").next().unwrap();
        assert_eq!(out(raw.as_bytes(), &forward()), format!("{expected}{}", tail(host)), "{raw:?}");
    }
}

#[test]
fn requests_of_http_1_0() {
    let expected = format!("GET /?a HTTP/1.1\r\nHost: backend:81\r\n{}", tail("backend:81"))
        .replace("Via: 1.1", "Via: 1.0");
    assert_eq!(out(b"GET /?a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", &forward()), expected);
}

#[test]
fn requests_with_a_wish() {
    let raw = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\n";
    let keep = RequestForward { keep_expect: true, ..forward() };
    assert_eq!(
        out(raw, &keep),
        format!("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n{}", tail("a"))
    );
    let own = RequestForward { own_body: Some(Framing::Chunked), ..forward() };
    assert_eq!(
        out(raw, &own),
        format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n{}", tail("a"))
    );
    let v6 = RequestForward {
        peer: &IpText::new("2001:db8::7".parse().unwrap()),
        forwarded_headers: &ForwardedHeaders::new("https", 8080, "edge"),
        ..forward()
    };
    let expected = tail("a").replace("192.0.2.7", "2001:db8::7").replace("Proto: http", "Proto: https");
    assert_eq!(
        out(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &v6),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{expected}")
    );
    // Without `Via`, as by default.
    let silent = RequestForward { via: false, ..forward() };
    for (peer_is_trusted, raw) in
        [(false, "GET / HTTP/1.1\r\nHost: a\r\n"), (true, "GET / HTTP/1.0\r\nHost: a\r\n")]
    {
        let silent = RequestForward { trusted: peer_is_trusted, ..silent };
        let expected =
            format!("GET / HTTP/1.1\r\nHost: a\r\n{}", tail("a").replace("Via: 1.1 rust-strom\r\n", ""));
        assert_eq!(out(format!("{raw}\r\n").as_bytes(), &silent), expected);
    }
    let mapped = RequestForward { peer: &IpText::new("::ffff:192.0.2.7".parse().unwrap()), ..forward() };
    assert_eq!(
        out(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &mapped),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}", tail("a"))
    );
}

#[test]
fn requests_of_a_trusted_proxy() {
    let trusted = RequestForward { trusted: true, ..forward() };
    let raw = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2, 3.3.3.3\r\nX-Forwarded-For:\r\nX-Forwarded-Proto: https\r\n\
               X-Forwarded-Host: site\r\nX-Forwarded-Port: 443\r\nX-Forwarded-Server: front\r\nX-Real-IP: 1.1.1.1\r\nX-Request-ID: r-9\r\nX_Forwarded_For: 6\r\n\r\n";
    let expected = "GET / HTTP/1.1\r\nHost: a\r\nVia: 1.1 rust-strom\r\nX-Forwarded-For: 1.1.1.1, 2.2.2.2, 3.3.3.3, 192.0.2.7\r\n\
                    X-Real-IP: 1.1.1.1\r\nX-Forwarded-Host: site\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 443\r\n\
                    X-Forwarded-Server: front, edge\r\nX-Request-ID: r-9\r\n\r\n";
    assert_eq!(out(raw.as_bytes(), &trusted), expected);
    assert_eq!(
        out(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &trusted),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}", tail("a"))
    );
}

/// Who is not trusted says nothing of hops before this one, in no spelling; what is trusted passes.
#[test]
fn claims_of_hops() {
    const CLAIMS: [&str; 9] = [
        "Forwarded",
        "X-Forwarded-Ssl",
        "X-Forwarded-Scheme",
        "X-Forwarded-Prefix",
        "X-Client-IP",
        "True-Client-IP",
        "X-Original-URL",
        "X-Rewrite-URL",
        "Proxy",
    ];
    let all = |change: fn(&str) -> String| -> String {
        CLAIMS.iter().map(|name| format!("{}: v\r\n", change(name))).collect()
    };
    let spellings: [fn(&str) -> String; 4] =
        [|n| n.to_owned(), |n| n.to_uppercase(), |n| n.to_lowercase(), |n| n.replace('-', "_")];
    for spelling in spellings {
        let raw = format!("GET / HTTP/1.1\r\nHost: a\r\n{}X-Kept: 1\r\n\r\n", all(spelling));
        assert_eq!(
            out(raw.as_bytes(), &forward()),
            format!("GET / HTTP/1.1\r\nHost: a\r\nX-Kept: 1\r\n{}", tail("a"))
        );
    }
    let client = IpText::new([203, 0, 113, 9].into());
    let trusted = RequestForward { trusted: true, client: &client, ..forward() };
    let raw = format!("GET / HTTP/1.1\r\nHost: a\r\n{}X-Kept: 1\r\n\r\n", all(|n| n.to_owned()));
    let expected = raw.replace("\r\n\r\n", "\r\n")
        + &tail("a").replace("X-Real-IP: 192.0.2.7", "X-Real-IP: 203.0.113.9");
    assert_eq!(out(raw.as_bytes(), &trusted), expected);
}

fn back(raw: &str, asked: ResponseContext, client_version: u8, keep_alive: bool, extra: &str) -> String {
    let (mut store, mut room) = (FieldIndex::new(), [0; 4096]);
    let response = parse_response(raw.as_bytes(), &mut store, &LIMITS, asked)
        .unwrap_or_else(|v| panic!("{v:?}: {raw:?}"));
    let mut w = Writer::new(&mut room);
    let head = ResponseHead::from(&response);
    if response.is_interim() {
        forward_interim(&mut w, &head);
        let text = String::from_utf8(w.written().to_vec()).unwrap();
        same_response_by_http2(&text, &head, None);
        return text;
    }
    let client_version = version_of(client_version);
    let framing = client_framing(response.framing, client_version);
    let forward =
        ResponseForward { date: DATE, client_version, framing, keep_alive, extra: extra.as_bytes() };
    forward_response(&mut w, &head, &forward);
    let n = w.finish().unwrap();
    let text = String::from_utf8(room[..n].to_vec()).unwrap();
    let framing = match framing {
        Framing::Chunked | Framing::Close => Framing::None,
        known => known,
    };
    same_response_by_http2(&text, &head, Some(&ResponseForward { framing, ..forward }));
    text
}

#[test]
fn responses() {
    let get = ResponseContext::default();
    let head = ResponseContext { head: true, upgrade: false };
    let upgrade = ResponseContext { head: false, upgrade: true };
    let date = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    // What came, to what, for which version, kept alive; what goes, `@` for our date.
    let table = [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 03\r\nA: b\r\n\r\n",
            get,
            11,
            true,
            "HTTP/1.1 200 OK\r\nA: b\r\n@Content-Length: 3\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nDATE: x\r\nContent-Length: 0\r\n\r\n",
            get,
            11,
            true,
            "HTTP/1.1 200 OK\r\nDATE: x\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
            get,
            11,
            true,
            "HTTP/1.1 200 \r\n@Content-Length: 0\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 Sch\u{f6}n\r\nContent-Length: 0\r\n\r\n",
            get,
            11,
            false,
            "HTTP/1.1 200 Sch\u{f6}n\r\n@Content-Length: 0\r\nConnection: close\r\n\r\n",
        ),
        (
            "HTTP/1.0 200 OK\r\nServer: s\r\nContent-Length: 0\r\n\r\n",
            get,
            10,
            true,
            "HTTP/1.1 200 OK\r\nServer: s\r\n@Content-Length: 0\r\nConnection: keep-alive\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            get,
            10,
            false,
            "HTTP/1.1 200 OK\r\n@Content-Length: 0\r\nConnection: close\r\n\r\n",
        ),
        // Unknown lengths.
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n",
            get,
            11,
            true,
            "HTTP/1.1 200 OK\r\nTrailer: T\r\n@Transfer-Encoding: chunked\r\n\r\n",
        ),
        ("HTTP/1.1 200 OK\r\n\r\n", get, 11, true, "HTTP/1.1 200 OK\r\n@Transfer-Encoding: chunked\r\n\r\n"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n",
            get,
            10,
            true,
            "HTTP/1.1 200 OK\r\n@Connection: close\r\n\r\n",
        ),
        // No content, whatever the head declares.
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            head,
            11,
            true,
            "HTTP/1.1 200 OK\r\n@Content-Length: 5\r\n\r\n",
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", head, 11, true, "HTTP/1.1 200 OK\r\n@\r\n"),
        (
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: e\r\n\r\n",
            get,
            11,
            true,
            "HTTP/1.1 304 Not Modified\r\nETag: e\r\n@Content-Length: 5\r\n\r\n",
        ),
        (
            "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
            get,
            11,
            true,
            "HTTP/1.1 204 No Content\r\n@\r\n",
        ),
        (
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
            get,
            11,
            true,
            "HTTP/1.1 204 No Content\r\n@\r\n",
        ),
        // Hop by hop; blanks before colons go (RFC 9112 §5.1).
        (
            "HTTP/1.1 200 OK\r\nConnection: close, X-A, Set-Cookie\r\nX-A : 1\r\nB : 2\r\nC\t:3\r\nKeep-Alive: timeout=1\r\nProxy-Connection: x\r\nUpgrade: h2c\r\nSet-Cookie: s\r\nContent-Length: 0\r\n\r\n",
            get,
            11,
            true,
            "HTTP/1.1 200 OK\r\nB: 2\r\nC: 3\r\nSet-Cookie: s\r\n@Content-Length: 0\r\n\r\n",
        ),
        (
            "HTTP/1.1 407 Auth\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n",
            get,
            11,
            true,
            "HTTP/1.1 407 Auth\r\nProxy-Authenticate: Basic\r\n@Content-Length: 0\r\n\r\n",
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: k\r\n\r\n",
            upgrade,
            11,
            true,
            "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: k\r\n@Connection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        ),
        (
            "HTTP/1.1 426 Upgrade Required\r\nUpgrade: a/1\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n",
            get,
            11,
            false,
            "HTTP/1.1 426 Upgrade Required\r\n@Content-Length: 0\r\nConnection: upgrade, close\r\nUpgrade: a/1\r\n\r\n",
        ),
        // Interim: no date, no framing.
        (
            "HTTP/1.1 103 Early Hints\r\nLink: l\r\nConnection: x\r\nX: y\r\nContent-Length: 4\r\n\r\n",
            get,
            11,
            true,
            "HTTP/1.1 103 Early Hints\r\nLink: l\r\n\r\n",
        ),
    ];
    for (raw, asked, version, keep_alive, expected) in table {
        assert_eq!(back(raw, asked, version, keep_alive, ""), expected.replace('@', date), "{raw:?}");
    }
    let raw = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let expected =
        format!("HTTP/1.1 200 OK\r\n{date}Content-Length: 0\r\nSet-Cookie: a=b\r\nConnection: close\r\n\r\n");
    assert_eq!(back(raw, get, 11, false, "Set-Cookie: a=b\r\n"), expected);
}

#[test]
fn trailer_sections() {
    let raw = b"A:b\r\nContent-Length: 3\r\nC: d \r\n\r\n";
    let (mut store, mut room) = (TrailerIndex::new(), [0; 100]);
    let Ok(Trailers::Done { fields, .. }) = parse_trailers(raw, 0, &mut store, &LIMITS) else { panic!() };
    let mut w = Writer::new(&mut room);
    forward_trailers(&mut w, &fields);
    assert_eq!(w.written(), b"A: b\r\nC: d\r\n\r\n");
}

/// Requests that are good, with much that must not pass.
fn good() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        "[A-Za-z][A-Za-z0-9_.-]{0,20}",
        Just("X-Forwarded-For".to_owned()),
        Just("x_request_id".to_owned()),
        Just("Cookie".to_owned()),
        Just("X-Named".to_owned()),
    ];
    let field = (name, "[ \t]{0,2}", "([!-~]([ -~]{0,20}[!-~])?)?", "[ \t]{0,2}");
    let path = "(/[a-zA-Z0-9._~%:@-]{0,6}){1,5}(\\?[!-\"$-~]{0,20})?";
    let framing =
        prop_oneof![Just(""), Just("Content-Length: 12\r\n"), Just("Transfer-Encoding: chunked\r\n")];
    let connection = prop_oneof![
        Just(""),
        Just("Connection: close\r\n"),
        Just("Connection: x-named\r\n"),
        Just("Connection: upgrade\r\nUpgrade: websocket\r\n")
    ];
    ("[A-Z]{1,8}", path, proptest::collection::vec(field, 0..10), framing, connection).prop_map(
        |(method, path, fields, framing, connection)| {
            let mut raw = format!("{method} {path} HTTP/1.1\r\n{framing}Host: a.example:80\r\n");
            for (name, before, value, after) in fields {
                raw.push_str(&format!("{name}:{before}{value}{after}\r\n"));
            }
            raw + connection + "\r\n"
        },
    )
}

proptest! {
    #[test]
    fn what_goes_out_means_the_same(raw in good()) {
        let (mut store, mut scratch) = (FieldIndex::new(), Vec::new());
        let Ok(before) = parse_request(raw.as_bytes(), &mut store, &LIMITS, &mut scratch) else {
            return Ok(());
        };
        let sent = out(raw.as_bytes(), &forward());
        let (mut store, mut scratch) = (FieldIndex::new(), Vec::new());
        let after = parse_request(sent.as_bytes(), &mut store, &LIMITS, &mut scratch);
        prop_assert!(after.is_ok(), "{:?}: {:?}", after.err(), sent);
        let after = after.unwrap();
        prop_assert_eq!(&before.method, &after.method);
        prop_assert_eq!(before.target.normalised, after.target.normalised);
        prop_assert_eq!(before.host, after.host);
        prop_assert_eq!(before.framing, after.framing);
        prop_assert_eq!(before.upgrade, after.upgrade);
        // End-to-end fields pass in order, unchanged; nothing else of the client's does.
        let passing = |r: &ruststrom_core::h1::ParsedRequest<'_>, all: bool| -> Vec<(Vec<u8>, Vec<u8>)> {
            let passes = |kind| {
                matches!(kind, HeaderKind::Other | HeaderKind::Cookie)
                    || all && kind == HeaderKind::UnderscoreAlias
            };
            let fields = r.fields.iter().filter(|f| passes(f.kind));
            fields.map(|f| (f.name.to_vec(), f.value.to_vec())).collect()
        };
        prop_assert_eq!(passing(&before, false), passing(&after, true));
        let set = [
            (HeaderKind::XForwardedFor, &b"192.0.2.7"[..]),
            (HeaderKind::XRealIp, b"192.0.2.7"),
            (HeaderKind::XRequestId, ID),
        ];
        for (kind, value) in set {
            let of_kind = after.fields.iter().filter(|f| f.kind == kind);
            let found: Vec<&[u8]> = of_kind.map(|f| f.value).collect();
            prop_assert_eq!(found, vec![value]);
        }
    }
}

/// What middlewares do to the head of a request.
#[derive(Clone, Debug)]
enum Change {
    Add(&'static str, String),
    Set(&'static str, String),
    Remove(&'static str),
    Target,
}

fn change() -> impl Strategy<Value = Change> {
    // The last one does not pass.
    let name = || prop::sample::select(vec!["X-A", "x-b", "Accept", "User-Agent", "X-Forwarded-For"]);
    prop_oneof![
        3 => (name(), "[a-z]{0,5}").prop_map(|(name, value)| Change::Add(name, value)),
        2 => (name(), "[a-z]{0,5}").prop_map(|(name, value)| Change::Set(name, value)),
        1 => name().prop_map(Change::Remove),
        1 => Just(Change::Target),
    ]
}

proptest! {
    /// However a head was changed, what goes out is what was received and is still there, and behind it what
    /// was added, in order.
    #[test]
    fn changed_heads(
        received in prop::collection::vec(("(X-A|X-C|Accept|X-Forwarded-For)", "[a-z]{0,5}"), 0..4),
        changes in prop::collection::vec(change(), 0..6),
    ) {
        let fields: String = received.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let raw = format!("GET /a HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let (mut store, mut scratch, mut room) = (FieldIndex::new(), Vec::new(), [0; 4096]);
        let parsed = parse_request(raw.as_bytes(), &mut store, &LIMITS, &mut scratch).expect("a request");
        let (mut head, mut model, mut target): (RequestHead, _, _) = ((&parsed).into(), received, "/a");
        for change in &changes {
            let gone = match change {
                Change::Set(name, _) | Change::Remove(name) => *name,
                _ => "",
            };
            model.retain(|(name, _)| !name.eq_ignore_ascii_case(gone));
            match change {
                Change::Add(name, value) => head.add_field(name.as_bytes(), value.as_bytes()),
                Change::Set(name, value) => head.set_field(name.as_bytes(), value.as_bytes()),
                Change::Remove(name) => {
                    head.remove_field(name.as_bytes());
                    Ok(())
                }
                Change::Target => {
                    target = "/b?c";
                    head.set_target(target.as_bytes());
                    Ok(())
                }
            }
            .expect("room");
            if let Change::Add(name, value) | Change::Set(name, value) = change {
                model.push(((*name).to_owned(), value.clone()));
            }
        }
        let mut w = Writer::new(&mut room);
        forward_request(&mut w, &head, &forward());
        let passing = model.iter().filter(|(name, _)| name != "X-Forwarded-For");
        let fields: String = passing.map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let expected = format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}{}", tail("a"));
        prop_assert_eq!(std::str::from_utf8(w.written()).expect("text"), expected);
    }
}

fn version_of(number: u8) -> Version {
    if number == 11 { Version::HTTP_11 } else { Version::HTTP_10 }
}
