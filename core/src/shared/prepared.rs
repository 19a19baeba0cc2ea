//! A configuration made ready for all shards at once, before any of them takes it: what every shard would
//! find out by itself otherwise, in a turn that serves nobody meanwhile.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use crate::balance::PoolState;
use crate::config::{Address, Config, Pool};
use crate::health::ProbedBackend;
use crate::planted::planted;
use crate::route::{CertificateNames, Router};
use crate::sync::Mutex;

/// A configuration, and what is to be known of it.
#[derive(Debug)]
pub struct Prepared {
    pub(crate) config: Arc<Config>,
    /// The state of each pool, in the configuration's order.
    pub(crate) states: Box<[Arc<PoolState>]>,
    /// For each pool a number that is the same over reloads exactly as long as everything is that a shard
    /// makes of it.
    pub(crate) definitions: Arc<[u64]>,
    pub(crate) certificate_names: Arc<CertificateNames>,
    /// Numbers and names of the configuration before it: nobody reads them, but whoever loads the next one
    /// frees them with this, and no shard does.
    _before: Option<(Arc<[u64]>, Arc<CertificateNames>)>,
    shards: Box<[ForShard]>,
}

/// What is of one shard.
#[derive(Debug)]
struct ForShard {
    probes: Box<[ProbedBackend]>,
    /// Pool and backend of each name that it looks up.
    names: Box<[(u16, u16)]>,
    /// Regular expressions keep scratch memory: each shard has its own. Then the one that it had before.
    router: Mutex<Option<Router>>,
    /// What it had before, until that is freed with this: off the shards, for there may be much of it.
    old: Mutex<Option<(Router, Arc<Config>)>>,
}

impl Prepared {
    /// A configuration whose pools have these `states` and `definitions`; `probes` of each shard.
    pub(super) fn new(
        before: Option<&Self>,
        config: &Arc<Config>,
        states: Box<[Arc<PoolState>]>,
        definitions: Arc<[u64]>,
        probes: impl Iterator<Item = Vec<ProbedBackend>>,
    ) -> Self {
        let probes: Vec<_> = probes.collect();
        let shards = probes.len() as u16;
        let names = |shard: u16| {
            let pools = (0..).zip(config.pools.iter().zip(&states));
            let backends = pools.flat_map(|(place, (pool, state))| {
                (0..)
                    .zip(pool.backends.iter().zip(state.backends()))
                    .map(move |(at, backend)| (place, at, backend))
            });
            let looked_up = backends.filter(|(_, _, (backend, state))| {
                matches!(backend.address, Address::Name { .. }) && state.owner(shards) == shard
            });
            looked_up.map(|(place, at, _)| (place, at)).collect()
        };
        let shards = (0..).zip(probes).map(|(shard, probes)| ForShard {
            probes: probes.into(),
            names: names(shard),
            router: Mutex::new(Some(Router::new(&config.pools))),
            old: Mutex::new(None),
        });
        let shards = shards.collect();
        let certificate_names = Arc::new(CertificateNames::new(&config.certificates));
        let _before = before.map(|before| (before.definitions.clone(), before.certificate_names.clone()));
        Self { config: config.clone(), states, definitions, certificate_names, _before, shards }
    }

    /// The backends that a shard probes.
    pub(crate) fn probes(&self, shard: u16) -> &[ProbedBackend] {
        self.shards.get(usize::from(shard)).map_or(&[], |shard| &shard.probes)
    }

    /// Pool and backend of each name that a shard looks up.
    pub(crate) fn names(&self, shard: u16) -> &[(u16, u16)] {
        self.shards.get(usize::from(shard)).map_or(&[], |shard| &shard.names)
    }

    /// Gives a shard the configuration and its router for those that it had. If it takes the configuration
    /// again, after another one or as a fresh proxy, there is no router left for it, and one is made.
    pub(crate) fn exchange(&self, shard: u16, config: &mut Arc<Config>, router: &mut Router) {
        let Some(own) = self.shards.get(usize::from(shard)) else { return };
        let take = |from: &Mutex<Option<Router>>| from.lock().unwrap_or_else(PoisonError::into_inner).take();
        let new = take(&own.router).unwrap_or_else(|| Router::new(&self.config.pools));
        let old = (std::mem::replace(router, new), std::mem::replace(config, self.config.clone()));
        *own.old.lock().unwrap_or_else(PoisonError::into_inner) = Some(old);
    }

    /// The numbers of a configuration's pools, after those of the configuration before it. `given` counts
    /// the numbers that have been given.
    pub(super) fn definitions(
        before: Option<&Self>,
        config: &Config,
        states: &[Arc<PoolState>],
        given: &mut u64,
    ) -> Arc<[u64]> {
        // Places of listeners are part of what a pool says.
        let before = before.filter(|before| before.config.listeners == config.listeners);
        let mut by_name: Option<BTreeMap<&str, usize>> = None;
        let mut known = |place: usize, pool: &Pool, state: &Arc<PoolState>| {
            let before = before?;
            let named = |at: &usize| before.config.pools.get(*at).is_some_and(|old| old.name == pool.name);
            let at = Some(place).filter(named).or_else(|| {
                let all =
                    || before.config.pools.iter().enumerate().map(|(at, old)| (&*old.name, at)).collect();
                by_name.get_or_insert_with(all).get(&*pool.name).copied()
            })?;
            let old = &before.config.pools[at];
            let but_for_chain =
                || Pool { middlewares: pool.middlewares.clone(), ..Pool::clone(old) } == *pool;
            let alike = **old == *pool || planted!(154) && but_for_chain();
            let same = alike && Arc::ptr_eq(&before.states[at], state);
            same.then(|| before.definitions[at])
        };
        let pools = config.pools.iter().zip(states).enumerate();
        let number = |(place, (pool, state)): (usize, (&Arc<Pool>, &Arc<PoolState>))| {
            known(place, pool, state).unwrap_or_else(|| {
                *given += 1;
                *given
            })
        };
        pools.map(number).collect()
    }
}
