//! What was chosen of each pool so far: how many choices there were in an unbroken row, and by how much each
//! backend is ahead of its share in them.

use std::collections::BTreeMap;

use super::{Candidate, Situation};

/// What is known of the choices of each pool.
#[derive(Debug, Default)]
pub(crate) struct Shares(pub(crate) BTreeMap<&'static str, PoolShares>);

#[derive(Debug, Default)]
pub(crate) struct PoolShares {
    /// Choices in an unbroken row from the same backends, with the same shares but for those that grow.
    pub(crate) row: Option<Row>,
    /// There was one before it that was interrupted.
    pub(crate) interrupted: bool,
    /// How many random choices there were, and by how much each backend is ahead of its share in them.
    pub(crate) random: (u64, BTreeMap<&'static str, f64>),
    /// Whom least connection chose last, in this configuration.
    pub(crate) last: Option<(usize, &'static str)>,
}

#[derive(Debug, Default)]
pub(crate) struct Row {
    pub(crate) version: usize,
    pub(crate) among: Vec<(&'static str, u64, bool)>,
    /// By how many choices each is ahead of its share, at least and at most.
    pub(crate) ahead: Vec<(f64, f64)>,
    pub(crate) last: usize,
    pub(crate) choices: u64,
    /// How often health has changed since the first choice.
    pub(crate) changes: u32,
    pub(crate) follows_interruption: bool,
}

impl Row {
    pub(crate) fn ahead_of(&self, label: &str) -> (f64, f64) {
        self.among.iter().position(|a| a.0 == label).map_or((0.0, 0.0), |at| self.ahead[at])
    }
}

impl Shares {
    /// A choice was made that does not fit into any row, or may have taken more than one turn.
    pub(crate) fn interrupted(&mut self, pool: &'static str) {
        let shares = self.0.entry(pool).or_default();
        (shares.row, shares.interrupted, shares.last) = (None, true, None);
    }

    /// The health of a backend has changed: it may have changed back before the next choice, and turns begin
    /// anew.
    pub(crate) fn health_changed(&mut self, pool: &str) {
        if let Some(row) = self.0.get_mut(pool).and_then(|shares| shares.row.as_mut()) {
            (row.choices, row.changes) = (0, row.changes.saturating_add(1));
        }
    }

    /// Whom least connection chose last, if that was with this configuration.
    pub(crate) fn last_of(&self, s: &Situation) -> Option<&'static str> {
        let (version, last) = self.0.get(s.pool)?.last?;
        (version == s.version).then_some(last)
    }

    pub(crate) fn least_connection_chose(&mut self, s: &Situation, chosen: &Candidate) {
        self.0.entry(s.pool).or_default().last = Some((s.version, chosen.label));
    }
}
