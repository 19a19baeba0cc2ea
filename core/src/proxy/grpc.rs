//! Calls of gRPC: errors of our own in its form, and deadlines.

use super::Proxy;
use super::exchange::Phase;
use super::pipe::MessagePipe;
use crate::cause::Cause;
use crate::grpc::{self, MEDIA_TYPE, MESSAGE_FIELD, STATUS_FIELD, Status};
use crate::http::{HeadFull, ResponseHead};
use crate::id::ExchangeId;
use crate::local_reply::Body;
use crate::observe::Observer;
use crate::time::Instant;

impl<O: Observer> Proxy<O> {
    /// The client of a call has said how long it waits.
    #[inline]
    pub(super) fn set_call_deadline(&mut self, x: ExchangeId, now: Instant) {
        let e = &mut self.tables.exchanges[x];
        if let Some(timeout) = grpc::timeout(&e.head) {
            e.call_due = now + timeout;
            self.file_exchange(x);
        }
    }

    /// Makes the error in `scratch.response` one of gRPC, if a call is answered by it over HTTP/2; whether it
    /// was one.
    #[cold]
    pub(super) fn answer_call(&mut self, x: ExchangeId) -> bool {
        let e = &self.tables.exchanges[x];
        let head = &mut self.scratch.response;
        let refused = !(head.status().is_success() || head.status().is_informational());
        // Over HTTP/1.1 there is no gRPC, whatever the request says.
        let streams = self.tables.conns[e.client.conn].wire.streams().is_some();
        // A head that is full has no room for it, and stays an error of HTTP.
        refused && streams && grpc::is_call(&e.head) && put_status(head, e.cause).is_ok()
    }

    /// The time that the client of a call has given it has passed.
    #[cold]
    pub(super) fn call_overdue(&mut self, x: ExchangeId, now: Instant) {
        let e = &self.tables.exchanges[x];
        match e.phase {
            Phase::LocalReply | Phase::Tunnel => {}
            Phase::Responding if self.tables.conns[e.client.conn].wire.streams().is_some() => {
                self.end_call(x, now);
            }
            _ => self.break_exchange(x, Cause::DeadlineExceeded, now),
        }
    }

    /// Ends a response that has begun: with a status, so that it doesn't look like a whole one.
    fn end_call(&mut self, x: ExchangeId, now: Instant) {
        self.detach_backend(x);
        self.release_slot(x);
        let e = &mut self.tables.exchanges[x];
        e.cause = Some(Cause::DeadlineExceeded);
        e.phase = Phase::LocalReply;
        e.request.drop_pages(&mut self.tables.pages);
        e.response.drop_pages(&mut self.tables.pages);
        e.response = MessagePipe::local(Body::Empty);
        let name = Cause::DeadlineExceeded.name().as_bytes();
        let status = Status::DeadlineExceeded.digits().as_bytes();
        let lines: &[&[u8]] =
            &[STATUS_FIELD, b": ", status, b"\r\n", MESSAGE_FIELD, b": ", name, b"\r\n\r\n"];
        e.response.trailers = lines.concat();
        self.mark_dirty(x);
        self.push_response(x, now);
    }
}

/// Makes an error of HTTP one of gRPC: a head that is all of the response.
fn put_status(head: &mut ResponseHead, cause: Option<Cause>) -> Result<(), HeadFull> {
    let http = head.status();
    let reason = crate::http::reason_phrase(http);
    let status = Status::of(http.as_u16(), cause);
    let text = match cause {
        Some(cause) => [http.as_str().as_bytes(), b" ", reason, b": ", cause.name().as_bytes()].concat(),
        None => [http.as_str().as_bytes(), b" ", reason].concat(),
    };
    head.set_field(STATUS_FIELD, status.digits().as_bytes())?;
    head.set_field(MESSAGE_FIELD, &grpc::message(&text))?;
    head.set_status(http::StatusCode::OK);
    head.replace_content(0, MEDIA_TYPE);
    // The head ends the stream: there is no content whose length could be said.
    head.content_length = None;
    Ok(())
}
