//! `Authentication`: a directory server that knows users and passwords.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::super::address::host_name;
use super::super::diagnostic::clip;
use super::super::middleware_settings::Middleware;
use super::super::reader::{self, Section};
use super::super::report::{Report, Value};

pub(super) fn read(value: &Value<'_>, report: &mut Report<'_>) -> Option<Middleware> {
    let keys = &["ldap_address", "user_directory", "rdn_identifier", "recursive"];
    let section = Section::new(value, "`Authentication`", keys, report)?;
    let ldap_address = section
        .required("ldap_address", "\"ldaps://ldap.example.com:636\"", report)
        .and_then(|value| ldap_address(value, report));
    let user_directory = section
        .required("user_directory", "\"ou=users,dc=example,dc=com\"", report)
        .and_then(|value| user_directory(value, report));
    let rdn_identifier =
        section.required("rdn_identifier", "\"uid\"", report).and_then(|value| rdn_identifier(value, report));
    let recursive = section
        .required("recursive", "true", report)
        .and_then(|value| reader::boolean(value, "`recursive`", report));
    Some(Middleware::Authentication {
        ldap_address: ldap_address?,
        user_directory: user_directory?,
        rdn_identifier: rdn_identifier?,
        recursive: recursive?,
    })
}

fn ldap_address(value: &Value<'_>, report: &mut Report<'_>) -> Option<Box<str>> {
    let text = reader::string(value, "`ldap_address`", report)?;
    if let Err(reason) = check_ldap_address(text) {
        let message = format!("bad address \"{}\" for `ldap_address`: {reason}", clip(text));
        report.error(value.span(), message).help =
            Some("it is like \"ldap://host:389\" or \"ldaps://host:636\"".into());
        return None;
    }
    Some(text.into())
}

fn check_ldap_address(text: &str) -> Result<(), &'static str> {
    let Some(rest) = text.strip_prefix("ldap://").or_else(|| text.strip_prefix("ldaps://")) else {
        return Err("it begins with neither ldap:// nor ldaps://");
    };
    if rest.parse::<SocketAddr>().is_ok() || rest.parse::<Ipv4Addr>().is_ok() {
        return Ok(());
    }
    if let Some(v6) = rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return v6
            .parse::<Ipv6Addr>()
            .map(|_| ())
            .map_err(|_| "there is no IPv6 address between the brackets");
    }
    match rest.split_once(':') {
        None => host_name(rest).map(|_| ()),
        Some((host, port)) => match port.parse::<u16>() {
            Ok(1..) if port.bytes().all(|b| b.is_ascii_digit()) => host_name(host).map(|_| ()),
            _ => Err("its port is not from 1 to 65535"),
        },
    }
}

/// The distinguished name below which users are looked for.
fn user_directory(value: &Value<'_>, report: &mut Report<'_>) -> Option<Box<str>> {
    let text = reader::string(value, "`user_directory`", report)?;
    let is_pair = |part: &str| {
        part.split_once('=').is_some_and(|(k, v)| is_attribute(k.trim()) && !v.trim().is_empty())
    };
    if text.split(',').all(is_pair) {
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
