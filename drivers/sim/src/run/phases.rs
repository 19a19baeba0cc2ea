//! The phases of a run, and the liveness that each of them demands within its time: traffic with faults; all
//! requests get a response after the healing; all backends are known to be healthy; new clients get the
//! responses of backends; a drain leaves nothing behind.

use super::Simulation;
use crate::client::Client;
use crate::coverage::Mark;
use crate::net::{ClientExchanges, SimEvent};
use crate::scenario::{BackendSpec, MS, SEC};

/// How many clients come after the recovery.
pub(super) const FINAL_CLIENTS: usize = 3;

/// What a run is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunPhase {
    /// The end of the time for faults, or of all clients.
    Traffic,
    /// A response to every request.
    Healed,
    /// Health checks that find every backend healthy.
    Recovering,
    /// Responses to clients that came after all that.
    FinalClients,
    /// The end of the drain.
    Draining,
    Over,
}

impl Simulation {
    /// Whether the phase has what it is waiting for.
    pub(super) fn phase_complete(&mut self) -> bool {
        match self.phase {
            RunPhase::Traffic | RunPhase::Over => false,
            RunPhase::Healed | RunPhase::FinalClients => self.clients_done(),
            RunPhase::Recovering => self.net.now >= self.recover_from && self.recovered(),
            RunPhase::Draining => self.net.drained.iter().all(|d| *d),
        }
    }

    /// Whether all clients are done. Called at every event, so the first ones that are done are counted once.
    pub(super) fn clients_done(&mut self) -> bool {
        let more = self.clients[self.first_done..].iter().take_while(|c| c.done);
        self.first_done += more.count();
        self.first_done == self.clients.len()
    }

    /// Whether every backend of the configuration is known to be healthy.
    pub(super) fn recovered(&self) -> bool {
        if self.net.scenario.check_every_ms == 0 || self.net.unhealthy.is_empty() {
            return self.net.unhealthy.is_empty();
        }
        let pools = self.net.config_versions.last().expect("one");
        let unhealthy =
            |name: &str, label: &str| self.net.unhealthy.contains_key(&(name.to_owned(), label.to_owned()));
        !pools.iter().any(|p| p.backends.iter().any(|b| unhealthy(p.name, b.label())))
    }

    /// Goes on to the next phase.
    pub(super) fn next_phase(&mut self) {
        match self.phase {
            RunPhase::Healed => {
                self.phase = RunPhase::Recovering;
                self.phase_until = self.net.now + 120 * SEC;
                // Probes under way may still fail. A lookup that was lost is repeated after 20 s.
                let pools = self.net.config_versions.last().expect("one");
                let named = pools.iter().any(|p| p.backends.iter().any(BackendSpec::is_named));
                let faults = &self.net.scenario.system;
                let lost = named && faults.slow_lookup + faults.lost_lookup + faults.failed_lookup > 0;
                self.recover_from = self.net.now + if lost { 50 * SEC } else { 5 * SEC };
            }
            RunPhase::Recovering => self.start_final_clients(),
            RunPhase::FinalClients => {
                self.check_final_clients();
                self.drain();
            }
            RunPhase::Draining => {
                self.check_nothing_left();
                self.phase = RunPhase::Over;
            }
            RunPhase::Traffic | RunPhase::Over => {}
        }
    }

    /// A phase has taken as long as it may.
    pub(super) fn deadline(&mut self) {
        match self.phase {
            RunPhase::Traffic => self.heal(),
            RunPhase::Recovering if self.net.scenario.check_every_ms == 0 || self.recovered() => {
                self.start_final_clients();
            }
            RunPhase::Recovering => {
                let left = format!("{:?}", self.net.unhealthy);
                self.net.ledger.fail("healthy-again", left);
            }
            RunPhase::Healed | RunPhase::FinalClients => {
                let left: Vec<String> = self.clients.iter().filter(|c| !c.done).map(Client::state).collect();
                let counts: Vec<_> = self.shards.iter().map(|s| s.proxy().counts()).collect();
                self.net.ledger.fail("all-clients-served", format!("{left:?} {counts:?}"));
            }
            RunPhase::Draining => {
                let counts: Vec<_> = self.shards.iter().map(|s| s.proxy().counts()).collect();
                self.net.ledger.fail("drain-ends", format!("{counts:?}"));
            }
            RunPhase::Over => {}
        }
    }

    /// New clients without faults, which must be served.
    pub(super) fn start_final_clients(&mut self) {
        self.net.mark(Mark::Healed);
        self.phase = RunPhase::FinalClients;
        for conn in self.backend_conns.iter_mut().flatten() {
            conn.bury(&mut self.net);
        }
        self.phase_until = self.net.now + 120 * SEC;
        let mut at = self.net.now;
        for _ in 0..FINAL_CLIENTS {
            let index = self.clients.len();
            let client = Client::new(index, &mut self.net, true, 2);
            self.clients.push(client);
            self.net.client_sockets.push(usize::MAX);
            self.net.client_exchanges.push(ClientExchanges::default());
            at += 100 * MS;
            self.net.schedule(at, SimEvent::ClientConnects(index));
        }
    }
}
