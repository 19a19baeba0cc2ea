//! The terms of the matcher language: how many arguments each takes, and which values are valid.

use std::net::Ipv6Addr;
use std::ops::Range;

use ipnet::IpNet;

use super::error::SyntaxError;
use super::{Matcher, Pattern, meant, path};
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
#[derive(Clone)]
pub(super) struct Argument {
    /// The text without its quotes and escapes.
    pub(super) value: String,
    /// Where the text stands in the matcher, with its quotes.
    pub(super) span: Range<usize>,
    /// The text has no escapes, so that a position in `value` is one in the matcher.
    pub(super) verbatim: bool,
    /// The kind of its quotes.
    pub(super) quote: char,
}

impl Argument {
    pub(super) fn error(&self, message: impl Into<String>) -> SyntaxError {
        SyntaxError::new(self.span.clone(), message)
    }
}

/// The name of a term, and where the matcher has it.
pub(super) struct Term<'t> {
    pub(super) name: &'t str,
    pub(super) name_span: Range<usize>,
    /// From the name to the closing parenthesis.
    pub(super) whole: Range<usize>,
}

/// A valid use of a term.
pub(super) fn example(name: &str) -> &'static str {
    match name {
        "HostRegexp" => "HostRegexp('^[a-z]+[.]example[.]com$')",
        "Path" => "Path('/health')",
        "PathPrefix" => "PathPrefix('/api')",
        "PathRegexp" => "PathRegexp('^/user/[0-9]+$')",
        "Method" => "Method('POST')",
        "Header" => "Header('X-Env', 'test')",
        "HeaderRegexp" => "HeaderRegexp('User-Agent', 'curl')",
        "Query" => "Query('debug', '1')",
        "ClientIP" => "ClientIP('10.0.0.0/8')",
        _ => "Host('example.com')",
    }
}

/// Makes a matcher of a term's name and arguments.
pub(super) fn build(term: &Term<'_>, arguments: &[Argument]) -> Result<Matcher, SyntaxError> {
    let name = term.name;
    let expected = match name {
        "Header" | "HeaderRegexp" | "Query" => 2,
        known if NAMES.contains(&known) => 1,
        _ => {
            let error =
                SyntaxError::new(term.name_span.clone(), format!("unknown matcher \"{}\"", clip(name)));
            return Err(match suggest::nearest(name, NAMES) {
                Some(near) => {
                    error.suggest(format!("did you mean \"{near}\"?"), term.name_span.clone(), near)
                }
                None => error.with_help(format!("there are {}", NAMES.join(", "))),
            });
        }
    };
    match arguments {
        [only] if expected == 1 => of_one_text(term, only),
        [first, second] if expected == 2 => of_two_texts(name, first, second),
        _ => Err(wrong_number(term, expected, arguments)),
    }
}

fn wrong_number(term: &Term<'_>, expected: usize, arguments: &[Argument]) -> SyntaxError {
    let name = term.name;
    let texts = if expected == 1 { "one text" } else { "two texts" };
    let message = format!("{name} takes {texts}, found {}", arguments.len());
    let error = SyntaxError::new(term.whole.clone(), message);
    if expected == 1 && arguments.len() > 1 && arguments.iter().all(|a| of_one_text(term, a).is_ok()) {
        let values: Vec<&str> = arguments.iter().map(|a| &*a.value).collect();
        return error.write(term.whole.clone(), meant::any_of(name, &values, arguments[0].quote));
    }
    if let [name_of_field] = arguments
        && of_two_texts(name, name_of_field, &Argument { value: "value".into(), ..name_of_field.clone() })
            .is_ok()
    {
        let quoted = |text: &str| meant::quoted(text, name_of_field.quote);
        let example = format!("{name}({}, {})", quoted(&name_of_field.value), quoted("value"));
        return error.suggest(format!("for example {example}"), term.whole.clone(), example);
    }
    let example = example(name);
    error.suggest(format!("for example {example}"), term.whole.clone(), example)
}

fn of_one_text(term: &Term<'_>, text: &Argument) -> Result<Matcher, SyntaxError> {
    Ok(match term.name {
        "Host" => Matcher::Host(host(term, text)?),
        "HostRegexp" => Matcher::HostRegexp(pattern(text, true).map_err(|error| {
            // A wildcard where a regular expression is expected.
            match meant::by_host(&text.value, text.quote).filter(|_| text.value.contains("*.")) {
                Some(found) => error.write(term.whole.clone(), found),
                None => error,
            }
        })?),
        "Path" => Matcher::Path(path(term, text)?),
        "PathPrefix" => Matcher::PathPrefix(path(term, text)?),
        "PathRegexp" => Matcher::PathRegexp(pattern(text, false).map_err(|error| {
            match meant::by_path("Path", &text.value, text.quote).filter(|_| text.value.contains('*')) {
                Some(found) => error.write(term.whole.clone(), found),
                None => error,
            }
        })?),
        "Method" => Matcher::Method(method(term, text)?),
        _ => Matcher::ClientIp(network(text)?),
    })
}

fn of_two_texts(name: &str, first: &Argument, second: &Argument) -> Result<Matcher, SyntaxError> {
    Ok(match name {
        "Header" => Matcher::Header(field_name(first)?, field_value(second)?),
        "HeaderRegexp" => Matcher::HeaderRegexp(field_name(first)?, pattern(second, false)?),
        _ => Matcher::Query(first.value.as_str().into(), second.value.as_str().into()),
    })
}

/// A host name, or an IP address (IPv6 with or without brackets).
fn host(term: &Term<'_>, argument: &Argument) -> Result<Box<str>, SyntaxError> {
    let value = argument.value.as_str();
    let bare = value.strip_prefix('[').and_then(|v| v.strip_suffix(']')).unwrap_or(value);
    if let Ok(v6) = bare.parse::<Ipv6Addr>() {
        return Ok(format!("[{v6}]").into());
    }
    let reason = match address::host_name(value.strip_suffix('.').unwrap_or(value)) {
        Ok(name) => return Ok(name),
        Err(reason) => reason,
    };
    let has_port = value
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    let error = argument.error(match value {
        _ if value.starts_with("*.") => "Host takes one name, no wildcard".to_owned(),
        _ if has_port => {
            "Host takes a name without a port: the port of a request is not looked at".to_owned()
        }
        _ => format!("\"{}\" is not a host name: {reason}", clip(value)),
    });
    Err(match meant::by_host(value, argument.quote) {
        _ if suggest::is_variable(value) => error.with_help(suggest::VARIABLES),
        Some(found) => error.write(term.whole.clone(), found),
        None if value == "*" => error.with_help("without Host, every host is taken"),
        None => error,
    })
}

fn path(term: &Term<'_>, argument: &Argument) -> Result<Box<str>, SyntaxError> {
    path::normalise(&argument.value).map_err(|error| {
        let start = argument.span.start + 1;
        let span = match &error.span {
            Some(at) if argument.verbatim => start + at.start..start + at.end,
            _ => argument.span.clone(),
        };
        let found = SyntaxError::new(span.clone(), error.to_string());
        if suggest::is_variable(&argument.value) {
            return found.with_help(suggest::VARIABLES);
        }
        if let Some(meant) = meant::by_path(term.name, &argument.value, argument.quote) {
            return found.write(term.whole.clone(), meant);
        }
        match error.instead {
            // The whole argument, which may have several such places.
            Some(text) if path::normalise(&text).is_ok() => {
                found.write(argument.span.clone(), meant::quoted(&text, argument.quote))
            }
            _ => found,
        }
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

fn method(term: &Term<'_>, argument: &Argument) -> Result<Box<str>, SyntaxError> {
    token(argument, "a method").map_err(|error| {
        let names: Vec<&str> =
            argument.value.split([',', ' ', '|']).filter(|name| !name.is_empty()).collect();
        match !names.is_empty() && names.iter().all(|name| is_token(name.as_bytes())) {
            true => error.write(term.whole.clone(), meant::any_of("Method", &names, argument.quote)),
            false => error,
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
    token(argument, "the name of a header field").map(|name| name.to_ascii_lowercase().into()).map_err(
        |error| {
            let name = argument.value.trim().trim_end_matches(':').trim_end();
            match !name.is_empty() && is_token(name.as_bytes()) {
                true => error.write(argument.span.clone(), meant::quoted(name, argument.quote)),
                false => error,
            }
        },
    )
}

fn field_value(argument: &Argument) -> Result<Box<str>, SyntaxError> {
    let value = argument.value.as_str();
    if value.chars().any(|c| c.is_ascii_control() && c != '\t') {
        return Err(argument.error("a header field has no control characters"));
    }
    let trimmed = value.trim_matches([' ', '\t']);
    if trimmed.len() != value.len() {
        let message = "a header field's value neither begins nor ends with a blank, so this never matches";
        return Err(argument
            .error(message)
            .write(argument.span.clone(), meant::quoted(trimmed, argument.quote)));
    }
    Ok(value.into())
}

fn network(argument: &Argument) -> Result<IpNet, SyntaxError> {
    address::network(&argument.value).map_err(|reason| {
        let message = format!("\"{}\" is not an address or a network: {reason}", clip(&argument.value));
        let error = argument.error(message);
        if suggest::is_variable(&argument.value) {
            return error.with_help(suggest::VARIABLES);
        }
        match address::meant_network(&argument.value) {
            Some(meant) => error.write(argument.span.clone(), meant::quoted(&meant, argument.quote)),
            None => {
                let example = meant::quoted("10.0.0.0/8", argument.quote);
                error.suggest(format!("for example {example}"), argument.span.clone(), example)
            }
        }
    })
}
