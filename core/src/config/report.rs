//! Collects diagnostics while a file is read.

use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::DeValue;

use super::diagnostic::{Diagnostic, Lines, Severity};
use super::file_ref::FileRef;
use super::model::Config;
use super::suggest;

/// A TOML value and its place in the file.
pub(super) type Value<'d> = Spanned<DeValue<'d>>;

/// A range of bytes of the file.
pub(super) type Span = Range<usize>;

/// The result of reading a configuration file.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// `None` if and only if there is an error among the diagnostics.
    pub config: Option<Config>,
    /// Errors and warnings in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
    /// Where the file has what only the machine it is for can tell to be right.
    pub places: Places,
}

/// Where a file has what the core can't check, as it looks at nothing outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// The host names of backends, at every place where one is written.
    pub host_names: Vec<HostName>,
    /// The keys of each of [`Config::certificates`], in the same order.
    pub certificates: Vec<CertificatePlaces>,
    /// The value of `path` in `[access_log]`.
    pub access_log: Option<Range<usize>>,
    /// The value of `user`.
    pub user: Option<Range<usize>>,
    /// The value of `group`.
    pub group: Option<Range<usize>>,
    /// Of each pool that has an `https://` backend, what TLS needs of the machine.
    pub backend_tls: Vec<BackendTlsPlaces>,
    /// The files that middlewares read, at every place where one is named.
    pub middleware_files: Vec<MiddlewareFile>,
}

/// A file that a middleware reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MiddlewareFile {
    /// Its path, relative to the configuration's folder.
    pub path: Box<str>,
    /// Where it is named: bytes of the file.
    pub span: Range<usize>,
}

/// Where a pool says what TLS to its backends needs of the machine: files, or else the system's authorities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendTlsPlaces {
    /// The pool's name.
    pub pool: Box<str>,
    /// The value of `addresses`.
    pub addresses: Range<usize>,
    /// The value of `ca_file`.
    pub ca_file: Option<Range<usize>>,
    /// The value of `client_certificate`.
    pub client_certificate: Option<Range<usize>>,
    /// The value of `client_key`.
    pub client_key: Option<Range<usize>>,
}

/// Where the file has what a certificate is made of: bytes of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificatePlaces {
    /// The name of its table.
    pub name: Range<usize>,
    /// The value of `certificate_path`; `None` without one.
    pub certificate_path: Option<Range<usize>>,
    /// The value of `private_key_path`; `None` without one.
    pub private_key_path: Option<Range<usize>>,
    /// The value of `client_ca`; `None` without one.
    pub client_ca: Option<Range<usize>>,
    /// The value of `persist_dir`; `None` without one.
    pub persist_dir: Option<Range<usize>>,
    /// The value of `ca_file` of `ACME`; `None` without one.
    pub ca_file: Option<Range<usize>>,
}

/// A host name that the file has as a backend's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName {
    /// In lower case.
    pub host: Box<str>,
    /// Where its address is written: bytes of the file.
    pub span: Range<usize>,
}

/// Every diagnostic found so far.
pub(super) struct Report<'t> {
    /// The whole file.
    pub(super) text: &'t str,
    diagnostics: Vec<Diagnostic>,
    /// What the core can't check.
    pub(super) places: Places,
    /// Tables with a syntax error, which may have hidden keys: what is missing in them is not reported.
    broken: Vec<Span>,
    /// Values with variables that are missing, and the error of each.
    unknown: Vec<(Span, usize)>,
}

impl<'t> Report<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            text,
            diagnostics: Vec::new(),
            places: Places::default(),
            broken: Vec::new(),
            unknown: Vec::new(),
        }
    }

    /// From now on keys that are missing in these parts of the file are not reported.
    pub(super) fn ignore_missing_keys(&mut self, broken: Vec<Span>) {
        self.broken = broken;
    }

    /// Whether no part of the file is broken.
    pub(super) fn is_whole(&self) -> bool {
        self.broken.is_empty()
    }

    fn push(&mut self, severity: Severity, span: Span, message: String) -> &mut Diagnostic {
        let index = self.diagnostics.len();
        self.diagnostics.push(Diagnostic::new(severity, span, message));
        &mut self.diagnostics[index]
    }

    /// A file that a middleware reads, named at `span`.
    pub(super) fn file(&mut self, path: &str, span: Span) -> FileRef {
        self.places.middleware_files.push(MiddlewareFile { path: path.into(), span });
        FileRef { path: path.into(), content: Arc::default() }
    }

    /// Adds the error that nobody knows what the value at `value` is: nothing else is reported of it.
    pub(super) fn unknown_value(&mut self, value: Span, at: Span, message: String) -> &mut Diagnostic {
        self.unknown.push((value, self.diagnostics.len()));
        self.error(at, message)
    }

    /// Adds an error; the caller may set the help of what is returned.
    pub(super) fn error(&mut self, span: Span, message: impl Into<String>) -> &mut Diagnostic {
        self.push(Severity::Error, span, message.into())
    }

    /// Adds a warning; the caller may set the help of what is returned.
    pub(super) fn warning(&mut self, span: Span, message: impl Into<String>) -> &mut Diagnostic {
        self.push(Severity::Warning, span, message.into())
    }

    /// Adds the error that a required key is missing in the table at `span`, unless a syntax error may have
    /// hidden the key. `line` is a line that would do, such as `retries = 1`.
    pub(super) fn missing(&mut self, span: Span, message: impl Into<String>, line: &str) {
        let hidden = |broken: &Span| span.start == broken.start || broken.contains(&span.start);
        if self.broken.iter().any(hidden) {
            return;
        }
        let place = self.insertion(&span, line);
        let error = self.error(span, message);
        let help = format!("add {line}");
        match place {
            Some((at, text)) => error.suggest(help, at..at, text),
            None => {
                error.help = Some(help);
                error
            }
        };
    }

    /// Where a table at `span` takes another line, and the text to insert there.
    pub(super) fn insertion(&self, span: &Span, line: &str) -> Option<(usize, String)> {
        let source = self.text.get(span.clone())?;
        if span.is_empty() {
            let mark = '\u{feff}';
            let start = if self.text.starts_with(mark) { mark.len_utf8() } else { 0 };
            return (span.start == 0).then(|| (start, format!("{line}\n")));
        }
        if let Some(inside) = source.strip_prefix('{') {
            let empty = inside.trim_end_matches('}').trim().is_empty();
            return Some((span.start + 1, format!(" {line}{}", if empty { " " } else { "," })));
        }
        source.starts_with('[').then(|| (span.end, format!("\n{line}")))
    }

    /// Adds an error of the form "`key` must be a string, found an integer"; the caller may set its help.
    pub(super) fn mistyped(&mut self, value: &Value<'_>, what: &str, expected: &str) -> &mut Diagnostic {
        let error =
            self.error(value.span(), format!("{what} must be {expected}, found {}", type_name(value)));
        if value.get_ref().as_str().is_some_and(suggest::is_variable) {
            error.help = Some(suggest::VARIABLES.into());
        }
        error
    }

    pub(super) fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|d| d.severity == Severity::Error)
    }

    /// The result, with every diagnostic's line and column, in the order of the file.
    pub(super) fn finish(mut self, config: Option<Config>) -> Parsed {
        let lines = Lines::new(self.text);
        let mut nth = 0..;
        self.diagnostics.retain(|d| {
            let own = nth.next();
            let within = |(value, _): &(Span, usize)| value.start <= d.span.start && d.span.end <= value.end;
            self.unknown.iter().any(|(_, error)| own == Some(*error)) || !self.unknown.iter().any(within)
        });
        lines.locate(&mut self.diagnostics);
        let Self { diagnostics, places, .. } = self;
        Parsed { config, diagnostics, places }
    }
}

/// The type of a value as messages name it.
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
