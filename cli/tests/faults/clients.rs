//! Clients that dawdle, break off, or do everything at once.

use std::io::Read;
use std::net::Shutdown;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::net::sockopt;

use crate::scripted::{Backend, ok};
use crate::stand::{Bystander, QUICK, Stand, pool};
use crate::talk::{Client, WAIT, connect, reset};

/// A download that no socket buffer holds.
const LARGE: usize = 64 << 20;

fn good_and(name: &str, backend: &Backend, good: &Backend) -> String {
    format!("{QUICK}{}{}", pool(name, &[backend.address], ""), pool("good", &[good.address], ""))
}

/// A backend of one endless answer.
fn endless() -> Backend {
    Backend::start(|mut p| {
        p.request();
        p.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1usize << 40));
        while p.send([b'x'; 1 << 16]) {}
    })
}

/// A backend that reads uploads.
fn uploads() -> Backend {
    Backend::start(|mut p| while p.request().is_some() && p.send(ok("taken")) {})
}

#[test]
fn slow_heads_are_timed_out_and_everyone_else_is_served() {
    let good = Backend::good("good");
    let stand = Stand::start(&format!("{QUICK}{}", pool("good", &[good.address], "")), 2);
    let bystander = Bystander::start(stand.address, "/good", "good");
    let begun = Instant::now();
    // Each a byte now and then, some of them after a first good request; a few say nothing at all.
    let mut slow: Vec<(Client, usize)> = (0..300).map(|i| (stand.client(), i)).collect();
    for (client, i) in &mut slow {
        if *i % 3 == 0 {
            assert_eq!(client.get("/good").map(|a| a.status), Ok(200));
        }
    }
    let mut head = "GET /good HTTP/1.1\r\nHost: localhost\r\nX-Slow: ".bytes().chain(std::iter::repeat(b'x'));
    // Past the time for a head, and the linger after the answer.
    while begun.elapsed() < Duration::from_secs(3) {
        let byte = head.next().expect("endless");
        for (client, i) in &mut slow {
            if *i % 10 != 1 {
                // Those that were cut off may not take it.
                let _ = client.send([byte]);
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    stand.wait_until("the slow ones are cut", |all| all.iter().map(|c| c.counts.clients).sum::<usize>() <= 1);
    for (mut client, i) in slow {
        match client.response(false) {
            Ok(response) => {
                assert_eq!((response.status, response.field("Connection")), (408, Some("close")), "{i}")
            }
            // Whoever has said nothing hears nothing; whoever goes on writing into a closed connection may
            // lose the answer to a reset.
            Err(e) => assert!(i % 10 == 1 || e.contains("reset") || e == "closed", "{i}: {e}"),
        }
    }
    bystander.end();
    let told = stand.end();
    let timed_out = told.iter().filter(|t| t.cause == Some("head_timeout")).count();
    assert_eq!(timed_out, 270, "all but those that said nothing");
    assert!(begun.elapsed() < WAIT);
}

#[test]
fn slow_bodies_are_cut_and_slow_but_honest_ones_are_not() {
    let (up, good) = (uploads(), Backend::good("good"));
    let limits = "limits = { min_upload_rate = 100, min_download_rate = 100 }\n";
    let stand = Stand::start(&format!("{limits}{}", good_and("up", &up, &good)), 2);
    let bystander = Bystander::start(stand.address, "/good", "good");
    // Bytes each 100 ms, and what becomes of it: 100 a second is the least.
    let rows = [(1, false), (0, false), (50, true)];
    std::thread::scope(|s| {
        for (bytes, honest) in rows {
            for framing in ["Content-Length: 1000", "Transfer-Encoding: chunked"] {
                let stand = &stand;
                s.spawn(move || {
                    let mut client = stand.client();
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
                    if honest && chunked {
                        client.send("0\r\n\r\n").expect("sent");
                    }
                    let response = client.response(false).unwrap_or_else(|e| {
                        panic!(
                            "{bytes} {framing}: {e} {:?}",
                            stand.told().iter().filter(|t| t.target == "/up").collect::<Vec<_>>()
                        )
                    });
                    assert_eq!(response.status, if honest { 200 } else { 408 }, "{bytes} {framing}");
                });
            }
        }
    });
    bystander.end();
    let told = stand.end();
    assert_eq!(told.iter().filter(|t| t.cause == Some("client_stalled")).count(), 4, "{told:?}");
    // Half a request must not look like a whole one.
    assert_eq!(up.seen.requests.load(Ordering::SeqCst), 6);
}

#[test]
fn slow_readers_are_cut_and_the_backend_is_let_go() {
    let (down, good) = (endless(), Backend::good("good"));
    let limits = "limits = { min_upload_rate = 100, min_download_rate = 100000 }\n";
    let stand = Stand::start(&format!("{limits}{}", good_and("down", &down, &good)), 2);
    let bystander = Bystander::start(stand.address, "/good", "good");
    // Those that read nothing, those that read far too little, and one that reads slowly but enough.
    let begun = Instant::now();
    let mut readers: Vec<_> = (0..60)
        .map(|_| {
            let mut client = stand.client();
            sockopt::set_socket_recv_buffer_size(client.stream(), 4096).expect("a socket");
            client.send("GET /down HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
            client.into_stream()
        })
        .collect();
    let mut enough = connect(stand.address);
    std::io::Write::write_all(&mut enough, b"GET /down HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    let mut got = 0;
    while begun.elapsed() < Duration::from_secs(4) {
        for reader in readers.iter_mut().take(20) {
            reader.set_nonblocking(true).expect("a socket");
            let _ = reader.read(&mut [0; 10]);
        }
        // Two megabytes a second.
        let mut buf = vec![0; 200_000];
        enough.read_exact(&mut buf).expect("it is not cut");
        got += buf.len();
        std::thread::sleep(Duration::from_millis(100));
    }
    stand.wait_until("the slow ones are cut", |all| {
        all.iter().map(|c| c.counts.exchanges).sum::<usize>() <= 2
    });
    assert!(got >= 2_000_000);
    drop(enough);
    bystander.end();
    let told = stand.end();
    assert_eq!(told.iter().filter(|t| t.cause == Some("client_stalled")).count(), 60, "{told:?}");
    assert_eq!(told.iter().filter(|t| t.cause == Some("client_gone")).count(), 1, "{told:?}");
    let begun = Instant::now();
    while down.seen.open.load(Ordering::SeqCst) > 0 {
        assert!(begun.elapsed() < WAIT, "the backend was not let go");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn storms_of_resets_leave_nothing_behind() {
    let (down, good) = (endless(), Backend::good("good"));
    let stand = Stand::start(&good_and("down", &down, &good), 2);
    let bystander = Bystander::start(stand.address, "/good", "good");
    // What is sent before the reset, and how long it waits in between.
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
            let stand = &stand;
            s.spawn(move || {
                for _ in 0..200 {
                    let mut client = stand.client();
                    let _ = client.send(sent);
                    std::thread::sleep(Duration::from_millis(pause));
                    reset(client.into_stream());
                }
            });
        }
    });
    bystander.end();
    stand.end();
}

#[test]
fn clients_that_go_away_in_the_middle_leave_nothing_behind() {
    let (down, up, good) = (endless(), uploads(), Backend::good("good"));
    let hangs = Backend::start(|mut p| {
        p.request();
        p.wait_for_the_end();
    });
    let pools = pool("down", &[down.address], "")
        + &pool("hangs", &[hangs.address], "timeouts = { backend_head = 60 }\n");
    let stand = Stand::start(&format!("{}{pools}", good_and("up", &up, &good)), 2);
    let bystander = Bystander::start(stand.address, "/good", "good");
    for by_reset in [false, true] {
        for _ in 0..20 {
            let mut gone = Vec::new();
            // In the middle of a download.
            let mut client = stand.client();
            client.send("GET /down HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
            client.exact(100_000).expect("some of it");
            gone.push(client);
            // In the middle of an upload.
            for (framing, part) in [
                ("Content-Length: 1000000", "x".repeat(100_000)),
                ("Transfer-Encoding: chunked", "5\r\nhello\r\n".into()),
            ] {
                let mut client = stand.client();
                client
                    .send(format!("POST /up HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n{part}"))
                    .expect("sent");
                gone.push(client);
            }
            // While it waits for an answer.
            let mut client = stand.client();
            client.send("GET /hangs HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
            if !by_reset {
                // Half a close would be somebody who still waits.
                std::thread::sleep(Duration::from_millis(5));
            }
            reset(client.into_stream());
            for client in gone {
                let stream = client.into_stream();
                if by_reset { reset(stream) } else { drop(stream) }
            }
        }
    }
    bystander.end();
    let told = stand.end();
    let gone =
        |target: &str| told.iter().filter(|t| t.target == target && t.cause == Some("client_gone")).count();
    assert_eq!((gone("/down"), gone("/up"), gone("/hangs")), (40, 80, 40));
    // No upload that was broken off looked like a whole one.
    assert_eq!(told.iter().filter(|t| t.target == "/up" && t.cause.is_none()).count(), 0);
}

#[test]
fn pipelined_requests_are_responded_in_turn() {
    let echo = Backend::start(|mut p| {
        while let Some(head) = p.request() {
            let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
            if !p.send(ok(&target)) {
                return;
            }
        }
    });
    let stand = Stand::start(&format!("{QUICK}{}", pool("p", &[echo.address], "")), 2);
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
    // At once, and in pieces that end anywhere; then half closed: all are answered all the same.
    for piece in [all.len(), 1000, 77] {
        let mut client = stand.client();
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
    let told = stand.end();
    assert_eq!(told.iter().filter(|t| t.cause.is_none()).count(), 900);
}

#[test]
fn a_large_download_comes_whole_to_a_client_that_dawdles() {
    let down = Backend::start(|mut p| {
        p.request();
        p.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n"));
        let piece: Vec<u8> = (0..251).cycle().take(251 * 256).collect();
        let mut left = LARGE;
        while left > 0 && p.send(&piece[..piece.len().min(left)]) {
            left -= piece.len().min(left);
        }
        p.wait_for_the_end();
    });
    let stand = Stand::start(&format!("{QUICK}{}", pool("down", &[down.address], "")), 1);
    let mut client = stand.client();
    client.send("GET /down HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    std::thread::sleep(Duration::from_millis(500));
    let response = client.response(false).expect("whole");
    assert_eq!(response.body.len(), LARGE);
    assert!(response.body.iter().enumerate().all(|(i, b)| usize::from(*b) == i % 251));
    drop(client);
    stand.end();
}
