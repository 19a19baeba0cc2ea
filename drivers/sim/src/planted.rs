//! Bugs on purpose: the core has them only when built for this, one at a time, and each must be caught.

/// Seeds that a bug may need.
pub const SEEDS: u64 = 300;

/// The number that the core knows it by, and what is wrong with it.
pub const BUGS: &[(u32, &str)] = &[
    (1, "a page is not given back"),
    (2, "the in-flight counter is not decremented"),
    (3, "a POST is retried"),
    (4, "a reader that found no page is never listed again"),
    (5, "a stale id is accepted"),
    (6, "the results of probes are ignored"),
    (7, "a half-close through a tunnel is swallowed"),
    (8, "a chunk header says one byte too many"),
    (9, "a deadline that comes nearer is not filed again"),
    (10, "a connection with bytes left over goes back to the pool"),
    (11, "a recycled buffer is not cleared before our own answer"),
    (12, "a request is retried after its answer had begun"),
    (13, "the chunk writer is not rewound for a retry"),
    (14, "max_connections is not looked at"),
    (15, "an unhealthy backend stays in the order"),
    (16, "a free slot wakes nobody"),
    (17, "a free slot wakes no other shard"),
    (18, "an exchange ends twice"),
    (19, "a retried exchange is not told of"),
    (20, "half an answer ends like a whole one"),
    (21, "a tunnel that is cut ends like a whole one"),
    (22, "one shard never says that it has drained"),
    (23, "an interim answer reaches a client of HTTP/1.0"),
    (24, "a 100 (continue) is swallowed"),
    (25, "round robin steps over every other turn"),
    (26, "a connection lives on after half a request"),
    (27, "a truncated answer counts as complete"),
    (28, "bytes for a client wake nobody"),
    (29, "a client that lingered is never uncounted"),
];

/// Runs each planted bug until it is caught; true if all were.
#[cfg(feature = "planted")]
pub fn check(say: &mut dyn FnMut(&str)) -> bool {
    let mut missed = 0;
    say(&format!("{:>3}  {:<58} {:>5}  {:<20}", "bug", "what is wrong", "seed", "caught by"));
    for (number, what) in BUGS {
        ruststrom_core::planted::choose(*number);
        let caught = (1..=SEEDS).find_map(|seed| Some((seed, crate::run(seed, false).violation?)));
        ruststrom_core::planted::choose(0);
        match caught {
            Some((seed, violation)) => {
                let text: String = violation.text.chars().take(70).collect();
                say(&format!("{number:>3}  {what:<58} {seed:>5}  {:<20} {text}", violation.invariant));
            }
            None => {
                missed += 1;
                say(&format!("{number:>3}  {what:<58}     -  NOT CAUGHT in {SEEDS} seeds"));
            }
        }
    }
    say(&format!("{} planted bugs, {missed} not caught", BUGS.len()));
    missed == 0
}

/// Says that there are none.
#[cfg(not(feature = "planted"))]
pub fn check(say: &mut dyn FnMut(&str)) -> bool {
    say(
        "this was built without planted bugs: cargo run --profile sim -p ruststrom-sim --features planted -- --planted",
    );
    false
}
