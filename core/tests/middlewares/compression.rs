//! `Compression` in a proxy: which responses are compressed, what becomes of their heads, and that what a
//! backend has sent can be decoded at once.

use std::sync::Arc;

use std::io::Read;

use ruststrom_core::middleware::Counter;
use ruststrom_core::{Cause, Shared};

use crate::hooks::{letters, nothing_left};
use crate::two_wires::{Far, Message, PAIRS, Rig, Speaks, config};

const CODINGS: [&str; 4] = ["br", "zstd", "gzip", "deflate"];
const HTTP1: (Speaks, Speaks) = (Speaks::Http1, Speaks::Http1);

/// A proxy whose one pool has `Compression` with these settings.
fn rig(pair: (Speaks, Speaks), settings: &str) -> Rig {
    let pool = format!("retries = 0\n[backend_pools.middlewares.Compression]\n{settings}");
    Rig::new(config("", &pool), Shared::new("lb", 1).into(), pair)
}

fn get(accepted: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a.test\r\nAccept-Encoding: {accepted}\r\n\r\n")
}

/// What a decoder makes of it, and whether it came to the end of the format.
fn decode(coding: &str, bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut decoder: Box<dyn Read + '_> = match coding {
        "br" => Box::new(brotli::Decompressor::new(bytes, 4096)),
        "zstd" => Box::new(zstd::stream::read::Decoder::new(bytes).unwrap()),
        "gzip" => Box::new(flate2::read::GzDecoder::new(bytes)),
        "deflate" => Box::new(flate2::read::ZlibDecoder::new(bytes)),
        other => panic!("no decoder for {other}"),
    };
    let (mut decoded, mut room) = (Vec::new(), [0; 1000]);
    loop {
        match decoder.read(&mut room) {
            Ok(0) => return (decoded, true),
            Ok(n) => decoded.extend_from_slice(&room[..n]),
            Err(_) => return (decoded, false),
        }
    }
}

/// The values of every field of this name.
fn fields<'m>(got: &'m Message, name: &str) -> Vec<&'m str> {
    let named = |line: &&str| line.split(':').next().is_some_and(|n| n.eq_ignore_ascii_case(name));
    got.head.lines().filter(named).map(|line| line.split_once(':').unwrap().1.trim()).collect()
}

/// As HTTP/1.1 sends it in one chunk; on streams as it is.
fn chunk(speaks: Speaks, data: &[u8]) -> Vec<u8> {
    match speaks {
        Speaks::Http1 => [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat(),
        Speaks::Toy | Speaks::Http2 => data.to_vec(),
    }
}

/// Text in which something repeats, and something does not.
fn text(len: usize) -> Vec<u8> {
    let mut state = 7_u32;
    let line = |i: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        format!("{{\"id\":{i},\"name\":\"item\",\"value\":{}}},\n", state >> 8)
    };
    (0..).map(line).flat_map(String::into_bytes).take(len).collect()
}

#[test]
fn a_response_is_compressed_in_the_coding_that_its_client_takes() {
    for pair in PAIRS {
        for coding in CODINGS {
            for len in [1024, 20_480, 200_000] {
                for chunked in [false, true] {
                    for most in [usize::MAX, 500] {
                        one_response(pair, coding, len, chunked, most);
                    }
                }
            }
        }
    }
}

fn one_response(pair: (Speaks, Speaks), coding: &'static str, len: usize, chunked: bool, most: usize) {
    let case = format!("{pair:?} {coding} {len} {chunked} {most}");
    let body = text(len);
    let mut rig = rig(pair, "");
    rig.most = most;
    let c = rig.client();
    let far = rig.ask(c, &get(coding), true);
    let backend = rig.asked()[0];
    let asked = rig.message(backend);
    assert_eq!(fields(&asked, "Accept-Encoding"), [coding], "the backend sees what the client said");
    let framing =
        if chunked { "Transfer-Encoding: chunked".into() } else { format!("Content-Length: {len}") };
    let head = format!(
        "HTTP/1.1 200 OK\r\n{framing}\r\nContent-Type: application/json\r\nETag: \"v1\"\r\n\
         Accept-Ranges: bytes\r\nContent-MD5: x\r\nVary: Origin\r\nX-Other: kept\r\n\r\n"
    );
    let mut sent = body.clone();
    if chunked && pair.1 == Speaks::Http1 {
        sent = body.chunks(3000).flat_map(|part| chunk(Speaks::Http1, part)).collect();
        sent.extend_from_slice(b"0\r\n\r\n");
    }
    rig.respond(backend, &head, &sent);
    let got = rig.message(far);
    assert!(got.ended, "{case}");
    assert_eq!(fields(&got, "Content-Encoding"), [coding], "{case}: {}", got.head);
    assert_eq!(fields(&got, "Vary"), ["Origin", "Accept-Encoding"], "{case}");
    assert_eq!(fields(&got, "ETag"), ["W/\"v1\""], "{case}");
    assert_eq!(fields(&got, "X-Other"), ["kept"], "{case}");
    for gone in ["Content-Length", "Accept-Ranges", "Content-MD5"] {
        assert!(fields(&got, gone).is_empty(), "{case}: {}", got.head);
    }
    assert!(decode(coding, &got.body) == (body, true), "{case}: {} bytes", got.body.len());
    assert!(got.body.len() < len / 2, "{case}: {} bytes", got.body.len());
    let compressed = got.body.len() as u64;
    let counter = Counter::Compressed { encoding: coding, original: len as u64, compressed };
    assert_eq!(rig.proxy.observer_mut().counters, [("api".to_owned(), counter)], "{case}");
    nothing_left(&mut rig);
    if pair.1 == Speaks::Http1 {
        assert_eq!(rig.proxy.counts().backends_idle, 1, "{case}: the connection is kept");
    }
}

/// One exchange over HTTP/1.1 with 2000 bytes of content, if there is any.
fn exchange(settings: &str, request: &str, response: &str, body: &[u8]) -> Message {
    let mut rig = rig(HTTP1, settings);
    let c = rig.client();
    let far = rig.ask(c, &format!("{request}\r\nHost: a.test\r\n\r\n"), true);
    let backend = rig.asked()[0];
    rig.respond(backend, &format!("{response}\r\n\r\n"), body);
    let got = rig.message(far);
    assert!(got.ended || request.starts_with("HEAD"), "{response}: {got:?}");
    let counted = rig.proxy.observer_mut().counters.len();
    assert_eq!(counted, fields(&got, "Content-Encoding").iter().filter(|c| CODINGS.contains(c)).count());
    nothing_left(&mut rig);
    got
}

#[test]
fn which_responses_are_compressed_and_which_vary() {
    const GET: &str = "GET / HTTP/1.1\r\nAccept-Encoding: gzip";
    const JSON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2000\r\nContent-Type: application/json";
    let of = |head: &str, more: &str| format!("{head}\r\n{more}");
    let typed = |t: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: 2000\r\nContent-Type: {t}");
    let status = |s: &str| format!("HTTP/1.1 {s}\r\nContent-Length: 2000\r\nContent-Type: text/html");
    // Settings, request, response; whether it is compressed, and whether it varies.
    let table: Vec<(&str, String, String, bool, bool)> = vec![
        ("", GET.into(), JSON.into(), true, true),
        // The client.
        ("", "GET / HTTP/1.1".into(), JSON.into(), false, true),
        ("", "GET / HTTP/1.1\r\nAccept-Encoding: identity".into(), JSON.into(), false, true),
        ("", "GET / HTTP/1.1\r\nAccept-Encoding:".into(), JSON.into(), false, true),
        ("", "GET / HTTP/1.1\r\nAccept-Encoding: gzip;q=0".into(), JSON.into(), false, true),
        ("", "GET / HTTP/1.1\r\nAccept-Encoding: x\r\nAccept-Encoding: gzip".into(), JSON.into(), true, true),
        ("", of(GET, "Cache-Control: no-transform"), JSON.into(), false, true),
        ("", of(GET, "Cache-Control: no-cache"), JSON.into(), true, true),
        ("", of(GET, "Range: bytes=0-1"), JSON.into(), true, true),
        ("", GET.replace("GET", "POST"), JSON.into(), true, true),
        ("algorithms = [\"br\"]", GET.into(), JSON.into(), false, true),
        // The type.
        ("", GET.into(), "HTTP/1.1 200 OK\r\nContent-Length: 2000".into(), false, false),
        ("", GET.into(), typed("text/html; charset=utf-8"), true, true),
        ("", GET.into(), typed("TEXT/CSS"), true, true),
        ("", GET.into(), typed("text/event-stream"), true, true),
        ("", GET.into(), typed("application/javascript"), true, true),
        ("", GET.into(), typed("application/xml"), true, true),
        ("", GET.into(), typed("application/problem+json"), true, true),
        ("", GET.into(), typed("image/svg+xml"), true, true),
        ("", GET.into(), typed("image/png"), false, false),
        ("", GET.into(), typed("application/octet-stream"), false, false),
        ("", GET.into(), typed("application/grpc"), false, false),
        ("", GET.into(), typed("video/mp4"), false, false),
        ("", GET.into(), typed("nonsense"), false, false),
        ("types = [\"image/*\"]", GET.into(), typed("image/png"), true, true),
        ("types = [\"image/*\"]", GET.into(), typed("text/html"), false, false),
        // The status.
        ("", GET.into(), status("404 Not Found"), true, true),
        ("", GET.into(), status("500 Internal Server Error"), true, true),
        ("", GET.into(), of(&status("206 Partial Content"), "Content-Range: bytes 0-1999/9000"), false, true),
        ("", GET.into(), status("206 Partial Content"), false, true),
        ("", GET.into(), of(&status("416 Range Not Satisfiable"), "Content-Range: bytes */9"), false, true),
        // What has been said of the content.
        ("", GET.into(), of(JSON, "Content-Encoding: br, x"), false, false),
        ("", GET.into(), of(JSON, "Content-Encoding: identity"), false, false),
        ("", GET.into(), of(JSON, "Cache-Control: public, No-Transform"), false, false),
        ("", GET.into(), of(JSON, "Cache-Control: a\r\nCache-Control: b ,no-transform"), false, false),
        ("", GET.into(), of(JSON, "Cache-Control: no-transformation"), true, true),
    ];
    for (settings, request, response, compressed, varies) in table {
        let got = exchange(settings, &request, &response, &[b'x'; 2000]);
        let case = format!("{settings} {request} {response}: {}", got.head);
        assert_eq!(fields(&got, "Content-Encoding") == ["gzip"], compressed, "{case}");
        assert_eq!(!fields(&got, "Vary").is_empty(), varies, "{case}");
        if !compressed {
            assert!(fields(&got, "Content-Length") == ["2000"] && got.body == [b'x'; 2000], "{case}");
        }
    }
}

#[test]
fn content_that_is_known_to_be_short_is_not_compressed() {
    for (settings, len, compressed) in [
        ("", 0, false),
        ("", 1023, false),
        ("", 1024, true),
        ("min_bytes = 0", 64, false),
        ("min_bytes = 0", 65, true),
        ("min_bytes = 5000", 4999, false),
        ("min_bytes = 5000", 5000, true),
    ] {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\nContent-Type: text/plain");
        let body = vec![b'x'; len];
        let got = exchange(settings, "GET / HTTP/1.1\r\nAccept-Encoding: gzip", &head, &body);
        assert_eq!(!fields(&got, "Content-Encoding").is_empty(), compressed, "{settings} {len}");
        assert!(compressed || got.body == body);
        assert_eq!(fields(&got, "Vary"), ["Accept-Encoding"], "{settings} {len}");
    }
}

#[test]
fn responses_without_content_stay_as_they_are() {
    for (method, status, more) in [
        ("HEAD", "200 OK", "Content-Length: 2000\r\n"),
        ("HEAD", "200 OK", ""),
        ("GET", "204 No Content", ""),
        ("GET", "304 Not Modified", ""),
    ] {
        let request = format!("{method} / HTTP/1.1\r\nAccept-Encoding: br, gzip");
        let head = format!("HTTP/1.1 {status}\r\n{more}Content-Type: text/html\r\nETag: \"a\"");
        let got = exchange("", &request, &head, b"");
        assert!(fields(&got, "Content-Encoding").is_empty() && got.body.is_empty(), "{got:?}");
        assert_eq!(fields(&got, "ETag"), ["\"a\""]);
        assert_eq!(!fields(&got, "Vary").is_empty(), method == "HEAD", "{}", got.head);
        assert_eq!(!fields(&got, "Content-Length").is_empty(), !more.is_empty(), "{}", got.head);
    }
}

#[test]
fn vary_and_entity_tags() {
    const GET: &str = "GET / HTTP/1.1\r\nAccept-Encoding: gzip";
    const JSON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2000\r\nContent-Type: application/json\r\n";
    for (sent, expected) in [
        ("X: y", &["Accept-Encoding"][..]),
        ("Vary: accept-encoding", &["accept-encoding"]),
        ("Vary: Origin ,Accept-Encoding", &["Origin ,Accept-Encoding"]),
        ("Vary: *", &["*"]),
        ("Vary: Origin\r\nVary: Accept-Encoding", &["Origin", "Accept-Encoding"]),
        ("Vary: Accept-Encoding-2", &["Accept-Encoding-2", "Accept-Encoding"]),
    ] {
        assert_eq!(fields(&exchange("", GET, &format!("{JSON}{sent}"), &[b'x'; 2000]), "Vary"), expected);
    }
    for (sent, expected) in [
        ("ETag: \"a\"", &["W/\"a\""][..]),
        ("ETag: W/\"a\"", &["W/\"a\""]),
        ("etag: \"\"", &["W/\"\""]),
        ("ETag: a", &[]),
        ("X: y", &[]),
    ] {
        let got = exchange("", GET, &format!("{JSON}{sent}"), &[b'x'; 2000]);
        assert_eq!(fields(&got, "ETag"), expected, "{sent}");
    }
    // A 304 says what the stored response says: compressed or not is seen by the tag that the client has.
    for (asked, tag, expected, varies) in [
        ("W/\"a\"", "\"a\"", "W/\"a\"", true),
        ("\"b\", W/\"a\"", "\"a\"", "W/\"a\"", true),
        ("\"a\"", "\"a\"", "\"a\"", false),
        ("\"b\", W/\"a,c\"", "\"a,c\"", "W/\"a,c\"", true),
        ("W/\"b\"", "\"a\"", "\"a\"", false),
        ("*", "\"a\"", "\"a\"", false),
        ("W/\"a\"", "W/\"a\"", "W/\"a\"", false),
    ] {
        let request = format!("{GET}\r\nIf-None-Match: {asked}");
        let got = exchange("", &request, &format!("HTTP/1.1 304 Not Modified\r\nETag: {tag}"), b"");
        assert_eq!(fields(&got, "ETag"), [expected], "{asked}");
        assert_eq!(!fields(&got, "Vary").is_empty(), varies, "{asked}");
    }
}

#[test]
fn what_a_backend_has_sent_can_be_decoded_at_once() {
    for pair in PAIRS {
        for coding in CODINGS {
            for framing in ["Transfer-Encoding: chunked", "Content-Length: 4010"] {
                let mut rig = rig(pair, "");
                let c = rig.client();
                let far = rig.ask(c, &get(coding), true);
                let backend = rig.asked()[0];
                let head = format!("HTTP/1.1 200 OK\r\n{framing}\r\nContent-Type: text/event-stream\r\n\r\n");
                rig.respond_head(backend, &head);
                assert_eq!(fields(&rig.message(far), "Content-Encoding"), [coding], "the head comes first");
                let body = text(4010);
                let (mut sent, mut received) = (0, 0);
                for len in [1, 9, 500, 3000, 499, 1] {
                    let piece = &body[sent..sent + len];
                    let whole = framing.starts_with("Content");
                    let piece = if whole { piece.to_vec() } else { chunk(pair.1, piece) };
                    rig.send_all(backend, &piece);
                    sent += len;
                    let got = rig.message(far);
                    assert!(decode(coding, &got.body).0 == body[..sent], "{pair:?} {coding} {sent}");
                    assert!(got.body.len() > received, "something came of it");
                    received = got.body.len();
                    // Nothing is said twice.
                    rig.run();
                    assert_eq!(rig.message(far).body.len(), received);
                }
                if framing.starts_with("Transfer") && pair.1 == Speaks::Http1 {
                    rig.send_all(backend, b"0\r\n\r\n");
                }
                rig.end(backend, "");
                let got = rig.message(far);
                assert!(got.ended && decode(coding, &got.body) == (body, true), "{pair:?} {coding}");
                nothing_left(&mut rig);
            }
        }
    }
}

/// A read that fills the page is followed by another one: the content is not cut into blocks for it, unless
/// nothing more was there.
#[test]
fn a_full_page_is_flushed_once_it_is_known_that_no_more_is_there() {
    let body = text(60_000);
    for coding in CODINGS {
        for pauses in [false, true] {
            let mut rig = rig(HTTP1, "");
            let c = rig.client();
            let far = rig.ask(c, &get(coding), true);
            let backend = rig.asked()[0];
            rig.respond_head(
                backend,
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n",
            );
            // As much as there is room for.
            let first = rig.proxy.recv_buf(backend.0).len();
            assert!(first < body.len());
            assert_eq!(rig.send(backend, &body[..first]), first);
            let before = rig.message(far).body;
            assert!(decode(coding, &before).0.len() < first, "{coding}: some is held back");
            if pauses {
                // The next read would have blocked.
                rig.proxy.recv_buf(backend.0);
                rig.proxy.handle_recv(backend.0, 0, rig.now);
                rig.run();
                assert!(decode(coding, &rig.message(far).body).0 == body[..first], "{coding}");
            }
            let rest = &body[first..first + 100];
            rig.send_all(backend, rest);
            let so_far = rig.message(far).body;
            assert!(decode(coding, &so_far).0 == body[..first + 100], "{coding}");
            rig.close(backend.0);
            let got = rig.message(far);
            assert!(
                got.ended && decode(coding, &got.body) == (body[..first + 100].to_vec(), true),
                "{coding}"
            );
            nothing_left(&mut rig);
        }
    }
}

#[test]
fn a_slow_client_holds_the_backend_and_gets_all_of_it() {
    // Of nothing that could be made shorter: output waits for room again and again.
    let mut state = 1_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        b' ' + (state >> 20) as u8 % 95
    };
    let body: Vec<u8> = (0..1_000_000).map(|_| random()).collect();
    for pair in PAIRS {
        for coding in CODINGS {
            for most in [usize::MAX, 9973] {
                let mut rig = rig(pair, "");
                rig.most = most;
                let c = rig.client();
                let far = rig.ask(c, &get(coding), true);
                let backend = rig.asked()[0];
                rig.slow_down(c);
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1000000\r\n\r\n";
                rig.respond_head(backend, head);
                let mut given = 0;
                let mut at_first = 0;
                while given < body.len() {
                    given += rig.send(backend, &body[given..]);
                    at_first = if at_first == 0 { given } else { at_first };
                    rig.take_once(c);
                }
                // Brotli takes up to twice its window before it puts anything out.
                assert!(at_first < 800_000, "{pair:?} {coding}: {at_first} bytes are read");
                rig.end(backend, "");
                while rig.take_once(c) {}
                let got = rig.message(far);
                assert!(got.ended && decode(coding, &got.body) == (body.clone(), true), "{pair:?} {coding}");
                nothing_left(&mut rig);
            }
        }
    }
}

#[test]
fn a_backend_that_dies_in_mid_body_leaves_a_response_that_is_visibly_cut() {
    for pair in PAIRS {
        for coding in CODINGS {
            for framing in ["Transfer-Encoding: chunked", "Content-Length: 90000"] {
                let body = text(30_000);
                let mut rig = rig(pair, "");
                let c = rig.client();
                let far = rig.ask(c, &get(coding), true);
                let backend = rig.asked()[0];
                let head = format!("HTTP/1.1 200 OK\r\n{framing}\r\nContent-Type: text/html\r\n\r\n");
                rig.respond_head(backend, &head);
                let whole = framing.starts_with("Content");
                let sent = if whole { body.clone() } else { chunk(pair.1, &body) };
                rig.send_all(backend, &sent);
                rig.lose(backend.0);
                let got = rig.message(far);
                assert!(got.reset && !got.ended, "{pair:?} {coding}");
                assert_eq!(decode(coding, &got.body), (body, false), "{pair:?} {coding}");
                assert_eq!(rig.proxy.observer_mut().counters, [], "only bodies that ended are counted");
                let records = &rig.proxy.observer_mut().records;
                assert!(matches!(records[..], [(200, Some(_))]), "{records:?}");
                nothing_left(&mut rig);
            }
        }
    }
}

#[test]
fn to_an_http_1_0_client_the_connection_is_the_end() {
    for coding in CODINGS {
        for dies in [false, true] {
            let body = text(30_000);
            let mut rig = rig(HTTP1, "");
            let c = rig.client();
            let request = format!(
                "GET / HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\nAccept-Encoding: {coding}\r\n\r\n"
            );
            let far = rig.ask(c, &request, true);
            let backend = rig.asked()[0];
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 30000\r\nContent-Type: text/html\r\n\r\n";
            rig.respond_head(backend, head);
            rig.send_all(backend, &body[..29_000]);
            if dies {
                rig.lose(backend.0);
            } else {
                rig.send_all(backend, &body[29_000..]);
            }
            let got = rig.message(far);
            assert!(fields(&got, "Transfer-Encoding").is_empty(), "{}", got.head);
            assert!(fields(&got, "Content-Length").is_empty(), "{}", got.head);
            assert_eq!(fields(&got, "Connection"), ["close"]);
            let content = rig.received(c)[got.head.len()..].to_vec();
            let expected = if dies { (body[..29_000].to_vec(), false) } else { (body, true) };
            assert!(decode(coding, &content) == expected, "{coding}");
            let cause = dies.then_some(Cause::ResponseTruncated);
            assert_eq!(rig.proxy.observer_mut().records, [(200, cause)]);
            nothing_left(&mut rig);
        }
    }
}

#[test]
fn trailers_stand_behind_compressed_content() {
    let trailers = "X-Sum: 7\r\n\r\n";
    for pair in PAIRS {
        for coding in CODINGS {
            let mut rig = rig(pair, "");
            let c = rig.client();
            let far = rig.ask(c, &get(coding), true);
            let backend = rig.asked()[0];
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/html\r\n\r\n";
            rig.respond_head(backend, head);
            rig.send_all(backend, &chunk(pair.1, b"abc"));
            if pair.1 == Speaks::Http1 {
                rig.send_all(backend, b"0\r\nX-Sum: 7\r\n\r\n");
            }
            rig.end(backend, trailers);
            let got = rig.message(far);
            assert!(got.ended && got.trailers == trailers, "{pair:?} {got:?}");
            assert_eq!(decode(coding, &got.body), (b"abc".to_vec(), true));
            nothing_left(&mut rig);
        }
    }
}

#[test]
fn content_that_turns_out_to_be_empty_is_empty_in_every_coding() {
    for coding in CODINGS {
        let mut rig = rig(HTTP1, "");
        let c = rig.client();
        let far = rig.ask(c, &get(coding), true);
        let backend = rig.asked()[0];
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/html\r\n\r\n";
        rig.respond(backend, head, b"0\r\n\r\n");
        let got = rig.message(far);
        assert!(got.ended && decode(coding, &got.body) == (Vec::new(), true), "{coding}: {got:?}");
        nothing_left(&mut rig);
    }
}

#[test]
fn a_second_compression_in_a_chain_leaves_what_the_first_has_compressed() {
    let mut config = config("", "retries = 0\n[backend_pools.middlewares.Compression]");
    let one = config.pools[0].middlewares[0].clone();
    Arc::make_mut(&mut config.pools[0]).middlewares.push(one);
    let mut rig = Rig::new(config, Shared::new("lb", 1).into(), HTTP1);
    let c = rig.client();
    let far: Far = rig.ask(c, &get("gzip"), true);
    let backend = rig.asked()[0];
    let body = letters(5000);
    rig.respond(backend, "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\nContent-Type: text/html\r\n\r\n", &body);
    let got = rig.message(far);
    assert_eq!(fields(&got, "Content-Encoding"), ["gzip"]);
    assert_eq!(fields(&got, "Vary"), ["Accept-Encoding"]);
    assert!(decode("gzip", &got.body) == (body, true));
    nothing_left(&mut rig);
}
