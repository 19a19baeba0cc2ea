//! Which backends were chosen, as the core tells of it step by step: followed from turn to turn, so that the
//! judges know who is in flight where, who waits, and which backends a choice was made from.

mod cookies;
mod homes;
mod shares;

use std::collections::{BTreeMap, BTreeSet};

use ruststrom_core::ConnId;
use ruststrom_core::observe::HealthState;

use crate::scenario::MS;

pub(crate) use self::cookies::{Cookies, NO_COOKIE, field as cookie_field};
pub(crate) use self::homes::{Home, Homes, Member};
pub(crate) use self::shares::{Row, Shares};

/// The connection of an exchange's client, and the stream that carries it there.
pub(crate) type ExchangeConn = (ConnId, u32);

/// What the core told of, in its order.
#[derive(Clone, Debug)]
pub(crate) enum ChoiceStep {
    /// The head of a request has been read.
    Routed {
        conn: ExchangeConn,
        target: String,
    },
    Chosen {
        conn: ExchangeConn,
        label: &'static str,
    },
    /// Every usable backend is at its limit.
    Full {
        conn: ExchangeConn,
    },
    /// No backend can be chosen.
    NoneLeft {
        conn: ExchangeConn,
    },
    /// This connection to the backend is to carry it.
    Attached {
        conn: ExchangeConn,
        to: ConnId,
        /// It has not come about yet: it is opened for this exchange, or for another one before.
        connects: bool,
    },
    AttemptFailed {
        conn: ExchangeConn,
    },
    /// `failed`: with a cause.
    Ended {
        conn: ExchangeConn,
        failed: bool,
    },
    Health {
        pool: &'static str,
        label: &'static str,
        to: HealthState,
        by_check: bool,
    },
}

/// An exchange that has not ended.
#[derive(Clone, Debug)]
pub(crate) struct Followed {
    pub(crate) shard: usize,
    pub(crate) pool: &'static str,
    /// The configuration with which it began.
    pub(crate) version: usize,
    /// Labels of backends that have failed it.
    pub(crate) tried: Vec<&'static str>,
    /// The backend where it is in flight.
    pub(crate) held: Option<&'static str>,
    pub(crate) last: Option<&'static str>,
    pub(crate) waits: bool,
    /// When it began to wait for a connection to the backend that was chosen last.
    pub(crate) connects_since: Option<u64>,
}

/// What the log said last of a backend.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KnownHealth {
    pub(crate) state: HealthState,
    pub(crate) by_check: bool,
    /// When it was unhealthy last, and a check found it well.
    pub(crate) recovered: Option<u64>,
    /// When it was found, or tried, in vain.
    pub(crate) since: u64,
}

/// A violation that holds only if these exchanges kept their places until they ended.
#[derive(Clone, Debug)]
pub(crate) struct Suspicion {
    pub(crate) invariant: &'static str,
    pub(crate) details: String,
    pub(crate) depends_on: Vec<u64>,
}

/// All that is known of choices.
#[derive(Debug, Default)]
pub(crate) struct Choices {
    pub(crate) by_conn: BTreeMap<(usize, ExchangeConn), u64>,
    pub(crate) exchanges: BTreeMap<u64, Followed>,
    pub(crate) health: BTreeMap<(&'static str, &'static str), KnownHealth>,
    /// Connections of shards to backends: since when the first and the last of their exchanges have waited
    /// for one.
    pub(crate) awaited_since: BTreeMap<(usize, ConnId), (u64, u64)>,
    /// Exchanges that gave their places up at a time that is not known.
    pub(crate) unclear: BTreeSet<u64>,
    pub(crate) suspicions: Vec<Suspicion>,
    /// The turn in which each shard took a configuration last.
    pub(crate) taken_in: BTreeMap<usize, u64>,
    pub(crate) shares: Shares,
    pub(crate) homes: Homes,
    pub(crate) cookies: Cookies,
}

/// A backend that may be chosen.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) label: &'static str,
    pub(crate) weight: u32,
    /// Its weight by its state.
    pub(crate) share: f64,
    /// The least that it may be taken for while it grows.
    pub(crate) least_share: f64,
    pub(crate) ramps: bool,
    /// Exchanges that are, or may be, in flight.
    pub(crate) in_flight: Vec<u64>,
    /// 0: no limit.
    pub(crate) max: u64,
}

impl Candidate {
    /// Whether it may be at its limit.
    pub(crate) fn may_be_full(&self) -> bool {
        self.max > 0 && self.in_flight.len() as u64 >= self.max
    }
}

/// What a choice was made from.
#[derive(Clone, Debug)]
pub(crate) struct Situation {
    pub(crate) id: u64,
    pub(crate) strategy: &'static str,
    pub(crate) pool: &'static str,
    pub(crate) version: usize,
    /// Those in use: backups only if there is nobody else. In the order of the configuration.
    pub(crate) usable: Vec<Candidate>,
    /// Backups that can be used once all others have been tried.
    pub(crate) backups: Vec<Candidate>,
    pub(crate) tried: Vec<&'static str>,
}

impl Situation {
    pub(crate) fn untried<'a>(&'a self, of: &'a [Candidate]) -> impl Iterator<Item = &'a Candidate> {
        of.iter().filter(|c| !self.tried.contains(&c.label))
    }
}

/// A time that a timer of the core may be off by.
pub(crate) const TICK: u64 = 2 * MS;
