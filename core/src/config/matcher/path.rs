//! A path of a matcher, brought to the one spelling that a request's normalised path has: escapes in upper
//! case, and none where the character needs none (RFC 3986 §6.2.2).

use std::fmt;
use std::ops::Range;

/// Why no request can have a path.
#[derive(Debug)]
pub(super) struct PathError {
    /// The bytes of the path that are meant; `None` for the whole path.
    pub(super) span: Option<Range<usize>>,
    reason: &'static str,
    /// The whole path without this and similar mistakes, if that is known; it may have others.
    pub(super) instead: Option<String>,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason)
    }
}

impl std::error::Error for PathError {}

fn error_at<T>(span: Range<usize>, reason: &'static str, instead: Option<String>) -> Result<T, PathError> {
    Err(PathError { span: Some(span), reason, instead })
}

/// The path with every character escaped that needs it.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for (i, c) in text.char_indices() {
        match c {
            '%' if text.get(i + 1..i + 3).and_then(hex_byte).is_some() => out.push('%'),
            c if stands_in_a_path(c) => out.push(c),
            c => c.to_string().bytes().for_each(|b| out.push_str(&format!("%{b:02X}"))),
        }
    }
    out
}

fn stands_in_a_path(c: char) -> bool {
    matches!(c, '!' | '$' | '&'..='9' | ':' | ';' | '=' | '@' | 'A'..='Z' | '_' | 'a'..='z' | '~')
}

/// The normalised spelling of a path.
pub(super) fn normalise(text: &str) -> Result<Box<str>, PathError> {
    if !text.starts_with('/') {
        let instead = Some(format!("/{text}"));
        return Err(PathError { span: None, reason: "a path begins with `/`", instead });
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '?' | '#' => {
                let reason = "a path ends before `?` and `#`: Query('key', 'value') is for the query";
                return error_at(i..i + 1, reason, Some(text[..i].to_owned()));
            }
            '%' => {
                let Some(byte) = text.get(i + 1..i + 3).and_then(hex_byte) else {
                    return error_at(i..i + 1, "`%` needs two hexadecimal digits", Some(escaped(text)));
                };
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    out.push(char::from(byte));
                } else {
                    out.push_str(&format!("%{byte:02X}"));
                }
                chars.nth(1);
            }
            c if stands_in_a_path(c) => out.push(c),
            _ => {
                let reason = "this character is escaped in a path";
                return error_at(i..i + c.len_utf8(), reason, Some(escaped(text)));
            }
        }
    }
    if out.split('/').any(|segment| segment == "." || segment == "..") {
        let reason = "`.` and `..` are resolved before matching, so this never matches";
        return Err(PathError { span: None, reason, instead: Some(resolved(text)) });
    }
    Ok(out.into())
}

/// The path without its dot segments (RFC 3986 §5.2.4).
fn resolved(text: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = text[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        match segment.to_ascii_lowercase().replace("%2e", ".").as_str() {
            "." => {}
            ".." => drop(kept.pop()),
            _ => {
                kept.push(segment);
                continue;
            }
        }
        if segments.peek().is_none() {
            kept.push("");
        }
    }
    format!("/{}", kept.join("/"))
}

/// The byte that two hexadecimal digits stand for.
fn hex_byte(digits: &str) -> Option<u8> {
    // `from_str_radix` alone would also read "+f".
    if digits.bytes().all(|b| b.is_ascii_hexdigit()) { u8::from_str_radix(digits, 16).ok() } else { None }
}
