//! What a configuration says of the machine that it is for: host names, accounts, paths and certificates.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, OFlags};
use ruststrom_core::Config;
use ruststrom_core::config::{CertificateSource, Diagnostic, Parsed, Places, Severity};
use ruststrom_driver::acme::Acme;
use ruststrom_driver::tls::client::{self, ClientTls};
use ruststrom_driver::tls::problem::{Part, Problem};
use ruststrom_driver::tls::server::ServerTls;

use crate::middleware_files;
use crate::names;
use crate::privileges::{self, AccountError, Key};

/// The access log's file; `None` if lines go to standard output or nowhere. `folder` is the configuration's.
pub(crate) fn access_log_path(config: &Config, folder: &Path) -> Option<PathBuf> {
    config.access_log.path.as_deref().filter(|_| config.access_log.enabled).map(|path| folder.join(path))
}

/// Why the access log cannot be written, for the user.
pub(crate) fn access_log_error(path: &Path, error: &io::Error) -> String {
    format!("cannot write the access log {}: {error}", path.display())
}

/// Everything in a configuration text that is wrong on this machine. Nothing is changed here: no file is
/// made, and no port is opened.
pub(crate) fn problems(text: &str, parsed: &Parsed, folder: &Path) -> Vec<Diagnostic> {
    let mut found = names::unresolvable(text, &parsed.places.host_names);
    if let Some(path) = parsed.config.as_ref().and_then(|config| access_log_path(config, folder))
        && let Some(span) = &parsed.places.access_log
        && let Err(error) = can_append(&path)
    {
        let message = access_log_error(&path, &error);
        found.push(Diagnostic::at(text, span.clone(), Severity::Error, message, "choose another path"));
    }
    if let Some(config) = &parsed.config {
        found.extend(unusable_folders(text, config, &parsed.places, folder));
    }
    let mut config = parsed.config.clone();
    found.extend(middleware_files::read(text, &parsed.places, config.as_mut(), folder));
    if let Some(Err(error)) = parsed.config.as_ref().map(privileges::identity) {
        found.push(account_problem(text, &parsed.places, &error));
    }
    if let Some(config) = &parsed.config {
        let problems = ServerTls::load(&config.certificates, config.http2.enabled, folder, None).problems;
        found.extend(certificate_problems(text, &parsed.places, &problems));
        let problems = Acme::load(config, folder).problems;
        found.extend(certificate_problems(text, &parsed.places, &problems));
        let problems = ClientTls::load(config, folder, None).problems;
        found.extend(backend_tls_problems(text, &parsed.places, &problems));
    }
    found
}

/// What is wrong with the files of certificates, each where the configuration names the file.
pub(crate) fn certificate_problems<'p>(
    text: &'p str,
    places: &'p Places,
    problems: &'p [Problem],
) -> impl Iterator<Item = Diagnostic> + use<'p> {
    problems.iter().map(move |problem| {
        let span = places.certificates.get(usize::from(problem.certificate)).map(|at| {
            let value = match problem.part {
                Part::Table => None,
                Part::CertificatePath => at.certificate_path.clone(),
                Part::PrivateKeyPath => at.private_key_path.clone(),
                Part::ClientCa => at.client_ca.clone(),
                Part::AcmeCaFile => at.ca_file.clone(),
            };
            value.unwrap_or_else(|| at.name.clone())
        });
        let message = problem.message.clone();
        Diagnostic::at(text, span.unwrap_or(0..0), problem.severity, message, &problem.help)
    })
}

/// Folders for certificates that cannot be used.
fn unusable_folders(text: &str, config: &Config, places: &Places, folder: &Path) -> Vec<Diagnostic> {
    let certificates = config.certificates.iter().zip(&places.certificates);
    let unusable = certificates.filter_map(|(certificate, at)| {
        let CertificateSource::Acme(acme) = &certificate.source else { return None };
        let path = folder.join(&*acme.persist_dir);
        let error = can_keep_files(&path).err()?;
        let message = format!("cannot keep certificates in {}: {error}", path.display());
        let span = at.persist_dir.clone()?;
        Some(Diagnostic::at(text, span, Severity::Error, message, "choose another folder, or its owner"))
    });
    unusable.collect()
}

/// Whether files can be put into a folder, which may have to be made.
fn can_keep_files(path: &Path) -> io::Result<()> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(rustix::fs::access(path, Access::WRITE_OK | Access::EXEC_OK)?),
        Ok(_) => Err(io::Error::new(io::ErrorKind::NotADirectory, "it is not a folder")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => match path.parent() {
            Some(above) if above.as_os_str().is_empty() => can_keep_files(Path::new(".")),
            Some(above) => can_keep_files(above),
            None => Err(e),
        },
        Err(e) => Err(e),
    }
}

/// What is wrong with what TLS to backends needs of the machine, each where the configuration says so.
pub(crate) fn backend_tls_problems<'p>(
    text: &'p str,
    places: &'p Places,
    problems: &'p [client::Problem],
) -> impl Iterator<Item = Diagnostic> + use<'p> {
    problems.iter().map(move |problem| {
        let span = places.backend_tls.iter().find(|at| at.pool == problem.pool).map(|at| {
            let value = match problem.key {
                client::Key::Addresses => None,
                client::Key::CaFile => at.ca_file.clone(),
                client::Key::ClientCertificate => at.client_certificate.clone(),
                client::Key::ClientKey => at.client_key.clone(),
            };
            value.unwrap_or_else(|| at.addresses.clone())
        });
        let message = problem.message.clone();
        Diagnostic::at(text, span.unwrap_or(0..0), problem.severity, message, &problem.help)
    })
}

/// The error of a configured account, in its place.
pub(crate) fn account_problem(text: &str, places: &Places, error: &AccountError) -> Diagnostic {
    let span = match error.key {
        Key::User => &places.user,
        Key::Group => &places.group,
    };
    let span = span.clone().unwrap_or(0..0);
    Diagnostic::at(text, span, Severity::Error, error.to_string(), error.help)
}

/// Whether a file can be appended to, or made.
fn can_append(path: &Path) -> io::Result<()> {
    match std::fs::metadata(path) {
        // Opening a pipe would end it for its reader when it is closed again.
        Ok(found) if found.file_type().is_fifo() => Ok(rustix::fs::access(path, Access::WRITE_OK)?),
        Ok(_) => {
            let flags = OFlags::NONBLOCK.bits() as i32;
            OpenOptions::new().append(true).custom_flags(flags).open(path).map(drop)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Ok(rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK)?)
        }
        Err(e) => Err(e),
    }
}
