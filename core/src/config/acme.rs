//! `ACME = { … }` of a certificate: the authority that makes it, and what it is asked for.

use std::collections::BTreeSet;
use std::net::IpAddr;

use http::Uri;

use super::address::host_name;
use super::base64url;
use super::diagnostic::clip;
use super::literal::quote;
use super::model::{Acme, AcmeKeyType, ExternalAccount};
use super::reader::{self, Section};
use super::report::{CertificatePlaces, Report, Span, Value};
use super::suggest;

/// The keys of `ACME`.
pub(super) const KEYS: &[&str] =
    &["staging", "email", "persist_dir", "directory_url", "ca_file", "eab", "names", "key_type", "profile"];

const KEY_TYPES: &[(&str, AcmeKeyType)] =
    &[("P-256", AcmeKeyType::P256), ("P-384", AcmeKeyType::P384), ("RSA-2048", AcmeKeyType::Rsa2048)];

/// Names of one certificate, its own one included: what Let's Encrypt allows.
const MAX_NAMES: usize = 100;

/// Why a wildcard is refused.
pub(super) const NO_WILDCARD: &str =
    "ACME can't make a wildcard certificate here: that needs access to the name's DNS";

/// What to do instead.
pub(super) const INSTEAD_OF_WILDCARD: &str =
    "list each name in `names`, or take a certificate from files with `Local`";

/// The settings of the certificate for `own`, which is `None` if that name is wrong. `taken`: the names of
/// certificates up to here.
pub(super) fn read(
    s: &Section<'_>,
    own: Option<&str>,
    taken: &mut BTreeSet<Box<str>>,
    places: &mut CertificatePlaces,
    report: &mut Report<'_>,
) -> Option<Acme> {
    let email = email(s, report);
    let persist_dir = s.required("persist_dir", "\"acme-cache\"", report);
    let persist_dir =
        persist_dir.and_then(|value| path(value, "persist_dir", &mut places.persist_dir, report));
    let staging = s.boolean("staging", false, report);
    let directory_url = s.get("directory_url").and_then(|value| directory_url(value, report));
    if staging && s.get("directory_url").is_some() {
        let message =
            "`staging` is the testing service of Let's Encrypt, and `directory_url` another authority";
        let error = report.error(s.value_span("staging"), message);
        error.write("false");
    }
    let ca_file = s.get("ca_file").and_then(|value| path(value, "ca_file", &mut places.ca_file, report));
    if ca_file.is_some() && directory_url.as_ref().is_some_and(|url| url.starts_with("http:")) {
        report.warning(s.value_span("ca_file"), "`ca_file` does nothing with http://");
    }
    let eab = s.get("eab").and_then(|value| external_account(value, report));
    let names = s.get("names").map(|value| names(value, own, taken, report)).unwrap_or_default();
    let key_type = s.one_of("key_type", "key_type", KEY_TYPES, AcmeKeyType::default(), report);
    let profile = s.get("profile").and_then(|value| reader::label(value, "`profile`", report));
    Some(Acme {
        staging,
        directory_url,
        ca_file,
        eab,
        names,
        key_type,
        profile: profile.map(Into::into),
        ..Acme::new(&email?, &persist_dir?)
    })
}

/// A path, and its place.
fn path(value: &Value<'_>, key: &str, place: &mut Option<Span>, report: &mut Report<'_>) -> Option<Box<str>> {
    let text = reader::non_empty_string(value, &format!("`{key}`"), report)?;
    *place = Some(value.span());
    Some(text.into())
}

/// The contact of the account: an address, without `mailto:`.
fn email(s: &Section<'_>, report: &mut Report<'_>) -> Option<Box<str>> {
    let value = s.required("email", "\"admin@example.com\"", report)?;
    let text = reader::non_empty_string(value, "`email`", report)?;
    let is_address = |text: &str| {
        text.split_once('@').is_some_and(|(user, host)| {
            let atom = |c: char| c.is_ascii_graphic() && !"()<>[]:;,\\\"?&#/%".contains(c);
            !user.is_empty() && user.chars().all(atom) && host_name(host).is_ok()
        })
    };
    if is_address(text) {
        return Some(text.into());
    }
    let error = report.error(value.span(), format!("\"{}\" is not an address for e-mail", clip(text)));
    let bare = text.strip_prefix("mailto:").unwrap_or(text).trim();
    if suggest::is_variable(text) {
        error.help = Some(suggest::VARIABLES.into());
    } else if is_address(bare) {
        error.write(quote(bare));
    }
    None
}

/// Where the authority's directory is.
fn directory_url(value: &Value<'_>, report: &mut Report<'_>) -> Option<Box<str>> {
    let text = reader::non_empty_string(value, "`directory_url`", report)?;
    let Err(reason) = check_url(text) else { return Some(text.into()) };
    let error = report.error(value.span(), format!("bad `directory_url` \"{}\": {reason}", clip(text)));
    let secure = format!("https://{}", text.split_once("://").map_or(text, |(_, rest)| rest));
    if suggest::is_variable(text) {
        error.help = Some(suggest::VARIABLES.into());
    } else if check_url(&secure).is_ok() {
        error.write(quote(&secure));
    } else {
        let example = "\"https://ca.example.com/acme/directory\"";
        error.help = Some(format!("for example {example}"));
    }
    None
}

fn check_url(text: &str) -> Result<(), &'static str> {
    if !text.contains("://") {
        return Err("it has no https://");
    }
    let uri: Uri = text.parse().map_err(|_| "it is no URL")?;
    let host = uri.host().unwrap_or_default();
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let ip = bare.parse::<IpAddr>();
    if ip.is_err() {
        host_name(host)?;
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("names and passwords have no place in it");
    }
    if text.contains('#') {
        return Err("it has a fragment");
    }
    if uri
        .authority()
        .is_some_and(|a| a.as_str().len() > host.len() && a.port_u16().is_none_or(|port| port == 0))
    {
        return Err("the port must be from 1 to 65535");
    }
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if ip.is_ok_and(|ip| ip.is_loopback()) || host.eq_ignore_ascii_case("localhost") => {
            Ok(())
        }
        Some("http") => Err("without https:// anyone in between could have certificates made"),
        _ => Err("it is spoken to over https:// only"),
    }
}

/// `eab`: the account that the authority's customer has elsewhere.
fn external_account(value: &Value<'_>, report: &mut Report<'_>) -> Option<ExternalAccount> {
    let s = Section::new(value, "`eab`", &["kid", "hmac_key"], report)?;
    let kid = s.required("kid", "\"KEY ID\"", report);
    let kid = kid.and_then(|value| reader::label(value, "`kid`", report));
    let hmac_key = s.required("hmac_key", "\"KEY\"", report)?;
    let text = reader::non_empty_string(hmac_key, "`hmac_key`", report)?;
    match base64url::decode(text) {
        Ok(key) if !key.is_empty() => Some(ExternalAccount { kid: kid?.into(), hmac_key: key.into() }),
        Ok(_) => {
            report.error(hmac_key.span(), "`hmac_key` must not be empty");
            None
        }
        // The key is a secret, and not quoted.
        Err(reason) => {
            let error = report.error(hmac_key.span(), format!("`hmac_key` is not base64url: {reason}"));
            let written = text.trim().replace('+', "-").replace('/', "_");
            if suggest::is_variable(text) {
                error.help = Some(suggest::VARIABLES.into());
            } else if base64url::decode(&written).is_ok_and(|key| !key.is_empty()) {
                error.suggest("write it with `-` for `+`, and `_` for `/`", hmac_key.span(), quote(&written));
            } else {
                error.help = Some("the authority shows it with letters, digits, `-` and `_`".into());
            }
            None
        }
    }
}

/// More names of the certificate.
fn names(
    value: &Value<'_>,
    own: Option<&str>,
    taken: &mut BTreeSet<Box<str>>,
    report: &mut Report<'_>,
) -> Vec<Box<str>> {
    let mut found: Vec<Box<str>> = Vec::new();
    for (text, span) in reader::strings(value, "`names`", report) {
        let (name, reason) = match checked_name(text) {
            Ok(name) if own == Some(&*name) => {
                report.error(span, format!("\"{name}\" is the certificate's own name: remove it"));
                continue;
            }
            Ok(name) if found.contains(&name) => {
                report.error(span, format!("\"{name}\" is there twice: remove one"));
                continue;
            }
            Ok(name) if !taken.insert(name.clone()) => {
                report.error(span, format!("there are two certificates for \"{name}\""));
                continue;
            }
            Ok(name) => {
                found.push(name);
                continue;
            }
            Err(NO_WILDCARD) => {
                report.error(span, NO_WILDCARD).help = Some(INSTEAD_OF_WILDCARD.into());
                continue;
            }
            Err(reason) => (text, reason),
        };
        let error = report.error(span, format!("bad name \"{}\": {reason}", clip(name)));
        let host = text.split_once("://").map_or(text, |(_, rest)| rest);
        let host = host.split(['/', ':']).next().unwrap_or_default().trim();
        if suggest::is_variable(text) {
            error.help = Some(suggest::VARIABLES.into());
        } else if host != text && checked_name(host).is_ok() {
            error.write(quote(host));
        }
    }
    if found.len() >= MAX_NAMES {
        report.error(
            value.span(),
            format!("a certificate has at most {MAX_NAMES} names, its own one included"),
        );
    }
    found
}

fn checked_name(text: &str) -> Result<Box<str>, &'static str> {
    let bare = text.strip_suffix('.').filter(|name| !name.ends_with('.')).unwrap_or(text);
    if bare.starts_with("*.") {
        return Err(NO_WILDCARD);
    }
    let name = host_name(bare)?;
    if name.parse::<IpAddr>().is_ok() {
        return Err("clients never name an address in a handshake");
    }
    Ok(name)
}
