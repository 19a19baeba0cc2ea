//! What has happened in all runs: a simulator that never meets a fault proves nothing about it.

use std::collections::BTreeMap;

/// Declares the marks once.
macro_rules! marks {
    ($($variant:ident $name:literal;)+) => {
        /// Something worth having happened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the names say it")]
        pub enum Mark {
            $($variant,)+
        }

        impl Mark {
            /// Every mark.
            pub const ALL: &'static [Mark] = &[$(Mark::$variant,)+];

            /// Its name in the summary.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

marks! {
    ShortRead "fault: short read";
    ShortWrite "fault: short write";
    RecvBlocked "fault: read would block";
    SendBlocked "fault: write would block";
    Interrupted "fault: interrupted call";
    TinyWindow "fault: tiny socket buffers";
    StaleEvent "fault: event of a closed socket";
    LateTimer "fault: late timer";
    SlowHead "fault: client slow with its head";
    SlowBody "fault: client slow with its body";
    SlowReader "fault: client slow to read";
    ClientReset "fault: client resets";
    ClientCloses "fault: client closes early";
    HalfClose "fault: client half-closes";
    Smuggling "fault: client sends what must be refused";
    NoConnectionLeft "fault: backend refuses";
    BlackHole "fault: backend takes no connection";
    Unreachable "fault: backend unreachable";
    EarlyResponse "fault: backend answers early";
    Truncated "fault: backend truncates its answer";
    Surplus "fault: backend sends too much";
    ClosedOnReuse "fault: backend closes when reused";
    ClosedIdle "fault: backend closes an idle connection";
    BackendResets "fault: backend resets instead of answering";
    BackendCloses "fault: backend closes instead of answering";
    NeverResponses "fault: backend never answers";
    SlowResponse "fault: backend answers slowly";
    StopsMidway "fault: backend stops in the middle";
    StopsReading "fault: backend stops reading";
    InterimStorm "fault: storm of interim answers";
    Garbage "fault: backend sends garbage";
    UnaskedSwitch "fault: unasked 101";
    Flapped "fault: backend flaps";
    ProbeFineTrafficBad "fault: probe fine, traffic bad";
    ProbeBadTrafficFine "fault: probe bad, traffic fine";
    FewPages "fault: few pages";
    FewFiles "fault: connect without a descriptor";
    AcceptPaused "fault: accepting paused";
    SlowLookup "fault: slow lookup";
    LostLookup "fault: lost lookup";
    DoubleLookup "fault: lookup answered twice";
    FailedLookup "fault: failed lookup";
    Reloaded "fault: reload under traffic";
    BackendRemoved "fault: backend removed by a reload";
    BackendAdded "fault: backend added by a reload";
    DrainedUnderTraffic "fault: drain under traffic";
    DelayedNudge "fault: delayed nudge";
    Exchange "exchanges answered by a backend";
    OwnResponse "exchanges answered by the proxy";
    CutResponse "exchanges cut";
    Reused "reused backend connection";
    Retried "attempts beyond the first";
    KeptAlive "second request on a client connection";
    Pipelined "pipelined request";
    Http10 "client of HTTP/1.0";
    Head "HEAD";
    LengthBody "request body by length";
    ChunkedBody "request body by chunks";
    Trailers "trailers passed";
    CloseDelimited "answer until close";
    ChunkedResponse "answer by chunks";
    LongBody "body longer than a page";
    Expected100 "100 (continue) passed";
    Interim "interim answer passed";
    Tunnel "tunnel";
    TunnelHalfClose "half-close through a tunnel";
    Queued "waited for a slot";
    Refused "client connection refused";
    Starved "reader without a page";
    Backlogged "put on the backlog";
    Nudged "shard nudged";
    BecameUnhealthy "backend became unhealthy";
    BecameHealthy "backend became healthy";
    BecameSlow "backend became slow";
    ResponseContext "stage asked a lookup";
    Transformed "answer transformed";
    HealedAll "healed run";
}

/// Counts by mark, and by the cause of every exchange that failed.
#[derive(Clone, Debug)]
pub struct Coverage {
    marks: [u64; Mark::ALL.len()],
    causes: BTreeMap<&'static str, u64>,
}

/// What every sweep of some size meets: the causes of the core, those of HTTP's rules taken together.
pub const CAUSES: &[&str] = &[
    "bad_request",
    "no_route",
    "no_backend",
    "queue_full",
    "queue_timeout",
    "lookup_failed",
    "no_pages",
    "connect_refused",
    "connect_unreachable",
    "connect_timeout",
    "connect_failed",
    "backend_closed",
    "backend_reset",
    "bad_answer",
    "backend_timeout",
    "response_truncated",
    "backend_stalled",
    "head_timeout",
    "client_stalled",
    "client_gone",
    "tunnel_timeout",
    "drained",
];

impl Default for Coverage {
    fn default() -> Self {
        Self { marks: [0; Mark::ALL.len()], causes: BTreeMap::new() }
    }
}

impl Coverage {
    /// It happened.
    pub fn mark(&mut self, mark: Mark) {
        self.marks[mark as usize] += 1;
    }

    /// An exchange failed for this.
    pub fn cause(&mut self, name: &'static str) {
        *self.causes.entry(name).or_default() += 1;
    }

    /// How often a mark was met.
    #[must_use]
    pub fn of(&self, mark: Mark) -> u64 {
        self.marks[mark as usize]
    }

    /// Another run's counts, added.
    pub fn add(&mut self, other: &Self) {
        for (sum, n) in self.marks.iter_mut().zip(&other.marks) {
            *sum += n;
        }
        for (cause, n) in &other.causes {
            *self.causes.entry(cause).or_default() += n;
        }
    }

    /// All counts, by name.
    #[must_use]
    pub fn table(&self) -> Vec<(String, u64)> {
        let marks = Mark::ALL.iter().map(|m| (m.name().to_owned(), self.of(*m)));
        let causes = CAUSES.iter().map(|c| (format!("cause: {c}"), self.causes.get(c).copied().unwrap_or(0)));
        marks.chain(causes).collect()
    }

    /// What never happened.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        self.table().into_iter().filter(|(_, n)| *n == 0).map(|(name, _)| name).collect()
    }
}
