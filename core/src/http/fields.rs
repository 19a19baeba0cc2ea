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
    headers: &'a [httparse::Header<'a>],
    tags: &'a [Known],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(headers: &'a [httparse::Header<'a>], tags: &'a [Known]) -> Self {
        debug_assert_eq!(headers.len(), tags.len());
        Self { headers, tags }
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
    /// What a field of this name is.
    #[must_use]
    pub fn of(_name: &[u8]) -> Self {
        todo!()
    }
}
