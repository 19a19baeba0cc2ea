//! Media types, and ranges of them (RFC 9110 §8.3.1, §12.5.1).

use super::fields::is_token;

/// A range of media types: a type and a subtype, where `*` is any, and a subtype `*+json` is any with that
/// suffix (RFC 6839).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaRange {
    /// Without upper-case letters.
    text: Box<str>,
    slash: usize,
}

impl MediaRange {
    /// Reads `TYPE/SUBTYPE`, in any case and without parameters.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, subtype) = text.split_once('/')?;
        let name = |text: &str| is_token(text.as_bytes()) && !text.contains('*');
        let suffix = subtype.strip_prefix("*+").is_some_and(name);
        let valid = match kind {
            "*" => subtype == "*" || suffix,
            _ => name(kind) && (subtype == "*" || suffix || name(subtype)),
        };
        valid.then(|| Self { text: text.to_ascii_lowercase().into(), slash: kind.len() })
    }

    /// Whether the media type that a `Content-Type` field says is in the range; parameters don't matter.
    #[must_use]
    pub fn matches(&self, content_type: &[u8]) -> bool {
        let essence = content_type.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
        let Some(slash) = essence.iter().position(|b| *b == b'/') else { return false };
        let (kind, subtype) = (&essence[..slash], &essence[slash + 1..]);
        let (any_kind, any_subtype) = self.text.split_at(self.slash);
        (any_kind == "*" || kind.eq_ignore_ascii_case(any_kind.as_bytes()))
            && match any_subtype.as_bytes() {
                b"/*" => true,
                [b'/', b'*', suffix @ ..] => {
                    let at = subtype.len().saturating_sub(suffix.len());
                    at > 0 && subtype[at..].eq_ignore_ascii_case(suffix)
                }
                whole => subtype.eq_ignore_ascii_case(&whole[1..]),
            }
    }

    /// The range as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::MediaRange;

    #[test]
    fn ranges_and_what_is_in_them() {
        let table = [
            ("text/html", "text/html", true),
            ("text/html", "Text/HTML; charset=utf-8", true),
            ("TEXT/Html", "text/html;charset=utf-8", true),
            ("text/html", " text/html ; q", true),
            ("text/html", "text/htm", false),
            ("text/html", "text/html5", false),
            ("text/html", "text", false),
            ("text/html", "", false),
            ("text/html", "; text/html", false),
            ("text/*", "text/x", true),
            ("text/*", "texts/x", false),
            ("text/*", "application/text", false),
            ("*/*", "image/png", true),
            ("*/*", "nonsense", false),
            ("application/*+json", "application/problem+json; v=1", true),
            ("application/*+json", "application/json", false),
            ("application/*+json", "application/+json", false),
            ("application/*+json", "image/x+json", false),
            ("*/*+xml", "image/svg+XML", true),
            ("*/*+xml", "text/xml", false),
        ];
        for (range, media_type, expected) in table {
            let parsed = MediaRange::parse(range).unwrap();
            assert_eq!(parsed.matches(media_type.as_bytes()), expected, "{range} {media_type}");
        }
        for bad in [
            "",
            "text",
            "/",
            "text/",
            "/html",
            "*/html",
            "te*t/html",
            "text/h*",
            "text/html;q=1",
            "a/b/c",
            "a /b",
        ] {
            assert_eq!(MediaRange::parse(bad), None, "{bad}");
        }
    }
}
