//! The head of a request, whatever wire it came by and whatever wire it leaves by. It owns its bytes, so an
//! exchange keeps it as long as it needs it: for routing, middlewares, lookups, retries and the log.

use super::field_list::{FieldList, HeadFull, Span, WrittenField};
use super::target::Form;
use super::{Fields, Framing, HeaderKind, Method, ParsedRequest, Scheme, Version, websocket};

/// The head of a request.
#[derive(Clone, Debug)]
pub struct RequestHead {
    pub(crate) fields: FieldList,
    pub(crate) method: Method,
    pub(crate) version: Version,
    pub(crate) framing: Framing,
    pub(crate) scheme: Option<Scheme>,
    target: Span,
    path: Span,
    query: Option<Span>,
    host: Span,
    upgrade: Option<Span>,
    /// `Max-Forwards` of OPTIONS and TRACE.
    pub(crate) max_forwards: Option<u64>,
    /// The client waits for a 100 before it sends its content.
    pub(crate) expect_continue: bool,
    pub(crate) te_trailers: bool,
    /// `Connection` named fields.
    pub(crate) lists_fields: bool,
    /// The start line can be forwarded as it was received.
    pub(crate) line_as_received: bool,
}

impl Default for RequestHead {
    /// A head of which nothing is known: what an exchange has whose head could not be read.
    fn default() -> Self {
        Self {
            fields: FieldList::default(),
            method: Method::GET,
            version: Version::HTTP_11,
            framing: Framing::None,
            scheme: None,
            target: Span::default(),
            path: Span::default(),
            query: None,
            host: Span::default(),
            upgrade: None,
            max_forwards: None,
            expect_continue: false,
            te_trailers: false,
            lists_fields: false,
            line_as_received: false,
        }
    }
}

impl RequestHead {
    /// The method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The version that the client spoke.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// How long its content is, as the head declares it.
    #[must_use]
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Path and query as they are forwarded: normalised, or `*`.
    #[must_use]
    pub fn target(&self) -> &[u8] {
        self.target.get(&self.fields.bytes)
    }

    /// Path and query byte for byte as they were sent, printable ASCII: for redirects. It begins with `/`; of
    /// `*`, and of a target in the absolute form without a path, it has but what there is.
    #[must_use]
    pub fn sent_target(&self) -> &[u8] {
        let mut words = self.fields.start_line().split(|b| *b == b' ').skip(1);
        let sent = words.next().unwrap_or_default();
        let authority = match memchr::memmem::find(sent, b"://") {
            Some(at) if !sent.starts_with(b"/") => &sent[at + 3..],
            _ => return sent,
        };
        let end = authority.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(authority.len());
        &authority[end..]
    }

    /// The normalised path: it begins with `/`, or is `*`.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        self.path.get(&self.fields.bytes)
    }

    /// What follows the first `?`.
    #[must_use]
    pub fn query(&self) -> Option<&[u8]> {
        self.query.map(|query| query.get(&self.fields.bytes))
    }

    /// The authority (RFC 9110 §7.2): that of the target, else `Host`. Empty only for HTTP/1.0 without one.
    #[must_use]
    pub fn host(&self) -> &[u8] {
        self.host.get(&self.fields.bytes)
    }

    /// The protocols of `Upgrade`, if the request asks for one that may pass (RFC 9110 §7.8).
    #[must_use]
    pub fn upgrade(&self) -> Option<&[u8]> {
        self.upgrade.map(|protocols| protocols.get(&self.fields.bytes))
    }

    /// It asks for a WebSocket and for nothing else (RFC 6455 §4.1), as any wire can have it.
    #[inline]
    pub(crate) fn opens_websocket(&self) -> bool {
        self.upgrade.is_some() && self.is_websocket_handshake()
    }

    #[cold]
    fn is_websocket_handshake(&self) -> bool {
        let mut protocols = self.upgrade().unwrap_or_default().split(|b| *b == b',');
        self.method == Method::GET
            && self.framing.is_empty()
            && protocols.any(|protocol| protocol.trim_ascii().eq_ignore_ascii_case(websocket::PROTOCOL))
            && websocket::has_key(self.fields())
    }

    /// It came as an extended CONNECT of HTTP/2 (RFC 8441).
    #[inline]
    pub(crate) fn is_extended_connect(&self) -> bool {
        self.upgrade.is_some() && self.version == Version::HTTP_2
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

    /// Replaces every field of this name by one. Framing, hop-by-hop fields and those that a proxy sets
    /// itself (`X-Forwarded-*`, `X-Real-IP`, `X-Request-ID`, `Host`) are made anew on every hop, whatever
    /// is set here.
    ///
    /// # Errors
    /// If the head has no room for it.
    pub fn set_field(&mut self, name: &[u8], value: &[u8]) -> Result<(), HeadFull> {
        self.fields.remove(name);
        self.fields.add(name, value)
    }

    /// Adds a field behind the others.
    ///
    /// # Errors
    /// If the head has no room for it.
    pub fn add_field(&mut self, name: &[u8], value: &[u8]) -> Result<(), HeadFull> {
        self.fields.add(name, value)
    }

    /// [`RequestHead::add_field`] of a field that was written before, in the place of all others of its name
    /// if it `replaces` them.
    pub(crate) fn put_written(&mut self, field: &WrittenField, replaces: bool) -> Result<(), HeadFull> {
        if replaces {
            self.fields.remove(field.name());
        }
        self.fields.add_written(field)
    }

    /// Removes every field of this name, in any case.
    pub fn remove_field(&mut self, name: &[u8]) {
        self.fields.remove(name);
    }

    /// Changes path and query: `target` is in origin form, normalised, without a fragment.
    pub fn set_target(&mut self, target: &[u8]) {
        debug_assert!(target.starts_with(b"/"), "a target in origin form");
        let whole = self.fields.append(target);
        (self.target, self.line_as_received) = (whole, false);
        let mark = memchr::memchr(b'?', target);
        self.path = whole.part(0, mark.unwrap_or(target.len()));
        self.query = mark.map(|mark| whole.part(mark + 1, target.len()));
    }

    /// Takes a copy of a head that was parsed.
    #[inline(always)]
    pub(crate) fn assign(&mut self, parsed: &ParsedRequest<'_>) {
        let raw = parsed.raw();
        self.fields.assign(&parsed.fields);
        let target = &parsed.target;
        if self.method != parsed.method {
            self.method.clone_from(&parsed.method);
        }
        self.version = parsed.version;
        self.framing = parsed.framing;
        self.scheme = target.scheme;
        self.target = Span::of(target.normalised, raw);
        let as_received = target.normalised.is_empty() || self.target != Span::default();
        if as_received {
            self.path = Span::of(target.path, raw);
            self.query = target.query.map(|query| Span::of(query, raw));
        } else {
            self.keep_target(target.normalised, target.query.is_some());
        }
        self.line_as_received =
            as_received && parsed.version == Version::HTTP_11 && target.form == Form::Origin;
        self.host = Span::of(parsed.host, raw);
        self.upgrade = parsed.upgrade.map(|protocols| Span::of(protocols, raw));
        self.max_forwards = parsed.max_forwards;
        self.expect_continue = parsed.expect_continue;
        self.te_trailers = parsed.te_trailers;
        self.lists_fields = parsed.lists_fields;
    }

    /// Becomes like another one, in the memory that it has.
    pub(crate) fn copy_from(&mut self, other: &Self) {
        let (mut fields, mut method) = (std::mem::take(&mut self.fields), std::mem::take(&mut self.method));
        fields.copy_from(&other.fields);
        if method != other.method {
            method.clone_from(&other.method);
        }
        *self = Self { fields, method, ..*other };
    }

    /// It came on a stream, which ends by itself. Only extended CONNECT makes a tunnel of one: what
    /// follows that is no content.
    pub(crate) fn on_stream(&mut self, ended: bool) {
        if self.is_extended_connect() {
            return;
        }
        self.upgrade = None;
        match self.framing {
            // A client that says that there is none says so to the backend, too.
            Framing::Length(0) => {}
            _ if ended => self.framing = Framing::None,
            Framing::None => self.framing = Framing::Chunked,
            Framing::Length(_) | Framing::Chunked | Framing::Close => {}
        }
    }

    /// A target that lies elsewhere than the head: it was normalised, or is one that stands for another.
    #[cold]
    fn keep_target(&mut self, normalised: &[u8], has_query: bool) {
        if normalised.starts_with(b"/") {
            self.set_target(normalised);
            debug_assert_eq!(self.query.is_some(), has_query);
        } else {
            self.target = self.fields.append(normalised);
            (self.path, self.query) = (self.target, None);
        }
    }

    /// Forgets everything but the memory.
    pub(crate) fn reset(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
    }

    /// Bytes of memory that it holds.
    pub(crate) fn capacity(&self) -> usize {
        self.fields.bytes.capacity()
    }
}

impl From<&ParsedRequest<'_>> for RequestHead {
    fn from(parsed: &ParsedRequest<'_>) -> Self {
        let mut head = Self::default();
        head.assign(parsed);
        head
    }
}
