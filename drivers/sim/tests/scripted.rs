//! The scripted simulation: its clock jumps, and a drain leaves nothing behind.

use std::sync::Arc;
use std::time::Duration;

use ruststrom_core::config;
use ruststrom_core::observe::{HealthChange, Level, Record};
use ruststrom_core::{Instant, Observer, Wall};
use ruststrom_driver::observer::WorkerObserver;
use ruststrom_driver::turn::DrainEnd;
use ruststrom_sim::scripted::{BackendListener, Received, Scripted, backend_address};

struct Silent;

impl Observer for Silent {
    fn exchange(&mut self, _: &Record<'_>) {}
    fn health(&mut self, _: &HealthChange<'_>) {}
    fn note(&mut self, _: Level, _: &str) {}
}

impl WorkerObserver for Silent {
    fn turn(&mut self, _: Instant) {}
    fn wall(&mut self, _: Wall, _: Instant) {}
    fn turn_ended(&mut self) -> bool {
        false
    }
}

fn world(seed: u64, settings: &str) -> Scripted<Silent> {
    let text = format!(
        "http_address = \"127.0.0.1:80\"\nmetrics_address = false\n\
         health_interval = {{ check_every = 0 }}\n{settings}\n\
         [[backend_pools]]\naddresses = [\"{}\"]\n",
        backend_address(0)
    );
    let config = config::parse(&text).config.expect("a good configuration");
    Scripted::new(Arc::new(config), "test", seed, Silent, &[BackendListener::Accepting])
}

#[test]
fn hours_pass_without_waiting() {
    for seed in 0..20 {
        let mut world = world(seed, "timeouts = { head = \"10h\", idle = \"10h\", drain = \"1h\" }");
        let client = world.connect().expect("it listens");
        assert_eq!(world.read(client), None, "nothing comes, however patient the client is");
        world.wait(Duration::from_secs(9 * 3600));
        assert_eq!(world.read(client), None);
        world.wait(Duration::from_secs(3600));
        assert_eq!(world.read(client), Some(Received::End));
        world.close(client);
        assert_eq!(world.end(), Ok(DrainEnd::Finished));
    }
}

/// A stop that is announced some time before: clients come and go as ever until the drain begins, and hear
/// nothing of it.
#[test]
fn a_drain_begins_after_its_delay() {
    for seed in 0..20 {
        let mut world = world(seed, "timeouts = { shutdown_delay = \"3s\" }");
        let idle = world.connect().expect("it listens");
        world.drain();
        world.wait(Duration::from_millis(2_900));
        let client = world.connect().expect("it listens on");
        assert!(world.write(client, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
        let backend = world.accept(0).expect("it is asked");
        assert!(matches!(world.read(backend), Some(Received::Bytes(_))));
        assert!(world.write(backend, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
        let mut response = Vec::new();
        while !response.ends_with(b"ok") {
            let Some(Received::Bytes(bytes)) = world.read(client) else { panic!("no more comes") };
            response.extend(bytes);
        }
        assert!(!response.windows(10).any(|part| part == b"Connection"), "{}", response.escape_ascii());
        world.wait(Duration::from_millis(110));
        assert_eq!(world.connect(), None);
        // Both have a moment, as they had before: nothing says that they would not ask.
        world.wait(Duration::from_secs(2));
        for client in [idle, client] {
            assert_eq!(world.read(client), Some(Received::End));
            world.close(client);
        }
        assert_eq!(world.end(), Ok(DrainEnd::Finished));
    }
}

#[test]
fn a_drain_finishes_requests_and_accepts_no_clients() {
    for seed in 0..20 {
        let mut world = world(seed, "");
        let client = world.connect().expect("it listens");
        assert!(world.write(client, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
        let backend = world.accept(0).expect("it is asked");
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let Some(Received::Bytes(bytes)) = world.read(backend) else {
                panic!("{} and no more", request.escape_ascii())
            };
            request.extend(bytes);
        }
        assert!(request.starts_with(b"GET / HTTP/1.1\r\n"));
        world.drain();
        world.wait(Duration::from_millis(1));
        assert_eq!(world.connect(), None);
        assert!(world.write(backend, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
        let mut response = Vec::new();
        while let Some(Received::Bytes(bytes)) = world.read(client) {
            response.extend(bytes);
        }
        assert!(response.ends_with(b"Connection: close\r\n\r\nok"), "{}", response.escape_ascii());
        assert_eq!(world.end(), Ok(DrainEnd::Finished));
        assert_eq!(world.read(backend), Some(Received::End));
    }
}
