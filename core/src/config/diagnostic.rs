//! What is wrong with a file, where, and what to do about it; and that as text.

use std::fmt::Write as _;
use std::ops::Range;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The file can't be used.
    Error,
    /// The file can be used, but probably isn't what was meant.
    Warning,
}

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// One line, lower case, without a final dot.
    pub message: String,
    /// Bytes of the file; may be empty.
    pub span: Range<usize>,
    /// What to do.
    pub help: Option<String>,
    /// Line of the span's start, from 1.
    pub line: usize,
    /// Character of that line, from 1.
    pub column: usize,
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

    pub(super) fn count(&self) -> usize {
        self.starts.len()
    }

    /// A line without its end.
    pub(super) fn line(&self, index: usize) -> &'t str {
        let end = self.starts.get(index + 1).copied().unwrap_or(self.text.len());
        let line = &self.text[self.starts[index]..end];
        let line = line.strip_suffix('\n').unwrap_or(line);
        line.strip_suffix('\r').unwrap_or(line)
    }

    /// The nearest place at or before `at` that is within the text and between two characters.
    fn floor(&self, at: usize) -> usize {
        let at = at.min(self.text.len());
        (0..=at).rev().find(|&i| self.text.is_char_boundary(i)).unwrap_or(0)
    }

    /// Puts them into the order of the file, their spans onto character boundaries, and fills in lines and
    /// columns.
    pub(super) fn place(&self, diagnostics: &mut Vec<Diagnostic>) {
        for d in diagnostics.iter_mut() {
            let start = self.floor(d.span.start);
            d.span = start..self.floor(d.span.end).max(start);
            tidy(&mut d.message);
            d.help.as_mut().map(tidy);
        }
        diagnostics.sort_by_key(|d| (d.span.start, d.span.end));
        diagnostics.dedup();
        // Columns count on from the diagnostic before: a long line full of mistakes is still read once only.
        let (mut line, mut at, mut column) = (0, 0, 1);
        for d in diagnostics {
            let index = self.index(d.span.start);
            if index != line {
                (line, at, column) = (index, self.starts[index], 1);
            }
            // A byte order mark is nothing that an editor counts.
            column += self.text[at..d.span.start].chars().filter(|&c| c != '\u{feff}').count();
            at = d.span.start;
            (d.line, d.column) = (line + 1, column);
        }
    }
}

/// Whatever of the file got into a message, it stays one line of bounded length and moves no terminal's
/// cursor.
fn tidy(text: &mut String) {
    const LONGEST: usize = 400;
    if text.len() > LONGEST || text.contains(char::is_control) {
        *text = text.chars().take(LONGEST).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    }
}

/// As text: for each `file:line:column: severity: message`, the line, a caret below the place, and the help.
#[must_use]
pub fn render(diagnostics: &[Diagnostic], file_name: &str, text: &str) -> String {
    let lines = Lines::new(text);
    let mut out = String::new();
    for d in diagnostics {
        let severity = match d.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        // Writing to a String can't fail.
        let _ = writeln!(out, "{file_name}:{}:{}: {severity}: {}", d.line, d.column, d.message);
        let start = lines.floor(d.span.start);
        let index = lines.index(start);
        let line = lines.line(index);
        if !line.trim().is_empty() {
            let from = (start - lines.starts[index]).min(line.len());
            let until = lines.floor(d.span.end).saturating_sub(lines.starts[index]).clamp(from, line.len());
            excerpt(&mut out, d.line, line, from..until);
        }
        if let Some(help) = &d.help {
            let _ = writeln!(out, "{:width$} = help: {help}", "", width = digits(d.line));
        }
    }
    out
}

fn digits(line: usize) -> usize {
    line.to_string().len()
}

/// The line and the caret. Of a very long line only the part around the place is shown.
fn excerpt(out: &mut String, number: usize, line: &str, span: Range<usize>) {
    const BEFORE: usize = 60;
    const SHOWN: usize = 140;
    let visible = |c: char| if c.is_control() && c != '\t' { '\u{fffd}' } else { c };
    let before = if line.len() > SHOWN { BEFORE } else { usize::MAX };
    let from = line[..span.start].char_indices().rev().take(before).last().map_or(span.start, |(i, _)| i);
    let lead = &line[from..span.start];

    let mut shown = String::new();
    let mut caret = String::new();
    if from > 0 {
        shown.push('…');
        caret.push(' ');
    }
    // Tabs below tabs, so that the caret stands where the line is wrong however wide they are.
    caret.extend(lead.chars().filter(|&c| c != '\u{feff}').map(|c| if c == '\t' { '\t' } else { ' ' }));
    let mut chars = line[from..].chars();
    shown.extend(chars.by_ref().take(SHOWN).filter(|&c| c != '\u{feff}').map(visible));
    if chars.next().is_some() {
        shown.push('…');
    }
    let room = SHOWN.saturating_sub(lead.chars().count());
    let marked = line[span].chars().take(room).count().max(1);
    caret.extend(std::iter::repeat_n('^', marked));

    let _ = writeln!(out, "{number} | {}", shown.trim_end());
    let _ = writeln!(out, "{:width$} | {caret}", "", width = digits(number));
}
