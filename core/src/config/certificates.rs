//! `[certificates]`: where the certificate of each name comes from.

use std::collections::BTreeSet;

use super::acme;
use super::address::host_name;
use super::diagnostic::clip;
use super::keys;
use super::model::{Certificate, CertificateSource, ClientAuth};
use super::reader::{self, Section};
use super::report::{CertificatePlaces, Report, Span, Value};

const KINDS: &[(&str, Kind)] = &[("Local", Kind::Local), ("ACME", Kind::Acme)];

const CLIENT_AUTH: &[(&str, ClientAuth)] =
    &[("required", ClientAuth::Required), ("optional", ClientAuth::Optional)];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Local,
    Acme,
}

impl Kind {
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Local => &["certificate_path", "private_key_path"],
            Self::Acme => acme::KEYS,
        }
    }
}

/// Every certificate in the order of the file; `None` for one with an error.
pub(super) fn read(value: Option<&Value<'_>>, report: &mut Report<'_>) -> Vec<Option<Certificate>> {
    let Some(section) = value.and_then(|v| Section::with_any_keys(v, "`certificates`", report)) else {
        return Vec::new();
    };
    if section.entries().count() > usize::from(u16::MAX) {
        report.error(section.span.clone(), "there are more than 65535 certificates");
    }
    let mut names = BTreeSet::new();
    let mut has_default = false;
    let mut found = Vec::new();
    for (key, value) in section.entries() {
        let name = server_name(key.get_ref());
        match &name {
            Err(reason) => {
                let message =
                    format!("\"{}\" is not the name of a certificate: {reason}", clip(key.get_ref()));
                report.error(key.span(), message).help =
                    Some("use a name like \"example.com\" or \"*.example.com\"".into());
            }
            Ok(name) if !names.insert(name.clone()) => {
                report.error(key.span(), format!("there are two certificates for \"{name}\""));
            }
            Ok(_) => {}
        }
        let Some(mut section) = Section::with_any_keys(value, "a certificate", report) else {
            found.push(None);
            continue;
        };
        let mut places = CertificatePlaces { name: key.span(), ..CertificatePlaces::default() };
        let own = name.as_deref().ok();
        let source = source(&mut section, own, &mut names, &mut places, report);
        let (client_ca, client_auth) = clients(&section, &mut places, report);
        let default = section.boolean("default", false, report);
        if default && std::mem::replace(&mut has_default, true) {
            report.error(section.key_span("default"), "only one certificate can be the default");
        }
        let is_acme = section.get("ACME").is_some()
            || section.get("type").is_some_and(|v| v.get_ref().as_str() == Some("ACME"));
        if is_acme && key.get_ref().starts_with("*.") {
            report.error(key.span(), acme::NO_WILDCARD).help = Some(acme::INSTEAD_OF_WILDCARD.into());
        }
        report.places.certificates.push(places);
        found.push(name.ok().zip(source).map(|(name, source)| Certificate {
            name,
            source,
            default,
            client_ca,
            client_auth,
            sans: Vec::new(),
        }));
    }
    found
}

/// The name of a server as TLS clients send it, which is without a final dot (RFC 6066 §3), or a wildcard for
/// one label.
fn server_name(text: &str) -> Result<Box<str>, &'static str> {
    let text = text.strip_suffix('.').filter(|name| !name.ends_with('.')).unwrap_or(text);
    let name = host_name(text.strip_prefix("*.").unwrap_or(text))?;
    if name.parse::<std::net::IpAddr>().is_ok() {
        return Err("clients never name an address in a handshake");
    }
    Ok(if text.starts_with("*.") { format!("*.{name}").into() } else { name })
}

/// What clients have to show: `client_ca` and `client_auth`.
fn clients(
    section: &Section<'_>,
    places: &mut CertificatePlaces,
    report: &mut Report<'_>,
) -> (Option<Box<str>>, ClientAuth) {
    let client_ca =
        section.get("client_ca").and_then(|value| path(value, "client_ca", &mut places.client_ca, report));
    let client_auth =
        section.one_of("client_auth", "client_auth", CLIENT_AUTH, ClientAuth::default(), report);
    let without_ca = section.get("client_ca").is_none() && !section.has_misspelt("client_ca");
    if section.get("client_auth").is_some() && without_ca {
        let line = "client_ca = \"certs/clients-ca.pem\"";
        let place = report.insertion(&section.span, line);
        let message = "`client_auth` says how clients are checked, but there is no `client_ca` to check them";
        let error = report.error(section.key_span("client_auth"), message);
        error.help = Some(format!("add {line}"));
        if let Some((at, text)) = place {
            error.suggest(format!("add {line}"), at..at, text);
        }
    }
    (client_ca, client_auth)
}

/// The path of a file that the driver reads, and its place.
fn path(value: &Value<'_>, key: &str, place: &mut Option<Span>, report: &mut Report<'_>) -> Option<Box<str>> {
    let text = reader::non_empty_string(value, &format!("`{key}`"), report)?;
    *place = Some(value.span());
    Some(text.into())
}

/// Where a certificate comes from: `Local = { … }`, `ACME = { … }`, or the settings of either beside `type`.
fn source(
    section: &mut Section<'_>,
    own: Option<&str>,
    names: &mut BTreeSet<Box<str>>,
    places: &mut CertificatePlaces,
    report: &mut Report<'_>,
) -> Option<CertificateSource> {
    if let Some(value) = section.get("type") {
        let kind = reader::one_of(value, "type", KINDS, report)?;
        let known: Vec<&'static str> =
            kind.keys().iter().chain(&["type"]).chain(keys::CERTIFICATE).copied().collect();
        section.check_keys(&known, report);
        return match kind {
            Kind::Local => local(section, places, report),
            Kind::Acme => acme::read(section, own, names, places, report).map(CertificateSource::Acme),
        };
    }
    let known: Vec<&'static str> =
        ["Local", "ACME", "type"].iter().chain(keys::CERTIFICATE).copied().collect();
    section.check_keys(&known, report);
    match (section.get("Local"), section.get("ACME")) {
        (Some(value), None) => {
            let section = Section::new(value, "`Local`", Kind::Local.keys(), report)?;
            local(&section, places, report)
        }
        (None, Some(acme)) => {
            let section = Section::new(acme, "`ACME`", Kind::Acme.keys(), report)?;
            acme::read(&section, own, names, places, report).map(CertificateSource::Acme)
        }
        (Some(_), Some(_)) => {
            report.error(section.key_span("ACME"), "a certificate has either `Local` or `ACME`, not both");
            None
        }
        (None, None) if section.has_misspelt("Local") || section.has_misspelt("ACME") => None,
        (None, None) => {
            let line = "ACME = { email = \"admin@example.com\", persist_dir = \"acme-cache\" }";
            report.missing(section.span.clone(), "a certificate needs `Local` or `ACME`", line);
            None
        }
    }
}

/// The files of `Local`.
fn local(
    section: &Section<'_>,
    places: &mut CertificatePlaces,
    report: &mut Report<'_>,
) -> Option<CertificateSource> {
    let mut file = |key: &str, example: &str, place: &mut Option<Span>| {
        path(section.required(key, example, report)?, key, place, report)
    };
    let certificate_path =
        file("certificate_path", "\"certs/example.com.crt\"", &mut places.certificate_path);
    let private_key_path =
        file("private_key_path", "\"certs/example.com.key\"", &mut places.private_key_path);
    Some(CertificateSource::Local {
        certificate_path: certificate_path?,
        private_key_path: private_key_path?,
    })
}
