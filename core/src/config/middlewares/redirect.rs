//! `Redirect`: which URLs have moved, and whereto.

use super::super::middleware_settings::{Middleware, Redirect};
use super::super::reader::{self, Section};
use super::super::report::{Report, Value};
use super::substitution;

pub(super) fn read(value: &Value<'_>, report: &mut Report<'_>) -> Option<Middleware> {
    let section = Section::new(value, "`Redirect`", &["regex", "replacement", "status"], report)?;
    let example = ("'^https?://example\\.com/(.*)$'", "\"https://www.example.com/$1\"");
    let rule = substitution::read(&section, example, report);
    let status = match section.get("status") {
        None => Some(302),
        Some(value) => reader::integer(value, "`status`", 300..=399, report).and_then(|status| {
            let valid = matches!(status, 301 | 302 | 303 | 307 | 308);
            if !valid {
                report.error(value.span(), format!("{status} is not the status of a redirect")).help =
                    Some("there are 301, 302, 303, 307 and 308".into());
            }
            u16::try_from(status).ok().filter(|_| valid)
        }),
    };
    Some(Middleware::Redirect(Box::new(Redirect { rule: rule?, status: status? })))
}
