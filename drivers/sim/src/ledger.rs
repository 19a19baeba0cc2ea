//! Every request of a run: what it is, what is expected of it, and what has become of it. Most judges look in
//! here.

use std::collections::BTreeMap;

use crate::wire::Frame;

/// What a client has seen of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Nothing,
    /// The backend's, whole, with this status.
    Responded(u16),
    /// The proxy's own, whole.
    Own(u16),
    /// Half of one, or none, and the connection's end.
    Cut,
}

/// A request that reached a backend.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) sock: usize,
    /// When its first byte was written.
    pub(crate) sent_at: u64,
    /// Bytes of the connection before its answer.
    pub(crate) response_at: u64,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) id: u64,
    pub(crate) client: usize,
    pub(crate) pool: Option<&'static str>,
    pub(crate) method: &'static str,
    pub(crate) target: String,
    pub(crate) version: u8,
    pub(crate) frame: Frame,
    pub(crate) len: u64,
    pub(crate) padding: u64,
    pub(crate) expect: bool,
    pub(crate) upgrade: bool,
    pub(crate) close: bool,
    pub(crate) trailer: bool,

    pub(crate) status: u16,
    pub(crate) response_len: u64,
    pub(crate) response_frame: Frame,
    /// Bytes up and down a tunnel, if it comes to one.
    pub(crate) tunnel: (u64, u64),

    /// Bytes of the client's connection up to the end of this head.
    pub(crate) head_end: u64,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) told: Option<Told>,
    /// When that was.
    pub(crate) told_at: u64,
    pub(crate) seen: Seen,
    /// The client ended its half of the tunnel cleanly after all its bytes.
    pub(crate) up_ended: bool,
    /// The client has seen the 101.
    pub(crate) switched: bool,
}

impl Request {
    pub(crate) fn idempotent(&self) -> bool {
        matches!(self.method, "GET" | "HEAD" | "PUT" | "DELETE")
    }
}

/// The observer's record of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) cause: Option<&'static str>,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) attempts: u8,
}

/// What must hold was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which judge says so.
    pub invariant: String,
    /// What it saw.
    pub text: String,
}

/// All requests, and the first thing that went wrong.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) requests: Vec<Request>,
    pub(crate) violation: Option<Violation>,
    /// Executed requests by pool and machine.
    pub(crate) executed: BTreeMap<(&'static str, usize), u64>,
}

impl Ledger {
    pub(crate) fn fail(&mut self, invariant: &str, text: impl Into<String>) {
        if self.violation.is_none() {
            self.violation = Some(Violation { invariant: invariant.into(), text: text.into() });
        }
    }

    /// Ids begin with 1.
    pub(crate) fn at(&mut self, id: u64) -> Option<&mut Request> {
        self.requests.get_mut(usize::try_from(id).ok()?.checked_sub(1)?)
    }

    pub(crate) fn get(&self, id: u64) -> &Request {
        &self.requests[id as usize - 1]
    }

    /// A record of the observer: one for each exchange, and it tells the truth.
    pub(crate) fn tell(&mut self, target: &str, told: Told, now: u64) {
        // What could not be read is told of as it came: that begins with the method.
        let Some(id) = target.strip_prefix('/').and_then(|t| t.split_once("/r")?.1.parse::<u64>().ok())
        else {
            return;
        };
        let Some(request) = self.at(id) else { return };
        if let Some(before) = &request.told {
            let text = format!("exchange {id}: {before:?}, then {told:?}");
            return self.fail("one-end-record", text);
        }
        if told.cause.is_none() && !request.upgrade && told.status == request.status {
            let wrong = (request.method != "HEAD" && told.bytes_out != body_of(request))
                || (told.bytes_in > request.len);
            if wrong {
                let text = format!(
                    "exchange {id}: {told:?}, but {} bytes up and {} down",
                    request.len, request.response_len
                );
                return self.fail("bytes-counted", text);
            }
        }
        let request = self.at(id).expect("found");
        (request.told, request.told_at) = (Some(told), now);
    }
}

/// Bytes of content that the answer to a request has.
pub(crate) fn body_of(r: &Request) -> u64 {
    if r.method == "HEAD" || matches!(r.status, 204 | 304) { 0 } else { r.response_len }
}
