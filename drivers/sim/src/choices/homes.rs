//! Whom IPHash has chosen for whom so far.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// For each pool and client: from which backends one was chosen. A backend with another weight is another
/// one.
#[derive(Debug, Default)]
pub(crate) struct Homes(pub(crate) BTreeMap<(&'static str, IpAddr), Vec<Home>>);

/// Backends with their weights.
pub(crate) type Member = (&'static str, u32);

#[derive(Debug)]
pub(crate) struct Home {
    /// What the configuration has: labels, weights, and who is a backup.
    pub(crate) configured: Vec<(&'static str, u32, bool)>,
    pub(crate) among: BTreeSet<Member>,
    /// Those are all that are no backups.
    pub(crate) all: bool,
    pub(crate) chosen: Member,
}
