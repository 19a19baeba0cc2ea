//! Request targets (RFC 9112 §3.2) and hosts (RFC 9110 §7.2): one normalised target for everything.

use super::Violation;

/// Which of the four forms a target was sent in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `/path?query`.
    Origin,
    /// `http://host/path?query`: its authority wins over `Host`.
    Absolute,
    /// `*`, with OPTIONS only.
    Asterisk,
}

/// A request target, normalised once: routing, middlewares, logs and forwarding all use this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// As it was sent.
    pub form: Form,
    /// The normalised path: begins with `/`, or is `*`.
    pub path: &'a [u8],
    /// What follows the first `?`, byte for byte as sent.
    pub query: Option<&'a [u8]>,
    /// The authority of the absolute form.
    pub authority: Option<&'a [u8]>,
    /// What is forwarded: `path` or `path?query` in one piece, or `*`.
    pub as_sent: &'a [u8],
    /// Path and query as they came, before they were normalised: for redirects, which keep them byte for byte.
    pub raw: &'a [u8],
}

/// A host and port, from `Host` or an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host<'a> {
    /// Without port; an IPv6 address keeps its brackets. Compare without regard to case.
    pub name: &'a [u8],
    /// The port, if one was given.
    pub port: Option<u16>,
}

impl<'a> Target<'a> {
    /// Reads a request target. Borrows from `raw` when nothing has to change, else writes the normalised form into `scratch` (which it clears).
    pub fn parse(_method: &[u8], _raw: &'a [u8], _scratch: &'a mut Vec<u8>) -> Result<Self, Violation> {
        todo!()
    }
}

impl<'a> Host<'a> {
    /// Splits and checks `uri-host [":" port]` (RFC 9110 §7.2).
    pub fn parse(_value: &'a [u8]) -> Option<Self> {
        todo!()
    }
}

/// Whether a `Host` field value or an authority is one.
#[must_use]
pub fn valid_host(value: &[u8]) -> bool {
    Host::parse(value).is_some()
}
