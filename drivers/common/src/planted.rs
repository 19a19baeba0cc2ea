//! Deliberate bugs of the event loop, as in the core: without the feature `planted` none is compiled in.

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
        ruststrom_core::planted::is($number)
    };
}

pub(crate) use planted;
