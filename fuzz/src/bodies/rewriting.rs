//! Rules that rewrite, and values with placeholders: whatever a configuration and a client say, what comes
//! out is no longer than it may be, and of characters that were there or that a rule may have.
//!
//! An input is lines: an expression, a replacement, a value, and the text that a client has sent.

use ruststrom_core::config::substitution::{Rewritten, Substitution, SubstitutionError};
use ruststrom_core::config::template::{Segment, Template};

/// Longest result.
const MOST: usize = 600;

pub(super) fn run(data: &[u8]) {
    let mut lines = data.splitn(4, |&b| b == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (regex, replacement, value, text) = (line(), line(), line(), line());
    if let (Ok(regex), Ok(replacement)) = (std::str::from_utf8(regex), std::str::from_utf8(replacement)) {
        substitute(regex, replacement, text);
    }
    if let Ok(value) = std::str::from_utf8(value) {
        read_template(value);
    }
}

fn substitute(regex: &str, replacement: &str, text: &[u8]) {
    let rule = match Substitution::parse(regex, replacement) {
        Ok(rule) => rule,
        Err(SubstitutionError::Regex(reason)) => return assert!(!reason.is_empty()),
        Err(SubstitutionError::Replacement { span, message, .. }) => {
            assert!(replacement.get(span).is_some() && !message.is_empty());
            return;
        }
    };
    let whole = rule.apply(text, usize::MAX);
    let limited = rule.apply(text, MOST);
    match &whole {
        Rewritten::To(out) => {
            if text.iter().all(u8::is_ascii_graphic) {
                assert!(out.iter().all(u8::is_ascii_graphic), "{rule:?} {text:?} {out:?}");
            }
            assert_eq!(limited == Rewritten::TooLong, out.len() > MOST, "{rule:?}");
            assert!(out.len() <= MOST || limited == Rewritten::TooLong);
        }
        Rewritten::Unmatched => assert_eq!(limited, Rewritten::Unmatched),
        Rewritten::TooLong => panic!("there is no limit"),
    }
    // Nothing is replaced by itself.
    if replacement == "$0" {
        assert!(whole == Rewritten::Unmatched || whole == Rewritten::To(text.to_vec()), "{rule:?}");
    }
}

/// A value that can be written again from what was read.
fn read_template(value: &str) {
    match Template::parse(value) {
        Ok(template) => {
            let again: String = template
                .segments()
                .iter()
                .map(|segment| match segment {
                    Segment::Text(text) => text.replace('{', "{{").replace('}', "}}"),
                    Segment::Placeholder(placeholder) => format!("{{{}}}", placeholder.name()),
                })
                .collect();
            assert_eq!(again, value);
            assert!(!value.contains(['\r', '\n', '\0']));
        }
        Err(error) => assert!(value.get(error.span.clone()).is_some(), "{error:?}"),
    }
}
