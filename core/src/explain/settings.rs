//! How a middleware is set up, in a few words.

use crate::config::{Middleware, Users};

/// Most ranges, prefixes or statuses that are listed.
const MAX_LISTED: usize = 8;

/// What the configuration says of a middleware, in short; empty if its name says all.
pub(super) fn in_short(middleware: &Middleware) -> String {
    match middleware {
        Middleware::Compression(settings) => {
            let names = settings.algorithms.iter().map(|coding| coding.name().to_owned());
            format!("{}, from {} bytes", list(names), settings.min_bytes)
        }
        Middleware::RateLimiter { limit, window } => {
            format!("{limit} in {} s for each client, of which none has been counted here", window.as_secs())
        }
        Middleware::MaxBodySize { limit } => format!("{limit} bytes"),
        Middleware::IpAllow { ranges } | Middleware::IpDeny { ranges } => {
            list(ranges.iter().map(ToString::to_string))
        }
        Middleware::Authentication(settings) => {
            let directory = &settings.directory;
            let scheme = if directory.secure { "ldaps" } else { "ldap" };
            format!("{scheme}://{}:{}, {}", directory.host, directory.port, directory.user_directory)
        }
        Middleware::BasicAuth { users: Users::Listed(_), .. } => "users of the configuration".into(),
        Middleware::BasicAuth { users: Users::File(file), .. } => format!("users of {}", file.path),
        Middleware::CustomErrorPages { pages } => list(pages.iter().map(|(status, _)| status.to_string())),
        Middleware::StripPrefix { prefixes } => list(prefixes.iter().map(ToString::to_string)),
        Middleware::AddPrefix { prefix } => prefix.to_string(),
        Middleware::ReplacePath { path } => path.to_string(),
        Middleware::Redirect(moved) => moved.status.to_string(),
        Middleware::Respond(response) => response.status.to_string(),
        Middleware::HttpsRedirector | Middleware::Headers(_) | Middleware::ReplacePathRegex(_) => {
            String::new()
        }
    }
}

/// The first few of them.
fn list(all: impl Iterator<Item = String>) -> String {
    let mut all: Vec<String> = all.collect();
    let more = all.len().saturating_sub(MAX_LISTED);
    all.truncate(MAX_LISTED);
    match more {
        0 => all.join(", "),
        more => format!("{} and {more} more", all.join(", ")),
    }
}
