//! Bytes that know where they belong, and a second, naive reading of HTTP/1.1 for the far ends.

use std::fmt::Write as _;

use crate::dice::Dice;

/// Which of an exchange's streams a byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Request = 1,
    LookupResult = 2,
    TunnelUp = 3,
    TunnelDown = 4,
}

/// Twice around the bytes in steps of [`STEP`]: any 256 bytes of a lane that begin at a multiple of 256 lie
/// in here in one piece.
static RAMP: [u8; 512] = {
    let mut ramp = [0; 512];
    let mut at = 0;
    while at < 512 {
        ramp[at] = (at as u8).wrapping_mul(STEP);
        at += 1;
    }
    ramp
};
const STEP: u8 = 7;
/// How many steps make one.
const STEPS_TO_ONE: u8 = 183;

/// The bytes of a lane from an offset on, up to `most` or to the next multiple of 256. They differ between
/// exchanges, lanes, neighbours, and places a multiple of 256 apart.
fn run(id: u64, lane: Lane, at: u64, most: u64) -> &'static [u8] {
    let of = (id.wrapping_mul(0x9e37_79b9) >> 7) ^ ((lane as u64) * 0x55);
    let first = (at
        .wrapping_add(at >> 8)
        .wrapping_mul(u64::from(STEP))
        .wrapping_add((at >> 16) * 13)
        .wrapping_add(of)) as u8;
    let start = usize::from(first.wrapping_mul(STEPS_TO_ONE));
    &RAMP[start..start + most.min(256 - at % 256) as usize]
}

/// Bytes of a lane.
pub(crate) fn fill(id: u64, lane: Lane, from: u64, len: u64, out: &mut Vec<u8>) {
    out.reserve(len as usize);
    let (mut at, to) = (from, from + len);
    while at < to {
        let run = run(id, lane, at, to - at);
        out.extend_from_slice(run);
        at += run.len() as u64;
    }
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
        let ext: &[u8] = if d.below(30) == 0 { b";a=b" } else { b"" };
        hex(n, out);
        out.extend_from_slice(ext);
        out.extend_from_slice(b"\r\n");
        fill(id, lane, at, n, out);
        out.extend_from_slice(b"\r\n");
        at += n;
    }
    out.extend_from_slice(b"0\r\n");
    if trailer {
        out.extend_from_slice(format!("X-Trailer: {id}\r\n").as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Digits without zeros before them.
fn hex(n: u64, out: &mut Vec<u8>) {
    for place in (0..16 - n.max(1).leading_zeros() / 4).rev() {
        out.push(b"0123456789abcdef"[(n >> (4 * place)) as usize & 0xf]);
    }
}

/// A head, cut at its lines.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head<'a> {
    pub(crate) start: &'a str,
    pub(crate) fields: Vec<(&'a str, &'a str)>,
}

impl<'a> Head<'a> {
    /// Reads a head; `None` if it is none by the plainest reading.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
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

    /// The one value of a field; `Err` if there are more.
    pub(crate) fn get(&self, name: &str) -> Result<Option<&'a str>, String> {
        let mut found = self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        match (found.next(), found.next()) {
            (one, None) => Ok(one.map(|(_, v)| *v)),
            _ => Err(format!("more than one {name}")),
        }
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, String> {
        self.get(name)?.map(|v| v.parse().map_err(|_| format!("{name}: {v}"))).transpose()
    }

    /// How the body is framed, unless rules of status and method say otherwise. `otherwise`: when no field
    /// says so.
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
        let mut left = if self.strict { bytes } else { &[] };
        let mut at = self.got;
        while !left.is_empty() {
            let want = run(self.id, self.lane, at, left.len() as u64);
            let (these, rest) = left.split_at(want.len());
            if these != want {
                let wrong = these.iter().zip(want).position(|(is, want)| is != want).unwrap_or(0);
                let (is, want, at) = (these[wrong], want[wrong], at + wrong as u64);
                return Err(format!(
                    "exchange {} {:?}: byte {at} is {is:#x}, not {want:#x}",
                    self.id, self.lane
                ));
            }
            (left, at) = (rest, at + want.len() as u64);
        }
        self.got += bytes.len() as u64;
        Ok(())
    }
}

/// A value of many letters that differs between exchanges.
pub(crate) fn padding(id: u64, len: u64) -> String {
    let mut bytes = Vec::new();
    fill(id, Lane::Request, 0, len, &mut bytes);
    bytes.into_iter().map(|byte| char::from(b'a' + byte % 26)).collect()
}

/// The request head of a plan.
pub(crate) fn request_head(r: &crate::ledger::Request) -> String {
    let mut head = String::new();
    let version = if r.version == 10 { "1.0" } else { "1.1" };
    write!(head, "{} {} HTTP/{version}\r\nHost: a.test\r\nX-Sim: {}\r\n", r.method, r.target, r.id)
        .expect("memory");
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

#[cfg(test)]
mod tests {
    use super::*;

    const LANES: [Lane; 4] = [Lane::Request, Lane::LookupResult, Lane::TunnelUp, Lane::TunnelDown];

    fn bytes(id: u64, lane: Lane, from: u64, len: u64) -> Vec<u8> {
        let mut out = Vec::new();
        fill(id, lane, from, len, &mut out);
        out
    }

    #[test]
    fn bytes_know_their_place() {
        let whole = bytes(5, Lane::LookupResult, 0, 200_000);
        for (at, byte) in whole.iter().enumerate() {
            let at = at as u64;
            let of = (5_u64.wrapping_mul(0x9e37_79b9) >> 7) ^ 0xaa;
            assert_eq!(*byte, ((at + (at >> 8)) * 7 + (at >> 16) * 13 + of) as u8, "{at}");
        }
        for (from, len) in [(0, 0), (255, 1), (255, 2), (256, 256), (1000, 5000), (65_535, 2), (131_072, 300)]
        {
            assert_eq!(bytes(5, Lane::LookupResult, from, len), whole[from as usize..(from + len) as usize]);
        }
        assert!(
            LANES.iter().all(|lane| *lane == Lane::LookupResult || bytes(5, *lane, 0, 64) != whole[..64])
        );
        assert_ne!(bytes(6, Lane::LookupResult, 0, 64), whole[..64]);
        assert!(
            (256..whole.len() - 256).all(|at| whole[at] != whole[at + 1] && whole[at] != whole[at + 256])
        );
    }

    #[test]
    fn one_wrong_byte_is_found_wherever_the_reads_end() {
        let mut dice = Dice::new(1);
        for _ in 0..300 {
            let (len, id) = (1 + dice.below(3000), dice.below(1000));
            let mut sent = bytes(id, Lane::TunnelUp, 0, len);
            let wrong = dice.below(2) == 0;
            let at = dice.below(len);
            sent[at as usize] ^= if wrong { 1 + dice.below(255) as u8 } else { 0 };
            let mut body = Body::new(id, Lane::TunnelUp, true, Frame::Length(len));
            let mut rest = &sent[..];
            let mut found = Ok(0);
            while !rest.is_empty() && found.is_ok() {
                let n = 1 + dice.below(rest.len() as u64) as usize;
                found = body.take(&rest[..n]);
                rest = &rest[n..];
            }
            assert_eq!(
                found.as_ref().is_err_and(|why| why.contains(&format!("byte {at} is"))),
                wrong,
                "{found:?}"
            );
            assert_eq!(body.done(), !wrong);
        }
    }

    #[test]
    fn heads_and_chunks() {
        let head = Head::read(b"HTTP/1.1 200 OK\r\nX-Sim:  7 \r\ncontent-length: 3\r\nb: 1\r\nB: 2\r\n\r\n")
            .expect("a head");
        assert_eq!(
            (head.start, head.number("x-sim"), head.frame(Frame::Close)),
            ("HTTP/1.1 200 OK", Ok(Some(7)), Ok(Frame::Length(3)))
        );
        assert!(head.get("b").is_err() && head.get("c") == Ok(None));
        for none in
            ["x\r\nno colon\r\n\r\n", "x\r\na: b\nc: d\r\n\r\n", "x\ny: z\r\n\r\n", "x\r\ny: z\r\n", "\r\n"]
        {
            assert!(Head::read(none.as_bytes()).is_none(), "{none:?}");
        }
        let mut dice = Dice::new(2);
        for len in [0, 1, 15, 16, 255, 4096, 70_000] {
            let mut sent = Vec::new();
            chunk(9, Lane::Request, len, true, &mut dice, &mut sent);
            let mut body = Body::new(9, Lane::Request, true, Frame::Chunked);
            assert_eq!(body.take(&sent), Ok(sent.len()));
            assert!(body.done() && body.got == len && body.trailers == ["X-Trailer: 9"]);
        }
    }
}
