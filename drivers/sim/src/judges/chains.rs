//! Reloads that change middlewares: who began before one keeps the chain that it began with, and who comes
//! behind it gets the new one.

use crate::chains::Chain;
use crate::coverage::Mark;
use crate::net::Net;

impl Net {
    /// In this turn a request went into a chain of its pool.
    pub(crate) fn judge_entered(&mut self, shard: usize, target: &str, chain: usize) {
        let Some(id) = self.ledger.id_of(target) else { return };
        let entry = self.ledger.get(id);
        if entry.entered {
            return self
                .ledger
                .fail("one-chain", format!("request {id} went into {}, then {chain}", entry.chain));
        }
        let began = self.version_at_head(entry);
        let known = began..=self.shard_version[shard];
        let chain_of = |version: usize| {
            self.config_versions[version].iter().find(|p| Some(p.name) == entry.pool).map(|p| p.chain)
        };
        if !known.clone().any(|version| chain_of(version) == Some(chain)) {
            let details =
                format!("request {id}: chain {chain}, which is of none of configurations {known:?}");
            return self.ledger.fail("newest-chain", details);
        }
        self.mark(if chain == 0 { Mark::OldChain } else { Mark::NewChain });
        let entry = self.ledger.get_mut(id);
        (entry.chain, entry.entered) = (chain, true);
        let changes = Chain::of(&self.scenario, self.ledger.get(id)).changes_content();
        self.ledger.get_mut(id).content_changes = changes;
    }
}
