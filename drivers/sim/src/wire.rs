//! Bytes that know where they belong, and a second, naive reading of HTTP/1.1 for the far ends.

use std::fmt::Write as _;

use crate::dice::Dice;

/// Which of an exchange's streams a byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Request = 1,
    Answer = 2,
    TunnelUp = 3,
    TunnelDown = 4,
}

/// The byte at an offset: it differs between exchanges, lanes, neighbours, and places a multiple of 256 apart.
pub(crate) fn byte(id: u64, lane: Lane, at: u64) -> u8 {
    let of = (id.wrapping_mul(0x9e37_79b9) >> 7) ^ ((lane as u64) * 0x55);
    (at.wrapping_add(at >> 8).wrapping_mul(7).wrapping_add((at >> 16) * 13).wrapping_add(of)) as u8
}

/// Bytes of a lane.
pub(crate) fn fill(id: u64, lane: Lane, from: u64, len: u64, out: &mut Vec<u8>) {
    out.extend((from..from + len).map(|at| byte(id, lane, at)));
}

/// How a body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    None,
    Length(u64),
    Chunked,
    Close,
}

/// Writes a body as chunks of any sizes.
pub(crate) fn chunk(id: u64, lane: Lane, len: u64, trailer: bool, d: &mut Dice, out: &mut Vec<u8>) {
    let mut at = 0;
    let small = d.below(3) == 0;
    while at < len {
        let n = (1 + if small { d.below(20) } else { d.size(len) }).min(len - at);
        let ext = if d.below(30) == 0 { ";a=b" } else { "" };
        out.extend(format!("{n:x}{ext}\r\n").bytes());
        fill(id, lane, at, n, out);
        out.extend(b"\r\n");
        at += n;
    }
    out.extend(b"0\r\n");
    if trailer {
        out.extend(format!("X-Trailer: {id}\r\n").bytes());
    }
    out.extend(b"\r\n");
}

/// A head, cut at its lines.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head {
    pub(crate) start: String,
    pub(crate) fields: Vec<(String, String)>,
}

impl Head {
    /// Reads a head; `None` if it is none by the plainest reading.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut lines = text.strip_suffix("\r\n\r\n")?.split("\r\n");
        let start = lines.next()?.to_owned();
        let field = |line: &str| line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
        Some(Self { start, fields: lines.map(field).collect::<Option<_>>()? })
    }

    /// The one value of a field; `Err` if there are more.
    pub(crate) fn get(&self, name: &str) -> Result<Option<&str>, String> {
        let mut found = self.fields.iter().filter(|(n, _)| n == name);
        match (found.next(), found.next()) {
            (one, None) => Ok(one.map(|(_, v)| v.as_str())),
            _ => Err(format!("more than one {name}")),
        }
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, String> {
        self.get(name)?.map(|v| v.parse().map_err(|_| format!("{name}: {v}"))).transpose()
    }

    /// How the body is framed, unless rules of status and method say otherwise. `otherwise`: when no field says so.
    pub(crate) fn frame(&self, otherwise: Frame) -> Result<Frame, String> {
        match (self.get("transfer-encoding")?, self.number("content-length")?) {
            (Some("chunked"), None) => Ok(Frame::Chunked),
            (None, Some(n)) => Ok(Frame::Length(n)),
            (None, None) => Ok(otherwise),
            other => Err(format!("framing {other:?}")),
        }
    }
}

/// Reads a head and then its body, however the bytes come.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    head: Vec<u8>,
}

impl Scanner {
    /// Takes bytes up to the end of a head, and says how many; the head once it is whole.
    pub(crate) fn head(&mut self, bytes: &[u8]) -> (usize, Option<Vec<u8>>) {
        for (i, b) in bytes.iter().enumerate() {
            self.head.push(*b);
            if *b == b'\n' && self.head.ends_with(b"\r\n\r\n") {
                return (i + 1, Some(std::mem::take(&mut self.head)));
            }
        }
        (bytes.len(), None)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.head.is_empty()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Plain,
    Size,
    Data,
    DataEnd(u8),
    Trailer,
    Done,
}

/// Reads a body and compares each byte with what belongs there.
#[derive(Debug)]
pub(crate) struct Body {
    id: u64,
    lane: Lane,
    /// Compare; bodies of the proxy's own are only counted.
    strict: bool,
    at: At,
    left: u64,
    line: Vec<u8>,
    pub(crate) trailers: Vec<String>,
    /// Payload so far.
    pub(crate) got: u64,
}

impl Body {
    pub(crate) fn new(id: u64, lane: Lane, strict: bool, frame: Frame) -> Self {
        let (at, left) = match frame {
            Frame::None | Frame::Length(0) => (At::Done, 0),
            Frame::Length(n) => (At::Plain, n),
            Frame::Close => (At::Plain, u64::MAX),
            Frame::Chunked => (At::Size, 0),
        };
        Self { id, lane, strict, at, left, line: Vec::new(), trailers: Vec::new(), got: 0 }
    }

    pub(crate) fn done(&self) -> bool {
        self.at == At::Done
    }

    /// Takes what belongs to the body, and says how much that was.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<usize, String> {
        let mut at = 0;
        while at < bytes.len() && self.at != At::Done {
            match self.at {
                At::Plain | At::Data => {
                    let n = (bytes.len() - at).min(usize::try_from(self.left).unwrap_or(usize::MAX));
                    self.payload(&bytes[at..at + n])?;
                    at += n;
                    self.left -= n as u64;
                    if self.left == 0 {
                        self.at = if self.at == At::Plain { At::Done } else { At::DataEnd(b'\r') };
                    }
                }
                At::DataEnd(want) => {
                    if bytes[at] != want {
                        return Err(format!("a chunk ends with {:#x}", bytes[at]));
                    }
                    at += 1;
                    self.at = if want == b'\r' { At::DataEnd(b'\n') } else { At::Size };
                }
                At::Size | At::Trailer => {
                    self.line.push(bytes[at]);
                    at += 1;
                    if self.line.ends_with(b"\r\n") {
                        let line = String::from_utf8_lossy(&self.line[..self.line.len() - 2]).into_owned();
                        self.line.clear();
                        self.line_ended(line)?;
                    }
                }
                At::Done => {}
            }
        }
        Ok(at)
    }

    fn line_ended(&mut self, line: String) -> Result<(), String> {
        match (self.at, line.is_empty()) {
            (At::Size, _) => {
                let digits = line.split(';').next().unwrap_or_default();
                self.left = u64::from_str_radix(digits, 16).map_err(|_| format!("chunk size {line:?}"))?;
                self.at = if self.left == 0 { At::Trailer } else { At::Data };
            }
            (_, true) => self.at = At::Done,
            (_, false) => self.trailers.push(line),
        }
        Ok(())
    }

    fn payload(&mut self, bytes: &[u8]) -> Result<(), String> {
        if self.strict {
            for (i, b) in bytes.iter().enumerate() {
                let want = byte(self.id, self.lane, self.got + i as u64);
                if *b != want {
                    return Err(format!("exchange {} {:?}: byte {} is {b:#x}, not {want:#x}", self.id, self.lane, self.got + i as u64));
                }
            }
        }
        self.got += bytes.len() as u64;
        Ok(())
    }
}

/// A value of many letters that differs between exchanges.
pub(crate) fn padding(id: u64, len: u64) -> String {
    let mut text = String::with_capacity(len as usize);
    for at in 0..len {
        text.push(char::from(b'a' + byte(id, Lane::Request, at) % 26));
    }
    text
}

/// The request head of a plan.
pub(crate) fn request_head(r: &crate::ledger::Request) -> String {
    let mut head = String::new();
    let version = if r.version == 10 { "1.0" } else { "1.1" };
    write!(head, "{} {} HTTP/{version}\r\nHost: a.test\r\nX-Sim: {}\r\n", r.method, r.target, r.id).expect("memory");
    if r.padding > 0 {
        write!(head, "X-Pad: {}\r\n", padding(r.id, r.padding)).expect("memory");
    }
    if r.expect {
        head.push_str("Expect: 100-continue\r\n");
    }
    if r.upgrade {
        head.push_str("Connection: upgrade\r\nUpgrade: sim\r\n");
    } else if r.close && r.version == 11 {
        head.push_str("Connection: close\r\n");
    } else if !r.close && r.version == 10 {
        head.push_str("Connection: keep-alive\r\n");
    }
    match r.frame {
        Frame::Chunked => head.push_str("Transfer-Encoding: chunked\r\n"),
        Frame::Length(n) => write!(head, "Content-Length: {n}\r\n").expect("memory"),
        Frame::None | Frame::Close => {}
    }
    head.push_str("\r\n");
    head
}
