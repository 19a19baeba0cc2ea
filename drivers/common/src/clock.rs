//! The two clocks: a monotonic one whose epoch all shards share, and the wall clock. Also the host's name and
//! its entropy.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use ruststrom_core::{Instant, Wall};

/// A moment of the process, and what [`now`] said then: one pair for all, because shards compare instants.
static EPOCH: OnceLock<(std::time::Instant, Instant)> = OnceLock::new();

/// The epoch lies a little in the past, so that nothing happens at time zero.
const HEAD_START_NS: u64 = 1_000_000_000;

/// The monotonic time. Its epoch is that of CLOCK_MONOTONIC, but for a second: before the process, so that
/// what another one saw before can be told, too.
#[must_use]
pub fn now() -> Instant {
    let begin = || (std::time::Instant::now(), Instant::from_nanos(common_ns() + HEAD_START_NS));
    let (epoch, time) = EPOCH.get_or_init(begin);
    *time + epoch.elapsed()
}

/// The time of CLOCK_MONOTONIC, which all processes of a machine have, in nanoseconds.
#[must_use]
pub fn common_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// When that clock had this time; `None`: it has not had it yet.
#[must_use]
pub fn at_common(ns: u64) -> Option<Instant> {
    let ago = common_ns().checked_sub(ns)?;
    Some(now() - std::time::Duration::from_nanos(ago))
}

/// The wall-clock time; 1970-01-01 if the clock is set to something earlier.
#[must_use]
pub fn wall() -> Wall {
    let d = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall { unix_secs: d.as_secs(), millis: d.subsec_millis() as u16 }
}

/// Eight bytes of the kernel's entropy, for the seed of random choices and of keyed hashes.
///
/// # Panics
/// If the kernel gives none.
#[must_use]
pub fn entropy() -> u64 {
    let mut bytes = [0_u8; 8];
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(n) => filled += n,
            Err(rustix::io::Errno::INTR) => {}
            // No kernel we run on lacks the call. Without entropy the keyed hashes would be guessable: do not
            // start.
            Err(e) => panic!("the kernel gives no entropy: {e}"),
        }
    }
    u64::from_ne_bytes(bytes)
}

/// The host's name, for `X-Forwarded-Server`.
#[must_use]
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_forward_from_after_zero() {
        let a = now();
        let b = now();
        assert!(a > Instant::ZERO && b >= a);
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(now().since(a) >= std::time::Duration::from_millis(2));
    }

    #[test]
    fn a_time_of_the_common_clock_is_found() {
        let (before, common, after) = (now(), common_ns(), now());
        std::thread::sleep(std::time::Duration::from_millis(3));
        let found = at_common(common).expect("it was");
        // The clocks are read one after the other, each time.
        let slack = std::time::Duration::from_millis(500);
        assert!(found + slack >= before && found <= after + slack, "{before:?} {found:?} {after:?}");
        assert_eq!(at_common(common_ns() + 10_000_000_000), None);
        assert!(at_common(0).is_some_and(|boot| boot < before));
    }

    #[test]
    fn threads_share_the_epoch() {
        let before = now();
        let there = std::thread::spawn(now).join().expect("no panic");
        let after = now();
        assert!(before <= there && there <= after);
    }

    #[test]
    fn the_wall_is_in_this_millennium_and_seeds_differ() {
        let w = wall();
        assert!(w.unix_secs > 1_700_000_000 && w.millis < 1000);
        assert_ne!(entropy(), entropy());
        assert!(!hostname().is_empty());
    }
}
