//! What the core tells while it runs, kept until the judges look.

use ruststrom_core::observe::{Head, HealthChange, HealthState, Kept, Level, Record};
use ruststrom_core::{Cause, Instant, Observer};

use crate::ledger::Told;

/// What the core tells.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(super) records: Vec<(String, Told, bool)>,
    pub(super) health: Vec<(String, String, HealthState)>,
}

fn cause_name(cause: Cause) -> &'static str {
    match cause {
        Cause::BadRequest(_) => "bad_request",
        Cause::BadResponse(_) => "bad_answer",
        other => other.name(),
    }
}

impl Observer for Log {
    fn head(&mut self, head: &Head<'_>, kept: &mut Kept) {
        kept.copy(head.target);
    }
    fn exchange(&mut self, r: &Record<'_>) {
        let told = Told {
            status: r.status,
            cause: r.cause.map(cause_name),
            bytes_in: r.bytes_in,
            bytes_out: r.bytes_out,
            attempts: r.attempts,
        };
        let waited = r.timings.chosen != Instant::NEVER && r.timings.chosen > r.timings.head;
        self.records.push((String::from_utf8_lossy(r.kept.bytes()).into_owned(), told, waited));
    }
    fn health(&mut self, c: &HealthChange<'_>) {
        self.health.push((c.pool.to_owned(), c.backend.to_owned(), c.to));
    }
    fn note(&mut self, _: Level, _: &str) {}
}
