//! The ledger of a run: every request that a client sends, what is expected of it, and what has become of it.
//! Most invariant checks compare something with an entry of it.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::{self, Display};

use ruststrom_core::ConnId;

use crate::http1::BodyFraming;
use crate::http2::HTTP_2;
use crate::identities::Authentication;

/// What a client has received for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientResult {
    /// Nothing whole yet, and the connection is still there.
    Pending,
    /// The backend's complete response, with this status.
    Response(u16),
    /// A complete local reply of the proxy that tells of a cause, with this status.
    LocalReply(u16),
    /// The complete response of a middleware, with this status.
    MiddlewareReply(u16),
    /// The connection ended before a complete response.
    Incomplete,
}

/// What a rate limit has decided about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limited {
    Admitted,
    /// It may come again after so many seconds.
    Refused(u64),
}

/// A request that has reached a backend.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) socket: usize,
    /// 0: its connection carries one request at a time.
    pub(crate) stream: u32,
    /// When the proxy wrote its first byte.
    pub(crate) sent_at: u64,
    /// How many bytes the backend had written on the connection before the response to it; on a stream, up to
    /// the end of the first head there.
    pub(crate) response_offset: u64,
    /// What the backend sends back, once that is known, if it is well-formed at its beginning.
    pub(crate) response: Option<ResponsePlan>,
    /// Bytes of content, or of the tunnel, that the backend has read.
    pub(crate) up: u64,
}

/// Where a response lies in the bytes of the connection that it is sent on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResponsePlan {
    /// The end of the head of the final response.
    pub(crate) head_end: u64,
    /// The end of the response.
    pub(crate) end: u64,
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
    pub(crate) host: &'static str,
    /// The certificate of its connection is not for that host.
    pub(crate) misdirected: bool,
    /// 10, 11 or [`HTTP_2`](crate::http2::HTTP_2).
    pub(crate) version: u8,
    pub(crate) framing: BodyFraming,
    /// Bytes of content.
    pub(crate) len: u64,
    /// Bytes of a header field that only makes the head long; 0: none.
    pub(crate) padding: u64,
    /// Header fields that only make them many.
    pub(crate) fill: u64,
    /// How many there are in all.
    pub(crate) head_fields: u64,
    /// Over HTTP/2: what its field section counts.
    pub(crate) section: u64,
    /// The client sends `Expect: 100-continue`.
    pub(crate) expect: bool,
    /// It asks for an upgrade, or for what that is over HTTP/2.
    pub(crate) upgrade: bool,
    /// It is for a WebSocket.
    pub(crate) websocket: bool,
    pub(crate) close: bool,
    pub(crate) trailer: bool,
    pub(crate) authentication: Authentication,
    /// Which of the chains of its pool it went into, as far as is known.
    pub(crate) chain: usize,
    /// It went into it.
    pub(crate) entered: bool,
    /// Middlewares may change the content of its response.
    pub(crate) content_changes: bool,
    /// It has a sticky cookie, or what stands for one.
    pub(crate) sends_cookie: bool,

    /// Of the response, as the next two.
    pub(crate) status: u16,
    pub(crate) response_len: u64,
    pub(crate) response_framing: BodyFraming,
    /// Bytes that client and backend send through a tunnel, if the upgrade succeeds.
    pub(crate) tunnel: (u64, u64),

    /// How many of the client's it sends without waiting for the 101.
    pub(crate) early: u64,

    /// Bytes of the client's connection up to the end of this head.
    pub(crate) head_end: u64,
    /// Bytes of this head.
    pub(crate) head_len: u64,
    pub(crate) attempts: Vec<Attempt>,
    /// The same as the proxy's end saw it: numbers in `Net::sendings`.
    pub(crate) sendings: Vec<usize>,
    /// The connections to backends that were to carry it, as the core told, and whether each of them was
    /// there.
    pub(crate) connections: Vec<ConnId>,
    pub(crate) reused: Vec<bool>,
    /// The connection and stream on which its backend has accepted the upgrade.
    pub(crate) tunnelled: Option<(usize, u32)>,
    /// Bytes of the client's connection up to the end of this request.
    pub(crate) request_end: u64,
    /// The value of the sticky cookie that was sent.
    pub(crate) cookie: Option<String>,
    /// Label of the backend that was chosen last.
    pub(crate) chosen: Option<&'static str>,
    /// How many others may have waited for a backend when it had to wait.
    pub(crate) waited_behind: Option<u64>,
    /// The cause that a local reply named.
    pub(crate) reply_cause: Option<String>,
    /// Bytes of content in the whole response, as they came.
    pub(crate) reply_len: u64,
    /// What each rate limit of its pool has decided, by its place among those.
    pub(crate) limited: Vec<(usize, Limited)>,
    /// The number of the backend whose response the client has got.
    pub(crate) answered_by: Option<u64>,
    /// Over HTTP/2.
    pub(crate) answered_on_stream: bool,
    /// Bytes of content of the response, or of the tunnel, that the client has read.
    pub(crate) down: u64,
    /// What the core's observer was given at the end of the exchange.
    pub(crate) record: Option<ObservedRecord>,
    /// When the record came.
    pub(crate) recorded_at: u64,
    pub(crate) result: ClientResult,
    /// The client ended its half of the tunnel cleanly after all its bytes.
    pub(crate) tunnel_half_closed: bool,
    /// The client has received the 101, or over HTTP/2 the 200.
    pub(crate) switched: bool,
    /// Over HTTP/2: the client has reset its stream.
    pub(crate) given_up: bool,
    /// The proxy has, before the response was complete.
    pub(crate) cut: bool,
    /// The proxy has said that it was not processed.
    pub(crate) refused: bool,
}

impl ExchangeEntry {
    /// The attempt on this connection and stream.
    pub(crate) fn attempt_at(&mut self, place: (usize, u32)) -> Option<&mut Attempt> {
        self.attempts.iter_mut().find(|a| (a.socket, a.stream) == place)
    }

    /// Whether the proxy may send it to a second backend.
    pub(crate) fn is_idempotent(&self) -> bool {
        matches!(self.method, "GET" | "HEAD" | "PUT" | "DELETE")
    }
}

/// What a check needs of the core's record of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ObservedRecord {
    pub(crate) shard: usize,
    /// The number of the client; `None`: a trusted proxy has named another one.
    pub(crate) client: Option<usize>,
    /// Label of the backend, and kind of cause, of each attempt that failed.
    pub(crate) failed: Vec<(String, &'static str)>,
    pub(crate) pool: String,
    pub(crate) backend: String,
    pub(crate) status: u16,
    /// The name of its cause.
    pub(crate) cause: Option<&'static str>,
    /// The same, but one name for all violations of HTTP by clients, and one for those by backends.
    pub(crate) cause_kind: Option<&'static str>,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) attempts: u8,
    pub(crate) reused: bool,
    pub(crate) times: ObservedTimes,
}

impl ObservedRecord {
    /// Whether it is of a tunnel.
    pub(crate) fn is_of_tunnel(&self, entry: &ExchangeEntry) -> bool {
        let by_stream = entry.version == HTTP_2 && entry.websocket && self.status == 200 && self.attempts > 0;
        self.status == 101 || by_stream
    }

    /// Whether a middleware has responded.
    pub(crate) fn is_by_middleware(&self) -> bool {
        self.cause.is_none() && self.attempts == 0
    }
}

/// When each phase of an exchange was reached; `None`: it was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ObservedTimes {
    pub(crate) started: u64,
    pub(crate) head: Option<u64>,
    pub(crate) chosen: Option<u64>,
    pub(crate) connected: Option<u64>,
    pub(crate) sent: Option<u64>,
    pub(crate) responded: Option<u64>,
    pub(crate) ended: u64,
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

    /// A backend has read so many bytes of content, or of the tunnel, on this connection and stream.
    pub(crate) fn received_up(&mut self, id: u64, place: (usize, u32), up: u64) {
        if let Some(attempt) = self.get_mut(id).attempt_at(place) {
            attempt.up = up;
        }
    }

    /// The exchange that a target belongs to. That of a request that could not be parsed is recorded as it
    /// came, and has no id.
    pub(crate) fn id_of(&self, target: &str) -> Option<u64> {
        let path = target.split('?').next()?;
        let id = path.strip_prefix('/')?.split_once("/r")?.1.parse().ok()?;
        self.find(id).map(|_| id)
    }

    /// The core has recorded the end of an exchange: it must do so once, with the numbers that the client and
    /// the backend know too.
    pub(crate) fn add_record(&mut self, id: u64, record: ObservedRecord, now: u64) {
        let entry = self.get(id);
        if let Some(before) = &entry.record {
            let details = format!("exchange {id}: {before:?}, then {record:?}");
            return self.fail("one-end-record", details);
        }
        let own = record.is_by_middleware() || entry.content_changes;
        if record.cause.is_none() && !entry.upgrade && record.status == entry.status && !own {
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
