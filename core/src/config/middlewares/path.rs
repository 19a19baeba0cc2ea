//! Paths that rewriting has: normalised, as those of requests are.

use super::super::diagnostic::clip;
use super::super::literal::quote;
use super::super::reader;
use super::super::report::{Report, Span, Value};
use crate::http::{Form, Method, RequestTarget};

/// A path, normalised and without query.
pub(super) fn read(value: &Value<'_>, what: &str, report: &mut Report<'_>) -> Option<Box<str>> {
    check(reader::string(value, what, report)?, value.span(), report)
}

/// `text` as a path.
pub(super) fn check(text: &str, span: Span, report: &mut Report<'_>) -> Option<Box<str>> {
    let mut scratch = Vec::new();
    let parsed = RequestTarget::parse(&Method::GET, text.as_bytes(), &mut scratch);
    let found = parsed.ok().filter(|target| target.form == Form::Origin && target.query.is_none());
    let normalised = found.and_then(|target| std::str::from_utf8(target.path).ok());
    let Some(normalised) = normalised else {
        let error = report.error(span, format!("\"{}\" is not a path", clip(text)));
        if !text.starts_with('/') && !text.contains(['?', '#', ':']) {
            error.write(quote(&format!("/{text}")));
        } else {
            error.help = Some("it is like \"/api\": it begins with `/`, and has no query".into());
        }
        return None;
    };
    if normalised != text {
        report.error(span, format!("the path \"{}\" is not normalised", clip(text))).write(quote(normalised));
        return None;
    }
    Some(text.into())
}
