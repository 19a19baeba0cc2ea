//! Middlewares made of closures, transforms for both directions, and a rig whose one pool has them in its
//! chain.

use std::fmt::{Debug, Formatter};
use std::sync::{Arc, Mutex};

use ruststrom_core::config::{self, Config};
use ruststrom_core::http::ResponseHead;
use ruststrom_core::local_reply::LocalReply;
use ruststrom_core::middleware::factory::{MiddlewareFactory, Place};
use ruststrom_core::middleware::{Action, Ctx, Middleware, Transform, TransformProgress};
use ruststrom_core::{LookupResult, Shared};

use crate::two_wires::{self, Rig, Speaks};

type OnRequest = dyn Fn(&mut Ctx<'_>) -> Action + Send + Sync;
type OnLookup = dyn Fn(&mut Ctx<'_>, &LookupResult) -> Action + Send + Sync;
type OnResponse = dyn Fn(&mut Ctx<'_>, &mut ResponseHead) + Send + Sync;

/// A middleware of three closures; each does nothing until it is set.
#[derive(Clone)]
pub(crate) struct Hooks {
    request: Arc<OnRequest>,
    lookup: Arc<OnLookup>,
    response: Arc<OnResponse>,
}

impl Hooks {
    pub(crate) fn new() -> Self {
        Self {
            request: Arc::new(|_| Action::Continue),
            lookup: Arc::new(|_, _| Action::Continue),
            response: Arc::new(|_, _| {}),
        }
    }

    pub(crate) fn request(mut self, f: impl Fn(&mut Ctx<'_>) -> Action + Send + Sync + 'static) -> Self {
        self.request = Arc::new(f);
        self
    }

    pub(crate) fn lookup(
        mut self,
        f: impl Fn(&mut Ctx<'_>, &LookupResult) -> Action + Send + Sync + 'static,
    ) -> Self {
        self.lookup = Arc::new(f);
        self
    }

    pub(crate) fn response(
        mut self,
        f: impl Fn(&mut Ctx<'_>, &mut ResponseHead) + Send + Sync + 'static,
    ) -> Self {
        self.response = Arc::new(f);
        self
    }
}

impl Debug for Hooks {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hooks")
    }
}

impl Middleware for Hooks {
    fn on_request(&self, ctx: &mut Ctx<'_>) -> Action {
        (self.request)(ctx)
    }
    fn on_lookup(&self, ctx: &mut Ctx<'_>, result: &LookupResult) -> Action {
        (self.lookup)(ctx, result)
    }
    fn on_response(&self, ctx: &mut Ctx<'_>, head: &mut ResponseHead) {
        (self.response)(ctx, head);
    }
}

/// Makes middlewares by a closure.
pub(crate) struct Factory<F>(pub(crate) F);

impl<F> Debug for Factory<F> {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("Factory")
    }
}

impl<F> MiddlewareFactory for Factory<F>
where
    F: Fn(&config::Middleware, &Place<'_>) -> Option<Hooks> + Send + Sync,
{
    fn make(&self, configured: &config::Middleware, place: &Place<'_>) -> Option<Box<dyn Middleware>> {
        Some(Box::new((self.0)(configured, place)?))
    }
}

/// What stands in a configuration for the `nth` test middleware.
pub(crate) fn stand_in(nth: usize) -> config::Middleware {
    config::Middleware::MaxBodySize { limit: nth as u64 }
}

/// What the shards of a process share whose factory makes these middlewares for their stand-ins.
pub(crate) fn shared(shards: u16, chain: Vec<Hooks>) -> Arc<Shared> {
    let factory = Factory(move |configured: &config::Middleware, _: &Place<'_>| match configured {
        config::Middleware::MaxBodySize { limit } => chain.get(*limit as usize).cloned(),
        _ => None,
    });
    Arc::new(Shared::with_middlewares("lb", shards, Arc::new(factory)))
}

/// A configuration whose one pool has so many test middlewares; `pool` and `top` are further lines.
pub(crate) fn config(top: &str, pool: &str, middlewares: usize) -> Config {
    let mut config = two_wires::config(top, pool);
    Arc::make_mut(&mut config.pools[0]).middlewares = (0..middlewares).map(stand_in).collect();
    config
}

/// A proxy whose one pool has these middlewares.
pub(crate) fn rig(pair: (Speaks, Speaks), chain: Vec<Hooks>) -> Rig {
    let config = config("", "retries = 0", chain.len());
    Rig::new(config, shared(1, chain), pair)
}

/// What test middlewares write down, in the order of its happening.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace(Arc<Mutex<Vec<String>>>);

impl Trace {
    pub(crate) fn add(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    /// What has been written down since the last call.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

/// Writes down each request and each response that passes.
pub(crate) fn tracing(name: &'static str, trace: &Trace) -> Hooks {
    let (way_in, way_out) = (trace.clone(), trace.clone());
    Hooks::new()
        .request(move |_| {
            way_in.add(format!("{name} in"));
            Action::Continue
        })
        .response(move |_, head| way_out.add(format!("{name} out {}", head.status().as_u16())))
}

/// Every letter twice, the second time as a capital, and a last word of its own as a compressor has: longer
/// than what came in, so that output must wait for room.
#[derive(Debug)]
pub(crate) struct Twice {
    tail: u8,
    ended: bool,
}

impl Twice {
    pub(crate) fn boxed(tail: u8) -> Box<dyn Transform> {
        Box::new(Self { tail, ended: false })
    }

    /// What becomes of a whole body.
    pub(crate) fn of(body: &[u8], tail: u8) -> Vec<u8> {
        body.iter().flat_map(|b| [*b, b.to_ascii_uppercase()]).chain([tail]).collect()
    }
}

impl Transform for Twice {
    fn run(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        ended: bool,
    ) -> Result<TransformProgress, Box<LocalReply>> {
        assert!(!self.ended, "it has said that it is done");
        let taken = input.len().min(output.len() / 2);
        for (i, b) in input[..taken].iter().enumerate() {
            (output[2 * i], output[2 * i + 1]) = (*b, b.to_ascii_uppercase());
        }
        if ended && taken == input.len() && output.len() > 2 * taken {
            output[2 * taken] = self.tail;
            self.ended = true;
            return Ok(TransformProgress { taken, put: 2 * taken + 1, done: true });
        }
        Ok(TransformProgress { taken, put: 2 * taken, done: false })
    }
}

/// Counts a body and refuses it once it is longer than it may be.
#[derive(Debug)]
pub(crate) struct Limit {
    pub(crate) left: usize,
    pub(crate) reply: LocalReply,
}

impl Transform for Limit {
    fn run(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        ended: bool,
    ) -> Result<TransformProgress, Box<LocalReply>> {
        let taken = input.len().min(output.len());
        self.left = self.left.checked_sub(taken).ok_or_else(|| Box::new(self.reply.clone()))?;
        output[..taken].copy_from_slice(&input[..taken]);
        Ok(TransformProgress { taken, put: taken, done: ended && taken == input.len() })
    }
}

/// Puts a page in the place of a body.
#[derive(Debug)]
pub(crate) struct Replace {
    page: Arc<[u8]>,
    sent: usize,
}

impl Replace {
    pub(crate) fn boxed(page: &Arc<[u8]>) -> Box<dyn Transform> {
        Box::new(Self { page: page.clone(), sent: 0 })
    }
}

impl Transform for Replace {
    fn run(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        ended: bool,
    ) -> Result<TransformProgress, Box<LocalReply>> {
        let rest = &self.page[self.sent..];
        let put = rest.len().min(output.len());
        output[..put].copy_from_slice(&rest[..put]);
        self.sent += put;
        let done = ended && self.sent == self.page.len();
        Ok(TransformProgress { taken: input.len(), put, done })
    }
}

/// A body in which every part is unlike its neighbours.
pub(crate) fn letters(len: usize) -> Vec<u8> {
    (0..len).map(|i| b'a' + (i * 7 % 251 % 26) as u8).collect()
}

pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n")
}

/// The head of a response whose content is so long.
pub(crate) fn ok(len: usize) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n")
}

/// Every exchange has ended and given back what it held.
pub(crate) fn nothing_left(rig: &mut Rig) {
    let counts = rig.proxy.counts();
    assert_eq!((counts.exchanges, counts.pages, counts.in_flight, counts.lookups), (0, 0, 0, 0));
}
