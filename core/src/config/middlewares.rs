//! `[backend_pools.middlewares]`: in the order of the file.

use std::time::Duration;

use toml::de::DeValue;

use super::model::Middleware;
use super::reader::{self, Report, Section, Span, Value};
use super::{address, suggest};

const NAMES: &[&str] =
    &["Compression", "RateLimiter", "HttpsRedirector", "MaxBodySize", "Authentication", "CustomErrorPages"];
/// About a month: a window's memory is bounded by clients, not by time, but nobody means more.
const MAX_WINDOW_SECS: u64 = 31 * 24 * 3600;

/// Each with the place of its name; one with an error is left out.
pub(super) fn read(value: &Value<'_>, report: &mut Report<'_>) -> Vec<(Middleware, Span)> {
    let Some(section) = Section::open(value, "`middlewares`", report) else { return Vec::new() };
    let mut found = Vec::new();
    for (key, value) in section.entries() {
        let name = key.get_ref().as_ref();
        let Some(&name) = NAMES.iter().find(|&&known| known == name) else {
            let help = match suggest::nearest(name, NAMES) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("use {}", NAMES.join(", ")),
            };
            *report.error(key.span(), format!("unknown middleware \"{}\"", suggest::clip(name))) = Some(help);
            continue;
        };
        if let Some(middleware) = one(name, value, report) {
            report.not_built(key.span(), &format!("{name} is"));
            found.push((middleware, key.span()));
        }
    }
    found
}

fn one(name: &'static str, value: &Value<'_>, report: &mut Report<'_>) -> Option<Middleware> {
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

fn number(
    section: &Section<'_>,
    key: &str,
    example: &str,
    bounds: std::ops::RangeInclusive<u64>,
    report: &mut Report<'_>,
) -> Option<u64> {
    let value = section.required(key, example, report)?;
    reader::integer(value, &format!("`{key}`"), bounds, report)
}

fn authentication(value: &Value<'_>, report: &mut Report<'_>) -> Option<Middleware> {
    let keys = &["ldap_address", "user_directory", "rdn_identifier", "recursive"];
    let section = Section::new(value, "`Authentication`", keys, report)?;
    let ldap_address =
        section.required("ldap_address", "\"ldaps://ldap.example.com:636\"", report).and_then(|value| {
            let text = reader::string(value, "`ldap_address`", report)?;
            match ldap(text) {
                Ok(()) => Some(Box::<str>::from(text)),
                Err(why) => {
                    let message =
                        format!("bad address \"{}\" for `ldap_address`: {why}", suggest::clip(text));
                    *report.error(value.span(), message) =
                        Some("write \"ldap://host:389\" or \"ldaps://host:636\"".into());
                    None
                }
            }
        });
    let user_directory =
        section.required("user_directory", "\"ou=users,dc=example,dc=com\"", report).and_then(|value| {
            let text = reader::string(value, "`user_directory`", report)?;
            if text.split(',').all(|part| {
                part.split_once('=').is_some_and(|(k, v)| attribute(k.trim()) && !v.trim().is_empty())
            }) {
                return Some(Box::<str>::from(text));
            }
            let help = "write it like \"ou=users,dc=example,dc=com\"".to_owned();
            *report.error(value.span(), format!("\"{}\" is not a distinguished name", suggest::clip(text))) =
                Some(help);
            None
        });
    let rdn_identifier = section.required("rdn_identifier", "\"uid\"", report).and_then(|value| {
        let text = reader::string(value, "`rdn_identifier`", report)?;
        if attribute(text) {
            return Some(Box::<str>::from(text));
        }
        let help = "it is the attribute of a user's name: \"uid\", \"cn\" or \"sAMAccountName\"".to_owned();
        *report.error(value.span(), format!("\"{}\" is not an LDAP attribute", suggest::clip(text))) =
            Some(help);
        None
    });
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

/// RFC 4512 §1.4: a name or an object identifier.
fn attribute(text: &str) -> bool {
    let named = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let numbered = text.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    named || numbered
}

fn ldap(text: &str) -> Result<(), &'static str> {
    let Some(rest) = text.strip_prefix("ldap://").or_else(|| text.strip_prefix("ldaps://")) else {
        return Err("it begins with neither ldap:// nor ldaps://");
    };
    if rest.parse::<std::net::SocketAddr>().is_ok()
        || rest.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_ipv4())
    {
        return Ok(());
    }
    if let Some(v6) = rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return v6
            .parse::<std::net::Ipv6Addr>()
            .map(|_| ())
            .map_err(|_| "there is no IPv6 address between the brackets");
    }
    match rest.split_once(':') {
        None => address::host_name(rest).map(|_| ()),
        Some((host, port)) => match port.parse::<u16>() {
            Ok(1..) if port.bytes().all(|b| b.is_ascii_digit()) => address::host_name(host).map(|_| ()),
            _ => Err("its port is not from 1 to 65535"),
        },
    }
}

/// `"404" = "page.html"` for each status, or `location` and `errors`: then each page is
/// `location/STATUS.html`.
fn pages(value: &Value<'_>, report: &mut Report<'_>) -> Option<Middleware> {
    let section = Section::open(value, "`CustomErrorPages`", report)?;
    let mut pages = Vec::new();
    let mut good = true;
    for (key, value) in section.entries() {
        let name = key.get_ref().as_ref();
        if name == "location" || name == "errors" {
            continue;
        }
        let Some(status) = status(name) else {
            let help = match suggest::nearest(name, &["location", "errors"]) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => "keys are statuses from 400 to 599, or `location` and `errors`".into(),
            };
            *report.error(key.span(), format!("\"{}\" is not the status of an error", suggest::clip(name))) =
                Some(help);
            good = false;
            continue;
        };
        match reader::filled(value, "the path of a page", report) {
            Some(path) => pages.push((status, path.into())),
            None => good = false,
        }
    }
    let (location, errors) = (section.get("location"), section.get("errors"));
    if location.is_some() || errors.is_some() {
        let location = section
            .required("location", "\"errorpages\"", report)
            .and_then(|v| reader::filled(v, "`location`", report));
        let errors = section.required("errors", "[404, 500]", report).and_then(|v| statuses(v, report));
        let (location, errors) = (location?, errors?);
        for (status, span) in errors {
            if pages.iter().any(|&(known, _)| known == status) {
                report.error(span, format!("there are two pages for {status}"));
                good = false;
                continue;
            }
            pages.push((status, format!("{}/{status}.html", location.trim_end_matches('/')).into()));
        }
    }
    if good && pages.is_empty() {
        report.warning(section.span.clone(), "CustomErrorPages has no pages");
    }
    good.then_some(Middleware::CustomErrorPages { pages })
}

fn status(text: &str) -> Option<u16> {
    Some(text)
        .filter(|t| t.len() == 3 && t.bytes().all(|b| b.is_ascii_digit()))?
        .parse()
        .ok()
        .filter(|s| (400..600).contains(s))
}

fn statuses(value: &Value<'_>, report: &mut Report<'_>) -> Option<Vec<(u16, Span)>> {
    let DeValue::Array(items) = value.get_ref() else {
        report.mistyped(value, "`errors`", "a list of statuses");
        return None;
    };
    // All are looked at, so that all that are wrong are reported.
    let found: Vec<Option<(u16, Span)>> = items
        .iter()
        .map(|item| {
            let status = reader::integer(item, "a status in `errors`", 400..=599, report)?;
            Some((u16::try_from(status).ok()?, item.span()))
        })
        .collect();
    found.into_iter().collect()
}
