//! Health checks over HTTP/2, of backends that speak nothing else: one stream of a connection of its own.

use std::time::Duration;

use super::Proxy;
use crate::cause::Cause;
use crate::conn::Role;
use crate::grpc::STATUS_FIELD;
use crate::h1::HeadLimits;
use crate::h2::keepalive::Patience;
use crate::health::ProbeOutcome;
use crate::health::check::Found;
use crate::health::grpc::{Answer, Verdict};
use crate::http::Violation;
use crate::id::ConnId;
use crate::observe::Observer;
use crate::time::Instant;
use crate::wire::{self, StreamEvent, Streams, Wire};

/// What a check of HTTP/2 sends: `request` is what one of HTTP/1.1 would be.
pub(super) fn request_on_stream(limits: &HeadLimits, request: &[u8], secure: bool, now: Instant) -> Wire {
    // A check has a timeout of its own.
    Wire::Multiplexed(Streams::new(wire::http2_check(limits, request, secure, now), Patience::ENDLESS, now))
}

/// What the answer of a server of gRPC says of it.
fn called(verdict: Verdict, http_status: u16, after: Duration) -> ProbeOutcome {
    match verdict {
        Verdict::Serving => ProbeOutcome::Good { status: http_status, after },
        Verdict::NotServing => ProbeOutcome::NotServing,
        Verdict::Failed(status) => ProbeOutcome::CallFailed { status: Some(status) },
        Verdict::Malformed if http_status != 200 => ProbeOutcome::UnexpectedStatus { status: http_status },
        Verdict::Malformed => ProbeOutcome::CallFailed { status: None },
    }
}

/// The value of `grpc-status` in trailers, which are lines.
fn status_line(trailers: &[u8]) -> Option<&[u8]> {
    let mut lines = trailers.split(|b| *b == b'\n').filter_map(|line| {
        let (name, value) = line.split_at_checked(STATUS_FIELD.len())?;
        name.eq_ignore_ascii_case(STATUS_FIELD).then_some(value)?.strip_prefix(b":")
    });
    lines.next().map(<[u8]>::trim_ascii)
}

impl<O: Observer> Proxy<O> {
    /// Reads what has come, until it is decided.
    pub(super) fn read_probe_stream(&mut self, c: ConnId, now: Instant) -> Option<ProbeOutcome> {
        loop {
            let conn = self.tables.conns.get_mut(c)?;
            let (Role::Probe(probe), Wire::Multiplexed(streams)) = (&mut conn.role, &mut conn.wire) else {
                return None;
            };
            let pool = self.pools.get(probe.pool);
            let (expected, is_call) = (&pool.expected, pool.pool().health.grpc.is_some());
            let answers = &mut self.probe_rounds.answers;
            let received = &mut self.scratch.received;
            let failed = |why| Some(ProbeOutcome::Failed { why });
            let good = |status| Some(ProbeOutcome::Good { status, after: now.since(probe.started) });
            match streams.protocol.poll_event(received, now)? {
                StreamEvent::Response { .. } if received.response.is_interim() => {}
                StreamEvent::Response { ended, .. } => {
                    let status = received.response.status().as_u16();
                    if is_call {
                        probe.status = status;
                        if !ended {
                            continue;
                        }
                        // Without content the head is all there is.
                        let fields = received.response.fields();
                        let field = fields.iter().find(|f| f.name.eq_ignore_ascii_case(STATUS_FIELD));
                        let verdict = Answer::default().verdict(status, field.map(|f| f.value));
                        return Some(called(verdict, status, now.since(probe.started)));
                    }
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
                    if is_call {
                        answers.entry(c).or_default().put(data);
                        let len = data.len();
                        streams.protocol.release(stream, len);
                        continue;
                    }
                    let (found, len) = (expected.search(&mut probe.search, data), data.len());
                    streams.protocol.release(stream, len);
                    match found {
                        Found::Yes => return good(probe.status),
                        Found::No => return Some(ProbeOutcome::TextMissing { status: probe.status }),
                        Found::NotYet => {}
                    }
                }
                StreamEvent::End { .. } if is_call => {
                    let answer = answers.remove(&c).unwrap_or_default();
                    let verdict = answer.verdict(probe.status, status_line(&received.trailers));
                    return Some(called(verdict, probe.status, now.since(probe.started)));
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
