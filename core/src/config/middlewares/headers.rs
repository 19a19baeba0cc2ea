//! `Headers`: fields of requests and responses that are set, added and removed.

use super::super::diagnostic::clip;
use super::super::literal::Literal;
use super::super::middleware_settings::{FieldChanges, Headers, Middleware};
use super::super::reader::{self, Section};
use super::super::report::{Report, Span, Value};
use super::super::suggest;
use super::super::template::{Placeholder, Template, TemplateError, TemplateErrorKind};
use crate::http::{HeaderKind, fields::is_token};

/// Which head a field belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Request,
    Response,
    /// Of a response that no backend makes.
    Reply,
}

/// Framing, `Host`, and what is meant for one hop (RFC 9110 §7.6.1): each hop makes these anew.
const OF_A_HOP: u64 = HeaderKind::set(&[
    HeaderKind::Host,
    HeaderKind::ContentLength,
    HeaderKind::TransferEncoding,
    HeaderKind::Connection,
    HeaderKind::KeepAlive,
    HeaderKind::ProxyConnection,
    HeaderKind::ProxyAuthorization,
    HeaderKind::ProxyAuthenticate,
    HeaderKind::Te,
    HeaderKind::Trailer,
    HeaderKind::Upgrade,
    HeaderKind::Expect,
    HeaderKind::UnderscoreAlias,
]);
/// What every request to a backend says of its client.
const OF_THE_PROXY: u64 = HeaderKind::set(&[
    HeaderKind::XForwardedFor,
    HeaderKind::XForwardedProto,
    HeaderKind::XForwardedHost,
    HeaderKind::XForwardedPort,
    HeaderKind::XForwardedServer,
    HeaderKind::XRealIp,
    HeaderKind::XRequestId,
    HeaderKind::ClientCertificate,
]);

pub(super) fn read(value: &Value<'_>, report: &mut Report<'_>) -> Option<Middleware> {
    let section = Section::new(value, "`Headers`", &["request", "response", "security"], report)?;
    let mut side = |key, side| match section.get(key) {
        Some(value) => changes(value, side, report),
        None => Some(FieldChanges::default()),
    };
    let (request, response) = (side("request", Side::Request), side("response", Side::Response));
    let security = section.boolean("security", false, report);
    let headers = Headers { request: request?, response: response?, security };
    if section.entries().next().is_none() {
        report.warning(section.span.clone(), "Headers changes nothing").help =
            Some("it has `request` and `response` with `set`, `add` and `remove`, and `security`".into());
    }
    Some(Middleware::Headers(Box::new(headers)))
}

fn changes(value: &Value<'_>, side: Side, report: &mut Report<'_>) -> Option<FieldChanges> {
    let what = if side == Side::Request { "`request`" } else { "`response`" };
    let section = Section::new(value, what, &["set", "add", "remove"], report)?;
    let mut changes = FieldChanges::default();
    let mut valid = true;
    let mut named: Vec<(Box<str>, &str)> = Vec::new();
    for (key, to) in [("set", &mut changes.set), ("add", &mut changes.add)] {
        let Some(value) = section.get(key) else { continue };
        let what = if key == "set" { "`set`" } else { "`add`" };
        let Some(fields) = Section::with_any_keys(value, what, report) else {
            valid = false;
            continue;
        };
        for (name, value) in fields.entries() {
            let name_span = name.span();
            let name: &str = name.get_ref();
            let name_valid = check_name(name, name_span.clone(), side, report);
            valid &= name_valid;
            if key == "set" && name_valid {
                let twice = named.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
                if twice {
                    let message = format!("\"{}\" is set already", clip(name));
                    report.error(name_span, message).help = Some("names are the same in any case".into());
                    valid = false;
                }
                named.push((name.into(), key));
            }
            let several = key == "add" && value.get_ref().as_array().is_some();
            let values = if several {
                reader::strings(value, "the values of a field", report)
            } else {
                match reader::string(value, "the value of a field", report) {
                    Some(text) => vec![(text, value.span())],
                    None => {
                        valid = false;
                        continue;
                    }
                }
            };
            for (text, span) in values {
                match template(text, span, side, report) {
                    Some(template) => to.push((name.into(), template)),
                    None => valid = false,
                }
            }
        }
    }
    if let Some(value) = section.get("remove") {
        for (name, span) in reader::strings(value, "`remove`", report) {
            if named.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
                let message = format!("\"{}\" is both set and removed", clip(name));
                report.error(span, message).help =
                    Some("what is set replaces every field of its name".into());
                valid = false;
                continue;
            }
            valid &= check_name(name, span, side, report);
            changes.remove.push(name.into());
        }
    }
    valid.then_some(changes)
}

/// The fields of a response: a table of names and values.
pub(super) fn response_fields(
    value: &Value<'_>,
    what: &'static str,
    report: &mut Report<'_>,
) -> Option<Vec<(Box<str>, Template)>> {
    let section = Section::with_any_keys(value, what, report)?;
    let mut fields: Vec<(Box<str>, Template)> = Vec::new();
    let mut valid = true;
    for (name, value) in section.entries() {
        let name_valid = check_name(name.get_ref(), name.span(), Side::Reply, report);
        let text = reader::string(value, "the value of a field", report);
        let template = text.and_then(|text| template(text, value.span(), Side::Reply, report));
        match template {
            Some(template) if name_valid => fields.push((name.get_ref().as_ref().into(), template)),
            _ => valid = false,
        }
    }
    valid.then_some(fields)
}

/// Whether a field of this name may be changed on this side.
fn check_name(name: &str, span: Span, side: Side, report: &mut Report<'_>) -> bool {
    if !is_token(name.as_bytes()) {
        let error = report.error(span, format!("\"{}\" is not the name of a field", clip(name)));
        error.help = Some("a name has letters, digits and `-`".into());
        return false;
    }
    let kind = HeaderKind::of(name.as_bytes());
    let reason = match () {
        () if kind == HeaderKind::Host => "the host stays the one that the client has asked for",
        () if kind == HeaderKind::UnderscoreAlias => "a field of this name never passes: write it with `-`",
        () if kind.in_set(OF_A_HOP) => "every hop makes it anew",
        () if side == Side::Request && kind.in_set(OF_THE_PROXY) => "the proxy sets it in every request",
        () => return true,
    };
    report.error(span, format!("\"{}\" can't be changed: {reason}", clip(name)));
    false
}

/// The value of a field.
fn template(text: &str, span: Span, side: Side, report: &mut Report<'_>) -> Option<Template> {
    let literal = Literal::new(report.text, span.clone(), text);
    let template = match Template::parse(text) {
        Ok(template) => template,
        Err(error) => {
            explain(&error, text, &literal, span, report);
            return None;
        }
    };
    if side != Side::Response && template.has(Placeholder::Backend) {
        let at = text.find("{backend}").unwrap_or(0);
        let message = match side {
            Side::Request => "which backend gets a request is not known yet when its fields are set",
            _ => "no backend makes this response",
        };
        let error = report.error(literal.span_of(at..at + "{backend}".len()), message);
        error.help = Some("{backend} can stand in `response` of Headers".into());
        return None;
    }
    Some(template)
}

fn explain(found: &TemplateError, text: &str, literal: &Literal, whole: Span, report: &mut Report<'_>) {
    let span = literal.span_of(found.span.clone());
    let name = &text[found.span.clone()];
    let message = match found.kind {
        TemplateErrorKind::Unclosed => "this `{` is never closed".into(),
        TemplateErrorKind::Unopened => "nothing has opened this `}`".into(),
        TemplateErrorKind::Unknown => format!("unknown placeholder \"{{{}}}\"", clip(name)),
        TemplateErrorKind::Control => "a field has no control characters".into(),
        TemplateErrorKind::OuterBlank => "a field neither begins nor ends with a blank".into(),
        TemplateErrorKind::TooLong => format!("a field has at most {} bytes", Template::MAX_BYTES),
    };
    // Without a place within the string there is nothing to replace.
    let has_place = span != whole;
    let error = report.error(span.clone(), message);
    match found.kind {
        _ if !has_place => {}
        TemplateErrorKind::Unclosed => {
            error.suggest("write {{ for a brace", span, "{{");
        }
        TemplateErrorKind::Unopened => {
            error.suggest("write }} for a brace", span, "}}");
        }
        TemplateErrorKind::Unknown => {
            let names: Vec<&str> = Placeholder::ALL.iter().map(|p| p.name()).collect();
            match suggest::nearest(name.trim(), &names).filter(|_| !name.is_empty()) {
                Some(near) => {
                    error.suggest(format!("did you mean \"{{{near}}}\"?"), span, near);
                }
                None => {
                    let all: Vec<String> = names.iter().map(|name| format!("{{{name}}}")).collect();
                    error.help = Some(format!("there are {}; {{{{ is a brace", all.join(", ")));
                }
            }
        }
        TemplateErrorKind::Control | TemplateErrorKind::OuterBlank | TemplateErrorKind::TooLong => {}
    }
}
