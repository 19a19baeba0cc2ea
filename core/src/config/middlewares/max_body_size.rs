//! `MaxBodySize`: the longest body of a request.

use super::super::middleware_settings::Middleware;
use super::super::reader::{self, Section};
use super::super::report::{Report, Value};

pub(super) fn read(value: &Value<'_>, report: &mut Report<'_>) -> Option<Middleware> {
    let section = Section::new(value, "`MaxBodySize`", &["limit"], report)?;
    let limit = section.required("limit", "10485760", report)?;
    Some(Middleware::MaxBodySize { limit: reader::bytes(limit, "`limit`", report)? })
}
