//! Where headers and entries begin and end, also if they are wrong.

use crate::config::report::Span;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `[table]`
    Header,
    /// `key = value`, or whatever else there is.
    Entry,
}

/// A header, or an entry with all of its lines.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) kind: Kind,
    /// Without the blanks before and after it.
    pub(super) span: Span,
    /// Where there is an opening bracket or quote that is never closed.
    pub(super) unclosed: Option<usize>,
}

/// Lines after which a string or an inline table that has no end is given up.
const MAX_LINES: usize = 100;

/// Every header and entry in the order of the file; comments and blank lines are left out.
pub(super) fn chunks(text: &str) -> Vec<Chunk> {
    let mut found = Vec::new();
    let mut at = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    while at < text.len() {
        let line = line_at(text, at);
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            at += line.len() + 1;
            continue;
        }
        let start = at + (line.len() - line.trim_start().len());
        let (kind, end, unclosed) = if trimmed.starts_with('[') {
            (Kind::Header, at + line.len(), None)
        } else {
            let (end, unclosed) = entry_end(text, start);
            (Kind::Entry, end, unclosed)
        };
        let end_of_text = start + text[start..end].trim_end().len();
        found.push(Chunk { kind, span: start..end_of_text, unclosed });
        at = end + 1;
    }
    found
}

/// What a header names, without brackets, however many it has.
pub(super) fn header_name(header: &str) -> &str {
    let name = header.trim_start_matches('[');
    name.split([']', '#', ' ', '\t']).next().unwrap_or_default()
}

/// The line that begins at `at`, without its end.
fn line_at(text: &str, at: usize) -> &str {
    let rest = text.get(at..).unwrap_or_default();
    let line = rest.split('\n').next().unwrap_or_default();
    line.strip_suffix('\r').map_or(line, |_| line)
}

/// Where the entry at `start` ends: at the end of a line. And the bracket or quote in it that has no end.
fn entry_end(text: &str, start: usize) -> (usize, Option<usize>) {
    let first_end = start + line_at(text, start).len();
    let mut open: Vec<(u8, usize)> = Vec::new();
    let mut lines = 0;
    let mut at = start;
    while at < text.len() {
        let rest = &text[at..];
        match rest.as_bytes()[0] {
            b'\n' => {
                let Some(&(_, place)) = open.first() else { return (at, None) };
                lines += 1;
                let next = line_at(text, at + 1).trim();
                let in_table = open.iter().any(|&(bracket, _)| bracket == b'{');
                if is_header(next) || (!in_table && is_entry(next)) || (in_table && lines > MAX_LINES) {
                    // In a table the next lines may be entries of their own.
                    return (if in_table { first_end } else { at }, Some(place));
                }
                at += 1;
            }
            b'#' => at += line_at(text, at).len(),
            b'"' | b'\'' => match string_end(rest) {
                Some(len) => at += len,
                None => return (first_end.max(at + line_at(text, at).len()), Some(at)),
            },
            bracket @ (b'[' | b'{') => {
                open.push((bracket, at));
                at += 1;
            }
            b']' | b'}' => {
                open.pop();
                at += 1;
            }
            _ => at += rest.chars().next().map_or(1, char::len_utf8),
        }
    }
    match open.first() {
        Some(&(_, place)) => {
            let in_table = open.iter().any(|&(bracket, _)| bracket == b'{');
            (if in_table { first_end } else { text.len() }, Some(place))
        }
        None => (text.len(), None),
    }
}

/// The length of the string that begins here, with its quotes; `None` if it has no end.
fn string_end(rest: &str) -> Option<usize> {
    let quote = &rest[..1];
    let several = quote.repeat(3);
    if rest.starts_with(&several) {
        let window = rest[3..].split_inclusive('\n').take(MAX_LINES).map(str::len).sum::<usize>();
        let mut end = 3 + rest[3..3 + window].find(&several)? + 3;
        // Up to two more quotes belong to the string.
        while end < rest.len() && rest[end..].starts_with(quote) {
            end += 1;
        }
        return Some(end);
    }
    let mut escaped = false;
    for (i, c) in rest.char_indices().skip(1) {
        match c {
            '\n' => return None,
            _ if escaped => escaped = false,
            '\\' if quote == "\"" => escaped = true,
            c if quote.starts_with(c) => return Some(i + 1),
            _ => {}
        }
    }
    None
}

/// Whether a line within a list is rather the header of a table.
fn is_header(line: &str) -> bool {
    let name = line.trim_start_matches('[');
    line.starts_with('[')
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.split(['#', ']']).next().is_some_and(|name| !name.contains([',', '=', ' ']))
        && name.contains(']')
}

/// Whether a line begins with `key =`.
fn is_entry(line: &str) -> bool {
    let key = line.split('=').next().unwrap_or_default().trim_end();
    line.len() > key.len()
        && !key.is_empty()
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_entries_end() {
        let cases: [(&str, &[&str]); 12] = [
            ("a = 1\n# c\n\nb = 2", &["a = 1", "b = 2"]),
            ("\u{feff}a = 1\r\n  b = 2 \r\n", &["a = 1", "b = 2"]),
            ("a = [\n1,\n]\nb = 2", &["a = [\n1,\n]", "b = 2"]),
            ("a = [1,\nb = 2", &["a = [1,", "b = 2"]),
            ("a = [1,\n[t]\nb = 2", &["a = [1,", "[t]", "b = 2"]),
            ("a = { b = 1,\n c = 2 }\nd = 3", &["a = { b = 1,\n c = 2 }", "d = 3"]),
            ("a = { b = {}\nc = 1\n[t]", &["a = { b = {}", "c = 1", "[t]"]),
            ("a = \"]x\nb = 2", &["a = \"]x", "b = 2"]),
            ("a = '''x\nb = '''\nc = 1", &["a = '''x\nb = '''", "c = 1"]),
            ("a = \"\"\"x\nb = 1", &["a = \"\"\"x", "b = 1"]),
            ("a = \"x # \\\" [\" # [\nb = 1", &["a = \"x # \\\" [\" # [", "b = 1"]),
            ("[[t]\na", &["[[t]", "a"]),
        ];
        for (text, expected) in cases {
            let found: Vec<&str> = chunks(text).iter().map(|c| &text[c.span.clone()]).collect();
            assert_eq!(found, expected, "{text}");
        }
    }
}
