//! Plays scripts in the simulator: simulated sockets and simulated time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ruststrom_core::config;
use ruststrom_sim::scripted::{self, BackendListener, PeerHandle, Scripted};

use crate::harness::{ExchangeRecord, Recorder};
use crate::script::{Environment, ListenMode, Received, Script, backend_of};

/// The proxy, its clients and its backends in the simulator.
pub(crate) struct Simulated {
    world: Scripted<Recorder>,
    backends: Vec<String>,
    ends: BTreeMap<String, PeerHandle>,
    records: Arc<Mutex<Vec<ExchangeRecord>>>,
}

impl Simulated {
    pub(crate) fn start(seed: u64, script: &Script) -> Self {
        let addresses: Vec<String> =
            (0..script.backends.len()).map(|nth| scripted::backend_address(nth).to_string()).collect();
        let text = script.config(&addresses);
        let parsed = config::parse(&text);
        let config = parsed.config.unwrap_or_else(|| panic!("{text}\n{:?}", parsed.diagnostics));
        let doors = script.backends.iter().map(|(_, mode)| match mode {
            ListenMode::Accept => BackendListener::Accepting,
            ListenMode::Refuse => BackendListener::Refusing,
            ListenMode::Silent => BackendListener::Unresponsive,
        });
        let records = Arc::<Mutex<Vec<ExchangeRecord>>>::default();
        let world = Scripted::new(
            Arc::new(config),
            "test",
            seed,
            Recorder(records.clone()),
            &doors.collect::<Vec<_>>(),
        );
        let backends = script.backends.iter().map(|(name, _)| name.clone()).collect();
        Self { world, backends, ends: BTreeMap::new(), records }
    }

    /// The connection of that name. `A2` is the proxy's second connection to backend A: waits until it is
    /// made.
    fn end_of(&mut self, who: &str) -> PeerHandle {
        if let Some(end) = self.ends.get(who) {
            return *end;
        }
        let end = match self.backends.iter().position(|b| b == backend_of(who)) {
            Some(backend) => {
                self.world.accept(backend).unwrap_or_else(|| panic!("the proxy does not connect to {who}"))
            }
            None => self.world.connect().unwrap_or_else(|| panic!("{who} is refused")),
        };
        self.ends.insert(who.to_owned(), end);
        end
    }
}

impl Environment for Simulated {
    fn connect(&mut self, client: &str) -> bool {
        let end = self.world.connect();
        self.ends.extend(end.map(|end| (client.to_owned(), end)));
        end.is_some()
    }

    fn send(&mut self, who: &str, bytes: &[u8]) -> bool {
        let end = self.end_of(who);
        self.world.write(end, bytes)
    }

    fn receive(&mut self, who: &str) -> Received {
        let end = self.end_of(who);
        match self.world.read(end).unwrap_or_else(|| panic!("{who} receives nothing")) {
            scripted::Received::Bytes(bytes) => Received::Bytes(bytes),
            scripted::Received::End => Received::End,
            scripted::Received::Reset => Received::Reset,
        }
    }

    fn finish(&mut self, who: &str) {
        let end = self.end_of(who);
        self.world.finish(end);
    }

    fn close(&mut self, who: &str) {
        let end = self.end_of(who);
        self.ends.remove(who);
        self.world.close(end);
    }

    fn reset(&mut self, who: &str) {
        let end = self.end_of(who);
        self.ends.remove(who);
        self.world.reset(end);
    }

    fn wait(&mut self, time: Duration) {
        self.world.wait(time);
    }

    fn drain(&mut self) {
        self.world.drain();
    }

    fn end(&mut self) -> Vec<String> {
        for end in std::mem::take(&mut self.ends).into_values() {
            self.world.close(end);
        }
        let outcome = self.world.end().unwrap_or_else(|violation| panic!("{violation}"));
        let records = self.records.lock().expect("no panic");
        std::iter::once(format!("{outcome:?}")).chain(records.iter().map(ToString::to_string)).collect()
    }

    fn placeholders(&self) -> Vec<(String, String)> {
        let backends = self
            .backends
            .iter()
            .enumerate()
            .map(|(nth, name)| (scripted::backend_address(nth).to_string(), format!("{{{name}}}")));
        let proxy = [
            (scripted::proxy_address().to_string(), "{proxy}".into()),
            (scripted::proxy_address().port().to_string(), "{port}".into()),
        ];
        backends.chain(proxy).collect()
    }
}
