//! A path written in a matcher, brought to the one spelling that a request's normalised path has: escapes in
//! upper case, and none where the character needs none (RFC 3986 §6.2.2).

use std::ops::Range;

/// Why a path can't match; `at` is in bytes of the path.
pub(super) struct Wrong {
    pub(super) at: Option<Range<usize>>,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

fn wrong<T>(at: Range<usize>, message: &str, help: Option<String>) -> Result<T, Wrong> {
    Err(Wrong { at: Some(at), message: message.into(), help })
}

pub(super) fn path(text: &str) -> Result<Box<str>, Wrong> {
    if !text.starts_with('/') {
        let help = if text.is_empty() {
            "write '/'".to_owned()
        } else {
            format!("write '/{}'", crate::config::suggest::clip(text))
        };
        return Err(Wrong { at: None, message: "a path begins with `/`".into(), help: Some(help) });
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '?' | '#' => {
                return wrong(
                    i..i + 1,
                    "a path ends before `?` and `#`",
                    Some("use Query('key', 'value') for the query".into()),
                );
            }
            '%' => {
                let Some(byte) = text.get(i + 1..i + 3).and_then(hex) else {
                    return wrong(
                        i..i + 1,
                        "`%` needs two hexadecimal digits",
                        Some("write `%25` for a percent sign".into()),
                    );
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
                return wrong(
                    i..i + c.len_utf8(),
                    "this character is escaped in a path",
                    Some(format!("write `{escaped}`")),
                );
            }
        }
    }
    if out.split('/').any(|segment| segment == "." || segment == "..") {
        let message = "`.` and `..` are resolved before matching, so this never matches".into();
        return Err(Wrong { at: None, message, help: None });
    }
    Ok(out.into())
}

fn hex(digits: &str) -> Option<u8> {
    crate::http::hex::byte(digits.as_bytes())
}
