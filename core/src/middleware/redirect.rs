//! `Redirect`: URLs that match have moved.

use super::{Action, Ctx, Middleware};
use crate::cause::Cause;
use crate::config::substitution::{Rewritten, Substitution};
use crate::http::{Scheme, StatusCode, Violation};
use crate::local_reply::LocalReply;
use crate::planted::planted;

/// Longest URL that a client is sent to.
const MAX_LOCATION_BYTES: usize = 16_384;

/// Sends clients to other URLs.
#[derive(Debug)]
pub(super) struct Redirect {
    pub(super) rule: Substitution,
    pub(super) status: StatusCode,
}

impl Middleware for Redirect {
    fn on_request(&self, ctx: &mut Ctx<'_>) -> Action {
        let request = &*ctx.request;
        let scheme: &[u8] = if ctx.scheme() == Scheme::Https { b"https" } else { b"http" };
        let url = [scheme, b"://", request.host(), request.target()].concat();
        if planted!(156) && ctx.client.is_ipv6() {
            return Action::Continue;
        }
        match location(&self.rule, &url) {
            Ok(None) => Action::Continue,
            Ok(Some(location)) => {
                Action::reply(LocalReply::new(self.status).with_field("Location", &location))
            }
            Err(violation) => Action::reply(LocalReply::error(Cause::BadRequest(violation))),
        }
    }

    fn sees_responses(&self) -> bool {
        false
    }
}

/// Where `url` has moved to: nowhere if the rule does not match, or says the same URL again.
fn location(rule: &Substitution, url: &[u8]) -> Result<Option<String>, Violation> {
    let mut location = match rule.apply(url, MAX_LOCATION_BYTES) {
        Rewritten::Unmatched => return Ok(None),
        Rewritten::TooLong => return Err(Violation::TargetTooLong),
        Rewritten::To(location) if location == url => return Ok(None),
        Rewritten::To(location) => location,
    };
    // A path that begins with two slashes (or a backslash, to browsers) is a host (RFC 3986 §4.2): only the
    // rule says to which host a client goes, and never what the client has put into the path.
    let slash = |b: &u8| matches!(b, b'/' | b'\\');
    if location.first().is_some_and(slash) && !rule.replacement().starts_with("//") {
        let rest = location.iter().position(|b| !slash(b)).unwrap_or(location.len());
        location.splice(..rest, [b'/']);
    }
    if !leads_where_the_rule_says(rule.replacement(), &location, url) {
        return Err(Violation::Target);
    }
    // Neither hosts nor targets have anything else, nor has the rule.
    if location.is_empty() || !location.iter().all(u8::is_ascii_graphic) {
        return Err(Violation::Target);
    }
    String::from_utf8(location).map(Some).map_err(|_| Violation::Target)
}

/// The authority of a URL (RFC 3986 §3.2); none of what is no URL.
fn authority(url: &[u8]) -> Option<&[u8]> {
    let ends = |b: &u8| matches!(b, b'/' | b'\\' | b'?' | b'#');
    let scheme = url.iter().position(ends).map_or(url, |end| &url[..end]);
    let rest = url[scheme.len()..].strip_prefix(b"//").filter(|_| scheme.ends_with(b":"))?;
    Some(&rest[..rest.iter().position(ends).unwrap_or(rest.len())])
}

/// Whether the host is the one that was asked for, or that of the rule: what the client has put into the path
/// must not become a part of it. A rule that makes hosts of parts of URLs decides for itself.
fn leads_where_the_rule_says(replacement: &str, location: &[u8], url: &[u8]) -> bool {
    let Some(found) = authority(location) else { return true };
    match authority(replacement.as_bytes()) {
        Some(wanted) => found == wanted || wanted.contains(&b'$'),
        None => Some(found) == authority(url),
    }
}

#[cfg(test)]
mod tests {
    use super::location;
    use crate::config::substitution::Substitution;
    use crate::http::Violation;

    #[test]
    fn urls_that_have_moved() {
        let table = [
            (r"^http://(.*)$", "https://$1", "http://a.test/b?c=d", Ok(Some("https://a.test/b?c=d"))),
            (r"^https://", "https://", "https://a.test/", Ok(None)),
            (r"^http://b\.test", "x", "http://a.test/", Ok(None)),
            (r"/old/", "/new/", "http://a.test/old/x", Ok(Some("http://a.test/new/x"))),
            // No way to another host by what the path has.
            (
                r"^https?://[^/]*/old",
                "https://new.test",
                "http://a.test/old/x",
                Ok(Some("https://new.test/x")),
            ),
            (
                r"^https?://[^/]*/old",
                "https://new.test",
                "http://a.test/old.evil.test/",
                Err(Violation::Target),
            ),
            (
                r"^https?://[^/]*/old",
                "https://new.test",
                "http://a.test/old@evil.test/",
                Err(Violation::Target),
            ),
            (
                r"^https?://[^/]*/old",
                "https://new.test",
                "http://a.test/old?x=1",
                Ok(Some("https://new.test?x=1")),
            ),
            (r"/old", "", "http://a.test/old.evil.test/", Err(Violation::Target)),
            (r"^http://(\w+)\.a/", "https://$1.b/", "http://x.a/y", Ok(Some("https://x.b/y"))),
            (r"^[^/]*//[^/]*/out(.*)$", "$1", "http://a.test/out//evil.test", Ok(Some("/evil.test"))),
            (r"^[^/]*//[^/]*/out/(.*)$", "/$1", "http://a.test/out//evil.test", Ok(Some("/evil.test"))),
            (r"^[^?]*\?(.*)$", "/$1", "http://a.test/?\\evil.test", Ok(Some("/evil.test"))),
            (r"^.*$", "//cdn.test/", "http://a.test/", Ok(Some("//cdn.test/"))),
            (r"^.*$", "", "http://a.test/", Err(Violation::Target)),
        ];
        for (regex, replacement, url, expected) in table {
            let rule = Substitution::parse(regex, replacement).expect(regex);
            let found = location(&rule, url.as_bytes());
            assert_eq!(found, expected.map(|to| to.map(str::to_owned)), "{regex} {replacement} {url}");
        }
    }

    #[test]
    fn a_location_has_a_longest_length() {
        let rule = Substitution::parse("^(.*)$", "$1$1$1").expect("valid");
        let url = [b"http://a.test/", &b"x".repeat(6000)[..]].concat();
        assert_eq!(location(&rule, &url), Err(Violation::TargetTooLong));
    }
}
