//! The rules for heads once more, written from the RFCs the long way round: whole lines, copied pieces, no
//! state. Nothing here is shared with the parser that it judges.

use ruststrom_core::h1::{HeadLimits, ResponseContext};
use ruststrom_core::http::Framing;

/// A request as the rules have it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: Vec<u8>,
    pub(super) path: Vec<u8>,
    pub(super) query: Option<Vec<u8>>,
    pub(super) host: Vec<u8>,
    pub(super) version: u8,
    pub(super) fields: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) framing: Framing,
    pub(super) keep_alive: bool,
    pub(super) expect: bool,
    pub(super) upgrade: Option<Vec<u8>>,
}

/// A response as the rules have it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) reason: Vec<u8>,
    pub(super) version: u8,
    pub(super) fields: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) framing: Framing,
    pub(super) keep_alive: bool,
    pub(super) upgrade: Option<Vec<u8>>,
}

fn is_tchar(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&b| is_tchar(b))
}

/// Where the head at the front of `bytes` ends: past its first empty line that is not before it.
pub(super) fn end(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while bytes[at..].starts_with(b"\r\n") {
        at += 2;
    }
    bytes[at..].windows(4).position(|w| w == b"\r\n\r\n").map(|found| at + found + 4)
}

/// Lines without their ends; `None` if any CR or LF is not half of a CRLF, or the last line does not end.
fn lines(head: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (mut lines, mut line, mut at) = (Vec::new(), Vec::new(), 0);
    while at < head.len() {
        match (head[at], head.get(at + 1)) {
            (b'\r', Some(b'\n')) => {
                lines.push(std::mem::take(&mut line));
                at += 2;
            }
            (b'\r' | b'\n', _) => return None,
            (b, _) => {
                line.push(b);
                at += 1;
            }
        }
    }
    if line.is_empty() { Some(lines) } else { None }
}

fn blank(b: u8) -> bool {
    b == b' ' || b == b'\t'
}

fn trimmed(text: &[u8]) -> Vec<u8> {
    let from = text.iter().position(|&b| !blank(b)).unwrap_or(text.len());
    let to = text.iter().rposition(|&b| !blank(b)).map_or(from, |at| at + 1);
    text[from..to].to_vec()
}

/// Field lines; `loose`: blanks may stand before the colon.
fn fields(lines: &[Vec<u8>], most: usize, loose: bool) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    if lines.len() > most {
        return None;
    }
    let field = |line: &Vec<u8>| {
        let colon = line.iter().position(|&b| b == b':')?;
        let mut name = line[..colon].to_vec();
        while loose && name.last().is_some_and(|&b| blank(b)) {
            name.pop();
        }
        let value = trimmed(&line[colon + 1..]);
        let good = value.iter().all(|&b| b == b'\t' || b >= 0x20 && b != 0x7f);
        (is_token(&name) && good).then_some((name, value))
    };
    lines.iter().map(field).collect()
}

/// The members of a list-valued field, over all its lines, in lower case.
fn members(fields: &[(Vec<u8>, Vec<u8>)], name: &str) -> Vec<Vec<u8>> {
    let values = fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes()));
    let members = values.flat_map(|(_, v)| v.split(|&b| b == b',').map(trimmed).collect::<Vec<_>>());
    members.filter(|m| !m.is_empty()).map(|m| m.to_ascii_lowercase()).collect()
}

fn values<'f>(fields: &'f [(Vec<u8>, Vec<u8>)], name: &str) -> Vec<&'f Vec<u8>> {
    fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, v)| v).collect()
}

/// The framing that the fields declare: `Err` if it is refused, `Ok(None)` if they declare none.
fn declared(fields: &[(Vec<u8>, Vec<u8>)], version: u8) -> Result<Option<Framing>, ()> {
    let lengths = values(fields, "content-length");
    if !values(fields, "transfer-encoding").is_empty() {
        let only_chunked = members(fields, "transfer-encoding") == [b"chunked".to_vec()];
        return if version == 11 && lengths.is_empty() && only_chunked {
            Ok(Some(Framing::Chunked))
        } else {
            Err(())
        };
    }
    match lengths[..] {
        [] => Ok(None),
        [one] => {
            let digits = std::str::from_utf8(one).map_err(|_| ())?;
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(());
            }
            let bare = digits.trim_start_matches('0');
            let n = if bare.is_empty() { 0 } else { bare.parse::<u128>().map_err(|_| ())? };
            if n < 1 << 63 { Ok(Some(Framing::Length(n as u64))) } else { Err(()) }
        }
        _ => Err(()),
    }
}

fn keeps_alive(fields: &[(Vec<u8>, Vec<u8>)], version: u8) -> bool {
    let options = members(fields, "connection");
    let says = |what: &str| options.iter().any(|o| o == what.as_bytes());
    !says("close") && (version == 11 || says("keep-alive"))
}

fn upgrade(fields: &[(Vec<u8>, Vec<u8>)]) -> Option<Vec<u8>> {
    let said = members(fields, "connection").iter().any(|o| o == b"upgrade");
    match values(fields, "upgrade")[..] {
        [one] if said && !members(fields, "upgrade").is_empty() => Some(one.clone()),
        _ => None,
    }
}

/// More field names in `Connection` than anyone needs.
fn too_many_options(fields: &[(Vec<u8>, Vec<u8>)]) -> bool {
    let known = ["close", "keep-alive", "upgrade", "te"];
    members(fields, "connection").iter().filter(|o| !known.iter().any(|k| *o == k.as_bytes())).count() > 32
}

fn version(text: &[u8]) -> Option<u8> {
    match text {
        b"HTTP/1.1" => Some(11),
        b"HTTP/1.0" => Some(10),
        _ => None,
    }
}

/// A whole head of a request; `None` if a rule is broken.
pub(super) fn request(head: &[u8], limits: &HeadLimits) -> Option<Request> {
    if head.len() > limits.head_bytes || end(head) != Some(head.len()) {
        return None;
    }
    let mut lines = lines(head)?;
    let empty = lines.iter().take_while(|l| l.is_empty()).count();
    if empty > 4 {
        return None;
    }
    lines.drain(..empty);
    // The empty line at the end.
    lines.pop();
    let line: Vec<&[u8]> = lines.first()?.split(|&b| b == b' ').collect();
    let [method, raw, v] = line[..] else { return None };
    let version = version(v)?;
    if !is_token(method) || raw.len() > limits.target_bytes {
        return None;
    }
    let fields = fields(&lines[1..], limits.fields, false)?;
    let (path, query, authority) = target(method, raw)?;
    let hosts = values(&fields, "host");
    let host = match (&hosts[..], authority) {
        ([one], authority) if is_host(one) => authority.unwrap_or_else(|| one.to_vec()),
        ([], authority) if version == 10 => authority.unwrap_or_default(),
        _ => return None,
    };
    let framing = declared(&fields, version).ok()?.unwrap_or(Framing::None);
    let expectations = members(&fields, "expect");
    let has_content = !matches!(framing, Framing::None | Framing::Length(0));
    let refused = too_many_options(&fields)
        || method == b"TRACE" && has_content
        || version == 11 && expectations.iter().any(|e| e != b"100-continue");
    if refused {
        return None;
    }
    let past_us = |protocols: &Vec<u8>| {
        let name =
            |p: &[u8]| trimmed(p.split(|&b| b == b'/').next().unwrap_or_default()).to_ascii_lowercase();
        let names: Vec<Vec<u8>> = protocols.split(|&b| b == b',').map(name).collect();
        ["h2c", "h2", "h3", "http", "https", "tls", "ssl"]
            .iter()
            .any(|bad| names.iter().any(|n| n == bad.as_bytes()))
    };
    Some(Request {
        method: method.to_vec(),
        path,
        query,
        host,
        version,
        framing,
        keep_alive: keeps_alive(&fields, version),
        expect: version == 11 && has_content && !expectations.is_empty(),
        upgrade: upgrade(&fields).filter(|u| version == 11 && !past_us(u)),
        fields,
    })
}

type TargetParts = (Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>);

fn target(method: &[u8], raw: &[u8]) -> Option<TargetParts> {
    if method == b"CONNECT" || !raw.iter().all(|b| (0x21..0x7f).contains(b)) || raw.is_empty() {
        return None;
    }
    if raw == b"*" {
        return (method == b"OPTIONS").then(|| (b"*".to_vec(), None, None));
    }
    let lower = raw.to_ascii_lowercase();
    let (authority, rest) = if raw[0] == b'/' {
        (None, raw)
    } else {
        let after = if lower.starts_with(b"http://") { 7 } else { 8 };
        if after == 8 && !lower.starts_with(b"https://") {
            return None;
        }
        let rest = &raw[after..];
        let at = rest.iter().position(|b| b"/?#".contains(b)).unwrap_or(rest.len());
        (Some(rest[..at].to_vec()), &rest[at..])
    };
    if authority.as_ref().is_some_and(|a| !is_host(a)) || rest.contains(&b'#') {
        return None;
    }
    if authority.is_some() && rest.is_empty() && method == b"OPTIONS" {
        return Some((b"*".to_vec(), None, authority));
    }
    let mark = rest.iter().position(|&b| b == b'?');
    let query = mark.map(|at| rest[at + 1..].to_vec());
    Some((path(&rest[..mark.unwrap_or(rest.len())])?, query, authority))
}

/// RFC 3986 §6.2.2, and what a backend must not be led to.
fn path(raw: &[u8]) -> Option<Vec<u8>> {
    if raw.contains(&b'\\') {
        return None;
    }
    let mut plain = String::new();
    let mut at = 0;
    while at < raw.len() {
        if raw[at] != b'%' {
            plain.push(raw[at] as char);
            at += 1;
            continue;
        }
        let digits = std::str::from_utf8(raw.get(at + 1..at + 3)?).ok()?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let byte = u8::from_str_radix(digits, 16).ok()?;
        match byte {
            0 => return None,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => plain.push(byte as char),
            _ => plain += &format!("%{byte:02X}"),
        }
        at += 3;
    }
    let segments: Vec<&str> = plain.strip_prefix('/').unwrap_or(&plain).split('/').collect();
    let mut kept: Vec<&str> = Vec::new();
    for (n, segment) in segments.iter().enumerate() {
        let dots = matches!(*segment, "." | "..");
        if *segment == ".." {
            kept.pop()?;
        }
        if !dots {
            let hidden = segment.replace("%5C", "%2F");
            if hidden.contains("%2F") && hidden.split("%2F").any(|s| s == "." || s == "..") {
                return None;
            }
            kept.push(segment);
        } else if n + 1 == segments.len() {
            kept.push("");
        }
    }
    Some(format!("/{}", kept.join("/")).into_bytes())
}

/// `uri-host [ ":" port ]`, the host not empty.
fn is_host(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((v6, after)) if is_v6(v6) => ("v6", after),
            _ => return false,
        },
        None => match text.find(':') {
            Some(at) => text.split_at(at),
            None => (text, ""),
        },
    };
    let good_port = match port.strip_prefix(':') {
        None => port.is_empty(),
        Some(digits) => {
            digits.len() <= 5
                && digits.bytes().all(|b| b.is_ascii_digit())
                && digits.parse::<u32>().unwrap_or(0) <= 65_535
        }
    };
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        if c == '%' {
            match rest.get(1..3) {
                Some(hex) if hex != "00" && hex.bytes().all(|b| b.is_ascii_hexdigit()) => rest = &rest[3..],
                _ => return false,
            }
        } else if c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=".contains(c) {
            rest = &rest[1..];
        } else {
            return false;
        }
    }
    good_port && !name.is_empty()
}

/// RFC 3986 §3.2.2 `IPv6address`: eight groups, or fewer with one `::`; the last two may be an IPv4 address.
fn is_v6(text: &str) -> bool {
    let groups = |text: &str, v4_may_end: bool| -> Option<usize> {
        if text.is_empty() {
            return Some(0);
        }
        let all: Vec<&str> = text.split(':').collect();
        let (last, before) = all.split_last()?;
        let is_group = |g: &str| (1..=4).contains(&g.len()) && g.bytes().all(|b| b.is_ascii_hexdigit());
        if !before.iter().all(|g| is_group(g)) {
            return None;
        }
        if is_group(last) {
            return Some(all.len());
        }
        (v4_may_end && is_v4(last)).then_some(all.len() + 1)
    };
    match text.split_once("::") {
        None => groups(text, true) == Some(8),
        Some((before, after)) => {
            let (before, after) = (groups(before, false), groups(after, true));
            before.zip(after).is_some_and(|(before, after)| before + after <= 7)
        }
    }
}

/// Four numbers from 0 to 255 without leading zeros.
fn is_v4(text: &str) -> bool {
    let is_octet = |o: &str| {
        let digits = (1..=3).contains(&o.len()) && o.bytes().all(|b| b.is_ascii_digit());
        digits && (o.len() == 1 || !o.starts_with('0')) && o.parse::<u16>().is_ok_and(|n| n <= 255)
    };
    text.split('.').count() == 4 && text.split('.').all(is_octet)
}

/// Fields that the proxy sets for a backend, or that only a trusted proxy may send, beside those that frame
/// the content.
const PROXY_SET: [&str; 16] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-server",
    "x-real-ip",
    "x-request-id",
    "forwarded",
    "x-forwarded-ssl",
    "x-forwarded-scheme",
    "x-forwarded-prefix",
    "x-client-ip",
    "true-client-ip",
    "x-original-url",
    "x-rewrite-url",
    "proxy",
];

/// What passes a proxy unchanged, in its order (RFC 9110 §7.6.1): neither framing, nor what is meant for one
/// hop, nor what `Connection` names, nor, on the way to a backend, what the proxy sets itself, under any
/// spelling.
pub(super) fn passing(
    fields: &[(Vec<u8>, Vec<u8>)],
    to_backend: bool,
    chunked: bool,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let framing = ["content-length", "transfer-encoding"];
    let hop = ["connection", "keep-alive", "proxy-connection", "te", "upgrade"];
    // Names that are no message to us, so that naming them takes nothing away.
    let stay =
        ["host", "via", "cookie", "set-cookie", "authorization", "proxy-authorization", "proxy-authenticate"];
    let options = members(fields, "connection");
    let passes = |name: &[u8]| {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        let spelt: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let guarded = framing.contains(&&*spelt) || PROXY_SET.contains(&&*spelt);
        let is_option = ["close", "keep-alive", "upgrade", "te"].contains(&&*name);
        let named =
            !is_option && options.iter().any(|o| o == name.as_bytes()) && !guarded && !stay.contains(&&*name);
        let for_one_hop =
            framing.contains(&&*name) || hop.contains(&&*name) || name == "trailer" && !chunked || named;
        !for_one_hop && !(to_backend && (guarded || ["host", "expect"].contains(&&*name)))
    };
    fields.iter().filter(|(name, _)| passes(name)).cloned().collect()
}

/// A whole head of a response; `None` if a rule is broken.
pub(super) fn response(head: &[u8], limits: &HeadLimits, asked: ResponseContext) -> Option<Response> {
    if head.len() > limits.head_bytes || !head.starts_with(b"HTTP/") || end(head) != Some(head.len()) {
        return None;
    }
    let mut lines = lines(head)?;
    lines.pop();
    let line = lines.first()?.clone();
    let version = version(line.get(..8)?)?;
    let digits = line.get(9..12)?;
    if line[8] != b' ' || !digits.iter().all(u8::is_ascii_digit) || digits[0] == b'0' {
        return None;
    }
    let status = digits.iter().fold(0, |n, d| n * 10 + u16::from(d - b'0'));
    let reason = match &line[12..] {
        [] => Vec::new(),
        [b' ', reason @ ..] if reason.iter().all(|&b| b == b'\t' || b >= 0x20 && b != 0x7f) => {
            reason.to_vec()
        }
        _ => return None,
    };
    let fields = fields(&lines[1..], limits.fields, true)?;
    if too_many_options(&fields) {
        return None;
    }
    let upgrade = upgrade(&fields).filter(|_| matches!(status, 101 | 426));
    if status == 101 && (!asked.upgrade || version == 10 || upgrade.is_none()) {
        return None;
    }
    let framing = if status < 200 || status == 204 {
        Framing::None
    } else {
        let declared = declared(&fields, version).ok()?.unwrap_or(Framing::Close);
        if asked.head || status == 304 { Framing::None } else { declared }
    };
    let keep_alive = framing != Framing::Close && keeps_alive(&fields, version);
    Some(Response { status, reason, version, fields, framing, keep_alive, upgrade })
}

/// The chunked coding: content, trailer section and the bytes of the whole; `Ok(None)` if it is not all
/// there, `Err` if it never will be.
pub(super) fn chunked(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, ()> {
    let (mut content, mut at) = (Vec::new(), 0);
    loop {
        let Some(len) = bytes[at..].windows(2).position(|w| w == b"\r\n") else { return Ok(None) };
        let line = &bytes[at..at + len];
        let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        if digits == 0 || digits > 16 || line.contains(&b'\n') || line.contains(&b'\r') {
            return Err(());
        }
        let size =
            u64::from_str_radix(std::str::from_utf8(&line[..digits]).map_err(|_| ())?, 16).map_err(|_| ())?;
        if size >= 1 << 63 || !extensions(&line[digits..]) {
            return Err(());
        }
        at += len + 2;
        if size == 0 {
            return Ok(Some((content, at)));
        }
        let Some(data) = usize::try_from(size).ok().and_then(|n| bytes.get(at..at.checked_add(n)?)) else {
            return Ok(None);
        };
        content.extend_from_slice(data);
        at += data.len();
        match bytes.get(at..at + 2) {
            Some(b"\r\n") => at += 2,
            Some(_) => return Err(()),
            None if matches!(bytes.get(at), None | Some(b'\r')) => return Ok(None),
            None => return Err(()),
        }
    }
}

/// RFC 9112 §7.1.1, blanks where it has BWS.
fn extensions(mut rest: &[u8]) -> bool {
    fn skip(mut text: &[u8]) -> &[u8] {
        while text.first().is_some_and(|&b| blank(b)) {
            text = &text[1..];
        }
        text
    }
    fn token(text: &[u8]) -> Option<&[u8]> {
        let n = text.iter().take_while(|&&b| is_tchar(b)).count();
        (n > 0).then(|| &text[n..])
    }
    while !rest.is_empty() {
        let Some(after) = skip(rest).strip_prefix(b";") else { return false };
        let Some(after) = token(skip(after)) else { return false };
        rest = after;
        let Some(value) = skip(rest).strip_prefix(b"=") else { continue };
        let value = skip(value);
        rest = if let Some(mut quoted) = value.strip_prefix(b"\"") {
            loop {
                match quoted {
                    [b'"', after @ ..] => break after,
                    [b'\\', b'\t' | b' '..=b'~' | 0x80.., after @ ..] => quoted = after,
                    [b'\t' | b' '..=b'[' | b']'..=b'~' | 0x80.., after @ ..] => quoted = after,
                    _ => return false,
                }
            }
        } else {
            match token(value) {
                Some(after) => after,
                None => return false,
            }
        };
    }
    true
}
