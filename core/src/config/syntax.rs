//! Files with errors in their TOML syntax: what is wrong, in the words of somebody who writes such a file,
//! and the file without the lines that can't be read, so that one mistake hides no other.
//!
//! A file is read here line by line only after the TOML parser has refused it.

mod explain;
mod scan;

use toml::de::DeTable;

use super::diagnostic::Lines;
use super::report::{Report, Span};
use explain::explain;
use scan::{Chunk, Kind, chunks};

/// What can be read of a file.
pub(super) struct Readable {
    /// The file with blanks in place of what can't be read; everything else is where it was.
    pub(super) text: String,
    /// The tables that have lost a line, each from its header to the next one.
    pub(super) broken: Vec<Span>,
}

/// Adds an error for each entry and header that can't be read, and leaves them out.
pub(super) fn readable(text: &str, report: &mut Report<'_>) -> Readable {
    let chunks = chunks(text);
    let is_bad =
        |chunk: &Chunk| chunk.unclosed.is_some() || DeTable::parse(&text[chunk.span.clone()]).is_err();
    let bad: Vec<bool> = chunks.iter().map(is_bad).collect();
    let mut lost = Vec::new();
    let mut broken = Vec::new();
    let first = chunks.first().map_or(0..0, |chunk| chunk.span.clone());
    let mut lines = text[first.clone()].lines();
    let is_entry = lines.next().is_none_or(|line| line.contains('=') || line.starts_with('['));
    let is_block = !is_entry && (lines.next().is_some() || text[first.clone()].starts_with('{'));
    if (bad.len() > 1 || is_block) && bad.iter().all(|&bad| bad) {
        // Nothing at all can be read: one error says so better than one for each line.
        report.error(first, explain::language(text)).help =
            Some("a configuration is TOML: lines like `http_address = \"[::]:80\"`".into());
        let whole = 0..text.len();
        return Readable { text: blanked(text, std::slice::from_ref(&whole)), broken: vec![whole] };
    }
    let mut table = 0..0;
    let mut is_broken = false;
    // The name of a header that can't be read: the entries below it, and its own tables, belong nowhere.
    let mut nameless: Option<&str> = None;
    for (chunk, bad) in chunks.iter().zip(bad) {
        if chunk.kind == Kind::Header {
            let next = table.start..chunk.span.start;
            if is_broken {
                broken.push(next);
            }
            table = chunk.span.clone();
            let name = scan::header_name(&text[chunk.span.clone()]);
            let is_below = nameless
                .is_some_and(|lost| name.strip_prefix(lost).is_some_and(|rest| rest.starts_with('.')));
            nameless = match nameless {
                Some(lost) if is_below => Some(lost),
                _ => bad.then_some(name),
            };
            is_broken = nameless.is_some();
        }
        if bad {
            explain(text, chunk, report);
            is_broken = true;
        }
        if bad || nameless.is_some() {
            lost.push(chunk.span.clone());
        }
    }
    if is_broken {
        broken.push(table.start..text.len());
    }
    Readable { text: blanked(text, &lost), broken }
}

/// Adds the errors that only the file as a whole has, such as keys that are there twice: one for each line.
pub(super) fn report_rest(errors: &[toml::de::Error], text: &str, report: &mut Report<'_>) {
    let lines = Lines::new(text);
    let mut last_line = None;
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        let line = Some(lines.index(span.start));
        if line != last_line {
            last_line = line;
            report.error(span, explain::in_plain_words(error.message()));
        }
    }
}

/// The text with blanks at these places; lines stay lines.
fn blanked(text: &str, places: &[Span]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for place in places {
        bytes[place.clone()].iter_mut().filter(|b| **b != b'\n').for_each(|b| *b = b' ');
    }
    // Whole characters are replaced, so this never fails.
    String::from_utf8(bytes).unwrap_or_default()
}
