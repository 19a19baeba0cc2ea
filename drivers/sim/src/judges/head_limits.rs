//! Limits of heads: whoever is above one is told so, and nobody else is.

use crate::exchanges::ExchangeEntry;
use crate::scenario::Scenario;

/// The causes of these limits.
const CAUSES: [&str; 3] = ["head_too_large", "too_many_fields", "target_too_long"];

/// What may end a request before its head is there.
const BEFORE: [&str; 4] = ["head_timeout", "no_pages", "drained", "client_stalled"];

impl Scenario {
    /// The limits that the head of a request is above, by the causes that tell of them.
    pub(crate) fn above_limits(&self, entry: &ExchangeEntry) -> Vec<&'static str> {
        let limits = &self.limits;
        let is = [
            (limits.head_bytes, entry.head_len),
            (limits.fields, entry.head_fields),
            (limits.target_bytes, entry.target.len() as u64),
        ];
        let above = |((limit, is), _): &((u64, u64), &str)| *limit > 0 && is > limit;
        is.into_iter().zip(CAUSES).filter(above).map(|(_, cause)| cause).collect()
    }

    /// Whether a request may get this response: the proxy's own for a cause, or another.
    pub(crate) fn judge_head_limits(&self, entry: &ExchangeEntry, cause: Option<&str>) -> Result<(), String> {
        let above = self.above_limits(entry);
        let told = cause.is_some_and(|cause| above.contains(&cause));
        let before = cause.is_some_and(|cause| BEFORE.contains(&cause));
        let of_limit = cause.is_some_and(|cause| CAUSES.contains(&cause));
        if of_limit && !told || !above.is_empty() && !told && !before {
            let ExchangeEntry { head_len, head_fields, target, .. } = entry;
            let is = format!("{head_len} bytes, {head_fields} fields, a target of {}", target.len());
            return Err(format!("{is}: above the limits of {above:?}, told of {cause:?}"));
        }
        Ok(())
    }
}
