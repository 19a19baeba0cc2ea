//! `MaxBodySize`: refuses requests with more content than a pool takes.

use super::{Action, Ctx, Middleware};
use crate::cause::Cause;
use crate::http::{Framing, Violation};
use crate::local_reply::LocalReply;
use crate::planted::planted;

/// Limits the content of requests.
#[derive(Debug)]
pub(super) struct MaxBodySize {
    bytes: u64,
}

impl MaxBodySize {
    pub(super) fn new(bytes: u64) -> Self {
        Self { bytes }
    }
}

impl Middleware for MaxBodySize {
    fn on_request(&self, ctx: &mut Ctx<'_>) -> Action {
        match ctx.request.framing() {
            Framing::None => {}
            Framing::Length(length) if length > self.bytes => {
                let cause = Cause::BadRequest(Violation::ContentTooLarge);
                return Action::reply(LocalReply::error(cause));
            }
            // On a stream a length is but a statement: what comes is counted.
            Framing::Chunked if planted!(141) => {}
            Framing::Length(_) | Framing::Chunked | Framing::Close => ctx.limit_body(self.bytes),
        }
        Action::Continue
    }

    fn sees_responses(&self) -> bool {
        false
    }
}
