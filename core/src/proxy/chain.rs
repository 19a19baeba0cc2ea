//! The middlewares of a pool: a request passes them in file order, its response in reverse.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::Proxy;
use super::exchange::Phase;
use crate::cause::Cause;
use crate::config::{Config, ListenerKind};
use crate::conn::Client;
use crate::event::LookupResult;
use crate::http::{HeaderKind, RequestHead, ResponseHead, Violation};
use crate::id::ExchangeId;
use crate::local_reply::{Body, LocalReply};
use crate::middleware::{Action, Chain, Connection, Ctx, Put, Transform};
use crate::observe::{Level, Observer};
use crate::time::Instant;

impl<O: Observer> Proxy<O> {
    /// Lets the request pass the middlewares that it has not passed yet; `result` is for the one that asked.
    /// False: it waits for a lookup, or has its response.
    pub(super) fn pass_request(
        &mut self,
        x: ExchangeId,
        result: Option<&LookupResult>,
        now: Instant,
    ) -> bool {
        let mut result = result;
        loop {
            let (stopped, put) = self.call(x, false, now, |ctx, chain, received, _| {
                // Most have nothing to be done between one and the next.
                while let Some(middleware) = chain.get(ctx.stage) {
                    let action = match result.take() {
                        Some(result) => middleware.on_lookup(ctx, result),
                        None => middleware.on_request(ctx),
                    };
                    let changes = ctx.put.is_some() || received > *ctx.body_limit;
                    if changes || !matches!(action, Action::Continue) {
                        return Some((action, ctx.stage));
                    }
                    ctx.stage += 1;
                }
                None
            });
            let Some((action, stage)) = stopped else { return true };
            if !self.act_on(x, action, put, now) {
                return false;
            }
            self.tables.exchanges[x].stage = stage as u8 + 1;
        }
    }

    /// Does what a middleware asks for; whether the request passes on.
    #[cold]
    fn act_on(&mut self, x: ExchangeId, action: Action, put: Option<Box<Put>>, now: Instant) -> bool {
        let put = put.unwrap_or_default();
        self.warn(put.warning);
        if let Some(transform) = put.transform
            && !self.transform_request(x, transform)
        {
            self.fail_exchange(x, Cause::NoPages);
            return false;
        }
        match action {
            // Content may have come while another middleware waited.
            Action::Continue if self.tables.exchanges[x].body_too_large() => {
                self.break_exchange(x, Cause::BadRequest(Violation::ContentTooLarge), now);
                return false;
            }
            Action::Continue => return true,
            Action::Respond(reply) => self.respond_locally(x, *reply),
            Action::Lookup(query) => self.start_lookup(x, *query, now),
        }
        false
    }

    fn warn(&mut self, warning: Option<String>) {
        if let Some(text) = warning {
            self.observer.note(Level::Warning, &text);
        }
    }

    /// Lets middlewares of its pool's chain see an exchange: `f` gets it, the chain, how much of the
    /// request's content has come, and the response in `scratch.response`. How far it has passed the chain
    /// is what `f` leaves in [`Ctx::stage`]. `responded`: what passes is a response.
    #[inline(always)]
    fn call<R>(
        &mut self,
        x: ExchangeId,
        responded: bool,
        now: Instant,
        f: impl FnOnce(&mut Ctx<'_>, &Chain, u64, &mut ResponseHead) -> R,
    ) -> (R, Option<Box<Put>>) {
        let e = &mut self.tables.exchanges[x];
        let stage = usize::from(e.stage);
        let client = self.tables.conns[e.client.conn].client();
        let shard_pool = self.pools.get(e.pool.expect("routed"));
        let pool = shard_pool.pool();
        let identity = shard_pool.state.identity();
        let choice = e.choice.filter(|_| responded && e.backend.is_some());
        let mut put = None;
        let observer = &mut self.observer;
        let mut ctx = Ctx {
            now,
            client: e.client_ip,
            connection: Connection {
                secure: client.kind == ListenerKind::Https,
                port: self.identity.forwarded_headers[usize::from(client.forwarded_headers)].port(),
                trusted: client.trusted,
            },
            request: &mut e.head,
            backend: choice.map(|choice| &*pool.backends[usize::from(choice)].label),
            peer: (&client.ip, &client.peer_text),
            request_id: &e.request_id,
            states: &mut e.states,
            stage,
            body_limit: &mut e.body_limit,
            put: &mut put,
            counter: &mut |counter| observer.count(&pool.name, identity, counter),
            user: &mut e.user,
            rng: &mut self.identity.rng,
        };
        let result = f(&mut ctx, &shard_pool.chain, e.request.payload_bytes, &mut self.scratch.response);
        e.stage = ctx.stage as u8;
        (result, put)
    }

    /// Puts a transform into the request's way; false if there is no page for it.
    fn transform_request(&mut self, x: ExchangeId, transform: Box<dyn Transform>) -> bool {
        let e = &mut self.tables.exchanges[x];
        if e.request.ended {
            // Without content nothing is to be changed.
            return true;
        }
        // What has been changed cannot be changed again for another attempt.
        e.retained = false;
        e.request.add_transform(transform, &mut self.tables.pages).is_ok()
    }

    /// Lets the response in `scratch.response` pass, in reverse, the middlewares that the request has passed.
    pub(super) fn pass_response(&mut self, x: ExchangeId, now: Instant) -> PassedResponse {
        let e = &self.tables.exchanges[x];
        let passed = e.stage;
        if passed > 0 {
            let chain = &self.pools.get(e.pool.expect("routed")).chain;
            if chain.seeing_responses(passed).next().is_some() {
                return self.pass_response_chain(x, passed, now);
            }
        }
        PassedResponse::default()
    }

    #[inline(never)]
    fn pass_response_chain(&mut self, x: ExchangeId, passed: u8, now: Instant) -> PassedResponse {
        let mut response = PassedResponse::default();
        let mut left = passed;
        loop {
            let (stopped, put) = self.call(x, true, now, |ctx, chain, _, head| {
                for stage in chain.seeing_responses(left) {
                    ctx.stage = usize::from(stage);
                    chain[ctx.stage].on_response(ctx, head);
                    // Most leave nothing to be done before the next.
                    if ctx.put.is_some() {
                        return Some(stage);
                    }
                }
                None
            });
            let (Some(stage), Some(put)) = (stopped, put) else { break };
            left = stage;
            if put.content.is_some() {
                (response.content, response.transforms) = (put.content, Vec::new());
            }
            if let Some(transform) = put.transform {
                // Those that see it next must not take the length of what came for that of what goes.
                self.scratch.response.length_unknown();
                response.transforms.push(transform);
            }
            self.warn(put.warning);
        }
        // An error that comes later passes them again only if nothing of this one has been sent.
        self.tables.exchanges[x].stage = passed;
        response
    }

    /// Lets the transforms of the request's body work on what has come of it.
    #[cold]
    pub(super) fn transform_request_body(&mut self, x: ExchangeId) -> Result<(), Box<LocalReply>> {
        let e = &mut self.tables.exchanges[x];
        let source = Some(&self.tables.conns[e.client.conn].wire);
        e.request.run(source, &mut self.tables.pages)?;
        let pool = self.pools.get(e.pool.expect("routed"));
        let (name, identity) = (&*pool.pool().name, pool.state.identity());
        e.request.counters().for_each(|counter| self.observer.count(name, identity, counter));
        Ok(())
    }

    /// Lets the transforms of the response's body work on what has come of it.
    #[cold]
    pub(super) fn transform_response_body(&mut self, x: ExchangeId) -> Result<(), Box<LocalReply>> {
        let e = &mut self.tables.exchanges[x];
        let source = e.backend.and_then(|leg| self.tables.conns.get(leg.conn)).map(|conn| &conn.wire);
        e.response.run(source, &mut self.tables.pages)?;
        let pool = self.pools.get(e.pool.expect("routed"));
        let (name, identity) = (&*pool.pool().name, pool.state.identity());
        e.response.counters().for_each(|counter| self.observer.count(name, identity, counter));
        Ok(())
    }

    /// A transform said that a body must not pass. If nothing of a response has been sent its reply is sent,
    /// else the exchange is cut; so is a local reply whose own transform refuses it, or replies would follow
    /// replies.
    pub(super) fn refuse_body(&mut self, x: ExchangeId, reply: LocalReply, now: Instant) {
        let e = &self.tables.exchanges[x];
        if e.phase == Phase::LocalReply || e.response_begun || self.has_sent_head(x) {
            return self.abort(x, reply.cause.unwrap_or(Cause::ClientClosed), now);
        }
        self.drop_unsent_response(x);
        self.respond_locally(x, reply);
    }
}

/// What has become of a response on its way through the middlewares, beside its head.
#[derive(Default)]
pub(super) struct PassedResponse {
    /// In the order of the way.
    pub(super) transforms: Vec<Box<dyn Transform>>,
    /// What takes the place of its content, before those.
    pub(super) content: Option<Body>,
}

/// The client that a trusted peer speaks for: of the addresses in `X-Forwarded-For`, from the right, the
/// first that is no trusted proxy's. An element that is no address ends the list: what stands before it was
/// said by nobody who is trusted.
#[cold]
pub(super) fn client_address(config: &Config, client: &Client, head: &RequestHead) -> IpAddr {
    let mut found = client.ip;
    let fields = head.fields();
    let lists = fields.lines().iter().rev().filter(|line| line.kind == HeaderKind::XForwardedFor);
    for text in lists.flat_map(|line| line.value(fields.raw()).rsplit(|b| *b == b',')) {
        let Some(address) = std::str::from_utf8(text.trim_ascii()).ok().and_then(forwarded_address) else {
            return found;
        };
        found = address.to_canonical();
        if !config.trusted_proxies.iter().any(|net| net.contains(&found)) {
            return found;
        }
    }
    found
}

/// An address in `X-Forwarded-For`: some proxies write brackets around IPv6, or a port behind it.
fn forwarded_address(text: &str) -> Option<IpAddr> {
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    text.parse().ok().or_else(with_port).or_else(bracketed)
}
