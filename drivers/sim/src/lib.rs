//! The third driver: the real pump and the real core over simulated sockets, timers, clients and backends,
//! all of which follow from one seed. A run that fails is a number that anyone can run again.
//!
//! # A run
//! The seed first *draws* a [`Scenario`]: how many shards, clients and backends there are, the configuration,
//! and how often each fault happens. Then events are taken from a queue in the order of their time, and the
//! clock jumps from one to the next: a shard's event loop has a turn, bytes arrive, a client or a backend
//! reads and writes, a configuration is reloaded. While there is traffic, *faults* happen: short reads,
//! resets, slow peers, lost lookups, backends that disappear. *Invariants* are checked throughout: clients
//! and backends compare every byte with what the other end has sent, the ledger compares what the core
//! records of an exchange with what happened, and the structure of core and pump is checked after every turn.
//! At some time the run *heals*: no fault happens any more. From then on *liveness* is demanded: every
//! request gets a response, all backends become healthy, new clients are served, and a drain leaves nothing
//! behind. All events go into a hash, and a *replay* of the seed must give the same one.
//!
//! # The files
//! | file | what it holds |
//! |---|---|
//! | `random` | the random source |
//! | `scenario` | what a seed draws before the run |
//! | `scenario/config`, `scenario/listeners` | the configuration among it, and where it listens |
//! | `scenario/middlewares`, `scenario/rewriting` | the middlewares of its pools |
//! | `scenario/http2` | who speaks HTTP/2, and how |
//! | `scenario/admin` | what clients ask the admin listener |
//! | `net` | the state of the network: clock, connections (`socket`), events to come (`event_queue`) |
//! | `net/shard_world`, `net/peer_io` | how the pump, and how peers, use their ends of a connection |
//! | `net/plaintext_world` | the sockets as the event loop sees them, with the security layer between |
//! | `net/peer_tls` | how peers speak TLS, and what they do wrong with it |
//! | `net/stream_log` | what has happened to the streams of a connection to a backend |
//! | `net/backend_choice` | which backend a request may be sent to |
//! | `shard` | a worker: when its event loop has turns, and in which order it is told what has happened |
//! | `client`, `backend` | the peers: what they send, what they do wrong, what they check |
//! | `fields` | header fields and trailers of messages, and what must become of them |
//! | `identities` | NTLM and Negotiate, which authenticate a connection |
//! | `codings`, `credentials` | what clients of pools with such middlewares say, and what is to come of it |
//! | `http1`, `payload` | HTTP/1.1 for the peers, and body bytes that can be checked anywhere |
//! | `http2` | HTTP/2 for the peers: frames, HPACK, and a ledger of credit |
//! | `client/streams` | clients that speak it: many requests on one connection |
//! | `backend/streams` | backends that do: requests of many clients on one connection |
//! | `choices` | which backends were chosen, and from which |
//! | `websockets` | the handshake of WebSocket |
//! | `tls` | a security layer without cryptography, for the proxy and for its peers |
//! | `invalid_requests` | requests that must be refused |
//! | `stages` | middlewares that some scenarios configure |
//! | `chains` | what the built-in middlewares of a pool must make of a request and of its response |
//! | `exchanges` | the ledger of all requests with what is expected of them |
//! | `judges` | the reference model: what the documentation says, held against what happened |
//! | `coverage` | what happened how often, so that a fault that never happens is noticed |
//! | `run` | a run, its phases, the changes of the system, the checks of more than one party |
//! | `planted` | bugs that are put into the core on purpose, and must be found |
//! | [`scripted`] | the same network without drawn clients and backends: a test plays them |
//!
//! # Words
//! *peer*: the client or backend at the other end of a connection of the proxy. *Turn*: what an event loop,
//! or a peer, does between two waits. *Shard*: a worker with its own core. *Mark*: a counter of [`Coverage`].
//! *Readiness edge*: the report of a poller that a socket's readiness has changed. *Nudge*: the message of
//! one shard to another that shared state has changed. *Settle*: to carry out everything that the core wants
//! after an input.
#![forbid(unsafe_code)]

mod backend;
mod chains;
mod choices;
mod client;
mod codings;
mod coverage;
mod credentials;
mod exchanges;
mod fields;
mod http1;
mod http2;
mod identities;
mod invalid_requests;
mod judges;
mod net;
mod payload;
pub mod planted;
mod random;
mod run;
mod scenario;
pub mod scripted;
mod shard;
mod stages;
mod tls;
mod websockets;

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use crate::run::{RunResult, Simulation};

pub use coverage::{Coverage, Mark};
pub use exchanges::InvariantViolation;
pub use scenario::Scenario;

/// How many characters of a panic's message are kept.
const MAX_PANIC_CHARS: usize = 600;

/// How a run went.
#[derive(Debug)]
pub struct RunReport {
    /// The seed that was run.
    pub seed: u64,
    /// The first invariant that was violated; `None`: the run was clean.
    pub violation: Option<InvariantViolation>,
    /// What happened how often.
    pub coverage: Coverage,
    /// A hash of all that happened, in its order.
    pub hash: u64,
    /// How many events there were.
    pub events: u64,
    /// The newest events in words, if the run was traced.
    pub trace: Vec<String>,
}

impl RunReport {
    /// How many complete responses clients have received, of backends or of the proxy itself. Probes, tunnels
    /// and incomplete responses do not count.
    #[must_use]
    pub fn exchanges(&self) -> u64 {
        self.coverage.of(Mark::BackendResponse) + self.coverage.of(Mark::LocalReply)
    }
}

thread_local! {
    /// The first panic of the run on this thread.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    /// This thread is running a seed.
    static RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// A panic in a run is a result of that run: its message is kept for the report instead of being printed.
fn install_panic_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !RUNNING.get() {
                return previous(info);
            }
            let payload = info.payload();
            let text = payload
                .downcast_ref::<&str>()
                .copied()
                .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
                .unwrap_or("a panic without a message");
            let place = info.location().map(|l| format!("{}:{}", l.file(), l.line())).unwrap_or_default();
            let message = || format!("{place}: {text}").chars().take(MAX_PANIC_CHARS).collect();
            PANIC.with(|panic| {
                panic.borrow_mut().get_or_insert_with(message);
            });
        }));
    });
}

/// Runs a seed once. `traced`: the report has the newest events in words, which takes its time.
#[must_use]
pub fn run(seed: u64, traced: bool) -> RunReport {
    install_panic_hook();
    let scenario = Scenario::new(seed);
    RUNNING.set(true);
    PANIC.take();
    let mut simulation = None;
    let ran = catch_unwind(AssertUnwindSafe(|| {
        simulation.insert(Simulation::new(&scenario, traced)).run();
    }));
    let panic = PANIC.take().unwrap_or_default();
    if let (Err(_), Some(simulation)) = (&ran, &mut simulation) {
        simulation.net.ledger.fail("no-panic", panic.clone());
    }
    // After a panic, dropping what it has left behind may panic again.
    let result = catch_unwind(AssertUnwindSafe(|| simulation.map(Simulation::result)));
    RUNNING.set(false);
    let RunResult { violation, coverage, hash, events, trace } =
        result.ok().flatten().unwrap_or_else(|| RunResult {
            violation: Some(InvariantViolation { invariant: "no-panic".into(), details: panic }),
            coverage: Coverage::default(),
            hash: 0,
            events: 0,
            trace: Vec::new(),
        });
    RunReport { seed, violation, coverage, hash, events, trace }
}

/// Runs a seed twice: the same must happen.
#[must_use]
pub fn run_twice(seed: u64) -> RunReport {
    let first = run(seed, false);
    if first.violation.is_some() {
        return first;
    }
    let second = run(seed, false);
    if (first.hash, first.events) == (second.hash, second.events) {
        return first;
    }
    let details = format!(
        "{:x} after {} events, then {:x} after {}",
        first.hash, first.events, second.hash, second.events
    );
    RunReport {
        violation: Some(InvariantViolation { invariant: "same-seed-same-run".into(), details }),
        ..first
    }
}
