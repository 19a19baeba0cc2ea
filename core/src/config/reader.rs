//! Typed access to a TOML tree that goes on after every error. `serde` is not used: it stops at the first
//! error and loses the position of many.

use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::diagnostic::{Diagnostic, clip};
use super::literal::quote;
use super::report::{self, Report, Span, Value};
use super::{address, duration, keys, suggest};

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
        let error = report.error(value.span(), format!("unknown {what} \"{}\"", clip(text)));
        suggest_name(error, text, &names);
    }
    found.map(|&(_, value)| value)
}

/// Sets the help of an unknown name within a string: the nearest known name, or else all of them.
pub(super) fn suggest_name(error: &mut Diagnostic, unknown: &str, names: &[&str]) {
    if suggest::is_variable(unknown) {
        error.help = Some(suggest::VARIABLES.into());
    } else if let Some(near) = suggest::nearest(unknown, names) {
        error.suggest(format!("did you mean {}?", quote(near)), error.span.clone(), quote(near));
    } else {
        for name in names {
            error.suggest(format!("use {}", alternatives(names)), error.span.clone(), quote(name));
        }
    }
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
        let meant = value.get_ref().as_str().and_then(number_in);
        let error = report.mistyped(value, what, "an integer");
        if let Some(n) = meant.filter(|n| bounds.contains(n)) {
            error.write(n.to_string());
        }
        return None;
    };
    let n = u64::from_str_radix(n.as_str(), n.radix()).ok().filter(|n| bounds.contains(n));
    if n.is_none() {
        report.error(value.span(), format!("{what} must be from {} to {}", bounds.start(), bounds.end()));
    }
    n
}

/// A number of bytes: an integer, or a string like `"10MB"`, which counts in powers of 1024.
pub(super) fn bytes(value: &Value<'_>, what: &str, report: &mut Report<'_>) -> Option<u64> {
    let Some(text) = value.get_ref().as_str() else {
        if matches!(value.get_ref(), DeValue::Integer(_)) {
            return integer(value, what, 0..=u64::MAX, report);
        }
        report.mistyped(value, what, "a number of bytes, like 10485760 or \"10MB\"");
        return None;
    };
    let found = number_in(text);
    if found.is_none() {
        let message = format!("{what} \"{}\" is no number of bytes", clip(text));
        let error = report.error(value.span(), message);
        error.help = Some(if suggest::is_variable(text) {
            suggest::VARIABLES.into()
        } else {
            "for example 10485760, \"64KB\", \"10MB\" or \"1GB\"".into()
        });
    }
    found
}

/// The number that a string says, also one like `8k` or `10 MB`, which counts in powers of 1024.
fn number_in(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let factor: u64 = match text[digits..].trim().to_lowercase().as_str() {
        "" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(factor)
}

/// A boolean.
pub(super) fn boolean(value: &Value<'_>, what: &str, report: &mut Report<'_>) -> Option<bool> {
    let found = value.get_ref().as_bool();
    if found.is_none() {
        let word = match value.get_ref() {
            DeValue::String(text) => text.to_lowercase(),
            DeValue::Integer(n) => n.as_str().to_owned(),
            _ => String::new(),
        };
        let error = report.mistyped(value, what, "true or false");
        match word.as_str() {
            "true" | "yes" | "on" | "1" | "enabled" => error.write("true"),
            "false" | "no" | "off" | "0" | "disabled" => error.write("false"),
            _ => error,
        };
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

/// Networks, `"10.0.0.0/8"`, and addresses: those of a string or of a list of strings that are good.
pub(super) fn networks(value: &Value<'_>, what: &str, report: &mut Report<'_>) -> Vec<IpNet> {
    let mut found = Vec::new();
    for (text, span) in strings(value, what, report) {
        match address::network(text) {
            Ok(net) => found.push(net),
            Err(reason) => {
                let message = format!("\"{}\" is not an address or a network: {reason}", clip(text));
                let error = report.error(span, message);
                match address::meant_network(text) {
                    Some(meant) => error.write(quote(&meant)),
                    None if suggest::is_variable(text) => {
                        error.help = Some(suggest::VARIABLES.into());
                        error
                    }
                    None => error.suggest("for example \"10.0.0.0/8\"", error.span.clone(), "\"10.0.0.0/8\""),
                };
            }
        }
    }
    found
}

/// A name for people and for other places of the file: 1 to 100 bytes without control characters.
pub(super) fn label<'v>(value: &'v Value<'_>, what: &str, report: &mut Report<'_>) -> Option<&'v str> {
    const MAX_BYTES: usize = 100;
    let label = non_empty_string(value, what, report)?;
    if label.len() > MAX_BYTES || label.chars().any(char::is_control) {
        let message = format!("{what} must have at most {MAX_BYTES} bytes and no control characters");
        report.error(value.span(), message);
        return None;
    }
    Some(label)
}

/// The tables of a list that is written `[[key]]`; none if the key is absent or wrong.
pub(super) fn tables<'d>(file: &Section<'d>, key: &str, report: &mut Report<'_>) -> &'d [Value<'d>] {
    let Some(value) = file.get(key) else { return &[] };
    if let Some(items) = value.get_ref().as_array() {
        return items;
    }
    let message = format!("`{key}` must be a list of tables, found {}", report::type_name(value));
    let help = format!("write [[{key}]] with two brackets on each side");
    // Only a header of the table's own can be replaced.
    let header = value.span();
    let is_own = |text: &str| text.starts_with('[') && text.trim_matches(['[', ']']).trim() == key;
    let own = report.text.get(header.clone()).is_some_and(is_own);
    let error = report.error(file.key_span(key), message);
    if own {
        error.suggest(help, header, format!("[[{key}]]"));
    } else {
        error.help = Some(format!("its own tables, like [{key}.…], stand below [[{key}]]"));
    }
    &[]
}

/// A TOML table of the file.
#[derive(Clone)]
pub(super) struct Section<'d> {
    /// The table as messages name it: "a backend pool".
    what: &'static str,
    /// Its header, or its braces.
    pub(super) span: Span,
    table: &'d DeTable<'d>,
    is_root: bool,
    /// Known keys that unknown ones were probably meant to be.
    misspelt: Vec<&'static str>,
}

impl<'d> Section<'d> {
    /// The whole file. Keys that are not `known` are errors.
    pub(super) fn root(table: &'d DeTable<'d>, known: &[&'static str], report: &mut Report<'_>) -> Self {
        let mut section = Self { what: "the file", span: 0..0, table, is_root: true, misspelt: Vec::new() };
        section.check_keys(known, report);
        section
    }

    /// A value as a table. Keys that are not `known` are errors.
    pub(super) fn new(
        value: &'d Value<'d>,
        what: &'static str,
        known: &[&'static str],
        report: &mut Report<'_>,
    ) -> Option<Self> {
        let mut section = Self::with_any_keys(value, what, report)?;
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
            let source = report.text.get(value.span()).unwrap_or_default();
            let header = source.strip_prefix('[').and_then(|s| s.strip_suffix(']'));
            let error = report.mistyped(value, what, "a table");
            if let Some(header) = header.filter(|h| h.starts_with('[') && h.ends_with(']')) {
                error.write(header);
            }
            return None;
        };
        Some(Self { what, span: value.span(), table, is_root: false, misspelt: Vec::new() })
    }

    /// Adds an error for each key that is not `known`.
    pub(super) fn check_keys(&mut self, known: &[&'static str], report: &mut Report<'_>) {
        let table = self.table;
        for (key, value) in table.iter().filter(|(key, _)| !known.contains(&key.get_ref().as_ref())) {
            self.unknown_key(key, value, known, report);
        }
    }

    fn unknown_key(
        &mut self,
        key: &Spanned<DeString<'_>>,
        value: &Value<'_>,
        known: &[&'static str],
        report: &mut Report<'_>,
    ) {
        let name = key.get_ref().as_ref();
        let error = report.error(key.span(), format!("unknown key \"{}\" in {}", clip(name), self.what));
        let is_table = value.get_ref().as_table().is_some();
        let of_pool = keys::POOL.contains(&name);
        let elsewhere = of_pool || keys::FILE.contains(&name);
        // A table that is known elsewhere has its right name; any other key may be a short name of one here.
        if let Some(near) = suggest::nearest(name, known).filter(|_| !(elsewhere && is_table)) {
            self.misspelt.push(near);
            if self.table.contains_key(near) {
                error.help = Some(format!("`{near}` is there already: remove this key"));
            } else {
                error.suggest(format!("did you mean \"{near}\"?"), key.span(), near);
            }
        } else if of_pool && self.is_root && is_table {
            let header = format!("backend_pools.{name}");
            let help = format!("it belongs to a pool: write [{header}] below [[backend_pools]]");
            // A table joins the pool that is above it in the file.
            match self.table.get_key_value("backend_pools") {
                Some((pools, _)) if pools.span().start < key.span().start => {
                    error.suggest(help, key.span(), header);
                }
                _ => error.help = Some(help),
            }
        } else if of_pool {
            let place =
                if self.is_root { "below [[backend_pools]]" } else { "before the pool's first [table]" };
            error.help = Some(format!("it is a key of a backend pool: write it {place}"));
        } else if elsewhere {
            // In TOML a key after a `[table]` header belongs to that table, which is easily forgotten.
            error.help = Some("it is a key of the file: write it before the first [table]".into());
        } else if self.is_root && matches!(name, "log" | "log_level" | "loglevel" | "logging") {
            let help =
                "the environment variable RUST_LOG sets the level of the log; requests are in [access_log]";
            error.help = Some(help.into());
        } else if matches!(self.what, "`Local`" | "`ACME`") && keys::CERTIFICATE.contains(&name) {
            error.help = Some(format!("it is a key of the certificate: write it beside {}", self.what));
        } else if known.is_empty() {
            error.help = Some(format!("{} takes no keys", self.what));
        } else {
            error.help = Some(format!("known here: {}", known.join(", ")));
        }
    }

    /// Whether an unknown key was probably meant to be this one.
    pub(super) fn has_misspelt(&self, key: &str) -> bool {
        self.misspelt.contains(&key)
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
        if found.is_none() && !self.has_misspelt(key) {
            let message = format!("missing `{key}` in {}", self.what);
            report.missing(self.span.clone(), message, &format!("{key} = {example}"));
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
