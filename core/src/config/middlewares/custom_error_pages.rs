//! `CustomErrorPages`: the files that replace the content of errors.

use toml::de::DeValue;

use super::super::diagnostic::clip;
use super::super::middleware_settings::Middleware;
use super::super::reader::{self, Section};
use super::super::report::{Report, Span, Value};
use super::super::suggest;

/// `CustomErrorPages`: a path for each status (`"404" = "page.html"`), or `location` and `errors`, where the
/// page of each status is `location/STATUS.html`.
pub(super) fn read(value: &Value<'_>, report: &mut Report<'_>) -> Option<Middleware> {
    let section = Section::with_any_keys(value, "`CustomErrorPages`", report)?;
    let mut pages = Vec::new();
    let mut valid = true;
    for (key, value) in section.entries() {
        let name = key.get_ref().as_ref();
        if name == "location" || name == "errors" {
            continue;
        }
        let Some(status) = status(name) else {
            let error = report.error(key.span(), format!("\"{}\" is not the status of an error", clip(name)));
            let help = "keys are statuses from 400 to 599, or `location` and `errors`";
            let near = suggest::nearest(name, &["location", "errors"]);
            match near.filter(|near| section.get(near).is_none()) {
                Some(near) => {
                    error.suggest(format!("did you mean \"{near}\"?"), key.span(), near);
                }
                None => error.help = Some(help.into()),
            }
            valid = false;
            continue;
        };
        match reader::non_empty_string(value, "the path of a page", report) {
            Some(path) => {
                let page = report.file(path, value.span());
                if page.media_type().is_none() {
                    let message = format!("the type of \"{}\" is not known", clip(path));
                    report.warning(value.span(), message).help = Some(
                        "it is sent as application/octet-stream; known are .html, .json and .txt".into(),
                    );
                }
                pages.push((status, page));
            }
            None => valid = false,
        }
    }
    let (location, errors) = (section.get("location"), section.get("errors"));
    if location.is_some() || errors.is_some() {
        let location = section
            .required("location", "\"errorpages\"", report)
            .and_then(|v| reader::non_empty_string(v, "`location`", report));
        let errors = section.required("errors", "[404, 500]", report).and_then(|v| statuses(v, report));
        let (location, errors) = (location?, errors?);
        for (status, span) in errors {
            if pages.iter().any(|&(known, _)| known == status) {
                report.error(span, format!("there are two pages for {status}"));
                valid = false;
                continue;
            }
            let path = format!("{}/{status}.html", location.trim_end_matches('/'));
            pages.push((status, report.file(&path, span)));
        }
    }
    if valid && pages.is_empty() {
        report.warning(section.span.clone(), "CustomErrorPages has no pages");
    }
    valid.then_some(Middleware::CustomErrorPages { pages })
}

/// The status of an error, 400 to 599.
fn status(text: &str) -> Option<u16> {
    Some(text)
        .filter(|t| t.len() == 3 && t.bytes().all(|b| b.is_ascii_digit()))?
        .parse()
        .ok()
        .filter(|s| (400..600).contains(s))
}

/// The list `errors`.
fn statuses(value: &Value<'_>, report: &mut Report<'_>) -> Option<Vec<(u16, Span)>> {
    let DeValue::Array(items) = value.get_ref() else {
        report.mistyped(value, "`errors`", "a list of statuses");
        return None;
    };
    // Every item is read, so that every error is reported.
    let found: Vec<Option<(u16, Span)>> = items
        .iter()
        .map(|item| {
            let status = reader::integer(item, "a status in `errors`", 400..=599, report)?;
            Some((u16::try_from(status).ok()?, item.span()))
        })
        .collect();
    found.into_iter().collect()
}
