//! Backends at Unix sockets: they are connected to, checked, logged and recovered from as all others.

use ruststrom_core::observe::HealthState::{Healthy, Unhealthy, Unknown};
use ruststrom_core::{Cause, Fault};

use crate::world::{Open, Reply, World, config, get, ok, one_pool};

const SOCKET: &str = "unix:/run/app.sock";
const OTHER: &str = "10.0.0.2:80";

fn checked(pool: &str) -> String {
    one_pool(pool).replace("check_every = 0", "check_every = 10")
}

#[test]
fn requests_and_their_connections() {
    let mut w = World::new(&one_pool("addresses = [\"unix:/run/app.sock\"]"));
    w.shards[0].observer_mut().wants_steps = true;
    let c = w.client();
    for _ in 0..3 {
        assert_eq!(w.ask(c, "/"), [200]);
    }
    assert_eq!((w.made_to(SOCKET), w.to(SOCKET).len()), (1, 1), "one connection, used again");
    let head = w.served[0].1.to_ascii_lowercase();
    for field in ["host: a.test\r\n", "x-forwarded-for: 198.51.100.7\r\n", "x-forwarded-port: 80\r\n"] {
        assert!(head.contains(field), "{head}");
    }
    let ended = w.exchanges();
    assert!(ended.iter().all(|t| t.backend == SOCKET && t.cause.is_none()), "{ended:?}");
    let steps = w.shards[0].observer_mut().steps.join("\n");
    assert!(steps.contains(": backend unix:/run/app.sock by new connection "), "{steps}");
    assert!(steps.contains(" to unix:/run/app.sock\n"), "{steps}");
    // A request without a host is told one: the path of a socket is none.
    w.client_sends("GET /old HTTP/1.0\r\n\r\n");
    let head = w.served[3].1.to_ascii_lowercase();
    assert!(head.contains("\r\nhost: localhost\r\n"), "{head}");
    w.finish();
}

#[test]
fn sockets_that_take_no_connection() {
    let table = [
        (Fault::Refused, Cause::ConnectRefused),
        (Fault::NoSocket, Cause::ConnectNoSocket),
        (Fault::Denied, Cause::ConnectDenied),
        (Fault::BacklogFull, Cause::ConnectBacklogFull),
    ];
    for (fault, cause) in table {
        let mut w = World::new(&one_pool("addresses = [\"unix:/run/app.sock\"]"));
        w.backend(SOCKET).open = Open::Fails(fault);
        let c = w.client();
        assert_eq!((w.ask(c, "/"), w.one()), (vec![502], (502, Some(cause), 1)));
        w.backend(SOCKET).open = Open::Take;
        assert_eq!((w.ask(c, "/"), w.one()), (vec![200], (200, None, 1)), "{cause:?}: one says nothing");
        for b in w.to(SOCKET) {
            w.end(b);
        }
        w.health();
        w.backend(SOCKET).open = Open::Fails(fault);
        assert_eq!([(); 3].map(|()| w.ask(c, "/")[0]), [502; 3]);
        assert_eq!(w.health(), [(SOCKET.to_owned(), Unknown, Unhealthy)], "{cause:?}: three do");
        w.finish();

        // With another backend nobody hears of it.
        let mut w = World::new(&one_pool("addresses = [\"unix:/run/app.sock\", \"10.0.0.2:80\"]"));
        w.backend(SOCKET).open = Open::Fails(fault);
        for _ in 0..6 {
            w.client_sends("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\n\r\nx");
        }
        let ended = w.exchanges();
        assert!(ended.iter().all(|t| t.status == 200 && t.backend == OTHER), "{ended:?}");
        assert!(ended.iter().any(|t| t.failed == [(SOCKET.to_owned(), cause)]), "{ended:?}");
        w.finish();
    }
}

#[test]
fn checks_of_a_socket_that_goes_and_comes_back() {
    let mut w = World::new(&checked(
        "addresses = [\"unix:/run/app.sock\"]\nretries = 0\n[backend_pools.health_config]\nramp_up = 0",
    ));
    // It is asked as nginx asks: the path of a socket is no host.
    w.backend(SOCKET).probe = Reply::Made(|request| {
        let asked = request.starts_with("GET / HTTP/1.1\r\nHost: localhost\r\n");
        let status = if asked { 200 } else { 500 };
        (format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").into_bytes(), false)
    });
    w.advance_ms(0);
    w.backend(SOCKET).open = Open::Fails(Fault::NoSocket);
    w.advance_ms(12_000);
    let c = w.client();
    assert_eq!((w.ask(c, "/"), w.one().1), (vec![503], Some(Cause::NoBackend)));
    w.backend(SOCKET).open = Open::Take;
    w.advance_ms(12_000);
    let expected = [(Unknown, Healthy), (Healthy, Unhealthy), (Unhealthy, Healthy)];
    assert_eq!(w.health(), expected.map(|(from, to)| (SOCKET.to_owned(), from, to)));
    assert_eq!(w.ask(c, "/"), [200]);
    w.finish();
}

/// As for every backend, it is path and pool that health and connections belong to.
#[test]
fn reloads() {
    let text =
        |path: &str| one_pool(&format!("retries = 0\naddresses = [{{ address = \"{path}\", weight = 2 }}]"));
    let mut w = World::new(&text(SOCKET));
    let c = w.client();
    assert_eq!(w.ask(c, "/"), [200]);
    w.reconfigure(&config(&text(SOCKET)));
    assert_eq!((w.ask(c, "/"), w.made_to(SOCKET)), (vec![200], 1));
    w.reconfigure(&config(&text("unix:/run/new.sock")));
    assert_eq!((w.ask(c, "/"), w.made_to(SOCKET), w.made_to("unix:/run/new.sock")), (vec![200], 1, 1));
    assert_eq!(w.to(SOCKET), [], "nobody needs it any more");
    w.finish();
}

#[test]
fn max_connections_and_backups_hold_for_sockets() {
    let mut w = World::new(&one_pool(
        "addresses = [{ address = \"unix:/run/app.sock\", max_connections = 1 },\n\
         { address = \"unix:/run/spare.sock\", backup = true }]",
    ));
    w.backend(SOCKET).reply = Reply::Hold;
    let first = w.client_sends(&get("/1"));
    let second = w.client_sends(&get("/2"));
    assert_eq!(w.made_to(SOCKET), 1, "the second waits");
    let b = w.to(SOCKET)[0];
    w.reply(b, ok(""));
    w.reply(b, ok(""));
    assert_eq!((w.statuses(first), w.statuses(second)), (vec![200], vec![200]));
    w.backend(SOCKET).open = Open::Fails(Fault::Denied);
    w.end(b);
    w.client_sends(&get("/3"));
    assert_eq!(w.exchanges().pop().map(|t| t.backend), Some("unix:/run/spare.sock".to_owned()));
    w.finish();
}
