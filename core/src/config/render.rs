//! Diagnostics as text. The first line of each has the form `FILE:LINE:COLUMN: SEVERITY: MESSAGE`, which
//! editors and `grep` understand; below it are the line of the file, a caret, and the help.
//!
//! All diagnostics together take time linear in their number and the file's length, also when a single line
//! has many of them.

use std::fmt::Write as _;
use std::ops::Range;

use super::diagnostic::{Diagnostic, Lines};

/// Lays out diagnostics of the file `text`, which is called `file_name`, without colours. Control characters
/// of the file are replaced (tabs excepted), and of a long line only the part around the span is shown.
#[must_use]
pub fn render(diagnostics: &[Diagnostic], file_name: &str, text: &str) -> String {
    let lines = Lines::new(text);
    let mut out = String::new();
    for d in diagnostics {
        // Writing to a String can't fail.
        let _ = writeln!(out, "{file_name}:{d}");
        let start = lines.floor(d.span.start);
        let index = lines.index(start);
        let line = lines.line(index);
        if !line.trim().is_empty() {
            let line_start = lines.start(index);
            let from = (start - line_start).min(line.len());
            let until = lines.floor(d.span.end).saturating_sub(line_start).clamp(from, line.len());
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

/// Writes the line and, below it, carets under `span`.
fn excerpt(out: &mut String, number: usize, line: &str, span: Range<usize>) {
    /// Characters shown before the span if the line is long.
    const BEFORE: usize = 60;
    /// Characters shown of a line.
    const SHOWN: usize = 140;
    let printable = |c: char| if c.is_control() && c != '\t' { '\u{fffd}' } else { c };
    let before = if line.len() > SHOWN { BEFORE } else { usize::MAX };
    let from = line[..span.start].char_indices().rev().take(before).last().map_or(span.start, |(i, _)| i);
    let lead = &line[from..span.start];

    let mut shown = String::new();
    let mut carets = String::new();
    if from > 0 {
        shown.push('…');
        carets.push(' ');
    }
    // A tab stays a tab, so that the caret is in the right column however wide tabs are.
    carets.extend(lead.chars().filter(|&c| c != '\u{feff}').map(|c| if c == '\t' { '\t' } else { ' ' }));
    let mut chars = line[from..].chars();
    shown.extend(chars.by_ref().take(SHOWN).filter(|&c| c != '\u{feff}').map(printable));
    if chars.next().is_some() {
        shown.push('…');
    }
    let room = SHOWN.saturating_sub(lead.chars().count());
    let marked = line[span].chars().take(room).count().max(1);
    carets.extend(std::iter::repeat_n('^', marked));

    let _ = writeln!(out, "{number} | {}", shown.trim_end());
    let _ = writeln!(out, "{:width$} | {carets}", "", width = digits(number));
}
