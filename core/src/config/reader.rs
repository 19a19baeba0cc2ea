//! Typed access to a TOML tree that goes on after every error. `serde` is not used: it stops at the first
//! error and loses the position of many.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::diagnostic::clip;
use super::report::{Report, Span, Value};
use super::{duration, keys, suggest};

/// One name of a closed set; otherwise an error with a suggestion.
pub(super) fn one_of<T: Copy>(
    value: &Value<'_>,
    what: &str,
    set: &[(&str, T)],
    report: &mut Report<'_>,
) -> Option<T> {
    let names: Vec<&str> = set.iter().map(|&(name, _)| name).collect();
    let Some(text) = value.get_ref().as_str() else {
        report.mistyped(value, what, &format!("one of {}", alternatives(&names)));
        return None;
    };
    let found = set.iter().find(|&&(name, _)| name == text);
    if found.is_none() {
        let help =
            suggest::did_you_mean(text, &names).unwrap_or_else(|| format!("use {}", alternatives(&names)));
        report.error(value.span(), format!("unknown {what} \"{}\"", clip(text))).help = Some(help);
    }
    found.map(|&(_, value)| value)
}

/// `"a", "b" or "c"`
fn alternatives(names: &[&str]) -> String {
    let mut out = String::new();
    for (i, name) in names.iter().enumerate() {
        out.push_str(match i {
            0 => "",
            _ if i + 1 == names.len() => " or ",
            _ => ", ",
        });
        out.push_str(&format!("\"{name}\""));
    }
    out
}

/// An integer within bounds.
pub(super) fn integer(
    value: &Value<'_>,
    what: &str,
    bounds: RangeInclusive<u64>,
    report: &mut Report<'_>,
) -> Option<u64> {
    let DeValue::Integer(n) = value.get_ref() else {
        report.mistyped(value, what, "an integer");
        return None;
    };
    let n = u64::from_str_radix(n.as_str(), n.radix()).ok().filter(|n| bounds.contains(n));
    if n.is_none() {
        report.error(value.span(), format!("{what} must be from {} to {}", bounds.start(), bounds.end()));
    }
    n
}

/// A boolean.
pub(super) fn boolean(value: &Value<'_>, what: &str, report: &mut Report<'_>) -> Option<bool> {
    let found = value.get_ref().as_bool();
    if found.is_none() {
        report.mistyped(value, what, "true or false");
    }
    found
}

/// A string.
pub(super) fn string<'v>(value: &'v Value<'_>, what: &str, report: &mut Report<'_>) -> Option<&'v str> {
    let found = value.get_ref().as_str();
    if found.is_none() {
        report.mistyped(value, what, "a string");
    }
    found
}

/// A string that is not blank and has no NUL.
pub(super) fn non_empty_string<'v>(
    value: &'v Value<'_>,
    what: &str,
    report: &mut Report<'_>,
) -> Option<&'v str> {
    let text = string(value, what, report)?;
    if text.contains('\0') {
        report.error(value.span(), format!("{what} must not be empty or contain NUL"));
        return None;
    }
    if text.trim().is_empty() {
        report.error(value.span(), format!("{what} must not be empty"));
        return None;
    }
    Some(text)
}

/// A string, or a list of strings: those of its elements that are strings.
pub(super) fn strings<'v>(value: &'v Value<'_>, what: &str, report: &mut Report<'_>) -> Vec<(&'v str, Span)> {
    match value.get_ref() {
        DeValue::String(text) => vec![(text.as_ref(), value.span())],
        DeValue::Array(items) => items
            .iter()
            .filter_map(|item| Some((string(item, &format!("each of {what}"), report)?, item.span())))
            .collect(),
        _ => {
            report.mistyped(value, what, "a string or a list of strings");
            Vec::new()
        }
    }
}

/// A TOML table of the file.
#[derive(Clone)]
pub(super) struct Section<'d> {
    /// The table as messages name it: "a backend pool".
    what: &'static str,
    /// Its header, or its braces.
    pub(super) span: Span,
    table: &'d DeTable<'d>,
}

impl<'d> Section<'d> {
    /// The whole file. Keys that are not `known` are errors.
    pub(super) fn root(table: &'d DeTable<'d>, known: &[&str], report: &mut Report<'_>) -> Self {
        let section = Self { what: "the file", span: 0..0, table };
        section.check_keys(known, report);
        section
    }

    /// A value as a table. Keys that are not `known` are errors.
    pub(super) fn new(
        value: &'d Value<'d>,
        what: &'static str,
        known: &[&str],
        report: &mut Report<'_>,
    ) -> Option<Self> {
        let section = Self::with_any_keys(value, what, report)?;
        section.check_keys(known, report);
        Some(section)
    }

    /// A value as a table whose keys the caller checks.
    pub(super) fn with_any_keys(
        value: &'d Value<'d>,
        what: &'static str,
        report: &mut Report<'_>,
    ) -> Option<Self> {
        let Some(table) = value.get_ref().as_table() else {
            report.mistyped(value, what, "a table");
            return None;
        };
        Some(Self { what, span: value.span(), table })
    }

    /// Adds an error for each key that is not `known`.
    pub(super) fn check_keys(&self, known: &[&str], report: &mut Report<'_>) {
        for (key, _) in self.table.iter().filter(|(key, _)| !known.contains(&key.get_ref().as_ref())) {
            self.unknown_key(key, known, report);
        }
    }

    fn unknown_key(&self, key: &Spanned<DeString<'_>>, known: &[&str], report: &mut Report<'_>) {
        let name = key.get_ref().as_ref();
        // In TOML a key after a `[table]` header belongs to that table, which is easily forgotten.
        let help = if keys::POOL.contains(&name) {
            Some("it is a key of a backend pool: write it before the pool's first [table]".into())
        } else if keys::FILE.contains(&name) {
            Some("it is a key of the file: write it before the first [table]".into())
        } else {
            suggest::did_you_mean(name, known).or_else(|| match known.len() {
                0 => Some(format!("{} takes no keys", self.what)),
                1..=12 => Some(format!("known here: {}", known.join(", "))),
                _ => None,
            })
        };
        report.error(key.span(), format!("unknown key \"{}\" in {}", clip(name), self.what)).help = help;
    }

    /// Every entry, in the order of the file.
    pub(super) fn entries(
        &self,
    ) -> impl Iterator<Item = (&'d Spanned<DeString<'d>>, &'d Value<'d>)> + use<'d> {
        self.table.iter()
    }

    pub(super) fn get(&self, key: &str) -> Option<&'d Value<'d>> {
        self.table.get(key)
    }

    /// Where a key itself is written; the table if the key is absent.
    pub(super) fn key_span(&self, key: &str) -> Span {
        self.table.get_key_value(key).map_or(self.span.clone(), |(key, _)| key.span())
    }

    /// Where the value of a key is written; the table if the key is absent.
    pub(super) fn value_span(&self, key: &str) -> Span {
        self.get(key).map_or(self.span.clone(), |value| value.span())
    }

    /// The value of a key that must be present; `example` is a value for the help.
    pub(super) fn required(
        &self,
        key: &str,
        example: &str,
        report: &mut Report<'_>,
    ) -> Option<&'d Value<'d>> {
        let found = self.get(key);
        if found.is_none() {
            let message = format!("missing `{key}` in {}", self.what);
            report.missing(self.span.clone(), message, format!("add {key} = {example}"));
        }
        found
    }

    /// An integer; `default` if the key is absent or wrong.
    pub(super) fn integer(
        &self,
        key: &str,
        bounds: RangeInclusive<u64>,
        default: u64,
        report: &mut Report<'_>,
    ) -> u64 {
        self.get(key).and_then(|v| integer(v, &format!("`{key}`"), bounds, report)).unwrap_or(default)
    }

    /// [`Section::integer`] of 32 bits.
    pub(super) fn integer_u32(
        &self,
        key: &str,
        bounds: RangeInclusive<u32>,
        default: u32,
        report: &mut Report<'_>,
    ) -> u32 {
        let bounds = u64::from(*bounds.start())..=u64::from(*bounds.end());
        u32::try_from(self.integer(key, bounds, u64::from(default), report)).unwrap_or(default)
    }

    /// A boolean; `default` if the key is absent or wrong.
    pub(super) fn boolean(&self, key: &str, default: bool, report: &mut Report<'_>) -> bool {
        self.get(key).and_then(|v| boolean(v, &format!("`{key}`"), report)).unwrap_or(default)
    }

    /// A duration; a number without a unit counts `unit`. `default` if the key is absent or wrong.
    pub(super) fn duration(
        &self,
        key: &str,
        unit: duration::Unit,
        default: Duration,
        report: &mut Report<'_>,
    ) -> Duration {
        self.get(key).and_then(|v| duration::read(v, &format!("`{key}`"), unit, report)).unwrap_or(default)
    }

    /// [`Section::duration`] where 0 turns the timeout off: it becomes [`Duration::MAX`].
    pub(super) fn timeout(
        &self,
        key: &str,
        unit: duration::Unit,
        default: Duration,
        report: &mut Report<'_>,
    ) -> Duration {
        match self.duration(key, unit, default, report) {
            Duration::ZERO => Duration::MAX,
            timeout => timeout,
        }
    }

    /// One name of a closed set; `default` if the key is absent or wrong.
    pub(super) fn one_of<T: Copy>(
        &self,
        key: &str,
        what: &str,
        set: &[(&str, T)],
        default: T,
        report: &mut Report<'_>,
    ) -> T {
        self.get(key).and_then(|v| one_of(v, what, set, report)).unwrap_or(default)
    }
}
