//! Errors of matcher texts.

use std::fmt;
use std::ops::Range;

/// Something in a matcher's text that can't be read. It prints as its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// The bytes of the matcher's text that are meant, on character boundaries; may be empty.
    pub span: Range<usize>,
    /// What is wrong, in one line.
    pub message: String,
    /// How to correct it, if that is known.
    pub help: Option<String>,
}

impl SyntaxError {
    pub(super) fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span, message: message.into(), help: None }
    }

    pub(super) fn with_help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SyntaxError {}
