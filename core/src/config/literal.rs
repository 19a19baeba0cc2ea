//! TOML strings as the file has them: texts in quotes, and from byte positions within a value to positions in
//! the file, which differ where the string is written with escapes or over several lines.

use std::ops::Range;

/// A range of bytes of the file.
type Span = Range<usize>;

/// What TOML strings begin and end with; longer ones first.
const QUOTES: [&str; 4] = ["\"\"\"", "'''", "\"", "'"];

/// A text as a TOML string of one line.
pub(super) fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    push_escaped(&mut out, text);
    out.push('"');
    out
}

/// Adds a text as it stands within `"…"`.
fn push_escaped(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
}

/// A text as a TOML string without escapes, if there can be one.
pub(super) fn quote_verbatim(text: &str) -> String {
    let plain = !text.contains(|c: char| c.is_control() && c != '\t');
    match text {
        _ if plain && !text.contains('\'') => format!("'{text}'"),
        _ if plain && !text.contains("'''") && !text.ends_with('\'') && !text.is_empty() => {
            format!("'''{text}'''")
        }
        _ => quote(text),
    }
}

/// A TOML string literal of the file.
pub(super) struct Literal {
    /// The literal with its quotes.
    span: Span,
    /// What it begins and ends with.
    quotes: Option<&'static str>,
    /// For each byte of the value, and its end, the byte of the file; `None` if that can't be worked out.
    offsets: Option<Vec<usize>>,
}

impl Literal {
    /// `span` is where `file` has the literal whose value is `value`.
    pub(super) fn new(file: &str, span: Span, value: &str) -> Self {
        let source = file.get(span.clone());
        let quotes = source.and_then(|source| QUOTES.into_iter().find(|&q| source.starts_with(q)));
        let offsets = source.and_then(|source| source_offsets(source, value));
        Self { offsets: offsets.map(|at| at.into_iter().map(|i| i + span.start).collect()), span, quotes }
    }

    /// A text as it must be written within this literal; `None` if it can't be written there.
    pub(super) fn encode(&self, text: &str) -> Option<String> {
        self.offsets.as_ref()?;
        match self.quotes? {
            quotes @ ("'" | "'''") => {
                let allowed = !text.contains(quotes) && !text.contains(|c: char| c.is_control() && c != '\t');
                allowed.then(|| text.to_owned())
            }
            _ => {
                let mut out = String::new();
                push_escaped(&mut out, text);
                Some(out)
            }
        }
    }

    /// Where the file has a part of the value; the whole literal if that can't be worked out.
    pub(super) fn span_of(&self, part: Span) -> Span {
        let at = |i: usize| self.offsets.as_ref().and_then(|offsets| offsets.get(i)).copied();
        match (at(part.start), at(part.end)) {
            (Some(start), Some(end)) => start..end,
            _ => self.span.clone(),
        }
    }
}

/// For each byte of `value`, and its end, the byte of `source` (a TOML string with its quotes) that it comes
/// from.
fn source_offsets(source: &str, value: &str) -> Option<Vec<usize>> {
    for quotes in QUOTES {
        let Some(inner) = source.strip_prefix(quotes).and_then(|s| s.strip_suffix(quotes)) else { continue };
        // TOML drops the first line end of a multi-line string.
        let content = match quotes.len() {
            1 => inner,
            _ => inner.strip_prefix("\r\n").or(inner.strip_prefix('\n')).unwrap_or(inner),
        };
        if content == value {
            let start = quotes.len() + inner.len() - content.len();
            return Some((start..=start + value.len()).collect());
        }
        // Only a string of one line with escapes is followed further.
        return if quotes == "\"" { unescaped_offsets(inner, value.len()) } else { None };
    }
    None
}

/// [`source_offsets`] of a basic string (TOML 1.1 §String); `inner` is what stands between its quotes.
fn unescaped_offsets(inner: &str, value_len: usize) -> Option<Vec<usize>> {
    let quote_len = 1;
    let mut offsets = Vec::with_capacity(value_len + 1);
    let mut chars = inner.char_indices();
    while let Some((i, c)) = chars.next() {
        let c = match c {
            '\\' => match chars.next()?.1 {
                'b' => '\u{8}',
                't' => '\t',
                'n' => '\n',
                'f' => '\u{c}',
                'r' => '\r',
                'e' => '\u{1b}',
                c @ ('"' | '\\') => c,
                kind @ ('x' | 'u' | 'U') => {
                    let digits = match kind {
                        'x' => 2,
                        'u' => 4,
                        _ => 8,
                    };
                    let code = u32::from_str_radix(inner.get(i + 2..i + 2 + digits)?, 16).ok()?;
                    chars.nth(digits - 1);
                    char::from_u32(code)?
                }
                _ => return None,
            },
            c => c,
        };
        offsets.extend(std::iter::repeat_n(quote_len + i, c.len_utf8()));
    }
    offsets.push(quote_len + inner.len());
    Some(offsets).filter(|offsets| offsets.len() == value_len + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_in_strings() {
        // (as written in the file, the byte of the value, the byte of the source)
        let cases = [
            ("\"abc\"", 1, Some(2)),
            ("'abc'", 0, Some(1)),
            ("'''\nabc'''", 0, Some(4)),
            ("\"\"\"\r\nabc\"\"\"", 2, Some(7)),
            ("\"a\\\"c\"", 1, Some(2)),
            ("\"a\\\"c\"", 2, Some(4)),
            ("\"\\u00e4b\"", 2, Some(7)),
            ("\"\\x41b\"", 1, Some(5)),
            ("\"äb\"", 2, Some(3)),
            ("\"\"\"a\\tb\"\"\"", 1, None),
        ];
        for (source, byte, expected) in cases {
            let file = format!("x = {source}");
            let table = toml::de::DeTable::parse(&file).unwrap();
            let value = table.get_ref().get("x").unwrap();
            let found = source_offsets(&file[value.span()], value.get_ref().as_str().unwrap());
            assert_eq!(found.map(|at| at[byte]), expected, "{source}");
        }
    }
}
