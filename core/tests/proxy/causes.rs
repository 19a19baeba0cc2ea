//! Why an exchange failed: each cause comes about, with its status, its attempts, and nothing left behind.

use std::time::Duration;

use ruststrom_core::http::Violation as V;
use ruststrom_core::{Cause, Fault};

use crate::world::{Open, Reply, World, config, get, ok, one_pool};

const A: &str = "10.0.0.1:80";
const B: &str = "10.0.0.2:80";

pub(crate) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(crate) fn all_open(w: &mut World, open: Open) {
    w.backend(A).open = open;
    w.backend(B).open = open;
}

pub(crate) fn all_reply(w: &mut World, reply: impl Into<Reply>) {
    let reply = reply.into();
    w.backend(A).reply = reply.clone();
    w.backend(B).reply = reply;
}

const POST: &str = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody";
pub(crate) const HALF: &str = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbo";

/// Two backends, one retry.
pub(crate) const TWO: &str = "addresses = [\"10.0.0.1:80\", \"10.0.0.2:80\"]";

type Play = fn(&mut World);
/// Status, cause, attempts.
type Record = (u16, Option<Cause>, u8);
/// What happens, and the record.
type Row = (&'static str, Play, Record);

#[test]
fn every_cause() {
    let table: &[Row] = &[
        ("all is well", |w| w.send_from_new_client(&get("/")), (200, None, 1)),
        (
            "a rule of HTTP",
            |w| w.send_from_new_client("GET / HTTP/1.1\r\n\r\n"),
            (400, Some(Cause::BadRequest(V::MissingHost)), 0),
        ),
        (
            "a bad body is found out later",
            |w| {
                w.client_sends(
                    "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\nz\r\n",
                );
            },
            (400, Some(Cause::BadRequest(V::ChunkSize)), 0),
        ),
        (
            "refused",
            |w| (all_open(w, Open::Fails(Fault::Refused)), w.send_from_new_client(POST)).1,
            (502, Some(Cause::ConnectRefused), 2),
        ),
        (
            "no way",
            |w| (all_open(w, Open::Fails(Fault::Unreachable)), w.send_from_new_client(POST)).1,
            (502, Some(Cause::ConnectUnreachable), 2),
        ),
        (
            "no files",
            |w| (all_open(w, Open::Fails(Fault::NoResources)), w.send_from_new_client(POST)).1,
            (502, Some(Cause::ConnectFailed), 2),
        ),
        (
            "no socket",
            |w| (all_open(w, Open::Fails(Fault::NoSocket)), w.send_from_new_client(POST)).1,
            (502, Some(Cause::ConnectNoSocket), 2),
        ),
        (
            "not allowed",
            |w| (all_open(w, Open::Fails(Fault::Denied)), w.send_from_new_client(POST)).1,
            (502, Some(Cause::ConnectDenied), 2),
        ),
        (
            "its queue is full",
            |w| (all_open(w, Open::Fails(Fault::BacklogFull)), w.send_from_new_client(POST)).1,
            (502, Some(Cause::ConnectBacklogFull), 2),
        ),
        (
            "the kernel gave up",
            |w| (all_open(w, Open::Fails(Fault::TimedOut)), w.send_from_new_client(POST)).1,
            (504, Some(Cause::ConnectTimeout), 2),
        ),
        (
            "no response to a connect",
            |w| {
                all_open(w, Open::Silent);
                w.client_sends(POST);
                w.advance(ms(10_010));
            },
            (504, Some(Cause::ConnectTimeout), 2),
        ),
        (
            "closed, idempotent",
            |w| (all_reply(w, Reply::Close), w.send_from_new_client(&get("/"))).1,
            (502, Some(Cause::BackendClosed), 2),
        ),
        (
            "closed, not idempotent",
            |w| (all_reply(w, Reply::Close), w.send_from_new_client(POST)).1,
            (502, Some(Cause::BackendClosed), 1),
        ),
        (
            "reset",
            |w| (all_reply(w, Reply::Reset), w.send_from_new_client(&get("/"))).1,
            (502, Some(Cause::BackendReset), 2),
        ),
        (
            "no HTTP",
            |w| (all_reply(w, "SSH-2.0\r\n"), w.send_from_new_client(&get("/"))).1,
            (502, Some(Cause::BadResponse(V::StatusLine)), 1),
        ),
        (
            "an unasked switch",
            |w| {
                all_reply(w, "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
                w.client_sends(&get("/"));
            },
            (502, Some(Cause::BadResponse(V::UnexpectedSwitch)), 1),
        ),
        (
            "too many interims",
            |w| {
                all_reply(w, &*"HTTP/1.1 103 X\r\n\r\n".repeat(33));
                w.client_sends(&get("/"));
            },
            (502, Some(Cause::BadResponse(V::TooManyInterims)), 1),
        ),
        (
            "never a response",
            |w| {
                all_reply(w, Reply::Hold);
                w.client_sends(POST);
                w.advance(ms(30_010));
            },
            (504, Some(Cause::BackendTimeout), 1),
        ),
        (
            "never a response to a request that might be repeated",
            |w| {
                all_reply(w, Reply::Hold);
                w.client_sends(&get("/"));
                w.advance(ms(30_010));
            },
            (504, Some(Cause::BackendTimeout), 1),
        ),
        (
            "half a response",
            |w| {
                all_reply(
                    w,
                    Reply::BytesThenClose(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc".to_vec()),
                );
                w.client_sends(&get("/"));
            },
            (200, Some(Cause::ResponseTruncated), 1),
        ),
        (
            "a response that stops",
            |w| {
                all_reply(w, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc");
                w.client_sends(&get("/"));
                w.advance(ms(30_010));
            },
            (200, Some(Cause::BackendStalled), 1),
        ),
        (
            "half a head",
            |w| {
                w.client_sends("GET / HT");
                w.advance(ms(10_010));
            },
            (408, Some(Cause::HeadTimeout), 0),
        ),
        (
            "half a body",
            |w| {
                w.client_sends(HALF);
                w.advance(ms(30_010));
            },
            (408, Some(Cause::ClientStalled), 1),
        ),
        (
            "a response that nobody takes",
            |w| {
                all_reply(w, &*ok(&"x".repeat(5000)));
                let c = w.client();
                w.room(c, 100);
                w.send(c, get("/"));
                w.advance(ms(60_020));
            },
            (200, Some(Cause::ClientStalled), 1),
        ),
        (
            "a client that breaks off",
            |w| {
                all_reply(w, Reply::Hold);
                let c = w.client_sends(&get("/"));
                w.fault(c, Fault::Reset);
            },
            (499, Some(Cause::ClientClosed), 1),
        ),
        (
            "a client that closes in the middle of its body",
            |w| {
                let c = w.client_sends(HALF);
                w.end(c);
            },
            (499, Some(Cause::ClientClosed), 1),
        ),
        (
            "an idle tunnel",
            |w| {
                all_reply(w, "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
                w.client_sends("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
                w.advance(ms(3_600_010));
            },
            (101, Some(Cause::TunnelTimeout), 1),
        ),
        (
            "cut at the end of a drain",
            |w| {
                all_reply(w, Reply::Hold);
                w.client_sends(&get("/"));
                w.drain(ms(1000));
                w.advance(ms(1010));
            },
            (0, Some(Cause::Drained), 1),
        ),
    ];
    for (what, play, expected) in table {
        let mut w = World::new(&one_pool(TWO));
        play(&mut w);
        assert_eq!(w.one(), *expected, "{what}");
        w.finish();
    }
}

#[test]
fn causes_of_other_configurations() {
    // Which, the pool, what happens, the record.
    let table: &[(&str, &str, Play, Record)] = &[
        (
            "no pool takes it",
            "matcher = \"Host('b.test')\"\naddresses = [\"10.0.0.1:80\"]",
            |w| w.send_from_new_client(&get("/")),
            (404, Some(Cause::NoRoute), 0),
        ),
        (
            "no backend",
            "addresses = []",
            |w| w.send_from_new_client(&get("/")),
            (503, Some(Cause::NoBackend), 0),
        ),
        (
            "none that takes requests",
            "addresses = [{ address = \"10.0.0.1:80\", weight = 0 }]",
            |w| w.send_from_new_client(&get("/")),
            (503, Some(Cause::NoBackend), 0),
        ),
        (
            "no queue",
            "addresses = [{ address = \"10.0.0.1:80\", max_connections = 1 }]\n[backend_pools.limits]\nqueue = 0",
            |w| {
                w.backend(A).reply = Reply::Hold;
                w.client_sends(&get("/"));
                w.client_sends(&get("/"));
            },
            (503, Some(Cause::QueueFull), 0),
        ),
        (
            "a long queue",
            "addresses = [{ address = \"10.0.0.1:80\", max_connections = 1 }]",
            |w| {
                w.backend(A).reply = Reply::Hold;
                w.client_sends(&get("/"));
                w.client_sends(&get("/"));
                w.advance(ms(5_010));
            },
            (503, Some(Cause::QueueTimeout), 0),
        ),
        (
            "a name that is not resolved yet",
            "addresses = [\"a.test:80\"]",
            |w| w.send_from_new_client(&get("/")),
            (503, Some(Cause::NoBackend), 0),
        ),
    ];
    for (what, pool, play, expected) in table {
        let mut w = World::new(&one_pool(pool));
        play(&mut w);
        assert_eq!(w.one(), *expected, "{what}");
        w.finish();
    }
}

#[test]
fn no_pages_is_a_cause() {
    let mut config = (*config(&one_pool(TWO))).clone();
    // One page: what has come of the body lies in it, and the head that is to be sent does not fit.
    config.limits.buffer_bytes = ruststrom_core::page::SMALL_BYTES as u64;
    let mut w = World::of(&config.into(), 1);
    w.client_sends("PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\n01234");
    assert_eq!(w.one(), (503, Some(Cause::NoPages), 1));
    w.finish();
}

/// What a client sees of it, byte for byte, is the corpus' matter; here: that the connection ends where it
/// must.
#[test]
fn who_may_ask_again() {
    let table: &[(&str, &str, bool)] =
        &[("after an error of the backend", &get("/"), true), ("not with a body half read", HALF, false)];
    for (what, request, again) in table {
        let mut w = World::new(&one_pool(TWO));
        all_open(&mut w, Open::Fails(Fault::Refused));
        let c = w.client_sends(request);
        assert_eq!(w.statuses(c), [502], "{what}");
        all_open(&mut w, Open::Take);
        if *again {
            assert_eq!(w.ask(c, "/"), [200], "{what}");
        } else {
            assert!(w.peer(c).shut, "{what}");
        }
        w.finish();
    }
}
