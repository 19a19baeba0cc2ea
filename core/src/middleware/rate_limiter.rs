//! `RateLimiter`: how many requests of a client in which time.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::request_windows::{Decision, RequestLimit, RequestWindows};
use super::{Action, Counter, Ctx, Middleware};
use crate::local_reply::LocalReply;
use crate::planted::planted;

/// Limits the requests of each client. The limit is this configuration's; what has been counted is shared by
/// all shards and outlives reloads.
#[derive(Debug)]
pub(super) struct RateLimiter {
    limit: RequestLimit,
    windows: Arc<RequestWindows>,
    pool: Box<str>,
}

impl RateLimiter {
    pub(super) fn new(requests: u32, window: Duration, windows: Arc<RequestWindows>, pool: &str) -> Self {
        Self { limit: RequestLimit::new(requests, window), windows, pool: pool.into() }
    }

    #[cold]
    fn refuse(&self, ctx: &mut Ctx<'_>, decision: Decision) -> Action {
        let retry_after = match decision {
            Decision::Admitted => return Action::Continue,
            Decision::Refused { retry_after } => retry_after,
            Decision::NoPlace { retry_after } => {
                if self.windows.warns(ctx.now) {
                    ctx.warn(format!(
                        "pool {}: RateLimiter counts so many clients that there is no place for more: those it does \
                         not know are refused",
                        self.pool
                    ));
                }
                retry_after
            }
        };
        ctx.count(Counter::RateLimitExceeded);
        // Whole seconds (RFC 9110 §10.2.3), none too early.
        let secs = retry_after.as_millis().div_ceil(1000).max(1);
        let secs = if planted!(147) { secs - 1 } else { secs };
        let reply = LocalReply::text(StatusCode::TOO_MANY_REQUESTS, b"429 Too Many Requests\n");
        Action::reply(reply.with_field("Retry-After", &secs.to_string()))
    }
}

impl Middleware for RateLimiter {
    fn on_request(&self, ctx: &mut Ctx<'_>) -> Action {
        match self.windows.admit(ctx.client, &self.limit, ctx.now) {
            Decision::Admitted => Action::Continue,
            decision => self.refuse(ctx, decision),
        }
    }

    fn sees_responses(&self) -> bool {
        false
    }
}
