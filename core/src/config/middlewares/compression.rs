//! `Compression`: which responses are compressed, and how.

use super::super::diagnostic::clip;
use super::super::middleware_settings::{Compression, Middleware};
use super::super::reader::{self, Section};
use super::super::report::{Report, Value};
use crate::http::{ContentCoding, MediaRange};

/// Brotli above this level needs several times the memory and time.
const MAX_QUICK_BROTLI: u8 = 4;
/// More is a mistake: it would compress nothing.
const MAX_MIN_BYTES: u64 = 1 << 40;

pub(super) fn read(value: &Value<'_>, report: &mut Report<'_>) -> Option<Middleware> {
    let section =
        Section::new(value, "`Compression`", &["algorithms", "level", "min_bytes", "types"], report)?;
    let defaults = Compression::default();
    // Each is read, so that every error is reported.
    let algorithms = section.get("algorithms").map_or(Some(defaults.algorithms), |v| algorithms(v, report));
    let level = section.get("level").map_or(Some(None), |value| {
        reader::integer(value, "`level`", 1..=9, report).and_then(|level| u8::try_from(level).ok()).map(Some)
    });
    let min_bytes = section.get("min_bytes").map_or(Some(defaults.min_bytes), |value| {
        reader::integer(value, "`min_bytes`", 0..=MAX_MIN_BYTES, report)
    });
    let types = section.get("types").map_or(Some(None), |value| types(value, report).map(Some));
    let read = Compression { algorithms: algorithms?, level: level?, min_bytes: min_bytes?, types: types? };
    if read.level.is_some_and(|level| level > MAX_QUICK_BROTLI)
        && read.algorithms.contains(&ContentCoding::Br)
    {
        let message = format!("brotli above level {MAX_QUICK_BROTLI} needs 8 to 40 MB for each response");
        report.warning(section.value_span("level"), message).help =
            Some("leave \"br\" out of `algorithms`, or lower `level`".into());
    }
    Some(Middleware::Compression(read))
}

/// The list of codings: one at least, each once.
fn algorithms(value: &Value<'_>, report: &mut Report<'_>) -> Option<Vec<ContentCoding>> {
    let known = ContentCoding::ALL.map(|coding| (coding.name(), coding));
    let Some(items) = value.get_ref().as_array() else {
        report.mistyped(value, "`algorithms`", "a list of content codings");
        return None;
    };
    let mut found = Vec::new();
    let mut valid = true;
    for item in items {
        match reader::one_of(item, "content coding", &known, report) {
            Some(coding) if found.contains(&coding) => {
                let message = format!("\"{}\" is there twice in `algorithms`", coding.name());
                report.error(item.span(), message);
                valid = false;
            }
            Some(coding) => found.push(coding),
            None => valid = false,
        }
    }
    if items.is_empty() {
        report.error(value.span(), "`algorithms` must not be empty").help =
            Some("without the middleware nothing is compressed".into());
        return None;
    }
    valid.then_some(found)
}

/// The list of media types: one at least.
fn types(value: &Value<'_>, report: &mut Report<'_>) -> Option<Vec<MediaRange>> {
    let Some(items) = value.get_ref().as_array() else {
        report.mistyped(value, "`types`", "a list of media types");
        return None;
    };
    let mut found = Vec::new();
    let mut valid = true;
    for item in items {
        let Some(text) = reader::string(item, "a media type in `types`", report) else {
            valid = false;
            continue;
        };
        if let Some(range) = MediaRange::parse(text) {
            found.push(range);
            continue;
        }
        let error = report.error(item.span(), format!("\"{}\" is not a media type", clip(text)));
        let bare = text.split(';').next().unwrap_or_default().trim();
        if MediaRange::parse(bare).is_some() {
            error.suggest("it has no parameters here", item.span(), format!("\"{bare}\""));
        } else {
            error.help = Some("it is like \"text/html\", \"text/*\" or \"application/*+json\"".into());
        }
        valid = false;
    }
    if items.is_empty() {
        report.error(value.span(), "`types` must not be empty").help =
            Some("without the middleware nothing is compressed".into());
        return None;
    }
    valid.then_some(found)
}
