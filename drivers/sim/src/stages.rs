//! What stands in the chain of a pool in some runs: a middleware that looks something up before it lets a
//! request pass, and one that puts responses through a transform.

use std::fmt::Debug;

use ruststrom_core::config;
use ruststrom_core::http::ResponseHead;
use ruststrom_core::local_reply::LocalReply;
use ruststrom_core::middleware::factory::{MiddlewareFactory, Place};
use ruststrom_core::middleware::{Action, Ctx, Middleware, Transform, TransformProgress};
use ruststrom_core::{Cause, LookupResult, Query};

/// Stands in a configuration for [`LookupMiddleware`].
pub(crate) const LOOKUP: config::Middleware = config::Middleware::HttpsRedirector;
/// Stands in a configuration for [`CopyMiddleware`].
pub(crate) fn copy() -> config::Middleware {
    config::Middleware::Compression(config::Compression::default())
}

/// Makes the middlewares of this file.
#[derive(Debug)]
pub(crate) struct SimFactory;

impl MiddlewareFactory for SimFactory {
    fn make(&self, configured: &config::Middleware, _: &Place<'_>) -> Option<Box<dyn Middleware>> {
        match *configured {
            LOOKUP => Some(Box::new(LookupMiddleware)),
            config::Middleware::Compression(_) => Some(Box::new(CopyMiddleware)),
            _ => None,
        }
    }
}

/// Lets nobody pass before a lookup says so.
#[derive(Debug)]
struct LookupMiddleware;

impl Middleware for LookupMiddleware {
    fn on_request(&self, _: &mut Ctx<'_>) -> Action {
        Action::Lookup(Query::Resolve { host: "stage.test".into(), port: 1 })
    }

    fn on_lookup(&self, _: &mut Ctx<'_>, result: &LookupResult) -> Action {
        match result {
            LookupResult::Addresses(_) => Action::Continue,
            _ => Action::Respond(LocalReply::error(Cause::LookupFailed)),
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
