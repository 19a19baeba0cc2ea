//! Configuration files: from a path to a checked configuration, or to the text of every error in it.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use ruststrom_core::Config;
use ruststrom_core::config::{self, Diagnostic, Listener, Parsed, Severity};
use ruststrom_driver::acme::Acme;
use ruststrom_driver::tls::client::ClientTls;
use ruststrom_driver::tls::server::ServerTls;
use ruststrom_driver::watch::Contents;

use crate::middleware_files;
use crate::named_files;
use crate::outside;
use crate::privileges::{self, Identity};

/// Longest configuration file; nothing more is read of a longer one.
const MAX_BYTES: u64 = 16 << 20;

/// A configuration that can be served.
pub(crate) struct Loaded {
    /// With the names that the certificates are for.
    pub(crate) config: Config,
    /// TLS to clients, with the certificates of the configuration.
    pub(crate) tls: ServerTls,
    /// Certificates that are obtained by themselves.
    pub(crate) acme: Acme,
    /// TLS to backends, as the pools want it.
    pub(crate) backend_tls: ClientTls,
    /// Whom the process becomes.
    pub(crate) identity: Option<Identity>,
    /// One line for each warning.
    pub(crate) warnings: Vec<String>,
}

/// The TLS of the configuration before: its sessions go on.
#[derive(Clone, Copy)]
pub(crate) struct Previous<'p> {
    pub(crate) tls: &'p ServerTls,
    pub(crate) backend_tls: &'p ClientTls,
}

/// The result of `--check`.
pub(crate) struct Checked {
    /// Every error and warning as text.
    pub(crate) report: String,
    /// There are no errors: a start would accept the file.
    pub(crate) accepted: bool,
}

/// Reads the text of a file.
///
/// # Errors
///
/// A message for the user, if the file can't be read, is longer than 16 MiB or is not UTF-8.
pub(crate) fn read(path: &Path) -> Result<String, String> {
    let name = path.display();
    let metadata = std::fs::metadata(path)
        .map_err(|e| format!("cannot read {name}: {e}; give the path of a configuration file"))?;
    if metadata.is_dir() {
        return Err(format!("cannot read {name}: it is a folder; give the path of a configuration file"));
    }
    let file = File::open(path).map_err(|e| format!("cannot read {name}: {e}"))?;
    text(&file, path)
}

/// Reads the text of a file that was read before, for a daemon that serves: it must not wait for a writer.
///
/// # Errors
///
/// A message for the log, as [`read`] has it, or if it is a pipe or a device.
pub(crate) fn read_again(path: &Path) -> Result<String, String> {
    let name = path.display();
    // Opening a pipe would wait too.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = file.map_err(|e| format!("cannot read {name}: {e}; give the path of a configuration file"))?;
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Err(format!("cannot read {name} again: it is no regular file; put one there"));
    }
    text(&file, path)
}

fn text(file: &File, path: &Path) -> Result<String, String> {
    let name = path.display();
    // The length in the metadata is of no use: a pipe or a device has none and may never end.
    let mut bytes = Vec::new();
    let read = file.take(MAX_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|e| format!("cannot read {name}: {e}"))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!(
            "cannot read {name}: it has more than {MAX_BYTES} bytes; no configuration is that long"
        ));
    }
    String::from_utf8(bytes).map_err(|e| {
        let valid = e.utf8_error().valid_up_to();
        let line = e.as_bytes()[..valid].iter().filter(|b| **b == b'\n').count() + 1;
        format!("cannot read {name}: line {line} is not UTF-8; save it as UTF-8")
    })
}

/// Reads a text with the variables of this process's environment; one that is not UTF-8 counts as missing.
fn parse(text: &str) -> Parsed {
    config::parse_in(text, &|name| std::env::var(name).ok())
}

/// The listeners of a text, whatever else its files have in them; `None` if there are errors in it.
pub(crate) fn listeners(text: &str) -> Option<Vec<Listener>> {
    parse(text).config.map(|config| config.listeners)
}

/// Every error and warning of a configuration text, on this machine; `name` and `folder` are the file's.
pub(crate) fn check(name: &str, text: &str, folder: &Path) -> Checked {
    let mut parsed = parse(text);
    let outside = outside::problems(text, &parsed, folder);
    parsed.diagnostics.extend(outside);
    let (_, diagnostics) = in_order(parsed);
    let accepted = !diagnostics.iter().any(is_error);
    Checked { report: render(&diagnostics, name, text), accepted }
}

/// A configuration to serve, in the place of `previous`; `name` and `folder` are the file's. Certificates
/// and keys are read here, while the process may still have the rights of root. What the files that it names
/// have in them is added to `contents`, whatever comes of it.
///
/// # Errors
///
/// Every error of the text and of its certificates, rendered.
pub(crate) fn load(
    name: &str,
    text: &str,
    folder: &Path,
    previous: Option<Previous<'_>>,
    contents: &mut Contents,
) -> Result<Loaded, String> {
    let mut parsed = parse(text);
    for path in named_files::of(&parsed, folder) {
        contents.add(&path);
    }
    let mut identity = None;
    let (mut tls, mut acme, mut backend_tls) = (None, None, None);
    let unread = middleware_files::read(text, &parsed.places, parsed.config.as_mut(), folder);
    parsed.diagnostics.extend(unread);
    if let Some(config) = &mut parsed.config {
        let loaded =
            ServerTls::load(&config.certificates, config.http2.enabled, folder, previous.map(|p| p.tls));
        for (certificate, sans) in config.certificates.iter_mut().zip(loaded.sans) {
            certificate.sans = sans;
        }
        let problems = outside::certificate_problems(text, &parsed.places, &loaded.problems);
        parsed.diagnostics.extend(problems);
        tls = loaded.server;
        let loaded = Acme::load(config, folder);
        let problems = outside::certificate_problems(text, &parsed.places, &loaded.problems);
        parsed.diagnostics.extend(problems);
        acme = loaded.acme;
        let loaded = ClientTls::load(config, folder, previous.map(|p| p.backend_tls));
        let problems = outside::backend_tls_problems(text, &parsed.places, &loaded.problems);
        parsed.diagnostics.extend(problems);
        backend_tls = loaded.client;
    }
    match parsed.config.as_ref().map(privileges::identity) {
        Some(Ok(found)) => identity = found,
        Some(Err(error)) => {
            parsed.diagnostics.push(outside::account_problem(text, &parsed.places, &error));
        }
        None => {}
    }
    let (config, diagnostics) = in_order(parsed);
    let (errors, warnings): (Vec<_>, Vec<_>) = diagnostics.into_iter().partition(is_error);
    match config.zip(tls).zip(acme).zip(backend_tls) {
        Some((((config, tls), acme), backend_tls)) if errors.is_empty() => {
            let line = |d: &Diagnostic| {
                let help = d.help.as_ref().map(|h| format!("; {h}")).unwrap_or_default();
                format!("{name}:{}:{}: {}{help}", d.line, d.column, d.message)
            };
            let warnings = warnings.iter().map(line).collect();
            Ok(Loaded { config, tls, acme, backend_tls, identity, warnings })
        }
        _ => Err(format!("{name} cannot be used\n{}", render(&errors, name, text))),
    }
}

/// Diagnostics for people and logs.
fn render(diagnostics: &[Diagnostic], name: &str, text: &str) -> String {
    config::render(diagnostics, name, &config::without_secrets(text))
}

fn is_error(d: &Diagnostic) -> bool {
    d.severity == Severity::Error
}

/// The configuration, and all diagnostics in the order of the file.
fn in_order(parsed: Parsed) -> (Option<Config>, Vec<Diagnostic>) {
    let mut diagnostics = parsed.diagnostics;
    diagnostics.sort_by_key(|d| (d.span.start, d.span.end));
    (parsed.config, diagnostics)
}
