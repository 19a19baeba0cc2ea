//! `Headers` as configured, over both wires.

use std::sync::Arc;

use ruststrom_core::Shared;
use ruststrom_core::config::ListenerKind;

use crate::hooks::{get, nothing_left};
use crate::two_wires::{PAIRS, Rig, Speaks, config, in_title_case};

/// A rig whose pool has `Headers` with these lines.
fn rig_with(pair: (Speaks, Speaks), top: &str, headers: &str) -> Rig {
    let pool = format!("retries = 0\n[backend_pools.middlewares.Headers]\n{headers}");
    Rig::new(config(top, &pool), Arc::new(Shared::new("lb", 1)), pair)
}

/// A line as the rig shows it.
fn spelt(pair: (Speaks, Speaks), line: &str) -> String {
    let http2 = pair.0 == Speaks::Http2 || pair.1 == Speaks::Http2;
    if http2 { in_title_case(line) } else { line.to_owned() }
}

/// The field lines of a head with this name, as they are written.
fn lines<'h>(head: &'h str, name: &str) -> Vec<&'h str> {
    let is_it = |line: &&str| line.split(':').next().is_some_and(|n| n.eq_ignore_ascii_case(name));
    head.lines().filter(is_it).collect()
}

/// What stands behind a body passes as it is, whatever happens to fields of that name.
#[test]
fn trailers_are_left_alone() {
    let headers = "request.remove = \"x-sum\"\nresponse.remove = \"x-sum\"";
    let trailers = "X-Sum: 7\r\n\r\n";
    let chunked = b"3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n";
    let send = |rig: &mut Rig, far, speaks| {
        rig.send_all(far, if speaks == Speaks::Http1 { chunked } else { b"abc" });
        rig.end(far, trailers);
    };
    for pair in PAIRS {
        let mut rig = rig_with(pair, "", headers);
        let c = rig.client();
        let head =
            "POST / HTTP/1.1\r\nHost: a\r\nX-Sum: 1\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n";
        let far = rig.ask(c, head, false);
        let backend = rig.asked()[0];
        send(&mut rig, far, pair.0);
        let sent = rig.message(backend);
        assert!(lines(&sent.head, "x-sum").is_empty() && sent.body == b"abc", "{pair:?}: {sent:?}");
        assert_eq!(sent.trailers, trailers, "{pair:?}: {sent:?}");
        rig.respond_head(
            backend,
            "HTTP/1.1 200 OK\r\nX-Sum: 1\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n",
        );
        send(&mut rig, backend, pair.1);
        let got = rig.message(far);
        assert!(lines(&got.head, "x-sum").is_empty() && got.body == b"abc", "{pair:?}: {got:?}");
        assert_eq!(got.trailers, trailers, "{pair:?}: {got:?}");
        rig.forget(far);
        rig.forget(backend);
        nothing_left(&mut rig);
    }
}

#[test]
fn requests_and_responses_are_changed() {
    let headers = "request.set = { X-Client = \"{client_ip} {{by}} {scheme}\", \"x-old\" = \"new\", X-Forwarded-Prefix = \"/p\" }\n\
        request.add = { X-More = [\"1\", \"{host}\"] }\n\
        request.remove = [\"x-secret\"]\n\
        response.set = { Server = \"ours\", X-Backend = \"{backend}\", X-Id = \"{request_id}\" }\n\
        response.add.Link = \"</a.css>; rel=preload\"\n\
        response.remove = \"X-Powered-By\"";
    for pair in PAIRS {
        let mut rig = rig_with(pair, "", headers);
        let c = rig.client();
        let head = "GET / HTTP/1.1\r\nHost: a.test:8080\r\nX-Old: 1\r\nX-OLD: 2\r\nX-Secret: s\r\nX-More: 0\r\n\
                    X-Forwarded-Prefix: /theirs\r\n\r\n";
        let far = rig.ask(c, head, true);
        let asked = rig.asked()[0];
        let sent = rig.message(asked).head;
        assert_eq!(lines(&sent, "x-client"), ["X-Client: 192.0.2.7 {by} http"], "{pair:?}: {sent}");
        assert_eq!(lines(&sent, "x-old"), [spelt(pair, "x-old: new")], "{pair:?}: {sent}");
        assert_eq!(lines(&sent, "x-more"), ["X-More: 0", "X-More: 1", "X-More: a.test:8080"], "{sent}");
        assert!(lines(&sent, "x-secret").is_empty(), "{sent}");
        // Only what is said here, and not what a client says.
        assert_eq!(lines(&sent, "x-forwarded-prefix"), ["X-Forwarded-Prefix: /p"], "{sent}");
        let id = lines(&sent, "x-request-id")[0].split_once(": ").unwrap().1.to_owned();
        rig.respond(
            asked,
            "HTTP/1.1 200 OK\r\nServer: theirs\r\nX-Powered-By: x\r\nLink: <b>\r\nContent-Length: 2\r\n\r\n",
            b"ok",
        );
        let got = rig.message(far);
        assert_eq!(got.body, b"ok");
        assert_eq!(lines(&got.head, "server"), ["Server: ours"], "{pair:?}: {}", got.head);
        assert_eq!(lines(&got.head, "x-backend"), ["X-Backend: 127.0.0.1:81"], "{}", got.head);
        assert_eq!(lines(&got.head, "x-id"), [format!("X-Id: {id}")], "{}", got.head);
        assert_eq!(lines(&got.head, "link"), ["Link: <b>", "Link: </a.css>; rel=preload"], "{}", got.head);
        assert!(lines(&got.head, "x-powered-by").is_empty(), "{}", got.head);
        nothing_left(&mut rig);
    }
}

#[test]
fn a_local_reply_has_no_backend() {
    for pair in PAIRS {
        let mut rig =
            rig_with(pair, "", "response.set = { X-Backend = \"{backend}\", X-Seen = \"{scheme}\" }");
        rig.refused = 1;
        let c = rig.client();
        let far = rig.ask(c, &get("/"), true);
        let got = rig.message(far);
        assert!(got.head.starts_with("HTTP/1.1 502 "), "{pair:?}: {}", got.head);
        assert!(lines(&got.head, "x-backend").is_empty(), "{}", got.head);
        assert_eq!(lines(&got.head, "x-seen"), ["X-Seen: http"]);
    }
}

#[test]
fn what_a_trusted_proxy_says_of_its_client_counts() {
    let headers = "request.set = { X-Seen = \"{scheme} {client_ip} {request_id}\" }\nsecurity = true";
    let head = "GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-Proto: https\r\n\
                X-Forwarded-For: 2001:db8:1111:2222:3333:4444:5555:6666\r\nX-Request-ID: theirs\r\n\r\n";
    for pair in PAIRS {
        for (top, trusted) in [("trusted_proxies = [\"192.0.2.0/24\"]", true), ("", false)] {
            let mut rig = rig_with(pair, top, headers);
            let c = rig.client();
            let far = rig.ask(c, head, true);
            let asked = rig.asked()[0];
            let sent = rig.message(asked).head;
            let seen = lines(&sent, "x-seen")[0];
            if trusted {
                assert_eq!(seen, "X-Seen: https 2001:db8:1111:2222:3333:4444:5555:6666 theirs", "{pair:?}");
            } else {
                assert!(seen.starts_with("X-Seen: http 192.0.2.7 ") && !seen.contains("theirs"), "{seen}");
            }
            rig.respond(asked, "HTTP/1.1 204 No Content\r\n\r\n", b"");
            let got = rig.message(far).head;
            assert_eq!(lines(&got, "strict-transport-security").len(), usize::from(trusted), "{got}");
        }
    }
}

#[test]
fn security_fields_stand_where_a_backend_has_none() {
    for pair in PAIRS {
        for kind in [ListenerKind::Http, ListenerKind::Https] {
            if (pair.0, kind) == (Speaks::Http2, ListenerKind::Https) {
                // It needs a certificate there.
                continue;
            }
            let mut rig = rig_with(pair, "", "security = true");
            let c = rig.client_of(kind);
            let far = rig.ask(c, &get("/"), true);
            let asked = rig.asked()[0];
            rig.respond(asked, "HTTP/1.1 200 OK\r\nx-frame-options: DENY\r\nContent-Length: 0\r\n\r\n", b"");
            let got = rig.message(far).head;
            assert_eq!(
                lines(&got, "x-frame-options"),
                [spelt(pair, "x-frame-options: DENY")],
                "{pair:?}: {got}"
            );
            assert_eq!(lines(&got, "x-content-type-options"), ["X-Content-Type-Options: nosniff"]);
            assert_eq!(lines(&got, "referrer-policy"), ["Referrer-Policy: strict-origin-when-cross-origin"]);
            let hsts = lines(&got, "strict-transport-security");
            match kind {
                ListenerKind::Https => assert_eq!(hsts, ["Strict-Transport-Security: max-age=31536000"]),
                _ => assert!(hsts.is_empty(), "RFC 6797 §7.2: {got}"),
            }
        }
    }
}

#[test]
fn a_request_without_room_for_its_fields_is_refused() {
    let long = "x".repeat(4000);
    let values: Vec<String> = (0..16).map(|_| format!("\"{long}\"")).collect();
    let headers = format!("request.add = {{ X-Long = [{}] }}", values.join(", "));
    for pair in PAIRS {
        let mut rig = rig_with(pair, "", &headers);
        let c = rig.client();
        let padding = "y".repeat(8000);
        let far = rig.ask(c, &format!("GET / HTTP/1.1\r\nHost: a.test\r\nX-P: {padding}\r\n\r\n"), true);
        let got = rig.message(far).head;
        assert!(got.starts_with("HTTP/1.1 431 "), "{pair:?}: {got}");
        assert!(rig.asked().is_empty());
        nothing_left(&mut rig);
    }
}
