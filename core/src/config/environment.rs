//! Variables of the environment in the strings of a file: `${NAME}` and `${NAME:-default}`, as a shell writes
//! them. `$${` stands for `${`. What is written otherwise, such as `$NAME` or `${1}`, is left alone.

use std::borrow::Cow;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::diagnostic::clip;
use super::literal::Literal;
use super::report::{Report, Value};

/// Looks a variable up; `None` if there is none.
pub type Environment<'e> = dyn Fn(&str) -> Option<String> + 'e;

/// What is wrong with a variable.
#[derive(Debug, PartialEq, Eq)]
enum Fault<'v> {
    /// There is none of this name.
    Missing(&'v str),
    /// Its default has another variable: the first `}` would end both.
    Nested,
}

/// What is wrong with variables, and where in the value they are written.
type Faults<'v> = Vec<(Fault<'v>, Range<usize>)>;

/// A key whose value has groups of a regular expression instead: `${name}` (see `substitution`).
const WITH_GROUPS: &str = "replacement";

/// Replaces the variables in every string of a table, at any depth. Names of keys are left alone, and so are
/// replacements.
pub(super) fn replace(table: &mut DeTable<'_>, environment: &Environment<'_>, report: &mut Report<'_>) {
    for (_, value) in table.iter_mut().filter(|(key, _)| key.get_ref() != WITH_GROUPS) {
        replace_in_value(value, environment, report);
    }
}

fn replace_in_value(value: &mut Value<'_>, environment: &Environment<'_>, report: &mut Report<'_>) {
    let span = value.span();
    match value.get_mut() {
        DeValue::Table(table) => replace(table, environment, report),
        DeValue::Array(items) => {
            items.iter_mut().for_each(|item| replace_in_value(item, environment, report));
        }
        DeValue::String(text) if text.contains("${") => {
            let (replaced, faults) = expand(text, environment);
            for (fault, part) in faults {
                let at = Literal::new(report.text, span.clone(), text).span_of(part);
                let (message, help) = match fault {
                    Fault::Missing(name) => (
                        format!("there is no variable {} in the environment", clip(name)),
                        format!("set it, or write \"${{{name}:-…}}\" with a default"),
                    ),
                    Fault::Nested => (
                        "a default has no variables".to_owned(),
                        "write the default itself, or set the variable before the start".to_owned(),
                    ),
                };
                report.unknown_value(span.clone(), at, message).help = Some(help);
            }
            *text = Cow::Owned(replaced);
        }
        _ => {}
    }
}

/// The text with its variables replaced, and what is wrong with them.
fn expand<'v>(text: &'v str, environment: &Environment<'_>) -> (String, Faults<'v>) {
    let (mut out, mut faults) = (String::with_capacity(text.len()), Vec::new());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = &from[2..];
            continue;
        }
        out.push_str(before);
        let Some((name, default, len)) = variable(from) else {
            out.push_str("${");
            rest = &from[2..];
            continue;
        };
        let start = text.len() - from.len();
        match (environment(name), default) {
            (_, Some(default)) if default.contains("${") => faults.push((Fault::Nested, start..start + len)),
            (Some(value), None) => out.push_str(&value),
            // As in a shell, `:-` is also for one that is empty.
            (Some(value), Some(_)) if !value.is_empty() => out.push_str(&value),
            (_, Some(default)) => out.push_str(default),
            (None, None) => faults.push((Fault::Missing(name), start..start + len)),
        }
        rest = &from[len..];
    }
    out.push_str(rest);
    (out, faults)
}

/// The name and the default of a variable at the start of a text, and its length there.
fn variable(text: &str) -> Option<(&str, Option<&str>, usize)> {
    let inside = text.strip_prefix("${")?.split_once('}')?.0;
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let valid = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    valid.then_some((name, default, inside.len() + 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaced_as_a_shell_would() {
        let environment = |name: &str| match name {
            "PORT" => Some("8080".to_owned()),
            "EMPTY" => Some(String::new()),
            "TWICE" => Some("${PORT}".to_owned()),
            _ => None,
        };
        for (text, expected) in [
            ("", ""),
            ("plain $PORT {PORT}", "plain $PORT {PORT}"),
            ("${PORT}", "8080"),
            ("a${PORT}b${PORT}", "a8080b8080"),
            ("${PORT:-1}", "8080"),
            ("${NONE:-1}", "1"),
            ("${NONE:-}", ""),
            ("${NONE:-a:-b}", "a:-b"),
            ("${EMPTY}", ""),
            ("${EMPTY:-1}", "1"),
            // What is put in is not looked at again.
            ("${TWICE}", "${PORT}"),
            ("$${PORT}", "${PORT}"),
            ("$$${PORT}", "$${PORT}"),
            ("$$", "$$"),
            // What is not a variable.
            ("${}", "${}"),
            ("${1}", "${1}"),
            ("${a-b}", "${a-b}"),
            ("${PORT", "${PORT"),
            ("${ PORT }", "${ PORT }"),
            ("${${PORT}", "${8080"),
            ("ä${PORT}ö", "ä8080ö"),
        ] {
            assert_eq!(expand(text, &environment), (expected.to_owned(), Vec::new()), "{text}");
        }
        let (text, faults) = expand("x ${NONE}${PORT} ${OTHER}", &environment);
        let missing = vec![(Fault::Missing("NONE"), 2..9), (Fault::Missing("OTHER"), 17..25)];
        assert_eq!((text.as_str(), faults), ("x 8080 ", missing));
        // Whether the outer one is there or not.
        for (text, part) in [("a${PORT:-${NONE}}", 1..16), ("${NONE:-x${PORT}}", 0..16)] {
            assert_eq!(expand(text, &environment).1, [(Fault::Nested, part)], "{text}");
        }
    }
}
