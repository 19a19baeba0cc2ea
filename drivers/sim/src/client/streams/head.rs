//! Heads of requests and responses, between the fields of HTTP/2 and the text of HTTP/1.1 that all checks
//! are written for.

use crate::http1::ParsedHead;
use crate::http2::{FieldPairs, OF_CONNECTION, check_regular, reason_phrase};
use crate::random::mix;
use crate::websockets;

/// The fields of a request with this head. The same for the same id.
pub(crate) fn request_fields(head: &[u8], id: u64, scheme: &str) -> FieldPairs {
    let head = ParsedHead::parse(head).expect("a head of a client");
    let mut words = head.start.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let host = head.get("host").ok().flatten().unwrap_or_default();
    let bits = mix(id ^ 0x41e1d);
    let mut fields = FieldPairs::new();
    let mut put = |name: &str, value: &str| fields.push((name.to_ascii_lowercase(), value.to_owned()));
    // RFC 8441 §4.
    let websocket = head.get("upgrade") == Ok(Some(websockets::PROTOCOL));
    if websocket {
        put(":method", "CONNECT");
        put(":protocol", websockets::PROTOCOL);
    } else {
        put(":method", method);
    }
    put(":scheme", scheme);
    // One of both is enough, and both may be there.
    if bits & 7 > 0 || websocket {
        put(":authority", host);
    }
    put(":path", target);
    if bits & 7 < 2 {
        put("host", host);
    }
    for (name, value) in &head.fields {
        let lower = name.to_ascii_lowercase();
        match lower.as_str() {
            "host" => {}
            // Some send one all the same, which passes neither way.
            "sec-websocket-key" if bits & 0x60 > 0 => {}
            _ if OF_CONNECTION.contains(&&*lower) => {}
            "te" => put(&lower, "trailers"),
            "cookie" if bits & 0x10 > 0 => value.split("; ").for_each(|crumb| put(&lower, crumb)),
            _ => put(&lower, value),
        }
    }
    fields
}

/// What a field section counts (RFC 9113 §6.5.2).
pub(crate) fn section_bytes(fields: &FieldPairs) -> u64 {
    fields.iter().map(|(name, value)| (name.len() + value.len() + 32) as u64).sum()
}

/// The head of a response as text, and its status. `Err`: it is none.
pub(super) fn response_text(fields: &FieldPairs) -> Result<(u16, Vec<u8>), String> {
    let mut pseudo = fields.iter().take_while(|(name, _)| name.starts_with(':'));
    let (Some((name, status)), None) = (pseudo.next(), pseudo.next()) else {
        return Err(format!("pseudo-header fields {fields:?}"));
    };
    let status = status.parse::<u16>().ok().filter(|_| name == ":status" && status.len() == 3);
    let status = status.filter(|status| *status != 101).ok_or_else(|| format!("the status {fields:?}"))?;
    check_regular(&fields[1..])?;
    let by_backend = fields.iter().any(|(name, _)| name == "x-sim");
    let reason = if by_backend { "X" } else { reason_phrase(status) };
    let mut text = format!("HTTP/1.1 {status} {reason}\r\n");
    for (name, value) in &fields[1..] {
        text.push_str(name);
        text.push_str(": ");
        text.push_str(value);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    Ok((status, text.into_bytes()))
}
