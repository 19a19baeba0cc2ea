//! The head of a response, whatever wire it came by and whatever wire it leaves by; our own are made here
//! too.

use super::field_list::{FieldList, HeadFull, Span, WrittenField};
use super::{Fields, Framing, HeaderKind, ParsedResponse, StatusCode, Version, websocket};

/// The head of a response.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    pub(crate) fields: FieldList,
    pub(crate) status: StatusCode,
    pub(crate) version: Version,
    pub(crate) framing: Framing,
    /// `Content-Length` as a statement, also where no content follows.
    pub(crate) content_length: Option<u64>,
    reason: Span,
    upgrade: Option<Span>,
    pub(crate) has_date: bool,
    /// `Connection` named fields.
    pub(crate) lists_fields: bool,
    /// The start line can be forwarded as it was received.
    pub(crate) line_as_received: bool,
    /// No backend made it.
    pub(crate) is_local: bool,
    /// `Keep-Alive: timeout=`, in seconds.
    pub(crate) keep_alive_secs: Option<u32>,
}

impl Default for ResponseHead {
    fn default() -> Self {
        Self {
            fields: FieldList::default(),
            status: StatusCode::OK,
            version: Version::HTTP_11,
            framing: Framing::None,
            content_length: None,
            reason: Span::default(),
            upgrade: None,
            has_date: false,
            lists_fields: false,
            line_as_received: false,
            is_local: false,
            keep_alive_secs: None,
        }
    }
}

impl ResponseHead {
    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Changes the status; the reason phrase becomes that of the new one.
    pub fn set_status(&mut self, status: StatusCode) {
        self.status = status;
        self.line_as_received = false;
        self.reason = self.fields.append(reason_phrase(status));
    }

    /// The reason phrase, maybe empty.
    #[must_use]
    pub fn reason(&self) -> &[u8] {
        self.reason.get(&self.fields.bytes)
    }

    /// How the content that follows is framed: nothing for 1xx, 204, 304 and responses to HEAD.
    #[must_use]
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Its fields in order.
    #[must_use]
    pub fn fields(&self) -> Fields<'_> {
        self.fields.view()
    }

    /// The value of the first field of this kind.
    #[must_use]
    pub fn field(&self, kind: HeaderKind) -> Option<&[u8]> {
        self.fields.view().get(kind)
    }

    /// Replaces every field of this name by one; framing and hop-by-hop fields are made anew all the same.
    ///
    /// # Errors
    /// If the head has no room for it.
    pub fn set_field(&mut self, name: &[u8], value: &[u8]) -> Result<(), HeadFull> {
        self.remove_field(name);
        self.add_field(name, value)
    }

    /// Adds a field behind the others.
    ///
    /// # Errors
    /// If the head has no room for it.
    pub fn add_field(&mut self, name: &[u8], value: &[u8]) -> Result<(), HeadFull> {
        self.fields.add(name, value)?;
        self.has_date |= name.eq_ignore_ascii_case(b"date");
        Ok(())
    }

    /// [`ResponseHead::add_field`] of a field that was written before, in the place of all others of its name
    /// if it `replaces` them.
    pub(crate) fn put_written(&mut self, field: &WrittenField, replaces: bool) -> Result<(), HeadFull> {
        if replaces {
            self.fields.remove(field.name());
        }
        self.fields.add_written(field)?;
        self.has_date |= field.name().eq_ignore_ascii_case(b"date");
        Ok(())
    }

    /// Removes every field of this name, in any case.
    pub fn remove_field(&mut self, name: &[u8]) {
        self.fields.remove(name);
        self.has_date &= !name.eq_ignore_ascii_case(b"date");
    }

    /// `Upgrade` of a 101 or 426.
    #[must_use]
    pub(crate) fn upgrade(&self) -> Option<&[u8]> {
        self.upgrade.map(|protocols| protocols.get(&self.fields.bytes))
    }

    /// A 1xx other than 101: another response follows.
    #[must_use]
    pub(crate) fn is_interim(&self) -> bool {
        self.status.is_informational() && self.status != StatusCode::SWITCHING_PROTOCOLS
    }

    /// Whether a response of this status may have content (RFC 9110 §6.4.1).
    #[must_use]
    pub(crate) fn allows_content(&self) -> bool {
        !self.status.is_informational()
            && !matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
    }

    /// Other content of `len` bytes follows: what was said of the old one goes.
    pub(crate) fn replace_content(&mut self, len: u64, content_type: &[u8]) {
        self.fields.remove_any(OF_CONTENT);
        let len = self.content_length.filter(|_| crate::planted::planted!(148)).unwrap_or(len);
        self.content_length = Some(len);
        if self.framing != Framing::None {
            self.framing = Framing::Length(len);
        }
        // A head that is full has no type for its content.
        let _ = self.fields.add(b"Content-Type", content_type);
    }

    /// Takes a copy of a head that was parsed.
    #[inline(always)]
    pub(crate) fn assign(&mut self, parsed: &ParsedResponse<'_>) {
        let raw = parsed.raw();
        self.fields.assign(&parsed.fields);
        self.status = parsed.status;
        self.version = parsed.version;
        self.framing = parsed.framing;
        self.content_length = parsed.content_length;
        self.reason = Span::of(parsed.reason, raw);
        self.upgrade = parsed.upgrade.map(|protocols| Span::of(protocols, raw));
        self.has_date = parsed.has_date;
        self.lists_fields = parsed.lists_fields;
        self.line_as_received =
            parsed.version == Version::HTTP_11 && self.fields.start_line().len() == 13 + parsed.reason.len();
        self.is_local = false;
        self.keep_alive_secs = parsed.keep_alive_timeout;
    }

    /// Something changes the content on its way. That there is none, or that it is chunked, stays known.
    pub(crate) fn length_unknown(&mut self) {
        self.content_length = None;
        if matches!(self.framing, Framing::Length(_)) {
            self.framing = Framing::Close;
        }
    }

    /// It came on a stream, which ends by itself.
    pub(crate) fn on_stream(&mut self, ended: bool) {
        self.upgrade = None;
        if ended && self.framing == Framing::Close {
            self.framing = Framing::Length(0);
        }
        // HTTP/2 has none, and clients of HTTP/1.1 show it.
        if self.reason().is_empty() {
            self.reason = self.fields.append(reason_phrase(self.status));
        }
    }

    /// A WebSocket was asked for by extended CONNECT, and is there: what HTTP/1.1 says of that, with this
    /// answer to the key of the request (RFC 8441 §5).
    ///
    /// # Errors
    /// If the head has no room for it.
    pub(crate) fn opens_websocket(&mut self, accept: &[u8]) -> Result<(), HeadFull> {
        self.set_status(StatusCode::SWITCHING_PROTOCOLS);
        (self.framing, self.content_length) = (Framing::None, None);
        self.upgrade = Some(self.fields.append(websocket::PROTOCOL));
        self.set_field(websocket::ACCEPT_FIELD, accept)
    }

    /// Begins a response of our own, with content of `len` bytes.
    pub(crate) fn begin(&mut self, status: StatusCode, len: u64) {
        let mut fields = std::mem::take(&mut self.fields);
        if !crate::planted::planted!(11) {
            fields.clear();
        }
        *self = Self {
            fields,
            status,
            framing: Framing::Length(len),
            content_length: Some(len),
            is_local: true,
            ..Self::default()
        };
        self.reason = self.fields.append(reason_phrase(status));
    }
}

/// Fields that describe the content of a response, or a part of it (RFC 9110 §8, §14; RFC 9530).
const OF_CONTENT: &[&[u8]] = &[
    b"Content-Type",
    b"Content-Length",
    b"Content-Encoding",
    b"Content-Language",
    b"Content-Location",
    b"Content-Disposition",
    b"Content-Range",
    b"Content-MD5",
    b"Content-Digest",
    b"Repr-Digest",
    b"Digest",
    b"Accept-Ranges",
    b"ETag",
    b"Last-Modified",
    b"Trailer",
];

impl From<&ParsedResponse<'_>> for ResponseHead {
    fn from(parsed: &ParsedResponse<'_>) -> Self {
        let mut head = Self::default();
        head.assign(parsed);
        head
    }
}

/// The phrase that RFC 9110 §15 has for it; two of `http` are those of older RFCs.
pub(crate) fn reason_phrase(status: StatusCode) -> &'static [u8] {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => b"Content Too Large",
        other if other.as_u16() == 499 => b"Client Closed Request",
        other => other.canonical_reason().unwrap_or("Error").as_bytes(),
    }
}
