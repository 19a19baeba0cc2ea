//! Bugs that are put into the core on purpose, one at a time and only with the feature `planted`: each must
//! be found.

/// Within so many seeds a bug has to be found.
pub const SEEDS: u64 = 300;

/// The bugs: the number that chooses one in the core, and what is wrong then.
pub const BUGS: &[(u32, &str)] = &[
    (1, "a page is not given back"),
    (2, "the in-flight counter is not decremented"),
    (3, "a POST is retried"),
    (4, "a connection without a page to read is never woken"),
    (5, "a stale id is accepted"),
    (6, "the results of probes are ignored"),
    (7, "a half-close through a tunnel is swallowed"),
    (8, "a chunk header says one byte too many"),
    (9, "a timer is not moved when its deadline comes nearer"),
    (10, "a connection with bytes left over goes back to the pool"),
    (11, "a recycled buffer is not cleared before a local reply"),
    (12, "a request is retried after its response had begun"),
    (13, "the chunked encoder is not rewound for a retry"),
    (14, "max_connections is ignored"),
    (15, "an unhealthy backend is still chosen"),
    (16, "a free connection slot wakes no waiting request"),
    (17, "a free connection slot nudges no other shard"),
    (18, "an exchange ends twice"),
    (19, "a retried exchange is not recorded"),
    (20, "an incomplete response ends like a complete one"),
    (21, "a tunnel that is cut ends like a whole one"),
    (22, "one shard never reports that it has drained"),
    (23, "an interim response reaches a client of HTTP/1.0"),
    (24, "a 100 (continue) is swallowed"),
    (25, "round robin skips every other turn"),
    (26, "a connection lives on after half a request"),
    (27, "a truncated response counts as complete"),
    (28, "bytes for a client do not wake its connection"),
    (29, "a client whose close lingered stays counted"),
];

/// Runs seeds with each bug until it is found, and prints a line for each. True if all were found.
#[cfg(feature = "planted")]
pub fn check(print: &mut dyn FnMut(&str)) -> bool {
    let mut not_found = 0;
    print(&format!("{:>3}  {:<58} {:>5}  {:<20}", "bug", "what is wrong", "seed", "found by"));
    for (number, what) in BUGS {
        ruststrom_core::planted::choose(*number);
        let found = (1..=SEEDS).find_map(|seed| Some((seed, crate::run(seed, false).violation?)));
        ruststrom_core::planted::choose(0);
        match found {
            Some((seed, violation)) => {
                let details: String = violation.details.chars().take(70).collect();
                print(&format!("{number:>3}  {what:<58} {seed:>5}  {:<20} {details}", violation.invariant));
            }
            None => {
                not_found += 1;
                print(&format!("{number:>3}  {what:<58}     -  NOT FOUND in {SEEDS} seeds"));
            }
        }
    }
    print(&format!("{} planted bugs, {not_found} not found", BUGS.len()));
    not_found == 0
}

/// Prints that this build has no planted bugs. False.
#[cfg(not(feature = "planted"))]
pub fn check(print: &mut dyn FnMut(&str)) -> bool {
    print(
        "this build has no planted bugs: \
         cargo run --profile sim -p ruststrom-sim --features planted -- --planted",
    );
    false
}
