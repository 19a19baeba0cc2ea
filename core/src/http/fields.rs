//! Fields: what each is to a gateway, decided once when the head is read.

/// What a field is to us. Everything that forwarding, framing or routing looks for has its own mark; the rest is `Other`.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is named after its field")]
pub enum Known {
    /// Nothing to us: passes as it is.
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
    /// Another spelling (`_` for `-`) of a field that we set or that frames the message: never passes.
    Alias,
    /// Named by `Connection`: meant for us alone, never passes (RFC 9110 §7.6.1).
    Nominated,
}

/// A field line: the name as it was sent, the value without the blanks around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// As sent; compare without regard to case.
    pub name: &'a [u8],
    /// Without leading and trailing blanks.
    pub value: &'a [u8],
    /// What it is to us.
    pub known: Known,
}

/// The fields of a head in their order.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    /// The bytes that names and values lie in.
    head: &'a [u8],
    headers: &'a [httparse::Header<'a>],
    tags: &'a [Known],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(head: &'a [u8], headers: &'a [httparse::Header<'a>], tags: &'a [Known]) -> Self {
        debug_assert_eq!(headers.len(), tags.len());
        Self { head, headers, tags }
    }

    /// Gives every field whose mark is in `set` to `put`, in order, as `Name: value CRLF` in one or more pieces. Neighbours that were
    /// already written so are one piece: most heads are copied in two or three.
    ///
    /// `line`: the start line passes as it is too, and `first`: so does the first field, whatever its mark.
    pub(crate) fn copy(&self, line: bool, first: bool, set: u64, mut put: impl FnMut(&[u8])) {
        let head = self.head;
        let mut run = 0..if line { self.line_len() } else { 0 };
        for (i, (header, tag)) in self.headers.iter().zip(self.tags).enumerate() {
            if !(tag.in_set(set) || first && i == 0) {
                continue;
            }
            let name_at = offset(head, header.name.as_bytes());
            let value_at = offset(head, header.value);
            let end = value_at + header.value.len();
            let plain = value_at == name_at + header.name.len() + 2 && head[value_at - 1] == b' ' && head[end..].starts_with(b"\r\n");
            if plain {
                if run.end != name_at {
                    put(&head[run]);
                    run = name_at..name_at;
                }
                run.end = end + 2;
            } else {
                put(&head[std::mem::take(&mut run)]);
                for piece in [header.name.as_bytes(), b": ", header.value, b"\r\n"] {
                    put(piece);
                }
            }
        }
        put(&head[run]);
    }

    /// Length of the start line with its CRLF.
    pub(crate) fn line_len(&self) -> usize {
        self.headers.first().map_or(self.head.len() - 2, |h| offset(self.head, h.name.as_bytes()))
    }

    /// Whether the first field is one of this kind, with this very value.
    pub(crate) fn begins_with(&self, known: Known, value: &[u8]) -> bool {
        matches!((self.tags.first(), self.headers.first()), (Some(&k), Some(h)) if k == known && std::ptr::eq(h.value, value))
    }

    /// Whether the last field is one of this kind.
    pub(crate) fn ends_with(&self, known: Known) -> bool {
        self.tags.last() == Some(&known)
    }

    /// The start line without its CRLF.
    pub(crate) fn line(&self) -> &'a [u8] {
        &self.head[..self.line_len() - 2]
    }

    /// How many field lines.
    #[must_use]
    pub fn len(&self) -> usize {
        self.headers.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.headers.is_empty()
    }

    /// Every field line in order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'a>> + use<'a> {
        let (headers, tags) = (self.headers, self.tags);
        headers.iter().zip(tags).map(|(h, &known)| Field { name: h.name.as_bytes(), value: h.value, known })
    }

    /// The value of the first field of this kind.
    #[must_use]
    pub fn get(&self, known: Known) -> Option<&'a [u8]> {
        self.tags.iter().position(|&k| k == known).map(|i| self.headers[i].value)
    }

    /// The values of every field with this name, in any case; for matchers.
    pub fn named<'n>(&self, name: &'n [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.headers.iter().filter(move |h| h.name.as_bytes().eq_ignore_ascii_case(name)).map(|h| h.value)
    }
}

impl Known {
    /// What a field of this name (a token) is. `Nominated` is never found here: it needs the rest of the head.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        let known = Self::spelt(name);
        if known == Self::Other && matches!(name.len(), 9..=18) && matches!(name[0] | 0x20, b'c' | b't' | b'x') {
            return Self::misspelt(name);
        }
        known
    }

    /// Length first, then a few words: most names are dismissed by their length alone.
    fn spelt(n: &[u8]) -> Self {
        match n.len() {
            2 if is(n, b"te") => Self::Te,
            3 if is(n, b"via") => Self::Via,
            4 if is(n, b"host") => Self::Host,
            4 if is(n, b"date") => Self::Date,
            6 if is(n, b"accept") => Self::Accept,
            6 if is(n, b"cookie") => Self::Cookie,
            6 if is(n, b"server") => Self::Server,
            6 if is(n, b"expect") => Self::Expect,
            7 if is(n, b"referer") => Self::Referer,
            7 if is(n, b"upgrade") => Self::Upgrade,
            7 if is(n, b"trailer") => Self::Trailer,
            9 if is(n, b"x-real-ip") => Self::XRealIp,
            10 if is(n, b"user-agent") => Self::UserAgent,
            10 if is(n, b"connection") => Self::Connection,
            10 if is(n, b"set-cookie") => Self::SetCookie,
            10 if is(n, b"keep-alive") => Self::KeepAlive,
            11 if is(n, b"retry-after") => Self::RetryAfter,
            12 if is(n, b"content-type") => Self::ContentType,
            12 if is(n, b"x-request-id") => Self::XRequestId,
            12 if is(n, b"max-forwards") => Self::MaxForwards,
            13 if is(n, b"cache-control") => Self::CacheControl,
            13 if is(n, b"authorization") => Self::Authorization,
            14 if is(n, b"content-length") => Self::ContentLength,
            15 if is(n, b"accept-encoding") => Self::AcceptEncoding,
            15 if is(n, b"x-forwarded-for") => Self::XForwardedFor,
            16 if is(n, b"content-encoding") => Self::ContentEncoding,
            16 if is(n, b"x-forwarded-host") => Self::XForwardedHost,
            16 if is(n, b"x-forwarded-port") => Self::XForwardedPort,
            16 if is(n, b"proxy-connection") => Self::ProxyConnection,
            17 if is(n, b"transfer-encoding") => Self::TransferEncoding,
            17 if is(n, b"x-forwarded-proto") => Self::XForwardedProto,
            18 if is(n, b"x-forwarded-server") => Self::XForwardedServer,
            18 if is(n, b"proxy-authenticate") => Self::ProxyAuthenticate,
            19 if is(n, b"proxy-authorization") => Self::ProxyAuthorization,
            _ => Self::Other,
        }
    }

    /// Gateway interfaces in the manner of CGI make `_` of `-`, some of every other sign too: then the backend would take such a name
    /// for the field that we set, or for framing.
    fn misspelt(name: &[u8]) -> Self {
        let mut folded = [0; 18];
        let folded = &mut folded[..name.len()];
        for (to, &b) in folded.iter_mut().zip(name) {
            *to = if b.is_ascii_alphanumeric() { b } else { b'-' };
        }
        if Self::spelt(folded).is_guarded() { Self::Alias } else { Self::Other }
    }

    /// Set by us, or framing: no other spelling of it may pass.
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
    ]);

    /// Whether a `Connection` option of this name removes the field. Framing, routing, credentials and what we set stay: removing them by
    /// name is an attack, not a message to us.
    pub(crate) const fn may_be_nominated(self) -> bool {
        const STAY: u64 = Known::GUARDED
            | Known::set(&[
                Known::Host,
                Known::Connection,
                Known::Via,
                Known::Cookie,
                Known::SetCookie,
                Known::Authorization,
                Known::ProxyAuthorization,
                Known::ProxyAuthenticate,
                Known::Alias,
            ]);
        !self.in_set(STAY)
    }

    /// A set of marks in one word.
    pub(crate) const fn set(members: &[Self]) -> u64 {
        let mut set = 0;
        let mut i = 0;
        while i < members.len() {
            set |= 1 << members[i] as u32;
            i += 1;
        }
        set
    }

    /// Whether it is in such a set.
    #[inline]
    pub(crate) const fn in_set(self, set: u64) -> bool {
        set >> self as u32 & 1 == 1
    }
}

/// Compares a token or field value of the length `N` with lower-case letters, `-` and digits, without regard to case. Setting bit 5 makes
/// lower case of letters and leaves `-` and digits as they are; of the other bytes only control characters become one of them, which neither has.
#[inline]
pub(crate) fn is<const N: usize>(name: &[u8], lower: &[u8; N]) -> bool {
    const LOWER: u64 = 0x2020_2020_2020_2020;
    let Some(name) = name.first_chunk::<N>() else { return false };
    let eight =
        |b: &[u8; N], at: usize| u64::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3], b[at + 4], b[at + 5], b[at + 6], b[at + 7]]);
    let four = |b: &[u8; N], at: usize| u64::from(u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]));
    let mut diff = 0;
    if N >= 8 {
        let mut at = 0;
        while at + 8 <= N {
            diff |= (eight(name, at) | LOWER) ^ eight(lower, at);
            at += 8;
        }
        diff |= (eight(name, N - 8) | LOWER) ^ eight(lower, N - 8);
    } else if N >= 4 {
        diff |= (four(name, 0) | LOWER & 0xffff_ffff) ^ four(lower, 0);
        diff |= (four(name, N - 4) | LOWER & 0xffff_ffff) ^ four(lower, N - 4);
    } else {
        let mut at = 0;
        while at < N {
            diff |= u64::from((name[at] | 0x20) ^ lower[at]);
            at += 1;
        }
    }
    diff == 0
}

/// tchar (RFC 9110 §5.6.2).
#[inline]
pub(crate) fn is_token_char(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

/// Where `part`, a piece of `whole`, begins in it.
#[inline]
pub(crate) fn offset(whole: &[u8], part: &[u8]) -> usize {
    part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr())
}

#[cfg(test)]
mod tests {
    use super::Known;

    #[test]
    fn names() {
        let table: &[(&str, Known)] = &[
            ("TE", Known::Te),
            ("via", Known::Via),
            ("HOST", Known::Host),
            ("Date", Known::Date),
            ("cOOkie", Known::Cookie),
            ("Server", Known::Server),
            ("Expect", Known::Expect),
            ("Accept", Known::Accept),
            ("Upgrade", Known::Upgrade),
            ("Trailer", Known::Trailer),
            ("Referer", Known::Referer),
            ("X-Real-IP", Known::XRealIp),
            ("Connection", Known::Connection),
            ("Keep-Alive", Known::KeepAlive),
            ("Set-Cookie", Known::SetCookie),
            ("User-Agent", Known::UserAgent),
            ("Retry-After", Known::RetryAfter),
            ("Content-Type", Known::ContentType),
            ("X-Request-ID", Known::XRequestId),
            ("Max-Forwards", Known::MaxForwards),
            ("Cache-Control", Known::CacheControl),
            ("Authorization", Known::Authorization),
            ("CONTENT-LENGTH", Known::ContentLength),
            ("Accept-Encoding", Known::AcceptEncoding),
            ("X-Forwarded-For", Known::XForwardedFor),
            ("Content-Encoding", Known::ContentEncoding),
            ("X-Forwarded-Host", Known::XForwardedHost),
            ("X-Forwarded-Port", Known::XForwardedPort),
            ("Proxy-Connection", Known::ProxyConnection),
            ("Transfer-Encoding", Known::TransferEncoding),
            ("X-Forwarded-Proto", Known::XForwardedProto),
            ("X-Forwarded-Server", Known::XForwardedServer),
            ("Proxy-Authenticate", Known::ProxyAuthenticate),
            ("Proxy-Authorization", Known::ProxyAuthorization),
            // Other spellings of what we set.
            ("Content_Length", Known::Alias),
            ("transfer_encoding", Known::Alias),
            ("X_Forwarded_For", Known::Alias),
            ("X_FORWARDED-PROTO", Known::Alias),
            ("x.forwarded.host", Known::Alias),
            ("X_Real_IP", Known::Alias),
            ("X-Request_ID", Known::Alias),
            ("X_Forwarded_Server", Known::Alias),
            ("X-Forwarded_Port", Known::Alias),
            // Near misses.
            ("", Known::Other),
            ("a", Known::Other),
            ("Hos", Known::Other),
            ("Hosts", Known::Other),
            ("Content-Lengt", Known::Other),
            ("Content-Lengthh", Known::Other),
            ("Content-Lenght", Known::Other),
            ("XForwarded-For", Known::Other),
            ("X-Forwarded-By-", Known::Other),
            ("User_Agent", Known::Other),
            ("Content+Type", Known::Other),
            ("Transfer-Encodin-", Known::Other),
            ("Connectioo", Known::Other),
        ];
        for (name, known) in table {
            assert_eq!(Known::of(name.as_bytes()), *known, "{name}");
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
            let known = Known::of(name.as_bytes());
            assert_ne!(known, Known::Other, "{name}");
            for at in 0..name.len() {
                for b in (b'!'..=b'~').filter(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b)) {
                    let mut other = name.as_bytes().to_vec();
                    other[at] = b;
                    let same = other.eq_ignore_ascii_case(name.as_bytes());
                    assert_eq!(Known::of(&other) == known, same, "{}", String::from_utf8_lossy(&other));
                }
            }
        }
    }
}
