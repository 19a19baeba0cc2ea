//! `Respond`: a response that the proxy makes itself.

use super::super::diagnostic::clip;
use super::super::middleware_settings::{Middleware, Respond, RespondContent};
use super::super::reader::{self, Section};
use super::super::report::{Report, Value};
use super::headers;

pub(super) fn read(value: &Value<'_>, report: &mut Report<'_>) -> Option<Middleware> {
    let keys = &["status", "body", "file", "content_type", "headers"];
    let section = Section::new(value, "`Respond`", keys, report)?;
    let status = match section.get("status") {
        None => Some(200),
        Some(value) => reader::integer(value, "`status`", 200..=599, report),
    };
    let body = section.get("body").map(|value| reader::string(value, "`body`", report));
    let file = section.get("file").map(|value| {
        let path = reader::non_empty_string(value, "`file`", report)?;
        Some(report.file(path, value.span()))
    });
    let mut valid = true;
    if body.is_some() && file.is_some() {
        report.error(section.key_span("file"), "there are both `body` and `file`").help =
            Some("remove one of them".into());
        valid = false;
    }
    if let Some(status @ (204 | 205 | 304)) = status
        && (body.is_some_and(|body| body != Some("")) || file.is_some())
    {
        let key = if body.is_some() { "body" } else { "file" };
        report.error(section.key_span(key), format!("a response of status {status} has no content"));
        valid = false;
    }
    let content_type = section.get("content_type").map(|value| {
        let text = reader::non_empty_string(value, "`content_type`", report)?;
        let is_type = text.split_once('/').is_some_and(|(kind, rest)| !kind.is_empty() && !rest.is_empty())
            && text.bytes().all(|b| (b' '..=b'~').contains(&b))
            && text.trim() == text;
        if !is_type {
            report.error(value.span(), format!("\"{}\" is not a media type", clip(text))).help =
                Some("it is like \"text/html; charset=utf-8\"".into());
        }
        is_type.then(|| Box::<str>::from(text))
    });
    if let Some(Some(file)) = &file
        && content_type.is_none()
        && file.media_type().is_none()
    {
        let message = format!("the type of \"{}\" is not known", clip(&file.path));
        report.warning(section.value_span("file"), message).help =
            Some("set `content_type`; without it, it is sent as application/octet-stream".into());
    }
    let fields = match section.get("headers") {
        None => Some(Vec::new()),
        Some(value) => headers::response_fields(value, "`headers`", report),
    };
    let content = match (body, file) {
        (Some(body), _) => RespondContent::Text(body?.into()),
        (None, Some(file)) => RespondContent::File(file?),
        (None, None) => RespondContent::Empty,
    };
    let (status, fields) = (u16::try_from(status?).ok()?, fields?);
    let content_type = content_type.map_or(Some(None), |known| known.map(Some))?;
    valid.then(|| Middleware::Respond(Box::new(Respond { status, content, content_type, fields })))
}
