//! Errors of matcher texts.

use std::fmt;
use std::ops::Range;

use crate::config::diagnostic::Suggestion;

/// Something in a matcher's text that can't be read. It prints as its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// The bytes of the matcher's text that are meant, on character boundaries; may be empty.
    pub span: Range<usize>,
    /// What is wrong, in one line.
    pub message: String,
    /// How to correct it, if that is known.
    pub help: Option<String>,
    /// The text that the help names, for a part of the matcher's text.
    pub suggestion: Option<Suggestion>,
}

impl SyntaxError {
    pub(super) fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span, message: message.into(), help: None, suggestion: None }
    }

    pub(super) fn with_help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// Sets the help, and the text that it names for a part of the matcher.
    pub(super) fn suggest(
        self,
        help: impl Into<String>,
        span: Range<usize>,
        text: impl Into<String>,
    ) -> Self {
        let suggestion = Some(Suggestion { span, text: text.into() });
        Self { help: Some(help.into()), suggestion, ..self }
    }

    /// Sets the help to "write TEXT" for a part of the matcher.
    pub(super) fn write(self, span: Range<usize>, text: impl Into<String>) -> Self {
        let text = text.into();
        self.suggest(format!("write {text}"), span, text)
    }
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SyntaxError {}
