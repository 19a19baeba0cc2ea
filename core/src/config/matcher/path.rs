//! A path of a matcher, brought to the one spelling that a request's normalised path has: escapes in upper
//! case, and none where the character needs none (RFC 3986 §6.2.2).

use std::fmt;
use std::ops::Range;

use crate::config::diagnostic::clip;

/// Why no request can have a path.
#[derive(Debug)]
pub(super) struct PathError {
    /// The bytes of the path that are meant; `None` for the whole path.
    pub(super) span: Option<Range<usize>>,
    reason: &'static str,
    /// What to write instead, if that is known.
    pub(super) help: Option<String>,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason)
    }
}

impl std::error::Error for PathError {}

fn error_at<T>(span: Range<usize>, reason: &'static str, help: impl Into<String>) -> Result<T, PathError> {
    Err(PathError { span: Some(span), reason, help: Some(help.into()) })
}

/// The normalised spelling of a path.
pub(super) fn normalise(text: &str) -> Result<Box<str>, PathError> {
    if !text.starts_with('/') {
        let help = if text.is_empty() { "write '/'".to_owned() } else { format!("write '/{}'", clip(text)) };
        return Err(PathError { span: None, reason: "a path begins with `/`", help: Some(help) });
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '?' | '#' => {
                let help = "use Query('key', 'value') for the query";
                return error_at(i..i + 1, "a path ends before `?` and `#`", help);
            }
            '%' => {
                let Some(byte) = text.get(i + 1..i + 3).and_then(hex_byte) else {
                    let help = "write `%25` for a percent sign";
                    return error_at(i..i + 1, "`%` needs two hexadecimal digits", help);
                };
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    out.push(char::from(byte));
                } else {
                    out.push_str(&format!("%{byte:02X}"));
                }
                chars.nth(1);
            }
            '!' | '$' | '&'..='9' | ':' | ';' | '=' | '@' | 'A'..='Z' | '_' | 'a'..='z' | '~' => out.push(c),
            _ => {
                let escaped: String = c.to_string().bytes().map(|b| format!("%{b:02X}")).collect();
                let help = format!("write `{escaped}`");
                return error_at(i..i + c.len_utf8(), "this character is escaped in a path", help);
            }
        }
    }
    if out.split('/').any(|segment| segment == "." || segment == "..") {
        let reason = "`.` and `..` are resolved before matching, so this never matches";
        return Err(PathError { span: None, reason, help: None });
    }
    Ok(out.into())
}

/// The byte that two hexadecimal digits stand for.
fn hex_byte(digits: &str) -> Option<u8> {
    // `from_str_radix` alone would also read "+f".
    if digits.bytes().all(|b| b.is_ascii_hexdigit()) { u8::from_str_radix(digits, 16).ok() } else { None }
}
