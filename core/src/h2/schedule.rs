//! Which of the streams that wait for room is served next (RFC 9218 §10).
//!
//! The most urgent go first. Of those, answers go first of which little is left: they are through soon, and
//! the others hardly notice. Then streams take turns, in which those that are of no use in parts
//! (`i=?0`) have one turn together, and go one after the other in it.

use super::priority::Priority;

/// So many bytes that are left are few.
const FEW_BYTES: usize = 4096;
/// So many short answers come first in a row before a longer one has its turn.
const MOST_SHORT: u8 = 16;
const URGENCIES: usize = 8;

/// The streams of one connection that have something to send and no room for it.
#[derive(Debug, Default)]
pub struct Schedule {
    waiting: Vec<Waiting>,
    /// How often a stream was served.
    served: u64,
    /// When one of those that go one after the other was served last, for each urgency.
    one_by_one: [u64; URGENCIES],
    /// So many of those that were served last were short, in a row.
    short: u8,
}

#[derive(Debug)]
struct Waiting {
    stream: u32,
    priority: Priority,
    short: bool,
    /// When it came, counted as [`Schedule::served`].
    since: u64,
}

impl Schedule {
    /// A stream waits. `rest`: bytes of it that are left, if that is known.
    pub fn wait(&mut self, stream: u32, priority: Priority, rest: Option<usize>) {
        let short = rest.is_some_and(|bytes| bytes <= FEW_BYTES);
        if let Some(known) = self.waiting.iter_mut().find(|known| known.stream == stream) {
            (known.priority, known.short) = (priority, short);
            return;
        }
        self.waiting.push(Waiting { stream, priority, short, since: self.served });
    }

    /// A stream waits no more.
    #[inline]
    pub fn remove(&mut self, stream: u32) {
        if !self.waiting.is_empty() {
            self.waiting.retain(|known| known.stream != stream);
        }
    }

    /// How many streams wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no stream waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The stream that is served next, of those that can be; it waits no more.
    pub fn next(&mut self, can_send: impl Fn(u32) -> bool) -> Option<u32> {
        let prefers_short = self.short < MOST_SHORT;
        let rank = |known: &Waiting| {
            let Priority { urgency, incremental } = known.priority;
            let since = match incremental {
                true => known.since,
                false => self.one_by_one[usize::from(urgency) % URGENCIES],
            };
            (urgency, known.short != prefers_short, since, known.stream)
        };
        let able = self.waiting.iter().enumerate().filter(|(_, known)| can_send(known.stream));
        let (place, _) = able.min_by_key(|(_, known)| rank(known))?;
        let next = self.waiting.remove(place);
        self.served += 1;
        self.short = if next.short { self.short.saturating_add(1).min(MOST_SHORT) } else { 0 };
        if !next.priority.incremental {
            self.one_by_one[usize::from(next.priority.urgency) % URGENCIES] = self.served;
        }
        Some(next.stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets `rounds` streams be served, each of which waits again unless it is short: with `rest` bytes left.
    fn order(
        streams: &[(u32, &str, Option<usize>)],
        rounds: usize,
        can_send: impl Fn(u32) -> bool,
    ) -> Vec<u32> {
        let mut schedule = Schedule::default();
        let wait = |schedule: &mut Schedule, stream| {
            let (_, priority, rest) = streams.iter().find(|(id, ..)| *id == stream).expect("known");
            schedule.wait(stream, Priority::parse(priority.as_bytes()), *rest);
        };
        streams.iter().for_each(|(stream, ..)| wait(&mut schedule, *stream));
        let mut served = Vec::new();
        while served.len() < rounds
            && let Some(stream) = schedule.next(&can_send)
        {
            served.push(stream);
            if !streams
                .iter()
                .any(|(id, _, rest)| *id == stream && rest.is_some_and(|rest| rest <= FEW_BYTES))
            {
                wait(&mut schedule, stream);
            }
        }
        served
    }

    #[test]
    fn who_is_served_next() {
        type Case<'a> = (&'a str, &'a [(u32, &'a str, Option<usize>)], &'a [u32]);
        let cases: &[Case<'_>] = &[
            (
                "the most urgent first",
                &[(1, "u=3,i", None), (3, "u=1,i", None), (5, "u=2,i", None)],
                &[3, 3, 3],
            ),
            ("in turns", &[(1, "i", None), (3, "i", None), (5, "i", None)], &[1, 3, 5, 1, 3, 5, 1]),
            ("one after the other", &[(5, "u=2", None), (1, "u=2", None), (3, "u=2", None)], &[1, 1, 1, 1]),
            (
                "all of those have one turn",
                &[(1, "", None), (3, "", None), (5, "i", None), (7, "i", None)],
                &[1, 5, 7, 1, 5, 7, 1],
            ),
            (
                "short ones first",
                &[(1, "i", None), (3, "i", Some(4096)), (5, "i", Some(4097)), (7, "i", Some(1))],
                &[3, 7, 1, 5, 1, 5],
            ),
            ("but none of less urgency", &[(1, "u=2,i", None), (3, "u=3,i", Some(1))], &[1, 1, 1]),
        ];
        for (what, streams, expected) in cases {
            assert_eq!(order(streams, expected.len(), |_| true), *expected, "{what}");
        }
    }

    #[test]
    fn who_cannot_send_holds_up_nobody() {
        let streams = [(1, "u=0", None), (3, "u=1,i", None), (5, "u=1,i", None)];
        assert_eq!(order(&streams, 4, |stream| stream != 1), [3, 5, 3, 5]);
        assert_eq!(order(&streams, 4, |_| false), []);
    }

    // However many short ones come, a long one has its turn.
    #[test]
    fn short_ones_starve_nobody() {
        let mut schedule = Schedule::default();
        schedule.wait(1, Priority::default(), None);
        let mut turns = 0;
        for stream in 1..=100 {
            schedule.wait(1 + 2 * stream, Priority::default(), Some(10));
            if schedule.next(|_| true) == Some(1) {
                turns += 1;
                schedule.wait(1, Priority::default(), None);
            }
        }
        assert_eq!(turns, 100 / (1 + u32::from(MOST_SHORT)));
    }

    #[test]
    fn waiting_twice_is_waiting_once() {
        let mut schedule = Schedule::default();
        schedule.wait(1, Priority::default(), None);
        schedule.wait(3, Priority::default(), None);
        schedule.wait(3, Priority::parse(b"u=0"), None);
        assert_eq!(schedule.len(), 2);
        assert_eq!(schedule.next(|_| true), Some(3));
        schedule.remove(1);
        assert!(schedule.is_empty() && schedule.next(|_| true).is_none());
    }
}
