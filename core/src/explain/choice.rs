//! Which backend is chosen, and why: asked of the code that balances, for the pool's own strategy and for the
//! others.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::Serialize;

use super::rehearsal::SOME_ADDRESS;
use crate::balance::{Balancer, Choice, SelectionInput, Tried};
use crate::config::{Address, Backend, Config, Pool, Strategy};
use crate::shared::Shared;
use crate::time::Instant;

/// The backend that a request goes to.
#[derive(Clone, Debug, Serialize)]
pub struct BackendChoice {
    /// The pool's strategy, as the configuration calls it.
    pub strategy: String,
    /// The backend's address, as configured; `None`: there is none to be chosen.
    pub backend: Option<String>,
    /// How far that can be relied on.
    pub how: How,
    /// Why this one.
    pub why: String,
    /// The pool's backends in file order.
    pub candidates: Vec<Candidate>,
    /// What other strategies would choose for this client.
    pub others: Vec<OtherStrategy>,
}

/// How far a choice can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// Every daemon with this configuration makes it for this client, as long as the backend is usable.
    Always,
    /// A daemon makes it for its first request; later it depends on what came before.
    AtFirst,
    /// It is drawn by chance: this is one of several.
    ByChance,
}

/// A backend of the pool.
#[derive(Clone, Debug, Serialize)]
pub struct Candidate {
    /// Its address, as configured.
    pub backend: String,
    /// Its weight.
    pub weight: u32,
    /// It is used only while no other one is usable.
    pub backup: bool,
    /// It may be chosen now.
    pub usable: bool,
    /// Its health: `unknown`, since nobody has checked it.
    pub health: &'static str,
}

/// What another strategy would choose.
#[derive(Clone, Debug, Serialize)]
pub struct OtherStrategy {
    /// As the configuration calls it.
    pub strategy: &'static str,
    /// The backend; `None`: chance decides, or there is none.
    pub backend: Option<String>,
    /// Why this one.
    pub why: String,
}

/// Who asks, and what came of it.
pub(super) struct Situation<'s> {
    pub(super) client: IpAddr,
    pub(super) fields: &'s [String],
    /// What the proxy has chosen.
    pub(super) backend: Option<&'s str>,
}

const NOW: Instant = Instant::from_millis(1_000);
/// Most turns of round robin that are shown.
const MAX_TURNS: usize = 12;

pub(super) fn told(config: &Config, pool: &Pool, now: &Situation<'_>) -> BackendChoice {
    // There may be thousands of pools, and each bench has a configuration.
    let alone = Config { pools: Vec::new(), ..config.clone() };
    let mut bench = Bench::new(&alone, pool, &pool.strategy);
    let usable = bench.balancer.candidates(NOW);
    let candidates = (0..)
        .zip(&pool.backends)
        .map(|(place, backend)| Candidate {
            backend: backend.label.to_string(),
            weight: backend.weight,
            backup: backend.backup,
            usable: usable.contains(&place),
            health: "unknown",
        })
        .collect();
    let (how, why) = match &pool.strategy {
        _ if now.backend.is_none() => (How::Always, "no backend can be chosen".into()),
        Strategy::StickyCookie(cookie) => {
            let named = now.cookies().find_map(|value| bench.balancer.sticky()?.find(value.as_bytes()));
            let name_of_cookie = &cookie.cookie_name;
            match named {
                Some(place) if usable.contains(&place) => {
                    (How::Always, format!("the cookie {name_of_cookie} names it"))
                }
                _ => {
                    let absent = match named {
                        Some(_) => "names a backend that is not usable",
                        None => "is not there, or names no backend of this pool",
                    };
                    let (how, why) = bench.why(&cookie.inner, now.client);
                    let inner = name(&cookie.inner);
                    (how, format!("the cookie {name_of_cookie} {absent}, so {inner} chooses: {why}"))
                }
            }
        }
        strategy => bench.why(strategy, now.client),
    };
    BackendChoice {
        strategy: name(&pool.strategy).into(),
        backend: now.backend.map(ToOwned::to_owned),
        how,
        why,
        candidates,
        others: others(&alone, pool, now.client),
    }
}

/// What the strategies that the pool does not have would choose.
fn others(alone: &Config, pool: &Pool, client: IpAddr) -> Vec<OtherStrategy> {
    let all = [Strategy::RoundRobin, Strategy::Random, Strategy::IpHash, Strategy::LeastConnection];
    all.iter()
        .filter(|strategy| **strategy != pool.strategy && pool.backends.len() > 1)
        .map(|strategy| {
            let (how, why) = Bench::new(alone, pool, strategy).why(strategy, client);
            let backend = Bench::new(alone, pool, strategy).choose(client);
            let backend = backend.filter(|_| how != How::ByChance);
            OtherStrategy { strategy: name(strategy), backend, why }
        })
        .collect()
}

fn name(strategy: &Strategy) -> &'static str {
    match strategy {
        Strategy::RoundRobin => "RoundRobin",
        Strategy::Random => "Random",
        Strategy::IpHash => "IPHash",
        Strategy::LeastConnection => "LeastConnection",
        Strategy::StickyCookie(_) => "StickyCookie",
    }
}

impl Situation<'_> {
    /// The values of `Cookie` fields.
    fn cookies(&self) -> impl Iterator<Item = &str> {
        let lines = self.fields.iter().filter_map(|line| line.split_once(':'));
        lines.filter(|(name, _)| name.eq_ignore_ascii_case("Cookie")).map(|(_, value)| value)
    }
}

/// A pool of a process that has just started, with a balancer of its own.
struct Bench<'p> {
    pool: &'p Pool,
    balancer: Balancer,
}

impl<'p> Bench<'p> {
    /// `alone` is a configuration without pools.
    fn new(alone: &Config, pool: &'p Pool, strategy: &Strategy) -> Self {
        let with = Pool { strategy: strategy.clone(), ..pool.clone() };
        let only = Config { pools: vec![Arc::new(with)], ..alone.clone() };
        let state = Shared::new("localhost", 1).adopt(&only).remove(0);
        for (place, backend) in (0..).zip(&pool.backends) {
            if let Address::Name { port, .. } = backend.address {
                state.resolved(place, &[SocketAddr::new(SOME_ADDRESS, port)]);
            }
        }
        Self { pool, balancer: Balancer::new(&only.pools[0], state, 1) }
    }

    /// The next choice, as if its exchange were over at once.
    fn choose(&mut self, client: IpAddr) -> Option<String> {
        let input = SelectionInput { client, sticky: None, tried: &Tried::new() };
        match self.balancer.choose(&input, NOW) {
            Choice::Backend(place) => {
                self.balancer.state().finish(place);
                Some(self.pool.backends[usize::from(place)].label.to_string())
            }
            Choice::Full | Choice::None => None,
        }
    }

    /// Why this strategy chooses what it does after a start.
    fn why(&mut self, strategy: &Strategy, client: IpAddr) -> (How, String) {
        let usable = self.balancer.candidates(NOW);
        let backends = || usable.iter().map(|place| &self.pool.backends[usize::from(*place)]);
        let weights: u32 = backends().map(|backend| backend.weight).sum();
        let equal = backends().all(|backend| backend.weight * usable.len() as u32 == weights);
        let (how, why) = match strategy {
            Strategy::RoundRobin => {
                let turns = if equal { usable.len() } else { weights as usize }.clamp(1, MAX_TURNS);
                let order: Vec<String> = (0..turns).filter_map(|_| self.choose(client)).collect();
                (How::AtFirst, format!("the turns after a start are {}", order.join(", ")))
            }
            Strategy::Random => (How::ByChance, shares(backends(), weights)),
            Strategy::IpHash => {
                let client = client.to_canonical();
                (How::Always, format!("the hash of {client} leads there, in every process"))
            }
            Strategy::LeastConnection if equal => {
                (How::AtFirst, "nothing is in flight after a start, and equals take turns".into())
            }
            Strategy::LeastConnection => {
                let shares = shares(backends(), weights);
                (
                    How::ByChance,
                    format!("nothing is in flight after a start, and among equals it is {shares}"),
                )
            }
            Strategy::StickyCookie(cookie) => return self.why(&cookie.inner, client),
        };
        match usable.len() {
            1 => (How::Always, "it is the only one that may be chosen".into()),
            _ => (how, why),
        }
    }
}

/// By which shares chance decides.
fn shares<'p>(backends: impl Iterator<Item = &'p Backend>, weights: u32) -> String {
    let mut shares = String::from("drawn by chance:");
    for (nth, backend) in backends.enumerate() {
        let percent = f64::from(backend.weight) * 100.0 / f64::from(weights.max(1));
        let comma = if nth > 0 { "," } else { "" };
        let _ = write!(shares, "{comma} {} {percent:.1} %", backend.label);
    }
    shares
}
