//! `AddPrefix`: what the paths of requests get at their beginning.

use super::super::middleware_settings::Middleware;
use super::super::reader::Section;
use super::super::report::{Report, Value};
use super::path;

pub(super) fn read(value: &Value<'_>, report: &mut Report<'_>) -> Option<Middleware> {
    let section = Section::new(value, "`AddPrefix`", &["prefix"], report)?;
    let value = section.required("prefix", "\"/v1\"", report)?;
    let path = path::read(value, "`prefix`", report)?;
    let prefix = path.trim_end_matches('/');
    if prefix.is_empty() {
        report.error(value.span(), "`/` is no prefix to add: every path begins with it");
        return None;
    }
    Some(Middleware::AddPrefix { prefix: prefix.into() })
}
