//! Why a pool takes a request or does not: each condition of it, term by term, judged by the code that
//! routes.

use serde::Serialize;

use super::evaluate::{MatchInput, matches};
use super::{RouteInput, Router, bare_host};
use crate::config::matcher::Matcher;

/// What a pool's conditions say of a request. It takes the request if all three hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PoolVerdict {
    /// `schemes` has that of the request.
    pub scheme: bool,
    /// `listeners` has the one that the request came by, or names none.
    pub listener: bool,
    /// Its `matcher`; `None`: there is none, and everything fits.
    pub matcher: Option<TermVerdict>,
}

/// What a part of a matcher says of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TermVerdict {
    /// The part, as the grammar writes it.
    pub text: String,
    /// Whether it holds.
    pub holds: bool,
    /// `!`, `&&` or `||`; `None` for a single term.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator: Option<&'static str>,
    /// What of the request a single term was compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saw: Option<String>,
    /// What it consists of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<TermVerdict>,
}

impl PoolVerdict {
    /// Whether the pool takes the request, if none before it does.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.scheme && self.listener && self.matcher.as_ref().is_none_or(|matcher| matcher.holds)
    }
}

impl Router {
    /// What each pool says of a request, in file order. [`Router::route`] takes the first that fits, without
    /// looking at those that its table of hosts leaves out.
    #[must_use]
    pub fn verdicts(&self, input: &RouteInput<'_>) -> Vec<PoolVerdict> {
        let matched = MatchInput { request: input, host: bare_host(input.host) };
        let verdict = |rule: &super::Rule| PoolVerdict {
            scheme: rule.takes_scheme(input),
            listener: rule.takes_listener(input),
            matcher: (rule.matcher != Matcher::Any).then(|| term(&rule.matcher, &matched)),
        };
        self.rules.iter().map(verdict).collect()
    }
}

fn term(matcher: &Matcher, input: &MatchInput<'_, '_>) -> TermVerdict {
    let parts = match matcher {
        Matcher::Not(inner) => vec![term(inner, input)],
        Matcher::And(terms) | Matcher::Or(terms) => terms.iter().map(|part| term(part, input)).collect(),
        _ => Vec::new(),
    };
    let operator = match matcher {
        Matcher::Not(_) => Some("!"),
        Matcher::And(_) => Some("&&"),
        Matcher::Or(_) => Some("||"),
        _ => None,
    };
    TermVerdict {
        text: matcher.to_string(),
        holds: matches(matcher, input),
        operator,
        saw: saw(matcher, input),
        parts,
    }
}

/// What a term looks at.
fn saw(matcher: &Matcher, input: &MatchInput<'_, '_>) -> Option<String> {
    let request = input.request;
    Some(match matcher {
        Matcher::Host(_) | Matcher::HostRegexp(_) => format!("host {}", quoted(input.host)),
        Matcher::Path(_) | Matcher::PathPrefix(_) | Matcher::PathRegexp(_) => {
            format!("path {}", quoted(request.path))
        }
        Matcher::Method(_) => format!("method {}", quoted(request.method)),
        Matcher::Header(name, _) | Matcher::HeaderRegexp(name, _) => {
            let mut values = Vec::new();
            request.fields.any(name.as_bytes(), &mut |value| {
                values.push(quoted(value));
                false
            });
            match values.is_empty() {
                true => format!("no field {name}"),
                false => format!("{name}: {}", values.join(" and ")),
            }
        }
        Matcher::Query(..) => match request.query {
            Some(query) => format!("query {}", quoted(query)),
            None => "no query".into(),
        },
        Matcher::ClientIp(_) => format!("client {}", request.client.to_canonical()),
        Matcher::Any | Matcher::Not(_) | Matcher::And(_) | Matcher::Or(_) => return None,
    })
}

/// Bytes in double quotes, those that cannot be shown escaped.
fn quoted(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(|c: char| c.is_control() || c == '"') => format!("\"{text}\""),
        _ => format!("\"{}\"", bytes.escape_ascii()),
    }
}
