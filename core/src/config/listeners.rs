//! `http_address`, `https_address` and `metrics_address`: where to listen.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use toml::de::DeValue;

use super::address;
use super::diagnostic::clip;
use super::model::{Listener, ListenerKind};
use super::reader::{self, Section};
use super::report::{Report, Span};

/// Where the admin listener is unless the file says otherwise.
const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// The listeners of a file.
pub(super) struct Listeners {
    /// In the order of [`Config::listeners`](super::model::Config::listeners).
    pub(super) all: Vec<Listener>,
    /// Plain HTTP is listened for.
    pub(super) http: bool,
    /// HTTPS is listened for.
    pub(super) https: bool,
}

/// Reads all listeners. Those of HTTPS are left out without a certificate, because no handshake could succeed
/// (`lint` warns of it).
pub(super) fn read(file: &Section<'_>, has_certificate: bool, report: &mut Report<'_>) -> Listeners {
    let http = addresses(file, "http_address", ListenerKind::Http, report);
    let https = addresses(file, "https_address", ListenerKind::Https, report);
    let keys = ["http_address", "https_address"];
    if keys.iter().all(|key| file.get(key).is_none() && !file.has_misspelt(key)) {
        let message = "there is nothing to listen on: neither `http_address` nor `https_address`";
        report.missing(0..0, message, "http_address = \"[::]:80\"");
    }
    let (has_http, has_https) = (!http.is_empty(), !https.is_empty() && has_certificate);
    let mut all: Vec<(Listener, Span)> = http.into_iter().chain(https).collect();
    let admin = admin(file, report);
    if let Admin::At(listener, span) = &admin {
        all.push((listener.clone(), span.clone()));
    }
    refuse_duplicates(&all, report);
    let default_admin = if matches!(admin, Admin::Default) { default_admin(&all, report) } else { None };
    let served = |l: &Listener| l.kind != ListenerKind::Https || has_certificate;
    let all = all.into_iter().map(|(l, _)| l).chain(default_admin).filter(served).collect();
    Listeners { all, http: has_http, https: has_https }
}

fn addresses(
    file: &Section<'_>,
    key: &str,
    kind: ListenerKind,
    report: &mut Report<'_>,
) -> Vec<(Listener, Span)> {
    let Some(value) = file.get(key) else { return Vec::new() };
    if value.get_ref().as_array().is_some_and(|items| items.is_empty()) {
        report.error(value.span(), format!("`{key}` is an empty list")).help =
            Some("leave the key out".into());
    }
    let what = format!("`{key}`");
    if let Some(port) = value.get_ref().as_integer().and_then(|n| n.as_str().parse::<u16>().ok()) {
        report.mistyped(value, &what, "a string or a list of strings").write(format!("\"[::]:{port}\""));
        return Vec::new();
    }
    let mut found = Vec::new();
    for (text, span) in reader::strings(value, &what, report) {
        if let Some(address) = address(text, key, &span, report) {
            found.push((Listener { address, kind, explicit: true }, span));
        }
    }
    found
}

fn address(text: &str, key: &str, span: &Span, report: &mut Report<'_>) -> Option<SocketAddr> {
    let usual_port = match key {
        "http_address" => 80,
        "https_address" => 443,
        _ => DEFAULT_ADMIN.port(),
    };
    match address::listener(text, usual_port) {
        Ok(address) => Some(address),
        Err(error) => {
            let message = format!("bad address \"{}\" for `{key}`: {error}", clip(text));
            error.explain(report.error(span.clone(), message));
            None
        }
    }
}

/// What the file says of the admin listener.
enum Admin {
    Default,
    /// Turned off, or with an error.
    Off,
    At(Listener, Span),
}

fn admin(file: &Section<'_>, report: &mut Report<'_>) -> Admin {
    let alias = "prometheus_metrics_address";
    let key = match (file.get("metrics_address"), file.get(alias)) {
        (Some(_), Some(_)) => {
            let message =
                "`prometheus_metrics_address` is another name of `metrics_address`: give one of them";
            report.error(file.key_span(alias), message);
            "metrics_address"
        }
        (None, Some(_)) => alias,
        _ => "metrics_address",
    };
    let Some(value) = file.get(key) else { return Admin::Default };
    match value.get_ref() {
        DeValue::Boolean(false) => Admin::Off,
        DeValue::String(text) if text.is_empty() => Admin::Off,
        DeValue::String(text) => match address(text, key, &value.span(), report) {
            Some(address) => {
                Admin::At(Listener { address, kind: ListenerKind::Admin, explicit: true }, value.span())
            }
            None => Admin::Off,
        },
        _ => {
            let error = report.mistyped(value, &format!("`{key}`"), "an address, or false for no page");
            if value.get_ref().as_bool().is_some() {
                error.write(format!("\"{DEFAULT_ADMIN}\""));
            }
            Admin::Off
        }
    }
}

/// Adds an error for each listener whose address an earlier one has. Port 0 is another port each time.
fn refuse_duplicates(all: &[(Listener, Span)], report: &mut Report<'_>) {
    let mut order: Vec<usize> = (0..all.len()).filter(|&i| all[i].0.address.port() != 0).collect();
    order.sort_by_key(|&i| (all[i].0.address, i));
    for pair in order.windows(2) {
        let ((first, _), (second, span)) = (&all[pair[0]], &all[pair[1]]);
        if first.address == second.address {
            report.error(span.clone(), format!("\"{}\" is already listened on", second.address));
        }
    }
}

/// The admin listener at its default address, unless another listener has that address: two listeners of one
/// process may share a port without an error, and each would then get some of the other's clients.
fn default_admin(all: &[(Listener, Span)], report: &mut Report<'_>) -> Option<Listener> {
    let clash = all.iter().find(|(l, _)| {
        let ip = l.address.ip().to_canonical();
        l.address.port() == DEFAULT_ADMIN.port() && (ip == DEFAULT_ADMIN.ip() || ip.is_unspecified())
    });
    if let Some((_, span)) = clash {
        let message =
            format!("no metrics page: its default address {DEFAULT_ADMIN} is taken by this listener");
        report.warning(span.clone(), message).help =
            Some("set `metrics_address` to another address, or to false".into());
        return None;
    }
    Some(Listener { address: DEFAULT_ADMIN, kind: ListenerKind::Admin, explicit: false })
}
