//! `RateLimiter`: curl and several connections over two workers.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::client::{Client, Response, connect_from};
use crate::nginx::{output, program};
use crate::proxy::{config, start};
use crate::scripted_backend::Backend;

on_each_driver!(all_connections_of_a_client_count, a_retry_comes_through_when_it_was_said);

/// As README.md has it.
const STRICT: &str = "[backend_pools.middlewares.RateLimiter]\nlimit = 20\nwindow_sec = 60\n";
const SHORT: &str = "[backend_pools.middlewares.RateLimiter]\nlimit = 3\nwindow_sec = 1\n";

fn get(from: &str, to: SocketAddr) -> Response {
    Client::over(connect_from(from.parse().expect("an address"), to)).get("/").expect("a response")
}

fn retry_after(response: &Response) -> u64 {
    response.field("Retry-After").and_then(|secs| secs.parse().ok()).expect("seconds")
}

fn all_connections_of_a_client_count(driver: &str) {
    let backend = Backend::good("in");
    let (daemon, address) = start(&config(driver, "", backend.address, STRICT));
    let url = format!("http://{address}/?[1-25]");
    let mut curl = Command::new(program("curl", "curl"));
    curl.args(["-sS", "-m", "20", "-o", "/dev/null", "-w", "%{http_code} ", &url]);
    assert_eq!(output(&mut curl), format!("{}{}", "200 ".repeat(20), "429 ".repeat(5)));
    // On connections of their own, which lie on both workers.
    for _ in 0..10 {
        let got = get("127.0.0.1", address);
        assert_eq!((got.status, got.text().as_str()), (429, "429 Too Many Requests\n"));
        assert!((30..=60).contains(&retry_after(&got)), "{}", got.head);
    }
    let others = (0..25).filter(|_| get("127.0.0.2", address).status == 200).count();
    assert_eq!(others, 20, "another client has a window of its own");
    daemon.stop();
}

fn a_retry_comes_through_when_it_was_said(driver: &str) {
    let backend = Backend::good("in");
    let (daemon, address) = start(&config(driver, "", backend.address, SHORT));
    // When each admitted request was sent, and when its response was there.
    let (mut admitted, mut refused) = (Vec::new(), 0);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        let sent = Instant::now();
        let got = get("127.0.0.1", address);
        if got.status == 200 {
            admitted.push((sent, Instant::now()));
            continue;
        }
        refused += 1;
        assert_eq!(got.status, 429, "{}", got.head);
        // 2 if hardly any of the second has gone by.
        let secs = retry_after(&got);
        assert!((1..=2).contains(&secs), "{}", got.head);
        if refused % 10 == 0 {
            std::thread::sleep(Duration::from_secs(secs));
            let sent = Instant::now();
            assert_eq!(get("127.0.0.1", address).status, 200, "after the time that was said");
            admitted.push((sent, Instant::now()));
        }
    }
    for four in admitted.windows(4) {
        let longest = four[3].1.duration_since(four[0].0);
        assert!(longest >= Duration::from_secs(1), "four within {longest:?}");
    }
    assert!(admitted.len() > 6 && refused > 0, "{} {refused}", admitted.len());
    daemon.stop();
}
