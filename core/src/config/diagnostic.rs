//! Diagnostics as data: what is wrong with a file, where, and what to do about it. Their layout as text is in
//! `render`.

use std::fmt;
use std::ops::Range;

/// How serious a [`Diagnostic`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The file can't be used.
    Error,
    /// The file can be used, but probably doesn't do what was meant.
    Warning,
}

impl fmt::Display for Severity {
    /// `error` or `warning`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// One problem of a configuration file.
///
/// It prints as `LINE:COLUMN: SEVERITY: MESSAGE`, without the help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// One line of at most 400 characters, lower case, without a final dot or control characters.
    pub message: String,
    /// The bytes of the file that are meant, on character boundaries; may be empty.
    pub span: Range<usize>,
    /// How to correct it, if that is known: one line of at most 400 characters.
    pub help: Option<String>,
    /// The texts of the help that can be put into the file as they are; each alone corrects this problem.
    pub suggestions: Vec<Suggestion>,
    /// Line of the span's start, counted from 1.
    pub line: usize,
    /// Column of the span's start in characters, counted from 1. A byte order mark is not counted.
    pub column: usize,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.line, self.column, self.severity, self.message)
    }
}

impl std::error::Error for Diagnostic {}

/// A text that corrects a [`Diagnostic`] when it replaces a part of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion {
    /// The bytes of the file to replace, on character boundaries. An empty span is a place to insert at.
    pub span: Range<usize>,
    /// What to put there.
    pub text: String,
}

impl Diagnostic {
    /// What is to say about a part of the file `text` that the core can't look into, such as whether a name
    /// has an address.
    #[must_use]
    pub fn at(text: &str, span: Range<usize>, severity: Severity, message: String, help: &str) -> Self {
        let mut d = Self::new(severity, span, message);
        d.help = Some(help.into());
        let mut all = vec![d];
        Lines::new(text).locate(&mut all);
        all.remove(0)
    }

    /// A diagnostic without help, and without a line and column yet.
    pub(super) fn new(severity: Severity, span: Range<usize>, message: String) -> Self {
        Self { severity, message, span, help: None, suggestions: Vec::new(), line: 0, column: 0 }
    }

    /// Longest text that a help quotes whole; a longer one would be cut, and is of no use then.
    const MAX_SUGGESTION_CHARS: usize = 160;

    /// Sets the help to "write TEXT": the text replaces all that is marked.
    pub(super) fn write(&mut self, text: impl Into<String>) -> &mut Self {
        let text = text.into();
        self.suggest(format!("write {text}"), self.span.clone(), text)
    }

    /// Sets the help, and the text that it names for a part of the file. Too long a text is left out.
    pub(super) fn suggest(
        &mut self,
        help: impl Into<String>,
        span: Range<usize>,
        text: impl Into<String>,
    ) -> &mut Self {
        let text = text.into();
        if text.chars().count() <= Self::MAX_SUGGESTION_CHARS {
            self.help = Some(help.into());
            self.suggestions.push(Suggestion { span, text });
        }
        self
    }
}

/// Where the lines of a text begin.
pub(super) struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let after = memchr::memchr_iter(b'\n', text.as_bytes()).map(|i| i + 1);
        Self { text, starts: std::iter::once(0).chain(after).collect() }
    }

    /// Index of the line that holds the byte `at`.
    pub(super) fn index(&self, at: usize) -> usize {
        self.starts.partition_point(|&start| start <= at) - 1
    }

    /// Byte of the text at which the line begins.
    pub(super) fn start(&self, index: usize) -> usize {
        self.starts[index]
    }

    /// A line without its end.
    pub(super) fn line(&self, index: usize) -> &'t str {
        let end = self.starts.get(index + 1).copied().unwrap_or(self.text.len());
        let line = &self.text[self.starts[index]..end];
        let line = line.strip_suffix('\n').unwrap_or(line);
        line.strip_suffix('\r').unwrap_or(line)
    }

    /// The nearest byte at or before `at` that is within the text and on a character boundary.
    pub(super) fn floor(&self, at: usize) -> usize {
        let at = at.min(self.text.len());
        (0..=at).rev().find(|&i| self.text.is_char_boundary(i)).unwrap_or(0)
    }

    /// Sorts diagnostics by their place in the file, moves their spans onto character boundaries and fills in
    /// lines and columns.
    pub(super) fn locate(&self, diagnostics: &mut Vec<Diagnostic>) {
        for d in diagnostics.iter_mut() {
            let start = self.floor(d.span.start);
            d.span = start..self.floor(d.span.end).max(start);
            clip_message(&mut d.message);
            d.help.as_mut().map(clip_message);
            for s in &mut d.suggestions {
                let start = self.floor(s.span.start);
                s.span = start..self.floor(s.span.end).max(start);
            }
        }
        diagnostics.sort_by_key(|d| (d.span.start, d.span.end));
        diagnostics.dedup();
        // Columns are counted on from the last diagnostic, so that a line with many mistakes is read once.
        let (mut line, mut at, mut column) = (0, 0, 1);
        for d in diagnostics {
            let index = self.index(d.span.start);
            if index != line {
                (line, at, column) = (index, self.starts[index], 1);
            }
            // Editors don't count a byte order mark.
            column += self.text[at..d.span.start].chars().filter(|&c| c != '\u{feff}').count();
            at = d.span.start;
            (d.line, d.column) = (line + 1, column);
        }
    }
}

/// Replaces what could move a terminal's cursor.
fn printable(c: char) -> char {
    if c.is_control() { '\u{fffd}' } else { c }
}

/// Keeps a message on one line of bounded length, whatever text of the file it quotes.
fn clip_message(text: &mut String) {
    const MAX_CHARS: usize = 400;
    if text.len() > MAX_CHARS || text.contains(char::is_control) {
        *text = text.chars().take(MAX_CHARS).map(printable).collect();
    }
}

/// A text of the file as messages quote it: at most 60 characters, without control characters.
pub(super) fn clip(text: &str) -> String {
    const MAX_CHARS: usize = 60;
    let mut out: String = text.chars().take(MAX_CHARS).map(printable).collect();
    if text.chars().nth(MAX_CHARS).is_some() {
        out.push('…');
    }
    out
}
