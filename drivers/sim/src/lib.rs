//! The third driver: the real pump and the real core in a world that is all dice. Sockets, timers, clients
//! and backends come from one seed; faults happen as the seed has drawn them; judges look on at every event.
//! A run that fails is a number that anyone can run again.
//!
//! The same sockets and shards without the dice's clients and backends are [`scripted`]: a test says what
//! those do, and what it sees must be what it sees of the drivers that have a kernel.
#![forbid(unsafe_code)]

mod client;
mod coverage;
mod dice;
mod draw;
mod ledger;
mod net;
pub mod planted;
mod run;
pub mod scripted;
mod server;
mod shard;
mod smuggle;
mod stages;
mod wire;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

pub use coverage::{CAUSES, Coverage, Mark};
pub use draw::Draw;
pub use ledger::Violation;

/// What became of a run.
#[derive(Debug)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// What was broken first; `None`: nothing.
    pub violation: Option<Violation>,
    /// What happened.
    pub coverage: Coverage,
    /// Of everything that happened, in order.
    pub hash: u64,
    /// How many events there were.
    pub events: u64,
    /// What happened, in words, if that was wanted.
    pub trace: Vec<String>,
}

impl Outcome {
    /// Answers that clients have seen whole, from backends or from the proxy itself. Probes, tunnels and
    /// answers that were cut are none.
    #[must_use]
    pub fn exchanges(&self) -> u64 {
        self.coverage.of(Mark::Exchange) + self.coverage.of(Mark::OwnResponse)
    }
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A panic in a run is a finding, not noise: its words and place are kept for the report.
fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let inside = RUNNING.with(|r| *r.borrow());
            if !inside {
                return before(info);
            }
            let said = info.payload();
            let text = said
                .downcast_ref::<&str>()
                .copied()
                .or_else(|| said.downcast_ref::<String>().map(String::as_str));
            let text = text.unwrap_or("a panic without words");
            let place = info.location().map(|l| format!("{}:{}", l.file(), l.line())).unwrap_or_default();
            PANIC.with(|p| p.borrow_mut().get_or_insert_with(|| format!("{place}: {text}")).truncate(600));
        }));
    });
}

thread_local! {
    static RUNNING: RefCell<bool> = const { RefCell::new(false) };
}

/// Runs a seed once.
#[must_use]
pub fn run(seed: u64, traced: bool) -> Outcome {
    listen();
    let draw = Draw::new(seed);
    RUNNING.with(|r| *r.borrow_mut() = true);
    PANIC.with(|p| *p.borrow_mut() = None);
    let mut made = None;
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let sim = made.insert(run::Sim::new(&draw, traced));
        sim.run();
    }));
    let panic = PANIC.with(|p| p.borrow_mut().take());
    if let (Err(_), Some(sim)) = (&ran, &mut made) {
        sim.net.ledger.fail("invariant", panic.clone().unwrap_or_default());
    }
    // What a panic has left behind may panic again.
    let finished = catch_unwind(AssertUnwindSafe(|| made.map(run::Sim::result)));
    RUNNING.with(|r| *r.borrow_mut() = false);
    match finished {
        Ok(Some((violation, coverage, hash, events, trace))) => {
            Outcome { seed, violation, coverage, hash, events, trace }
        }
        _ => Outcome {
            seed,
            violation: Some(Violation { invariant: "invariant".into(), text: panic.unwrap_or_default() }),
            coverage: Coverage::default(),
            hash: 0,
            events: 0,
            trace: Vec::new(),
        },
    }
}

/// Runs a seed twice: the same must happen.
#[must_use]
pub fn run_twice(seed: u64) -> Outcome {
    let first = run(seed, false);
    if first.violation.is_some() {
        return first;
    }
    let second = run(seed, false);
    if (first.hash, first.events) == (second.hash, second.events) {
        return first;
    }
    let text = format!(
        "{:x} after {} events, then {:x} after {}",
        first.hash, first.events, second.hash, second.events
    );
    Outcome { violation: Some(Violation { invariant: "same-seed-same-run".into(), text }), ..first }
}
