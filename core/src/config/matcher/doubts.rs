//! What a valid term may say but hardly means.

use super::error::SyntaxError;
use super::terms::{Argument, Term};
use super::{Matcher, meant};
use crate::config::diagnostic::clip;

/// A warning for the term `matcher` with these arguments; `None` if nothing is doubtful.
pub(super) fn of(term: &Term<'_>, matcher: &Matcher, arguments: &[Argument]) -> Option<SyntaxError> {
    let last = arguments.last()?;
    let replaced = |text: &str| meant::quoted(text, last.quote);
    match matcher {
        Matcher::HostRegexp(p) if !whole(p.as_str()) => {
            let message = format!("HostRegexp('{}') also matches within longer names", clip(p.as_str()));
            let anchored = replaced(&meant::anchored(p.as_str(), true));
            let help = format!("anchor it with `^` and `$`: write {anchored}");
            Some(last.error(message).suggest(help, last.span.clone(), anchored))
        }
        // A pattern that begins otherwise is meant for the end or the middle of a path.
        Matcher::PathRegexp(p) if is_prefix(p.as_str()) => {
            let message = format!("PathRegexp('{}') also matches in the middle of a path", clip(p.as_str()));
            let anchored = replaced(&meant::anchored(p.as_str(), false));
            let help = format!("anchor it with `^`: write {anchored}");
            Some(last.error(message).suggest(help, last.span.clone(), anchored))
        }
        Matcher::Path(_) | Matcher::PathPrefix(_) => {
            let found = meant::by_path(term.name, &last.value, last.quote)?;
            let what = if last.value.contains('*') { "the `*` in it" } else { "every character of it" };
            let message = format!("{}('{}') takes {what} literally", term.name, clip(&last.value));
            Some(last.error(message).write(term.whole.clone(), found))
        }
        Matcher::Method(m) => method(term, m, last),
        _ => None,
    }
}

fn method(term: &Term<'_>, method: &str, argument: &Argument) -> Option<SyntaxError> {
    let upper = method.to_ascii_uppercase();
    if method.contains('|') {
        let names: Vec<&str> = upper.split('|').filter(|name| !name.is_empty()).collect();
        let message = format!("Method('{}') is the name of one method", clip(method));
        let error = argument.error(message);
        return Some(match names.is_empty() {
            true => error,
            false => error.write(term.whole.clone(), meant::any_of("Method", &names, argument.quote)),
        });
    }
    (upper != method).then(|| {
        let message = format!(
            "Method('{}') is not Method('{}'): methods are case-sensitive",
            clip(method),
            clip(&upper)
        );
        argument.error(message).write(argument.span.clone(), meant::quoted(&upper, argument.quote))
    })
}

fn whole(pattern: &str) -> bool {
    meant::anchored_at_start(pattern) && meant::anchored_at_end(pattern)
}

/// Whether a pattern seems to be for the beginning of a path, but isn't anchored there.
fn is_prefix(pattern: &str) -> bool {
    let p = pattern.strip_prefix("(?i)").unwrap_or(pattern);
    p.starts_with('/') && !p.starts_with("//")
}
