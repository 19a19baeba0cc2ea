//! What a good response to a health check is: `expect` and `body_contains`.

use std::ops::RangeInclusive;

use toml::de::DeValue;

use crate::config::diagnostic::clip;
use crate::config::literal::quote;
use crate::config::model::CheckMethod;
use crate::config::reader::{self, Section};
use crate::config::report::{Report, Value};

/// Statuses that a final response may have.
const STATUSES: RangeInclusive<u16> = 200..=599;
/// Longest `body_contains`, in bytes.
const MAX_TEXT_BYTES: usize = 1024;

/// Statuses and ranges of statuses: one of them, or a list.
pub(super) fn statuses(value: &Value<'_>, report: &mut Report<'_>) -> Option<Vec<RangeInclusive<u16>>> {
    let DeValue::Array(items) = value.get_ref() else {
        return Some(vec![status_or_range(value, report)?]);
    };
    if items.is_empty() {
        report.error(value.span(), "`expect` is an empty list").help =
            Some("leave it out for 200 to 399".into());
        return None;
    }
    // Every item is read, so that every error is reported.
    let found: Vec<_> = items.iter().map(|item| status_or_range(item, report)).collect();
    found.into_iter().collect()
}

/// `200`, `"200"` or `"300-399"`.
fn status_or_range(value: &Value<'_>, report: &mut Report<'_>) -> Option<RangeInclusive<u16>> {
    match value.get_ref() {
        DeValue::Integer(_) => {
            let bounds = u64::from(*STATUSES.start())..=u64::from(*STATUSES.end());
            let status = reader::integer(value, "a status of `expect`", bounds, report)?;
            let status = u16::try_from(status).ok()?;
            Some(status..=status)
        }
        DeValue::String(text) => match range(text) {
            Ok(range) => Some(range),
            Err(meant) => {
                let message = format!("\"{}\" is neither a status nor a range of statuses", clip(text));
                let error = report.error(value.span(), message);
                error.help =
                    Some("it is a status like 200, or a range like \"300-399\", from 200 to 599".into());
                if let Some(meant) = meant {
                    error.write(quote(&meant));
                }
                None
            }
        },
        _ => {
            report.mistyped(value, "`expect`", "statuses like 200 or \"300-399\"");
            None
        }
    }
}

/// A range, or what was probably meant.
fn range(text: &str) -> Result<RangeInclusive<u16>, Option<String>> {
    let status = |text: &str| -> Option<u16> {
        let digits = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|status| digits && STATUSES.contains(status))
    };
    let bare: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    if let [class @ b'2'..=b'5', b'x' | b'X', b'x' | b'X'] = bare.as_bytes() {
        let class = char::from(*class);
        return Err(Some(format!("{class}00-{class}99")));
    }
    let (low, high) = bare.split_once('-').or(bare.split_once("..")).unwrap_or((&bare, &bare));
    let (Some(low), Some(high)) = (status(low), status(high.trim_start_matches('='))) else {
        return Err(None);
    };
    let right = if low == high { low.to_string() } else { format!("{}-{}", low.min(high), low.max(high)) };
    if text == right { Ok(low..=high) } else { Err(Some(right)) }
}

/// `body_contains`.
pub(super) fn body_contains(
    section: &Section<'_>,
    method: CheckMethod,
    report: &mut Report<'_>,
) -> Option<Box<str>> {
    let value = section.get("body_contains")?;
    let text = reader::string(value, "`body_contains`", report)?;
    if text.is_empty() || text.len() > MAX_TEXT_BYTES {
        let message = format!("`body_contains` must have 1 to {MAX_TEXT_BYTES} bytes");
        report.error(value.span(), message);
        return None;
    }
    if method == CheckMethod::Head {
        report.error(value.span(), "the response to a HEAD has no body that could contain something").help =
            Some("set method = \"GET\"".into());
        return None;
    }
    Some(text.into())
}
