//! From what a configuration says to the chain of a pool. A chain is made whenever a shard adopts a
//! configuration, so that no reload can lose it; exchanges under way keep the chain that they began with.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use http::StatusCode;

use super::authentication::Authentication;
use super::compression::{Compression, Encoders};
use super::custom_error_pages::CustomErrorPages;
use super::headers::Headers;
use super::https_redirector::HttpsRedirector;
use super::ip_filter::IpFilter;
use super::max_body_size::MaxBodySize;
use super::path_rewriting::{AddPrefix, ReplacePath, ReplacePathRegex, StripPrefix};
use super::rate_limiter::RateLimiter;
use super::redirect::Redirect;
use super::request_windows::RequestWindows;
use super::respond::Respond;
use super::success_cache::SuccessCache;
use super::{Action, Chain, Ctx, Middleware};
use crate::config;
use crate::local_reply::LocalReply;
use crate::planted::planted;

/// Makes middlewares. Every shard makes its own chain of each pool; what the shards share of a middleware
/// lies in [`MiddlewareStates`].
pub trait MiddlewareFactory: Debug + Send + Sync {
    /// The middleware that a pool's configuration asks for; `None` if it cannot be made: then the pool
    /// answers every request that comes so far with 500.
    fn make(&self, configured: &config::Middleware, place: &Place<'_>) -> Option<Box<dyn Middleware>>;
}

/// Where a middleware stands.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Name of the pool.
    pub pool: &'a str,
    /// How many of the same kind stand before it in the pool's chain.
    pub nth: usize,
    /// The port of HTTPS: that of the first HTTPS listener whose requests the pool takes, or else of the
    /// first one of all. `None` if there is none, or if it takes any free port.
    pub https_port: Option<NonZeroU16>,
    /// Random, for hashes that strangers must not foresee. Each shard has other ones: what shards have to
    /// agree on is made of them in [`Place::shared`].
    pub seed: [u64; 2],
    states: &'a MiddlewareStates,
    kind: &'static str,
}

impl Place<'_> {
    /// What all shards share of this middleware, and what outlives reloads: it is kept by the pool's name,
    /// the kind of the middleware and its place among those. Made when it is asked for first.
    pub fn shared<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Arc<T> {
        self.states.get((Some(self.pool.into()), self.kind, self.nth), make)
    }

    /// What all middlewares of this kind share, in whatever pool. Made when it is asked for first.
    pub fn shared_by_kind<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Arc<T> {
        self.states.get((None, self.kind, 0), make)
    }
}

/// Pool (none: all of them), kind, and place among those of the kind.
type StateKey = (Option<Box<str>>, &'static str, usize);

/// What the shards share of middlewares, for as long as one of them has the middleware: a shard that adopts a
/// configuration still has the chains of the one before it.
#[derive(Debug, Default)]
pub struct MiddlewareStates(Mutex<BTreeMap<StateKey, Weak<dyn Any + Send + Sync>>>);

impl MiddlewareStates {
    fn get<T: Any + Send + Sync>(&self, key: StateKey, make: impl FnOnce() -> T) -> Arc<T> {
        let mut states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = states.get(&key).and_then(|state| state.upgrade()?.downcast().ok()) {
            return known;
        }
        states.retain(|_, state| state.strong_count() > 0);
        let made = Arc::new(make());
        let state: Arc<dyn Any + Send + Sync> = made.clone();
        states.insert(key, Arc::downgrade(&state));
        made
    }

    /// What the `nth` RateLimiter of a pool has counted; `None`: no shard has such a middleware.
    pub(crate) fn request_windows(&self, pool: &str, nth: usize) -> Option<Arc<RequestWindows>> {
        let states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        states.get(&(Some(pool.into()), config::Middleware::RATE_LIMITER, nth))?.upgrade()?.downcast().ok()
    }

    /// What the `nth` RateLimiter of a pool is to count with, for as long as somebody has it; `seed` is
    /// random.
    pub(crate) fn make_request_windows(&self, pool: &str, nth: usize, seed: [u64; 2]) -> Arc<RequestWindows> {
        self.get((Some(pool.into()), config::Middleware::RATE_LIMITER, nth), || RequestWindows::new(seed))
    }
}

/// The middlewares that are built in.
#[derive(Debug)]
pub struct BuiltIn;

impl MiddlewareFactory for BuiltIn {
    fn make(&self, configured: &config::Middleware, place: &Place<'_>) -> Option<Box<dyn Middleware>> {
        Some(match configured {
            config::Middleware::HttpsRedirector => Box::new(HttpsRedirector::new(place.https_port)),
            config::Middleware::MaxBodySize { limit } => Box::new(MaxBodySize::new(*limit)),
            config::Middleware::Authentication(settings) => {
                Box::new(Authentication::of_directory(settings, place.shared(SuccessCache::default)))
            }
            config::Middleware::BasicAuth { users, realm } => {
                Box::new(Authentication::of_users(users, realm, place.shared(SuccessCache::default))?)
            }
            config::Middleware::Headers(changes) => Box::new(Headers::new(changes)),
            config::Middleware::CustomErrorPages { pages } => Box::new(CustomErrorPages::new(pages)),
            config::Middleware::StripPrefix { prefixes } => Box::new(StripPrefix::new(prefixes)),
            config::Middleware::AddPrefix { prefix } => Box::new(AddPrefix { prefix: prefix.clone() }),
            config::Middleware::ReplacePath { path } => Box::new(ReplacePath { path: path.clone() }),
            config::Middleware::ReplacePathRegex(rule) => {
                Box::new(ReplacePathRegex { rule: (**rule).clone() })
            }
            config::Middleware::Redirect(moved) => Box::new(Redirect {
                rule: moved.rule.clone(),
                status: StatusCode::from_u16(moved.status).ok()?,
            }),
            config::Middleware::Respond(response) => Box::new(Respond::new(response)?),
            config::Middleware::IpAllow { ranges } => Box::new(IpFilter::allowing(ranges)),
            config::Middleware::IpDeny { ranges } => Box::new(IpFilter::denying(ranges)),
            config::Middleware::RateLimiter { limit, window } => {
                let new = || RequestWindows::new(place.seed);
                let windows = if planted!(144) { Arc::new(new()) } else { place.shared(new) };
                if planted!(145) {
                    windows.forget();
                }
                Box::new(RateLimiter::new(*limit, *window, windows, place.pool))
            }
            config::Middleware::Compression(settings) => {
                let encoders = place.shared_by_kind(Encoders::default);
                Box::new(Compression::new(settings, encoders))
            }
        })
    }
}

/// The chain of a pool, as its configuration says.
pub(crate) fn chain(
    config: &config::Config,
    pool: &config::Pool,
    factory: &dyn MiddlewareFactory,
    states: &MiddlewareStates,
    seed: [u64; 2],
) -> Chain {
    let https_port = https_port(config, pool);
    let places = pool.middlewares.iter().enumerate().map(|(at, configured)| {
        let kind = configured.name();
        let nth = pool.middlewares[..at].iter().filter(|before| before.name() == kind).count();
        let place = Place { pool: &pool.name, nth, https_port, seed, states, kind };
        factory.make(configured, &place).unwrap_or_else(|| Box::new(Unavailable))
    });
    places.collect()
}

fn https_port(config: &config::Config, pool: &config::Pool) -> Option<NonZeroU16> {
    let is_https = |listener: &config::Listener| listener.kind == config::ListenerKind::Https;
    let named = pool.listeners.iter().flatten().filter_map(|at| config.listeners.get(usize::from(*at)));
    let first = named.filter(|_| pool.https).find(|listener| is_https(listener));
    let first = first.or_else(|| config.listeners.iter().find(|listener| is_https(listener)))?;
    NonZeroU16::new(first.address.port())
}

/// Stands for a middleware that could not be made. What it was to keep out stays out.
#[derive(Debug)]
struct Unavailable;

impl Middleware for Unavailable {
    fn on_request(&self, _: &mut Ctx<'_>) -> Action {
        Action::reply(LocalReply::text(
            StatusCode::INTERNAL_SERVER_ERROR,
            b"a middleware of this pool is not available\n",
        ))
    }
}
