//! `StripPrefix`: what the paths of requests lose at their beginning.

use super::super::middleware_settings::Middleware;
use super::super::reader::{self, Section};
use super::super::report::{Report, Value};
use super::path;

pub(super) fn read(value: &Value<'_>, report: &mut Report<'_>) -> Option<Middleware> {
    let section = Section::new(value, "`StripPrefix`", &["prefixes"], report)?;
    let value = section.required("prefixes", "[\"/api\"]", report)?;
    let mut prefixes: Vec<Box<str>> = Vec::new();
    let found = reader::strings(value, "`prefixes`", report);
    let mut valid = !found.is_empty();
    if let Some([]) = value.get_ref().as_array().map(|items| &items[..]) {
        report.error(value.span(), "`prefixes` is an empty list").help =
            Some("it is like [\"/api\", \"/v1\"]".into());
    }
    for (text, span) in found {
        let Some(path) = path::check(text, span.clone(), report) else {
            valid = false;
            continue;
        };
        let prefix = path.trim_end_matches('/');
        if prefix.is_empty() {
            report.error(span, "`/` is no prefix to strip: every path begins with it");
            valid = false;
        } else if prefixes.iter().any(|known| **known == *prefix) {
            report.error(span, "this prefix stands in the list already");
            valid = false;
        } else {
            prefixes.push(prefix.into());
        }
    }
    valid.then_some(Middleware::StripPrefix { prefixes })
}
