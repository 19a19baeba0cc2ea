//! What one certificate is ordered with.

use super::challenge::Challenge;
use crate::config::{AcmeKeyType, Certificate, CertificateSource, Config, ListenerKind};

/// The production service of Let's Encrypt.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// The testing service of Let's Encrypt.
pub const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

/// What one certificate is ordered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The table's name, which the files in the folder are named after.
    pub primary: Box<str>,
    /// The names of the certificate, [`Settings::primary`] among them: sorted, each once.
    pub names: Vec<Box<str>>,
    /// The URL of the authority's directory.
    pub directory: Box<str>,
    /// The contact of the account.
    pub email: Box<str>,
    /// The kind of key.
    pub key_type: AcmeKeyType,
    /// The profile that is asked for.
    pub profile: Option<Box<str>>,
    /// The challenges that can be answered, the preferred one first.
    pub challenges: Vec<Challenge>,
    /// What the authority allows.
    pub limits: Limits,
}

impl Settings {
    /// Those of a certificate of the configuration; `None` if it comes from files.
    #[must_use]
    pub fn of(certificate: &Certificate, config: &Config) -> Option<Self> {
        let CertificateSource::Acme(acme) = &certificate.source else { return None };
        let mut names: Vec<Box<str>> = acme.names.clone();
        names.push(certificate.name.clone());
        names.sort_unstable();
        names.dedup();
        let directory = acme
            .directory_url
            .clone()
            .unwrap_or_else(|| if acme.staging { LETS_ENCRYPT_STAGING.into() } else { LETS_ENCRYPT.into() });
        let has = |kind| config.listeners.iter().any(|listener| listener.kind == kind);
        let challenges =
            [(Challenge::Http01, ListenerKind::Http), (Challenge::TlsAlpn01, ListenerKind::Https)];
        Some(Self {
            primary: certificate.name.clone(),
            names,
            limits: Limits::of(&directory),
            directory,
            email: acme.email.clone(),
            key_type: acme.key_type,
            profile: acme.profile.clone(),
            challenges: challenges.into_iter().filter(|&(_, kind)| has(kind)).map(|(c, _)| c).collect(),
        })
    }

    /// The host of the authority's directory, with the port if it has one.
    #[must_use]
    pub fn authority(&self) -> &str {
        let rest = self.directory.split_once("://").map_or(&*self.directory, |(_, rest)| rest);
        rest.split(['/', '?']).next().unwrap_or(rest)
    }

    /// What is asked for besides the names: `P-256`, `P-256 shortlived`.
    pub(super) fn kind(&self) -> String {
        let key = match self.key_type {
            AcmeKeyType::P256 => "P-256",
            AcmeKeyType::P384 => "P-384",
            AcmeKeyType::Rsa2048 => "RSA-2048",
        };
        match &self.profile {
            Some(profile) => format!("{key} {profile}"),
            None => key.into(),
        }
    }

    /// The set of names, as one word: `a.example,b.example`.
    #[must_use]
    pub fn name_set(&self) -> String {
        self.names.join(",")
    }
}

/// What an authority allows; what it does not say is not limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Failed validations of one name within an hour.
    pub failed_validations: usize,
    /// New orders of one account within three hours.
    pub orders: usize,
    /// Certificates for the very same names within seven days.
    pub duplicates: usize,
    /// New accounts within three hours.
    pub accounts: usize,
}

impl Limits {
    /// Those that Let's Encrypt publishes for its production service.
    pub const LETS_ENCRYPT: Self = Self { failed_validations: 5, orders: 300, duplicates: 5, accounts: 10 };
    /// For authorities whose limits are not known, and for testing services.
    pub const OTHERS: Self =
        Self { failed_validations: 5, orders: 1500, duplicates: usize::MAX, accounts: 10 };

    /// Those of an authority.
    #[must_use]
    pub fn of(directory: &str) -> Self {
        if directory == LETS_ENCRYPT { Self::LETS_ENCRYPT } else { Self::OTHERS }
    }
}
