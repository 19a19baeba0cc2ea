//! Heads of requests and answers: httparse for the bytes, our own strict rules around it.

use std::mem::MaybeUninit;
use std::sync::LazyLock;

use memchr::{memchr_iter, memmem};

use super::diagnose::{Start, diagnose};
use super::seen::{Seen, nominate};
use super::upgrade::carries_http;
use crate::http::fields::{is_token_char, offset};
use crate::http::target::valid_host;
use crate::http::{Fields, Framing, Known, Target, Violation};

/// The most fields a head can have, whatever the limits say.
pub const MAX_FIELDS: usize = 256;

/// Limits of a head.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Bytes of a whole head.
    pub head_bytes: usize,
    /// Field lines, at most [`MAX_FIELDS`].
    pub fields: usize,
    /// Bytes of the request target.
    pub target_bytes: usize,
}

/// Room for the fields of one head: on the stack, not initialised beforehand.
pub struct Store<'b> {
    headers: [MaybeUninit<httparse::Header<'b>>; MAX_FIELDS],
    tags: [Known; MAX_FIELDS],
}

impl Store<'_> {
    /// Empty room.
    #[must_use]
    #[inline]
    pub fn new() -> Self {
        Self { headers: [const { MaybeUninit::uninit() }; MAX_FIELDS], tags: [Known::Other; MAX_FIELDS] }
    }
}

impl Default for Store<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// The head of a request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Case-sensitive.
    pub method: &'a [u8],
    /// Normalised.
    pub target: Target<'a>,
    /// 10 or 11.
    pub version: u8,
    /// All of them, marked.
    pub fields: Fields<'a>,
    /// Never [`Framing::Close`].
    pub framing: Framing,
    /// The authority if the target has one, else `Host`; empty only for HTTP/1.0 without `Host`.
    pub host: &'a [u8],
    /// Whether the connection outlives this exchange as far as the client is concerned (RFC 9112 §9.3).
    pub keep_alive: bool,
    /// The client waits for a 100 before its content.
    pub expect_continue: bool,
    /// The protocols of `Upgrade`, if this asks for one that we pass on.
    pub upgrade: Option<&'a [u8]>,
    /// RFC 9110 §9.2.2.
    pub idempotent: bool,
    /// The method is HEAD: the answer has no content.
    pub is_head: bool,
    /// The client said `TE: trailers`.
    pub te_trailers: bool,
    /// `Max-Forwards` of OPTIONS and TRACE (RFC 9110 §7.6.2): at 0 we answer ourselves, else one less is forwarded.
    pub max_forwards: Option<u64>,
    /// `Connection` names fields: trailers of that name may not pass, so none does (RFC 9110 §7.6.1).
    pub nominates: bool,
}

/// What an answer is an answer to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// The method was HEAD.
    pub head: bool,
    /// An `Upgrade` was forwarded.
    pub upgrade: bool,
}

/// The head of an answer.
#[derive(Clone, Copy, Debug)]
pub struct AnswerHead<'a> {
    /// 100..=999.
    pub status: u16,
    /// The reason phrase, maybe empty.
    pub reason: &'a [u8],
    /// 10 or 11.
    pub version: u8,
    /// All of them, marked.
    pub fields: Fields<'a>,
    /// How the content that follows here is framed: `None` for 1xx, 204, 304 and answers to HEAD.
    pub framing: Framing,
    /// `Content-Length` as a statement, also where no content follows (HEAD, 304).
    pub content_length: Option<u64>,
    /// Whether the connection outlives this exchange as far as the backend is concerned.
    pub keep_alive: bool,
    /// `Keep-Alive: timeout=`, in seconds.
    pub keep_alive_timeout: Option<u32>,
    /// `Upgrade` of a 101.
    pub upgrade: Option<&'a [u8]>,
    /// There is a `Date`.
    pub has_date: bool,
    /// `Connection` names fields: trailers of that name may not pass, so none does (RFC 9110 §7.6.1).
    pub nominates: bool,
}

impl AnswerHead<'_> {
    /// 1xx other than 101: another answer follows.
    #[must_use]
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }
}

/// Empty lines that may precede a request line (RFC 9112 §2.2 asks for one at least).
const BLANK_LINES: usize = 4;

/// Looks for the end of a request's head in `buf`, of which the first `from` bytes were already looked at. `Some(end)` is the length of the
/// head with its empty line (and empty lines before it). Bytes that can become no head are an error at once. `None` and a full buffer, or
/// more than `head_bytes`: see [`too_large`].
pub fn find_end(buf: &[u8], from: usize) -> Result<Option<usize>, Violation> {
    let start = blank_lines(buf)?;
    // What is no method needs no patience: TLS on this port, binary noise.
    for &b in buf[start..].iter().take(16).take_while(|&&b| !matches!(b, b' ' | b'\r' | b'\n')) {
        if !is_token_char(b) {
            return Err(Violation::Method);
        }
    }
    find_empty_line(buf, start, from)
}

/// The same for an answer.
pub fn find_answer_end(buf: &[u8], from: usize) -> Result<Option<usize>, Violation> {
    let expected = b"HTTP/1.";
    let n = buf.len().min(expected.len());
    if buf[..n] != expected[..n] {
        return Err(if buf.starts_with(b"HTTP/") { Violation::Version } else { Violation::StatusLine });
    }
    find_empty_line(buf, 0, from)
}

/// The fault of a head that has no end within its limit: the target, if that alone is too long.
#[must_use]
#[cold]
pub fn too_large(buf: &[u8], limits: &HeadLimits) -> Violation {
    let start = blank_lines(buf).unwrap_or(0);
    let line = buf[start..].split(|&b| b == b'\n').next().unwrap_or_default();
    let target = line.splitn(3, |&b| b == b' ').nth(1);
    if target.is_some_and(|t| t.len() > limits.target_bytes) { Violation::TargetTooLong } else { Violation::HeadTooLarge }
}

/// How many bytes of empty lines `buf` begins with.
fn blank_lines(buf: &[u8]) -> Result<usize, Violation> {
    let mut at = 0;
    while let Some(b @ (b'\r' | b'\n')) = buf.get(at) {
        match (b, buf.get(at + 1)) {
            _ if at == 2 * BLANK_LINES => return Err(Violation::StartLine),
            (b'\n', _) => return Err(Violation::BareLf),
            (_, None) => break,
            (_, Some(b'\n')) => at += 2,
            _ => return Err(Violation::BareCr),
        }
    }
    Ok(at)
}

/// Built once: that takes longer than the search through a small head.
static EMPTY_LINE: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"\r\n\r\n"));

/// The empty line that ends a section of lines which begins at `start`, where no empty line is. A bare LF is an error here only while there
/// is no end (why wait for one?); whoever reads the section finds those in it.
pub(super) fn find_empty_line(buf: &[u8], start: usize, from: usize) -> Result<Option<usize>, Violation> {
    let resumed = from.saturating_sub(3).clamp(start, buf.len());
    if let Some(at) = EMPTY_LINE.find(&buf[resumed..]) {
        return Ok(Some(resumed + at + 4));
    }
    let first = from.clamp(start, buf.len());
    for at in memchr_iter(b'\n', &buf[first..]) {
        let at = first + at;
        if at == start || buf[at - 1] != b'\r' {
            return Err(Violation::BareLf);
        }
    }
    Ok(None)
}

/// Reads a complete head of a request: `buf` ends with its empty line.
pub fn request<'s, 'b: 's>(
    buf: &'b [u8],
    store: &'s mut Store<'b>,
    limits: &HeadLimits,
    scratch: &'s mut Vec<u8>,
) -> Result<Request<'s>, Violation> {
    match request_before(buf, store, limits, scratch) {
        Ok(Some((request, n))) if n == buf.len() => Ok(request),
        Err(Stopped::By(violation)) => Err(violation),
        _ => {
            if buf.len() > limits.head_bytes {
                return Err(too_large(buf, limits));
            }
            Err(diagnose(&buf[blank_lines(buf)?..], Start::Request))
        }
    }
}

/// Why [`request_before`] or [`answer_before`] read nothing.
pub enum Stopped {
    /// A rule that is broken, whatever else comes.
    By(Violation),
    /// Something is wrong: look for the end, and read what ends there to know what.
    Somewhere,
}

/// Reads the head of a request at the front of `buf`, whatever follows it, and says where it ends; `None`: it is not complete. One pass where
/// [`find_end`] and [`request`] take two.
pub fn request_before<'s, 'b: 's>(
    buf: &'b [u8],
    store: &'s mut Store<'b>,
    limits: &HeadLimits,
    scratch: &'s mut Vec<u8>,
) -> Result<Option<(Request<'s>, usize)>, Stopped> {
    let blank = blank_lines(buf).map_err(Stopped::By)?;
    let Store { headers, tags } = store;
    let mut line = httparse::Request::new(&mut []);
    let n = match line.parse_with_uninit_headers(&buf[blank..], &mut headers[..limits.fields.min(MAX_FIELDS)]) {
        Ok(httparse::Status::Complete(n)) => n,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Stopped::By(Violation::TooManyFields)),
        Err(_) => return Err(Stopped::Somewhere),
    };
    let head = &buf[blank..blank + n];
    if blank + n > limits.head_bytes {
        return Err(Stopped::By(too_large(&buf[..blank + n], limits)));
    }
    if !head.ends_with(b"\r\n\r\n") {
        return Err(Stopped::Somewhere);
    }
    let line = Line {
        method: line.method.unwrap_or_default().as_bytes(),
        target: line.path.unwrap_or_default().as_bytes(),
        version: if line.version == Some(1) { 11 } else { 10 },
        headers: line.headers,
    };
    let request = checked_request(head, &line, tags, limits, scratch).map_err(Stopped::By)?;
    Ok(Some((request, blank + n)))
}

/// What httparse has read of a request.
struct Line<'s, 'b> {
    method: &'b [u8],
    target: &'b [u8],
    version: u8,
    headers: &'s [httparse::Header<'b>],
}

/// What httparse has read, held against the rules.
fn checked_request<'s, 'b: 's>(
    head: &'b [u8],
    line: &Line<'s, 'b>,
    tags: &'s mut [Known],
    limits: &HeadLimits,
    scratch: &'s mut Vec<u8>,
) -> Result<Request<'s>, Violation> {
    let Line { method, target: raw, version, headers } = *line;
    if raw.len() > limits.target_bytes {
        return Err(Violation::TargetTooLong);
    }

    let mut seen = Seen::default();
    for (header, tag) in headers.iter().zip(tags.iter_mut()) {
        *tag = seen.field(head, header)?;
    }
    let tags = &mut tags[..headers.len()];
    if seen.options > 0 {
        nominate(headers, tags);
    }

    let target = Target::parse(method, raw, scratch)?;
    let host = match seen.hosts {
        1 if valid_host(seen.host) => target.authority.unwrap_or(seen.host),
        1 => return Err(Violation::Host),
        0 if version == 11 => return Err(Violation::MissingHost),
        0 => target.authority.unwrap_or_default(),
        _ => return Err(Violation::DuplicateHost),
    };
    let framing = match seen.coded {
        false => match seen.length()? {
            Some(n) => Framing::Length(n),
            None => Framing::None,
        },
        true => seen.chunked(version)?,
    };
    if method == b"TRACE" && !framing.is_empty() {
        return Err(Violation::TraceContent);
    }
    // HTTP/1.0 knows no expectations and no upgrades: ignored (RFC 9110 §7.8, §10.1.1).
    if seen.strange_expectation && version == 11 {
        return Err(Violation::Expectation);
    }
    Ok(Request {
        method,
        target,
        version,
        fields: Fields::new(head, headers, tags),
        framing,
        host,
        keep_alive: seen.keep_alive(version),
        expect_continue: seen.expect_continue && version == 11 && !framing.is_empty(),
        upgrade: seen.upgrade().filter(|protocols| version == 11 && !carries_http(protocols)),
        idempotent: matches!(method, b"GET" | b"HEAD" | b"PUT" | b"DELETE" | b"OPTIONS" | b"TRACE"),
        is_head: method == b"HEAD",
        te_trailers: seen.te_trailers,
        max_forwards: if matches!(method, b"OPTIONS" | b"TRACE") { seen.max_forwards } else { None },
        nominates: seen.options > 0,
    })
}

/// Reads a complete head of an answer: `buf` ends with its empty line.
pub fn answer<'s, 'b: 's>(buf: &'b [u8], store: &'s mut Store<'b>, limits: &HeadLimits, asked: Asked) -> Result<AnswerHead<'s>, Violation> {
    match answer_before(buf, store, limits, asked) {
        Ok(Some((answer, n))) if n == buf.len() => Ok(answer),
        Err(Stopped::By(violation)) => Err(violation),
        _ if buf.len() > limits.head_bytes => Err(Violation::HeadTooLarge),
        _ => Err(diagnose(buf, Start::Answer)),
    }
}

/// Reads the head of an answer at the front of `buf`, as [`request_before`] does for requests.
pub fn answer_before<'s, 'b: 's>(
    buf: &'b [u8],
    store: &'s mut Store<'b>,
    limits: &HeadLimits,
    asked: Asked,
) -> Result<Option<(AnswerHead<'s>, usize)>, Stopped> {
    // Empty lines before a status line, which httparse would skip, are none of RFC 9112's leniencies.
    if !buf.starts_with(b"HTTP/") {
        return Err(Stopped::Somewhere);
    }
    let Store { headers, tags } = store;
    let mut line = httparse::Response::new(&mut []);
    let mut config = httparse::ParserConfig::default();
    // A blank before the colon has to be removed from answers (RFC 9112 §5.1); in requests it is refused.
    config.allow_spaces_after_header_name_in_responses(true);
    let n = match config.parse_response_with_uninit_headers(&mut line, buf, &mut headers[..limits.fields.min(MAX_FIELDS)]) {
        Ok(httparse::Status::Complete(n)) => n,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Stopped::By(Violation::TooManyFields)),
        Err(_) => return Err(Stopped::Somewhere),
    };
    if n > limits.head_bytes {
        return Err(Stopped::By(Violation::HeadTooLarge));
    }
    let head = &buf[..n];
    if !head.ends_with(b"\r\n\r\n") {
        return Err(Stopped::Somewhere);
    }
    let (status, version) = (line.code.unwrap_or_default(), if line.version == Some(1) { 11 } else { 10 });
    let answer = checked_answer(head, status, version, line.headers, tags, asked).map_err(Stopped::By)?;
    Ok(Some((answer, n)))
}

/// What httparse has read, held against the rules.
fn checked_answer<'s, 'b: 's>(
    buf: &'b [u8],
    status: u16,
    version: u8,
    headers: &'s [httparse::Header<'b>],
    tags: &'s mut [Known],
    asked: Asked,
) -> Result<AnswerHead<'s>, Violation> {
    let line_end = headers.first().map_or(buf.len() - 4, |h| offset(buf, h.name.as_bytes()) - 2);
    // httparse took 12 bytes up to the status; it hides a reason beyond ASCII.
    let reason = &buf[12..line_end.max(12)];
    let reason = reason.strip_prefix(b" ").unwrap_or(reason);
    if status < 100 {
        return Err(Violation::StatusLine);
    }

    let mut seen = Seen::default();
    for (header, tag) in headers.iter().zip(tags.iter_mut()) {
        *tag = seen.field(buf, header)?;
    }
    let tags = &mut tags[..headers.len()];
    if seen.options > 0 {
        nominate(headers, tags);
    }
    let has_date = tags.contains(&Known::Date);
    let upgrade = if matches!(status, 101 | 426) { seen.upgrade() } else { None };
    if status == 101 && (!asked.upgrade || version == 10 || upgrade.is_none()) {
        return Err(Violation::UnexpectedSwitch);
    }

    // RFC 9112 §6.3: these end with their head, whatever it says; the first two may not even say it.
    let (framing, content_length) = if status < 200 || status == 204 {
        (Framing::None, None)
    } else {
        let declared = match seen.coded {
            false => seen.length()?.map_or(Framing::Close, Framing::Length),
            true => seen.chunked(version)?,
        };
        let content_length = if let Framing::Length(n) = declared { Some(n) } else { None };
        (if asked.head || status == 304 { Framing::None } else { declared }, content_length)
    };
    Ok(AnswerHead {
        status,
        reason,
        version,
        fields: Fields::new(buf, headers, tags),
        framing,
        content_length,
        keep_alive: framing != Framing::Close && seen.keep_alive(version),
        keep_alive_timeout: seen.keep_alive_timeout,
        upgrade,
        has_date,
        nominates: seen.options > 0,
    })
}
