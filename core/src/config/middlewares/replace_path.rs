//! `ReplacePath` and `ReplacePathRegex`: other paths for requests.

use super::super::middleware_settings::Middleware;
use super::super::reader::Section;
use super::super::report::{Report, Value};
use super::{path, substitution};

pub(super) fn read(value: &Value<'_>, report: &mut Report<'_>) -> Option<Middleware> {
    let section = Section::new(value, "`ReplacePath`", &["path"], report)?;
    let value = section.required("path", "\"/index.html\"", report)?;
    Some(Middleware::ReplacePath { path: path::read(value, "`path`", report)? })
}

pub(super) fn read_regex(value: &Value<'_>, report: &mut Report<'_>) -> Option<Middleware> {
    let section = Section::new(value, "`ReplacePathRegex`", &["regex", "replacement"], report)?;
    let rule = substitution::read(&section, ("'^/old/(.*)$'", "\"/new/$1\""), report)?;
    if rule.replacement().contains(['?', '#', '\\']) {
        let message = "a path has no `?`, `#` and `\\`: what follows `?` in a request stays";
        report.error(section.value_span("replacement"), message);
        return None;
    }
    Some(Middleware::ReplacePathRegex(Box::new(rule)))
}
