//! Frames as lines of text, both ways. `testdata/h2/README.md` describes them.

use std::fmt::Write as _;

use ruststrom_core::h2::Reason;
use ruststrom_core::h2::frame::{FrameHeader, flag, kind};
use ruststrom_core::h2::hpack::{BlockLimits, Decoder, FieldBlock};

const TYPES: [(&str, u8); 11] = [
    ("DATA", kind::DATA),
    ("HEADERS", kind::HEADERS),
    ("PRIORITY", kind::PRIORITY),
    ("RST_STREAM", kind::RST_STREAM),
    ("SETTINGS", kind::SETTINGS),
    ("PUSH_PROMISE", kind::PUSH_PROMISE),
    ("PING", kind::PING),
    ("GOAWAY", kind::GOAWAY),
    ("WINDOW_UPDATE", kind::WINDOW_UPDATE),
    ("CONTINUATION", kind::CONTINUATION),
    ("PRIORITY_UPDATE", kind::PRIORITY_UPDATE),
];

const SETTINGS: [(&str, u16); 8] = [
    ("HEADER_TABLE_SIZE", 1),
    ("ENABLE_PUSH", 2),
    ("MAX_CONCURRENT_STREAMS", 3),
    ("INITIAL_WINDOW_SIZE", 4),
    ("MAX_FRAME_SIZE", 5),
    ("MAX_HEADER_LIST_SIZE", 6),
    ("ENABLE_CONNECT_PROTOCOL", 8),
    ("NO_RFC7540_PRIORITIES", 9),
];

pub(crate) fn reason(name: &str) -> Reason {
    let all = (0..=0xd).map(Reason);
    let named = all.into_iter().find(|reason| reason.name() == Some(name));
    named.unwrap_or_else(|| panic!("{name} is no error code"))
}

/// `"text"` with escapes, `zeros=N`, or `xHEX`.
pub(crate) fn bytes(word: &str) -> Vec<u8> {
    if let Some(n) = word.strip_prefix("zeros=") {
        return vec![0; n.parse().expect("a number")];
    }
    if let Some(hex) = word.strip_prefix('x') {
        let digit = |c: char| c.to_digit(16).unwrap_or_else(|| panic!("{word} is no hex")) as u8;
        let digits: Vec<u8> = hex.chars().map(digit).collect();
        return digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    }
    let text = word.strip_prefix('"').and_then(|w| w.strip_suffix('"'));
    unescaped(text.unwrap_or_else(|| panic!("{word} is no payload")))
}

fn unescaped(text: &str) -> Vec<u8> {
    let (mut out, mut chars) = (Vec::new(), text.chars());
    while let Some(c) = chars.next() {
        let mut next = || chars.next().expect("an escape");
        match c {
            '\\' => match next() {
                'r' => out.push(b'\r'),
                'n' => out.push(b'\n'),
                't' => out.push(b'\t'),
                'x' => {
                    let mut digit = || next().to_digit(16).expect("hex") as u8;
                    out.push(digit() << 4 | digit());
                }
                other => out.extend(other.to_string().into_bytes()),
            },
            c => out.extend(c.to_string().into_bytes()),
        }
    }
    out
}

/// The fields behind ` | `, each `name: value`.
pub(crate) fn fields(text: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    text.split(" | ")
        .map(|field| {
            let at = field[1..].find(':').map(|at| at + 1).unwrap_or_else(|| panic!("{field} is no field"));
            let value = &field[at + 1..];
            (unescaped(&field[..at]), unescaped(value.strip_prefix(' ').unwrap_or(value)))
        })
        .collect()
}

/// Literals that go into no table.
fn block(fields: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    let string = |text: &[u8], out: &mut Vec<u8>| match text.len() {
        len @ 0..127 => {
            out.push(len as u8);
            out.extend_from_slice(text);
        }
        len => {
            let rest = len - 127;
            assert!(rest < 1 << 14);
            out.extend_from_slice(&[127, rest as u8 | 0x80, (rest >> 7) as u8]);
            out.extend_from_slice(text);
        }
    };
    for (name, value) in fields {
        out.push(0);
        string(name, &mut out);
        string(value, &mut out);
    }
    out
}

/// The words of a line, and what stands behind its first ` | `. Text in quotes is one word.
fn words(line: &str) -> (Vec<String>, Option<&str>) {
    let (head, fields) = match line.find(" | ") {
        Some(at) if !line[..at].contains('"') => (&line[..at], Some(&line[at + 3..])),
        _ => (line, None),
    };
    let (mut words, mut quoted) = (vec![String::new()], false);
    for c in head.chars() {
        match c {
            ' ' if !quoted => words.push(String::new()),
            c => {
                quoted ^= c == '"';
                words.last_mut().expect("one").push(c);
            }
        }
    }
    (words, fields)
}

/// The bytes of a frame that is written as a line.
pub(crate) fn encoded(line: &str) -> Vec<u8> {
    let (words, text) = words(line);
    let name = words[0].as_str();
    if name == "BYTES" {
        return words[1..].iter().flat_map(|word| bytes(word)).collect();
    }
    let code = TYPES.iter().find(|(known, _)| *known == name).map(|(_, code)| *code);
    let code = code.unwrap_or_else(|| name.strip_prefix("TYPE=").expect("a type").parse().expect("a number"));
    let mut rest = words[1..].iter().map(String::as_str).peekable();
    let on_connection = matches!(code, kind::SETTINGS | kind::PING | kind::GOAWAY | kind::PRIORITY_UPDATE);
    let mut stream: u32 =
        if on_connection { 0 } else { rest.next().expect("a stream").parse().expect("an id") };
    let headers = matches!(code, kind::HEADERS | kind::CONTINUATION);
    let mut flags = if headers { flag::END_HEADERS } else { 0 };
    let (mut payload, mut padding, mut priority) = (Vec::new(), None, None);
    for word in rest {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match (key, value) {
            ("end", _) => flags |= flag::END_STREAM,
            ("ack", _) => flags |= flag::ACK,
            ("more", _) => flags &= !flag::END_HEADERS,
            ("on", id) => stream = id.parse().expect("an id"),
            ("flags", more) => flags |= more.parse::<u8>().expect("a number"),
            ("pad", n) => padding = Some(n.parse::<u8>().expect("a number")),
            ("dep", id) => priority = Some(id.parse::<u32>().expect("an id")),
            (setting, value) if code == kind::SETTINGS && !value.is_empty() => {
                let known = SETTINGS.iter().find(|(name, _)| *name == setting).map(|(_, id)| *id);
                let id = known.unwrap_or_else(|| setting.parse().expect("a setting"));
                payload.extend_from_slice(&id.to_be_bytes());
                payload.extend_from_slice(&value.parse::<u32>().expect("a number").to_be_bytes());
            }
            (number, "") if number.bytes().all(|b| b.is_ascii_digit()) => {
                payload.extend_from_slice(&number.parse::<u32>().expect("32 bits").to_be_bytes());
            }
            (code, "") if code.bytes().all(|b| b.is_ascii_uppercase() || b == b'_' || b.is_ascii_digit()) => {
                payload.extend_from_slice(&reason(code).0.to_be_bytes());
            }
            _ => payload.extend(bytes(word)),
        }
    }
    if let Some(text) = text {
        payload.extend(block(&fields(text)));
    }
    if let Some(on) = priority {
        if code == kind::HEADERS {
            flags |= flag::PRIORITY;
        }
        payload = [&on.to_be_bytes()[..], &[16], &payload].concat();
    }
    if let Some(n) = padding {
        flags |= flag::PADDED;
        payload = [&[n][..], &payload, &vec![0; n.into()]].concat();
    }
    let header = FrameHeader { len: payload.len() as u32, kind: code, flags, stream };
    [&header.bytes()[..], &payload].concat()
}

/// Fields as they stand in a line.
pub(crate) fn shown<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> String {
    fields.fold(String::new(), |mut line, (name, value)| {
        write!(line, " | {}: {}", name.escape_ascii(), value.escape_ascii()).expect("a string");
        line
    })
}

/// A payload as it stands in a line.
pub(crate) fn payload(bytes: &[u8]) -> String {
    if bytes.len() > 60 && bytes.iter().all(|b| *b == 0) {
        format!("zeros={}", bytes.len())
    } else {
        format!("\"{}\"", bytes.escape_ascii())
    }
}

/// What was written by a connection, a line for each frame; DATA of a stream that follows DATA of it is
/// joined.
pub(crate) fn rendered(mut bytes: &[u8], decoder: &mut Decoder) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut open: Option<(String, Vec<u8>)> = None;
    while let Some((header, rest)) = bytes.split_first_chunk() {
        let FrameHeader { len, kind: code, flags, stream } = FrameHeader::parse(header);
        let (payload, behind) = rest.split_at(len as usize);
        bytes = behind;
        let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().expect("four bytes"));
        let end = if flags & flag::END_STREAM != 0 { " end" } else { "" };
        let name = TYPES.iter().find(|(_, known)| *known == code).expect("a frame that we write").0;
        lines.push(match code {
            kind::DATA => format!("DATA {stream}{end} {}", self::payload(payload)),
            kind::HEADERS | kind::CONTINUATION => {
                let (line, mut block) = open.take().unwrap_or((format!("HEADERS {stream}{end}"), vec![]));
                block.extend_from_slice(payload);
                if flags & flag::END_HEADERS == 0 {
                    open = Some((line, block));
                    continue;
                }
                line + &decoded(&block, decoder)
            }
            kind::RST_STREAM => format!("RST_STREAM {stream} {}", Reason(number(0))),
            kind::SETTINGS if flags & flag::ACK != 0 => "SETTINGS ack".into(),
            kind::SETTINGS => payload.chunks(6).fold(name.to_owned(), |line, setting| {
                let id = u16::from_be_bytes([setting[0], setting[1]]);
                let known =
                    SETTINGS.iter().find(|(_, known)| *known == id).expect("a setting that we send").0;
                let value = u32::from_be_bytes(setting[2..].try_into().expect("four bytes"));
                format!("{line} {known}={value}")
            }),
            kind::PING => {
                let ack = if flags & flag::ACK != 0 { " ack" } else { "" };
                format!("PING{ack} {}", self::payload(payload))
            }
            kind::GOAWAY => format!("GOAWAY {} {}", number(0), Reason(number(4))),
            kind::WINDOW_UPDATE => format!("WINDOW_UPDATE {stream} {}", number(0)),
            other => panic!("we write no frames of type {other}"),
        });
    }
    assert!(bytes.is_empty() && open.is_none(), "whole frames");
    lines
}

fn decoded(block: &[u8], decoder: &mut Decoder) -> String {
    let limits = BlockLimits { list_bytes: 65_535, fields: 1000, hard_bytes: 1 << 20 };
    let mut into = FieldBlock::new();
    decoder.decode(block, &limits, &mut into).expect("a block that we wrote");
    shown(into.iter().map(|field| (field.name, field.value)))
}
