//! Whether a connection is still of use: its peer has to know our SETTINGS in time (RFC 9113 §6.5.3), and
//! answers a PING when it has been silent for long while streams wait for it (RFC 9113 §6.7). One that
//! carries nothing is asked nothing: it costs nobody anything.

use std::time::Duration;

use crate::time::Instant;

/// How long is waited for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Silence while there are streams, before a PING.
    pub interval: Duration,
    /// For the answer to a PING.
    pub answer: Duration,
    /// Silence without the acknowledgement of our SETTINGS.
    pub settings: Duration,
    /// For that acknowledgement from a peer that sends other things: those may have been on their way before
    /// it knew our SETTINGS.
    pub settings_behind_data: Duration,
}

/// Most for the answer of a backend to a PING.
const BACKEND_ANSWER: Duration = Duration::from_secs(10);
/// For the acknowledgement of SETTINGS, as h2o and nghttpx have it: far more than a round trip.
const SETTINGS_ANSWER: Duration = Duration::from_secs(10);
/// Enough for a client that has begun an upload as large as windows are at first (64 KiB, RFC 9113 §6.9.2)
/// over 10 kbit/s.
const SETTINGS_BEHIND_DATA: Duration = Duration::from_secs(60);

impl Patience {
    /// Nothing is ever asked.
    pub const ENDLESS: Self = Self {
        interval: Duration::MAX,
        answer: Duration::MAX,
        settings: Duration::MAX,
        settings_behind_data: Duration::MAX,
    };

    /// With a client that is asked after so long a silence, and has as long again for its answer.
    #[must_use]
    pub fn with_client(keepalive: Duration) -> Self {
        Self {
            interval: keepalive,
            answer: keepalive,
            settings: SETTINGS_ANSWER,
            settings_behind_data: SETTINGS_BEHIND_DATA,
        }
    }

    /// With a backend that is asked after so long a silence, and has as long again for its answer, but not
    /// longer than requests should wait for nothing.
    #[must_use]
    pub fn with_backend(keepalive: Duration) -> Self {
        Self {
            interval: keepalive,
            answer: keepalive.min(BACKEND_ANSWER),
            settings: SETTINGS_ANSWER,
            settings_behind_data: SETTINGS_ANSWER,
        }
    }
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing before that time; [`Instant::NEVER`]: nothing.
    Wait(Instant),
    /// A PING is to be sent, and then to be waited until that time.
    Ping(Instant),
    /// It is of no use any more: nobody answers.
    Lost,
    /// Nor is this one: our SETTINGS have not been acknowledged in time.
    Unsettled,
}

/// See the file's head.
#[derive(Clone, Copy, Debug)]
pub struct Keepalive {
    patience: Patience,
    /// Since when our SETTINGS are under way.
    opened: Instant,
    /// When the last bytes came, or the first stream was opened.
    heard: Instant,
    /// Since when a PING is under way.
    asked: Option<Instant>,
}

impl Keepalive {
    /// For a connection that is opened now.
    #[must_use]
    pub fn new(patience: Patience, now: Instant) -> Self {
        Self { patience, opened: now, heard: now, asked: None }
    }

    /// The connection is there: only now our SETTINGS are under way.
    pub fn connected(&mut self, now: Instant) {
        (self.opened, self.heard) = (now, now);
    }

    /// Bytes came, whatever they are: who sends is alive. Also for the first stream after none: the silence
    /// before it was expected.
    pub fn heard(&mut self, now: Instant) {
        (self.heard, self.asked) = (now, None);
    }

    /// Whether something has come since then.
    #[must_use]
    pub fn heard_since(&self, since: Instant) -> bool {
        self.heard > since
    }

    /// What is to be done. `streams`: some are open; `settled`: our SETTINGS have been acknowledged.
    pub fn look(&mut self, streams: bool, settled: bool, now: Instant) -> Verdict {
        let Patience { interval, answer, .. } = self.patience;
        let settings = if settled { Instant::NEVER } else { self.settings_end() };
        if settings <= now {
            return Verdict::Unsettled;
        }
        if !streams {
            self.asked = None;
            return Verdict::Wait(settings);
        }
        match self.asked {
            Some(asked) if asked + answer <= now => Verdict::Lost,
            Some(asked) => Verdict::Wait(settings.min(asked + answer)),
            None if self.heard + interval <= now => {
                self.asked = Some(now);
                Verdict::Ping(settings.min(now + answer))
            }
            None => Verdict::Wait(settings.min(self.heard + interval)),
        }
    }

    fn settings_end(&self) -> Instant {
        let Patience { settings, settings_behind_data, .. } = self.patience;
        (self.heard + settings).min(self.opened + settings_behind_data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(secs)
    }

    /// What happens at a second.
    enum Now {
        Connected,
        Heard,
        /// With streams, with our SETTINGS acknowledged: what is to be done.
        Look(bool, bool, Verdict),
    }

    #[test]
    fn as_in_a_table() {
        use Now::{Connected, Heard, Look};
        use Verdict::{Lost, Ping, Unsettled, Wait};
        let never = Wait(Instant::NEVER);
        let tables: &[&[(u64, Now)]] = &[
            // SETTINGS that nobody acknowledges, with streams or without.
            &[(3, Connected), (3, Look(false, false, Wait(at(13)))), (13, Look(false, false, Unsettled))],
            &[(0, Look(true, false, Wait(at(10)))), (9, Heard), (10, Look(true, false, Unsettled))],
            // Without streams nothing is asked, however long.
            &[(0, Look(false, true, never)), (9_999, Look(false, true, never))],
            // Silence, a PING, its answer, silence again, and none.
            &[
                (0, Look(true, true, Wait(at(30)))),
                (29, Look(true, true, Wait(at(30)))),
                (30, Look(true, true, Ping(at(40)))),
                (39, Look(true, true, Wait(at(40)))),
                (39, Heard),
                (40, Look(true, true, Wait(at(69)))),
                (69, Look(true, true, Ping(at(79)))),
                (79, Look(true, true, Lost)),
            ],
            // Whoever sends anything is not asked.
            &[(0, Look(true, true, Wait(at(30)))), (20, Heard), (30, Look(true, true, Wait(at(50))))],
            // The streams are gone before the answer: it is not waited for.
            &[
                (30, Look(true, true, Ping(at(40)))),
                (31, Look(false, true, never)),
                (100, Heard),
                (100, Look(true, true, Wait(at(130)))),
            ],
            // A late look asks late, and waits as long for the answer.
            &[(77, Look(true, true, Ping(at(87)))), (99, Look(true, true, Lost))],
        ];
        for (n, table) in tables.iter().enumerate() {
            follow(n, table, Patience::with_backend(Duration::from_secs(30)));
        }
        let tables: &[&[(u64, Now)]] = &[
            // SETTINGS have a time of their own, whenever a PING is due.
            &[
                (0, Look(true, false, Wait(at(10)))),
                (9, Heard),
                (10, Look(true, false, Wait(at(19)))),
                (18, Heard),
                (28, Look(true, false, Unsettled)),
            ],
            // And not for ever.
            &[
                (40, Heard),
                (41, Look(true, false, Wait(at(50)))),
                (49, Heard),
                (58, Heard),
                (59, Look(true, false, Wait(at(60)))),
                (59, Heard),
                (60, Look(true, false, Unsettled)),
            ],
            &[(9, Heard), (9, Look(true, true, Wait(at(21)))), (99, Look(true, true, Ping(at(111))))],
        ];
        for (n, table) in tables.iter().enumerate() {
            follow(n, table, Patience::with_client(Duration::from_secs(12)));
        }
        let asked_nothing: &[(u64, Now)] = &[
            (0, Look(true, false, Wait(at(10)))),
            (5, Look(true, true, never)),
            (9_999, Look(true, true, never)),
        ];
        follow(0, asked_nothing, Patience::with_client(Duration::MAX));
        follow(1, asked_nothing, Patience::with_backend(Duration::MAX));
        let as_long_again: &[(u64, Now)] = &[
            (4, Look(true, true, Ping(at(8)))),
            (7, Look(true, true, Wait(at(8)))),
            (8, Look(true, true, Lost)),
        ];
        follow(2, as_long_again, Patience::with_backend(Duration::from_secs(4)));
    }

    fn follow(n: usize, table: &[(u64, Now)], patience: Patience) {
        let mut keepalive = Keepalive::new(patience, at(0));
        for (secs, now) in table {
            match now {
                Now::Connected => keepalive.connected(at(*secs)),
                Now::Heard => keepalive.heard(at(*secs)),
                Now::Look(streams, settled, verdict) => {
                    let found = keepalive.look(*streams, *settled, at(*secs));
                    assert_eq!(found, *verdict, "table {n}, second {secs}");
                }
            }
        }
    }
}
