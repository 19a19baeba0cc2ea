//! What stands in the chain of a pool in some runs: a middleware that looks something up before it lets a
//! request pass, and one that puts responses through a transform. All others are the built-in ones.

use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ruststrom_core::config;
use ruststrom_core::http::ResponseHead;
use ruststrom_core::local_reply::LocalReply;
use ruststrom_core::middleware::factory::{BuiltIn, MiddlewareFactory, Place};
use ruststrom_core::middleware::{Action, Ctx, Middleware, Transform, TransformProgress};
use ruststrom_core::{Cause, LookupResult, Query};

use crate::scenario::known_pool;

/// Stands in a configuration for [`LookupMiddleware`]: no scenario draws it.
pub(crate) const LOOKUP: config::Middleware = config::Middleware::MaxBodySize { limit: u64::MAX };
/// Stands in a configuration for [`CopyMiddleware`].
pub(crate) const COPY: config::Middleware = config::Middleware::MaxBodySize { limit: u64::MAX - 1 };

/// Stands in a configuration for [`Witness`] of this chain.
pub(crate) fn witness(chain: usize) -> config::Middleware {
    config::Middleware::MaxBodySize { limit: FIRST_WITNESS - chain as u64 }
}

const FIRST_WITNESS: u64 = u64::MAX - 2;
/// More chains than any pool has.
const MAX_CHAINS: u64 = 16;

/// What a rate limit has decided about a request.
#[derive(Clone, Debug)]
pub(crate) struct Decision {
    pub(crate) pool: &'static str,
    /// How many limits stand before it in the pool.
    pub(crate) nth: usize,
    pub(crate) limit: u64,
    /// In nanoseconds.
    pub(crate) window: u64,
    pub(crate) target: String,
    pub(crate) client: IpAddr,
    pub(crate) at: u64,
    /// What `Retry-After` says, if it was refused.
    pub(crate) refused: Option<u64>,
}

/// The decisions of all shards that nobody has judged yet.
pub(crate) type Decisions = Arc<Mutex<Vec<Decision>>>;

/// The targets of requests with the numbers of the chains that they went into, which nobody has judged yet.
pub(crate) type Entered = Arc<Mutex<Vec<(String, usize)>>>;

/// Makes the middlewares of this file, and those that are built in.
#[derive(Debug)]
pub(crate) struct SimFactory {
    pub(crate) decisions: Decisions,
    pub(crate) entered: Entered,
}

impl MiddlewareFactory for SimFactory {
    fn make(&self, configured: &config::Middleware, place: &Place<'_>) -> Option<Box<dyn Middleware>> {
        match *configured {
            LOOKUP => Some(Box::new(LookupMiddleware)),
            COPY => Some(Box::new(CopyMiddleware)),
            config::Middleware::MaxBodySize { limit } if FIRST_WITNESS.saturating_sub(limit) < MAX_CHAINS => {
                let chain = (FIRST_WITNESS - limit) as usize;
                Some(Box::new(Witness { chain, entered: self.entered.clone() }))
            }
            config::Middleware::RateLimiter { limit, window } => Some(Box::new(Watched {
                limiter: BuiltIn.make(configured, place)?,
                pool: known_pool(place.pool)?,
                nth: place.nth,
                limit: u64::from(limit),
                window: window.as_nanos() as u64,
                decisions: self.decisions.clone(),
            })),
            _ => BuiltIn.make(configured, place),
        }
    }
}

/// Stands first in a chain, and tells who goes into it.
#[derive(Debug)]
struct Witness {
    chain: usize,
    entered: Entered,
}

impl Middleware for Witness {
    fn on_request(&self, ctx: &mut Ctx<'_>) -> Action {
        let target = String::from_utf8_lossy(ctx.request.sent_target()).into_owned();
        self.entered.lock().unwrap_or_else(PoisonError::into_inner).push((target, self.chain));
        Action::Continue
    }
}

/// A rate limit whose decisions are kept.
#[derive(Debug)]
struct Watched {
    limiter: Box<dyn Middleware>,
    pool: &'static str,
    nth: usize,
    limit: u64,
    window: u64,
    decisions: Decisions,
}

impl Middleware for Watched {
    fn on_request(&self, ctx: &mut Ctx<'_>) -> Action {
        let target = String::from_utf8_lossy(ctx.request.sent_target()).into_owned();
        let (client, at) = (ctx.client, ctx.now.as_nanos());
        let action = self.limiter.on_request(ctx);
        let refused = match &action {
            Action::Respond(reply) => {
                let retry_after = reply.fields.iter().find(|(name, _)| &**name == "Retry-After");
                Some(retry_after.and_then(|(_, secs)| secs.parse().ok()).unwrap_or(0))
            }
            _ => None,
        };
        let Self { pool, nth, limit, window, .. } = *self;
        let decision = Decision { pool, nth, limit, window, target, client, at, refused };
        self.decisions.lock().unwrap_or_else(PoisonError::into_inner).push(decision);
        action
    }

    fn on_response(&self, ctx: &mut Ctx<'_>, head: &mut ResponseHead) {
        self.limiter.on_response(ctx, head);
    }
}

/// Lets nobody pass before a lookup says so.
#[derive(Debug)]
struct LookupMiddleware;

impl Middleware for LookupMiddleware {
    fn on_request(&self, _: &mut Ctx<'_>) -> Action {
        Action::look_up(Query::Resolve { host: "stage.test".into(), port: 1 })
    }

    fn on_lookup(&self, _: &mut Ctx<'_>, result: &LookupResult) -> Action {
        match result {
            LookupResult::Addresses(_) => Action::Continue,
            _ => Action::reply(LocalReply::error(Cause::LookupFailed)),
        }
    }
}

/// Changes nothing, in steps of its own.
#[derive(Debug)]
struct CopyMiddleware;

impl Middleware for CopyMiddleware {
    fn on_response(&self, ctx: &mut Ctx<'_>, _: &mut ResponseHead) {
        ctx.transform(Box::new(CopyTransform { held: Vec::new() }));
    }
}

/// Holds up to a few bytes back, as a compressor would.
#[derive(Debug)]
struct CopyTransform {
    held: Vec<u8>,
}

impl Transform for CopyTransform {
    fn run(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        ended: bool,
    ) -> Result<TransformProgress, Box<LocalReply>> {
        let taken = input.len().min(777);
        self.held.extend_from_slice(&input[..taken]);
        let keep = if ended && taken == input.len() { 0 } else { 100 };
        let put = self.held.len().saturating_sub(keep).min(output.len());
        output[..put].copy_from_slice(&self.held[..put]);
        self.held.drain(..put);
        let done = ended && taken == input.len() && self.held.is_empty();
        Ok(TransformProgress { taken, put, done })
    }
}
