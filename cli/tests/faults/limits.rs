//! Limits: they are never exceeded, what is above them is refused or waits, and what waits is served.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ruststrom_core::config::Driver;

use crate::client::{Client, connect_from};
use crate::harness::{Harness, SHORT_TIMEOUTS, pool};
use crate::scripted_backend::{Backend, ok};

on_each_driver!(
    connections_are_limited_over_all_workers_and_for_each_address,
    max_connections_is_never_exceeded_and_queued_requests_are_served,
    a_full_queue_and_a_long_wait_get_503,
    clients_that_leave_the_queue_take_no_slot,
    requests_on_one_connection_are_limited,
    at_the_buffer_limit_requests_wait_or_get_503_and_are_served_later,
);

/// A backend that responds after `work`, and counts the requests that it has at once.
fn counting(work: Duration) -> Backend {
    Backend::start(move |mut p| {
        while p.request().is_some() {
            p.count_busy(|| std::thread::sleep(work));
            if !p.send(ok("done")) {
                return;
            }
        }
    })
}

fn connections_are_limited_over_all_workers_and_for_each_address(driver: Driver) {
    let good = Backend::good("good");
    let limits = "limits = { connections = 20, connections_per_ip = 5 }\n";
    let harness =
        Harness::start(driver, &format!("{limits}{SHORT_TIMEOUTS}{}", pool("good", &[good.address], "")), 2);
    let from = |last: u8| Client::over(connect_from([127, 0, 0, last].into(), harness.address));
    // Five from each of four addresses: a sixth one is closed at once, and so is one from a fifth address.
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
    // Accepted connections are still served, and each one that closes makes room for another.
    for client in &mut taken {
        assert_eq!(client.get("/good").map(|a| a.status), Ok(200));
    }
    taken.truncate(19);
    harness.wait_until("one connection is closed", |all| {
        all.iter().map(|c| c.counts.clients).sum::<usize>() == 19
    });
    let mut client = from(5);
    assert_eq!(client.get("/good").map(|a| a.status), Ok(200));
    assert!(from(6).is_closed());
    drop((taken, client));
    harness.end();
}

fn max_connections_is_never_exceeded_and_queued_requests_are_served(driver: Driver) {
    for (workers, strategy) in [(1, "RoundRobin"), (2, "RoundRobin"), (2, "LeastConnection"), (2, "Random")] {
        let backends = [counting(Duration::from_millis(4)), counting(Duration::from_millis(4))];
        let addresses: Vec<String> = backends
            .iter()
            .map(|b| format!("{{ address = \"{}\", max_connections = 3 }}", b.address))
            .collect();
        let text = format!(
            "{SHORT_TIMEOUTS}[[backend_pools]]\naddresses = [{}]\nschemes = [\"HTTP\"]\nstrategy = \"{strategy}\"\ntimeouts = {{ queue = 15 }}\n",
            addresses.join(", ")
        );
        let harness = Harness::start(driver, &text, workers);
        std::thread::scope(|s| {
            for _ in 0..24 {
                s.spawn(|| {
                    let mut client = harness.client();
                    for i in 0..20 {
                        let response = client.get("/").unwrap_or_else(|e| panic!("{i}: {e}"));
                        assert_eq!(response.status, 200, "{strategy}: {response:?}");
                    }
                });
            }
        });
        let records = harness.end();
        assert_eq!(records.iter().filter(|t| t.cause.is_none()).count(), 480);
        for b in &backends {
            // Exactly 3: never more, and with so many queued requests, not less either.
            assert_eq!(b.stats.max_busy.load(Ordering::SeqCst), 3, "{workers} {strategy}");
        }
    }
}

fn a_full_queue_and_a_long_wait_get_503(driver: Driver) {
    // Its responses come well after the others have timed out, however late those were.
    let slow = counting(Duration::from_secs(4));
    let text = format!(
        "{SHORT_TIMEOUTS}[[backend_pools]]\naddresses = [{{ address = \"{}\", max_connections = 2 }}]\nschemes = [\"HTTP\"]\n\
         limits = {{ queue = 3 }}\ntimeouts = {{ backend_head = 15, queue = \"2500ms\" }}\n",
        slow.address
    );
    let harness = Harness::start(driver, &text, 1);
    // Two are served, three time out in the queue, the others are refused at once.
    let (served, waited, refused) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|s| {
        let queue = |all: &[ruststrom_driver::mailbox::WorkerStats], n: usize| {
            all.iter().map(|c| c.counts.exchanges).sum::<usize>() >= n
        };
        for i in 0..5 {
            s.spawn(|| {
                let begun = Instant::now();
                let response = harness.client().get("/").expect("a response");
                match response.status {
                    200 => served.fetch_add(1, Ordering::SeqCst),
                    _ => {
                        assert!(
                            response.status == 503 && response.field("Retry-After").is_some(),
                            "{response:?}"
                        );
                        assert!(begun.elapsed() >= Duration::from_millis(2400), "{:?}", begun.elapsed());
                        waited.fetch_add(1, Ordering::SeqCst)
                    }
                };
            });
            harness.wait_until("the request has arrived", |all| queue(all, i + 1));
        }
        for _ in 0..4 {
            let response = harness.client().get("/").expect("a response");
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
    let records = harness.end();
    let caused = |cause| records.iter().filter(|t| t.cause == Some(cause)).count();
    assert_eq!((caused("queue_timeout"), caused("queue_full")), (3, 4), "{records:?}");
    assert_eq!(slow.stats.max_busy.load(Ordering::SeqCst), 2);
}

fn clients_that_leave_the_queue_take_no_slot(driver: Driver) {
    // It responds once the clients have left, however long that takes.
    let open = Arc::new(AtomicBool::new(false));
    let is_open = open.clone();
    let slow = Backend::start(move |mut p| {
        while p.request().is_some() {
            while !is_open.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(2));
            }
            if !p.send(ok("done")) {
                return;
            }
        }
    });
    let text = format!(
        "{SHORT_TIMEOUTS}[[backend_pools]]\naddresses = [{{ address = \"{}\", max_connections = 1 }}]\nschemes = [\"HTTP\"]\n\
         timeouts = {{ queue = 20, backend_head = 20 }}\n",
        slow.address
    );
    let harness = Harness::start(driver, &text, 1);
    let send = |target: &str| {
        let mut client = harness.client();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")).expect("sent");
        client
    };
    let mut first = send("/first");
    harness.wait_until("the first request is at the backend", |all| all[0].counts.in_flight == 1);
    let gone: Vec<_> = (0..10).map(|_| send("/gone")).collect();
    harness.wait_until("ten requests are queued", |all| all[0].counts.queued == 10);
    let mut last = send("/last");
    harness.wait_until("eleven requests are queued", |all| all[0].counts.queued == 11);
    for client in gone {
        crate::client::reset(client.into_stream());
    }
    harness.wait_until("ten clients have left the queue", |all| all[0].counts.queued == 1);
    open.store(true, Ordering::SeqCst);
    for client in [&mut first, &mut last] {
        assert_eq!(client.response(false).map(|a| a.status), Ok(200));
    }
    drop((first, last));
    harness.end();
    assert_eq!(slow.stats.requests.load(Ordering::SeqCst), 2);
}

fn requests_on_one_connection_are_limited(driver: Driver) {
    let good = Backend::good("good");
    let limits = "limits = { requests_per_connection = 3 }\n";
    let harness =
        Harness::start(driver, &format!("{limits}{SHORT_TIMEOUTS}{}", pool("good", &[good.address], "")), 1);
    let mut client = harness.client();
    for last in [false, false, true] {
        let response = client.get("/good").expect("a response");
        assert_eq!(response.field("Connection"), last.then_some("close"));
    }
    assert!(client.is_closed());
    drop(client);
    harness.end();
}

fn at_the_buffer_limit_requests_wait_or_get_503_and_are_served_later(driver: Driver) {
    let hangs = Backend::start(|mut p| {
        p.request();
        p.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1usize << 30));
        while p.send([b'x'; 1 << 16]) {}
    });
    let good = Backend::good("good");
    let pools = pool("down", &[hangs.address], "") + &pool("good", &[good.address], "");
    // 1 MiB of buffers, and downloads that nobody reads until they are cut off.
    let text = format!("limits = {{ buffer_bytes = 1048576 }}\n{SHORT_TIMEOUTS}{pools}")
        .replace("head = \"700ms\", idle", "head = \"9s\", idle");
    let harness = Harness::start(driver, &text, 1);
    let mut idle = harness.client();
    let downloads: Vec<_> = (0..100)
        .map(|_| {
            let mut client = harness.client();
            client.send("GET /down HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
            client
        })
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    // There is a response: late, a 503, or a 504 if the page for it came too late. Once the downloads
    // are closed there is a 200 at once.
    let response = idle.get("/good").expect("a response");
    assert!(matches!(response.status, 200 | 503 | 504), "{response:?}");
    drop(downloads);
    harness.wait_until("the downloads are closed", |all| all[0].counts.clients <= 1);
    assert_eq!(harness.client().get("/good").map(|a| a.status), Ok(200));
    drop(idle);
    harness.end();
}
