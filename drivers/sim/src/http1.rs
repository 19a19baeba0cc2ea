//! A second and naive implementation of HTTP/1.1 for the peers of the proxy: it shares no code with the core,
//! and accepts only what a proxy should send.

use std::io::Write as _;

use crate::payload::{self, PayloadKind};
use crate::random::SplitMix64;

/// How a body is framed in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyFraming {
    None,
    Length(u64),
    Chunked,
    /// Up to the end of the connection.
    Close,
}

/// Appends a body of `len` bytes in chunks of drawn sizes, some with extensions.
pub(crate) fn write_chunked(
    id: u64,
    kind: PayloadKind,
    len: u64,
    trailers: &[String],
    rng: &mut SplitMix64,
    out: &mut Vec<u8>,
) {
    let mut at = 0;
    let small = rng.below(3) == 0;
    while at < len {
        let n = (1 + if small { rng.below(20) } else { rng.size(len) }).min(len - at);
        let ext: &[u8] = if rng.below(30) == 0 { b";a=b" } else { b"" };
        write!(out, "{n:x}").expect("memory");
        out.extend_from_slice(ext);
        out.extend_from_slice(b"\r\n");
        payload::fill(id, kind, at, n, out);
        out.extend_from_slice(b"\r\n");
        at += n;
    }
    out.extend_from_slice(b"0\r\n");
    for trailer in trailers {
        out.extend_from_slice(trailer.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// The start line and the fields of a head.
#[derive(Clone, Debug, Default)]
pub(crate) struct ParsedHead<'a> {
    pub(crate) start: &'a str,
    pub(crate) fields: Vec<(&'a str, &'a str)>,
}

impl<'a> ParsedHead<'a> {
    /// Parses a complete head; `None` if it is malformed.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut lines =
            text.strip_suffix("\r\n").filter(|lines| lines.ends_with("\r\n"))?.split_terminator('\n');
        let start = lines.next()?.strip_suffix('\r')?;
        let mut fields = Vec::with_capacity(12);
        for line in lines {
            let (name, value) = line.strip_suffix('\r')?.split_once(':')?;
            fields.push((name, value.trim()));
        }
        Some(Self { start, fields })
    }

    /// The value of a field that may come once; `Err` if it comes more often.
    pub(crate) fn get(&self, name: &str) -> Result<Option<&'a str>, String> {
        let mut found = self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        match (found.next(), found.next()) {
            (one, None) => Ok(one.map(|(_, v)| *v)),
            _ => Err(format!("more than one {name}")),
        }
    }

    /// Whether a list of tokens in any field of this name has a token.
    pub(crate) fn lists(&self, name: &str, token: &str) -> bool {
        let named = self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        named.flat_map(|(_, v)| v.split(',')).any(|t| t.trim().eq_ignore_ascii_case(token))
    }

    /// The value of a field that may come once and has to be a number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, String> {
        self.get(name)?.map(|v| v.parse().map_err(|_| format!("{name}: {v}"))).transpose()
    }

    /// How the fields frame the body, whatever the method or status says. `default`: when no field does.
    pub(crate) fn framing(&self, default: BodyFraming) -> Result<BodyFraming, String> {
        match (self.get("transfer-encoding")?, self.number("content-length")?) {
            (Some("chunked"), None) => Ok(BodyFraming::Chunked),
            (None, Some(n)) => Ok(BodyFraming::Length(n)),
            (None, None) => Ok(default),
            other => Err(format!("framing {other:?}")),
        }
    }
}

/// Collects the bytes of a head, in whatever pieces they come.
#[derive(Debug, Default)]
pub(crate) struct HeadReader {
    head: Vec<u8>,
}

impl HeadReader {
    /// Takes bytes up to the end of a head. Returns how many it has taken, and the head once it is complete.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> (usize, Option<Vec<u8>>) {
        let mut taken = 0;
        while let Some(line) = bytes[taken..].iter().position(|b| *b == b'\n') {
            self.head.extend_from_slice(&bytes[taken..=taken + line]);
            taken += line + 1;
            if self.head.ends_with(b"\r\n\r\n") {
                return (taken, Some(std::mem::take(&mut self.head)));
            }
        }
        self.head.extend_from_slice(&bytes[taken..]);
        (bytes.len(), None)
    }

    /// Whether no byte of the next head has come.
    pub(crate) fn is_empty(&self) -> bool {
        self.head.is_empty()
    }
}

/// What part of a body comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyState {
    /// Content without chunks.
    Plain,
    /// The line with the size of a chunk.
    Size,
    /// The content of a chunk.
    Data,
    /// This byte of the line end behind a chunk's content.
    DataEnd(u8),
    Trailer,
    Done,
}

/// Reads a body and compares each byte of its content with what was sent.
#[derive(Debug)]
pub(crate) struct BodyChecker {
    id: u64,
    kind: PayloadKind,
    /// Compare the content; that of local replies is only counted.
    compares: bool,
    state: BodyState,
    /// Bytes of content up to the end of the body or chunk.
    left: u64,
    /// The beginning of a line that is not complete yet.
    line: Vec<u8>,
    pub(crate) trailers: Vec<String>,
    /// Bytes of content so far.
    pub(crate) received: u64,
    /// The content so far, if it is kept.
    pub(crate) collected: Option<Vec<u8>>,
}

impl BodyChecker {
    pub(crate) fn new(id: u64, kind: PayloadKind, compares: bool, framing: BodyFraming) -> Self {
        let (state, left) = match framing {
            BodyFraming::None | BodyFraming::Length(0) => (BodyState::Done, 0),
            BodyFraming::Length(n) => (BodyState::Plain, n),
            BodyFraming::Close => (BodyState::Plain, u64::MAX),
            BodyFraming::Chunked => (BodyState::Size, 0),
        };
        let (line, trailers) = (Vec::new(), Vec::new());
        Self { id, kind, compares, state, left, line, trailers, received: 0, collected: None }
    }

    /// One that keeps the content: it is compared when all of it is there.
    pub(crate) fn collecting(framing: BodyFraming) -> Self {
        Self { collected: Some(Vec::new()), ..Self::new(0, PayloadKind::Response, false, framing) }
    }

    /// Whether the body is complete.
    pub(crate) fn is_complete(&self) -> bool {
        self.state == BodyState::Done
    }

    /// Takes what belongs to the body, and returns how many bytes that were.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Result<usize, String> {
        let mut at = 0;
        while at < bytes.len() && self.state != BodyState::Done {
            match self.state {
                BodyState::Plain | BodyState::Data => {
                    let n = (bytes.len() - at).min(usize::try_from(self.left).unwrap_or(usize::MAX));
                    self.content(&bytes[at..at + n])?;
                    at += n;
                    self.left -= n as u64;
                    if self.left == 0 {
                        self.state = if self.state == BodyState::Plain {
                            BodyState::Done
                        } else {
                            BodyState::DataEnd(b'\r')
                        };
                    }
                }
                BodyState::DataEnd(want) => {
                    if bytes[at] != want {
                        return Err(format!("a chunk ends with {:#x}", bytes[at]));
                    }
                    at += 1;
                    self.state = if want == b'\r' { BodyState::DataEnd(b'\n') } else { BodyState::Size };
                }
                BodyState::Size | BodyState::Trailer => {
                    self.line.push(bytes[at]);
                    at += 1;
                    if self.line.ends_with(b"\r\n") {
                        let line = String::from_utf8_lossy(&self.line[..self.line.len() - 2]).into_owned();
                        self.line.clear();
                        self.line_ended(line)?;
                    }
                }
                BodyState::Done => {}
            }
        }
        Ok(at)
    }

    fn line_ended(&mut self, line: String) -> Result<(), String> {
        match (self.state, line.is_empty()) {
            (BodyState::Size, _) => {
                let digits = line.split(';').next().unwrap_or_default();
                self.left = u64::from_str_radix(digits, 16).map_err(|_| format!("chunk size {line:?}"))?;
                self.state = if self.left == 0 { BodyState::Trailer } else { BodyState::Data };
            }
            (_, true) => self.state = BodyState::Done,
            (_, false) => self.trailers.push(line),
        }
        Ok(())
    }

    fn content(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut left = if self.compares { bytes } else { &[] };
        let mut at = self.received;
        while !left.is_empty() {
            let want = payload::expected(self.id, self.kind, at, left.len() as u64);
            let (these, rest) = left.split_at(want.len());
            if these != want {
                let wrong = these.iter().zip(want).position(|(is, want)| is != want).unwrap_or(0);
                let (is, want, at) = (these[wrong], want[wrong], at + wrong as u64);
                return Err(format!(
                    "exchange {} {:?}: byte {at} is {is:#x}, not {want:#x}",
                    self.id, self.kind
                ));
            }
            (left, at) = (rest, at + want.len() as u64);
        }
        self.received += bytes.len() as u64;
        if let Some(collected) = &mut self.collected {
            collected.extend_from_slice(bytes);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(id: u64, kind: PayloadKind, len: u64) -> Vec<u8> {
        let mut out = Vec::new();
        payload::fill(id, kind, 0, len, &mut out);
        out
    }

    #[test]
    fn one_wrong_byte_is_found_wherever_the_reads_end() {
        let mut rng = SplitMix64::new(1);
        for _ in 0..300 {
            let (len, id) = (1 + rng.below(3000), rng.below(1000));
            let mut sent = bytes(id, PayloadKind::TunnelUp, len);
            let wrong = rng.below(2) == 0;
            let at = rng.below(len);
            sent[at as usize] ^= if wrong { 1 + rng.below(255) as u8 } else { 0 };
            let mut body = BodyChecker::new(id, PayloadKind::TunnelUp, true, BodyFraming::Length(len));
            let mut rest = &sent[..];
            let mut found = Ok(0);
            while !rest.is_empty() && found.is_ok() {
                let n = 1 + rng.below(rest.len() as u64) as usize;
                found = body.read(&rest[..n]);
                rest = &rest[n..];
            }
            assert_eq!(
                found.as_ref().is_err_and(|why| why.contains(&format!("byte {at} is"))),
                wrong,
                "{found:?}"
            );
            assert_eq!(body.is_complete(), !wrong);
        }
    }

    #[test]
    fn heads_and_chunks() {
        let head =
            ParsedHead::parse(b"HTTP/1.1 200 OK\r\nX-Sim:  7 \r\ncontent-length: 3\r\nb: 1\r\nB: 2\r\n\r\n")
                .expect("a head");
        assert_eq!(
            (head.start, head.number("x-sim"), head.framing(BodyFraming::Close)),
            ("HTTP/1.1 200 OK", Ok(Some(7)), Ok(BodyFraming::Length(3)))
        );
        assert!(head.get("b").is_err() && head.get("c") == Ok(None));
        for none in
            ["x\r\nno colon\r\n\r\n", "x\r\na: b\nc: d\r\n\r\n", "x\ny: z\r\n\r\n", "x\r\ny: z\r\n", "\r\n"]
        {
            assert!(ParsedHead::parse(none.as_bytes()).is_none(), "{none:?}");
        }
        let mut rng = SplitMix64::new(2);
        for len in [0, 1, 15, 16, 255, 4096, 70_000] {
            let mut sent = Vec::new();
            let trailers = ["X-Trailer: 9".to_owned()];
            write_chunked(9, PayloadKind::Request, len, &trailers, &mut rng, &mut sent);
            let mut body = BodyChecker::new(9, PayloadKind::Request, true, BodyFraming::Chunked);
            assert_eq!(body.read(&sent), Ok(sent.len()));
            assert!(body.is_complete() && body.received == len && body.trailers == ["X-Trailer: 9"]);
        }
    }
}
