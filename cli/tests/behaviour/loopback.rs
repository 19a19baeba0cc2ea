//! Plays scripts with real sockets: a driver in this process, clients and backends on loopback.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use ruststrom_core::config::Driver;
use ruststrom_driver::lookup::Lookups;

use crate::address;
use crate::client::{WAIT, connect, reset};
use crate::harness::Harness;
use crate::script::{Environment, ListenMode, Received, Script, backend_of};

/// A driver in this process, clients and backends on loopback.
pub(crate) struct Loopback {
    harness: Option<Harness>,
    address: SocketAddr,
    listeners: BTreeMap<String, TcpListener>,
    placeholders: Vec<(String, String)>,
    streams: BTreeMap<String, TcpStream>,
    /// Connections that fill the queue of listeners in [`ListenMode::Silent`].
    _fillers: Vec<TcpStream>,
}

impl Loopback {
    pub(crate) fn start(driver: Driver, script: &Script) -> Self {
        let (mut listeners, mut placeholders, mut addresses, mut fillers) =
            (BTreeMap::new(), Vec::new(), Vec::new(), Vec::new());
        for (name, mode) in &script.backends {
            let listener =
                (*mode != ListenMode::Refuse).then(|| TcpListener::bind("127.0.0.1:0").expect("a free port"));
            let address = listener.as_ref().map_or_else(address::reserve, |l| l.local_addr().expect("bound"));
            placeholders.push((address.to_string(), format!("{{{name}}}")));
            addresses.push(address.to_string());
            let Some(listener) = listener else { continue };
            listener.set_nonblocking(true).expect("a socket");
            if *mode == ListenMode::Silent {
                fillers.extend(fill_queue(&listener));
            }
            listeners.insert(name.clone(), listener);
        }
        // One worker and a fixed seed, so that random choices are the same in every run.
        let harness = Harness::start_seeded(driver, &script.config(&addresses), 1, Lookups::default(), 1);
        let address = harness.address;
        placeholders.push((address.to_string(), "{proxy}".into()));
        placeholders.push((address.port().to_string(), "{port}".into()));
        Self {
            harness: Some(harness),
            address,
            listeners,
            placeholders,
            streams: BTreeMap::new(),
            _fillers: fillers,
        }
    }

    /// The connection of that name. `A2` is the proxy's second connection to backend A: waits until it is
    /// made.
    fn stream(&mut self, who: &str) -> &mut TcpStream {
        if !self.streams.contains_key(who) {
            let stream = match self.listeners.get(backend_of(who)) {
                Some(listener) => accept(listener, who),
                None => connect(self.address),
            };
            self.streams.insert(who.to_owned(), stream);
        }
        self.streams.get_mut(who).expect("it is there")
    }
}

/// Connects until a listener's queue, made as short as possible, takes no more connections.
fn fill_queue(listener: &TcpListener) -> Vec<TcpStream> {
    rustix::net::listen(listener, 0).expect("it listens already");
    let address = listener.local_addr().expect("bound");
    let streams: Vec<_> =
        std::iter::from_fn(|| TcpStream::connect_timeout(&address, Duration::from_millis(100)).ok())
            .take(10)
            .collect();
    assert!(streams.len() < 10, "the queue is never full");
    streams
}

fn accept(listener: &TcpListener, who: &str) -> TcpStream {
    let begun = Instant::now();
    let stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => panic!("{who}: {e}"),
        }
        assert!(begun.elapsed() < WAIT, "the proxy does not connect to {who}");
        std::thread::sleep(Duration::from_millis(1));
    };
    stream.set_nonblocking(false).expect("a socket");
    stream.set_read_timeout(Some(WAIT)).expect("a socket");
    stream.set_nodelay(true).expect("a socket");
    stream
}

impl Environment for Loopback {
    fn connect(&mut self, client: &str) -> bool {
        let Ok(stream) = TcpStream::connect(self.address) else { return false };
        stream.set_read_timeout(Some(WAIT)).expect("a socket");
        self.streams.insert(client.to_owned(), stream);
        true
    }

    fn send(&mut self, who: &str, bytes: &[u8]) -> bool {
        self.stream(who).write_all(bytes).is_ok()
    }

    fn receive(&mut self, who: &str) -> Received {
        let mut buf = [0; 4096];
        match self.stream(who).read(&mut buf) {
            Ok(0) => Received::End,
            Ok(n) => Received::Bytes(buf[..n].to_vec()),
            Err(e) if e.kind() == ErrorKind::ConnectionReset => Received::Reset,
            Err(e) => panic!("{who} receives nothing: {e}"),
        }
    }

    fn finish(&mut self, who: &str) {
        self.stream(who).shutdown(Shutdown::Write).expect("open");
    }

    fn close(&mut self, who: &str) {
        self.stream(who);
        self.streams.remove(who);
    }

    fn reset(&mut self, who: &str) {
        self.stream(who);
        reset(self.streams.remove(who).expect("it is there"));
    }

    fn wait(&mut self, time: Duration) {
        std::thread::sleep(time);
    }

    fn drain(&mut self) {
        self.harness.as_ref().expect("it runs").drain();
    }

    fn end(&mut self) -> Vec<String> {
        self.streams.clear();
        let (outcome, records) = self.harness.take().expect("it runs").finish();
        std::iter::once(format!("{outcome:?}")).chain(records.iter().map(ToString::to_string)).collect()
    }

    fn placeholders(&self) -> Vec<(String, String)> {
        self.placeholders.clone()
    }
}
