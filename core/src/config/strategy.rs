//! `strategy` of a pool: a name, `{ Name = {} }`, or a table of its own.

use super::diagnostic::clip;
use super::model::{SameSite, StickyCookie, Strategy};
use super::reader::{self, Section};
use super::report::{Report, Span, Value};
use super::suggest;
use crate::http::fields::is_token;

const NAMES: &[&str] = &["RoundRobin", "Random", "IPHash", "LeastConnection", "StickyCookie"];
const COOKIE_KEYS: &[&str] = &["cookie_name", "http_only", "secure", "same_site", "inner"];

/// The strategy of a pool.
pub(super) fn read(value: &Value<'_>, report: &mut Report<'_>) -> Option<Strategy> {
    strategy(value, false, report)
}

/// A strategy; `is_inner` if it is the one within a sticky cookie.
fn strategy(value: &Value<'_>, is_inner: bool, report: &mut Report<'_>) -> Option<Strategy> {
    if let Some(name) = value.get_ref().as_str() {
        if name == "StickyCookie" {
            let table = "{ StickyCookie = { cookie_name = \"RUSTSTROM_SESSION\" } }";
            report.error(value.span(), "StickyCookie needs at least a `cookie_name`").write(table);
            return None;
        }
        let strategy = by_name(name);
        if strategy.is_none() {
            let error = report.error(value.span(), format!("unknown strategy \"{}\"", clip(name)));
            // A sticky cookie has settings, so its name alone would not do.
            match suggest::nearest(name, NAMES) {
                Some("StickyCookie") => {
                    error.help = Some("did you mean { StickyCookie = { cookie_name = \"…\" } }?".into());
                }
                _ => reader::suggest_name(error, name, &NAMES[..NAMES.len() - 1]),
            }
        }
        return strategy;
    }
    if value.get_ref().as_table().is_none() {
        report.mistyped(
            value,
            "`strategy`",
            "a name like \"RoundRobin\" or a table like { RoundRobin = {} }",
        );
        return None;
    }
    let section = Section::with_any_keys(value, "`strategy`", report)?;
    let mut entries = section.entries();
    let Some((key, inside)) = entries.next() else {
        report.error(value.span(), "`strategy` names none").help =
            Some(format!("there are {}", NAMES.join(", ")));
        return None;
    };
    if let Some((second, _)) = entries.next() {
        report.error(
            second.span(),
            format!("a pool has one strategy, and \"{}\" comes first", clip(key.get_ref())),
        );
        return None;
    }
    if key.get_ref() != "StickyCookie" {
        let strategy = by_name(key.get_ref());
        if strategy.is_some() {
            Section::new(inside, "this strategy", &[], report)?;
        } else {
            let error = report.error(key.span(), format!("unknown strategy \"{}\"", clip(key.get_ref())));
            match suggest::nearest(key.get_ref(), NAMES) {
                Some(near) => {
                    error.suggest(format!("did you mean \"{near}\"?"), error.span.clone(), near);
                }
                None => error.help = Some(format!("there are {}", NAMES.join(", "))),
            }
        }
        return strategy;
    }
    if is_inner {
        report.error(key.span(), "a sticky cookie can't be the `inner` strategy of another");
        return None;
    }
    cookie(&Section::new(inside, "`StickyCookie`", COOKIE_KEYS, report)?, report)
}

/// Where a sticky cookie's `secure` is written.
pub(super) fn secure_span(strategy: &Value<'_>) -> Option<Span> {
    let cookie = strategy.get_ref().as_table()?.get("StickyCookie")?;
    Some(cookie.get_ref().as_table()?.get("secure")?.span())
}

/// A strategy without settings.
fn by_name(name: &str) -> Option<Strategy> {
    Some(match name {
        "RoundRobin" => Strategy::RoundRobin,
        "Random" => Strategy::Random,
        "IPHash" => Strategy::IpHash,
        "LeastConnection" => Strategy::LeastConnection,
        _ => return None,
    })
}

fn cookie(section: &Section<'_>, report: &mut Report<'_>) -> Option<Strategy> {
    let name = section
        .required("cookie_name", "\"RUSTSTROM_SESSION\"", report)
        .and_then(|value| cookie_name(value, report));
    let http_only = section.boolean("http_only", true, report);
    let secure = section.boolean("secure", true, report);
    let sites = &[("Strict", SameSite::Strict), ("Lax", SameSite::Lax), ("None", SameSite::None)];
    let same_site = section.one_of("same_site", "same_site", sites, SameSite::Lax, report);
    let inner = match section.get("inner") {
        None => Strategy::RoundRobin,
        Some(value) => strategy(value, true, report)?,
    };
    let cookie_name = name?;
    if !secure && same_site == SameSite::None {
        let message = "browsers drop a cookie with SameSite=None that is not secure";
        report.warning(section.key_span("same_site"), message).help =
            Some("set `secure = true` or another `same_site`".into());
    }
    if !secure && (cookie_name.starts_with("__Secure-") || cookie_name.starts_with("__Host-")) {
        let message = "browsers drop a cookie whose name begins like this and that is not secure";
        report.warning(section.value_span("cookie_name"), message);
    }
    Some(Strategy::StickyCookie(StickyCookie {
        cookie_name,
        http_only,
        secure,
        same_site,
        inner: Box::new(inner),
    }))
}

/// A token (RFC 6265 §4.1.1).
fn cookie_name(value: &Value<'_>, report: &mut Report<'_>) -> Option<Box<str>> {
    let name = reader::string(value, "`cookie_name`", report)?;
    if name.is_empty() || !is_token(name.as_bytes()) {
        report.error(value.span(), format!("\"{}\" is not a cookie name (RFC 6265)", clip(name))).help =
            Some("use letters, digits, `-` and `_`".into());
        return None;
    }
    Some(name.into())
}
