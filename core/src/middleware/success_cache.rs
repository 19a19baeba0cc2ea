//! Credentials that were good a moment ago, so that not every request asks a directory. What is kept is a
//! keyed hash of name and password, and never longer than a success may be believed: use does not prolong it.

use std::collections::{BTreeMap, VecDeque};
use std::hash::Hasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use siphasher::sip128::{Hasher128, SipHasher24};

use crate::config::CredentialSource;
use crate::secret::Secret;
use crate::time::Instant;

/// Most successes that are kept. Beyond, the oldest one goes.
const MAX_ENTRIES: usize = 16_384;

/// What stands for a name and a password, as long as the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark(u128);

/// Which settings a success was found under. Successes under other settings are of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Generation(u64);

/// The successes of one middleware, which all shards share. Locks are held for a look or an entry.
#[derive(Debug, Default)]
pub(super) struct SuccessCache(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Random; drawn when it is needed first.
    key: Option<(u64, u64)>,
    source: Option<Arc<CredentialSource>>,
    time: Duration,
    generation: u64,
    /// Until when each is believed.
    until: BTreeMap<Mark, Instant>,
    /// The same in the order of their ends: all are believed for the same time.
    order: VecDeque<(Mark, Instant)>,
}

impl SuccessCache {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on these settings count: if they are others than before, everything is forgotten. Gives the
    /// source back as all shards share it.
    pub(super) fn adopt(
        &self,
        source: CredentialSource,
        time: Duration,
    ) -> (Arc<CredentialSource>, Generation) {
        let mut state = self.lock();
        if let Some(known) = state.source.clone()
            && *known == source
            && state.time == time
        {
            return (known, Generation(state.generation));
        }
        let source = Arc::new(source);
        (state.source, state.time) = (Some(source.clone()), time);
        state.generation += 1;
        state.until.clear();
        state.order.clear();
        (source, Generation(state.generation))
    }

    /// What stands for these; `random` gives the key if there is none yet.
    pub(super) fn mark(&self, user: &str, password: &Secret, mut random: impl FnMut() -> u64) -> Mark {
        let key = *self.lock().key.get_or_insert_with(|| (random(), random()));
        let mut hasher = SipHasher24::new_with_keys(key.0, key.1);
        hasher.write_u64(user.len() as u64);
        hasher.write(user.as_bytes());
        hasher.write(password.0.as_bytes());
        Mark(hasher.finish128().as_u128())
    }

    /// Whether these were good, and are to be believed still.
    pub(super) fn knows(&self, mark: Mark, generation: Generation, now: Instant) -> bool {
        let state = self.lock();
        state.generation == generation.0 && state.until.get(&mark).is_some_and(|until| now < *until)
    }

    /// These are good.
    pub(super) fn add(&self, mark: Mark, generation: Generation, now: Instant) {
        let mut state = self.lock();
        if state.generation != generation.0 || state.time.is_zero() {
            return;
        }
        while let Some((oldest, until)) = state.order.front().copied()
            && (until <= now || state.order.len() >= MAX_ENTRIES)
        {
            state.order.pop_front();
            state.until.remove(&oldest);
        }
        // Who was found good twice at the same time is believed from the first one on.
        if !state.until.contains_key(&mark) {
            let until = now + state.time;
            state.until.insert(mark, until);
            state.order.push_back((mark, until));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CredentialSource, UserList};

    const TIME: Duration = Duration::from_secs(60);

    fn source(user: &str) -> CredentialSource {
        let line = format!("{user}:$6$salt${}", "x".repeat(86));
        CredentialSource::Users(UserList::of_file(line.as_bytes()).expect("a list"))
    }

    fn at(secs: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(secs)
    }

    fn mark(cache: &SuccessCache, user: &str, password: &str) -> Mark {
        let mut next = 0;
        cache.mark(user, &Secret(password.into()), || {
            next += 7;
            next
        })
    }

    #[test]
    fn successes_end_and_use_does_not_prolong_them() {
        let cache = SuccessCache::default();
        let (_, generation) = cache.adopt(source("ada"), TIME);
        let ada = mark(&cache, "ada", "love");
        assert_eq!(mark(&cache, "ada", "love"), ada);
        for (user, password) in [("ada", "lov"), ("ad", "alove"), ("adal", "ove"), ("Ada", "love")] {
            assert_ne!(mark(&cache, user, password), ada, "{user} {password}");
        }
        assert!(!cache.knows(ada, generation, at(0)));
        cache.add(ada, generation, at(0));
        for secs in 0..60 {
            assert!(cache.knows(ada, generation, at(secs)));
            // Another request that asked at the same time comes back.
            cache.add(ada, generation, at(secs));
        }
        assert!(!cache.knows(ada, generation, at(60)));
        cache.add(ada, generation, at(60));
        assert!(cache.knows(ada, generation, at(119)) && !cache.knows(ada, generation, at(120)));
    }

    #[test]
    fn other_settings_forget_everything() {
        let cache = SuccessCache::default();
        let (first, old) = cache.adopt(source("ada"), TIME);
        let ada = mark(&cache, "ada", "love");
        cache.add(ada, old, at(0));
        let (again, same) = cache.adopt(source("ada"), TIME);
        assert!(Arc::ptr_eq(&first, &again) && same == old && cache.knows(ada, same, at(1)));
        for (settings, time) in
            [(source("bob"), TIME), (source("bob"), TIME * 2), (source("bob"), Duration::ZERO)]
        {
            let (_, new) = cache.adopt(settings, time);
            assert!(!cache.knows(ada, new, at(1)) && !cache.knows(ada, old, at(1)));
            // An exchange under the old settings comes back.
            cache.add(ada, old, at(1));
            assert!(!cache.knows(ada, new, at(1)) && !cache.knows(ada, old, at(1)));
            cache.add(ada, new, at(1));
            assert_eq!(cache.knows(ada, new, at(1)), !time.is_zero());
        }
    }

    #[test]
    fn their_number_is_bounded() {
        let cache = SuccessCache::default();
        let (_, generation) = cache.adopt(source("ada"), TIME);
        let marks: Vec<Mark> = (0..MAX_ENTRIES + 10).map(|n| mark(&cache, &n.to_string(), "x")).collect();
        for m in &marks {
            cache.add(*m, generation, at(0));
        }
        let known = marks.iter().filter(|m| cache.knows(**m, generation, at(0))).count();
        assert_eq!(known, MAX_ENTRIES);
        assert!(!cache.knows(marks[9], generation, at(0)) && cache.knows(marks[10], generation, at(0)));
        cache.add(marks[0], generation, at(61));
        let state = cache.lock();
        assert_eq!((state.until.len(), state.order.len()), (1, 1), "ends make room");
    }
}
