//! The matcher language.

/// A parsed matcher.
#[derive(Clone, Debug, PartialEq)]
pub enum Matcher {
    /// Takes everything.
    Any,
}
