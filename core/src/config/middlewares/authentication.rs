//! `Authentication`: a directory server that knows users and passwords.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::address::host_name;
use super::super::diagnostic::clip;
use super::super::directory::{BindPassword, Directory, DirectoryBind};
use super::super::duration::Unit;
use super::super::middleware_settings::{Authentication, Middleware};
use super::super::reader::{self, Section};
use super::super::report::{Report, Value};
use super::realm;
use crate::secret::Secret;

const KEYS: &[&str] = &[
    "ldap_address",
    "user_directory",
    "rdn_identifier",
    "recursive",
    "cache_time",
    "timeout",
    "starttls",
    "ca_file",
    "bind_dn",
    "bind_password",
    "bind_password_file",
    "realm",
    "forward_authorization",
];

const MAX_CACHE_TIME: Duration = Duration::from_secs(24 * 3600);
/// A lookup of a middleware has 20 s at most.
const MAX_TIMEOUT: Duration = Duration::from_secs(15);

pub(super) fn read(value: &Value<'_>, report: &mut Report<'_>) -> Option<Middleware> {
    let section = Section::new(value, "`Authentication`", KEYS, report)?;
    let address = section
        .required("ldap_address", "\"ldaps://ldap.example.com:636\"", report)
        .and_then(|value| ldap_address(value, report));
    let user_directory = section
        .required("user_directory", "\"ou=users,dc=example,dc=com\"", report)
        .and_then(|value| distinguished_name(value, report));
    let rdn_identifier =
        section.required("rdn_identifier", "\"uid\"", report).and_then(|value| rdn_identifier(value, report));
    let recursive = section
        .required("recursive", "true", report)
        .and_then(|value| reader::boolean(value, "`recursive`", report));
    let starttls = section.boolean("starttls", false, report);
    let ca_file = section.get("ca_file").and_then(|value| {
        let path = reader::non_empty_string(value, "`ca_file`", report)?;
        Some(report.file(path, value.span()))
    });
    if let Some(address) = &address {
        check_encryption(&section, address, starttls, report);
    }
    let bind = bind(&section, report);
    let cache_time = within(&section, "cache_time", 60, Duration::ZERO..=MAX_CACHE_TIME, "1 day", report);
    let timeout = within(&section, "timeout", 5, Duration::from_millis(1)..=MAX_TIMEOUT, "15 s", report);
    let realm = realm::read(&section, report);
    let forward_authorization = section.boolean("forward_authorization", false, report);
    let Address { secure, host, port } = address?;
    let directory = Directory {
        secure,
        starttls,
        host,
        port,
        ca_file,
        user_directory: user_directory?,
        rdn_identifier: rdn_identifier?,
        recursive: recursive?,
        bind: bind?,
        timeout,
    };
    let settings = Authentication { directory, realm: realm?, cache_time, forward_authorization };
    Some(Middleware::Authentication(Box::new(settings)))
}

/// A duration of so many seconds unless the key says another.
fn within(
    section: &Section<'_>,
    key: &str,
    default: u64,
    bounds: RangeInclusive<Duration>,
    most: &str,
    report: &mut Report<'_>,
) -> Duration {
    let found = section.duration(key, Unit::Seconds, Duration::from_secs(default), report);
    if !bounds.contains(&found) {
        let least = if bounds.start().is_zero() { "0" } else { "1 ms" };
        report.error(section.value_span(key), format!("`{key}` must be from {least} to {most}"));
    }
    found
}

/// What the keys for TLS say beside the address.
fn check_encryption(section: &Section<'_>, address: &Address, starttls: bool, report: &mut Report<'_>) {
    if starttls && address.secure {
        report.error(section.value_span("starttls"), "ldaps:// is TLS from its first byte").help =
            Some("remove `starttls`, or write ldap:// and its port".into());
    } else if !starttls && !address.secure && section.get("ca_file").is_some() {
        report.warning(section.value_span("ca_file"), "`ca_file` does nothing without TLS").help =
            Some("use ldaps://, or `starttls = true`".into());
    } else if (starttls || address.secure) && address.host.contains(':') {
        report.error(section.value_span("ldap_address"), "TLS to an IPv6 address is not built in").help =
            Some("give the name that is in the server's certificate".into());
    }
}

/// `bind_dn` and its password, both or neither; `None` after an error.
#[allow(clippy::option_option, reason = "an error is not an absence")]
fn bind(section: &Section<'_>, report: &mut Report<'_>) -> Option<Option<DirectoryBind>> {
    let (given, file) = (section.get("bind_password"), section.get("bind_password_file"));
    let Some(dn) = section.get("bind_dn") else {
        for key in ["bind_password", "bind_password_file"] {
            if section.get(key).is_some() && !section.has_misspelt("bind_dn") {
                let line = "bind_dn = \"cn=reader,dc=example,dc=com\"";
                report.missing(section.span.clone(), format!("`{key}` without `bind_dn`"), line);
                return None;
            }
        }
        return Some(None);
    };
    let dn = distinguished_name(dn, report);
    let password = match (given, file) {
        (Some(_), Some(file)) => {
            report.error(file.span(), "`bind_password` and `bind_password_file` are two passwords").help =
                Some("keep one of them".into());
            None
        }
        // An empty one would be no bind at all (RFC 4513 §5.1.2), and succeed.
        (Some(value), None) => reader::non_empty_string(value, "`bind_password`", report)
            .map(|text| BindPassword::Given(Secret(text.into()))),
        (None, Some(value)) => reader::non_empty_string(value, "`bind_password_file`", report)
            .map(|path| BindPassword::File(report.file(path, value.span()))),
        (None, None) => {
            section.required("bind_password_file", "\"ldap-password\"", report);
            None
        }
    };
    Some(Some(DirectoryBind { dn: dn?, password: password? }))
}

/// Where a server listens.
struct Address {
    secure: bool,
    host: Box<str>,
    port: u16,
}

fn ldap_address(value: &Value<'_>, report: &mut Report<'_>) -> Option<Address> {
    let text = reader::string(value, "`ldap_address`", report)?;
    match read_ldap_address(text) {
        Ok(address) => Some(address),
        Err(reason) => {
            let message = format!("bad address \"{}\" for `ldap_address`: {reason}", clip(text));
            report.error(value.span(), message).help =
                Some("it is like \"ldap://host:389\" or \"ldaps://host:636\"".into());
            None
        }
    }
}

fn read_ldap_address(text: &str) -> Result<Address, &'static str> {
    let (secure, rest) = match (text.strip_prefix("ldap://"), text.strip_prefix("ldaps://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => return Err("it begins with neither ldap:// nor ldaps://"),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let port = if secure { 636 } else { 389 };
    let at = |host: String, port: u16| Ok(Address { secure, host: host.into(), port });
    if let Ok(address) = rest.parse::<SocketAddr>()
        && address.port() > 0
    {
        return at(address.ip().to_string(), address.port());
    }
    if let Ok(ip) = rest.parse::<Ipv4Addr>() {
        return at(ip.to_string(), port);
    }
    if let Some(v6) = rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let ip = v6.parse::<Ipv6Addr>().map_err(|_| "there is no IPv6 address between the brackets")?;
        return at(ip.to_string(), port);
    }
    let (host, port) = match rest.split_once(':') {
        None => (rest, port),
        Some((host, port)) => match port.parse::<u16>() {
            Ok(n @ 1..) if port.bytes().all(|b| b.is_ascii_digit()) => (host, n),
            _ => return Err("its port is not from 1 to 65535"),
        },
    };
    Ok(Address { secure, host: host_name(host)?, port })
}

/// A distinguished name (RFC 4514): pairs, between which commas stand.
fn distinguished_name(value: &Value<'_>, report: &mut Report<'_>) -> Option<Box<str>> {
    let text = reader::string(value, "a distinguished name", report)?;
    let is_pair = |part: &str| {
        part.split_once('=').is_some_and(|(k, v)| is_attribute(k.trim()) && !v.trim().is_empty())
    };
    // A comma behind a backslash belongs to a value.
    let mut escaped = false;
    let mut parts = text.split(|c: char| {
        let ends = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    if parts.all(is_pair) {
        return Some(text.into());
    }
    report.error(value.span(), format!("\"{}\" is not a distinguished name", clip(text))).help =
        Some("it is like \"ou=users,dc=example,dc=com\"".into());
    None
}

fn rdn_identifier(value: &Value<'_>, report: &mut Report<'_>) -> Option<Box<str>> {
    let text = reader::string(value, "`rdn_identifier`", report)?;
    if is_attribute(text) {
        return Some(text.into());
    }
    report.error(value.span(), format!("\"{}\" is not an LDAP attribute", clip(text))).help =
        Some("it is the attribute of a user's name: \"uid\", \"cn\" or \"sAMAccountName\"".into());
    None
}

/// An attribute description of LDAP (RFC 4512 §1.4): a name or an object identifier.
fn is_attribute(text: &str) -> bool {
    let name = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let oid = text.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    name || oid
}
