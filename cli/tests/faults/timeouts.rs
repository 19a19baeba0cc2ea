//! Idle connections, stalled peers and health checks that never succeed: timeouts end all of them.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ruststrom_core::config::Driver;

use crate::client::{Client, WAIT, reset};
use crate::daemon::Daemon;
use crate::driver_name;
use crate::harness::{Harness, SHORT_TIMEOUTS, UnaffectedClient, pool};
use crate::scripted_backend::{Backend, Peer, ok};

on_each_driver!(
    tunnels_end_with_either_side_or_by_timeout,
    idle_client_connections_are_closed_in_time,
    a_client_that_never_reads_is_bounded_and_cut_off,
    waiting_connections_use_no_cpu,
    a_client_that_sends_no_body_after_100_continue_times_out,
    failing_health_checks_affect_no_client,
);

const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: bytes\r\n\r\n";

fn tunnel(harness: &Harness, target: &str) -> Client {
    let mut client = harness.client();
    client
        .send(format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: bytes\r\n\r\n"
        ))
        .expect("sent");
    assert_eq!(client.response(false).map(|a| a.status), Ok(101));
    client
}

fn tunnels_end_with_either_side_or_by_timeout(driver: Driver) {
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
    let harness = Harness::start(
        driver,
        &format!("{SHORT_TIMEOUTS}{}{}", pool("t", &[echo.address], ""), pool("good", &[good.address], "")),
        2,
    );
    let unaffected = UnaffectedClient::start(harness.address, "/good", "good");
    let mut left = Vec::new();
    for i in 0..60 {
        let mut client = tunnel(&harness, "/t");
        client.send("x").expect("sent");
        assert_eq!(client.exact(1).as_deref(), Ok(&b"x"[..]));
        match i % 5 {
            0 => drop(client),
            1 => reset(client.into_stream()),
            2 => {
                client.send("c").expect("sent");
                assert!(client.is_closed());
                // The client's own direction stays open: the proxy must not wait for it for ever.
                left.push(client);
            }
            3 => {
                client.send("r").expect("sent");
                assert!(client.is_closed());
            }
            _ => left.push(client),
        }
    }
    // A tunnel with a byte now and then outlives the timeout of the idle ones.
    let mut alive = tunnel(&harness, "/t");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(3500) {
        alive.send("x").expect("sent");
        assert_eq!(alive.exact(1).as_deref(), Ok(&b"x"[..]));
        std::thread::sleep(Duration::from_millis(300));
    }
    harness.wait_until("idle tunnels are closed", |all| {
        all.iter().map(|c| c.counts.exchanges).sum::<usize>() <= 2
    });
    for mut client in left {
        assert!(client.is_closed());
    }
    assert_eq!(alive.send("x").and_then(|()| alive.exact(1)).as_deref(), Ok(&b"x"[..]));
    drop(alive);
    unaffected.end();
    let records = harness.end();
    assert_eq!(records.iter().filter(|t| t.cause == Some("tunnel_timeout")).count(), 24, "{records:?}");
}

fn idle_client_connections_are_closed_in_time(driver: Driver) {
    let good = Backend::good("good");
    let harness =
        Harness::start(driver, &format!("{SHORT_TIMEOUTS}{}", pool("good", &[good.address], "")), 2);
    let begun = Instant::now();
    // Each sends its request right after connecting: on a busy machine the last ones would else exceed the
    // timeout for a head.
    let mut clients: Vec<_> = (0..200)
        .map(|_| {
            let mut client = harness.client();
            assert_eq!(client.get("/good").map(|a| a.status), Ok(200));
            client
        })
        .collect();
    for client in &mut clients {
        assert!(client.is_closed());
    }
    assert!(
        begun.elapsed() >= Duration::from_millis(1500),
        "closed before the idle timeout: {:?}",
        begun.elapsed()
    );
    let records = harness.end();
    assert!(records.iter().all(|t| t.cause.is_none()), "an idle connection is not a failed exchange");
}

fn a_client_that_never_reads_is_bounded_and_cut_off(driver: Driver) {
    let good = Backend::good("good");
    let large = Backend::start(|mut p| while p.request().is_some() && p.send(ok(&"x".repeat(10_000))) {});
    let harness = Harness::start(
        driver,
        &format!(
            "{SHORT_TIMEOUTS}{}{}",
            pool("large", &[large.address], ""),
            pool("good", &[good.address], "")
        ),
        1,
    );
    let unaffected = UnaffectedClient::start(harness.address, "/good", "good");
    let requests = "GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1000);
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                let mut client = harness.client();
                client.stream().set_write_timeout(Some(WAIT)).expect("a socket");
                let begun = Instant::now();
                // Sooner or later its sends block, and then it is cut off.
                while client.send(&requests).is_ok() {
                    assert!(begun.elapsed() < WAIT, "sending never fails");
                }
            });
        }
        for _ in 0..50 {
            let pages: usize = harness.stats().iter().map(|c| c.counts.pages).sum();
            assert!(pages < 40, "{pages} pages for five clients");
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    unaffected.end();
    let records = harness.end();
    assert_eq!(records.iter().filter(|t| t.cause == Some("client_stalled")).count(), 4);
}

/// Every connection waits for its peer: no worker may spin meanwhile.
fn waiting_connections_use_no_cpu(driver: Driver) {
    let stalled = Backend::start(|mut p| {
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
            p.shut_down();
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
        stalled.address, stalled.address
    );
    let daemon = Daemon::start(&config, &["--workers", "1", "--driver", driver_name(driver)]);
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
    // The bytes a client sends before it waits, and whether it then shuts down its direction.
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
    for (sent, shuts_down) in &rows {
        let mut client = Client::to(address);
        client.stream().set_nonblocking(true).expect("a socket");
        // The backend reads no bodies, so not all bytes may fit into the buffers on the way.
        let _ = client.send(sent);
        if *shuts_down {
            client.stream().shutdown(std::net::Shutdown::Write).expect("open");
        }
        waiting.push(client);
    }
    std::thread::sleep(Duration::from_millis(700));
    let before = daemon.cpu_ticks();
    std::thread::sleep(Duration::from_millis(1500));
    let spent = daemon.cpu_ticks() - before;
    assert!(spent <= 8, "{spent} CPU ticks in 1.5 s although every connection waits");
}

fn a_client_that_sends_no_body_after_100_continue_times_out(driver: Driver) {
    let taken = Backend::start(|mut p| {
        while p.head().is_some_and(|head| head.contains("100-continue")) {
            p.send("HTTP/1.1 100 Continue\r\n\r\n");
            p.wait_for_close();
        }
    });
    let silent = Backend::start(|mut p| p.wait_for_close());
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
    let harness = Harness::start(driver, &format!("{SHORT_TIMEOUTS}{pools}"), 1);
    // While the client sends its body only the client's timeouts apply, however long the body takes.
    let mut slow = harness.client();
    slow.send(
        "POST /reads HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1500\r\nExpect: 100-continue\r\n\r\n",
    )
    .expect("sent");
    for _ in 0..15 {
        slow.send([b'x'; 100]).expect("sent");
        std::thread::sleep(Duration::from_millis(100));
    }
    let response = slow.response(false).expect("a response");
    assert_eq!((response.interims, response.status), (1, 200), "{response:?}");
    drop(slow);
    for (target, interims, status) in [("/taken", 1, 408), ("/silent", 0, 504), ("/refuses", 0, 417)] {
        let mut client = harness.client();
        client
            .send(format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n"))
            .expect("sent");
        let response = client.response(false).unwrap_or_else(|e| panic!("{target}: {e}"));
        assert_eq!((response.interims, response.status), (interims, status), "{target}: {response:?}");
    }
    harness.end();
}

fn failing_health_checks_affect_no_client(driver: Driver) {
    let rows: [fn(Peer); 8] = [
        |mut p| p.wait_for_close(),
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
            p.wait_for_close();
        },
    ];
    let good = Backend::start(|mut p| while p.request().is_some() && p.send(ok("good")) {});
    let bad: Vec<Backend> = rows.into_iter().map(Backend::start).collect();
    let mut addresses: Vec<_> = bad.iter().map(|b| b.address).collect();
    addresses.extend([Backend::refusing(), good.address]);
    let more = "health_config = { check_every = 1, timeout = 500, slow_threshold = 0, path = \"/health\" }";
    let harness = Harness::start(driver, &format!("{SHORT_TIMEOUTS}{}", pool("good", &addresses, more)), 2);
    // The first round of checks makes all of them unhealthy; it is over when the second one has begun.
    harness.wait_until("one round of checks", |_| {
        bad.iter().all(|b| b.stats.connections.load(Ordering::SeqCst) >= 2)
    });
    let unaffected = UnaffectedClient::start(harness.address, "/good", "good");
    harness.wait_until("several rounds of checks", |_| {
        bad.iter().all(|b| b.stats.connections.load(Ordering::SeqCst) >= 4)
    });
    unaffected.end();
    let records = harness.end();
    assert!(
        records.iter().all(|t| t.attempts == 1),
        "a request was tried on an unhealthy backend: {records:?}"
    );
}
