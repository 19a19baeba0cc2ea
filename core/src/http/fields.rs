//! Fields: what each is to a gateway, decided once when the head is parsed.

/// What a field is to a gateway. Everything that forwarding, framing or routing looks for has a kind of its
/// own; the rest is `Other`.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is named after its field")]
pub enum HeaderKind {
    /// Of no meaning to a gateway: it is forwarded as it is.
    Other,
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    KeepAlive,
    ProxyConnection,
    Te,
    Trailer,
    Upgrade,
    Expect,
    MaxForwards,
    Date,
    Server,
    Via,
    Cookie,
    SetCookie,
    Authorization,
    ProxyAuthorization,
    ProxyAuthenticate,
    UserAgent,
    Referer,
    Accept,
    AcceptEncoding,
    ContentType,
    ContentEncoding,
    CacheControl,
    RetryAfter,
    XForwardedFor,
    XForwardedProto,
    XForwardedHost,
    XForwardedPort,
    XForwardedServer,
    XRealIp,
    XRequestId,
    SecWebSocketKey,
    SecWebSocketAccept,
    /// What else tells of a hop before this one, or asks for another resource than the target does:
    /// `Forwarded`, `X-Forwarded-Ssl`, `X-Forwarded-Scheme`, `X-Forwarded-Prefix`, `X-Client-IP`,
    /// `True-Client-IP`, `X-Original-URL`, `X-Rewrite-URL`, and `Proxy`, which CGI takes for its own proxy.
    HopClaim,
    /// `X-Client-Subject` and `X-Client-Verify`, which tell of the client's certificate.
    ClientCertificate,
    /// Another spelling (`_` for `-`) of a field that the proxy sets or that frames the message: never
    /// forwarded.
    UnderscoreAlias,
    /// Listed in `Connection`: meant for this hop alone, never forwarded (RFC 9110 §7.6.1).
    ConnectionListed,
}

/// A field line: the name as it was sent, the value without the blanks around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// As sent; compare without regard to case.
    pub name: &'a [u8],
    /// Without leading and trailing blanks.
    pub value: &'a [u8],
    /// What the field is to a gateway.
    pub kind: HeaderKind,
}

/// Where a field line lies in its head, which is shorter than 64 KiB: offsets from the head's first byte.
#[derive(Clone, Copy, Debug)]
pub struct FieldLine {
    /// Where the name begins, and with it the line.
    pub name: u16,
    /// Bytes of the name.
    pub name_len: u16,
    /// Where the value begins, without the blanks before it.
    pub value: u16,
    /// Where the value ends, without the blanks behind it.
    pub value_end: u16,
    /// What the field is to a gateway.
    pub kind: HeaderKind,
    /// The line is written `Name: value`, with one blank and no other, so that it may be forwarded as it is.
    pub plain: bool,
}

impl FieldLine {
    /// A line without name and value, for an index that is not filled yet.
    pub(crate) const EMPTY: Self =
        Self { name: 0, name_len: 0, value: 0, value_end: 0, kind: HeaderKind::Other, plain: true };

    /// The name, in the head that this line lies in.
    #[inline]
    #[must_use]
    pub fn name<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        &head[usize::from(self.name)..][..usize::from(self.name_len)]
    }

    /// The value, in the head that this line lies in.
    #[inline]
    #[must_use]
    pub fn value<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        &head[usize::from(self.value)..usize::from(self.value_end)]
    }

    #[inline]
    pub(crate) fn field<'a>(&self, head: &'a [u8]) -> Field<'a> {
        Field { name: self.name(head), value: self.value(head), kind: self.kind }
    }
}

/// The fields of a head in their order: a view over the head's bytes and the lines found in them.
#[derive(Clone, Copy)]
pub struct Fields<'a> {
    /// The bytes that names and values lie in: start line, field lines and empty line.
    raw: &'a [u8],
    lines: &'a [FieldLine],
    /// The kinds of fields that are there, see [`HeaderKind::set`].
    kinds: u64,
    /// Every line is [plain](FieldLine::plain).
    plain: bool,
}

impl<'a> Fields<'a> {
    /// The fields of the head `raw` at `lines`, which `kinds` and `plain` sum up.
    #[inline]
    pub(crate) fn new(raw: &'a [u8], lines: &'a [FieldLine], kinds: u64, plain: bool) -> Self {
        debug_assert_eq!(kinds, lines.iter().fold(0, |kinds, line| kinds | HeaderKind::set(&[line.kind])));
        debug_assert!(!plain || lines.iter().all(|line| line.plain));
        Self { raw, lines, kinds, plain }
    }

    /// The bytes of the head, from the start line to the empty line, both included.
    #[inline]
    #[must_use]
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// Where the field lines lie in [`Fields::raw`].
    #[inline]
    #[must_use]
    pub fn lines(&self) -> &'a [FieldLine] {
        self.lines
    }

    /// The kinds of fields that are there: bit `n` for the kind whose number is `n`.
    #[inline]
    #[must_use]
    pub fn kinds(&self) -> u64 {
        self.kinds
    }

    /// Every line is [plain](FieldLine::plain).
    #[inline]
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.plain
    }

    /// The number of field lines.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there are no field lines.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Every field line in order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'a>> + use<'a> {
        let (head, lines) = (self.raw, self.lines);
        lines.iter().map(|line| line.field(head))
    }

    /// Whether there is a field of this kind.
    #[inline]
    #[must_use]
    pub fn has(&self, kind: HeaderKind) -> bool {
        kind.in_set(self.kinds)
    }

    /// The value of the first field of this kind.
    #[inline]
    #[must_use]
    pub fn get(&self, kind: HeaderKind) -> Option<&'a [u8]> {
        if self.has(kind) { self.find(kind) } else { None }
    }

    #[inline]
    fn find(&self, kind: HeaderKind) -> Option<&'a [u8]> {
        self.lines.iter().find(|l| l.kind == kind).map(|l| l.value(self.raw))
    }

    /// The values of every field with this name, in any case; for matchers.
    pub fn named<'n>(&self, name: &'n [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.iter().filter(move |f| f.name.eq_ignore_ascii_case(name)).map(|f| f.value)
    }
}

impl std::fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl HeaderKind {
    /// The kind of a field of this name, which is a token. Never `ConnectionListed`: that depends on the rest
    /// of the head.
    #[must_use]
    #[inline(always)]
    pub fn of(name: &[u8]) -> Self {
        let kind = Self::exact(name);
        if kind == Self::Other && matches!(name.len(), 9..=18) && matches!(name[0] | 0x20, b'c' | b't' | b'x')
        {
            return Self::alias(name);
        }
        kind
    }

    /// Compares lengths first: most names differ from all known ones by their length alone.
    #[inline(always)]
    fn exact(n: &[u8]) -> Self {
        match n.len() {
            2 if is!(n, b"te") => Self::Te,
            3 if is!(n, b"via") => Self::Via,
            5 if is!(n, b"proxy") => Self::HopClaim,
            4 if is!(n, b"host") => Self::Host,
            4 if is!(n, b"date") => Self::Date,
            6 if is!(n, b"accept") => Self::Accept,
            6 if is!(n, b"cookie") => Self::Cookie,
            6 if is!(n, b"server") => Self::Server,
            6 if is!(n, b"expect") => Self::Expect,
            7 if is!(n, b"referer") => Self::Referer,
            7 if is!(n, b"upgrade") => Self::Upgrade,
            7 if is!(n, b"trailer") => Self::Trailer,
            9 if is!(n, b"x-real-ip") => Self::XRealIp,
            9 if is!(n, b"forwarded") => Self::HopClaim,
            10 if is!(n, b"user-agent") => Self::UserAgent,
            10 if is!(n, b"connection") => Self::Connection,
            10 if is!(n, b"set-cookie") => Self::SetCookie,
            10 if is!(n, b"keep-alive") => Self::KeepAlive,
            11 if is!(n, b"retry-after") => Self::RetryAfter,
            11 if is!(n, b"x-client-ip") => Self::HopClaim,
            12 if is!(n, b"content-type") => Self::ContentType,
            12 if is!(n, b"x-request-id") => Self::XRequestId,
            12 if is!(n, b"max-forwards") => Self::MaxForwards,
            13 if is!(n, b"cache-control") => Self::CacheControl,
            13 if is!(n, b"authorization") => Self::Authorization,
            13 if is!(n, b"x-rewrite-url") => Self::HopClaim,
            14 if is!(n, b"content-length") => Self::ContentLength,
            14 if is!(n, b"x-original-url") || is!(n, b"true-client-ip") => Self::HopClaim,
            15 if is!(n, b"accept-encoding") => Self::AcceptEncoding,
            15 if is!(n, b"x-forwarded-for") => Self::XForwardedFor,
            15 if is!(n, b"x-forwarded-ssl") => Self::HopClaim,
            15 if is!(n, b"x-client-verify") => Self::ClientCertificate,
            16 if is!(n, b"x-client-subject") => Self::ClientCertificate,
            16 if is!(n, b"content-encoding") => Self::ContentEncoding,
            16 if is!(n, b"x-forwarded-host") => Self::XForwardedHost,
            16 if is!(n, b"x-forwarded-port") => Self::XForwardedPort,
            16 if is!(n, b"proxy-connection") => Self::ProxyConnection,
            17 if is!(n, b"transfer-encoding") => Self::TransferEncoding,
            17 if is!(n, b"x-forwarded-proto") => Self::XForwardedProto,
            17 if is!(n, b"sec-websocket-key") => Self::SecWebSocketKey,
            18 if is!(n, b"x-forwarded-server") => Self::XForwardedServer,
            18 if is!(n, b"x-forwarded-scheme") || is!(n, b"x-forwarded-prefix") => Self::HopClaim,
            18 if is!(n, b"proxy-authenticate") => Self::ProxyAuthenticate,
            19 if is!(n, b"proxy-authorization") => Self::ProxyAuthorization,
            20 if is!(n, b"sec-websocket-accept") => Self::SecWebSocketAccept,
            _ => Self::Other,
        }
    }

    /// CGI-like interfaces turn `-` into `_`, some of them every other sign too. Behind one of those a
    /// backend would take such a name for the field that the proxy sets, or for framing.
    #[cold]
    fn alias(name: &[u8]) -> Self {
        let mut folded = [0; 18];
        let folded = &mut folded[..name.len()];
        for (to, &b) in folded.iter_mut().zip(name) {
            *to = if b.is_ascii_alphanumeric() { b } else { b'-' };
        }
        if Self::exact(folded).is_guarded() { Self::UnderscoreAlias } else { Self::Other }
    }

    /// Set by the proxy, or framing: no other spelling of it may pass.
    const fn is_guarded(self) -> bool {
        self.in_set(Self::GUARDED)
    }

    const GUARDED: u64 = Self::set(&[
        Self::ContentLength,
        Self::TransferEncoding,
        Self::XForwardedFor,
        Self::XForwardedProto,
        Self::XForwardedHost,
        Self::XForwardedPort,
        Self::XForwardedServer,
        Self::XRealIp,
        Self::XRequestId,
        Self::HopClaim,
        Self::ClientCertificate,
    ]);

    /// Whether a `Connection` option of this name removes the field. Framing, routing, credentials and what
    /// the proxy sets stay: whoever lists those wants them kept from the backend's checks.
    pub(crate) const fn may_be_connection_listed(self) -> bool {
        const STAY: u64 = HeaderKind::GUARDED
            | HeaderKind::set(&[
                HeaderKind::Host,
                HeaderKind::Connection,
                HeaderKind::Via,
                HeaderKind::Cookie,
                HeaderKind::SetCookie,
                HeaderKind::Authorization,
                HeaderKind::ProxyAuthorization,
                HeaderKind::ProxyAuthenticate,
                HeaderKind::UnderscoreAlias,
            ]);
        !self.in_set(STAY)
    }

    /// A set of kinds: bit `n` for the kind whose number is `n`.
    #[must_use]
    pub const fn set(members: &[Self]) -> u64 {
        let mut set = 0;
        let mut i = 0;
        while i < members.len() {
            set |= 1 << members[i] as u32;
            i += 1;
        }
        set
    }

    /// Whether this kind is in a set of [`HeaderKind::set`].
    #[inline]
    #[must_use]
    pub const fn in_set(self, set: u64) -> bool {
        set >> self as u32 & 1 == 1
    }
}

/// A lower-case name or value to compare others with in any case, and where it has letters.
pub(crate) struct Lower<const N: usize> {
    text: [u8; N],
    /// The bit that tells lower case from upper, at each letter; 0 elsewhere.
    case: [u8; N],
}

impl<const N: usize> Lower<N> {
    pub(crate) const fn new(text: &[u8; N]) -> Self {
        let mut case = [0; N];
        let mut at = 0;
        while at < N {
            case[at] = if text[at].is_ascii_lowercase() { 0x20 } else { 0 };
            at += 1;
        }
        Self { text: *text, case }
    }

    /// Whether `name`, which has the same length, is this one in any case.
    #[inline(always)]
    pub(crate) fn is(&self, name: &[u8]) -> bool {
        let Some(name) = name.first_chunk::<N>() else { return false };
        let eight = |b: &[u8; N], at: usize| u64::from_le_bytes(std::array::from_fn(|i| b[at + i]));
        let four = |b: &[u8; N], at: usize| u32::from_le_bytes(std::array::from_fn(|i| b[at + i]));
        let eights = |at: usize| (eight(name, at) | eight(&self.case, at)) ^ eight(&self.text, at);
        let fours = |at: usize| (four(name, at) | four(&self.case, at)) ^ four(&self.text, at);
        match N {
            17.. => eights(0) | eights(8) | eights(N - 8) == 0,
            9..=16 => eights(0) | eights(N - 8) == 0,
            8 => eights(0) == 0,
            4.. => fours(0) | fours(N - 4) == 0,
            _ => (0..N).all(|at| name[at] | self.case[at] == self.text[at]),
        }
    }
}

/// Whether a name or value of the same length is this lower-case text in any case.
macro_rules! is {
    ($name:expr, $text:literal) => {
        const { $crate::http::fields::Lower::new($text) }.is($name)
    };
}
pub(crate) use is;

/// tchar (RFC 9110 §5.6.2).
#[inline]
pub(crate) const fn is_token_char(b: u8) -> bool {
    b.is_ascii_alphanumeric()
        || matches!(b, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

/// Whether `text` is a token (RFC 9110 §5.6.2).
pub(crate) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&b| is_token_char(b))
}

#[cfg(test)]
mod tests {
    use super::HeaderKind;

    #[test]
    fn names() {
        let table: &[(&str, HeaderKind)] = &[
            ("TE", HeaderKind::Te),
            ("via", HeaderKind::Via),
            ("HOST", HeaderKind::Host),
            ("Date", HeaderKind::Date),
            ("cOOkie", HeaderKind::Cookie),
            ("Server", HeaderKind::Server),
            ("Expect", HeaderKind::Expect),
            ("Accept", HeaderKind::Accept),
            ("Upgrade", HeaderKind::Upgrade),
            ("Trailer", HeaderKind::Trailer),
            ("Referer", HeaderKind::Referer),
            ("X-Real-IP", HeaderKind::XRealIp),
            ("Connection", HeaderKind::Connection),
            ("Keep-Alive", HeaderKind::KeepAlive),
            ("Set-Cookie", HeaderKind::SetCookie),
            ("User-Agent", HeaderKind::UserAgent),
            ("Retry-After", HeaderKind::RetryAfter),
            ("Content-Type", HeaderKind::ContentType),
            ("X-Request-ID", HeaderKind::XRequestId),
            ("Max-Forwards", HeaderKind::MaxForwards),
            ("Cache-Control", HeaderKind::CacheControl),
            ("Authorization", HeaderKind::Authorization),
            ("CONTENT-LENGTH", HeaderKind::ContentLength),
            ("Accept-Encoding", HeaderKind::AcceptEncoding),
            ("X-Forwarded-For", HeaderKind::XForwardedFor),
            ("Content-Encoding", HeaderKind::ContentEncoding),
            ("X-Forwarded-Host", HeaderKind::XForwardedHost),
            ("X-Forwarded-Port", HeaderKind::XForwardedPort),
            ("Proxy-Connection", HeaderKind::ProxyConnection),
            ("Transfer-Encoding", HeaderKind::TransferEncoding),
            ("X-Forwarded-Proto", HeaderKind::XForwardedProto),
            ("X-Forwarded-Server", HeaderKind::XForwardedServer),
            ("Proxy-Authenticate", HeaderKind::ProxyAuthenticate),
            ("Proxy-Authorization", HeaderKind::ProxyAuthorization),
            ("Sec-WebSocket-Key", HeaderKind::SecWebSocketKey),
            ("Sec-WebSocket-Accept", HeaderKind::SecWebSocketAccept),
            // Other spellings of what we set.
            ("Content_Length", HeaderKind::UnderscoreAlias),
            ("transfer_encoding", HeaderKind::UnderscoreAlias),
            ("X_Forwarded_For", HeaderKind::UnderscoreAlias),
            ("X_FORWARDED-PROTO", HeaderKind::UnderscoreAlias),
            ("x.forwarded.host", HeaderKind::UnderscoreAlias),
            ("X_Real_IP", HeaderKind::UnderscoreAlias),
            ("X-Request_ID", HeaderKind::UnderscoreAlias),
            ("X_Forwarded_Server", HeaderKind::UnderscoreAlias),
            ("X-Forwarded_Port", HeaderKind::UnderscoreAlias),
            // Near misses.
            ("", HeaderKind::Other),
            ("a", HeaderKind::Other),
            ("Hos", HeaderKind::Other),
            ("Hosts", HeaderKind::Other),
            ("Content-Lengt", HeaderKind::Other),
            ("Content-Lengthh", HeaderKind::Other),
            ("Content-Lenght", HeaderKind::Other),
            ("XForwarded-For", HeaderKind::Other),
            ("X-Forwarded-By-", HeaderKind::Other),
            ("User_Agent", HeaderKind::Other),
            ("Content+Type", HeaderKind::Other),
            ("Transfer-Encodin-", HeaderKind::Other),
            ("Connectioo", HeaderKind::Other),
            ("X\rReal-IP", HeaderKind::UnderscoreAlias),
            ("Keep\rAlive", HeaderKind::Other),
        ];
        for (name, kind) in table {
            assert_eq!(HeaderKind::of(name.as_bytes()), *kind, "{name}");
        }
    }

    #[test]
    fn token_characters() {
        for b in 0..=255u8 {
            let expected = b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            assert_eq!(super::is_token_char(b), expected, "{b}");
        }
    }

    #[test]
    fn a_single_changed_letter_is_another_name() {
        for name in [
            "host",
            "te",
            "via",
            "cookie",
            "upgrade",
            "x-real-ip",
            "connection",
            "content-length",
            "x-forwarded-server",
            "proxy-authorization",
        ] {
            let kind = HeaderKind::of(name.as_bytes());
            assert_ne!(kind, HeaderKind::Other, "{name}");
            for at in 0..name.len() {
                for b in (b'!'..=b'~').filter(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
                {
                    let mut other = name.as_bytes().to_vec();
                    other[at] = b;
                    let same = other.eq_ignore_ascii_case(name.as_bytes());
                    assert_eq!(HeaderKind::of(&other) == kind, same, "{}", String::from_utf8_lossy(&other));
                }
            }
        }
    }
}
