//! A small typed reader over a TOML tree that goes on after every mistake. Nothing is read by `serde`: that
//! stops at the first error and loses the place of many.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Lines, Severity};
use super::{duration, suggest};

/// A value and its place.
pub(super) type Value<'d> = Spanned<DeValue<'d>>;

/// A place in the file.
pub(super) type Span = Range<usize>;

/// Everything found so far.
pub(super) struct Report<'t> {
    pub(super) text: &'t str,
    diagnostics: Vec<Diagnostic>,
    not_built: Vec<Diagnostic>,
    /// The file isn't even TOML: what is missing may only have been lost by that, so it is not missed.
    broken: bool,
}

impl<'t> Report<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, diagnostics: Vec::new(), not_built: Vec::new(), broken: false }
    }

    /// From now on missing keys are not reported.
    pub(super) fn set_broken(&mut self) {
        self.broken = true;
    }

    fn push(&mut self, severity: Severity, span: Span, message: String) -> &mut Option<String> {
        self.diagnostics.push(Diagnostic { severity, message, span, help: None, line: 0, column: 0 });
        // Just pushed.
        let last = self.diagnostics.len() - 1;
        &mut self.diagnostics[last].help
    }

    /// An error; the help can be put into what is returned.
    pub(super) fn error(&mut self, span: Span, message: impl Into<String>) -> &mut Option<String> {
        self.push(Severity::Error, span, message.into())
    }

    /// A warning; the help can be put into what is returned.
    pub(super) fn warning(&mut self, span: Span, message: impl Into<String>) -> &mut Option<String> {
        self.push(Severity::Warning, span, message.into())
    }

    /// A key that has to be there is not.
    pub(super) fn missing(&mut self, span: Span, message: impl Into<String>) -> Option<&mut Option<String>> {
        if self.broken { None } else { Some(self.error(span, message)) }
    }

    /// Something understood and right that can't be served yet.
    pub(super) fn not_built(&mut self, span: Span, what: &str) {
        let message = format!("{what} not built yet");
        self.not_built.push(Diagnostic {
            severity: Severity::Error,
            message,
            span,
            help: None,
            line: 0,
            column: 0,
        });
    }

    /// "expected a string, found an integer"
    pub(super) fn mistyped(&mut self, value: &Value<'_>, what: &str, wanted: &str) {
        self.error(value.span(), format!("{what} must be {wanted}, found {}", type_name(value)));
    }

    pub(super) fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|d| d.severity == Severity::Error)
    }

    /// Everything with its line and column, in the order of the file.
    pub(super) fn finish(mut self) -> (Vec<Diagnostic>, Vec<Diagnostic>) {
        let lines = Lines::new(self.text);
        lines.place(&mut self.diagnostics);
        lines.place(&mut self.not_built);
        (self.diagnostics, self.not_built)
    }
}

pub(super) fn type_name(value: &Value<'_>) -> &'static str {
    match value.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Words of a closed set: one of them, or an error with a suggestion.
pub(super) fn one_of<T: Copy>(
    value: &Value<'_>,
    what: &str,
    set: &[(&str, T)],
    report: &mut Report<'_>,
) -> Option<T> {
    let names: Vec<&str> = set.iter().map(|&(name, _)| name).collect();
    let Some(text) = value.get_ref().as_str() else {
        report.mistyped(value, what, &format!("one of {}", quoted(&names)));
        return None;
    };
    let found = set.iter().find(|&&(name, _)| name == text);
    if found.is_none() {
        let help = match suggest::nearest(text, &names) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("use {}", quoted(&names)),
        };
        *report.error(value.span(), format!("unknown {what} \"{}\"", suggest::clip(text))) = Some(help);
    }
    found.map(|&(_, value)| value)
}

/// `"a", "b" or "c"`
pub(super) fn quoted(names: &[&str]) -> String {
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

/// A string with something in it.
pub(super) fn filled<'v>(value: &'v Value<'_>, what: &str, report: &mut Report<'_>) -> Option<&'v str> {
    let text = string(value, what, report)?;
    if text.trim().is_empty() || text.contains('\0') {
        report.error(
            value.span(),
            format!("{what} must not be empty{}", if text.contains('\0') { " or contain NUL" } else { "" }),
        );
        return None;
    }
    Some(text)
}

/// A table whose keys are all known.
#[derive(Clone)]
pub(super) struct Section<'d> {
    /// As messages say it: "a backend pool".
    what: &'static str,
    /// Its header, or its braces.
    pub(super) span: Span,
    table: &'d DeTable<'d>,
}

impl<'d> Section<'d> {
    /// The whole file.
    pub(super) fn root(table: &'d DeTable<'d>, known: &[&str], report: &mut Report<'_>) -> Self {
        let section = Self { what: "the file", span: 0..0, table };
        section.check_keys(known, report);
        section
    }

    /// A value as a table. Unknown keys are errors.
    pub(super) fn new(
        value: &'d Value<'d>,
        what: &'static str,
        known: &[&str],
        report: &mut Report<'_>,
    ) -> Option<Self> {
        let section = Self::open(value, what, report)?;
        section.check_keys(known, report);
        Some(section)
    }

    /// A value as a table whose keys the caller checks.
    pub(super) fn open(value: &'d Value<'d>, what: &'static str, report: &mut Report<'_>) -> Option<Self> {
        let Some(table) = value.get_ref().as_table() else {
            report.mistyped(value, what, "a table");
            return None;
        };
        Some(Self { what, span: value.span(), table })
    }

    fn check_keys(&self, known: &[&str], report: &mut Report<'_>) {
        for (key, _) in self.table.iter().filter(|(key, _)| !known.contains(&key.get_ref().as_ref())) {
            self.unknown_key(key, known, report);
        }
    }

    pub(super) fn unknown_key(
        &self,
        key: &Spanned<toml::de::DeString<'_>>,
        known: &[&str],
        report: &mut Report<'_>,
    ) {
        // TOML's classic trap: a key after a `[table]` header belongs to that table.
        let lost = |keys: &[&str]| {
            keys.contains(&key.get_ref().as_ref()) && !known.contains(&key.get_ref().as_ref())
        };
        let help = match suggest::nearest(key.get_ref(), known) {
            _ if lost(super::pool::KEYS) => {
                Some("it is a key of a backend pool: write it before the pool's first [table]".into())
            }
            _ if lost(super::file::KEYS) => {
                Some("it is a key of the file: write it before the first [table]".into())
            }
            Some(near) => Some(format!("did you mean \"{near}\"?")),
            None if known.is_empty() => Some(format!("{} takes no keys", self.what)),
            None if known.len() <= 12 => Some(format!("known here: {}", known.join(", "))),
            None => None,
        };
        *report.error(
            key.span(),
            format!("unknown key \"{}\" in {}", suggest::clip(key.get_ref()), self.what),
        ) = help;
    }

    /// Every entry, in the order of the file.
    pub(super) fn entries(
        &self,
    ) -> impl Iterator<Item = (&'d Spanned<toml::de::DeString<'d>>, &'d Value<'d>)> + use<'d> {
        self.table.iter()
    }

    pub(super) fn get(&self, key: &str) -> Option<&'d Value<'d>> {
        self.table.get(key)
    }

    /// The place of a key itself.
    pub(super) fn key_span(&self, key: &str) -> Span {
        self.table.get_key_value(key).map_or(self.span.clone(), |(key, _)| key.span())
    }

    /// A key that has to be there.
    pub(super) fn required(
        &self,
        key: &str,
        example: &str,
        report: &mut Report<'_>,
    ) -> Option<&'d Value<'d>> {
        let found = self.get(key);
        if found.is_none()
            && let Some(help) = report.missing(self.span.clone(), format!("missing `{key}` in {}", self.what))
        {
            *help = Some(format!("add {key} = {example}"));
        }
        found
    }

    pub(super) fn integer(
        &self,
        key: &str,
        bounds: RangeInclusive<u64>,
        default: u64,
        report: &mut Report<'_>,
    ) -> u64 {
        self.get(key).and_then(|v| integer(v, &format!("`{key}`"), bounds, report)).unwrap_or(default)
    }

    /// As [`Section::integer`], for bounds that fit.
    pub(super) fn small(
        &self,
        key: &str,
        bounds: RangeInclusive<u32>,
        default: u32,
        report: &mut Report<'_>,
    ) -> u32 {
        let bounds = u64::from(*bounds.start())..=u64::from(*bounds.end());
        u32::try_from(self.integer(key, bounds, u64::from(default), report)).unwrap_or(default)
    }

    pub(super) fn boolean(&self, key: &str, default: bool, report: &mut Report<'_>) -> bool {
        self.get(key).and_then(|v| boolean(v, &format!("`{key}`"), report)).unwrap_or(default)
    }

    /// A duration; a bare number counts `unit`.
    pub(super) fn duration(
        &self,
        key: &str,
        unit: duration::Unit,
        default: Duration,
        report: &mut Report<'_>,
    ) -> Duration {
        self.get(key).and_then(|v| duration::read(v, &format!("`{key}`"), unit, report)).unwrap_or(default)
    }

    /// A duration where 0 is "off": forever.
    pub(super) fn timeout(
        &self,
        key: &str,
        unit: duration::Unit,
        default: Duration,
        report: &mut Report<'_>,
    ) -> Duration {
        match self.duration(key, unit, default, report) {
            Duration::ZERO => Duration::MAX,
            some => some,
        }
    }

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
