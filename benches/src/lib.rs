//! The core between a client and a backend that are nothing but bytes in memory: what the benches drive, and
//! what the test here proves to be whole exchanges. What is measured lies in `core/`, what compares the whole
//! program with others in `compare/`.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use ruststrom_core::observe::{HealthChange, Level, Record};
use ruststrom_core::{Accepted, ConnId, Effect, Instant, ListenerId, Observer, Proxy, Shared, config};

pub mod messages;

/// One input after the other, so far apart.
const STEP: Duration = Duration::from_micros(5);

/// Counts the exchanges that ended well, and keeps no texts: as with the access log switched off.
#[derive(Debug, Default)]
pub struct Told {
    /// Exchanges with a status of a backend's and no cause of failure.
    pub good: u64,
    /// All others.
    pub bad: u64,
}

impl Observer for Told {
    fn exchange(&mut self, record: &Record<'_>) {
        match record.cause {
            None => self.good += 1,
            Some(_) => self.bad += 1,
        }
    }
    fn health(&mut self, _: &HealthChange<'_>) {}
    fn note(&mut self, _: Level, _: &str) {}
}

/// A proxy of one shard, a backend, and a client at a time. It does what a driver does after each input; what
/// a driver would write to a socket is counted, and taken at once.
pub struct Rig {
    proxy: Proxy<Told>,
    now: Instant,
    client: Option<ConnId>,
    backend: Option<ConnId>,
    /// Bytes that went to the backend, and to the client.
    sent: (u64, u64),
}

impl Rig {
    /// With one pool of one backend, without probes. `top` is put before the tables of its configuration.
    ///
    /// # Panics
    /// If the configuration is not good.
    #[must_use]
    pub fn new(top: &str) -> Self {
        let pool = "[health_interval]\ncheck_every = 0\n[[backend_pools]]\naddresses = [\"127.0.0.1:81\"]\n";
        let parsed = config::parse(&format!("http_address = \"127.0.0.1:80\"\n{top}\n{pool}"));
        let config = Arc::new(parsed.config.expect("a good configuration"));
        let now = Instant::from_millis(1_000);
        let proxy = Proxy::new(config, Arc::new(Shared::new("bench", 1)), 0, 1, Told::default(), now);
        let mut rig = Self { proxy, now, client: None, backend: None, sent: (0, 0) };
        rig.obey();
        rig
    }

    /// A client connects.
    ///
    /// # Panics
    /// If it is refused.
    pub fn connect(&mut self) {
        let (peer, local) = (([192, 0, 2, 7], 5000).into(), ([192, 0, 2, 1], 80).into());
        let accepted = Accepted { listener: ListenerId(0), peer, local };
        self.now = self.now + STEP;
        self.client = Some(self.proxy.handle_accept(&accepted, self.now).expect("the proxy takes a client"));
        self.obey();
    }

    /// The client ends its connection.
    ///
    /// # Panics
    /// If there is none, or the proxy keeps it.
    pub fn disconnect(&mut self) {
        let client = self.client.expect("a client");
        self.now = self.now + STEP;
        self.proxy.handle_recv_end(client, self.now);
        self.obey();
        assert!(self.client.is_none(), "an idle connection ends with its client");
    }

    /// The client sends `request`, and the backend answers it with `answer`. Bytes that the backend got, and
    /// the client.
    ///
    /// # Panics
    /// If there is no client, or the proxy does not read what it is given.
    pub fn exchange(&mut self, request: &[u8], response: &[u8]) -> (u64, u64) {
        let before = self.sent;
        self.give(self.client.expect("a client"), request);
        self.give(self.backend.expect("a connection to the backend"), response);
        (self.sent.0 - before.0, self.sent.1 - before.1)
    }

    /// What the observer was told.
    pub fn told(&mut self) -> &Told {
        self.proxy.observer_mut()
    }

    fn give(&mut self, to: ConnId, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.proxy.recv_buf(to);
            let n = room.len().min(bytes.len());
            assert!(n > 0, "no room, and nobody is slow");
            room[..n].copy_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            self.now = self.now + STEP;
            self.proxy.handle_recv(to, n, self.now);
            self.obey();
        }
    }

    /// Does what the proxy wants until it wants nothing more.
    fn obey(&mut self) {
        loop {
            let listed = self.proxy.poll_conn();
            if let Some(listed) = listed
                && listed.send
            {
                self.take(listed.conn);
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
        if self.proxy.poll_timeout().is_some_and(|at| at <= self.now) {
            self.proxy.handle_timeout(self.now);
            self.obey();
        }
    }

    fn take(&mut self, from: ConnId) {
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
    fn what_is_measured_are_whole_exchanges() {
        let table = [
            ("small", messages::SMALL_REQUEST.to_vec(), messages::small_response()),
            ("browser", messages::BROWSER_REQUEST.to_vec(), messages::browser_response()),
            ("large answer", messages::SMALL_REQUEST.to_vec(), messages::response(1 << 20)),
            ("large request", messages::upload(1 << 20), messages::small_response()),
            ("chunked answer", messages::SMALL_REQUEST.to_vec(), messages::chunked_response(1 << 18, 4096)),
        ];
        for (name, request, response) in table {
            let mut rig = Rig::new("");
            for _ in 0..3 {
                rig.connect();
                for _ in 0..3 {
                    let (to_backend, to_client) = rig.exchange(&request, &response);
                    // Nothing is taken out of these heads; a request gets its `X-Forwarded-For`, an answer a
                    // `Date` unless it has one.
                    assert!(to_backend > request.len() as u64, "{name}: {to_backend} bytes to the backend");
                    let least = if name == "chunked answer" { 1 << 18 } else { response.len() as u64 };
                    assert!(to_client >= least, "{name}: {to_client} bytes to the client");
                }
                rig.disconnect();
            }
            assert_eq!((rig.told().good, rig.told().bad), (9, 0), "{name}");
        }
    }
}
