//! IPHash: who is chosen for a client among some backends is chosen among any of them that are left, and
//! among more as long as it is none of those that came. So only the clients of a backend move when it goes,
//! and they come back with it; and all shards choose alike. Another configuration changes second choices,
//! but it moves nobody whose first one it keeps.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::choices::{Home, Member, Situation};
use crate::coverage::Mark;
use crate::exchanges::ExchangeEntry;
use crate::fields;
use crate::net::Net;
use crate::scenario::client_ip;

impl Net {
    /// The address that a client goes by.
    pub(crate) fn client_ip(&self, entry: &ExchangeEntry) -> IpAddr {
        let sent = fields::of_request(entry.id, entry.version);
        let behind =
            sent.iter().find(|f| f.name == "X-Forwarded-For" && self.scenario.is_trusted(entry.client));
        behind.and_then(|f| f.value.parse().ok()).unwrap_or_else(|| client_ip(entry.client))
    }

    pub(super) fn check_home(&mut self, s: &Situation, label: &str) -> Result<(), (&'static str, String)> {
        let ip = self.client_ip(self.ledger.get(s.id));
        let among: BTreeSet<Member> = s.untried(&s.usable).map(|c| (c.label, c.weight)).collect();
        let Some(chosen) = among.iter().find(|m| m.0 == label).copied() else { return Ok(()) };
        let pools = self.config_versions[s.version].iter().filter(|p| p.name == s.pool);
        let configured = pools.flat_map(|p| &p.backends).filter(|b| b.weight > 0);
        let main = configured.clone().filter(|b| !b.backup).map(|b| (b.label(), b.weight));
        let all = among == main.collect();
        let configured: Vec<_> = configured.map(|b| (b.label(), b.weight, b.backup)).collect();
        let homes = self.choices.homes.0.entry((s.pool, ip)).or_default();
        let moved = homes.iter().find(|home| {
            let comparable = home.configured == configured || (all && home.all);
            let left = among.contains(&home.chosen) && home.among.contains(&chosen);
            comparable && left && home.chosen != chosen
        });
        if let Some(before) = moved {
            return Err(("hash-stable", format!("{ip} had {before:?}")));
        }
        let other_set = homes.iter().any(|home| home.among != among);
        if !homes.iter().any(|home| home.among == among && home.configured == configured) {
            homes.push(Home { configured, among, all, chosen });
        }
        if other_set {
            self.mark(Mark::MovedHome);
        }
        Ok(())
    }
}
