//! The terms of the language: how many arguments each takes and what makes a good one.

use std::net::Ipv6Addr;
use std::ops::Range;

use super::grammar::{Problem, Text};
use super::{Matcher, Pattern, canonical};
use crate::config::{address, suggest};

/// Every term.
pub(super) const NAMES: &[&str] = &[
    "Host",
    "HostRegexp",
    "Path",
    "PathPrefix",
    "PathRegexp",
    "Method",
    "Header",
    "HeaderRegexp",
    "Query",
    "ClientIP",
];

pub(super) fn build(
    name: &str,
    name_at: Range<usize>,
    whole: Range<usize>,
    arguments: Vec<Text>,
) -> Result<Matcher, Problem> {
    let wanted = match name {
        "Header" | "HeaderRegexp" | "Query" => 2,
        known if NAMES.contains(&known) => 1,
        _ => {
            let problem = Problem::new(name_at, format!("unknown matcher \"{}\"", suggest::clip(name)));
            return Err(match suggest::nearest(name, NAMES) {
                Some(near) => problem.help(format!("did you mean \"{near}\"?")),
                None => problem.help(format!("there are {}", NAMES.join(", "))),
            });
        }
    };
    if arguments.len() != wanted {
        let texts = if wanted == 1 { "one text" } else { "two texts" };
        return Err(Problem::new(whole, format!("{name} takes {texts}, found {}", arguments.len())).help(
            match wanted {
                1 => format!("write {name}('…')"),
                _ => format!("write {name}('…', '…')"),
            },
        ));
    }
    let mut arguments = arguments.into_iter();
    let (Some(first), second) = (arguments.next(), arguments.next()) else {
        unreachable!("every term takes a text")
    };
    Ok(match (name, second) {
        ("Host", _) => Matcher::Host(host(&first)?),
        ("HostRegexp", _) => Matcher::HostRegexp(pattern(&first, true)?),
        ("Path", _) => Matcher::Path(path(&first)?),
        ("PathPrefix", _) => Matcher::PathPrefix(path(&first)?),
        ("PathRegexp", _) => Matcher::PathRegexp(pattern(&first, false)?),
        ("Method", _) => Matcher::Method(token(&first, "a method")?),
        ("ClientIP", _) => Matcher::ClientIp(network(&first)?),
        ("Header", Some(second)) => Matcher::Header(field_name(&first)?, field_value(&second)?),
        ("HeaderRegexp", Some(second)) => {
            Matcher::HeaderRegexp(field_name(&first)?, pattern(&second, false)?)
        }
        ("Query", Some(second)) => Matcher::Query(first.value.into(), second.value.into()),
        _ => unreachable!("the number of texts was checked"),
    })
}

fn host(text: &Text) -> Result<Box<str>, Problem> {
    let value = text.value.as_str();
    let bad = |message: String| Err(Problem::new(text.at.clone(), message));
    let bare = value.strip_prefix('[').and_then(|v| v.strip_suffix(']')).unwrap_or(value);
    if let Ok(v6) = bare.parse::<Ipv6Addr>() {
        return Ok(format!("[{v6}]").into());
    }
    if let Some(rest) = value.strip_prefix("*.") {
        let pattern = rest.replace('.', "\\.");
        return Err(Problem::new(text.at.clone(), "Host takes one name, no wildcard")
            .help(format!("write HostRegexp('^[^.]+\\.{}$')", suggest::clip(&pattern))));
    }
    if let Some((name, port)) = value.rsplit_once(':')
        && !port.is_empty()
        && port.bytes().all(|b| b.is_ascii_digit())
        && address::host_name(name).is_ok()
    {
        return Err(Problem::new(
            text.at.clone(),
            "Host takes a name without a port: the port of a request is not looked at",
        )
        .help(format!("write Host('{name}')")));
    }
    match address::host_name(value.strip_suffix('.').unwrap_or(value)) {
        Ok(name) => Ok(name),
        Err(why) => bad(format!("\"{}\" is not a host name: {why}", suggest::clip(value))),
    }
}

fn path(text: &Text) -> Result<Box<str>, Problem> {
    canonical::path(&text.value).map_err(|wrong| {
        // With escapes, places in the value are not places in the source.
        let at = match wrong.at {
            Some(at) if text.plain => text.at.start + 1 + at.start..text.at.start + 1 + at.end,
            _ => text.at.clone(),
        };
        Problem { at, message: wrong.message, help: wrong.help }
    })
}

fn pattern(text: &Text, any_case: bool) -> Result<Pattern, Problem> {
    Pattern::new(&text.value, any_case).map_err(|error| {
        let message = match &error {
            regex::Error::CompiledTooBig(_) => "regular expression is too big".to_owned(),
            // The last line says what is wrong; those before it draw the pattern.
            other => {
                let text = other.to_string();
                let last = text.lines().last().unwrap_or_default().trim();
                format!("bad regular expression: {}", last.strip_prefix("error: ").unwrap_or(last))
            }
        };
        Problem::new(text.at.clone(), message)
    })
}

/// RFC 9110 §5.6.2.
pub(crate) fn is_token(text: &str) -> bool {
    crate::http::fields::is_token(text.as_bytes())
}

fn token(text: &Text, what: &str) -> Result<Box<str>, Problem> {
    if is_token(&text.value) {
        Ok(text.value.as_str().into())
    } else {
        Err(Problem::new(text.at.clone(), format!("\"{}\" is not {what}", suggest::clip(&text.value))))
    }
}

fn field_name(text: &Text) -> Result<Box<str>, Problem> {
    token(text, "the name of a header field").map(|name| name.to_ascii_lowercase().into())
}

fn field_value(text: &Text) -> Result<Box<str>, Problem> {
    let value = text.value.as_str();
    let bad = |message: &str| Err(Problem::new(text.at.clone(), message));
    if value.chars().any(|c| c.is_ascii_control() && c != '\t') {
        bad("a header field has no control characters")
    } else if value.trim_matches([' ', '\t']).len() != value.len() {
        bad("a header field's value neither begins nor ends with a blank, so this never matches")
    } else {
        Ok(value.into())
    }
}

fn network(text: &Text) -> Result<ipnet::IpNet, Problem> {
    address::network(&text.value).map_err(|why| {
        Problem::new(
            text.at.clone(),
            format!("\"{}\" is not an address or a network: {why}", suggest::clip(&text.value)),
        )
        .help("for example ClientIP('10.0.0.0/8')")
    })
}
