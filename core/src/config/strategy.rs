//! `strategy`: a bare name, `{ Name = {} }`, or a table of its own.

use super::matcher::is_token;
use super::model::{SameSite, StickyCookie, Strategy};
use super::reader::{self, Report, Section, Value};
use super::suggest;

const NAMES: &[&str] = &["RoundRobin", "Random", "IPHash", "LeastConnection", "StickyCookie"];
const COOKIE: &[&str] = &["cookie_name", "http_only", "secure", "same_site", "inner"];

/// Reads one.
pub(super) fn read(value: &Value<'_>, report: &mut Report<'_>) -> Option<Strategy> {
    one(value, false, report)
}

fn one(value: &Value<'_>, within_cookie: bool, report: &mut Report<'_>) -> Option<Strategy> {
    if let Some(name) = value.get_ref().as_str() {
        if name == "StickyCookie" {
            let help = "write [backend_pools.strategy.StickyCookie] with `cookie_name` and `inner`";
            *report.error(value.span(), "StickyCookie needs at least a `cookie_name`") = Some(help.into());
            return None;
        }
        return plain(name, value.span(), report);
    }
    if value.get_ref().as_table().is_none() {
        report.mistyped(
            value,
            "`strategy`",
            "a name like \"RoundRobin\" or a table like { RoundRobin = {} }",
        );
        return None;
    }
    let section = Section::open(value, "`strategy`", report)?;
    let mut entries = section.entries();
    let Some((key, inside)) = entries.next() else {
        *report.error(value.span(), "`strategy` names none") =
            Some(format!("use one of {}", NAMES.join(", ")));
        return None;
    };
    if let Some((second, _)) = entries.next() {
        report.error(
            second.span(),
            format!("a pool has one strategy, and \"{}\" comes first", suggest::clip(key.get_ref())),
        );
        return None;
    }
    if key.get_ref() != "StickyCookie" {
        let strategy = plain(key.get_ref(), key.span(), report);
        if strategy.is_some() {
            Section::new(inside, "this strategy", &[], report)?;
        }
        return strategy;
    }
    if within_cookie {
        report.error(key.span(), "a sticky cookie can't be the `inner` strategy of another");
        return None;
    }
    cookie(&Section::new(inside, "`StickyCookie`", COOKIE, report)?, report)
}

fn plain(name: &str, span: reader::Span, report: &mut Report<'_>) -> Option<Strategy> {
    Some(match name {
        "RoundRobin" => Strategy::RoundRobin,
        "Random" => Strategy::Random,
        "IPHash" => Strategy::IpHash,
        "LeastConnection" => Strategy::LeastConnection,
        _ => {
            let help = match suggest::nearest(name, NAMES) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("use one of {}", NAMES.join(", ")),
            };
            *report.error(span, format!("unknown strategy \"{}\"", suggest::clip(name))) = Some(help);
            return None;
        }
    })
}

fn cookie(section: &Section<'_>, report: &mut Report<'_>) -> Option<Strategy> {
    let name = section.required("cookie_name", "\"RUSTSTROM_SESSION\"", report).and_then(|value| {
        let name = reader::string(value, "`cookie_name`", report)?;
        if !is_token(name) {
            let help = "use letters, digits, `-` and `_`".to_owned();
            *report.error(
                value.span(),
                format!("\"{}\" is not a cookie name (RFC 6265)", suggest::clip(name)),
            ) = Some(help);
            return None;
        }
        Some(Box::<str>::from(name))
    });
    let http_only = section.boolean("http_only", true, report);
    let secure = section.boolean("secure", true, report);
    let sites = &[("Strict", SameSite::Strict), ("Lax", SameSite::Lax), ("None", SameSite::None)];
    let same_site = section.one_of("same_site", "same_site", sites, SameSite::Lax, report);
    let inner = match section.get("inner") {
        None => Strategy::RoundRobin,
        Some(value) => one(value, true, report)?,
    };
    let cookie_name = name?;
    if !secure && same_site == SameSite::None {
        let help = "set `secure = true` or another `same_site`".to_owned();
        *report.warning(
            section.key_span("same_site"),
            "browsers drop a cookie with SameSite=None that is not secure",
        ) = Some(help);
    }
    if !secure && (cookie_name.starts_with("__Secure-") || cookie_name.starts_with("__Host-")) {
        let message = "browsers drop a cookie whose name begins like this and that is not secure";
        report.warning(section.get("cookie_name").map_or(section.span.clone(), |v| v.span()), message);
    }
    Some(Strategy::StickyCookie(StickyCookie {
        cookie_name,
        http_only,
        secure,
        same_site,
        inner: Box::new(inner),
    }))
}
