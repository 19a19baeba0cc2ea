//! `middlewares` of a pool, in the order of the file, and those that the file names: one file for each kind.

mod add_prefix;
mod authentication;
mod basic_auth;
mod compression;
mod custom_error_pages;
mod headers;
mod https_redirector;
mod ip_filter;
mod max_body_size;
mod named;
mod path;
mod rate_limiter;
mod realm;
mod redirect;
mod replace_path;
mod respond;
mod strip_prefix;
mod substitution;

use toml::de::DeValue;

pub(super) use named::Named;

use super::diagnostic::clip;
use super::middleware_settings::Middleware;
use super::reader::Section;
use super::report::{Report, Span, Value};
use super::suggest;

/// Reads the table of one kind.
type Read = fn(&Value<'_>, &mut Report<'_>) -> Option<Middleware>;

/// The kinds by name.
const KINDS: &[(&str, Read)] = &[
    ("Compression", compression::read),
    ("RateLimiter", rate_limiter::read),
    ("HttpsRedirector", https_redirector::read),
    ("MaxBodySize", max_body_size::read),
    ("IpAllow", ip_filter::read_allow),
    ("IpDeny", ip_filter::read_deny),
    ("Authentication", authentication::read),
    ("BasicAuth", basic_auth::read),
    ("CustomErrorPages", custom_error_pages::read),
    ("Headers", headers::read),
    ("StripPrefix", strip_prefix::read),
    ("AddPrefix", add_prefix::read),
    ("ReplacePath", replace_path::read),
    ("ReplacePathRegex", replace_path::read_regex),
    ("Redirect", redirect::read),
    ("Respond", respond::read),
];

/// Most middlewares of one pool.
const MAX_MIDDLEWARES: usize = 100;

/// The middlewares of a pool, each with the span of its name: a table of them, or a list of names. Those with
/// an error are left out.
pub(super) fn of_pool(
    value: &Value<'_>,
    named: &mut Named,
    report: &mut Report<'_>,
) -> Vec<(Middleware, Span)> {
    match value.get_ref() {
        // `[[backend_pools.middlewares]]` is meant as the table.
        DeValue::Array(items)
            if items.is_empty() || items.iter().any(|i| i.get_ref().as_table().is_none()) =>
        {
            named.list(items, report)
        }
        DeValue::String(name) => {
            named.one(value, name, report);
            Vec::new()
        }
        _ => read(value, report),
    }
}

/// Whether a table of middlewares has a `Respond`, maybe with an error.
pub(super) fn has_respond(value: &Value<'_>) -> bool {
    value.get_ref().as_table().is_some_and(|table| table.contains_key("Respond"))
}

fn is_kind(name: &str) -> bool {
    KINDS.iter().any(|(known, _)| *known == name)
}

/// The middlewares of a table, each with the span of its name; one with an error is left out.
fn read(value: &Value<'_>, report: &mut Report<'_>) -> Vec<(Middleware, Span)> {
    let Some(section) = Section::with_any_keys(value, "`middlewares`", report) else { return Vec::new() };
    let mut found = Vec::new();
    for (key, value) in section.entries() {
        let name = key.get_ref().as_ref();
        let Some((_, read)) = KINDS.iter().find(|(known, _)| *known == name) else {
            let names: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
            let error = report.error(key.span(), format!("unknown middleware \"{}\"", clip(name)));
            match suggest::nearest(name, &names) {
                Some(near) => {
                    error.suggest(format!("did you mean \"{near}\"?"), key.span(), near);
                }
                None => error.help = Some(format!("there are {}", names.join(", "))),
            }
            continue;
        };
        if let Some(middleware) = read(value, report) {
            found.push((middleware, key.span()));
        }
    }
    found
}
