//! The vocabulary that HTTP/1.1 and, later, HTTP/2 share.

/// A rule of HTTP that a message broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// Nothing that fits a start line.
    StartLine,
}

impl Violation {
    /// Short and stable.
    #[must_use]
    pub fn name(self) -> &'static str {
        "start_line"
    }
    /// 400, 413, 414, 417, 431, 501 or 505.
    #[must_use]
    pub fn status(self) -> u16 {
        400
    }
}
