//! Limits of heads: whoever is above one is told so, and nobody else is.

use crate::exchanges::ExchangeEntry;
use crate::http2::HTTP_2;
use crate::scenario::Scenario;

/// The causes of these limits.
const CAUSES: [&str; 3] = ["head_too_large", "too_many_fields", "target_too_long"];

/// The limits by default (README).
const DEFAULT_HEAD_BYTES: u64 = 16_384;
const DEFAULT_FIELDS: u64 = 100;

/// What may end a request before its head is there.
const BEFORE: [&str; 4] = ["head_timeout", "no_pages", "drained", "client_stalled"];

impl Scenario {
    /// The limits that the head of a request is above, by the causes that tell of them.
    pub(crate) fn above_limits(&self, entry: &ExchangeEntry) -> Vec<&'static str> {
        let limits = &self.limits;
        if entry.version == HTTP_2 {
            return self.above_section_limits(entry);
        }
        let is = [
            (limits.head_bytes, entry.head_len),
            (limits.fields, entry.head_fields),
            (limits.target_bytes, entry.target.len() as u64),
        ];
        let above = |((limit, is), _): &((u64, u64), &str)| *limit > 0 && is > limit;
        is.into_iter().zip(CAUSES).filter(above).map(|(_, cause)| cause).collect()
    }

    /// The same over HTTP/2, where a field counts 32 bytes more than its name and value.
    fn above_section_limits(&self, entry: &ExchangeEntry) -> Vec<&'static str> {
        let or = |limit: u64, default: u64| if limit > 0 { limit } else { default };
        let fields = or(self.limits.fields, DEFAULT_FIELDS);
        let section = or(self.limits.head_bytes, DEFAULT_HEAD_BYTES) + 32 * fields;
        let target = self.limits.target_bytes;
        let is = [
            (entry.section > section.min(65_535) || entry.head_fields > fields, "head_too_large"),
            (target > 0 && entry.target.len() as u64 > target, "target_too_long"),
        ];
        is.into_iter().filter(|(above, _)| *above).map(|(_, cause)| cause).collect()
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
