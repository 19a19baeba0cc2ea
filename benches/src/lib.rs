//! The core between a client and a backend in memory, which the benchmarks in `core/` drive. A test checks
//! that these are complete exchanges. The comparison of the whole program with other proxies is in
//! `compare/`.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use ruststrom_core::config::ListenerKind;
use ruststrom_core::observe::{HealthChange, Level, Record};
use ruststrom_core::{Accepted, ConnId, Effect, Instant, ListenerId, Observer, Proxy, Shared, config};

pub mod messages;

/// Time between two inputs.
const STEP: Duration = Duration::from_micros(5);

/// An observer that counts exchanges and keeps no texts, as with the access log switched off.
#[derive(Debug, Default)]
pub struct ExchangeCounts {
    /// Exchanges without a cause of failure.
    pub succeeded: u64,
    /// Exchanges with a cause of failure.
    pub failed: u64,
}

impl Observer for ExchangeCounts {
    fn exchange(&mut self, record: &Record<'_>) {
        match record.cause {
            None => self.succeeded += 1,
            Some(_) => self.failed += 1,
        }
    }
    fn health(&mut self, _: &HealthChange<'_>) {}
    fn note(&mut self, _: Level, _: &str) {}
}

/// A proxy with one shard, one backend, and one client at a time. It handles the proxy's outputs as a driver
/// does; bytes that a driver would write to a socket are counted and dropped.
pub struct Harness<O: Observer = ExchangeCounts> {
    proxy: Proxy<O>,
    now: Instant,
    client: Option<ConnId>,
    backend: Option<ConnId>,
    /// Bytes sent to the backend, and to the client.
    sent: (u64, u64),
}

impl Harness<ExchangeCounts> {
    /// A proxy with one pool of one backend, without health checks. `top` has more top-level keys of its
    /// configuration.
    ///
    /// # Panics
    /// If the configuration is invalid.
    #[must_use]
    pub fn new(top: &str) -> Self {
        Self::with_pool(top, "")
    }

    /// The same with more keys and tables of the pool.
    ///
    /// # Panics
    /// If the configuration is invalid.
    #[must_use]
    pub fn with_pool(top: &str, pool: &str) -> Self {
        Self::with_observer(top, pool, ExchangeCounts::default())
    }

    /// The exchanges counted so far.
    pub fn counts(&mut self) -> &ExchangeCounts {
        self.proxy.observer_mut()
    }
}

impl<O: Observer> Harness<O> {
    /// The same with an observer of the caller's.
    ///
    /// # Panics
    /// If the configuration is invalid.
    #[must_use]
    pub fn with_observer(top: &str, pool: &str, observer: O) -> Self {
        let parsed = config::parse(&format!(
            "http_address = \"127.0.0.1:80\"\n{top}\n[health_interval]\ncheck_every = 0\n[[backend_pools]]\n\
             addresses = [\"127.0.0.1:81\"]\n{pool}"
        ));
        let config = Arc::new(parsed.config.expect("a valid configuration"));
        let now = Instant::from_millis(1_000);
        let proxy = Proxy::new(config, Arc::new(Shared::new("bench", 1)), 0, 1, observer, now);
        let mut harness = Self { proxy, now, client: None, backend: None, sent: (0, 0) };
        harness.settle();
        harness
    }

    /// Connects a client.
    ///
    /// # Panics
    /// If the proxy refuses it.
    pub fn connect(&mut self) {
        let (peer, local) = (([192, 0, 2, 7], 5000).into(), ([192, 0, 2, 1], 80).into());
        let accepted = Accepted { listener: ListenerId(0), kind: ListenerKind::Http, peer, local };
        self.now = self.now + STEP;
        self.client = Some(self.proxy.handle_accept(&accepted, self.now).expect("the proxy takes a client"));
        self.settle();
    }

    /// Ends the client's connection.
    ///
    /// # Panics
    /// If there is no client, or the proxy does not close the connection.
    pub fn disconnect(&mut self) {
        let client = self.client.expect("a client");
        self.now = self.now + STEP;
        self.proxy.handle_recv_end(client, self.now);
        self.settle();
        assert!(self.client.is_none(), "an idle connection ends with its client");
    }

    /// Sends `request` from the client and `response` from the backend. Returns the bytes that the backend
    /// and the client received.
    ///
    /// # Panics
    /// If there is no client, or the proxy does not read.
    pub fn exchange(&mut self, request: &[u8], response: &[u8]) -> (u64, u64) {
        let before = self.sent;
        self.receive(self.client.expect("a client"), request);
        self.receive(self.backend.expect("a connection to the backend"), response);
        (self.sent.0 - before.0, self.sent.1 - before.1)
    }

    /// What the proxy tells of itself.
    pub fn observer(&mut self) -> &mut O {
        self.proxy.observer_mut()
    }

    /// Lets the proxy read `bytes` from a connection.
    fn receive(&mut self, to: ConnId, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.proxy.recv_buf(to);
            let n = room.len().min(bytes.len());
            assert!(n > 0, "the proxy does not read although every write completes at once");
            room[..n].copy_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            self.now = self.now + STEP;
            self.proxy.handle_recv(to, n, self.now);
            self.settle();
        }
    }

    /// Handles the proxy's outputs until there are no more.
    fn settle(&mut self) {
        loop {
            let listed = self.proxy.poll_conn();
            if let Some(listed) = listed
                && listed.send
            {
                self.send(listed.conn);
            }
            match self.proxy.poll_effect() {
                Some(Effect::Connect { conn, .. }) => {
                    self.backend = Some(conn);
                    self.proxy.handle_connected(conn, self.now);
                }
                Some(Effect::Close(conn) | Effect::Reset(conn)) => {
                    for place in [&mut self.client, &mut self.backend] {
                        place.take_if(|c| *c == conn);
                    }
                }
                Some(_) => {}
                None if listed.is_none() => break,
                None => {}
            }
        }
        if self.proxy.poll_timeout().is_some_and(|(at, _)| at <= self.now) {
            self.proxy.handle_timeout(self.now);
            self.settle();
        }
    }

    /// Counts and drops everything that a connection has to send.
    fn send(&mut self, from: ConnId) {
        loop {
            let n = self.proxy.with_transmit(from, |slices| {
                slices.iter().map(|s| std::hint::black_box(&**s).len()).sum::<usize>()
            });
            if n == 0 {
                return;
            }
            *if Some(from) == self.client { &mut self.sent.1 } else { &mut self.sent.0 } += n as u64;
            self.proxy.handle_sent(from, n, self.now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exchanges_are_complete() {
        let table = [
            ("small", messages::SMALL_REQUEST.to_vec(), messages::small_response()),
            ("browser", messages::BROWSER_REQUEST.to_vec(), messages::browser_response()),
            ("large response", messages::SMALL_REQUEST.to_vec(), messages::response(1 << 20)),
            ("large request", messages::upload(1 << 20), messages::small_response()),
            ("chunked response", messages::SMALL_REQUEST.to_vec(), messages::chunked_response(1 << 18, 4096)),
        ];
        for (name, request, response) in table {
            let mut harness = Harness::new("");
            for _ in 0..3 {
                harness.connect();
                for _ in 0..3 {
                    let (to_backend, to_client) = harness.exchange(&request, &response);
                    // The proxy removes nothing from these heads. It adds `X-Forwarded-For` and others to a
                    // request, and `Date` to a response without it.
                    assert!(to_backend > request.len() as u64, "{name}: {to_backend} bytes to the backend");
                    let least = if name == "chunked response" { 1 << 18 } else { response.len() as u64 };
                    assert!(to_client >= least, "{name}: {to_client} bytes to the client");
                }
                harness.disconnect();
            }
            assert_eq!((harness.counts().succeeded, harness.counts().failed), (9, 0), "{name}");
        }
    }
}
