//! Heads of requests and responses, between the fields of HTTP/2 and the text of HTTP/1.1 that all checks are
//! written for.

use crate::codings;
use crate::exchanges::ExchangeEntry;
use crate::fields::{self, Fate};
use crate::http1::BodyFraming;
use crate::http2::{FieldPairs, check_regular};
use crate::identities;
use crate::net::Net;
use crate::websockets;

/// The head of a request as text. `Err`: it is none. `secure`: it came over TLS.
pub(super) fn request_text(fields: &FieldPairs, secure: bool) -> Result<Vec<u8>, String> {
    let pseudo = fields.iter().take_while(|(name, _)| name.starts_with(':')).count();
    let (pseudo, regular) = fields.split_at(pseudo);
    let one = |wanted: &str| {
        let mut found = pseudo.iter().filter(|(name, _)| name == wanted);
        match (found.next(), found.next()) {
            (Some((_, value)), None) => Ok(&**value),
            _ => Err(format!("{wanted} in {pseudo:?}")),
        }
    };
    let (method, scheme, path, host) = (one(":method")?, one(":scheme")?, one(":path")?, one(":authority")?);
    // RFC 8441 §4.
    let websocket = method == "CONNECT" && one(":protocol")? == websockets::PROTOCOL;
    if pseudo.len() != 4 + usize::from(websocket) {
        return Err(format!("pseudo-header fields {pseudo:?}"));
    }
    let method = if websocket { "GET" } else { method };
    if scheme != if secure { "https" } else { "http" } {
        return Err(format!("the scheme {scheme}"));
    }
    let te = |(name, value): &(String, String)| name == "te" && value == "trailers";
    let others: FieldPairs = regular.iter().filter(|field| !te(field)).cloned().collect();
    check_regular(&others)?;
    if others.iter().any(|(name, _)| name == "host") {
        return Err("Host beside :authority".into());
    }
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n");
    for (name, value) in regular {
        text.push_str(name);
        text.push_str(": ");
        text.push_str(value);
        text.push_str("\r\n");
    }
    if websocket {
        text.push_str("connection: upgrade\r\nupgrade: websocket\r\n");
    }
    text.push_str("\r\n");
    Ok(text.into_bytes())
}

/// A field whose name becomes what it has to be.
pub(super) fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_ascii_lowercase(), value.to_owned())
}

/// The fields of the final response to a request.
pub(super) fn response_fields(net: &Net, entry: &ExchangeEntry, backend: usize) -> FieldPairs {
    let (id, status) = (entry.id, entry.status);
    let mut all = vec![
        pair(":status", &status.to_string()),
        pair("x-sim", &id.to_string()),
        pair("x-backend", &backend.to_string()),
        pair("x-wire", "h2"),
    ];
    let challenge = identities::of_response(id, entry.authentication, status);
    let others = fields::of_response(id).into_iter().chain(challenge);
    // There are no fields of a connection (RFC 9113 §8.2.2).
    all.extend(others.filter(|f| f.fate == Fate::Passes).map(|f| pair(f.name, &f.value)));
    if let Some(media_type) = codings::media_type(id).filter(|_| net.scenario.compresses(entry.pool)) {
        all.push(pair("content-type", media_type));
    }
    if matches!(entry.response_framing, BodyFraming::Length(_)) && !matches!(status, 204 | 304) {
        all.push(pair("content-length", &entry.response_len.to_string()));
    }
    all
}

/// The fields of the response by which a WebSocket is there.
pub(super) fn switch_fields(id: u64, backend: usize) -> FieldPairs {
    vec![
        pair(":status", "200"),
        pair("x-sim", &id.to_string()),
        pair("x-backend", &backend.to_string()),
        pair("x-wire", "h2"),
    ]
}

/// Trailers as fields.
pub(super) fn trailer_fields(id: u64) -> FieldPairs {
    let split = |line: &String| {
        let (name, value) = line.split_once(": ").unwrap_or_default();
        pair(name, value)
    };
    fields::trailers(id).iter().map(split).collect()
}
