//! Sticky cookies that backends' responses have set so far.

use std::collections::BTreeMap;

/// The value of each cookie that was set, with pool and label of its backend.
#[derive(Debug, Default)]
pub(crate) struct Cookies {
    pub(crate) values: BTreeMap<String, (&'static str, &'static str)>,
}

/// What a client sends that has no cookie yet: as long as one.
pub(crate) const NO_COOKIE: &str = "0000000000000000";

/// The field with a sticky cookie, among others with names that are nearly its.
pub(crate) fn field(value: &str) -> String {
    format!("XS=1; S={value}; s={NO_COOKIE}")
}
