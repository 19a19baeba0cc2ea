//! Where a run is: traffic with faults, then all heals, everybody is answered, health is known again, a drain
//! empties the proxies.

use super::Sim;
use crate::client::Client;
use crate::coverage::Mark;
use crate::draw::{MS, SEC};
use crate::net::Event;

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Traffic,
    Healed,
    Recovering,
    Last,
    Draining,
    Over,
}

impl Sim {
    pub(super) fn settled(&mut self) -> bool {
        match self.phase {
            Phase::Traffic | Phase::Over => false,
            Phase::Healed | Phase::Last => self.clients_done(),
            Phase::Recovering => self.net.now >= self.recover_from && self.recovered(),
            Phase::Draining => self.net.drained.iter().all(|d| *d),
        }
    }

    /// Asked at every event: those found done before, who stay so, are not looked at again.
    pub(super) fn clients_done(&mut self) -> bool {
        let more = self.clients[self.clients_seen_done..].iter().take_while(|c| c.done);
        self.clients_seen_done += more.count();
        self.clients_seen_done == self.clients.len()
    }

    /// Every backend of the configuration is known to be well.
    pub(super) fn recovered(&self) -> bool {
        if self.net.draw.check_every_ms == 0 || self.net.unhealthy.is_empty() {
            return self.net.unhealthy.is_empty();
        }
        let pools = self.net.versions.last().expect("one");
        let bad = |name: &str, label: String| self.net.unhealthy.contains_key(&(name.to_owned(), label));
        !pools.iter().any(|p| p.backends.iter().any(|b| bad(p.name, b.label())))
    }

    pub(super) fn next_phase(&mut self) {
        match self.phase {
            Phase::Healed => {
                self.phase = Phase::Recovering;
                self.phase_until = self.net.now + 120 * SEC;
                // Probes that were under way may still speak against a backend; a lost lookup is asked again
                // after 20 s.
                let named =
                    self.net.versions.last().expect("one").iter().any(|p| p.backends.iter().any(|b| b.named));
                let w = &self.net.draw.world;
                let lost = named && w.slow_lookup + w.lost_lookup + w.failed_lookup > 0;
                self.recover_from = self.net.now + if lost { 50 * SEC } else { 5 * SEC };
            }
            Phase::Recovering => self.last_clients(),
            Phase::Last => {
                self.judge_last();
                self.drain();
            }
            Phase::Draining => {
                self.judge_empty();
                self.phase = Phase::Over;
            }
            Phase::Traffic | Phase::Over => {}
        }
    }

    /// A phase has lasted as long as it may.
    pub(super) fn deadline(&mut self) {
        match self.phase {
            Phase::Traffic => self.heal(),
            Phase::Recovering if self.net.draw.check_every_ms == 0 || self.recovered() => self.last_clients(),
            Phase::Recovering => {
                let left = format!("{:?}", self.net.unhealthy);
                self.net.ledger.fail("healthy-again", left);
            }
            Phase::Healed | Phase::Last => {
                let left: Vec<String> = self.clients.iter().filter(|c| !c.done).map(Client::state).collect();
                let counts: Vec<_> = self.shards.iter().map(|s| s.pump.machine().counts()).collect();
                self.net.ledger.fail("everybody-answered", format!("{left:?} {counts:?}"));
            }
            Phase::Draining => {
                let counts: Vec<_> = self.shards.iter().map(|s| s.pump.machine().counts()).collect();
                self.net.ledger.fail("drain-ends", format!("{counts:?}"));
            }
            Phase::Over => {}
        }
    }

    /// When all is well, whoever asks is answered.
    pub(super) fn last_clients(&mut self) {
        self.net.mark(Mark::HealedAll);
        self.phase = Phase::Last;
        self.phase_until = self.net.now + 120 * SEC;
        let mut at = self.net.now;
        for _ in 0..3 {
            let index = self.clients.len();
            let client = Client::new(index, &mut self.net, true, 2);
            self.clients.push(client);
            self.net.client_socks.push(usize::MAX);
            at += 100 * MS;
            self.net.at(at, Event::Client(index));
        }
    }
}
