//! Connections that a client has authenticated: nobody else is sent on them.

use ruststrom_core::Cause;

use crate::world::{Reply, Sock, World, one_pool};

const A: &str = "10.0.0.1:80";
const ONE: &str = "addresses = [\"10.0.0.1:80\"]\nretries = 1";

fn request(authorization: &str) -> String {
    let line = if authorization.is_empty() { String::new() } else { format!("{authorization}\r\n") };
    format!("GET / HTTP/1.1\r\nHost: a.test\r\n{line}\r\n")
}

fn challenge(status: u16, field: &str) -> String {
    format!("HTTP/1.1 {status} X\r\n{field}\r\nContent-Length: 0\r\n\r\n")
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Sends a request, has it answered, and says on which connection to the backend that was.
fn exchange(w: &mut World, client: Sock, request: &str, response: &str) -> Sock {
    let before = w.arrived.len();
    w.send(client, request);
    assert_eq!(w.arrived.len(), before + 1, "it has reached the backend");
    let (b, _) = w.arrived.pop().expect("asked");
    w.reply(b, response);
    assert_eq!(w.statuses(client).len(), 1, "{request}");
    b
}

fn world() -> World {
    let mut w = World::new(&one_pool(ONE));
    w.backend(A).reply = Reply::Hold;
    w
}

/// From a challenge, or from credentials, on: the client keeps its connection, also for requests without
/// credentials; others have others; it goes with its client.
#[test]
fn authenticated_connections_belong_to_their_client() {
    let starts = [
        ("", challenge(401, "WWW-Authenticate: NTLM")),
        ("", challenge(401, "WWW-Authenticate: Basic realm=\"x\", Negotiate")),
        ("", challenge(401, "WWW-Authenticate: Basic realm=\"x\"\r\nwww-authenticate: negotiate")),
        ("", challenge(407, "Proxy-Authenticate: NTLM")),
        ("Authorization: NTLM TlRMTVNTUAAB", OK.to_owned()),
        ("authorization: negotiate YIIZ", OK.to_owned()),
        ("Proxy-Authorization: Negotiate YIIZ", OK.to_owned()),
    ];
    for (credentials, response) in starts {
        let mut w = world();
        let (ann, bob) = (w.client(), w.client());
        let first = exchange(&mut w, ann, &request(credentials), &response);
        let others = exchange(&mut w, bob, &request(""), OK);
        assert_ne!(others, first, "{credentials} {response}");
        for next in ["Authorization: NTLM TlRMTVNTUAAD", "", ""] {
            assert_eq!(exchange(&mut w, ann, &request(next), OK), first, "{credentials} {response}");
            assert_eq!(exchange(&mut w, bob, &request(""), OK), others);
        }
        w.end(ann);
        assert!(w.peer(first).closed, "it goes with its client");
        let cat = w.client();
        assert_eq!(exchange(&mut w, cat, &request(""), OK), others, "what nobody has marked is everybody's");
        w.finish();
    }
}

/// Other schemes authenticate requests: their connections are everybody's.
#[test]
fn other_credentials_bind_nothing() {
    for credentials in ["Authorization: Basic YTpi", "Authorization: Bearer ntlm", "Authorization: NTLMv9 x"]
    {
        let mut w = world();
        let (ann, bob) = (w.client(), w.client());
        let first = exchange(
            &mut w,
            ann,
            &request(credentials),
            &challenge(401, "WWW-Authenticate: Basic realm=\"NTLM\""),
        );
        assert_eq!(exchange(&mut w, bob, &request(""), OK), first, "{credentials}");
        assert_eq!(exchange(&mut w, ann, &request(""), &challenge(403, "WWW-Authenticate: NTLM")), first);
        assert_eq!(exchange(&mut w, bob, &request(""), OK), first, "no challenge without a 401 or 407");
        w.finish();
    }
}

/// A connection that is lost takes the identity along: nothing is repeated on another one, and the client
/// begins again on a fresh one.
#[test]
fn a_lost_connection_is_not_replaced() {
    let mut w = world();
    let ann = w.client();
    let first = exchange(&mut w, ann, &request("Authorization: NTLM x"), OK);
    w.send(ann, request(""));
    w.arrived.pop();
    w.exchanges();
    w.end(first);
    assert_eq!(w.one(), (502, Some(Cause::BackendClosed), 1), "though the method is idempotent");
    w.statuses(ann);
    assert_ne!(exchange(&mut w, ann, &request(""), OK), first);
    // While it lies idle: nobody is told anything.
    let dan = w.client();
    let bound = exchange(&mut w, dan, &request("Authorization: NTLM x"), OK);
    w.end(bound);
    assert!(w.peer(bound).closed);
    assert_ne!(exchange(&mut w, dan, &request(""), OK), bound);
    w.finish();
}

/// A request that finds no page to be written to leaves the connection as it was: its client's, and not
/// everybody's.
#[test]
fn a_request_without_a_page_gives_no_identity_away() {
    let mut config = (*crate::world::config(&one_pool(ONE))).clone();
    config.limits.buffer_bytes = 2 * ruststrom_core::page::SMALL_BYTES as u64;
    let mut w = World::of(&config.into(), 1);
    w.backend(A).reply = Reply::Hold;
    let ann = w.client();
    let bound = exchange(&mut w, ann, &request("Authorization: NTLM x"), OK);
    // Half a head takes one page, and what has come of a body the other one.
    let slow = w.client_sends("GET / HTTP/1.1\r\n");
    w.send(ann, "PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\n01234");
    assert_eq!(w.statuses(ann), [503]);
    w.end(slow);
    w.end(ann);
    assert!(w.peer(bound).closed, "it goes with its client");
    let bob = w.client();
    assert_ne!(exchange(&mut w, bob, &request(""), OK), bound);
    w.finish();
}

/// A reload that drops the backend while it responds: the connection is not kept for a place that the next
/// reload gives to another backend.
#[test]
fn a_backend_that_has_gone_keeps_no_connection() {
    let mut w = world();
    let ann = w.client();
    w.send(ann, request("Authorization: NTLM x"));
    let (b, _) = w.arrived.pop().expect("asked");
    w.reconfigure(&crate::world::config(&one_pool("addresses = [\"10.0.0.9:80\"]")));
    w.reply(b, OK);
    assert_eq!(w.statuses(ann), [200]);
    assert!(w.peer(b).closed);
    w.finish();
}

/// A reload that drops the backend, a drain and the idle timeout end them as they end others.
#[test]
fn they_end_as_others_do() {
    for way in 0..3 {
        let mut w = world();
        let ann = w.client();
        let bound = exchange(&mut w, ann, &request("Authorization: NTLM x"), OK);
        match way {
            0 => w.reconfigure(&crate::world::config(&one_pool("addresses = [\"10.0.0.9:80\"]"))),
            1 => w.drain(std::time::Duration::from_secs(5)),
            _ => w.advance_ms(90_010),
        }
        assert!(w.peer(bound).closed, "{way}");
        w.finish();
    }
}
