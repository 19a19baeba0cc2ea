//! Heads of requests and responses from decoded fields (RFC 9113 §8.2, §8.3): nothing is parsed again. The
//! fields are put behind a start line, as a head of HTTP/1.1 has them, so that they can be forwarded in one
//! piece; names are lower case and lines plain.

use super::hpack::{BlockField, FieldBlock, Pseudo};
use crate::http::fields::FieldLine;
use crate::http::target::valid_host;
use crate::http::{
    Field, Fields, Framing, HeaderKind, Method, ParsedRequest, ParsedResponse, RequestHead, RequestTarget,
    Scheme, StatusCode, Version, Violation, may_trail, websocket,
};

/// Why there is no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// The message is malformed (RFC 9113 §8.1.1): its stream is reset. It never becomes one of HTTP/1.1.
    Malformed,
    /// It is well-formed, and breaks a rule of HTTP: a client gets a response.
    Violation(Violation),
}

impl From<Violation> for HeadError {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

const MALFORMED: HeadError = HeadError::Malformed;

/// Memory for a head, lent for one after the other.
#[derive(Debug, Default)]
pub struct HeadRoom {
    /// Start line, field lines and empty line.
    text: Vec<u8>,
    lines: Vec<FieldLine>,
    target: Vec<u8>,
}

/// The pseudo-header fields of a head.
#[derive(Clone, Copy, Default)]
struct PseudoFields<'a> {
    method: Option<&'a [u8]>,
    scheme: Option<&'a [u8]>,
    authority: Option<&'a [u8]>,
    path: Option<&'a [u8]>,
    protocol: Option<&'a [u8]>,
    status: Option<&'a [u8]>,
}

/// What is found in one walk over the fields.
#[derive(Default)]
struct Survey<'a> {
    pseudo: PseudoFields<'a>,
    host: Option<&'a [u8]>,
    hosts: usize,
    content_length: Option<&'a [u8]>,
    content_lengths: usize,
    cookies: usize,
    te_trailers: bool,
    expects: Option<&'a [u8]>,
    max_forwards: Option<&'a [u8]>,
    has_date: bool,
    /// Where the fields that are no pseudo-header fields begin in the text.
    regular_at: Option<usize>,
}

/// Fields that are about a connection of HTTP/1.1: a message that has one is malformed (RFC 9113 §8.2.2).
pub(crate) const CONNECTION_SPECIFIC: u64 = HeaderKind::set(&[
    HeaderKind::Connection,
    HeaderKind::KeepAlive,
    HeaderKind::ProxyConnection,
    HeaderKind::TransferEncoding,
    HeaderKind::Upgrade,
]);

impl<'a> Survey<'a> {
    fn of(block: &'a FieldBlock) -> Result<Self, HeadError> {
        let mut survey = Self::default();
        for field in block.iter() {
            if !field.good_name || !field.good_value {
                return Err(MALFORMED);
            }
            match field.pseudo {
                // They come first (RFC 9113 §8.3).
                Some(_) if survey.regular_at.is_some() => return Err(MALFORMED),
                Some(pseudo) => survey.pseudo.take(pseudo, field.value)?,
                None => survey.regular(&field)?,
            }
        }
        Ok(survey)
    }

    fn regular(&mut self, field: &BlockField<'a>) -> Result<(), HeadError> {
        self.regular_at.get_or_insert(field.at);
        match field.kind {
            kind if kind.in_set(CONNECTION_SPECIFIC) => return Err(MALFORMED),
            HeaderKind::Te if !field.value.eq_ignore_ascii_case(b"trailers") => return Err(MALFORMED),
            HeaderKind::Te => self.te_trailers = true,
            HeaderKind::Host => {
                self.hosts += 1;
                self.host = Some(field.value);
            }
            HeaderKind::ContentLength => {
                self.content_lengths += 1;
                self.content_length = Some(field.value);
            }
            HeaderKind::Cookie => self.cookies += 1,
            HeaderKind::Expect => self.expects = Some(field.value),
            HeaderKind::MaxForwards => self.max_forwards = Some(field.value),
            HeaderKind::Date => self.has_date = true,
            _ => {}
        }
        Ok(())
    }

    /// The one `Content-Length`.
    fn length(&self) -> Result<Option<u64>, Violation> {
        match self.content_length {
            _ if self.content_lengths > 1 => Err(Violation::SeveralLengths),
            Some(digits) => match decimal(digits) {
                Some(n) => Ok(Some(n)),
                None if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
                    Err(Violation::ContentTooLarge)
                }
                None => Err(Violation::Length),
            },
            None => Ok(None),
        }
    }
}

impl<'a> PseudoFields<'a> {
    fn take(&mut self, pseudo: Pseudo, value: &'a [u8]) -> Result<(), HeadError> {
        let place = match pseudo {
            Pseudo::Method => &mut self.method,
            Pseudo::Scheme => &mut self.scheme,
            Pseudo::Authority => &mut self.authority,
            Pseudo::Path => &mut self.path,
            Pseudo::Protocol => &mut self.protocol,
            Pseudo::Status => &mut self.status,
            Pseudo::Unknown => return Err(MALFORMED),
        };
        match place.replace(value) {
            Some(_) => Err(MALFORMED),
            None => Ok(()),
        }
    }
}

/// Below 2^63.
fn decimal(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok().filter(|_| digits.iter().all(u8::is_ascii_digit))?;
    text.parse().ok().filter(|n| *n < 1 << 63)
}

/// Puts the head of a request of these fields `into` one; `ended`: without content. Its target has
/// `target_bytes` at most. Extended CONNECT (RFC 8441) becomes what it stands for: a GET with `Upgrade`.
///
/// # Errors
/// If it is none; `into` is as it was.
pub fn request(
    room: &mut HeadRoom,
    block: &FieldBlock,
    ended: bool,
    target_bytes: usize,
    into: &mut RequestHead,
) -> Result<(), HeadError> {
    let survey = Survey::of(block)?;
    let pseudo = survey.pseudo;
    if pseudo.status.is_some() {
        return Err(MALFORMED);
    }
    let method = match pseudo.method {
        // Most are.
        Some(b"GET") => Method::GET,
        Some(method) => Method::from_bytes(method).map_err(|_| MALFORMED)?,
        None => return Err(MALFORMED),
    };
    let upgrade = pseudo.protocol;
    let method = match (method == Method::CONNECT, upgrade) {
        (false, None) => method,
        (true, Some(_)) => Method::GET,
        // The tunnel of RFC 9113 §8.5 has neither of both, that of RFC 8441 has them like any request.
        (true, None) if pseudo.scheme.is_none() && pseudo.path.is_none() => {
            return Err(Violation::Connect.into());
        }
        (true, None) | (false, Some(_)) => return Err(MALFORMED),
    };
    let (Some(scheme), Some(path)) = (pseudo.scheme, pseudo.path) else { return Err(MALFORMED) };
    let scheme = match scheme {
        b"http" => Some(Scheme::Http),
        b"https" => Some(Scheme::Https),
        _ => return Err(Violation::Target.into()),
    };
    if path.is_empty() {
        return Err(MALFORMED);
    }
    if !matches!(path[0], b'/' | b'*') {
        return Err(Violation::Target.into());
    }
    if path.len() > target_bytes {
        return Err(Violation::TargetTooLong.into());
    }
    let host = host(&survey)?;
    let length = survey.length()?;
    // What follows a CONNECT is no content (RFC 9110 §9.3.6).
    if length.is_some_and(|n| n > 0) && ended || length.is_some() && upgrade.is_some() {
        return Err(MALFORMED);
    }
    if upgrade.is_some_and(|protocol| !protocol.eq_ignore_ascii_case(websocket::PROTOCOL)) {
        return Err(Violation::Protocol.into());
    }
    let expects = survey.expects;
    if expects.is_some_and(|value| !value.eq_ignore_ascii_case(b"100-continue")) {
        return Err(Violation::Expectation.into());
    }
    if method == Method::TRACE && !ended {
        return Err(Violation::TraceContent.into());
    }
    let framing = match length {
        Some(n) => Framing::Length(n),
        None if ended || upgrade.is_some() => Framing::None,
        None => Framing::Chunked,
    };
    let (max_forwards, te_trailers) = (survey.max_forwards.and_then(decimal), survey.te_trailers);
    let counts_forwards = matches!(method, Method::TRACE | Method::OPTIONS);
    room.begin_request(method.as_str().as_bytes(), path);
    room.host(host)?;
    if upgrade.is_some() {
        room.line(b"upgrade", websocket::PROTOCOL, HeaderKind::Upgrade)?;
    }
    room.fields(block, &survey)?;
    let HeadRoom { text, lines, target } = room;
    let (text, lines) = (&text[..], &lines[..]);
    let path_at = method.as_str().len() + 1;
    let path = &text[path_at..path_at + path.len()];
    let target = match RequestTarget::plain_path(path) {
        Some(target) => target,
        None => RequestTarget::parse(&method, path, target)?,
    };
    into.assign(&ParsedRequest {
        is_head: method == Method::HEAD,
        method,
        target: RequestTarget { scheme, ..target },
        version: Version::HTTP_2,
        fields: view(text, lines),
        framing,
        host: lines[0].value(text),
        keep_alive: true,
        expect_continue: expects.is_some() && !ended && upgrade.is_none(),
        upgrade: upgrade.map(|_| lines[1].value(text)),
        te_trailers,
        max_forwards: max_forwards.filter(|_| counts_forwards),
        lists_fields: false,
    });
    Ok(())
}

/// The authority that a request is for: two that differ are none (RFC 9113 §8.3.1).
fn host<'a>(survey: &Survey<'a>) -> Result<&'a [u8], Violation> {
    let host = match (survey.pseudo.authority, survey.host) {
        _ if survey.hosts > 1 => return Err(Violation::DuplicateHost),
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            return Err(Violation::DuplicateHost);
        }
        (Some(host), _) | (None, Some(host)) => host,
        (None, None) => return Err(Violation::MissingHost),
    };
    if host.is_empty() || !valid_host(host) { Err(Violation::Host) } else { Ok(host) }
}

/// What a response answers, as far as that says whether it has content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// HEAD.
    Head,
    /// Extended CONNECT: what follows success is a tunnel's, whatever the response says of its length
    /// (RFC 9110 §8.6).
    Tunnel,
    /// Any other request.
    Other,
}

/// A response of these fields to such a request; `ended`: without content.
///
/// # Errors
/// If it is none.
pub fn response<'s>(
    room: &'s mut HeadRoom,
    block: &FieldBlock,
    ended: bool,
    asked: Asked,
) -> Result<ParsedResponse<'s>, HeadError> {
    let survey = Survey::of(block)?;
    let PseudoFields {
        status: Some(status),
        method: None,
        scheme: None,
        authority: None,
        path: None,
        protocol: None,
    } = survey.pseudo
    else {
        return Err(MALFORMED);
    };
    let code = StatusCode::from_bytes(status).map_err(|_| MALFORMED)?;
    let interim = code.is_informational();
    // There is no other protocol to switch to (RFC 9113 §8.6), and nothing ends with an interim response.
    if code == StatusCode::SWITCHING_PROTOCOLS || (interim && ended) {
        return Err(MALFORMED);
    }
    let opens = asked == Asked::Tunnel && code.is_success();
    let length = if opens { None } else { survey.length()? };
    let no_content = asked == Asked::Head || (matches!(code.as_u16(), 204 | 304) && !opens);
    if length.is_some_and(|n| n > 0) && ended && !no_content {
        return Err(MALFORMED);
    }
    let (framing, content_length) = match length {
        _ if interim || (code == StatusCode::NO_CONTENT && !opens) => (Framing::None, None),
        Some(n) if no_content => (Framing::None, Some(n)),
        Some(n) => (Framing::Length(n), Some(n)),
        None if no_content => (Framing::None, None),
        None if ended => (Framing::Length(0), None),
        None => (Framing::Close, None),
    };
    let has_date = survey.has_date;
    room.begin_response(status);
    room.fields(block, &survey)?;
    Ok(ParsedResponse {
        status: code,
        reason: &[],
        version: Version::HTTP_2,
        fields: view(&room.text, &room.lines),
        framing,
        content_length,
        keep_alive: true,
        keep_alive_timeout: None,
        upgrade: None,
        has_date,
        lists_fields: false,
    })
}

/// Writes the fields of a trailer section that may be forwarded, each as `name: value CRLF`, with an empty
/// line behind them; nothing if there are none.
///
/// # Errors
/// If it is malformed.
pub fn trailers(block: &FieldBlock, out: &mut Vec<u8>) -> Result<(), HeadError> {
    out.clear();
    for field in block.iter() {
        let good = field.good_name && field.good_value && field.pseudo.is_none();
        if !good || field.kind.in_set(CONNECTION_SPECIFIC) {
            return Err(MALFORMED);
        }
        if may_trail(&Field { name: field.name, value: field.value, kind: field.kind }) {
            for piece in [field.name, b": ", field.value, b"\r\n"] {
                out.extend_from_slice(piece);
            }
        }
    }
    if !out.is_empty() {
        out.extend_from_slice(b"\r\n");
    }
    Ok(())
}

fn view<'s>(text: &'s [u8], lines: &'s [FieldLine]) -> Fields<'s> {
    let kinds = lines.iter().fold(0, |kinds, line| kinds | HeaderKind::set(&[line.kind]));
    Fields::new(text, lines, kinds, true)
}

impl HeadRoom {
    // Pieces of known length are a few moves each.

    #[inline(always)]
    fn begin_request(&mut self, method: &[u8], path: &[u8]) {
        self.text.clear();
        self.lines.clear();
        self.text.extend_from_slice(method);
        self.text.push(b' ');
        self.text.extend_from_slice(path);
        self.text.extend_from_slice(b" HTTP/2\r\n");
    }

    fn begin_response(&mut self, status: &[u8]) {
        self.text.clear();
        self.lines.clear();
        self.text.extend_from_slice(b"HTTP/2 ");
        self.text.extend_from_slice(status);
        self.text.extend_from_slice(b" \r\n");
    }

    #[inline(always)]
    fn host(&mut self, host: &[u8]) -> Result<(), Violation> {
        let at = self.text.len();
        self.text.extend_from_slice(b"host: ");
        self.text.extend_from_slice(host);
        self.text.extend_from_slice(b"\r\n");
        self.index(at, b"host".len(), host.len(), HeaderKind::Host)
    }

    fn line(&mut self, name: &[u8], value: &[u8], kind: HeaderKind) -> Result<(), Violation> {
        let at = self.text.len();
        for piece in [name, b": ", value, b"\r\n"] {
            self.text.extend_from_slice(piece);
        }
        self.index(at, name.len(), value.len(), kind)
    }

    /// A line lies in the text, or will.
    fn index(&mut self, at: usize, name: usize, value: usize, kind: HeaderKind) -> Result<(), Violation> {
        let value_end = at + name + 2 + value;
        // Two bytes each for its end and the empty line.
        let Ok(_) = u16::try_from(value_end + 4) else { return Err(Violation::HeadTooLarge) };
        self.lines.push(FieldLine {
            name: at as u16,
            name_len: name as u16,
            value: (at + name + 2) as u16,
            value_end: value_end as u16,
            kind,
            plain: true,
        });
        Ok(())
    }

    /// The fields of a block behind the start line, without `Host`, and the empty line.
    fn fields(&mut self, block: &FieldBlock, survey: &Survey<'_>) -> Result<(), Violation> {
        if survey.hosts == 0 && survey.cookies <= 1 {
            if let Some(from) = survey.regular_at {
                let shift = self.text.len();
                self.text.extend_from_slice(&block.text()[from..]);
                for field in block.regular() {
                    self.index(field.at - from + shift, field.name_len, field.value_len, field.kind)?;
                }
            }
        } else {
            let regular = block.iter().filter(|field| field.pseudo.is_none());
            for field in regular.filter(|field| field.kind != HeaderKind::Host) {
                if field.kind == HeaderKind::Cookie && survey.cookies > 1 {
                    self.cookie(block)?;
                } else {
                    self.line(field.name, field.value, field.kind)?;
                }
            }
        }
        self.text.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// The crumbs of a cookie in one field (RFC 9113 §8.2.3), in the place of the first.
    fn cookie(&mut self, block: &FieldBlock) -> Result<(), Violation> {
        if self.lines.iter().any(|line| line.kind == HeaderKind::Cookie) {
            return Ok(());
        }
        let at = self.text.len();
        self.text.extend_from_slice(b"cookie: ");
        for (n, crumb) in block.iter().filter(|field| field.kind == HeaderKind::Cookie).enumerate() {
            self.text.extend_from_slice(if n > 0 { b"; " } else { b"" });
            self.text.extend_from_slice(crumb.value);
        }
        let value = self.text.len() - at - b"cookie: ".len();
        self.text.extend_from_slice(b"\r\n");
        self.index(at, b"cookie".len(), value, HeaderKind::Cookie)
    }
}
