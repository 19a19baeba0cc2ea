//! How long the series of pools and backends are shown that are not configured any more: on one more page, so
//! that the last of what they have counted is seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ruststrom_core::Instant;

use super::counted::{Names, Totals};

/// If nobody looks they are forgotten after this long, at the next reload.
const LONGEST: Duration = Duration::from_secs(600);

/// What has departed.
#[derive(Debug, Default)]
pub struct Departed {
    /// When it was looked last.
    configured: BTreeSet<Arc<Names>>,
    leaving: BTreeMap<Arc<Names>, Leaving>,
}

#[derive(Clone, Copy, Debug)]
struct Leaving {
    since: Instant,
    shown: bool,
}

/// What becomes of series that are not configured.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Those that are shown once more.
    pub shown: BTreeSet<Arc<Names>>,
    /// Those to be forgotten, sorted.
    pub forgotten: Vec<Arc<Names>>,
}

impl Departed {
    /// Looks at what has been counted, now that these are configured. `shows`: for a page, else because of a
    /// reload.
    pub fn look(
        &mut self,
        totals: &Totals,
        configured: BTreeSet<Arc<Names>>,
        now: Instant,
        shows: bool,
    ) -> Verdict {
        self.leaving.retain(|names, _| !configured.contains(names));
        let mut verdict = Verdict::default();
        for names in totals.keys().filter(|names| !configured.contains(*names)) {
            if self.configured.contains(names) {
                self.leaving.insert(names.clone(), Leaving { since: now, shown: false });
            }
            match self.leaving.get_mut(names) {
                Some(leaving) if !leaving.shown && now.since(leaving.since) < LONGEST => {
                    leaving.shown = shows;
                    verdict.shown.insert(names.clone());
                }
                // Of a request that began before its pool went, and has ended only now.
                None => verdict.forgotten.push(names.clone()),
                Some(_) => {
                    self.leaving.remove(names);
                    verdict.forgotten.push(names.clone());
                }
            }
        }
        self.configured = configured;
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::super::counted::Series;
    use super::*;

    fn names(pools: &[&str]) -> BTreeSet<Arc<Names>> {
        pools.iter().map(|pool| Arc::new(Names { pool: (*pool).into(), backend: "".into() })).collect()
    }

    /// What a look at a table of steps shows and forgets: what is counted, what is configured, after how many
    /// seconds, whether for a page.
    fn looks(steps: &[(&[&str], &[&str], u64, bool)]) -> Vec<(Vec<String>, Vec<String>)> {
        let mut departed = Departed::default();
        let text = |names: &Arc<Names>| names.pool.to_string();
        let look = |(counted, configured, secs, shows): &(&[&str], &[&str], u64, bool)| {
            let totals = names(counted).into_iter().map(|names| (names, Series::default())).collect();
            let now = Instant::from_millis(secs * 1000);
            let verdict = departed.look(&totals, names(configured), now, *shows);
            (verdict.shown.iter().map(text).collect(), verdict.forgotten.iter().map(text).collect())
        };
        steps.iter().map(look).collect()
    }

    #[test]
    fn what_is_gone_is_shown_once_more() {
        let (none, b) = (Vec::<String>::new(), vec!["b".to_owned()]);
        let steps: &[(&[&str], &[&str], u64, bool)] = &[
            (&["a", "b"], &["a", "b", "c"], 0, true),
            (&["a", "b"], &["a"], 1, true),
            (&["a", "b"], &["a"], 2, true),
            (&["a"], &["a"], 3, true),
            // A request that has ended late.
            (&["a", "b"], &["a"], 4, true),
        ];
        let (quiet, shown, gone) =
            ((none.clone(), none.clone()), (b.clone(), none.clone()), (none.clone(), b.clone()));
        assert_eq!(looks(steps), [quiet.clone(), shown.clone(), gone.clone(), quiet.clone(), gone.clone()]);
        // A reload shows nothing to anyone; what comes back in between stays.
        let steps: &[(&[&str], &[&str], u64, bool)] = &[
            (&["a", "b"], &["a", "b"], 0, true),
            (&["a", "b"], &["a"], 1, false),
            (&["a", "b"], &["a"], 2, false),
            (&["a", "b"], &["a"], 3, true),
            (&["a", "b"], &["a", "b"], 4, false),
            (&["a", "b"], &["a"], 5, true),
            (&["a", "b"], &["a"], 6, false),
        ];
        let expected = [&quiet, &shown, &shown, &shown, &quiet, &shown, &gone].map(Clone::clone);
        assert_eq!(looks(steps), expected);
        // Nobody looks at pages.
        let steps: &[(&[&str], &[&str], u64, bool)] = &[
            (&["a", "b"], &["a", "b"], 0, false),
            (&["a", "b"], &["a"], 1, false),
            (&["a", "b"], &["a"], 600, false),
            (&["a", "b"], &["a"], 601, false),
        ];
        assert_eq!(looks(steps), [quiet, shown.clone(), shown, gone]);
    }
}
