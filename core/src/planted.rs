//! Deliberate bugs, chosen at run time, that the simulator has to find. Without the feature `planted` none is
//! compiled in; with it, a build without debug assertions is refused.

#[cfg(feature = "planted")]
#[cfg(not(debug_assertions))]
compile_error!("planted bugs are for checking the simulator only");

/// Whether the bug of this number is switched on: never, without the feature `planted`.
#[cfg(not(feature = "planted"))]
macro_rules! planted {
    ($number:literal) => {
        false
    };
}

/// Whether the bug of this number is switched on.
#[cfg(feature = "planted")]
macro_rules! planted {
    ($number:literal) => {
        $crate::planted::is($number)
    };
}

pub(crate) use planted;

#[cfg(feature = "planted")]
static CHOSEN: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

/// Switches the bug of this number on and all others off; 0 switches all off.
#[cfg(feature = "planted")]
pub fn choose(number: u32) {
    CHOSEN.store(number, std::sync::atomic::Ordering::Relaxed);
}

/// Whether the bug of this number is switched on.
#[cfg(feature = "planted")]
#[must_use]
pub fn is(number: u32) -> bool {
    CHOSEN.load(std::sync::atomic::Ordering::Relaxed) == number
}
