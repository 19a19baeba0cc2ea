//! What a shard keeps for each pool and backend of a configuration, and how a new configuration takes the
//! place of an old one.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::balance::{BackendState, Balancer, PoolState};
use crate::config::{self, Config};
use crate::id::ExchangeId;
use crate::middleware::Stage;
use crate::observe::Observer;
use crate::pool::IdleList;
use crate::proxy::Proxy;
use crate::route::Router;
use crate::time::Instant;

/// Retries that may be saved up, in tenths. With the refill this allows one retry for five requests, and a
/// burst of a thousand when a backend dies under load.
const RETRY_BUDGET_TENTHS: u32 = 10_000;
const RETRY_REFILL_TENTHS: u32 = 2;

/// A pool as one shard runs it. It lives as long as an exchange uses it: a reload closes nothing.
pub(crate) struct ShardPool {
    pub(crate) config: Arc<Config>,
    /// Place in `config.pools`.
    pub(crate) index: u16,
    pub(crate) state: Arc<PoolState>,
    pub(crate) balancer: Balancer,
    /// Place in the shard's table, by place in the pool.
    pub(crate) locals: Box<[u32]>,
    /// Waiting for a backend below its `max_connections`, oldest first. Ids of exchanges that have ended are
    /// skipped.
    pub(crate) queue: VecDeque<ExchangeId>,
    /// How many of `queue` still wait.
    pub(crate) waiting: u32,
    pub(crate) exchanges: u32,
    pub(crate) retired: bool,
    retry_tenths: u32,
    pub(crate) chain: Arc<[Box<dyn Stage>]>,
    /// Nothing of its names and labels has to be escaped in a log: printable ASCII without `"` and `\`.
    pub(crate) plain_names: bool,
    /// The probe of each backend, as bytes.
    pub(crate) probes: Box<[Box<[u8]>]>,
}

impl ShardPool {
    pub(crate) fn pool(&self) -> &config::Pool {
        &self.config.pools[self.index as usize]
    }

    /// A request more: a fifth of a retry is saved up.
    pub(crate) fn count_request(&mut self) {
        self.retry_tenths = (self.retry_tenths + RETRY_REFILL_TENTHS).min(RETRY_BUDGET_TENTHS);
    }

    /// Spends one retry, if there is one: when everything fails, retries must not double the load.
    pub(crate) fn spend_retry(&mut self) -> bool {
        let enough = self.retry_tenths >= 10;
        if enough {
            self.retry_tenths -= 10;
        }
        enough
    }
}

/// A backend as one shard sees it, whichever configurations name it.
pub(crate) struct ShardBackend {
    pub(crate) state: Arc<BackendState>,
    pub(crate) idle: IdleList,
    /// Round robin over the addresses of a name.
    pub(crate) turn: u32,
    /// Not named by the newest configuration: its idle connections are closed.
    pub(crate) retired: bool,
}

/// The newest configuration, ready to route.
pub(crate) struct Routing {
    pub(crate) config: Arc<Config>,
    pub(crate) router: Router,
    /// Runtime by place in `config.pools`.
    pub(crate) runtimes: Box<[u32]>,
}

impl<O: Observer> Proxy<O> {
    /// Takes a configuration into use. Exchanges under way keep the one they began with.
    pub(crate) fn adopt(&mut self, config: Arc<Config>, now: Instant) {
        self.pages.set_cap(config.limits.buffer_bytes);
        // Ports of listeners that are gone need not pile up.
        self.forwarded_headers.clear();
        for old in self.routing.runtimes.clone() {
            self.runtimes[old as usize].as_mut().expect("a current runtime").retired = true;
        }
        for local in &mut self.locals {
            local.retired = true;
        }
        let states = self.shared.adopt(&config);
        let probes = self.shared.probes(&states, self.shard);
        self.schedule.adopt(&probes, now);
        self.tell_if_ready();
        let mut used = vec![false; self.locals.len()];
        for at in self.runtimes.iter().flatten().flat_map(|rt| rt.locals.iter()) {
            used[*at as usize] = true;
        }
        let mut runtimes = Vec::with_capacity(config.pools.len());
        for (i, (pool, state)) in config.pools.iter().zip(states).enumerate() {
            runtimes.push(self.runtime(&config, i, pool, state, &mut used));
        }
        let runtimes = runtimes.into_boxed_slice();
        let old = std::mem::replace(
            &mut self.routing,
            Routing { router: Router::new(&config.pools), config, runtimes },
        );
        for runtime in old.runtimes {
            self.retire(runtime);
        }
        for at in 0..self.locals.len() as u32 {
            while self.locals[at as usize].retired && !self.locals[at as usize].idle.is_empty() {
                self.close_oldest_idle(at);
            }
        }
        self.schedule_lookups(now);
    }

    fn runtime(
        &mut self,
        config: &Arc<Config>,
        index: usize,
        pool: &config::Pool,
        state: Arc<PoolState>,
        used: &mut Vec<bool>,
    ) -> u32 {
        let locals = state.backends().iter().map(|s| self.local(s, used)).collect();
        let probes = pool
            .backends
            .iter()
            .map(|b| {
                [
                    b"GET ",
                    pool.health.path.as_bytes(),
                    b" HTTP/1.1\r\nHost: ",
                    b.label.as_bytes(),
                    b"\r\nUser-Agent: rust-strom-health\r\nAccept: */*\r\nConnection: close\r\n\r\n",
                ]
                .concat()
                .into_boxed_slice()
            })
            .collect();
        let mut names = pool.backends.iter().map(|b| &*b.label).chain([&*pool.name]);
        let plain_names =
            names.all(|name| name.bytes().all(|b| matches!(b, 0x20..0x7f) && b != b'"' && b != b'\\'));
        let runtime = ShardPool {
            config: config.clone(),
            index: index as u16,
            balancer: Balancer::new(pool, state.clone(), self.rng.next_u64()),
            state,
            locals,
            queue: VecDeque::new(),
            waiting: 0,
            exchanges: 0,
            retired: false,
            retry_tenths: RETRY_BUDGET_TENTHS,
            chain: Arc::new([]),
            plain_names,
            probes,
        };
        match self.runtimes.iter().position(Option::is_none) {
            Some(free) => {
                self.runtimes[free] = Some(runtime);
                free as u32
            }
            None => {
                self.runtimes.push(Some(runtime));
                self.runtimes.len() as u32 - 1
            }
        }
    }

    /// The shard's own entry for a backend; the same one as long as the process knows the backend. Entries
    /// that are not `used` by any runtime are given to others.
    fn local(&mut self, state: &Arc<BackendState>, used: &mut Vec<bool>) -> u32 {
        let known = self.locals.iter().position(|l| Arc::ptr_eq(&l.state, state));
        let free =
            || self.locals.iter().zip(&*used).position(|(l, used)| !used && l.retired && l.idle.is_empty());
        let at = match known.or_else(free) {
            Some(at) => at,
            None => {
                self.locals.push(ShardBackend {
                    state: state.clone(),
                    idle: IdleList::default(),
                    turn: 0,
                    retired: false,
                });
                used.push(true);
                self.locals.len() - 1
            }
        };
        let local = &mut self.locals[at];
        if known.is_none() {
            (local.state, local.turn) = (state.clone(), 0);
        }
        (local.retired, used[at]) = (false, true);
        at as u32
    }

    /// Drops a runtime that nothing uses any more.
    pub(crate) fn retire(&mut self, runtime: u32) {
        if self.runtimes[runtime as usize].as_ref().is_some_and(|r| r.retired && r.exchanges == 0) {
            self.runtimes[runtime as usize] = None;
        }
    }

    /// The runtime of an exchange.
    pub(crate) fn rt(&self, runtime: u32) -> &ShardPool {
        self.runtimes[runtime as usize].as_ref().expect("a runtime in use")
    }

    /// The runtime of an exchange.
    pub(crate) fn rt_mut(&mut self, runtime: u32) -> &mut ShardPool {
        self.runtimes[runtime as usize].as_mut().expect("a runtime in use")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{HealthChange, Level, Record};
    use crate::shared::Shared;

    struct Silent;

    impl Observer for Silent {
        fn exchange(&mut self, _: &Record<'_>) {}
        fn health(&mut self, _: &HealthChange<'_>) {}
        fn note(&mut self, _: Level, _: &str) {}
    }

    #[test]
    fn reloads_pile_nothing_up() {
        let config = |n: usize| {
            let text = format!(
                "http_address = \"[::]:80\"\n[[backend_pools]]\naddresses = [\"10.0.0.{}:80\", \"10.0.1.{}:80\"]\n[[backend_pools]]\n\
                 addresses = [\"10.0.2.1:80\"]\n",
                n % 250,
                (n + 1) % 250
            );
            Arc::new(config::parse(&text).config.expect("a good configuration"))
        };
        let shared = Arc::new(Shared::new("host", 1));
        let mut proxy = Proxy::new(config(0), shared, 0, 1, Silent, Instant::ZERO);
        for n in 0..1_000 {
            proxy.handle_config(config(n), Instant::ZERO);
            let named: Vec<u32> =
                proxy.runtimes.iter().flatten().flat_map(|rt| rt.locals.iter().copied()).collect();
            assert!(named.iter().all(|at| !proxy.locals[*at as usize].retired), "{n}");
        }
        // Two pools and three backends, and as many that were before them.
        assert!(
            proxy.runtimes.len() <= 4 && proxy.locals.len() <= 6,
            "{} {}",
            proxy.runtimes.len(),
            proxy.locals.len()
        );
    }
}
