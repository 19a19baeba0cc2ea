//! When to compare contents: once it has been quiet after an event, and regularly where there may be no
//! events. It knows no files and no clock.

use std::time::Duration;

use ruststrom_core::Instant;

/// Without an event for so long, whoever writes a file is done with it.
pub(super) const QUIET: Duration = Duration::from_millis(200);
/// If it is never quiet, contents are compared so long after the first event all the same.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Pace {
    poll: Duration,
    /// There may be changes without events.
    blind: bool,
    /// Since the last look: the first event.
    first: Option<Instant>,
    /// When to look because of events.
    due: Option<Instant>,
    /// When to look without one.
    next_poll: Option<Instant>,
    /// What the last look found, if that was a difference.
    found: Option<u64>,
}

impl Pace {
    pub(super) fn new(poll: Duration) -> Self {
        Self { poll, blind: false, first: None, due: None, next_poll: None, found: None }
    }

    /// Other files are watched, or none: nothing is due.
    pub(super) fn begin(&mut self) {
        *self = Self::new(self.poll);
    }

    /// Whether there may be changes without events.
    pub(super) fn set_blind(&mut self, blind: bool, now: Instant) {
        self.blind = blind;
        self.next_poll = if blind { self.next_poll.or(Some(now + self.poll)) } else { None };
    }

    /// Something has happened.
    pub(super) fn event(&mut self, now: Instant) {
        let first = *self.first.get_or_insert(now);
        self.due = Some((now + QUIET).min(first + PATIENCE));
    }

    /// When to look; `None`: not before something has happened.
    pub(super) fn due(&self) -> Option<Instant> {
        [self.due, self.next_poll].into_iter().flatten().min()
    }

    /// The files were looked at, and differed like this. True: they are to be loaded.
    pub(super) fn looked(&mut self, found: Option<u64>, now: Instant) -> bool {
        let before = std::mem::replace(&mut self.found, found);
        (self.first, self.due) = (None, None);
        self.next_poll = self.blind.then(|| now + self.poll);
        if found.is_none() {
            return false;
        }
        // Without events only another look can tell whether it is quiet.
        if self.blind && before != found {
            self.event(now);
            return false;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    enum Input {
        Event,
        /// A look that finds this.
        Look(Option<u64>),
    }
    use Input::{Event, Look};

    /// Ms of the input, the input, whether to load then, and ms of the next look.
    type Row = (u64, Input, bool, Option<u64>);

    fn run(name: &str, blind: bool, rows: &[Row]) {
        let at = |ms: u64| Instant::ZERO + Duration::from_millis(ms);
        let mut pace = Pace::new(Duration::from_millis(10_000));
        pace.set_blind(blind, at(0));
        for (n, (ms, input, loads, due)) in rows.iter().enumerate() {
            let loaded = match input {
                Event => {
                    pace.event(at(*ms));
                    false
                }
                Look(found) => {
                    assert!(pace.due().is_some_and(|due| due <= at(*ms)), "{name}, row {n}: too early");
                    pace.looked(*found, at(*ms))
                }
            };
            pace.set_blind(blind, at(*ms));
            assert_eq!((loaded, pace.due()), (*loads, due.map(at)), "{name}, row {n}");
        }
    }

    #[test]
    fn a_look_comes_when_it_is_quiet() {
        let rows = [
            (0, Event, false, Some(200)),
            (150, Event, false, Some(350)),
            (350, Look(Some(7)), true, None),
            (400, Event, false, Some(600)),
            (600, Look(None), false, None),
        ];
        run("halves", false, &rows);
        let mut rows: Vec<Row> =
            (0..50).map(|n| (n * 100, Event, false, Some((n * 100 + 200).min(5000)))).collect();
        rows.push((5000, Look(Some(7)), true, None));
        run("never quiet", false, &rows);
    }

    #[test]
    fn where_there_are_no_events_it_looks_regularly_and_loads_what_stays() {
        let rows = [
            (10_000, Look(None), false, Some(20_000)),
            (20_000, Look(Some(1)), false, Some(20_200)),
            // It is still being written.
            (20_200, Look(Some(2)), false, Some(20_400)),
            (20_400, Look(Some(2)), true, Some(30_400)),
            (30_400, Look(None), false, Some(40_400)),
            (31_000, Event, false, Some(31_200)),
            (31_200, Look(Some(3)), false, Some(31_400)),
            (31_400, Look(None), false, Some(41_400)),
        ];
        run("blind", true, &rows);
    }
}
