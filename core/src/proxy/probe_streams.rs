//! Health checks over HTTP/2, of backends that speak nothing else: one stream of a connection of its own.

use super::Proxy;
use crate::cause::Cause;
use crate::conn::Role;
use crate::h1::HeadLimits;
use crate::health::ProbeOutcome;
use crate::health::check::Found;
use crate::http::Violation;
use crate::id::ConnId;
use crate::observe::Observer;
use crate::time::Instant;
use crate::wire::{self, StreamEvent, Streams, Wire};

/// What a check of HTTP/2 sends: `request` is what one of HTTP/1.1 would be.
pub(super) fn request_on_stream(limits: &HeadLimits, request: &[u8], secure: bool, now: Instant) -> Wire {
    Wire::Multiplexed(Streams::new(wire::http2_check(limits, request, secure, now)))
}

impl<O: Observer> Proxy<O> {
    /// Reads what has come, until it is decided.
    pub(super) fn read_probe_stream(&mut self, c: ConnId, now: Instant) -> Option<ProbeOutcome> {
        loop {
            let conn = self.tables.conns.get_mut(c)?;
            let (Role::Probe(probe), Wire::Multiplexed(streams)) = (&mut conn.role, &mut conn.wire) else {
                return None;
            };
            let expected = &self.pools.get(probe.pool).expected;
            let received = &mut self.scratch.received;
            let failed = |why| Some(ProbeOutcome::Failed { why });
            let good = |status| Some(ProbeOutcome::Good { status, after: now.since(probe.started) });
            match streams.protocol.poll_event(received, now)? {
                StreamEvent::Response { .. } if received.response.is_interim() => {}
                StreamEvent::Response { ended, .. } => {
                    let status = received.response.status().as_u16();
                    if !expected.has_status(status) {
                        return Some(ProbeOutcome::UnexpectedStatus { status });
                    }
                    if !expected.wants_content() {
                        return good(status);
                    }
                    if ended {
                        return Some(ProbeOutcome::TextMissing { status });
                    }
                    probe.status = status;
                }
                StreamEvent::Data { stream } => {
                    let data = streams.protocol.data();
                    let (found, len) = (expected.search(&mut probe.search, data), data.len());
                    streams.protocol.release(stream, len);
                    match found {
                        Found::Yes => return good(probe.status),
                        Found::No => return Some(ProbeOutcome::TextMissing { status: probe.status }),
                        Found::NotYet => {}
                    }
                }
                StreamEvent::End { .. } => return Some(ProbeOutcome::TextMissing { status: probe.status }),
                StreamEvent::Rejected { violation, .. } => return failed(Cause::BadResponse(violation)),
                StreamEvent::Reset { .. } if probe.status == 0 => return failed(Cause::BackendReset),
                StreamEvent::Reset { .. } => return failed(Cause::ResponseTruncated),
                StreamEvent::Broken(_) if streams.protocol.is_foreign() => {
                    return failed(Cause::BadResponse(Violation::NotHttp2));
                }
                StreamEvent::Broken(_) => return failed(Cause::BadResponse(Violation::Http2Connection)),
                StreamEvent::Request { .. } | StreamEvent::Writable { .. } | StreamEvent::GoingAway => {}
            }
        }
    }

    /// A backend has chosen what is spoken. False if the check is over by that.
    pub(super) fn probe_chose(&mut self, c: ConnId, http2: bool, now: Instant) -> bool {
        let wanted = self.tables.conns.get(c).is_some_and(|conn| conn.wire.streams().is_some());
        if wanted != http2 {
            self.probe_failed(c, Cause::BadResponse(Violation::NotHttp2), now);
        }
        wanted == http2
    }
}
