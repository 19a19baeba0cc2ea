//! Limits: what happens at them, that they are never exceeded, and that what waits is served.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::scripted::{Backend, ok};
use crate::stand::{QUICK, Stand, pool};
use crate::talk::{Client, connect_from};

/// Answers after a while, and counts how many requests it has at once.
fn busy(work: Duration) -> Backend {
    Backend::start(move |mut p| {
        while p.request().is_some() {
            p.busy(|| std::thread::sleep(work));
            if !p.send(ok("done")) {
                return;
            }
        }
    })
}

#[test]
fn connections_are_limited_over_all_workers_and_for_each_address() {
    let good = Backend::good("good");
    let limits = "limits = { connections = 20, connections_per_ip = 5 }\n";
    let stand = Stand::start(&format!("{limits}{QUICK}{}", pool("good", &[good.address], "")), 2);
    let from = |last: u8| Client::over(connect_from([127, 0, 0, last].into(), stand.address));
    // Five from each of four addresses: each one more is closed at once, and so is a fifth address.
    let mut taken = Vec::new();
    for last in 1..=4 {
        for _ in 0..5 {
            let mut client = from(last);
            assert_eq!(client.get("/good").map(|a| a.status), Ok(200), "{last}");
            taken.push(client);
        }
        assert!(from(last).is_closed(), "a sixth of {last}");
    }
    assert!(from(5).is_closed(), "a twenty-first");
    // Those that are in are served on, and each that goes lets another in.
    for client in &mut taken {
        assert_eq!(client.get("/good").map(|a| a.status), Ok(200));
    }
    taken.truncate(19);
    stand.wait_until("one has gone", |all| all.iter().map(|c| c.counts.clients).sum::<usize>() == 19);
    let mut client = from(5);
    assert_eq!(client.get("/good").map(|a| a.status), Ok(200));
    assert!(from(6).is_closed());
    drop((taken, client));
    stand.end();
}

#[test]
fn max_connections_is_never_exceeded_and_everyone_who_waits_is_served() {
    for (workers, strategy) in [(1, "RoundRobin"), (2, "RoundRobin"), (2, "LeastConnection"), (2, "Random")] {
        let backends = [busy(Duration::from_millis(4)), busy(Duration::from_millis(4))];
        let addresses: Vec<String> = backends
            .iter()
            .map(|b| format!("{{ address = \"{}\", max_connections = 3 }}", b.address))
            .collect();
        let text = format!(
            "{QUICK}[[backend_pools]]\naddresses = [{}]\nschemes = [\"HTTP\"]\nstrategy = \"{strategy}\"\ntimeouts = {{ queue = 15 }}\n",
            addresses.join(", ")
        );
        let stand = Stand::start(&text, workers);
        std::thread::scope(|s| {
            for _ in 0..24 {
                s.spawn(|| {
                    let mut client = stand.client();
                    for i in 0..20 {
                        let response = client.get("/").unwrap_or_else(|e| panic!("{i}: {e}"));
                        assert_eq!(response.status, 200, "{strategy}: {response:?}");
                    }
                });
            }
        });
        let told = stand.end();
        assert_eq!(told.iter().filter(|t| t.cause.is_none()).count(), 480);
        for b in &backends {
            // Exactly: neither more nor, with so many who wait, less.
            assert_eq!(b.seen.most_busy.load(Ordering::SeqCst), 3, "{workers} {strategy}");
        }
    }
}

#[test]
fn a_full_queue_and_a_long_wait_are_responded() {
    let slow = busy(Duration::from_millis(1500));
    let text = format!(
        "{QUICK}[[backend_pools]]\naddresses = [{{ address = \"{}\", max_connections = 2 }}]\nschemes = [\"HTTP\"]\n\
         limits = {{ queue = 3 }}\ntimeouts = {{ backend_head = 5, queue = \"500ms\" }}\n",
        slow.address
    );
    let stand = Stand::start(&text, 1);
    // Two are served, three wait in vain, the others are refused at once.
    let (served, waited, refused) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|s| {
        let queue = |all: &[ruststrom_driver::worker::Census], n: usize| {
            all.iter().map(|c| c.counts.exchanges).sum::<usize>() >= n
        };
        for i in 0..5 {
            s.spawn(|| {
                let begun = Instant::now();
                let response = stand.client().get("/").expect("an answer");
                match response.status {
                    200 => served.fetch_add(1, Ordering::SeqCst),
                    _ => {
                        assert!(
                            response.status == 503 && response.field("Retry-After").is_some(),
                            "{response:?}"
                        );
                        assert!(begun.elapsed() >= Duration::from_millis(450), "{:?}", begun.elapsed());
                        waited.fetch_add(1, Ordering::SeqCst)
                    }
                };
            });
            stand.wait_until("it is in", |all| queue(all, i + 1));
        }
        for _ in 0..4 {
            let response = stand.client().get("/").expect("an answer");
            assert_eq!(
                (response.status, response.field("Retry-After").is_some()),
                (503, true),
                "{response:?}"
            );
            refused.fetch_add(1, Ordering::SeqCst);
        }
    });
    let counts = [served, waited, refused].map(AtomicUsize::into_inner);
    assert_eq!(counts, [2, 3, 4]);
    let told = stand.end();
    let caused = |cause| told.iter().filter(|t| t.cause == Some(cause)).count();
    assert_eq!((caused("queue_timeout"), caused("queue_full")), (3, 4), "{told:?}");
    assert_eq!(slow.seen.most_busy.load(Ordering::SeqCst), 2);
}

#[test]
fn those_who_leave_the_queue_take_nobodys_place() {
    let slow = busy(Duration::from_millis(300));
    let text = format!(
        "{QUICK}[[backend_pools]]\naddresses = [{{ address = \"{}\", max_connections = 1 }}]\nschemes = [\"HTTP\"]\ntimeouts = {{ queue = 10 }}\n",
        slow.address
    );
    let stand = Stand::start(&text, 1);
    let ask = |target: &str| {
        let mut client = stand.client();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")).expect("sent");
        client
    };
    let mut first = ask("/first");
    stand.wait_until("the first is served", |all| all[0].counts.in_flight == 1);
    let gone: Vec<_> = (0..10).map(|_| ask("/gone")).collect();
    stand.wait_until("they wait", |all| all[0].counts.queued == 10);
    let mut last = ask("/last");
    stand.wait_until("it waits", |all| all[0].counts.queued == 11);
    for client in gone {
        crate::talk::reset(client.into_stream());
    }
    stand.wait_until("they have gone", |all| all[0].counts.queued <= 1);
    for client in [&mut first, &mut last] {
        assert_eq!(client.response(false).map(|a| a.status), Ok(200));
    }
    drop((first, last));
    stand.end();
    assert_eq!(slow.seen.requests.load(Ordering::SeqCst), 2);
}

#[test]
fn requests_on_one_connection_are_limited() {
    let good = Backend::good("good");
    let limits = "limits = { requests_per_connection = 3 }\n";
    let stand = Stand::start(&format!("{limits}{QUICK}{}", pool("good", &[good.address], "")), 1);
    let mut client = stand.client();
    for last in [false, false, true] {
        let response = client.get("/good").expect("an answer");
        assert_eq!(response.field("Connection"), last.then_some("close"));
    }
    assert!(client.is_closed());
    drop(client);
    stand.end();
}

#[test]
fn without_memory_for_bytes_under_way_requests_are_refused_or_wait_and_later_served() {
    let hangs = Backend::start(|mut p| {
        p.request();
        p.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1usize << 30));
        while p.send([b'x'; 1 << 16]) {}
    });
    let good = Backend::good("good");
    let pools = pool("down", &[hangs.address], "") + &pool("good", &[good.address], "");
    // One megabyte, and downloads that nobody reads, until they are cut for it.
    let text = format!("limits = {{ buffer_bytes = 1048576 }}\n{QUICK}{pools}")
        .replace("head = \"700ms\", idle", "head = \"9s\", idle");
    let stand = Stand::start(&text, 1);
    let mut idle = stand.client();
    let downloads: Vec<_> = (0..100)
        .map(|_| {
            let mut client = stand.client();
            client.send("GET /down HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
            client
        })
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    // Late or with a 503, but answered; and once they have gone, at once.
    let response = idle.get("/good").expect("an answer");
    assert!(matches!(response.status, 200 | 503), "{response:?}");
    drop(downloads);
    stand.wait_until("they have gone", |all| all[0].counts.clients <= 1);
    assert_eq!(stand.client().get("/good").map(|a| a.status), Ok(200));
    drop(idle);
    stand.end();
}
