//! What is wrong with a header or an entry that can't be read, and what was probably meant.

use toml::de::DeTable;

use super::scan::{Chunk, Kind};
use crate::config::diagnostic::clip;
use crate::config::keys;
use crate::config::literal::{quote, quote_verbatim};
use crate::config::report::{Report, Span};

/// What was found: the part of the text that is meant, the message, and the text to put in its place.
struct Finding {
    span: Span,
    message: String,
    instead: Option<String>,
}

impl Finding {
    fn new(span: Span, message: impl Into<String>) -> Self {
        Self { span, message: message.into(), instead: None }
    }

    fn write(self, text: impl Into<String>) -> Self {
        Self { instead: Some(text.into()), ..self }
    }
}

/// Adds the error of a chunk that can't be read.
pub(super) fn explain(text: &str, chunk: &Chunk, report: &mut Report<'_>) {
    let source = &text[chunk.span.clone()];
    let finding = match chunk.kind {
        Kind::Header => header(source),
        Kind::Entry => {
            let unclosed = chunk.unclosed.filter(|at| chunk.span.contains(at));
            entry(source, unclosed.map(|at| at - chunk.span.start))
        }
    };
    let shift = |span: &Span| span.start + chunk.span.start..span.end + chunk.span.start;
    let error = report.error(shift(&finding.span), finding.message);
    // What is suggested must be readable.
    if let Some(instead) = finding.instead {
        let mut corrected = source.to_owned();
        corrected.replace_range(finding.span.clone(), &instead);
        if DeTable::parse(&corrected).is_ok() {
            error.write(instead);
        }
    }
}

/// What a file is that has not one line of TOML.
pub(super) fn language(text: &str) -> String {
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let first = lines().next().unwrap_or_default();
    let like = |test: &dyn Fn(&str) -> bool| lines().filter(|line| test(line)).count() * 2 > lines().count();
    let word = if first.starts_with(['{', '[']) && text.contains("\":") {
        "JSON"
    } else if first == "---"
        || like(&|line| line.ends_with(':') || line.contains(": ") || line.starts_with("- "))
    {
        "YAML"
    } else if lines().any(|line| line.ends_with(';')) {
        "nginx"
    } else {
        return "this can't be read".into();
    };
    format!("this looks like {word}")
}

fn header(source: &str) -> Finding {
    let whole = 0..source.len();
    let name = super::scan::header_name(source);
    if name.is_empty() {
        return Finding::new(whole, "there is no name between the brackets");
    }
    let double = keys::LISTS.contains(&name);
    let finding = Finding::new(whole, "a header is `[name]`, or `[[name]]` for an element of a list");
    finding.write(if double { format!("[[{name}]]") } else { format!("[{name}]") })
}

fn entry(source: &str, unclosed: Option<usize>) -> Finding {
    let first_line = source.lines().next().unwrap_or_default().trim_end();
    let Some(at) = first_line.find('=').filter(|&at| !first_line[..at].contains(['"', '\'', '#', '{']))
    else {
        return without_equals(source, first_line);
    };
    let (key, rest) = (source[..at].trim_end(), &source[at + 1..]);
    // `=>`, `==`, `:=`, `+=`
    let before = key.len() - key.trim_end_matches([':', '+', '?']).len();
    let after = rest.len() - rest.trim_start_matches(['=', '>']).len();
    if before + after > 0 {
        let start = if before == 0 { at } else { key.len() - before };
        return Finding::new(start..at + 1 + after, "between a key and its value stands `=`").write("=");
    }
    if key.is_empty() {
        return Finding::new(0..at + 1, "there is no key before `=`");
    }
    if key.contains(|c: char| c.is_whitespace()) {
        let meant = key.split_whitespace().collect::<Vec<_>>().join("_");
        return Finding::new(0..key.len(), "a key has no blanks").write(meant);
    }
    let start = at + 1 + (rest.len() - rest.trim_start_matches([' ', '\t']).len());
    value(source, start, unclosed)
}

/// An entry in another syntax, or none at all.
fn without_equals(source: &str, line: &str) -> Finding {
    let whole = 0..line.len();
    for marker in ["//", ";", "--", "/*"] {
        if let Some(comment) = line.strip_prefix(marker) {
            let finding = Finding::new(whole, "a comment begins with `#`");
            return finding.write(format!("#{}", comment.trim_end_matches("*/")));
        }
    }
    if line.starts_with(['}', ']', ')']) {
        return Finding::new(whole, "this closes nothing");
    }
    let separator = line.find([':', ' ', '\t']).unwrap_or(line.len());
    let (key, rest) = line.split_at(separator);
    let text = rest.trim_start_matches([':', ' ', '\t']).trim_end_matches([';', ',']).trim_end();
    let finding = Finding::new(whole, "there is no `=`: an entry is `key = value`");
    let key = key.trim_matches(['"', '\'']);
    let is_list = matches!(key, "-" | "*");
    if is_list || text.is_empty() || source.lines().nth(1).is_some() || text.starts_with(['{', '|', '>']) {
        return finding;
    }
    let as_it_is = format!("{key} = {text}");
    if DeTable::parse(&as_it_is).is_ok() {
        finding.write(as_it_is)
    } else {
        finding.write(format!("{key} = {}", bare(text)))
    }
}

/// What a text without quotes was meant to be as a value.
fn bare(text: &str) -> String {
    match text.to_lowercase().as_str() {
        "true" | "yes" | "on" => "true".into(),
        "false" | "no" | "off" => "false".into(),
        _ => quote(text),
    }
}

/// An entry whose value, from `start` on, can't be read.
fn value(source: &str, start: usize, unclosed: Option<usize>) -> Finding {
    let line_end = start + source[start..].lines().next().unwrap_or_default().trim_end().len();
    let text = &source[start..line_end];
    if text.is_empty() || text.starts_with('#') {
        return Finding::new(start.saturating_sub(1)..start.max(1), "there is no value after `=`");
    }
    if let Some(place) = unclosed {
        return never_closed(source, place, line_end);
    }
    if let Some(finding) = escape(source, start) {
        return finding;
    }
    let first = text.chars().next().unwrap_or_default();
    match first {
        '“' | '”' | '„' | '‘' | '’' | '`' => {
            let inner = text.trim_matches(['“', '”', '„', '‘', '’', '`']);
            Finding::new(start..line_end, "a text stands in `\"` or `'`").write(quote(inner))
        }
        '"' | '\'' => after_the_end(source, start, line_end),
        '[' | '{' => inside(source, start),
        _ => {
            let end = start + text.split('#').next().unwrap_or_default().trim_end().len();
            let word = source[start..end].trim_end_matches([';', ',']);
            let span = start..end;
            if word.len() < end - start && DeTable::parse(&format!("x = {word}")).is_ok() {
                return Finding::new(span, "nothing stands after a value").write(word);
            }
            match word.to_lowercase().as_str() {
                "null" | "nil" | "none" | "~" | "auto" | "default" => {
                    let message = format!("there is no `{word}`: leave the key out to have its default");
                    Finding::new(span, message)
                }
                "true" | "yes" | "on" | "false" | "no" | "off" => {
                    Finding::new(span, "a boolean is `true` or `false`").write(bare(word))
                }
                _ => Finding::new(span, "a text stands in quotes").write(quote(word)),
            }
        }
    }
}

/// A bracket or a quote without an end; `line_end` is the end of its line without blanks.
fn never_closed(source: &str, place: usize, line_end: usize) -> Finding {
    let what = match source.as_bytes().get(place) {
        Some(b'[') => "this list is never closed by `]`",
        Some(b'{') => "this table is never closed by `}`",
        _ => {
            let quotes = if source[place..].starts_with("\"\"\"") || source[place..].starts_with("'''") {
                3
            } else {
                1
            };
            let finding = Finding::new(place..line_end.max(place + quotes), "this quote is never closed");
            let inner =
                source[place + quotes..line_end.max(place + quotes)].trim_end_matches([',', ';', ']', '}']);
            // Only where nothing but the text follows can the end be known.
            let alone = source[..place].trim_end().ends_with('=') && place + quotes + inner.len() == line_end;
            // `'text"` ends with the other quote.
            return if alone { finding.write(quote(inner.trim_end_matches(['"', '\'']))) } else { finding };
        }
    };
    Finding::new(place..place + 1, what)
}

/// A `\` in `"…"` that is no escape, wherever in the value.
fn escape(source: &str, start: usize) -> Option<Finding> {
    let mut at = start;
    while let Some(found) = source.get(at..)?.find(['"', '\'', '#', '\n']) {
        let open = at + found;
        match source.as_bytes()[open] {
            b'#' => at = open + source[open..].find('\n')?,
            b'\n' => at = open + 1,
            quote_byte => {
                let mut escaped = false;
                let inner = &source[open + 1..];
                let len = inner.char_indices().find_map(|(i, c)| match c {
                    _ if escaped => {
                        escaped = false;
                        None
                    }
                    '\\' if quote_byte == b'"' => {
                        escaped = true;
                        None
                    }
                    c if c == char::from(quote_byte) => Some(i),
                    _ => None,
                })?;
                let end = open + 1 + len + 1;
                let is_valid = DeTable::parse(&format!("x = {}", &source[open..end])).is_ok();
                if quote_byte == b'"' && inner[..len].contains('\\') && !is_valid {
                    let message = "in \"…\" a `\\` begins an escape; in '…' it stands for itself";
                    return Some(Finding::new(open..end, message).write(quote_verbatim(&inner[..len])));
                }
                at = end;
            }
        }
    }
    None
}

/// Something after the end of a string.
fn after_the_end(source: &str, start: usize, line_end: usize) -> Finding {
    let mark = &source[start..=start];
    let inner = &source[start + 1..line_end];
    let Some(len) = inner.find(mark) else {
        return Finding::new(start..line_end, "this quote is never closed").write(quote(inner));
    };
    let end = start + 1 + len + 1;
    let rest = source[end..line_end].trim_start();
    if rest.starts_with(',') && rest.contains(mark) {
        let list = source[start..line_end].trim_end_matches(',');
        return Finding::new(start..line_end, "several values are a list").write(format!("[{list}]"));
    }
    let from = line_end - rest.len();
    Finding::new(
        start..line_end,
        format!("nothing stands after a value, but here is \"{}\"", clip(&source[from..line_end])),
    )
    .write(&source[start..end])
}

/// A list or a table with something wrong inside.
fn inside(source: &str, value: usize) -> Finding {
    let (_, errors) = DeTable::parse_recoverable(source);
    let Some(error) = errors.first() else { return Finding::new(0..source.len(), "this can't be read") };
    let span = error.span().unwrap_or(0..0);
    let start = span.start.min(source.len());
    // A word without quotes, up to what separates it from the next one.
    let word_start = source[..start].rfind(['[', ',', '{', '=', '\n', ' ']).map_or(0, |i| i + 1);
    let len = source[word_start..].find([',', ']', '}', '\n']).unwrap_or(source.len() - word_start);
    let word = source[word_start..word_start + len].trim_end();
    if word_start > value && DeTable::parse(&source[..word_start]).is_ok() {
        let message =
            format!("nothing stands after a value, but here is \"{}\"", clip(&source[word_start..]));
        return Finding::new(value..source.len(), message).write(source[value..word_start].trim_end());
    }
    let is_word = !word.is_empty() && !word.contains(['"', '\'', '=', ' ', '[', '{']);
    if is_word && DeTable::parse(&format!("x = {word}")).is_err() {
        let span = word_start..word_start + word.len();
        return Finding::new(span, "a text stands in quotes").write(bare(word));
    }
    let end = span.end.clamp(start, source.len());
    Finding::new(start..end, in_plain_words(error.message()))
}

/// The message of the TOML parser in other words where it speaks of its own parts.
pub(super) fn in_plain_words(message: &str) -> String {
    let said = [
        ("missing comma between array", "there is no `,` between two elements of a list"),
        ("extra comma in array", "there is one `,` too many in this list"),
        ("unexpected `=` in array", "a list has values, no `key = value`; is the list closed with `]`?"),
        ("missing comma between key-value", "there is no `,` between two entries of this table"),
        ("extra comma in inline table", "there is one `,` too many in this table"),
        ("missing assignment", "there is no `=`: an entry is `key = value`"),
        ("extra assignment", "there is one `=` too many"),
        ("missing key", "there is no key before `=`"),
        ("missing value", "there is no value"),
        ("unclosed array", "this list is never closed by `]`"),
        ("unclosed inline table", "this table is never closed by `}`"),
        ("duplicate key", "this key is there twice"),
        ("cannot recurse", "there are too many brackets within each other"),
    ];
    said.iter()
        .find(|(theirs, _)| message.starts_with(theirs))
        .map_or_else(|| format!("this can't be read: {message}"), |(_, ours)| (*ours).to_owned())
}
