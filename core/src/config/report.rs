//! Collects diagnostics while a file is read.

use std::ops::Range;

use toml::Spanned;
use toml::de::DeValue;

use super::diagnostic::{Diagnostic, Lines, Severity};

/// A TOML value and its place in the file.
pub(super) type Value<'d> = Spanned<DeValue<'d>>;

/// A range of bytes of the file.
pub(super) type Span = Range<usize>;

/// Every diagnostic found so far.
pub(super) struct Report<'t> {
    /// The whole file.
    pub(super) text: &'t str,
    diagnostics: Vec<Diagnostic>,
    not_built: Vec<Diagnostic>,
    /// Missing keys are not reported: a syntax error may have hidden them.
    ignore_missing: bool,
}

fn diagnostic(severity: Severity, span: Span, message: String) -> Diagnostic {
    Diagnostic { severity, message, span, help: None, line: 0, column: 0 }
}

impl<'t> Report<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, diagnostics: Vec::new(), not_built: Vec::new(), ignore_missing: false }
    }

    /// From now on missing keys are not reported.
    pub(super) fn ignore_missing_keys(&mut self) {
        self.ignore_missing = true;
    }

    fn push(&mut self, severity: Severity, span: Span, message: String) -> &mut Diagnostic {
        let index = self.diagnostics.len();
        self.diagnostics.push(diagnostic(severity, span, message));
        &mut self.diagnostics[index]
    }

    /// Adds an error; the caller may set the help of what is returned.
    pub(super) fn error(&mut self, span: Span, message: impl Into<String>) -> &mut Diagnostic {
        self.push(Severity::Error, span, message.into())
    }

    /// Adds a warning; the caller may set the help of what is returned.
    pub(super) fn warning(&mut self, span: Span, message: impl Into<String>) -> &mut Diagnostic {
        self.push(Severity::Warning, span, message.into())
    }

    /// Adds the error that a required key is missing, unless syntax errors may have hidden the key.
    pub(super) fn missing(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        if !self.ignore_missing {
            self.error(span, message).help = Some(help.into());
        }
    }

    /// Adds the error that something valid can't be served yet.
    pub(super) fn not_built(&mut self, span: Span, what: &str) {
        self.not_built.push(diagnostic(Severity::Error, span, format!("{what} not built yet")));
    }

    /// Adds an error of the form "`key` must be a string, found an integer".
    pub(super) fn mistyped(&mut self, value: &Value<'_>, what: &str, expected: &str) {
        self.error(value.span(), format!("{what} must be {expected}, found {}", type_name(value)));
    }

    pub(super) fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|d| d.severity == Severity::Error)
    }

    /// Every diagnostic, and apart from them what is not built yet: each with its line and column, in the
    /// order of the file.
    pub(super) fn finish(mut self) -> (Vec<Diagnostic>, Vec<Diagnostic>) {
        let lines = Lines::new(self.text);
        lines.locate(&mut self.diagnostics);
        lines.locate(&mut self.not_built);
        (self.diagnostics, self.not_built)
    }
}

/// The type of a value as messages name it.
pub(super) fn type_name(value: &Value<'_>) -> &'static str {
    match value.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
