//! What an operator is told: of heads that could not be read, of responses of our own, of connections that
//! were refused.

use std::time::Duration;

use ruststrom_core::Fault;
use ruststrom_core::config::ListenerKind;

use crate::script::{Open, Reply, config, get, one_pool};
use crate::world::World;

#[test]
fn a_refused_head_shows_its_first_line() {
    let table = [
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "GET / HTTP/1.1"),
        ("GET /../.. HTTP/1.1\r\nHost: a\r\n\r\n", "GET /../.. HTTP/1.1"),
        ("\r\n\u{16}\u{3}\u{1}", "\u{16}\u{3}\u{1}"),
        ("\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{fc}\u{3}\u{3}", "TLS on a plain port"),
        ("GET / HTTP/1.1\nHost: a\n\n", "GET / HTTP/1.1"),
    ];
    for (sent, shown) in table {
        let mut w = World::new(&one_pool("addresses = [\"10.0.0.1:80\"]"));
        w.client_sends(sent);
        let exchanges = w.exchanges();
        assert_eq!((exchanges.len(), &*exchanges[0].target), (1, shown), "{sent:?}");
        w.finish();
    }
}

#[test]
fn a_head_is_reported_whole_but_within_bounds() {
    let long = "x".repeat(3000);
    let (path, text) = (format!("/{}", &long[..1023]), &long[..255]);
    let table = [
        (
            "GET /a?b HTTP/1.1\r\nHost: A.test:80\r\nUser-Agent: me \"1\"\r\nReferer: http://b/\r\n\r\n"
                .to_owned(),
            r#"198.51.100.7 Http 11 GET|/a?b|A.test:80|me "1"|http://b/ ours"#.to_owned(),
        ),
        (
            // It is not believed.
            "M /%41/../b HTTP/1.0\r\nX-Request-ID: mine\r\n\r\n".to_owned(),
            r#"198.51.100.7 Http 10 M|/b||| ours"#.to_owned(),
        ),
        (
            format!(
                "{} /{long} HTTP/1.1\r\nHost: {}\r\nUser-Agent: {long}\r\nReferer: {long}\r\n\r\n",
                "M".repeat(40),
                &long[..300]
            ),
            format!(r#"198.51.100.7 Http 11 {}|{path}|{text}|{text}|{text} ours"#, "M".repeat(32)),
        ),
        ("nonsense\r\n\r\n".to_owned(), r#"198.51.100.7 Http 0 |nonsense||| theirs "#.to_owned()),
    ];
    for (sent, exchanges) in table {
        let mut w = World::new(&one_pool("addresses = [\"10.0.0.1:80\"]"));
        w.client_sends(&sent);
        let heads = w.heads();
        assert!(heads.len() == 1 && heads[0].starts_with(&exchanges), "{sent:?}\n{heads:#?}\n{exchanges}");
        w.finish();
    }
}

#[test]
fn a_trusted_peer_names_its_requests() {
    let text =
        format!("trusted_proxies = [\"198.51.100.0/24\"]\n{}", one_pool("addresses = [\"10.0.0.1:80\"]"));
    let long = "i".repeat(200);
    for (sent, exchanges) in
        [("mine", "theirs mine"), ("", "ours "), (&long, &*format!("theirs {}", &long[..128]))]
    {
        let mut w = World::new(&text);
        w.client_sends(&format!("GET / HTTP/1.1\r\nHost: a\r\nX-Request-ID: {sent}\r\n\r\n"));
        let heads = w.heads();
        assert!(heads.len() == 1 && heads[0].contains(exchanges), "{sent:?} {heads:?}");
        w.finish();
    }
}

#[test]
fn what_could_not_be_read_is_recorded_too() {
    let mut w = World::new(&one_pool("addresses = [\"10.0.0.1:80\"]"));
    let c = w.client();
    w.send(c, "GET / HT");
    w.advance(Duration::from_secs(60));
    assert_eq!(w.heads(), [r#"198.51.100.7 Http 0 |GET / HT||| theirs "#]);
    assert_eq!(w.exchanges()[0].status, 408);
    w.finish();
}

#[test]
fn requests_to_the_admin_listener_are_not_recorded() {
    let config =
        config(&format!("metrics_address = \"127.0.0.1:9\"\n{}", one_pool("addresses = [\"10.0.0.1:80\"]")));
    let place = config.listeners.iter().position(|l| l.kind == ListenerKind::Admin).expect("a listener");
    let mut w = World::of(&config, 1);
    for (sent, status) in [("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", "200"), ("nonsense\r\n\r\n", "400")] {
        let listener = ruststrom_core::ListenerId(place as u16);
        let c = w.accept(0, "198.51.100.7:1".parse().expect("an address"), listener).expect("room");
        w.send(c, sent);
        assert!(w.got(c).starts_with(&format!("HTTP/1.1 {status} ")), "{sent:?}");
        w.end(c);
        assert_eq!((w.heads(), w.exchanges()), (vec![], vec![]));
    }
    w.finish();
}

#[test]
fn a_pool_has_one_identity_over_reloads_and_no_other_pool_has_it() {
    let text = |names: [&str; 2], port: u16| {
        let pool = |name: &str| {
            format!(
                "[[backend_pools]]\nname = \"{name}\"\nmatcher = \"Path('/{name}')\"\naddresses = [\"10.0.0.1:{port}\"]\n"
            )
        };
        let head = "http_address = \"127.0.0.1:80\"\n[health_interval]\ncheck_every = 0\n";
        format!("{head}{}{}", pool(names[0]), pool(names[1]))
    };
    let mut w = World::new(&text(["one", "two"], 80));
    let ask = |w: &mut World, name: &str| {
        w.client_sends(&get(&format!("/{name}")));
        let pools = w.pools();
        assert_eq!((pools.len(), pools[0].0.as_str()), (1, name));
        pools[0].1.expect("routed")
    };
    let (one, two) = (ask(&mut w, "one"), ask(&mut w, "two"));
    assert_ne!(one, two);
    // Another place, and another backend.
    w.reconfigure(&config(&text(["two", "one"], 81)));
    assert_eq!((ask(&mut w, "one"), ask(&mut w, "two")), (one, two));
    w.reconfigure(&config(&text(["three", "one"], 81)));
    let three = ask(&mut w, "three");
    assert!(three != one && three != two && ask(&mut w, "one") == one);
    w.finish();
}

#[test]
fn local_replies_have_bytes_too() {
    let mut w = World::new(&one_pool("matcher = \"Path('/there')\"\naddresses = [\"10.0.0.1:80\"]"));
    w.client_sends(&get("/"));
    w.client_sends("HEAD / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let bytes: Vec<u64> = w.exchanges().iter().map(|t| t.bytes.1).collect();
    assert_eq!(bytes, ["404 Not Found: no_route\n".len() as u64, 0]);
    w.finish();
}

#[test]
fn a_limit_of_connections_is_noted_but_not_each_time() {
    let text = format!("limits = {{ connections = 1 }}\n{}", one_pool("addresses = [\"10.0.0.1:80\"]"));
    let config = config(&text);
    let mut w = World::of(&config, 1);
    let peer = |n: u16| format!("192.0.2.7:{n}").parse().expect("an address");
    let first = w.accept(0, peer(1), ruststrom_core::ListenerId(0)).expect("room for one");
    for n in 2..50 {
        assert!(w.accept(0, peer(n), ruststrom_core::ListenerId(0)).is_err());
    }
    assert_eq!(w.notes(), ["limits.connections is reached: connections are refused, last that of 192.0.2.7"]);
    w.end(first);
    w.finish();
}

#[test]
fn who_lingers_does_not_make_a_drain_late() {
    // The client got its last response and stays: its connection lingers when the drain begins, or begins to
    // when it has begun.
    for bad_first in [true, false] {
        let mut w = World::new(&one_pool("addresses = [\"10.0.0.1:80\"]"));
        let c = w.client();
        if bad_first {
            w.send(c, "nonsense\r\n\r\n");
        }
        w.drain(Duration::from_millis(500));
        w.advance(Duration::from_millis(495));
        assert!(w.peer(c).closed, "{bad_first}");
        w.finish();
    }
}

/// A drain gives those who linger already no time beyond what they had, and ends their direction once.
#[test]
fn who_lingers_longer_than_a_drain_has_begun() {
    let mut w = World::new(&one_pool("addresses = [\"10.0.0.1:80\"]"));
    let c = w.client_sends("nonsense\r\n\r\n");
    w.advance_ms(1_500);
    w.drain(Duration::from_secs(60));
    w.advance_ms(498);
    assert!(w.peer(c).shut && !w.peer(c).closed);
    w.advance_ms(4);
    assert!(w.peer(c).closed);
    w.finish();
}

/// What one who debugs a connection is told, and nothing unless it is wanted.
#[test]
fn steps_of_connections() {
    let text = "http_address = \"192.0.2.1:80\"\n[health_interval]\ncheck_every = 0\n\
                [[backend_pools]]\nname = \"other\"\nmatcher = \"Path('/no')\"\naddresses = [\"10.0.0.9:80\"]\n\
                [[backend_pools]]\nname = \"web\"\nmatcher = \"PathPrefix('/p')\"\naddresses = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\n";
    let mut w = World::new(text);
    w.send_from_new_client(&get("/p/quiet"));
    assert_eq!(w.shards[0].observer_mut().steps, [""; 0]);
    for b in [w.to("10.0.0.1:80"), w.to("10.0.0.2:80")].concat() {
        w.end(b);
    }
    w.shards[0].observer_mut().wants_steps = true;
    w.backend("10.0.0.2:80").opens.push_back(Open::Fails(Fault::Refused));
    let c = w.client_sends(&get("/p/\u{1b}x".replace('\u{1b}', "%1B").as_str()));
    w.send(c, get("/p/again"));
    w.send(c, get("/p/again"));
    w.send(c, get("/else"));
    w.end(c);
    let steps = w.shards[0].observer_mut().steps.join("\n");
    // Names of connections depend on what came before.
    let expected = [
        ": accepted 198.51.100.7:1026 on port 80 (http)",
        ": received 38 bytes",
        ": \"GET /p/%1Bx\" for \"a.test\": pool web by PathPrefix('/p'); 1 looked at in vain",
        ": backend 10.0.0.2:80 chosen by RoundRobin",
        ": backend 10.0.0.2:80 by new connection ",
        ": closed: it did not come about",
        ": attempt at backend 10.0.0.2:80 failed: connect_refused",
        ": backend 10.0.0.1:80 chosen by RoundRobin",
        ": connected",
        ": backend 10.0.0.1:80 responded 200",
        ": exchange ended: 200",
        ": sent ",
        ": backend 10.0.0.1:80 by idle connection ",
        ", used 1 times",
        ": \"GET /else\" for \"a.test\": no pool takes it; 2 looked at in vain",
        ": exchange ended: 404 no_route",
        ": closed: its peer has closed it",
    ];
    for line in expected {
        assert!(steps.contains(line), "{line}\n{steps}");
    }
    let cookies = "http_address = \"192.0.2.1:80\"\n[[backend_pools]]\naddresses = [{ address = \"10.0.0.1:80\", max_connections = 1 }]\n\
                   strategy = { StickyCookie = { cookie_name = \"s\", inner = \"Random\" } }\n";
    let mut w = World::new(cookies);
    w.shards[0].observer_mut().wants_steps = true;
    w.backend("10.0.0.1:80").reply = Reply::Hold;
    w.advance_ms(0);
    w.send_from_new_client(&get("/"));
    w.send_from_new_client(&get("/"));
    w.advance_ms(10_000);
    let steps = w.shards[0].observer_mut().steps.join("\n");
    for line in [
        ": health check of backend 10.0.0.1:80 at 10.0.0.1:80",
        ": health check ended: HTTP 200 after 0 ms",
        ": closed: the health check is over",
        ": \"GET /\" for \"a.test\": pool pool-1, which takes everything",
        ": backend 10.0.0.1:80 chosen by StickyCookie's Random",
        ": every usable backend is at its max_connections",
        ": exchange ended: 503 queue_timeout",
    ] {
        assert!(steps.contains(line), "{line}\n{steps}");
    }
}

/// What a head took that never became whole: from its first byte, on the first request as on later ones.
#[test]
fn heads_that_time_out_have_their_time() {
    let mut w = World::new(&one_pool("addresses = [\"10.0.0.1:80\"]"));
    // Three seconds pass before the first byte: the head has what is left of its ten.
    let c = w.client();
    w.advance_ms(3_000);
    w.send(c, "GET / HT");
    w.advance_ms(4_000);
    w.send(c, "TP/1.1\r\n");
    w.advance_ms(2_999);
    assert_eq!(w.exchanges(), []);
    w.advance_ms(2);
    let ended = w.exchanges();
    assert_eq!((ended[0].status, ended[0].total_us / 1000), (408, 7_000));
    // A later head has all of the time.
    let c = w.client_sends(&get("/"));
    assert_eq!(w.exchanges()[0].total_us, 0);
    w.advance_ms(3_000);
    w.send(c, "GET / HT");
    w.advance_ms(5_000);
    w.send(c, "TP/1.1\r\n");
    w.advance_ms(4_999);
    assert_eq!(w.exchanges(), []);
    w.advance_ms(2);
    let ended = w.exchanges();
    assert_eq!((ended[0].status, ended[0].total_us / 1000), (408, 10_000));
    // One that comes in pieces and in time: from its first byte.
    let c = w.client();
    w.advance_ms(3_000);
    w.send(c, "GET / HT");
    w.advance_ms(500);
    w.send(c, "TP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(w.exchanges()[0].total_us / 1000, 500);
    w.finish();
}
