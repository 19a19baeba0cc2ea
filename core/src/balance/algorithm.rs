//! The algorithms behind the strategies of the configuration. A sticky cookie is no algorithm of its own: it
//! stands before another one.

use crate::config::Strategy;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    RoundRobin,
    Random,
    IpHash,
    LeastConnection,
}

impl Algorithm {
    /// The algorithm of `strategy`; of a sticky cookie that of the strategy for clients without the cookie.
    pub(super) fn of(strategy: &Strategy) -> Self {
        match strategy {
            Strategy::RoundRobin => Self::RoundRobin,
            Strategy::Random => Self::Random,
            Strategy::IpHash => Self::IpHash,
            Strategy::LeastConnection => Self::LeastConnection,
            Strategy::StickyCookie(sticky) => Self::of(&sticky.inner),
        }
    }
}
