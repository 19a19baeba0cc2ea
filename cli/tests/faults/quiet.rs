//! Connections on which nothing happens for too long, and health checks that never end well: all of it goes
//! away by itself.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::scripted::{Backend, Peer, ok};
use crate::stand::{Bystander, QUICK, Stand, pool};
use crate::talk::{Client, WAIT, reset};

const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: bytes\r\n\r\n";

fn tunnel(stand: &Stand, target: &str) -> Client {
    let mut client = stand.client();
    client
        .send(format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: bytes\r\n\r\n"
        ))
        .expect("sent");
    assert_eq!(client.response(false).map(|a| a.status), Ok(101));
    client
}

#[test]
fn tunnels_end_with_either_side_or_when_nothing_passes() {
    let echo = Backend::start(|mut p| {
        p.head();
        p.send(SWITCHED);
        while let Some(byte) = p.byte() {
            match byte {
                b'c' => return,
                b'r' => return p.reset(),
                _ if !p.send([byte]) => return,
                _ => {}
            }
        }
    });
    let good = Backend::good("good");
    let stand = Stand::start(
        &format!("{QUICK}{}{}", pool("t", &[echo.address], ""), pool("good", &[good.address], "")),
        2,
    );
    let bystander = Bystander::start(stand.address, "/good", "good");
    let mut left = Vec::new();
    for i in 0..60 {
        let mut client = tunnel(&stand, "/t");
        client.send("x").expect("sent");
        assert_eq!(client.exact(1).as_deref(), Ok(&b"x"[..]));
        match i % 5 {
            0 => drop(client),
            1 => reset(client.into_stream()),
            2 => {
                client.send("c").expect("sent");
                assert!(client.is_closed());
                // Its own half is still open: it is not waited for for ever.
                left.push(client);
            }
            3 => {
                client.send("r").expect("sent");
                assert!(client.is_closed());
            }
            _ => left.push(client),
        }
    }
    // One that says a little now and then lives on, past the time of those that say nothing.
    let mut alive = tunnel(&stand, "/t");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(3500) {
        alive.send("x").expect("sent");
        assert_eq!(alive.exact(1).as_deref(), Ok(&b"x"[..]));
        std::thread::sleep(Duration::from_millis(300));
    }
    stand.wait_until("the quiet ones are cut", |all| {
        all.iter().map(|c| c.counts.exchanges).sum::<usize>() <= 2
    });
    for mut client in left {
        assert!(client.is_closed());
    }
    assert_eq!(alive.send("x").and_then(|()| alive.exact(1)).as_deref(), Ok(&b"x"[..]));
    drop(alive);
    bystander.end();
    let told = stand.end();
    assert_eq!(told.iter().filter(|t| t.cause == Some("tunnel_timeout")).count(), 24, "{told:?}");
}

#[test]
fn idle_connections_of_clients_are_closed_in_time() {
    let good = Backend::good("good");
    let stand = Stand::start(&format!("{QUICK}{}", pool("good", &[good.address], "")), 2);
    let begun = Instant::now();
    // Each asks as it comes: on a busy machine the last one would else be late for its head.
    let mut clients: Vec<_> = (0..200)
        .map(|_| {
            let mut client = stand.client();
            assert_eq!(client.get("/good").map(|a| a.status), Ok(200));
            client
        })
        .collect();
    for client in &mut clients {
        assert!(client.is_closed());
    }
    assert!(
        begun.elapsed() >= Duration::from_millis(1500),
        "closed before their time: {:?}",
        begun.elapsed()
    );
    let told = stand.end();
    assert!(told.iter().all(|t| t.cause.is_none()), "an idle connection is no failed exchange");
}

#[test]
fn a_client_that_asks_on_and_on_and_never_reads_is_bounded_and_cut() {
    let good = Backend::good("good");
    let large = Backend::start(|mut p| while p.request().is_some() && p.send(ok(&"x".repeat(10_000))) {});
    let stand = Stand::start(
        &format!("{QUICK}{}{}", pool("large", &[large.address], ""), pool("good", &[good.address], "")),
        1,
    );
    let bystander = Bystander::start(stand.address, "/good", "good");
    let requests = "GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1000);
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                let mut client = stand.client();
                client.stream().set_write_timeout(Some(WAIT)).expect("a socket");
                let begun = Instant::now();
                // Sooner or later it is told to wait, and then cut.
                while client.send(&requests).is_ok() {
                    assert!(begun.elapsed() < WAIT, "it may send for ever");
                }
            });
        }
        for _ in 0..50 {
            let pages: usize = stand.census().iter().map(|c| c.counts.pages).sum();
            assert!(pages < 40, "{pages} pages for five clients");
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    bystander.end();
    let told = stand.end();
    assert_eq!(told.iter().filter(|t| t.cause == Some("client_stalled")).count(), 4);
}

/// Everything waits for somebody else: that must not cost anything.
#[test]
fn who_waits_does_not_spin() {
    let stuck = Backend::start(|mut p| {
        let Some(head) = p.head() else { return };
        if head.contains("/large") {
            p.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1 << 30));
            while p.send([b'x'; 1 << 16]) {}
        } else if head.contains("/half-head") {
            p.send("HTTP/1.1 200 O");
        } else if head.contains("/half-body") {
            p.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
        } else if head.contains("upgrade: bytes") {
            p.send(SWITCHED);
            p.finish();
        } else if head.contains("/early") {
            p.send(ok("early"));
        }
        std::thread::sleep(3 * WAIT);
    });
    let config = format!(
        "http_address = \"127.0.0.1:0\"\nmetrics_address = false\nhealth_interval = {{ check_every = 0 }}\n\
         timeouts = {{ head = 60, idle = 60, connect = 60, backend_head = 60, stall = 60, queue = 60 }}\n\
         [[backend_pools]]\nmatcher = \"PathPrefix('/queue')\"\naddresses = [{{ address = \"{}\", max_connections = 1 }}]\nschemes = [\"HTTP\"]\n\
         [[backend_pools]]\naddresses = [\"{}\"]\nschemes = [\"HTTP\"]\n",
        stuck.address, stuck.address
    );
    let daemon = crate::daemon::Daemon::start(&config, &["--workers", "1", "--driver", crate::driver()]);
    let address = daemon.address();
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let post = |target: &str| {
        format!(
            "POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n{}",
            "x".repeat(900_000)
        )
    };
    let upgrade =
        "GET /up HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: bytes\r\n\r\n".to_owned();
    // What a client sends before it waits, and whether it ends its half then.
    let rows = [
        (String::new(), false),
        ("GET / HT".into(), false),
        (get("/never"), false),
        (get("/never"), true),
        (get("/never") + &get("/pipelined").repeat(1000), false),
        (get("/large"), false),
        (get("/large"), true),
        (get("/half-head"), true),
        (get("/half-body"), true),
        (get("/half-body"), false),
        (post("/never"), false),
        (post("/early"), false),
        (upgrade.clone(), false),
        (upgrade, true),
        (get("/queue/1"), false),
        (get("/queue/2"), false),
        (get("/queue/3"), true),
    ];
    let mut waiting = Vec::new();
    for (sent, ends) in &rows {
        let mut client = Client::to(address);
        client.stream().set_nonblocking(true).expect("a socket");
        // The backend reads no bodies: what does not fit waits here.
        let _ = client.send(sent);
        if *ends {
            client.stream().shutdown(std::net::Shutdown::Write).expect("open");
        }
        waiting.push(client);
    }
    std::thread::sleep(Duration::from_millis(700));
    let before = daemon.cpu_ticks();
    std::thread::sleep(Duration::from_millis(1500));
    let spent = daemon.cpu_ticks() - before;
    assert!(spent <= 8, "{spent} ticks in 1.5 s, and nobody wanted anything");
}

#[test]
fn whoever_expects_100_and_then_says_nothing_is_timed_out() {
    let taken = Backend::start(|mut p| {
        while p.head().is_some_and(|head| head.contains("100-continue")) {
            p.send("HTTP/1.1 100 Continue\r\n\r\n");
            p.wait_for_the_end();
        }
    });
    let silent = Backend::start(|mut p| p.wait_for_the_end());
    let refuses = Backend::start(|mut p| {
        while p.head().is_some() && p.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n") {}
    });
    let reads = Backend::start(|mut p| {
        while p.head().is_some()
            && p.send("HTTP/1.1 100 Continue\r\n\r\n")
            && p.body(1500).is_some()
            && p.send(ok("all"))
        {}
    });
    let pools = [
        ("reads", reads.address),
        ("taken", taken.address),
        ("silent", silent.address),
        ("refuses", refuses.address),
    ];
    let pools: String = pools.iter().map(|(name, at)| pool(name, &[*at], "")).collect();
    let stand = Stand::start(&format!("{QUICK}{pools}"), 1);
    // It is the client's time that runs, however long it takes for its body.
    let mut slow = stand.client();
    slow.send(
        "POST /reads HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1500\r\nExpect: 100-continue\r\n\r\n",
    )
    .expect("sent");
    for _ in 0..15 {
        slow.send([b'x'; 100]).expect("sent");
        std::thread::sleep(Duration::from_millis(100));
    }
    let response = slow.response(false).expect("an answer");
    assert_eq!((response.interims, response.status), (1, 200), "{response:?}");
    drop(slow);
    for (target, interims, status) in [("/taken", 1, 408), ("/silent", 0, 504), ("/refuses", 0, 417)] {
        let mut client = stand.client();
        client
            .send(format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n"))
            .expect("sent");
        let response = client.response(false).unwrap_or_else(|e| panic!("{target}: {e}"));
        assert_eq!((response.interims, response.status), (interims, status), "{target}: {response:?}");
    }
    stand.end();
}

#[test]
fn health_checks_that_never_end_well_hurt_nobody() {
    let rows: [fn(Peer); 8] = [
        |mut p| p.wait_for_the_end(),
        |mut p| {
            p.head();
            p.trickle("HTTP/1.1 200 OK\r\nX: ", Duration::from_millis(50));
            while p.send("x") {
                std::thread::sleep(Duration::from_millis(50));
            }
        },
        drop,
        |mut p| {
            p.head();
            p.reset();
        },
        |mut p| {
            p.head();
            while p.send([b'x'; 4096]) {}
        },
        |mut p| {
            p.head();
            while p.send("HTTP/1.1 100 Continue\r\n\r\n".repeat(100)) {}
        },
        |mut p| {
            p.head();
            p.send("HTTP/1.1 500 Oh No\r\nContent-Length: 0\r\n\r\n");
        },
        |mut p| {
            p.head();
            p.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
            p.wait_for_the_end();
        },
    ];
    let good = Backend::start(|mut p| while p.request().is_some() && p.send(ok("good")) {});
    let bad: Vec<Backend> = rows.into_iter().map(Backend::start).collect();
    let mut addresses: Vec<_> = bad.iter().map(|b| b.address).collect();
    addresses.extend([Backend::nobody(), good.address]);
    let more = "health_config = { check_every = 1, timeout = 500, slow_threshold = 0, path = \"/health\" }";
    let stand = Stand::start(&format!("{QUICK}{}", pool("good", &addresses, more)), 2);
    // The first round decides.
    stand.wait_until("a round", |_| bad.iter().all(|b| b.seen.connections.load(Ordering::SeqCst) > 0));
    std::thread::sleep(Duration::from_millis(700));
    let bystander = Bystander::start(stand.address, "/good", "good");
    stand.wait_until("some rounds", |_| bad.iter().all(|b| b.seen.connections.load(Ordering::SeqCst) >= 4));
    bystander.end();
    let told = stand.end();
    assert!(told.iter().all(|t| t.attempts == 1), "no request was tried on one of the bad: {told:?}");
}
