//! Runs loom models, and every pair of a type's operations: two operations at the same time must end as they
//! do one after the other, in either order.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use loom::thread::{self, JoinHandle};

/// Which thread goes first in the first run of a model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    others_first: bool,
}

impl Order {
    pub(crate) fn spawn<T: 'static>(self, run: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
        let t = thread::spawn(run);
        if self.others_first {
            thread::yield_now();
        }
        t
    }
}

/// Runs a model in every order, starting from both. Loom finds further orders from those it has run, by the
/// last access to each object. It overlooks orders in which a thread that only reads comes before another
/// that reads and writes, but not the other way round; hence both starts.
pub(crate) fn both_ways(model: impl Fn(Order) + Send + Sync + 'static) {
    let model = Arc::new(model);
    for others_first in [false, true] {
        let model = model.clone();
        loom::model(move || model(Order { others_first }));
    }
}

/// An operation with its name; its result is text, so that operations of all types are alike.
pub(crate) type Op<S> = (&'static str, fn(&S) -> String);

/// Runs every pair of `ops` (an operation with itself as well) on a `fresh` state at the same time. Asserts
/// that their results and what `end` sees then are those of one order of the two; and that both orders occur,
/// so that nothing passes because it was not run.
pub(crate) fn each_pair_has_an_order<S: Send + Sync + 'static>(
    fresh: fn() -> S,
    ops: &[Op<S>],
    end: fn(&S) -> String,
) {
    for (place, &one) in ops.iter().enumerate() {
        for &other in &ops[place..] {
            let first = one_by_one(fresh, one, other, end);
            let (theirs, ours, seen) = one_by_one(fresh, other, one, end);
            let second = (ours, theirs, seen);
            let met = at_once(fresh, one, other, end);
            for outcome in &met {
                assert!(
                    *outcome == first || *outcome == second,
                    "{} with {} ends as {outcome:?}, one after the other as {first:?} or {second:?}",
                    one.0,
                    other.0
                );
            }
            assert!(
                met.contains(&first) && met.contains(&second),
                "{} with {}: an order was not run, {met:?}",
                one.0,
                other.0
            );
        }
    }
}

type PairResult = (String, String, String);

fn one_by_one<S: 'static>(
    fresh: fn() -> S,
    first: Op<S>,
    second: Op<S>,
    end: fn(&S) -> String,
) -> PairResult {
    let outcome = Arc::new(Mutex::new(None));
    let result = outcome.clone();
    loom::model(move || {
        let state = fresh();
        let (first, second) = ((first.1)(&state), (second.1)(&state));
        *result.lock().unwrap() = Some((first, second, end(&state)));
    });
    outcome.lock().unwrap().take().expect("run once")
}

fn at_once<S: Send + Sync + 'static>(
    fresh: fn() -> S,
    one: Op<S>,
    other: Op<S>,
    end: fn(&S) -> String,
) -> BTreeSet<PairResult> {
    let met = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = met.clone();
    both_ways(move |order| {
        let state = Arc::new(fresh());
        let theirs = state.clone();
        let t = order.spawn(move || (other.1)(&theirs));
        let ours = (one.1)(&state);
        let theirs = t.join().unwrap();
        let end = end(&state);
        seen.lock().unwrap().insert((ours, theirs, end));
    });
    std::mem::take(&mut *met.lock().unwrap())
}
