//! Why something was not done, and what that means for the order.

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What it means for the order.
    pub kind: ProblemKind,
    /// The last part of the problem document's type (RFC 8555 §6.7), like `connection`, `dns` or `caa`; empty
    /// if there is no problem document.
    pub acme_type: Box<str>,
    /// Seconds from `Retry-After`.
    pub retry_after: Option<u64>,
    /// The problem in words: the `detail` of a problem document, or what the connection died of.
    pub text: String,
    /// The name that is to blame (RFC 8555 §6.7.1).
    pub name: Option<Box<str>>,
}

impl Problem {
    /// A problem in words alone.
    #[must_use]
    pub fn new(kind: ProblemKind, text: impl Into<String>) -> Self {
        Self { kind, acme_type: "".into(), retry_after: None, text: text.into(), name: None }
    }
}

/// What a problem means for the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// No answer: no connection, a broken one, a certificate that is not trusted, or a step that took too
    /// long. Whether the request was executed is not known.
    Unreachable,
    /// A status of 500 or more.
    Busy,
    /// `badNonce` (RFC 8555 §6.5), more often than the client repeats a request by itself.
    BadNonce,
    /// `rateLimited`, or the status 429.
    RateLimited,
    /// Any other problem document: the authority does not want to.
    Rejected,
    /// A challenge has failed.
    Validation,
    /// `accountDoesNotExist`.
    NoAccount,
    /// The order has gone.
    NoOrder,
    /// `alreadyReplaced` (RFC 9773 §7.4).
    AlreadyReplaced,
    /// An answer that can't be: too long, not JSON, a wrong state, another's certificate.
    BadAnswer,
    /// The key of the unfinished order is not in the folder.
    NoKey,
    /// The folder can't be read or written.
    Disk,
    /// Another manager has the lease.
    LeaseLost,
}
