//! The ledger of a run: every request that a client sends, what is expected of it, and what has become of it.
//! Most invariant checks compare something with an entry of it.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::{self, Display};

use crate::http1::BodyFraming;

/// What a client has received for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientResult {
    /// Nothing whole yet, and the connection is still there.
    Pending,
    /// The backend's complete response, with this status.
    Response(u16),
    /// A complete local reply of the proxy, with this status.
    LocalReply(u16),
    /// The connection ended before a complete response.
    Incomplete,
}

/// A request that has reached a backend.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) socket: usize,
    /// When the proxy wrote its first byte.
    pub(crate) sent_at: u64,
    /// How many bytes the backend had written on the connection before the response to it.
    pub(crate) response_offset: u64,
}

/// A request, the response that its backend is to send, and what has happened so far.
#[derive(Clone, Debug)]
pub(crate) struct ExchangeEntry {
    /// From 1 on, in the order in which the requests were drawn.
    pub(crate) id: u64,
    pub(crate) client: usize,
    /// The name of the pool that has to take it; `None`: no pool does.
    pub(crate) pool: Option<&'static str>,
    pub(crate) method: &'static str,
    pub(crate) target: String,
    /// 10 or 11.
    pub(crate) version: u8,
    pub(crate) framing: BodyFraming,
    /// Bytes of content.
    pub(crate) len: u64,
    /// Bytes of a header field that only makes the head long; 0: none.
    pub(crate) padding: u64,
    /// The client sends `Expect: 100-continue`.
    pub(crate) expect: bool,
    pub(crate) upgrade: bool,
    pub(crate) close: bool,
    pub(crate) trailer: bool,

    /// Of the response, as the next two.
    pub(crate) status: u16,
    pub(crate) response_len: u64,
    pub(crate) response_framing: BodyFraming,
    /// Bytes that client and backend send through a tunnel, if the upgrade succeeds.
    pub(crate) tunnel: (u64, u64),

    /// Bytes of the client's connection up to the end of this head.
    pub(crate) head_end: u64,
    pub(crate) attempts: Vec<Attempt>,
    /// What the core's observer was given at the end of the exchange.
    pub(crate) record: Option<ObservedRecord>,
    /// When the record came.
    pub(crate) recorded_at: u64,
    pub(crate) result: ClientResult,
    /// The client ended its half of the tunnel cleanly after all its bytes.
    pub(crate) tunnel_half_closed: bool,
    /// The client has received the 101.
    pub(crate) switched: bool,
}

impl ExchangeEntry {
    /// Whether the proxy may send it to a second backend.
    pub(crate) fn is_idempotent(&self) -> bool {
        matches!(self.method, "GET" | "HEAD" | "PUT" | "DELETE")
    }
}

/// What a check needs of the core's record of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ObservedRecord {
    pub(crate) status: u16,
    pub(crate) cause: Option<&'static str>,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) attempts: u8,
}

/// Something that must hold in every run did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvariantViolation {
    /// The name of the invariant: short and stable.
    pub invariant: String,
    /// What was found instead.
    pub details: String,
}

impl Display for InvariantViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.details)
    }
}

impl Error for InvariantViolation {}

/// All exchanges of a run, and the first invariant that was violated.
#[derive(Debug, Default)]
pub(crate) struct ExchangeLedger {
    pub(crate) entries: Vec<ExchangeEntry>,
    pub(crate) violation: Option<InvariantViolation>,
    /// How many requests a backend has received whole, by pool and backend.
    pub(crate) executed: BTreeMap<(&'static str, usize), u64>,
}

impl ExchangeLedger {
    /// An invariant is violated. Only the first violation is kept: others often follow from it.
    pub(crate) fn fail(&mut self, invariant: &str, details: impl Into<String>) {
        if self.violation.is_none() {
            self.violation =
                Some(InvariantViolation { invariant: invariant.into(), details: details.into() });
        }
    }

    /// The entry of an id that came over the network: `None` if there is no such.
    pub(crate) fn find(&self, id: u64) -> Option<&ExchangeEntry> {
        self.entries.get(usize::try_from(id).ok()?.checked_sub(1)?)
    }

    /// The entry of a known id.
    pub(crate) fn get(&self, id: u64) -> &ExchangeEntry {
        &self.entries[id as usize - 1]
    }

    /// The entry of a known id, to be changed.
    pub(crate) fn get_mut(&mut self, id: u64) -> &mut ExchangeEntry {
        &mut self.entries[id as usize - 1]
    }

    /// The core has recorded the end of an exchange: it must do so once, with the numbers that the client and
    /// the backend know too. The target of the request tells which exchange it was.
    pub(crate) fn add_record(&mut self, target: &str, record: ObservedRecord, now: u64) {
        // The target of a request that could not be parsed is recorded as it came, and has no id.
        let Some(id) = target.strip_prefix('/').and_then(|t| t.split_once("/r")?.1.parse::<u64>().ok())
        else {
            return;
        };
        let Some(entry) = self.find(id) else { return };
        if let Some(before) = &entry.record {
            let details = format!("exchange {id}: {before:?}, then {record:?}");
            return self.fail("one-end-record", details);
        }
        if record.cause.is_none() && !entry.upgrade && record.status == entry.status {
            let wrong = (entry.method != "HEAD" && record.bytes_out != response_body_len(entry))
                || (record.bytes_in > entry.len);
            if wrong {
                let details = format!(
                    "exchange {id}: {record:?}, but the bodies have {} and {} bytes",
                    entry.len, entry.response_len
                );
                return self.fail("bytes-counted", details);
            }
        }
        let entry = self.get_mut(id);
        (entry.record, entry.recorded_at) = (Some(record), now);
    }
}

/// Bytes of content in the response to a request.
pub(crate) fn response_body_len(entry: &ExchangeEntry) -> u64 {
    if entry.method == "HEAD" || matches!(entry.status, 204 | 304) { 0 } else { entry.response_len }
}
