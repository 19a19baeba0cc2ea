//! The observer of a run: keeps what the core records until the next check of the invariants.

use ruststrom_core::observe::{Head, HealthChange, HealthSource, Kept, Level, Record, Step, Timings};
use ruststrom_core::{Cause, ConnId, Instant, Observer, Wall};
use ruststrom_driver::observer::WorkerObserver;

use crate::choices::ChoiceStep;
use crate::coverage::cause_name;
use crate::exchanges::{ObservedRecord, ObservedTimes};
use crate::net::HealthEntry;
use crate::scenario::{client_at, known_label, known_pool};

/// What the core has recorded since the last check.
#[derive(Debug)]
pub(crate) struct RunObserver {
    shard: usize,
    pub(super) records: Vec<ExchangeRecord>,
    /// What changed; the time is for whoever takes it to fill in.
    pub(super) health: Vec<HealthEntry>,
    /// Choices of backends, and what changes them.
    pub(super) choices: Vec<ChoiceStep>,
}

impl RunObserver {
    /// The observer of this shard.
    pub(super) fn new(shard: usize) -> Self {
        Self { shard, records: Vec::new(), health: Vec::new(), choices: Vec::new() }
    }
}

/// The record of one exchange.
#[derive(Debug)]
pub(super) struct ExchangeRecord {
    pub(super) target: String,
    pub(super) record: ObservedRecord,
    /// It had to wait for a backend.
    pub(super) waited: bool,
}

impl Observer for RunObserver {
    fn head(&mut self, head: &Head<'_>, kept: &mut Kept) {
        kept.copy(head.target);
    }

    fn exchange(&mut self, r: &Record<'_>) {
        let record = ObservedRecord {
            status: r.status,
            cause: r.cause.map(Cause::name),
            cause_kind: r.cause.map(cause_name),
            bytes_in: r.bytes_in,
            bytes_out: r.bytes_out,
            attempts: r.attempts,
            reused: r.reused,
            shard: self.shard,
            client: client_at(r.client),
            failed: r
                .failed
                .iter()
                .map(|(label, cause)| (bare(label).to_owned(), cause_name(cause)))
                .collect(),
            pool: r.pool.to_owned(),
            backend: bare(r.backend).to_owned(),
            times: observed_times(r.timings),
        };
        let waited = r.timings.chosen != Instant::NEVER && r.timings.chosen > r.timings.head;
        let target = String::from_utf8_lossy(r.kept.bytes()).into_owned();
        self.records.push(ExchangeRecord { target, record, waited });
    }

    fn wants_steps(&self) -> bool {
        true
    }

    fn exchange_step(&mut self, conn: ConnId, stream: u32, step: &Step<'_>) {
        let conn = (conn, stream);
        self.choices.push(match *step {
            Step::Routed { target, .. } => {
                ChoiceStep::Routed { conn, target: String::from_utf8_lossy(target).into_owned() }
            }
            Step::Chosen { backend, .. } => match known_label(bare(backend)) {
                Some(label) => ChoiceStep::Chosen { conn, label },
                None => return,
            },
            Step::Full => ChoiceStep::Full { conn },
            Step::NoneLeft { .. } => ChoiceStep::NoneLeft { conn },
            Step::Reused { conn: to, .. } => ChoiceStep::Attached { conn, to, connects: false },
            Step::Connecting { conn: to, .. } | Step::Joined { conn: to, .. } => {
                ChoiceStep::Attached { conn, to, connects: true }
            }
            Step::AttemptFailed { .. } => ChoiceStep::AttemptFailed { conn },
            Step::Ended { cause, .. } => ChoiceStep::Ended { conn, failed: cause.is_some() },
            _ => return,
        });
    }

    fn health(&mut self, c: &HealthChange<'_>) {
        if let (Some(pool), Some(label)) = (known_pool(c.pool), known_label(bare(c.backend))) {
            let by_check = c.source == HealthSource::Check;
            self.choices.push(ChoiceStep::Health { pool, label, to: c.to, by_check });
        }
        self.health.push(HealthEntry {
            at: 0,
            pool: c.pool.to_owned(),
            label: bare(c.backend).to_owned(),
            from: c.from,
            to: c.to,
            by_check: c.source == HealthSource::Check,
            seen: c.seen.to_owned(),
        });
    }

    fn note(&mut self, _: Level, _: &str) {}
}

/// A backend's label without its scheme: which backends speak TLS is judged where they are connected to.
fn bare(label: &str) -> &str {
    label.strip_prefix("https://").unwrap_or(label)
}

fn observed_times(t: &Timings) -> ObservedTimes {
    let at = |phase: Instant| (phase != Instant::NEVER).then(|| phase.as_nanos());
    ObservedTimes {
        started: t.started.as_nanos(),
        head: at(t.head),
        chosen: at(t.chosen),
        connected: at(t.connected),
        sent: at(t.sent),
        responded: at(t.responded),
        ended: t.ended.as_nanos(),
    }
}

impl WorkerObserver for RunObserver {
    fn turn(&mut self, _: Instant) {}

    fn wall(&mut self, _: Wall, _: Instant) {}

    fn turn_ended(&mut self) -> bool {
        false
    }
}
