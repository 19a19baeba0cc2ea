//! The stage with a kernel: a driver in this process, clients and backends on the loopback.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use ruststrom_core::config::Driver;
use ruststrom_driver::lookup::Lookups;

use crate::address;
use crate::script::{Came, Listens, Script, Stage, backend_of};
use crate::stand::Stand;
use crate::talk::{WAIT, connect, reset};

/// A driver in this process, clients and backends on the loopback.
pub(crate) struct Loopback {
    stand: Option<Stand>,
    address: SocketAddr,
    listeners: BTreeMap<String, TcpListener>,
    names: Vec<(String, String)>,
    streams: BTreeMap<String, TcpStream>,
    /// Those who wait where nobody is let in.
    _queue: Vec<TcpStream>,
}

impl Loopback {
    pub(crate) fn start(driver: Driver, script: &Script) -> Self {
        let (mut listeners, mut names, mut addresses, mut queue) =
            (BTreeMap::new(), Vec::new(), Vec::new(), Vec::new());
        for (name, listens) in &script.backends {
            let listener =
                (*listens != Listens::No).then(|| TcpListener::bind("127.0.0.1:0").expect("a free port"));
            let address = listener.as_ref().map_or_else(address::lone, |l| l.local_addr().expect("bound"));
            names.push((address.to_string(), format!("{{{name}}}")));
            addresses.push(address.to_string());
            let Some(listener) = listener else { continue };
            listener.set_nonblocking(true).expect("a socket");
            if *listens == Listens::Silently {
                queue.extend(fill(&listener));
            }
            listeners.insert(name.clone(), listener);
        }
        // One worker and one seed: whatever is drawn is drawn alike.
        let stand = Stand::seeded(driver, &script.config(&addresses), 1, Lookups::default(), 1);
        let address = stand.address;
        names.push((address.to_string(), "{proxy}".into()));
        names.push((address.port().to_string(), "{port}".into()));
        Self { stand: Some(stand), address, listeners, names, streams: BTreeMap::new(), _queue: queue }
    }

    /// The connection of that name: `A2` is the second that the proxy made to A, and is waited for.
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

/// Connects until there is no room for another one in a listener's queue, which is made as short as it can
/// be.
fn fill(listener: &TcpListener) -> Vec<TcpStream> {
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
        assert!(begun.elapsed() < WAIT, "{who} is never connected to");
        std::thread::sleep(Duration::from_millis(1));
    };
    stream.set_nonblocking(false).expect("a socket");
    stream.set_read_timeout(Some(WAIT)).expect("a socket");
    stream.set_nodelay(true).expect("a socket");
    stream
}

impl Stage for Loopback {
    fn connect(&mut self, client: &str) -> bool {
        let Ok(stream) = TcpStream::connect(self.address) else { return false };
        stream.set_read_timeout(Some(WAIT)).expect("a socket");
        self.streams.insert(client.to_owned(), stream);
        true
    }

    fn send(&mut self, who: &str, bytes: &[u8]) -> bool {
        self.stream(who).write_all(bytes).is_ok()
    }

    fn receive(&mut self, who: &str) -> Came {
        let mut buf = [0; 4096];
        match self.stream(who).read(&mut buf) {
            Ok(0) => Came::End,
            Ok(n) => Came::Bytes(buf[..n].to_vec()),
            Err(e) if e.kind() == ErrorKind::ConnectionReset => Came::Reset,
            Err(e) => panic!("{who} waits in vain: {e}"),
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
        self.stand.as_ref().expect("it runs").drain();
    }

    fn end(&mut self) -> Vec<String> {
        self.streams.clear();
        let (outcome, told) = self.stand.take().expect("it runs").finish();
        std::iter::once(format!("{outcome:?}")).chain(told.iter().map(ToString::to_string)).collect()
    }

    fn names(&self) -> Vec<(String, String)> {
        self.names.clone()
    }
}
