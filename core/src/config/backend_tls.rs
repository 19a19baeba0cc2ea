//! `[backend_pools.tls]`: how TLS is spoken to the `https://` backends of a pool.

use std::net::IpAddr;
use std::sync::Arc;

use toml::de::DeValue;

use super::address::host_name;
use super::diagnostic::clip;
use super::literal::quote;
use super::model::Backend;
use super::reader::{self, Section};
use super::report::{BackendTlsPlaces, Report, Span, Value};
use super::suggest;
use super::tls_target::{Alpn, BackendTls, ClientCertificate, TlsName};

const KEYS: &[&str] = &["ca_file", "server_name", "verify", "client_certificate", "client_key", "alpn"];

/// Settings, and where the file has them.
#[derive(Default)]
pub(super) struct LocatedTls {
    pub(super) settings: Arc<BackendTls>,
    /// The table, if there is one.
    table: Option<Span>,
    verify: Option<Span>,
    ca_file: Option<Span>,
    client_certificate: Option<Span>,
    client_key: Option<Span>,
}

/// The settings of a pool; the defaults without a table.
pub(super) fn read(pool: &Section<'_>, report: &mut Report<'_>) -> LocatedTls {
    let Some(value) = pool.get("tls") else { return LocatedTls::default() };
    if matches!(value.get_ref(), DeValue::Boolean(_)) {
        report.mistyped(value, "`tls`", "a table").help =
            Some("TLS is spoken to backends whose address begins with https://".into());
        return LocatedTls::default();
    }
    let Some(s) = Section::new(value, "`tls`", KEYS, report) else { return LocatedTls::default() };
    let ca_file = path(&s, "ca_file", report);
    let server_name = s.get("server_name").and_then(|value| server_name(value, report));
    let verify = s.boolean("verify", true, report);
    let certificate = path(&s, "client_certificate", report);
    let key = path(&s, "client_key", report);
    // One without the other is of no use.
    match (s.get("client_certificate"), s.get("client_key")) {
        (Some(_), None) => _ = s.required("client_key", "\"certs/client.key\"", report),
        (None, Some(_)) => _ = s.required("client_certificate", "\"certs/client.crt\"", report),
        _ => {}
    }
    let client = certificate.zip(key).map(|(certificate, key)| ClientCertificate { certificate, key });
    let alpn = s.get("alpn").and_then(|value| alpn(value, report)).unwrap_or_default();
    let span = |key| s.get(key).map(Value::span);
    LocatedTls {
        settings: Arc::new(BackendTls { ca_file, server_name, verify, client, alpn }),
        table: Some(s.span.clone()),
        verify: span("verify"),
        ca_file: span("ca_file"),
        client_certificate: span("client_certificate"),
        client_key: span("client_key"),
    }
}

/// Warns of settings that do nothing or too much for `backends`, and says where the machine has to be looked
/// at. `addresses`: where those are written.
pub(super) fn check(
    tls: LocatedTls,
    pool: &str,
    backends: &[Backend],
    addresses: &Span,
    report: &mut Report<'_>,
) {
    let used = backends.iter().any(|backend| backend.protocol.tls().is_some());
    if let Some(table) = tls.table.filter(|_| !used && !backends.is_empty()) {
        let message = format!("`tls` does nothing: no backend of pool \"{}\" has https://", clip(pool));
        report.warning(table, message).help =
            Some("an address like \"https://10.0.0.1:8443\" is spoken to over TLS".into());
        return;
    }
    if let Some(verify) = tls.verify.filter(|_| !tls.settings.verify) {
        let message = "certificates are not verified: whoever can get between here and these backends can \
                       read and change everything";
        report.warning(verify, message).help =
            Some("set `ca_file` to the authority of their certificates instead".into());
        if let Some(ca_file) = &tls.ca_file {
            report.warning(ca_file.clone(), "`ca_file` does nothing with `verify = false`");
        }
    }
    if used {
        report.places.backend_tls.push(BackendTlsPlaces {
            pool: pool.into(),
            addresses: addresses.clone(),
            ca_file: tls.ca_file,
            client_certificate: tls.client_certificate,
            client_key: tls.client_key,
        });
    }
}

fn path(s: &Section<'_>, key: &str, report: &mut Report<'_>) -> Option<Box<str>> {
    reader::non_empty_string(s.get(key)?, &format!("`{key}`"), report).map(Into::into)
}

/// What is offered to be spoken, the first one preferred.
fn alpn(value: &Value<'_>, report: &mut Report<'_>) -> Option<Alpn> {
    const NAMES: [(&str, bool); 2] = [("h2", true), ("http/1.1", false)];
    let DeValue::Array(items) = value.get_ref() else {
        let error = report.mistyped(value, "`alpn`", "a list like [\"h2\", \"http/1.1\"]");
        if let Some(name) = value.get_ref().as_str().filter(|text| NAMES.iter().any(|(name, _)| name == text))
        {
            error.write(format!("[{}]", quote(name)));
        }
        return None;
    };
    if items.is_empty() {
        report.error(value.span(), "`alpn` is an empty list").help =
            Some("leave it out for both \"h2\" and \"http/1.1\"".into());
        return None;
    }
    let mut listed = Vec::new();
    let mut valid = true;
    for item in items {
        match reader::one_of(item, "protocol", &NAMES, report) {
            Some(http2) if listed.contains(&http2) => {
                report.error(
                    item.span(),
                    format!("\"{}\" is already in this list", NAMES[usize::from(!http2)].0),
                );
                valid = false;
            }
            Some(http2) => listed.push(http2),
            None => valid = false,
        }
    }
    let read = match listed[..] {
        [true] => Alpn::Http2,
        [false] => Alpn::Http1,
        [false, _] => Alpn::Http1First,
        _ => Alpn::Http2First,
    };
    valid.then_some(read)
}

/// The one name that certificates have to be for.
fn server_name(value: &Value<'_>, report: &mut Report<'_>) -> Option<TlsName> {
    let text = reader::string(value, "`server_name`", report)?;
    match parse_name(text) {
        Ok(name) => Some(name),
        Err(reason) => {
            let message = format!("bad `server_name` \"{}\": {reason}", clip(text));
            let error = report.error(value.span(), message);
            if suggest::is_variable(text) {
                error.help = Some(suggest::VARIABLES.into());
            } else if let Some(meant) = meant_name(text) {
                error.write(quote(meant));
            }
            None
        }
    }
}

fn parse_name(text: &str) -> Result<TlsName, &'static str> {
    if text.starts_with("*.") {
        return Err("it has to be one name; the certificate may have a wildcard that covers it");
    }
    if text.contains("://") {
        return Err("it has a scheme");
    }
    match text.parse::<IpAddr>() {
        Ok(ip) => Ok(TlsName::Ip(ip.to_canonical())),
        Err(_) if text.rsplit_once(':').is_some_and(|(host, _)| parse_name(host).is_ok()) => {
            Err("it has no port")
        }
        Err(_) => host_name(text).map(|host| TlsName::of_host(&host)),
    }
}

/// The name in a URL or an address that was written instead.
fn meant_name(text: &str) -> Option<&str> {
    let text = text.split_once("://").map_or(text, |(_, rest)| rest);
    let text = text.split('/').next().unwrap_or_default().trim();
    let host = text.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
    let bare = |text: &'_ str| -> bool { parse_name(text).is_ok() };
    [Some(text), host.map(|(host, _)| host)]
        .into_iter()
        .flatten()
        .map(|text| text.trim_start_matches('[').trim_end_matches(']'))
        .find(|text| bare(text))
}
