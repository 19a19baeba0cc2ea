//! The terms of the matcher language: how many arguments each takes, and which values are valid.

use std::net::Ipv6Addr;
use std::ops::Range;

use ipnet::IpNet;

use super::error::SyntaxError;
use super::{Matcher, Pattern, path};
use crate::config::diagnostic::clip;
use crate::config::{address, suggest};
use crate::http::fields::is_token;

/// The names of all terms.
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

/// An argument of a term.
pub(super) struct Argument {
    /// The text without its quotes and escapes.
    pub(super) value: String,
    /// Where the text stands in the matcher, with its quotes.
    pub(super) span: Range<usize>,
    /// The text has no escapes, so that a position in `value` is one in the matcher.
    pub(super) verbatim: bool,
}

impl Argument {
    fn error(&self, message: impl Into<String>) -> SyntaxError {
        SyntaxError::new(self.span.clone(), message)
    }
}

/// Makes a matcher of a term's name and arguments. `name_span` and `whole` are where the name and the whole
/// term stand.
pub(super) fn build(
    name: &str,
    name_span: Range<usize>,
    whole: Range<usize>,
    arguments: Vec<Argument>,
) -> Result<Matcher, SyntaxError> {
    let expected = match name {
        "Header" | "HeaderRegexp" | "Query" => 2,
        known if NAMES.contains(&known) => 1,
        _ => {
            let help = suggest::did_you_mean(name, NAMES)
                .unwrap_or_else(|| format!("there are {}", NAMES.join(", ")));
            let message = format!("unknown matcher \"{}\"", clip(name));
            return Err(SyntaxError::new(name_span, message).with_help(help));
        }
    };
    if arguments.len() != expected {
        let (texts, example) =
            if expected == 1 { ("one text", "'…'") } else { ("two texts", "'…', '…'") };
        let message = format!("{name} takes {texts}, found {}", arguments.len());
        return Err(SyntaxError::new(whole, message).with_help(format!("write {name}({example})")));
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

/// A host name, or an IP address (IPv6 with or without brackets).
fn host(argument: &Argument) -> Result<Box<str>, SyntaxError> {
    let value = argument.value.as_str();
    let bare = value.strip_prefix('[').and_then(|v| v.strip_suffix(']')).unwrap_or(value);
    if let Ok(v6) = bare.parse::<Ipv6Addr>() {
        return Ok(format!("[{v6}]").into());
    }
    if let Some(rest) = value.strip_prefix("*.") {
        let pattern = rest.replace('.', "\\.");
        return Err(argument
            .error("Host takes one name, no wildcard")
            .with_help(format!("write HostRegexp('^[^.]+\\.{}$')", clip(&pattern))));
    }
    if let Some((name, port)) = value.rsplit_once(':')
        && !port.is_empty()
        && port.bytes().all(|b| b.is_ascii_digit())
        && address::host_name(name).is_ok()
    {
        return Err(argument
            .error("Host takes a name without a port: the port of a request is not looked at")
            .with_help(format!("write Host('{name}')")));
    }
    address::host_name(value.strip_suffix('.').unwrap_or(value))
        .map_err(|reason| argument.error(format!("\"{}\" is not a host name: {reason}", clip(value))))
}

fn path(argument: &Argument) -> Result<Box<str>, SyntaxError> {
    path::normalise(&argument.value).map_err(|error| {
        let start = argument.span.start + 1;
        let span = match &error.span {
            Some(at) if argument.verbatim => start + at.start..start + at.end,
            _ => argument.span.clone(),
        };
        SyntaxError { span, message: error.to_string(), help: error.help }
    })
}

fn pattern(argument: &Argument, any_case: bool) -> Result<Pattern, SyntaxError> {
    Pattern::new(&argument.value, any_case).map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => argument.error("regular expression is too big"),
        other => {
            // The last line says what is wrong; the lines before it show the expression.
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default().trim();
            let reason = last.strip_prefix("error: ").unwrap_or(last);
            argument.error(format!("bad regular expression: {reason}"))
        }
    })
}

fn token(argument: &Argument, what: &str) -> Result<Box<str>, SyntaxError> {
    let value = argument.value.as_str();
    if value.is_empty() || !is_token(value.as_bytes()) {
        return Err(argument.error(format!("\"{}\" is not {what}", clip(value))));
    }
    Ok(value.into())
}

fn field_name(argument: &Argument) -> Result<Box<str>, SyntaxError> {
    token(argument, "the name of a header field").map(|name| name.to_ascii_lowercase().into())
}

fn field_value(argument: &Argument) -> Result<Box<str>, SyntaxError> {
    let value = argument.value.as_str();
    if value.chars().any(|c| c.is_ascii_control() && c != '\t') {
        return Err(argument.error("a header field has no control characters"));
    }
    if value.trim_matches([' ', '\t']).len() != value.len() {
        let message = "a header field's value neither begins nor ends with a blank, so this never matches";
        return Err(argument.error(message));
    }
    Ok(value.into())
}

fn network(argument: &Argument) -> Result<IpNet, SyntaxError> {
    address::network(&argument.value).map_err(|reason| {
        argument
            .error(format!("\"{}\" is not an address or a network: {reason}", clip(&argument.value)))
            .with_help("for example ClientIP('10.0.0.0/8')")
    })
}
