//! `HttpsRedirector`, which has no settings.

use super::super::middleware_settings::Middleware;
use super::super::reader::Section;
use super::super::report::{Report, Value};

pub(super) fn read(value: &Value<'_>, report: &mut Report<'_>) -> Option<Middleware> {
    Section::new(value, "`HttpsRedirector`", &[], report).map(|_| Middleware::HttpsRedirector)
}
