//! Clients that are slow, break off, reset or pipeline.

use std::io::Read;
use std::net::Shutdown;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::net::sockopt;
use ruststrom_core::config::Driver;

use crate::client::{Client, WAIT, connect, reset};
use crate::harness::{Harness, SHORT_TIMEOUTS, UnaffectedClient, pool};
use crate::scripted_backend::{Backend, ok};

on_each_driver!(
    slow_heads_time_out_and_other_clients_are_served,
    slow_bodies_are_cut_off_above_the_minimum_rate_they_are_not,
    slow_readers_are_cut_off_and_the_backend_connection_is_closed,
    many_resets_leave_nothing_behind,
    clients_that_disconnect_early_leave_nothing_behind,
    pipelined_requests_get_responses_in_order,
    a_large_download_to_a_slow_client_is_complete,
);

/// Bytes of a download that no socket buffer can hold.
const LARGE: usize = 64 << 20;

fn good_and(name: &str, backend: &Backend, good: &Backend) -> String {
    format!("{SHORT_TIMEOUTS}{}{}", pool(name, &[backend.address], ""), pool("good", &[good.address], ""))
}

/// A backend whose only response never ends.
fn endless() -> Backend {
    Backend::start(|mut p| {
        p.request();
        p.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1usize << 40));
        while p.send([b'x'; 1 << 16]) {}
    })
}

/// A backend that reads request bodies and responds.
fn uploads() -> Backend {
    Backend::start(|mut p| while p.request().is_some() && p.send(ok("taken")) {})
}

fn slow_heads_time_out_and_other_clients_are_served(driver: Driver) {
    let good = Backend::good("good");
    let harness =
        Harness::start(driver, &format!("{SHORT_TIMEOUTS}{}", pool("good", &[good.address], "")), 2);
    let unaffected = UnaffectedClient::start(harness.address, "/good", "good");
    let begun = Instant::now();
    // Each sends a byte every 100 ms, a third of them after a complete request; a tenth never send anything.
    // The first byte comes at once: time for a head runs from the moment a client is connected.
    let mut slow: Vec<(Client, usize)> = Vec::new();
    for i in 0..300 {
        let mut client = harness.client();
        if i % 3 == 0 {
            assert_eq!(client.get("/good").map(|a| a.status), Ok(200));
        }
        if i % 10 != 1 {
            client.send("G").expect("sent");
        }
        slow.push((client, i));
    }
    let mut head = "ET /good HTTP/1.1\r\nHost: localhost\r\nX-Slow: ".bytes().chain(std::iter::repeat(b'x'));
    let all_begun = Instant::now();
    // Longer than the timeout for a head and the lingering close after the response.
    while all_begun.elapsed() < Duration::from_secs(3) {
        let byte = head.next().expect("endless");
        for (client, i) in &mut slow {
            if *i % 10 != 1 {
                // Sending fails once the connection was closed.
                let _ = client.send([byte]);
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    harness.wait_until("slow clients are cut off", |all| {
        all.iter().map(|c| c.counts.clients).sum::<usize>() <= 1
    });
    for (mut client, i) in slow {
        match client.response(false) {
            Ok(response) => {
                assert_eq!((response.status, response.field("Connection")), (408, Some("close")), "{i}")
            }
            // A client that has sent nothing gets no response; one that goes on writing into a closed
            // connection may lose the response to a reset.
            Err(e) => assert!(i % 10 == 1 || e.contains("reset") || e == "closed", "{i}: {e}"),
        }
    }
    unaffected.end();
    let records = harness.end();
    let timed_out = records.iter().filter(|t| t.cause == Some("head_timeout")).count();
    assert_eq!(timed_out, 270, "all but those that sent nothing");
    assert!(begun.elapsed() < WAIT);
}

fn slow_bodies_are_cut_off_above_the_minimum_rate_they_are_not(driver: Driver) {
    let (up, good) = (uploads(), Backend::good("good"));
    let limits = "limits = { min_upload_rate = 100, min_download_rate = 100 }\n";
    let harness = Harness::start(driver, &format!("{limits}{}", good_and("up", &up, &good)), 2);
    let unaffected = UnaffectedClient::start(harness.address, "/good", "good");
    // Bytes sent every 100 ms, and whether that is at least the minimum rate of 100 bytes a second.
    let rows = [(1, false), (0, false), (50, true)];
    std::thread::scope(|s| {
        for (bytes, fast_enough) in rows {
            for framing in ["Content-Length: 1000", "Transfer-Encoding: chunked"] {
                let harness = &harness;
                s.spawn(move || {
                    let mut client = harness.client();
                    client
                        .send(format!("POST /up HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n"))
                        .expect("sent");
                    let chunked = framing.starts_with('T');
                    for _ in 0..20 {
                        let data = "x".repeat(bytes);
                        let sent =
                            if chunked && bytes > 0 { format!("{bytes:x}\r\n{data}\r\n") } else { data };
                        if client.send(sent).is_err() {
                            break;
                        }
                        std::thread::sleep(Duration::from_millis(100));
                    }
                    if fast_enough && chunked {
                        client.send("0\r\n\r\n").expect("sent");
                    }
                    let response = client.response(false).unwrap_or_else(|e| {
                        panic!(
                            "{bytes} {framing}: {e} {:?}",
                            harness.records().iter().filter(|t| t.target == "/up").collect::<Vec<_>>()
                        )
                    });
                    assert_eq!(response.status, if fast_enough { 200 } else { 408 }, "{bytes} {framing}");
                });
            }
        }
    });
    unaffected.end();
    let records = harness.end();
    assert_eq!(records.iter().filter(|t| t.cause == Some("client_stalled")).count(), 4, "{records:?}");
    // The backend must not take a truncated request for a complete one.
    assert_eq!(up.stats.requests.load(Ordering::SeqCst), 6);
}

fn slow_readers_are_cut_off_and_the_backend_connection_is_closed(driver: Driver) {
    let (down, good) = (endless(), Backend::good("good"));
    let limits = "limits = { min_upload_rate = 100, min_download_rate = 100000 }\n";
    let harness = Harness::start(driver, &format!("{limits}{}", good_and("down", &down, &good)), 2);
    let unaffected = UnaffectedClient::start(harness.address, "/good", "good");
    // Forty that read nothing, twenty that read far too little, and one that reads slowly but enough.
    let begun = Instant::now();
    let mut readers: Vec<_> = (0..60)
        .map(|_| {
            let mut client = harness.client();
            sockopt::set_socket_recv_buffer_size(client.stream(), 4096).expect("a socket");
            client.send("GET /down HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
            client.into_stream()
        })
        .collect();
    let mut enough = connect(harness.address);
    std::io::Write::write_all(&mut enough, b"GET /down HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    let mut got = 0;
    while begun.elapsed() < Duration::from_secs(4) {
        for reader in readers.iter_mut().take(20) {
            reader.set_nonblocking(true).expect("a socket");
            let _ = reader.read(&mut [0; 10]);
        }
        // 2 MB/s.
        let mut buf = vec![0; 200_000];
        enough.read_exact(&mut buf).expect("the client that reads enough is not cut off");
        got += buf.len();
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(got >= 2_000_000);
    // Before it stops to read for long enough to be slow itself.
    drop(enough);
    harness.wait_until("slow clients are cut off", |all| {
        all.iter().map(|c| c.counts.exchanges).sum::<usize>() <= 1
    });
    unaffected.end();
    let records = harness.end();
    assert_eq!(records.iter().filter(|t| t.cause == Some("client_stalled")).count(), 60, "{records:?}");
    assert_eq!(records.iter().filter(|t| t.cause == Some("client_closed")).count(), 1, "{records:?}");
    let begun = Instant::now();
    while down.stats.open.load(Ordering::SeqCst) > 0 {
        assert!(begun.elapsed() < WAIT, "the connection to the backend stays open");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn many_resets_leave_nothing_behind(driver: Driver) {
    let (down, good) = (endless(), Backend::good("good"));
    let harness = Harness::start(driver, &good_and("down", &down, &good), 2);
    let unaffected = UnaffectedClient::start(harness.address, "/good", "good");
    // The bytes sent before the reset, and the milliseconds between.
    let get = "GET /good HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let rows = [
        ("", 0),
        ("G", 0),
        ("GET /good HTTP/1.1\r\nHost:", 0),
        (get, 0),
        (get, 1),
        (
            "GET /good HTTP/1.1\r\nHost: localhost\r\n\r\nGET /good HTTP/1.1\r\nHost: localhost\r\n\r\nGET /goo",
            1,
        ),
        ("POST /good HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf", 0),
        ("POST /good HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nha", 1),
        ("GET /down HTTP/1.1\r\nHost: localhost\r\n\r\n", 3),
        ("nonsense\r\n\r\n", 1),
    ];
    std::thread::scope(|s| {
        for (sent, pause) in rows {
            let harness = &harness;
            s.spawn(move || {
                for _ in 0..200 {
                    let mut client = harness.client();
                    let _ = client.send(sent);
                    std::thread::sleep(Duration::from_millis(pause));
                    reset(client.into_stream());
                }
            });
        }
    });
    unaffected.end();
    harness.end();
}

fn clients_that_disconnect_early_leave_nothing_behind(driver: Driver) {
    let (down, up, good) = (endless(), uploads(), Backend::good("good"));
    let hangs = Backend::start(|mut p| {
        p.request();
        p.wait_for_close();
    });
    let pools = pool("down", &[down.address], "")
        + &pool("hangs", &[hangs.address], "timeouts = { backend_head = 60 }\n");
    let harness = Harness::start(driver, &format!("{}{pools}", good_and("up", &up, &good)), 2);
    let unaffected = UnaffectedClient::start(harness.address, "/good", "good");
    for by_reset in [false, true] {
        for _ in 0..20 {
            let mut gone = Vec::new();
            // In the middle of a download.
            let mut client = harness.client();
            client.send("GET /down HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
            client.exact(100_000).expect("a part of the body");
            gone.push(client);
            // In the middle of an upload.
            for (framing, part) in [
                ("Content-Length: 1000000", "x".repeat(100_000)),
                ("Transfer-Encoding: chunked", "5\r\nhello\r\n".into()),
            ] {
                let mut client = harness.client();
                client
                    .send(format!("POST /up HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n{part}"))
                    .expect("sent");
                gone.push(client);
            }
            // While it waits for a response.
            let mut client = harness.client();
            client.send("GET /hangs HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
            if !by_reset {
                // Always a reset: after a half close the client could still be waiting for the response.
                std::thread::sleep(Duration::from_millis(5));
            }
            reset(client.into_stream());
            for client in gone {
                let stream = client.into_stream();
                if by_reset { reset(stream) } else { drop(stream) }
            }
        }
    }
    unaffected.end();
    let records = harness.end();
    let gone = |target: &str| {
        records.iter().filter(|t| t.target == target && t.cause == Some("client_closed")).count()
    };
    assert_eq!((gone("/down"), gone("/up"), gone("/hangs")), (40, 80, 40));
    // No truncated upload was taken for a complete one.
    assert_eq!(records.iter().filter(|t| t.target == "/up" && t.cause.is_none()).count(), 0);
}

fn pipelined_requests_get_responses_in_order(driver: Driver) {
    let echo = Backend::start(|mut p| {
        while let Some(head) = p.request() {
            let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
            if !p.send(ok(&target)) {
                return;
            }
        }
    });
    let harness = Harness::start(driver, &format!("{SHORT_TIMEOUTS}{}", pool("p", &[echo.address], "")), 2);
    let mut all = String::new();
    for i in 0..300 {
        all += &match i % 3 {
            0 => format!("GET /p/{i} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            1 => format!("POST /p/{i} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello"),
            _ => format!(
                "PUT /p/{i} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
            ),
        };
    }
    // In one piece and in pieces that end anywhere, followed by a half close: every request gets its
    // response.
    for piece in [all.len(), 1000, 77] {
        let mut client = harness.client();
        for piece in all.as_bytes().chunks(piece) {
            client.send(piece).expect("sent");
        }
        client.stream().shutdown(Shutdown::Write).expect("open");
        for i in 0..300 {
            let response = client.response(false).unwrap_or_else(|e| panic!("{i} in pieces of {piece}: {e}"));
            assert_eq!((response.status, response.text()), (200, format!("/p/{i}")));
        }
        assert!(client.is_closed());
    }
    let records = harness.end();
    assert_eq!(records.iter().filter(|t| t.cause.is_none()).count(), 900);
}

fn a_large_download_to_a_slow_client_is_complete(driver: Driver) {
    let down = Backend::start(|mut p| {
        p.request();
        p.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n"));
        let piece: Vec<u8> = (0..251).cycle().take(251 * 256).collect();
        let mut left = LARGE;
        while left > 0 && p.send(&piece[..piece.len().min(left)]) {
            left -= piece.len().min(left);
        }
        p.wait_for_close();
    });
    // The client reads nothing for a while, which is not to be too long on a machine that is busy.
    let timeouts = SHORT_TIMEOUTS.replace("stall = \"1s\"", "stall = \"10s\"");
    let harness = Harness::start(driver, &format!("{timeouts}{}", pool("down", &[down.address], "")), 1);
    let mut client = harness.client();
    client.send("GET /down HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    std::thread::sleep(Duration::from_millis(500));
    let response = client.response(false).expect("a complete response");
    assert_eq!(response.body.len(), LARGE);
    assert!(response.body.iter().enumerate().all(|(i, b)| usize::from(*b) == i % 251));
    drop(client);
    harness.end();
}
