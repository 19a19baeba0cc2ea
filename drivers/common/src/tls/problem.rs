//! What is wrong with the files of a certificate.

use ruststrom_core::config::Severity;

/// Something wrong with a certificate of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The certificate's place in [`Config::certificates`](ruststrom_core::Config::certificates).
    pub certificate: u16,
    /// The value of the configuration that is meant.
    pub part: Part,
    /// With an error the certificate cannot be served.
    pub severity: Severity,
    /// One line that names the file.
    pub message: String,
    /// What to do about it, one line.
    pub help: String,
}

/// A value of a certificate's table in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The table itself.
    Table,
    /// `certificate_path`
    CertificatePath,
    /// `private_key_path`
    PrivateKeyPath,
    /// `client_ca`
    ClientCa,
    /// `ca_file` of `ACME`
    AcmeCaFile,
}

/// A [`Problem`] before it is known whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flaw {
    pub(super) part: Part,
    pub(super) severity: Severity,
    pub(crate) message: String,
    pub(super) help: String,
}

impl Flaw {
    pub(super) fn error(part: Part, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { part, severity: Severity::Error, message: message.into(), help: help.into() }
    }

    pub(super) fn warning(part: Part, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { part, severity: Severity::Warning, message: message.into(), help: help.into() }
    }

    pub(crate) fn of(self, certificate: u16) -> Problem {
        let Self { part, severity, message, help } = self;
        Problem { certificate, part, severity, message, help }
    }
}
