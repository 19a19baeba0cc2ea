//! `StripPrefix`, `AddPrefix`, `ReplacePath` and `ReplacePathRegex`: other paths for the backend than those
//! that were asked for. The query stays, and so does what matchers and the log have seen.

use super::{Action, Ctx, Middleware};
use crate::cause::Cause;
use crate::config::substitution::{Rewritten, Substitution};
use crate::http::{Form, HeadFull, HeaderKind, Method, RequestTarget, StatusCode, Violation};
use crate::local_reply::LocalReply;
use crate::planted::planted;

/// Longest target that comes out of rewriting: as long as any limit lets one come in.
const MAX_TARGET_BYTES: usize = 16_000;
/// What tells a backend where its paths begin for the client.
const PREFIX_FIELD: &[u8] = b"X-Forwarded-Prefix";

/// Takes a prefix away, the longest that is there.
#[derive(Debug)]
pub(super) struct StripPrefix {
    /// Longest first. Each begins with `/` and does not end with it.
    prefixes: Vec<Box<str>>,
}

impl StripPrefix {
    pub(super) fn new(prefixes: &[Box<str>]) -> Self {
        let mut prefixes = prefixes.to_vec();
        prefixes.sort_by_key(|prefix| std::cmp::Reverse(prefix.len()));
        Self { prefixes }
    }
}

impl Middleware for StripPrefix {
    fn on_request(&self, ctx: &mut Ctx<'_>) -> Action {
        let path = ctx.request.path();
        let found = self.prefixes.iter().find_map(|prefix| {
            let rest = path.strip_prefix(prefix.as_bytes())?;
            // Whole segments only.
            (rest.is_empty() || rest[0] == b'/').then_some((prefix, rest))
        });
        let Some((prefix, rest)) = found else { return Action::Continue };
        let path = if rest.is_empty() { b"/".to_vec() } else { rest.to_vec() };
        let stripped = [&before(ctx)[..], prefix.as_bytes()].concat();
        match ctx.request.set_field(PREFIX_FIELD, &stripped) {
            Ok(()) => set_path(ctx, &path),
            Err(HeadFull) => refuse(Violation::HeadTooLarge),
        }
    }

    fn sees_responses(&self) -> bool {
        false
    }
}

/// The prefix that was stripped before: by a middleware of ours, or by a trusted proxy.
fn before(ctx: &Ctx<'_>) -> Vec<u8> {
    let fields = ctx.request.fields();
    let told = fields.iter().find(|field| {
        field.name.eq_ignore_ascii_case(PREFIX_FIELD)
            && (ctx.connection.trusted || field.kind != HeaderKind::HopClaim)
    });
    told.map_or(Vec::new(), |field| field.value.strip_suffix(b"/").unwrap_or(field.value).to_vec())
}

/// Puts a prefix before the path.
#[derive(Debug)]
pub(super) struct AddPrefix {
    pub(super) prefix: Box<str>,
}

impl Middleware for AddPrefix {
    fn on_request(&self, ctx: &mut Ctx<'_>) -> Action {
        if ctx.request.path() == b"*" {
            return Action::Continue;
        }
        let path = [self.prefix.as_bytes(), ctx.request.path()].concat();
        set_path(ctx, &path)
    }

    fn sees_responses(&self) -> bool {
        false
    }
}

/// Puts another path in the place of every path.
#[derive(Debug)]
pub(super) struct ReplacePath {
    pub(super) path: Box<str>,
}

impl Middleware for ReplacePath {
    fn on_request(&self, ctx: &mut Ctx<'_>) -> Action {
        if ctx.request.path() == b"*" {
            return Action::Continue;
        }
        set_path(ctx, self.path.as_bytes())
    }

    fn sees_responses(&self) -> bool {
        false
    }
}

/// Rewrites paths that match.
#[derive(Debug)]
pub(super) struct ReplacePathRegex {
    pub(super) rule: Substitution,
}

impl Middleware for ReplacePathRegex {
    fn on_request(&self, ctx: &mut Ctx<'_>) -> Action {
        match self.rule.apply(ctx.request.path(), MAX_TARGET_BYTES) {
            _ if ctx.request.path() == b"*" => Action::Continue,
            Rewritten::Unmatched => Action::Continue,
            Rewritten::To(path) => set_path(ctx, &path),
            Rewritten::TooLong => refuse(Violation::TargetTooLong),
        }
    }

    fn sees_responses(&self) -> bool {
        false
    }
}

/// Gives the request this path, if it may have it.
fn set_path(ctx: &mut Ctx<'_>, path: &[u8]) -> Action {
    // To many backends two slashes begin a host (RFC 3986 §4.2); only the client's own path may.
    let slashes = path.iter().take_while(|b| **b == b'/').count();
    let path =
        if slashes > 1 && !ctx.request.path().starts_with(b"//") { &path[slashes - 1..] } else { path };
    let target = match ctx.request.query() {
        Some(query) if !planted!(155) => [path, b"?", query].concat(),
        _ => path.to_vec(),
    };
    match check(&target, path) {
        Ok(()) => {
            ctx.request.set_target(&target);
            Action::Continue
        }
        // No request could have led to a path here: the rule is wrong.
        Err(Refused::NoPath) => Action::reply(LocalReply::text(
            StatusCode::INTERNAL_SERVER_ERROR,
            b"the path of this request was rewritten to something that is no path\n",
        )),
        Err(Refused::Violation(violation)) => refuse(violation),
    }
}

/// Why a target cannot be sent.
#[derive(Debug, PartialEq, Eq)]
enum Refused {
    /// It does not begin with `/`.
    NoPath,
    /// What a client would have broken who had sent it.
    Violation(Violation),
}

/// Whether `target`, which begins with `path`, is normalised still. What is not could lead a backend to
/// another place than the rule says: `/a..` behind `/static/a` would be `/static/..`.
fn check(target: &[u8], path: &[u8]) -> Result<(), Refused> {
    if path.first() != Some(&b'/') {
        return Err(Refused::NoPath);
    }
    if target.len() > MAX_TARGET_BYTES {
        return Err(Refused::Violation(Violation::TargetTooLong));
    }
    let mut scratch = Vec::new();
    let parsed = RequestTarget::parse(&Method::GET, target, &mut scratch).map_err(Refused::Violation)?;
    let same = parsed.form == Form::Origin && parsed.path == path && parsed.normalised == target;
    if same { Ok(()) } else { Err(Refused::Violation(Violation::TargetClimbs)) }
}

fn refuse(violation: Violation) -> Action {
    Action::reply(LocalReply::error(Cause::BadRequest(violation)))
}

#[cfg(test)]
mod tests {
    use super::{MAX_TARGET_BYTES, Refused, check};
    use crate::http::Violation;

    #[test]
    fn only_normalised_targets_pass() {
        let climbs = Err(Refused::Violation(Violation::TargetClimbs));
        let bad = Err(Refused::Violation(Violation::Target));
        let table = [
            ("/", "", Ok(())),
            ("//a", "?b", Ok(())),
            ("/a%2Fb", "?x=/../y&z=%0d", Ok(())),
            ("/a/../b", "", Err(Refused::Violation(Violation::TargetClimbs))),
            ("/../b", "", Err(Refused::Violation(Violation::TargetClimbs))),
            ("/a/./b", "", Err(Refused::Violation(Violation::TargetClimbs))),
            ("/%2e%2e/b", "", Err(Refused::Violation(Violation::TargetClimbs))),
            ("/%61", "", Err(Refused::Violation(Violation::TargetClimbs))),
            ("/a%2f..%2f", "", climbs),
            ("/a\r\nb", "", Err(Refused::Violation(Violation::Target))),
            ("/a b", "", bad),
            ("/a%zz", "", Err(Refused::Violation(Violation::TargetEscape))),
            ("a", "", Err(Refused::NoPath)),
            ("", "?a", Err(Refused::NoPath)),
            ("*", "", Err(Refused::NoPath)),
            ("http://b/", "", Err(Refused::NoPath)),
        ];
        for (path, query, expected) in table {
            let target = [path, query].concat();
            assert_eq!(check(target.as_bytes(), path.as_bytes()), expected, "{target:?}");
        }
        let long = format!("/{}", "a".repeat(MAX_TARGET_BYTES));
        assert_eq!(
            check(long.as_bytes(), long.as_bytes()),
            Err(Refused::Violation(Violation::TargetTooLong))
        );
        let long = &long[..MAX_TARGET_BYTES];
        assert_eq!(check(long.as_bytes(), long.as_bytes()), Ok(()));
    }
}
