//! The stage without one: the simulator's sockets, and time that only jumps.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ruststrom_core::config;
use ruststrom_sim::scripted::{self, BackendListener, PeerHandle, Scripted};

use crate::script::{Came, Listens, Script, Stage, backend_of};
use crate::stand::{Recorder, Told};

pub(crate) struct Simulated {
    world: Scripted<Recorder>,
    backends: Vec<String>,
    ends: BTreeMap<String, PeerHandle>,
    told: Arc<Mutex<Vec<Told>>>,
}

impl Simulated {
    pub(crate) fn start(seed: u64, script: &Script) -> Self {
        let addresses: Vec<String> =
            (0..script.backends.len()).map(|nth| scripted::backend_address(nth).to_string()).collect();
        let text = script.config(&addresses);
        let parsed = config::parse(&text);
        let config = parsed.config.unwrap_or_else(|| panic!("{text}\n{:?}", parsed.diagnostics));
        let doors = script.backends.iter().map(|(_, listens)| match listens {
            Listens::Yes => BackendListener::Accepting,
            Listens::No => BackendListener::Refusing,
            Listens::Silently => BackendListener::Unresponsive,
        });
        let told = Arc::<Mutex<Vec<Told>>>::default();
        let world =
            Scripted::new(Arc::new(config), "test", seed, Recorder(told.clone()), &doors.collect::<Vec<_>>());
        let backends = script.backends.iter().map(|(name, _)| name.clone()).collect();
        Self { world, backends, ends: BTreeMap::new(), told }
    }

    /// The connection of that name: `A2` is the second that the proxy made to A, and is waited for.
    fn end_of(&mut self, who: &str) -> PeerHandle {
        if let Some(end) = self.ends.get(who) {
            return *end;
        }
        let end = match self.backends.iter().position(|b| b == backend_of(who)) {
            Some(backend) => {
                self.world.accept(backend).unwrap_or_else(|| panic!("{who} is never connected to"))
            }
            None => self.world.connect().unwrap_or_else(|| panic!("{who} is refused")),
        };
        self.ends.insert(who.to_owned(), end);
        end
    }
}

impl Stage for Simulated {
    fn connect(&mut self, client: &str) -> bool {
        let end = self.world.connect();
        self.ends.extend(end.map(|end| (client.to_owned(), end)));
        end.is_some()
    }

    fn send(&mut self, who: &str, bytes: &[u8]) -> bool {
        let end = self.end_of(who);
        self.world.write(end, bytes)
    }

    fn receive(&mut self, who: &str) -> Came {
        let end = self.end_of(who);
        match self.world.read(end).unwrap_or_else(|| panic!("{who} waits in vain")) {
            scripted::Received::Bytes(bytes) => Came::Bytes(bytes),
            scripted::Received::End => Came::End,
            scripted::Received::Reset => Came::Reset,
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
        let told = self.told.lock().expect("no panic");
        std::iter::once(format!("{outcome:?}")).chain(told.iter().map(ToString::to_string)).collect()
    }

    fn names(&self) -> Vec<(String, String)> {
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
