//! What the configuration of a pool says of each of its middlewares.

use std::time::Duration;

use ipnet::IpNet;

use super::directory::Directory;
pub use super::file_ref::{FileFault, FileRef};
use super::substitution::Substitution;
use super::template::Template;
use super::user_list::UserList;
use crate::http::{ContentCoding, MediaRange};

/// A middleware of a pool.
#[derive(Clone, Debug, PartialEq)]
pub enum Middleware {
    /// Compresses the bodies of responses.
    Compression(Compression),
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
    /// Lets in only clients whose address is in one of these ranges, of which there is one at least.
    IpAllow {
        /// As [`IpDeny`](Middleware::IpDeny).
        ranges: Vec<IpNet>,
    },
    /// Keeps out clients whose address is in one of these ranges, of which there is one at least.
    IpDeny {
        /// Networks and single addresses; what is mapped into IPv6 stands as IPv4.
        ranges: Vec<IpNet>,
    },
    /// Asks for a name and a password (RFC 7617) and checks them with an LDAP server.
    Authentication(Box<Authentication>),
    /// Asks for a name and a password (RFC 7617) and checks them with a list.
    BasicAuth {
        /// Who may pass.
        users: Users,
        /// What clients are told that the password is for. Visible ASCII and blanks.
        realm: Box<str>,
    },
    /// Replaces the bodies of errors.
    CustomErrorPages {
        /// Status, 400..=599, and its page. Each status once.
        pages: Vec<(u16, FileRef)>,
    },
    /// Changes fields of requests and responses.
    Headers(Box<Headers>),
    /// Takes a prefix of the path away, whole segments of it.
    StripPrefix {
        /// Normalised paths without a `/` at the end, each once.
        prefixes: Vec<Box<str>>,
    },
    /// Puts a prefix before the path.
    AddPrefix {
        /// A normalised path without a `/` at the end.
        prefix: Box<str>,
    },
    /// Puts another path in the place of every path.
    ReplacePath {
        /// A normalised path.
        path: Box<str>,
    },
    /// Rewrites the paths that match.
    ReplacePathRegex(Box<Substitution>),
    /// Redirects what matches to another URL.
    Redirect(Box<Redirect>),
    /// Responds itself.
    Respond(Box<Respond>),
}

impl Middleware {
    /// The name of [`Middleware::RateLimiter`].
    pub const RATE_LIMITER: &str = "RateLimiter";

    /// The middleware's name in the configuration.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Compression(_) => "Compression",
            Self::RateLimiter { .. } => Self::RATE_LIMITER,
            Self::HttpsRedirector => "HttpsRedirector",
            Self::MaxBodySize { .. } => "MaxBodySize",
            Self::IpAllow { .. } => "IpAllow",
            Self::IpDeny { .. } => "IpDeny",
            Self::Authentication(_) => "Authentication",
            Self::BasicAuth { .. } => "BasicAuth",
            Self::CustomErrorPages { .. } => "CustomErrorPages",
            Self::Headers(_) => "Headers",
            Self::StripPrefix { .. } => "StripPrefix",
            Self::AddPrefix { .. } => "AddPrefix",
            Self::ReplacePath { .. } => "ReplacePath",
            Self::ReplacePathRegex(_) => "ReplacePathRegex",
            Self::Redirect(_) => "Redirect",
            Self::Respond(_) => "Respond",
        }
    }

    /// The files that it reads.
    pub fn files_mut(&mut self) -> impl Iterator<Item = &mut FileRef> {
        let files: Vec<&mut FileRef> = match self {
            Self::CustomErrorPages { pages } => pages.iter_mut().map(|(_, file)| file).collect(),
            Self::Authentication(settings) => settings.directory.files_mut().collect(),
            Self::BasicAuth { users: Users::File(file), .. } => vec![file],
            Self::Respond(response) => match &mut response.content {
                RespondContent::File(file) => vec![file],
                _ => Vec::new(),
            },
            _ => Vec::new(),
        };
        files.into_iter()
    }

    /// What is wrong with the content of a file that it reads, now that it has been read.
    #[must_use]
    pub fn file_faults(&self) -> Vec<FileFault> {
        match self {
            Self::Authentication(settings) => settings.directory.file_faults(),
            Self::BasicAuth { users: Users::File(file), .. } => match UserList::of_file(&file.content) {
                Ok(_) => Vec::new(),
                Err(faults) => faults.into_iter().map(|why| FileFault::new(file, why)).collect(),
            },
            _ => Vec::new(),
        }
    }
}

/// URLs that have moved.
#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    /// From the URL that was asked for, `scheme://host/path?query`, to the new one.
    pub rule: Substitution,
    /// 301, 302, 303, 307 or 308; default 302.
    pub status: u16,
}

/// A response that the proxy makes itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Respond {
    /// 200..=599; default 200.
    pub status: u16,
    /// What it says.
    pub content: RespondContent,
    /// The media type; `None`: that of a text, or of the file's extension.
    pub content_type: Option<Box<str>>,
    /// Further fields.
    pub fields: Vec<(Box<str>, Template)>,
}

/// The content of a response that the proxy makes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RespondContent {
    /// None.
    Empty,
    /// As written in the configuration.
    Text(Box<str>),
    /// That of a file.
    File(FileRef),
}

/// Which responses are compressed, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Compression {
    /// The codings that may be used, each once, at least one. Their order does not matter.
    pub algorithms: Vec<ContentCoding>,
    /// From 1 (quick) to 9 (small), for every coding. `None`: each coding's default.
    pub level: Option<u8>,
    /// Content that is known to be shorter is not compressed, in bytes.
    pub min_bytes: u64,
    /// The media types that are compressed. `None`: what is text.
    pub types: Option<Vec<MediaRange>>,
}

impl Default for Compression {
    fn default() -> Self {
        Self { algorithms: ContentCoding::ALL.into(), level: None, min_bytes: 1024, types: None }
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

/// The settings of the middleware that asks an LDAP server.
#[derive(Clone, Debug, PartialEq)]
pub struct Authentication {
    /// The server, and how it is asked.
    pub directory: Directory,
    /// What clients are told that the password is for. Visible ASCII and blanks.
    pub realm: Box<str>,
    /// For how long a success is believed without another look; 0: not at all. At most a day.
    pub cache_time: Duration,
    /// Whether backends get `Authorization`, with the password.
    pub forward_authorization: bool,
}

/// Where a list of users stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Users {
    /// In the configuration.
    Listed(UserList),
    /// In a file, as `htpasswd` makes it.
    File(FileRef),
}
