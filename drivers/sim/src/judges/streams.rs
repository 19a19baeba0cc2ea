//! Requests over HTTP/2: what was said not to be processed was not, and what was cut has a cause.

use crate::exchanges::ExchangeEntry;
use crate::net::Net;

impl Net {
    /// The run is over.
    pub(crate) fn judge_streams(&mut self) {
        let judge = |entry: &ExchangeEntry| {
            let why = self.judge_stream(entry).err()?;
            Some((why, format!("request {}: {:?}, {:?}", entry.id, entry.attempts, entry.record)))
        };
        if let Some((invariant, details)) = self.ledger.entries.iter().find_map(judge) {
            self.ledger.fail(invariant, details);
        }
    }

    fn judge_stream(&self, entry: &ExchangeEntry) -> Result<(), &'static str> {
        if entry.refused && (!entry.attempts.is_empty() || entry.record.is_some()) {
            return Err("refused-is-unprocessed");
        }
        // What is above the limits is recorded as it came, if at all: without its id.
        let unknown = entry.record.is_none() && !self.scenario.above_limits(entry).is_empty();
        let cause = entry.record.as_ref().is_some_and(|record| record.cause.is_some());
        if entry.cut && !entry.refused && !cause && !unknown {
            return Err("cut-has-cause");
        }
        Ok(())
    }
}
