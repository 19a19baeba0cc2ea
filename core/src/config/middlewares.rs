//! `[backend_pools.middlewares]` of a pool, in the order of the file.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeValue;

use super::address::host_name;
use super::diagnostic::clip;
use super::model::Middleware;
use super::reader::{self, Section};
use super::report::{Report, Span, Value};
use super::suggest;

const NAMES: &[&str] =
    &["Compression", "RateLimiter", "HttpsRedirector", "MaxBodySize", "Authentication", "CustomErrorPages"];
/// Longest window of a rate limiter, about a month. Memory doesn't depend on it, but more is a mistake.
const MAX_WINDOW_SECS: u64 = 31 * 24 * 3600;

/// Each middleware with the span of its name; one with an error is left out.
pub(super) fn read(value: &Value<'_>, report: &mut Report<'_>) -> Vec<(Middleware, Span)> {
    let Some(section) = Section::with_any_keys(value, "`middlewares`", report) else { return Vec::new() };
    let mut found = Vec::new();
    for (key, value) in section.entries() {
        let name = key.get_ref().as_ref();
        let Some(&name) = NAMES.iter().find(|&&known| known == name) else {
            let error = report.error(key.span(), format!("unknown middleware \"{}\"", clip(name)));
            match suggest::nearest(name, NAMES) {
                Some(near) => {
                    error.suggest(format!("did you mean \"{near}\"?"), key.span(), near);
                }
                None => error.help = Some(format!("there are {}", NAMES.join(", "))),
            }
            continue;
        };
        if let Some(middleware) = read_one(name, value, report) {
            report.not_built(key.span(), &format!("{name} is"));
            found.push((middleware, key.span()));
        }
    }
    found
}

fn read_one(name: &'static str, value: &Value<'_>, report: &mut Report<'_>) -> Option<Middleware> {
    match name {
        "Compression" => Section::new(value, "`Compression`", &[], report).map(|_| Middleware::Compression),
        "HttpsRedirector" => {
            Section::new(value, "`HttpsRedirector`", &[], report).map(|_| Middleware::HttpsRedirector)
        }
        "RateLimiter" => {
            let section = Section::new(value, "`RateLimiter`", &["limit", "window_sec"], report)?;
            let limit = number(&section, "limit", "100", 1..=u64::from(u32::MAX), report);
            let window = number(&section, "window_sec", "60", 1..=MAX_WINDOW_SECS, report);
            Some(Middleware::RateLimiter {
                limit: u32::try_from(limit?).ok()?,
                window: Duration::from_secs(window?),
            })
        }
        "MaxBodySize" => {
            let section = Section::new(value, "`MaxBodySize`", &["limit"], report)?;
            Some(Middleware::MaxBodySize {
                limit: number(&section, "limit", "10485760", 0..=u64::MAX, report)?,
            })
        }
        "Authentication" => authentication(value, report),
        _ => pages(value, report),
    }
}

/// A required integer.
fn number(
    section: &Section<'_>,
    key: &str,
    example: &str,
    bounds: RangeInclusive<u64>,
    report: &mut Report<'_>,
) -> Option<u64> {
    let value = section.required(key, example, report)?;
    reader::integer(value, &format!("`{key}`"), bounds, report)
}

fn authentication(value: &Value<'_>, report: &mut Report<'_>) -> Option<Middleware> {
    let keys = &["ldap_address", "user_directory", "rdn_identifier", "recursive"];
    let section = Section::new(value, "`Authentication`", keys, report)?;
    let ldap_address = section
        .required("ldap_address", "\"ldaps://ldap.example.com:636\"", report)
        .and_then(|value| ldap_address(value, report));
    let user_directory = section
        .required("user_directory", "\"ou=users,dc=example,dc=com\"", report)
        .and_then(|value| user_directory(value, report));
    let rdn_identifier =
        section.required("rdn_identifier", "\"uid\"", report).and_then(|value| rdn_identifier(value, report));
    let recursive = section
        .required("recursive", "true", report)
        .and_then(|value| reader::boolean(value, "`recursive`", report));
    Some(Middleware::Authentication {
        ldap_address: ldap_address?,
        user_directory: user_directory?,
        rdn_identifier: rdn_identifier?,
        recursive: recursive?,
    })
}

fn ldap_address(value: &Value<'_>, report: &mut Report<'_>) -> Option<Box<str>> {
    let text = reader::string(value, "`ldap_address`", report)?;
    if let Err(reason) = check_ldap_address(text) {
        let message = format!("bad address \"{}\" for `ldap_address`: {reason}", clip(text));
        report.error(value.span(), message).help =
            Some("it is like \"ldap://host:389\" or \"ldaps://host:636\"".into());
        return None;
    }
    Some(text.into())
}

fn check_ldap_address(text: &str) -> Result<(), &'static str> {
    let Some(rest) = text.strip_prefix("ldap://").or_else(|| text.strip_prefix("ldaps://")) else {
        return Err("it begins with neither ldap:// nor ldaps://");
    };
    if rest.parse::<SocketAddr>().is_ok() || rest.parse::<Ipv4Addr>().is_ok() {
        return Ok(());
    }
    if let Some(v6) = rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return v6
            .parse::<Ipv6Addr>()
            .map(|_| ())
            .map_err(|_| "there is no IPv6 address between the brackets");
    }
    match rest.split_once(':') {
        None => host_name(rest).map(|_| ()),
        Some((host, port)) => match port.parse::<u16>() {
            Ok(1..) if port.bytes().all(|b| b.is_ascii_digit()) => host_name(host).map(|_| ()),
            _ => Err("its port is not from 1 to 65535"),
        },
    }
}

/// The distinguished name below which users are looked for.
fn user_directory(value: &Value<'_>, report: &mut Report<'_>) -> Option<Box<str>> {
    let text = reader::string(value, "`user_directory`", report)?;
    let is_pair = |part: &str| {
        part.split_once('=').is_some_and(|(k, v)| is_attribute(k.trim()) && !v.trim().is_empty())
    };
    if text.split(',').all(is_pair) {
        return Some(text.into());
    }
    report.error(value.span(), format!("\"{}\" is not a distinguished name", clip(text))).help =
        Some("it is like \"ou=users,dc=example,dc=com\"".into());
    None
}

fn rdn_identifier(value: &Value<'_>, report: &mut Report<'_>) -> Option<Box<str>> {
    let text = reader::string(value, "`rdn_identifier`", report)?;
    if is_attribute(text) {
        return Some(text.into());
    }
    report.error(value.span(), format!("\"{}\" is not an LDAP attribute", clip(text))).help =
        Some("it is the attribute of a user's name: \"uid\", \"cn\" or \"sAMAccountName\"".into());
    None
}

/// An attribute description of LDAP (RFC 4512 §1.4): a name or an object identifier.
fn is_attribute(text: &str) -> bool {
    let name = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let oid = text.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    name || oid
}

/// `CustomErrorPages`: a path for each status (`"404" = "page.html"`), or `location` and `errors`, where the
/// page of each status is `location/STATUS.html`.
fn pages(value: &Value<'_>, report: &mut Report<'_>) -> Option<Middleware> {
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
            Some(path) => pages.push((status, path.into())),
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
            pages.push((status, format!("{}/{status}.html", location.trim_end_matches('/')).into()));
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
