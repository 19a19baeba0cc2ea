//! What the configuration of a pool says of each of its middlewares.

use std::sync::Arc;
use std::time::Duration;

use super::template::Template;

/// A middleware of a pool.
#[derive(Clone, Debug, PartialEq)]
pub enum Middleware {
    /// Compresses the bodies of responses.
    Compression,
    /// Limits the requests of each client.
    RateLimiter {
        /// Most requests in any `window`, 1 or more.
        limit: u32,
        /// From 1 s to 31 days, in whole seconds.
        window: Duration,
    },
    /// Redirects requests of plain HTTP to HTTPS.
    HttpsRedirector,
    /// Limits the bodies of requests.
    MaxBodySize {
        /// Most bytes of a body.
        limit: u64,
    },
    /// Asks for a name and a password (RFC 7617) and checks them with an LDAP server.
    Authentication {
        /// The server: `ldap://` or `ldaps://`, a host, and optionally a port.
        ldap_address: Box<str>,
        /// The distinguished name below which users are.
        user_directory: Box<str>,
        /// The attribute that holds a user's name (RFC 4512 §1.4).
        rdn_identifier: Box<str>,
        /// Whether users are looked for in the whole subtree instead of directly below `user_directory`.
        recursive: bool,
    },
    /// Replaces the bodies of errors.
    CustomErrorPages {
        /// Status, 400..=599, and its page. Each status once.
        pages: Vec<(u16, FileRef)>,
    },
    /// Changes fields of requests and responses.
    Headers(Box<Headers>),
}

impl Middleware {
    /// The middleware's name in the configuration.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Compression => "Compression",
            Self::RateLimiter { .. } => "RateLimiter",
            Self::HttpsRedirector => "HttpsRedirector",
            Self::MaxBodySize { .. } => "MaxBodySize",
            Self::Authentication { .. } => "Authentication",
            Self::CustomErrorPages { .. } => "CustomErrorPages",
            Self::Headers(_) => "Headers",
        }
    }

    /// The files that it reads.
    pub fn files_mut(&mut self) -> impl Iterator<Item = &mut FileRef> {
        let pages = match self {
            Self::CustomErrorPages { pages } => &mut pages[..],
            _ => &mut [],
        };
        pages.iter_mut().map(|(_, file)| file)
    }
}

/// Which fields of requests and responses are changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// Of the request to the backend.
    pub request: FieldChanges,
    /// Of the response to the client.
    pub response: FieldChanges,
    /// Whether responses get the fields that keep browsers safe, where they have none.
    pub security: bool,
}

/// What is changed in a head: first fields are removed, then set, then added. Names are tokens, and none of
/// framing, of a single hop, or of the proxy's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldChanges {
    /// Each replaces every field of its name.
    pub set: Vec<(Box<str>, Template)>,
    /// Each comes behind what is there.
    pub add: Vec<(Box<str>, Template)>,
    /// Names of fields that go.
    pub remove: Vec<Box<str>>,
}

/// A file that a middleware reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRef {
    /// Its path, relative to the configuration's folder.
    pub path: Box<str>,
    /// Its content. Empty as parsed, since the core opens no file: the driver fills it in.
    pub content: Arc<[u8]>,
}
