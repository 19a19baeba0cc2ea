//! What a health check asks for: `method`, `host`, `port` and `headers`.

use std::net::IpAddr;

use crate::config::address::{AddressError, host_name, split_port};
use crate::config::diagnostic::clip;
use crate::config::model::{Address, Backend, CheckMethod};
use crate::config::reader::{self, Section};
use crate::config::report::{Report, Value};
use crate::config::suggest;
use crate::http::fields::is_token;

/// Most fields of `headers`.
const MAX_FIELDS: usize = 32;
/// Bytes of `headers` in all: with the longest path they fit into one page.
const MAX_FIELD_BYTES: usize = 8192;

/// Fields that a check has by itself, or can't have.
const OWN_FIELDS: &[&str] = &[
    "connection",
    "content-length",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "keep-alive",
    "proxy-connection",
];

pub(super) fn method(section: &Section<'_>, report: &mut Report<'_>) -> CheckMethod {
    let methods = [CheckMethod::Get, CheckMethod::Head, CheckMethod::Options].map(|m| (m.name(), m));
    section.one_of("method", "method of a health check", &methods, CheckMethod::Get, report)
}

/// The port that is checked, of backends that have one.
pub(super) fn port(section: &Section<'_>, backends: &[Backend], report: &mut Report<'_>) -> Option<u16> {
    let value = section.get("port")?;
    if let Some(backend) = backends.iter().find(|b| matches!(b.address, Address::Unix(_))) {
        let message = format!("\"{}\" has no port that could be checked", clip(&backend.label));
        report.error(value.span(), message).help = Some(
            "a backend at a Unix socket is checked there: put those with a port into another pool".into(),
        );
        return None;
    }
    u16::try_from(reader::integer(value, "`port`", 1..=65_535, report)?).ok()
}

/// `host` or `host:port` (RFC 9110 §7.2).
pub(super) fn host(value: &Value<'_>, report: &mut Report<'_>) -> Option<Box<str>> {
    let text = reader::string(value, "`host`", report)?;
    let Err(error) = check_host(text) else { return Some(text.into()) };
    let error = error.settle(&|text| check_host(text).err());
    let message = format!("bad `host` \"{}\": {error}", clip(text));
    error.explain(report.error(value.span(), message));
    None
}

fn check_host(text: &str) -> Result<(), AddressError> {
    if suggest::is_variable(text) {
        return Err(AddressError::variables());
    }
    if let Some((_, rest)) = text.split_once("://") {
        return Err(AddressError::new("it has a scheme").or(rest.split('/').next().unwrap_or_default()));
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        let error = || AddressError::new("an IPv6 address stands in brackets").or(format!("[{text}]"));
        return if ip.is_ipv4() { Ok(()) } else { Err(error()) };
    }
    let host = if text.contains(':') && !text.ends_with(']') { split_port(text, 80)?.0 } else { text };
    let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match literal {
        Some(ip) if ip.parse::<std::net::Ipv6Addr>().is_ok() => Ok(()),
        Some(_) => Err(AddressError::new("there is no IPv6 address between the brackets")),
        None => host_name(host).map(|_| ()).map_err(AddressError::new),
    }
}

/// Fields with their values; those that are good, if any is not.
pub(super) fn headers(value: &Value<'_>, report: &mut Report<'_>) -> Vec<(Box<str>, Box<str>)> {
    let Some(section) = Section::with_any_keys(value, "`headers`", report) else { return Vec::new() };
    let mut found: Vec<(Box<str>, Box<str>)> = Vec::new();
    for (key, value) in section.entries() {
        let name = key.get_ref().as_ref();
        if let Err((reason, help)) = check_name(name) {
            report.error(key.span(), reason).help = Some(help);
            continue;
        }
        let Some(text) = reader::string(value, &format!("the value of `{name}`"), report) else { continue };
        let visible = |b: u8| b == b'\t' || (b' '..=b'~').contains(&b) || b >= 0x80;
        if !text.bytes().all(visible) || text.trim_matches([' ', '\t']) != text {
            let message = format!("the value of `{name}` is not the value of a field");
            report.error(value.span(), message).help = Some("it is one line without blanks around it".into());
            continue;
        }
        found.push((name.into(), text.into()));
    }
    let bytes: usize = found.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    if found.len() > MAX_FIELDS || bytes > MAX_FIELD_BYTES {
        let message = format!("`headers` must have at most {MAX_FIELDS} fields and {MAX_FIELD_BYTES} bytes");
        report.error(section.span.clone(), message);
    }
    found
}

/// Otherwise why not, and what to do.
fn check_name(name: &str) -> Result<(), (String, String)> {
    let lower = name.to_ascii_lowercase();
    if lower == "host" {
        return Err((
            "`Host` is not among the `headers`".into(),
            "the key `host` beside them is for it".into(),
        ));
    }
    if OWN_FIELDS.contains(&&*lower) {
        let reason = format!("a health check can't have the field `{name}`");
        return Err((reason, "it has no content, and one connection for itself".into()));
    }
    if !is_token(name.as_bytes()) {
        let reason = format!("\"{}\" is not the name of a field", clip(name));
        return Err((reason, "use letters, digits and `-`".into()));
    }
    Ok(())
}
