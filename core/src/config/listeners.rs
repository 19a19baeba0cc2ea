//! `http_address`, `https_address`, `metrics_address` and `[[listeners]]`: where to listen.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use toml::de::DeValue;

use super::address;
use super::diagnostic::clip;
use super::model::{Listener, ListenerKind};
use super::reader::{self, Section};
use super::report::{Report, Span, Value};

/// Where the admin listener is unless the file says otherwise.
const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// Most listeners of a file.
const MAX_LISTENERS: usize = 1024;
const KEYS: &[&str] = &["name", "address", "kind"];
const KINDS: &[(&str, ListenerKind)] =
    &[("http", ListenerKind::Http), ("https", ListenerKind::Https), ("admin", ListenerKind::Admin)];

/// What each name of a listener stands for.
type Names = BTreeMap<Box<str>, ListenerKind>;

/// The listeners of a file.
pub(super) struct Listeners {
    /// In the order of [`Config::listeners`](super::model::Config::listeners).
    pub(super) all: Vec<Listener>,
    /// What each name stands for, those that are not in `all` among them.
    pub(super) names: Names,
    /// Where the file says to listen for HTTPS.
    pub(super) https: Option<Span>,
}

/// Reads all listeners. Those of HTTPS are left out without a certificate, because no handshake could succeed
/// (`lint` warns of it).
pub(super) fn read(file: &Section<'_>, has_certificate: bool, report: &mut Report<'_>) -> Listeners {
    let mut all = addresses(file, "http_address", ListenerKind::Http, report);
    all.extend(addresses(file, "https_address", ListenerKind::Https, report));
    let (named, mut names) = named(file, report);
    let keys = ["http_address", "https_address", "listeners"];
    let only_admin = named.iter().all(|(l, _)| l.kind == ListenerKind::Admin);
    if keys[..2].iter().all(|key| file.get(key).is_none() && !file.has_misspelt(key))
        && (file.get(keys[2]).is_none() || (only_admin && !named.is_empty()))
        && !file.has_misspelt(keys[2])
    {
        let message = "there is nothing to listen on: neither `http_address` nor `https_address`";
        report.missing(0..0, message, "http_address = \"[::]:80\"");
    }
    all.extend(named);
    let has_admin = all.iter().any(|(l, _)| l.kind == ListenerKind::Admin);
    let admin = admin(file, report);
    if let Admin::At(listener, span) = &admin {
        all.push((listener.clone(), span.clone()));
    }
    refuse_duplicates(&all, report);
    if all.len() > MAX_LISTENERS {
        report.error(0..0, format!("there are more than {MAX_LISTENERS} listeners"));
    }
    let by_default = matches!(admin, Admin::Default) && !has_admin;
    let default_admin = if by_default { default_admin(&all, report) } else { None };
    let https = all.iter().find(|(l, _)| l.kind == ListenerKind::Https).map(|(_, span)| span.clone());
    let served = |l: &Listener| l.kind != ListenerKind::Https || has_certificate;
    let all: Vec<Listener> = all.into_iter().map(|(l, _)| l).chain(default_admin).collect();
    names.extend(all.iter().map(|l| (l.name.clone(), l.kind)));
    Listeners { all: all.into_iter().filter(served).collect(), names, https }
}

/// A listener of a key of the file's top, whose name is that of its kind.
fn listener(address: SocketAddr, kind: ListenerKind, explicit: bool) -> Listener {
    Listener { name: kind.name().into(), address, kind, explicit }
}

fn addresses(
    file: &Section<'_>,
    key: &str,
    kind: ListenerKind,
    report: &mut Report<'_>,
) -> Vec<(Listener, Span)> {
    let Some(value) = file.get(key) else { return Vec::new() };
    let found = list_of_addresses(value, key, kind, report).into_iter();
    found.map(|(address, span)| (listener(address, kind, true), span)).collect()
}

/// One address or a list of them.
fn list_of_addresses(
    value: &Value<'_>,
    key: &str,
    kind: ListenerKind,
    report: &mut Report<'_>,
) -> Vec<(SocketAddr, Span)> {
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
        if let Some(address) = address(text, key, kind, &span, report) {
            found.push((address, span));
        }
    }
    found
}

fn address(
    text: &str,
    key: &str,
    kind: ListenerKind,
    span: &Span,
    report: &mut Report<'_>,
) -> Option<SocketAddr> {
    let usual_port = match kind {
        ListenerKind::Http => 80,
        ListenerKind::Https => 443,
        ListenerKind::Admin => DEFAULT_ADMIN.port(),
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

/// `[[listeners]]`, each with a name of its own; and the kinds by name.
fn named(file: &Section<'_>, report: &mut Report<'_>) -> (Vec<(Listener, Span)>, Names) {
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    let mut kinds = BTreeMap::new();
    let mut found = Vec::new();
    for (index, item) in reader::tables(file, "listeners", report).iter().enumerate() {
        let Some(section) = Section::new(item, "a listener", KEYS, report) else { continue };
        let name = section
            .required("name", "\"internal\"", report)
            .and_then(|v| Some((reader::label(v, "`name`", report)?, v.span())));
        let kind = section.one_of("kind", "kind", KINDS, ListenerKind::Http, report);
        let addresses = section
            .required("address", "\"127.0.0.1:8080\"", report)
            .map(|value| list_of_addresses(value, "address", kind, report));
        let Some((name, span)) = name else { continue };
        if let Some((of, _)) = KINDS.iter().find(|(of, _)| *of == name) {
            let key = if *of == "admin" { "metrics_address".to_owned() } else { format!("{of}_address") };
            report.error(span, format!("\"{of}\" is the name of the listeners of `{key}`")).help =
                Some("give it another name".into());
        } else if let Some(first) = names.insert(name, index) {
            let message = format!("listener {} is already named \"{}\"", first + 1, clip(name));
            report.error(span, message);
        }
        // A listener whose address has an error is known all the same.
        kinds.insert(Box::<str>::from(name), kind);
        found.extend(
            addresses
                .unwrap_or_default()
                .into_iter()
                .map(|(address, span)| (Listener { name: name.into(), address, kind, explicit: true }, span)),
        );
    }
    (found, kinds)
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
        DeValue::String(text) => match address(text, key, ListenerKind::Admin, &value.span(), report) {
            Some(address) => Admin::At(listener(address, ListenerKind::Admin, true), value.span()),
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
    Some(listener(DEFAULT_ADMIN, ListenerKind::Admin, false))
}

/// `listeners` of a pool: places in `all` of the listeners with these names. `schemes` is whether the pool
/// takes requests over HTTP, and over HTTPS. `None` if any has an error.
pub(super) fn of_pool(
    value: &Value<'_>,
    (http, https): (bool, bool),
    listeners: &Listeners,
    report: &mut Report<'_>,
) -> Option<Vec<u16>> {
    if value.get_ref().as_array().is_some_and(|items| items.is_empty()) {
        report.error(value.span(), "`listeners` is an empty list").help =
            Some("leave it out to take requests from every listener".into());
        return None;
    }
    let texts = reader::strings(value, "`listeners`", report);
    let mut valid =
        value.get_ref().as_array().is_none_or(|items| items.len() == texts.len()) && !texts.is_empty();
    let usable: Vec<&str> =
        listeners.names.iter().filter(|(_, k)| **k != ListenerKind::Admin).map(|(n, _)| &**n).collect();
    let mut chosen = Vec::new();
    for (name, span) in texts {
        let problem = match listeners.names.get(name) {
            None => {
                let error = report.error(span, format!("there is no listener \"{}\"", clip(name)));
                reader::suggest_name(error, name, &usable);
                valid = false;
                continue;
            }
            Some(ListenerKind::Admin) => "an admin listener, which no pool takes requests from",
            Some(ListenerKind::Http) if !http => "for plain HTTP, but this pool takes only HTTPS",
            Some(ListenerKind::Https) if !https => "for HTTPS, but this pool takes only plain HTTP",
            Some(_) => {
                chosen.push(name);
                continue;
            }
        };
        report.error(span, format!("listener \"{}\" is {problem}", clip(name)));
        valid = false;
    }
    let places = (0..=u16::MAX).zip(&listeners.all).filter(|(_, l)| chosen.contains(&&*l.name));
    valid.then(|| places.map(|(place, _)| place).collect())
}
