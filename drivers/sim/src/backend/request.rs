//! The head of a request as a backend gets it, against what its client has sent.

use std::net::SocketAddr;

use crate::chains::Chain;
use crate::choices;
use crate::coverage::Mark;
use crate::exchanges::ExchangeEntry;
use crate::fields::{self, Fate, Field, FieldList};
use crate::http1::{BodyFraming, ParsedHead};
use crate::http2::HTTP_2;
use crate::identities;
use crate::net::Net;
use crate::payload;
use crate::scenario::client_ip;
use crate::websockets;

/// Fields of a request that the proxy sets itself, those of the connection among them.
const OWN_FIELDS: &[&str] = &[
    "host",
    "connection",
    "upgrade",
    "sec-websocket-key",
    "te",
    "content-length",
    "transfer-encoding",
    "via",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-server",
    "x-real-ip",
    "x-request-id",
    "x-client-verify",
    "x-client-subject",
];

/// Whether the fields that tell of the client are what the proxy knows; a trusted peer's are kept, lists are
/// continued.
fn check_forwarding(head: &ParsedHead<'_>, entry: &ExchangeEntry, net: &mut Net) -> Result<(), String> {
    let ip = client_ip(entry.client).to_string();
    let port = net.accepted_at.get(&entry.client).map_or(0, SocketAddr::port).to_string();
    let trusted = net.scenario.is_trusted(entry.client);
    let tls = net.scenario.client_tls(entry.client);
    let secure = tls.is_some();
    let sent = fields::of_request(entry.id, entry.version);
    let theirs = |name: &str| {
        // Other spellings of such a name are dropped in any case.
        let same = |f: &&Field| f.name.eq_ignore_ascii_case(name);
        sent.iter().filter(|_| trusted).filter(same).map(|f| f.value.clone()).collect::<Vec<_>>()
    };
    if trusted && sent.iter().any(|f| f.fate == Fate::Forwarding) {
        net.mark(Mark::TrustedPeer);
    }
    let mut list = theirs("x-forwarded-for");
    list.push(ip.clone());
    let list = list.join(", ");
    let single = |name: &str, own: &str| theirs(name).pop().unwrap_or_else(|| own.to_owned());
    let want = [
        ("x-forwarded-for", list),
        // Behind a trusted proxy the client is the last one that it names.
        ("x-real-ip", single("x-real-ip", &theirs("x-forwarded-for").pop().unwrap_or(ip))),
        ("x-forwarded-proto", single("x-forwarded-proto", if secure { "https" } else { "http" })),
        ("x-forwarded-host", single("x-forwarded-host", entry.host)),
        ("x-forwarded-port", single("x-forwarded-port", &port)),
        ("x-forwarded-server", single("x-forwarded-server", "lb.test")),
    ];
    for (name, value) in want {
        if head.get(name)? != Some(value.as_str()) {
            return Err(format!("{name}: {:?}, not {value:?}", head.get(name)?));
        }
    }
    let asks = tls.as_ref().is_some_and(|tls| tls.asks);
    let forged = (trusted && !asks && net.scenario.forges(entry.id)).then_some("CN=forged");
    let subject = tls.as_ref().and_then(|tls| tls.side.subject.as_deref()).or(forged);
    let verify = asks.then(|| if subject.is_some() { "SUCCESS" } else { "NONE" });
    if (head.get("x-client-verify")?, head.get("x-client-subject")?) != (verify, subject) {
        return Err("the client's certificate".into());
    }
    if asks && subject.is_some() {
        net.mark(Mark::ClientCertificate);
    }
    let request_id = head.get("x-request-id")?.ok_or("no x-request-id")?;
    match theirs("x-request-id").pop() {
        Some(id) if id != request_id => Err(format!("x-request-id: {request_id}, not {id}")),
        None if request_id.len() < 16 || request_id.starts_with("forged") => {
            Err(format!("x-request-id: {request_id}"))
        }
        _ => Ok(()),
    }
}

/// What HTTP/2 has in several fields is one again (RFC 9113 §8.2.3).
fn join_cookies(fields: &mut FieldList) {
    let is_cookie = |(name, _): &(&str, String)| *name == "Cookie";
    let all: Vec<String> = fields.iter().filter(|f| is_cookie(f)).map(|(_, value)| value.clone()).collect();
    let Some(first) = fields.iter().position(is_cookie) else { return };
    let mut at = 0;
    fields.retain(|f| {
        at += 1;
        at - 1 == first || !is_cookie(f)
    });
    fields[first].1 = all.join("; ");
}

/// The values of all cookie fields as one.
fn joined_cookie(fields: &[(&str, &str)]) -> String {
    let all = fields.iter().filter(|(name, _)| *name == "cookie").map(|(_, value)| *value);
    all.collect::<Vec<_>>().join("; ")
}

/// These fields with all cookies in the place of the first (RFC 9113 §8.2.3).
fn with_one_cookie<'a>(fields: &[(&'a str, &'a str)], joined: &'a str) -> Vec<(&'a str, &'a str)> {
    let first = fields.iter().position(|(name, _)| *name == "cookie");
    let kept = fields.iter().enumerate().filter(|(at, (name, _))| *name != "cookie" || Some(*at) == first);
    kept.map(|(at, field)| if Some(at) == first { (field.0, joined) } else { *field }).collect()
}

/// Whether a head is what the proxy has to make of the client's request. `streams`: it has come over HTTP/2.
pub(super) fn check_request_head(
    head: &ParsedHead<'_>,
    entry: &ExchangeEntry,
    net: &mut Net,
    streams: bool,
) -> Result<(), String> {
    let lower = entry.version == HTTP_2 || streams;
    let target = Chain::of(&net.scenario, entry).target();
    if target != entry.target {
        net.mark(Mark::Rewritten);
    }
    let want = format!("{} {target} HTTP/1.1", entry.method);
    if head.start != want {
        return Err(format!("not {want:?}"));
    }
    if head.get("host")? != Some(entry.host) || !head.fields[0].0.eq_ignore_ascii_case("host") {
        return Err("Host".into());
    }
    check_forwarding(head, entry, net)?;
    let mut want = vec![("X-Sim", entry.id.to_string())];
    if entry.padding > 0 {
        want.push(("X-Pad", payload::padding(entry.id, entry.padding)));
    }
    want.extend((0..entry.fill).map(|nth| ("X-Fill", nth.to_string())));
    if let Some(value) = &entry.cookie {
        want.push(("Cookie", choices::cookie_field(value)));
    }
    let all = fields::of_request(entry.id, entry.version);
    let credentials = identities::of_request(entry.id, entry.authentication);
    let (asked, codes) = (net.scenario.authenticates(entry.pool), net.scenario.compresses(entry.pool));
    let of_middlewares = fields::for_middlewares(entry.id, asked, codes);
    let others = all.iter().filter(|f| !asked || f.name != "Authorization");
    let passes = others.chain(&credentials).chain(&of_middlewares).filter(|f| f.fate == Fate::Passes);
    want.extend(passes.map(|f| (f.name, f.value.clone())));
    if entry.expect {
        want.push(("Expect", "100-continue".into()));
    }
    if entry.websocket {
        want.push(("Sec-WebSocket-Version", "13".into()));
    }
    if lower {
        join_cookies(&mut want);
    }
    let te = head.get("te")?;
    if te.is_some_and(|te| te != "trailers") || (te.is_some() && !all.iter().any(|f| f.name == "TE")) {
        return Err(format!("TE: {te:?}"));
    }
    let chain = Chain::of(&net.scenario, entry);
    let joined = joined_cookie(&head.fields);
    let received = if streams { with_one_cookie(&head.fields, &joined) } else { head.fields.clone() };
    let difference = if chain.specs.is_empty() {
        fields::difference(&received, OWN_FIELDS, &want, lower)
    } else {
        chain.change_request(head, &mut want)?;
        fields::difference_in_any_order(&received, OWN_FIELDS, &want)
    };
    if let Some(difference) = difference {
        return Err(difference);
    }
    if head.get("via")?.is_some() {
        return Err("a Via that nobody asked for".into());
    }
    let framing = head.framing(BodyFraming::None)?;
    // A stream has an end of its own, and there is nothing to upgrade.
    let want =
        if streams && entry.framing == BodyFraming::Chunked { BodyFraming::None } else { entry.framing };
    if framing != want {
        return Err(format!("framed as {framing:?}, not {want:?}"));
    }
    if head.lists("connection", "upgrade") != (entry.upgrade && (!streams || entry.websocket)) {
        return Err("Connection".into());
    }
    check_websocket(head, entry, streams)
}

/// Whether a WebSocket is asked for as it has to be, and nothing else is.
fn check_websocket(head: &ParsedHead<'_>, entry: &ExchangeEntry, streams: bool) -> Result<(), String> {
    let protocol = match (entry.websocket, entry.upgrade && !streams) {
        (true, _) => Some(websockets::PROTOCOL),
        (false, upgrade) => upgrade.then_some("sim"),
    };
    if head.get("upgrade")? != protocol {
        return Err(format!("Upgrade: {:?}", head.get("upgrade")?));
    }
    let key = head.get("sec-websocket-key")?;
    let right = match key {
        None => !entry.websocket || streams,
        // Over HTTP/2 there is none: the proxy has made it up.
        Some(key) if entry.version == HTTP_2 => websockets::is_key(key) && entry.websocket && !streams,
        Some(key) => key == websockets::key(entry.id) && entry.websocket && !streams,
    };
    if right { Ok(()) } else { Err(format!("Sec-WebSocket-Key: {key:?}")) }
}
