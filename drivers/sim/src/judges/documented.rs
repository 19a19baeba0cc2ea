//! The table of causes as the documentation has it, and the form of the responses that name them.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use crate::http1::ParsedHead;

/// Status by cause, from the documentation's tables.
fn table() -> &'static BTreeMap<&'static str, u16> {
    static TABLE: OnceLock<BTreeMap<&'static str, u16>> = OnceLock::new();
    TABLE.get_or_init(|| parse(include_str!("../../../../cli/docs/causes.md")))
}

/// The rows that begin with a cause and a status.
fn parse(text: &'static str) -> BTreeMap<&'static str, u16> {
    let row = |line: &'static str| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
        let cause = cells.next()?.strip_suffix('`')?;
        Some((cause, cells.next()?.parse().ok()?))
    };
    text.lines().filter_map(row).collect()
}

/// The status that a client gets for a cause. `by_backend`: it is a backend that violates HTTP.
pub(super) fn status_of(cause: &str, by_backend: bool) -> Option<u16> {
    table().get(cause).map(|status| if by_backend { 502 } else { *status })
}

/// The cause that a `Proxy-Status` names (RFC 9209).
pub(crate) fn named_cause(field: &str) -> Result<&str, String> {
    let wrong = || format!("Proxy-Status: {field}");
    let rest = field.strip_prefix("rust-strom; error=").ok_or_else(wrong)?;
    let (error, details) = rest.split_once("; details=\"").ok_or_else(wrong)?;
    let is_key = !error.is_empty() && error.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    is_key.then_some(()).ok_or_else(wrong)?;
    details.strip_suffix('"').ok_or_else(wrong)
}

/// The content of a local reply with this head.
pub(crate) fn reply_text(head: &ParsedHead<'_>, status: u16, cause: &str) -> String {
    let reason = head.start.get(13..).unwrap_or_default();
    format!("{status} {reason}: {cause}\n")
}

/// Whether the head of a local reply is what the documentation says for its cause.
/// `text`: its content is the line of text for the cause, and no middleware has changed that.
pub(crate) fn check_local_reply(
    head: &ParsedHead<'_>,
    status: u16,
    cause: &str,
    text: bool,
) -> Result<(), String> {
    let documented = *table().get(cause).ok_or_else(|| format!("the cause {cause:?}"))?;
    // For a backend's violation it is 502.
    if status != documented && status != 502 {
        return Err(format!("status {status} for {cause}, not {documented}"));
    }
    let body = reply_text(head, status, cause);
    if text && head.number("content-length")? != Some(body.len() as u64) {
        return Err(format!("a length that is not that of {body:?}"));
    }
    if text && head.get("content-type")? != Some("text/plain; charset=utf-8") {
        return Err("the content type of a local reply".into());
    }
    if head.get("date")?.is_none() {
        return Err("a local reply without Date".into());
    }
    if cause == "no_backend" && head.get("retry-after")? != Some("1") {
        return Err("no_backend without Retry-After".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_has_a_status_for_each_cause() {
        assert!(table().len() > 50, "{}", table().len());
        assert_eq!((table()["no_route"], table()["bad_start_line"]), (404, 400));
        let field = "rust-strom; error=connection_refused; details=\"connect_refused\"";
        assert_eq!(named_cause(field), Ok("connect_refused"));
        for wrong in ["x", "rust-strom; error=; details=\"x\"", "rust-strom; error=a; details=x"] {
            assert!(named_cause(wrong).is_err(), "{wrong}");
        }
    }
}
