//! What went wrong between this process and an authority, as the core has it.

use std::fmt;

use instant_acme::Error;
use ruststrom_core::acme::{Problem, ProblemKind};

/// What problem documents of ACME call their types (RFC 8555 §6.7).
const TYPES: &str = "urn:ietf:params:acme:error:";

/// What the last answer said besides its body; all empty if there was none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LastAnswer {
    pub(super) status: u16,
    /// In seconds.
    pub(super) retry_after: Option<u64>,
}

/// A request that got no answer, or none that could be read.
#[derive(Debug)]
pub(super) struct NoAnswer {
    pub(super) kind: ProblemKind,
    pub(super) text: String,
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for NoAnswer {}

/// An error of the client.
pub(super) fn of(error: &Error, last: LastAnswer) -> Problem {
    let of_kind = |kind, text: String| Problem { retry_after: last.retry_after, ..Problem::new(kind, text) };
    match error {
        Error::Api(problem) => of_document(problem, last),
        Error::Other(other) => match other.downcast_ref::<NoAnswer>() {
            Some(NoAnswer { kind, text }) => of_kind(*kind, text.clone()),
            None => of_kind(ProblemKind::BadAnswer, other.to_string()),
        },
        _ if last.status >= 500 => of_kind(ProblemKind::Busy, format!("{error} (status {})", last.status)),
        _ => of_kind(ProblemKind::BadAnswer, error.to_string()),
    }
}

/// A problem document (RFC 7807) in an answer.
pub(super) fn of_document(problem: &instant_acme::Problem, last: LastAnswer) -> Problem {
    Problem { retry_after: last.retry_after, ..of_found(problem, last.status) }
}

/// A problem document that was found in an order or a challenge; nothing has failed now.
pub(super) fn of_found(problem: &instant_acme::Problem, status: u16) -> Problem {
    let acme_type = problem.r#type.as_deref().and_then(|t| t.strip_prefix(TYPES)).unwrap_or_default();
    let status = problem.status.unwrap_or(status);
    let kind = match acme_type {
        "badNonce" => ProblemKind::BadNonce,
        "rateLimited" => ProblemKind::RateLimited,
        "accountDoesNotExist" => ProblemKind::NoAccount,
        "alreadyReplaced" => ProblemKind::AlreadyReplaced,
        "serverInternal" => ProblemKind::Busy,
        _ if status == 429 => ProblemKind::RateLimited,
        _ if status >= 500 => ProblemKind::Busy,
        _ => ProblemKind::Rejected,
    };
    let mut text = problem.detail.clone().unwrap_or_default();
    for part in &problem.subproblems {
        let detail = part.detail.as_deref().unwrap_or_default();
        if !detail.is_empty() && !text.contains(detail) {
            text = if text.is_empty() { detail.to_owned() } else { format!("{text}: {detail}") };
        }
    }
    if text.is_empty() {
        text = format!("no reason is given (status {status})");
    }
    let blamed = problem.subproblems.iter().find_map(|part| part.identifier.as_ref());
    let name = blamed.map(|name| name.authorized(false).to_string().into());
    Problem { name, acme_type: acme_type.into(), ..Problem::new(kind, text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_answer_means() {
        // (type, status of the answer, kind, the type as the core has it)
        let table = [
            ("urn:ietf:params:acme:error:badNonce", 400, ProblemKind::BadNonce, "badNonce"),
            ("urn:ietf:params:acme:error:rateLimited", 429, ProblemKind::RateLimited, "rateLimited"),
            ("about:blank", 429, ProblemKind::RateLimited, ""),
            ("about:blank", 503, ProblemKind::Busy, ""),
            ("urn:ietf:params:acme:error:serverInternal", 500, ProblemKind::Busy, "serverInternal"),
            ("urn:ietf:params:acme:error:caa", 403, ProblemKind::Rejected, "caa"),
            (
                "urn:ietf:params:acme:error:accountDoesNotExist",
                400,
                ProblemKind::NoAccount,
                "accountDoesNotExist",
            ),
            (
                "urn:ietf:params:acme:error:alreadyReplaced",
                409,
                ProblemKind::AlreadyReplaced,
                "alreadyReplaced",
            ),
            ("urn:example:caa", 403, ProblemKind::Rejected, ""),
        ];
        for (name, status, kind, acme_type) in table {
            let json = format!("{{\"type\":\"{name}\",\"detail\":\"why\"}}");
            let document = serde_json::from_str::<instant_acme::Problem>(&json).expect("a document");
            let last = LastAnswer { status, retry_after: Some(7) };
            let problem = of(&Error::Api(document), last);
            let expected =
                Problem { retry_after: Some(7), acme_type: acme_type.into(), ..Problem::new(kind, "why") };
            assert_eq!(problem, expected);
        }
    }

    #[test]
    fn who_is_to_blame_and_why() {
        let json = r#"{ "type": "urn:ietf:params:acme:error:malformed", "detail": "Some were rejected",
            "subproblems": [{ "type": "urn:ietf:params:acme:error:caa", "detail": "CAA forbids it",
            "identifier": { "type": "dns", "value": "b.example" } }] }"#;
        let document = serde_json::from_str::<instant_acme::Problem>(json).expect("a document");
        let problem = of_found(&document, 403);
        assert_eq!(problem.text, "Some were rejected: CAA forbids it");
        assert_eq!(problem.name.as_deref(), Some("b.example"));
    }

    #[test]
    fn no_answer_is_not_a_bad_one() {
        let none = NoAnswer { kind: ProblemKind::Unreachable, text: "refused".into() };
        let problem = of(&Error::Other(Box::new(none)), LastAnswer::default());
        assert_eq!(problem, Problem::new(ProblemKind::Unreachable, "refused"));
        let busy = LastAnswer { status: 503, retry_after: Some(9) };
        assert_eq!(of(&Error::Str("no nonce"), busy).kind, ProblemKind::Busy);
        assert_eq!(of(&Error::Str("no nonce"), busy).retry_after, Some(9));
        assert_eq!(of(&Error::Str("no nonce"), LastAnswer::default()).kind, ProblemKind::BadAnswer);
    }
}
