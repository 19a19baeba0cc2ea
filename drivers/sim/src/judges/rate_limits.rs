//! Rate limits, held against a log of every request that they have admitted: in no window more than the
//! limit, over all shards and reloads; nobody is refused who is well below it; and whoever comes back when it
//! was told to is admitted.

use crate::chains::Chain;
use crate::coverage::Mark;
use crate::exchanges::Limited;
use crate::net::Net;
use crate::scenario::{MS, SEC};
use crate::stages::Decision;

impl Net {
    /// A rate limit has decided in this turn.
    pub(crate) fn judge_decision(&mut self, decision: &Decision) {
        let &Decision { pool, nth, limit, window, at, refused, .. } = decision;
        let told = decision.client.to_string();
        let id = self.ledger.id_of(&decision.target);
        let client = match id {
            Some(id) => Chain::of(&self.scenario, self.ledger.get(id)).client_ip(),
            None => told.clone(),
        };
        if client != told {
            return self.ledger.fail("rate-limited-client", format!("{client}: {decision:?}"));
        }
        if let Some(id) = id {
            let entry = self.ledger.get_mut(id);
            if entry.limited.iter().any(|(known, _)| *known == nth) {
                let details = format!("request {id} is decided on again: {decision:?}");
                return self.ledger.fail("decided-once", details);
            }
            entry.limited.push((nth, refused.map_or(Limited::Admitted, Limited::Refused)));
        }
        // A network of IPv6 is one client: those of a run all begin alike.
        let who = client.split("::").next().filter(|_| client.contains(':')).unwrap_or(&client).to_owned();
        let admitted = self.admissions.entry((pool, nth, who)).or_default();
        let later_than =
            |time: u64| admitted.iter().rev().take_while(|at| **at + window > time).count() as u64;
        let Some(retry_after) = refused else {
            let in_window = later_than(at);
            admitted.push(at);
            if in_window >= limit {
                let details = format!("{in_window} before it: {decision:?}");
                self.ledger.fail("rate-limit", details);
            }
            return;
        };
        // What counts is known to a millisecond, and what leaves the window leaves it by twelfths.
        let counted = later_than(at.saturating_sub(2 * MS));
        let left = later_than(at + retry_after * SEC);
        let details = format!("{counted} before it, {left} after its time: {decision:?}");
        // What was counted by another limit leaves the window in other pieces.
        if counted * 12 <= limit * 11 && !self.limits_changed {
            self.ledger.fail("below-rate-limit", details);
        } else if left >= limit || retry_after == 0 || (retry_after - 1) * SEC > window {
            self.ledger.fail("retry-after", details);
        }
        self.mark(Mark::RateLimited);
    }
}
