//! Shares over many choices: round robin by weights, in turn where all are equal; random by weights. Slow and
//! recovering backends have less.

use crate::choices::{Candidate, Row, Situation};
use crate::coverage::Mark;
use crate::net::Net;
use crate::scenario::PoolSpec;

/// What part of all each of these has, at least and at most; `None`: too little of it is left to say.
fn parts(among: &[Candidate]) -> Option<Vec<(f64, f64)>> {
    let all: f64 = among.iter().map(|c| c.share).sum();
    let least: f64 = among.iter().map(|c| c.least_share.max(0.0)).sum();
    let part = |c: &Candidate| {
        let own = c.least_share.max(0.0);
        (own / (own + all - c.share).max(1e-9), (c.share / (c.share + least - own).max(1e-9)).min(1.0))
    };
    // Shares that have just begun to grow are rounded.
    (all > 0.1).then(|| among.iter().map(part).collect())
}

impl Net {
    /// Whether a choice was one turn of all shards: none was lost at a full backend, and none is elsewhere.
    fn is_plain_turn(&self, s: &Situation) -> bool {
        let one_version = self.shard_version.iter().all(|v| *v == s.version);
        s.tried.is_empty() && one_version && !s.usable.iter().any(Candidate::may_be_full)
    }

    /// Round robin has chosen.
    pub(super) fn check_turn(
        &mut self,
        s: &Situation,
        chosen: &Candidate,
    ) -> Result<(), (&'static str, String)> {
        // Least connection moves the turn that it has in common with round robin: after a reload from one to
        // the other a turn may come twice.
        let of_pool = |p: &&PoolSpec| p.name == s.pool;
        let mut versions = self.config_versions.iter().flatten().filter(of_pool);
        let plain = self.is_plain_turn(s) && !versions.any(|p| p.strategy == "LeastConnection");
        let Some(parts) = parts(&s.usable).filter(|_| plain) else {
            self.choices.shares.interrupted(s.pool);
            return Ok(());
        };
        // A share that grows says so by itself.
        let among = |c: &Candidate| (c.label, if c.ramps { 0 } else { (c.share * 1000.0) as u64 }, c.ramps);
        let among: Vec<_> = s.usable.iter().map(among).collect();
        let place = s.usable.iter().position(|c| c.label == chosen.label).expect("it is usable");
        let shares = self.choices.shares.0.entry(s.pool).or_default();
        let same = shares.row.as_ref().is_some_and(|row| row.version == s.version && row.among == among);
        if !same {
            // Who stays has had what it has had; who comes begins with nothing.
            let before = shares.row.take().filter(|row| row.version == s.version);
            let ahead =
                among.iter().map(|a| before.as_ref().map_or((0.0, 0.0), |row| row.ahead_of(a.0))).collect();
            let (version, choices) = (s.version, 0);
            let changes = before.as_ref().map_or(0, |row| row.changes.saturating_add(1));
            let follows_interruption =
                before.as_ref().map_or(shares.interrupted || version > 0, |row| row.follows_interruption);
            shares.row =
                Some(Row { version, among, ahead, last: place, choices, changes, follows_interruption });
        }
        let row = shares.row.as_mut().expect("just made");
        row.choices += 1;
        for (ahead, part) in row.ahead.iter_mut().zip(&parts) {
            *ahead = (ahead.0 - part.1, ahead.1 - part.0);
        }
        row.ahead[place] = (row.ahead[place].0 + 1.0, row.ahead[place].1 + 1.0);
        let ramps = row.among.iter().any(|(_, _, ramps)| *ramps);
        let equal = row.among.iter().all(|(_, share, _)| *share == row.among[0].1) && !ramps;
        let next = (row.last + 1) % row.among.len();
        let last = std::mem::replace(&mut row.last, place);
        if equal && row.choices > 1 && place != next {
            let why = format!("{} was last", row.among[last].0);
            return Err(("round-robin", why));
        }
        // Within one of its share; where health has changed, what somebody was owed then may be left, each
        // time again, and what was owed at the beginning of a row that follows an interrupted one is not
        // known.
        let most = match () {
            () if row.follows_interruption || row.changes > 1 => 2.0,
            () if row.changes > 0 || ramps => 1.5,
            () => 1.0,
        };
        if let Some(off) = row.ahead.iter().position(|ahead| ahead.0 > most + 1e-6 || ahead.1 < -most - 1e-6)
        {
            let why = format!("{} is off its share: {row:?}", row.among[off].0);
            return Err(("weighted-shares", why));
        }
        let marks = [
            (ramps, Mark::RampingShare),
            (!ramps && !equal, Mark::WeightedShare),
            (s.usable.iter().any(|c| !c.ramps && c.share < f64::from(c.weight)), Mark::SlowShare),
        ];
        if row.choices > 5 {
            marks.iter().filter(|(is, _)| *is).for_each(|(_, mark)| self.coverage.mark(*mark));
        }
        Ok(())
    }

    /// A random backend was chosen.
    pub(super) fn check_random(
        &mut self,
        s: &Situation,
        chosen: &Candidate,
    ) -> Result<(), (&'static str, String)> {
        let free = s.tried.is_empty() && !s.usable.iter().any(Candidate::may_be_full);
        // Half a step of a share that grows is nothing beside the bound below.
        let Some(parts) = parts(&s.usable).filter(|_| free) else { return Ok(()) };
        let (choices, ahead) = &mut self.choices.shares.0.entry(s.pool).or_default().random;
        *choices += 1;
        // By Hoeffding's inequality it is further off once in more than 100 million times.
        let most = 3.2 * (*choices as f64).sqrt() + 1.0;
        let mut off = None;
        for (c, part) in s.usable.iter().zip(parts) {
            let ahead = ahead.entry(c.label).or_default();
            *ahead += f64::from(u8::from(c.label == chosen.label)) - part.1.midpoint(part.0);
            if ahead.abs() > most {
                off = Some(format!("{} is off its share by {ahead} in {choices}", c.label));
            }
        }
        off.map_or(Ok(()), |why| Err(("random-shares", why)))
    }
}
