//! What happened in the runs: a fault that never happens is a fault that the simulator proves nothing about.

use std::collections::BTreeMap;

use ruststrom_core::Cause;

/// Declares the marks, their names and the list of all from one table.
macro_rules! marks {
    ($($variant:ident $name:literal;)+) => {
        /// Something that a sweep has to meet at least once.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "each has its text in the table")]
        pub enum Mark {
            $($variant,)+
        }

        impl Mark {
            /// Every mark.
            pub const ALL: &'static [Mark] = &[$(Mark::$variant,)+];

            /// The text of the mark in a sweep's table.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

marks! {
    ShortRead "fault: short read";
    ShortWrite "fault: short write";
    RecvBlocked "fault: read would block";
    SendBlocked "fault: write would block";
    Interrupted "fault: interrupted call";
    TinyWindow "fault: tiny socket buffers";
    StaleEvent "fault: event of a closed socket";
    LateTimer "fault: late timer";
    SlowHead "fault: client slow with its head";
    SlowBody "fault: client slow with its body";
    SlowReader "fault: client slow to read";
    ClientReset "fault: client resets";
    ClientCloses "fault: client closes early";
    HalfClose "fault: client half-closes";
    InvalidRequest "fault: client sends an invalid request";
    ConnectRefused "fault: backend refuses";
    Unresponsive "fault: backend accepts no connection";
    Unreachable "fault: backend unreachable";
    UnixConnected "backend connected by a Unix socket";
    UnixRefused "fault: connect to a Unix socket fails";
    EarlyResponse "fault: backend responds early";
    Truncated "fault: backend truncates its response";
    ExtraBytes "fault: backend sends too much";
    ClosedOnReuse "fault: backend closes when reused";
    ClosedIdle "fault: backend closes an idle connection";
    BackendResets "fault: backend resets instead of responding";
    BackendCloses "fault: backend closes instead of responding";
    NoResponse "fault: backend never responds";
    SlowResponse "fault: backend responds slowly";
    Stalled "fault: backend stalls in the middle";
    StopsReading "fault: backend stops reading";
    InterimStorm "fault: storm of interim responses";
    Garbage "fault: backend sends garbage";
    UnrequestedUpgrade "fault: 101 that was not requested";
    BackendModeChanged "fault: backend changes its state";
    FailingTraffic "fault: probes succeed, traffic fails";
    FailingProbes "fault: probes fail, traffic succeeds";
    SlowProbes "fault: probes take long";
    FewBufferPages "fault: few buffer pages";
    NoDescriptor "fault: connect without a descriptor";
    AcceptPaused "fault: accepting paused";
    SlowLookup "fault: slow lookup";
    LostLookup "fault: lost lookup";
    DoubleLookup "fault: two results for one lookup";
    FailedLookup "fault: failed lookup";
    Reloaded "fault: reload under traffic";
    ListenersChanged "fault: listeners changed by a reload";
    ChainChanged "fault: middlewares changed by a reload";
    OldChain "exchange with the middlewares from before a reload";
    NewChain "exchange with the middlewares that a reload brought";
    ReloadedInProbe "fault: reload during a health probe";
    BackendRemoved "fault: backend removed by a reload";
    BackendAdded "fault: backend added by a reload";
    DrainedUnderTraffic "fault: drain under traffic";
    DrainAnnounced "drain that is announced some time before it begins";
    DelayedNudge "fault: delayed nudge";
    PlainHttpTold "fault: plain HTTP on the port for TLS";
    AlertTold "fault: TLS client that is told of by an alert";
    StrangerEnded "fault: TLS client without a request";
    HandshakeStalls "fault: peer stops in its handshake";
    HandshakeCut "fault: peer ends its stream in its handshake";
    HandshakeReset "fault: peer resets in its handshake";
    HandshakeGarbage "fault: garbage in a handshake";
    HandshakeTimeout "fault: client never ends its handshake";
    TlsStalls "fault: peer stops in a record";
    TlsCut "fault: peer ends its stream in a record";
    TlsReset "fault: peer resets in a record";
    TlsGarbage "fault: garbage behind records";
    NoCloseNotify "fault: close_notify left out";
    CloseNotifyAlone "close_notify without the end of the stream";
    CloseNotifyLost "no room for close_notify as the proxy closes";
    BadHandshake "fault: backend with a bad handshake";
    BackendWithoutTls "fault: backend speaks HTTP instead of TLS";
    ClientHandshakeFailed "fault: handshake of a client failed";
    BackendHandshakeFailed "fault: handshake with a backend failed";
    HugeHello "fault: first message of a client that does not end";
    TrickledHandshake "fault: handshake byte by byte";
    DrainedInHandshake "drain while a client shakes hands";
    TinyHandshakeRecords "messages of a handshake in records of few bytes";
    TinyRecords "data in records of few bytes";
    BigRecords "data in the longest records";
    AnswerWaits "answer to the peer while a write would block";
    KeyUpdate "new keys";
    KeyUpdateAnswered "new keys that were asked for";
    SecuredClient "handshake of a client";
    SecuredBackend "handshake with a backend";
    PlaintextHeld "plaintext held in a session";
    CiphertextHeld "ciphertext held in a session";
    Misdirected "request for a host of another certificate";
    ClientCertificate "certificate of a client passed";
    BackendResponse "complete responses of a backend";
    LocalReply "complete local replies";
    IncompleteResponse "responses cut by a reset";
    Reused "reused backend connection";
    Retried "attempts beyond the first";
    KeptAlive "second request on a client connection";
    Pipelined "pipelined request";
    Http10 "client of HTTP/1.0";
    Head "HEAD";
    Patch "PATCH";
    LengthBody "request body by length";
    ChunkedBody "request body by chunks";
    Trailers "trailers passed";
    RequestTrailers "request trailers";
    Cookie "request with a cookie";
    Credentials "credentials that authenticate a connection";
    Challenge "response that asks for such credentials";
    OwnConnection "request over the connection of its client alone";
    StickyCookie "cookie that names the chosen backend";
    CookieOfOther "cookie set anew";
    WeightedShare "turns by weight";
    RampingShare "turns while a share grows";
    SlowShare "turns of a slow backend";
    MovedHome "client of a hash that met other backends";
    Nominated "field named in Connection";
    Te "request with TE";
    KeepAliveField "request with Keep-Alive";
    ForwardingField "forwarding field of a client";
    TrustedPeer "request of a trusted peer";
    CloseDelimited "response until close";
    ChunkedResponse "response by chunks";
    LongBody "body longer than a page";
    Expected100 "100 (continue) passed";
    Interim "interim response passed";
    Tunnel "tunnel";
    TunnelHalfClose "half-close through a tunnel";
    TunnelReset "fault: client resets the stream of a tunnel";
    TunnelResetByBackend "fault: backend resets the stream of a tunnel";
    TunnelClosedByBackend "backend closes both directions of the stream of a tunnel";
    TunnelStalled "tunnel whose backend gives it no credit";
    WebSocketHttp1 "WebSocket over HTTP/1.1";
    WebSocketToHttp2 "WebSocket from HTTP/1.1 to HTTP/2";
    WebSocketToHttp1 "WebSocket from HTTP/2 to HTTP/1.1";
    WebSocketHttp2 "WebSocket over HTTP/2";
    WebSocketUnannounced "WebSocket that no backend of HTTP/2 takes";
    WebSocketRefused "WebSocket that a backend of HTTP/2 refuses";
    Queued "waited for a backend below its limit";
    Refused "client connection refused";
    NoPageToRead "read without a free page";
    Crowd "many clients";
    Steady "many choices in a steady run";
    Backlogged "socket left for the next turn";
    Nudged "shard nudged";
    BecameUnhealthy "backend became unhealthy";
    BecameHealthy "backend became healthy";
    BecameSlow "backend became slow";
    LookupStage "middleware that waits for a lookup";
    Transformed "middleware that transforms responses";
    RateLimited "refused by a rate limit";
    LimitChanged "rate limit changed by a reload";
    NotLetIn "refused for its address";
    Challenged "asked for a name and a password";
    Compressed "compressed response";
    ErrorPage "page in the place of an error";
    Redirected "redirected to HTTPS";
    Moved "redirected to another URL";
    Responded "response of a middleware to everything";
    Rewritten "path rewritten for the backend";
    Ipv6Client "client by IPv6";
    MappedClient "client by IPv4 in IPv6";
    Ipv6Backend "backend by IPv6";
    HeadTooLarge "refused for its head";
    TargetTooLong "refused for its target";
    LongestHead "head as long as allowed";
    MostFields "as many fields as allowed";
    LongestTarget "target as long as allowed";
    Defaults "default timeouts and limits";
    EarlyTunnelBytes "bytes of a tunnel before the 101";
    AdminReply "reply on the admin listener";
    AdminPage "page on the admin listener";
    AdminPageFailed "fault: page of the admin listener that nobody has";
    Query "target with a query";
    TooLarge "refused for more content than allowed";
    Http2Client "client of HTTP/2";
    Http2Response "whole response on a stream";
    Http2Overtaken "response before that on an older stream";
    Http2SplitBlock "field block of a client in several frames";
    Http2RestRefused "rest of a request that is refused behind its response";
    Http2Cut "response cut by a reset of its stream";
    Http2Ping "PING answered";
    Http2Settings "settings changed under traffic";
    Http2Priority "priorities of a client";
    Http2UnknownFrame "frame that nobody knows";
    Http2StalledStream "stream that is given no credit";
    Http2Reset "fault: client resets a stream";
    Http2Refused "stream refused because there are too many";
    Http2ClientGoes "fault: client sends GOAWAY";
    Http2Violation "fault: client breaks a rule of HTTP/2";
    Http2Told "client that is told of a broken rule by GOAWAY";
    Http2Goaway "GOAWAY that announces another";
    Http2LastStream "GOAWAY that tells the last stream";
    Http2TooLate "stream above the last one of a GOAWAY";
    Http2AtRest "connection at rest whose credit was counted";
    Http2Backend "connection to a backend by HTTP/2";
    Http2SharedBackend "stream beside others to a backend";
    Http2MostStreams "as many streams as a backend takes";
    Http2RequestOvertaken "request whole before one on an older stream";
    Http2Probe "health check by HTTP/2";
    Http2Alone "connection of HTTP/2 for one request with credentials";
    Http2BackendTrailers "trailers of a backend by HTTP/2";
    Http2SplitBlockOfBackend "field block of a backend in several frames";
    Http2BackendSettings "settings of a backend changed in mid-connection";
    Http2StalledRequest "request whose backend gives it no credit";
    Http2BesideStalled "request whole beside one that is given no credit";
    Http2GivenUp "stream to a backend that is given up";
    Http2LongThought "backend that takes longer than anybody keeps silent";
    Http2Asked "backend asked whether it is there";
    Http2BackendAtRest "connection to a backend at rest whose credit was counted";
    Http2Unprocessed "request again that a backend has not looked at";
    Http2RefusedByBackend "fault: backend refuses a stream";
    Http11Required "fault: backend wants HTTP/1.1";
    Http2ResetByBackend "fault: backend resets a stream";
    Http2Malformed "fault: backend answers a stream by what is no response";
    Http2LeavesGracefully "fault: backend leaves in two steps";
    Http2LeavesAtOnce "fault: backend leaves at once";
    Http2AboveLast "stream above the last one of a backend";
    Http2Frozen "fault: backend freezes a connection of HTTP/2";
    Http2FrozenInFrame "fault: backend freezes in the middle of content";
    Http2Distrusted "silent connection that gets no further requests";
    Http2Deaf "fault: backend acknowledges no SETTINGS";
    Http2BackendCuts "fault: backend cuts a connection of HTTP/2 at some byte";
    Http2SlowBackend "fault: backend slow to write";
    Http2Offence "fault: backend breaks a rule of HTTP/2";
    Http2OffenceTold "backend that is told of a broken rule by GOAWAY";
    Healed "healed run";
}

/// Counts by mark, and by the cause of every exchange that failed.
#[derive(Clone, Debug)]
pub struct Coverage {
    marks: [u64; Mark::ALL.len()],
    causes: BTreeMap<&'static str, u64>,
}

/// The name of a cause in the table: there is one each for all violations of HTTP's rules by clients, and by
/// backends.
pub(crate) fn cause_name(cause: Cause) -> &'static str {
    match cause {
        Cause::BadRequest(_) => BAD_REQUEST,
        Cause::BadResponse(_) => BAD_RESPONSE,
        other => other.name(),
    }
}

const BAD_REQUEST: &str = "bad_request";
const BAD_RESPONSE: &str = "bad_response";

impl Default for Coverage {
    fn default() -> Self {
        Self { marks: [0; Mark::ALL.len()], causes: BTreeMap::new() }
    }
}

impl Coverage {
    /// Counts a mark.
    pub fn mark(&mut self, mark: Mark) {
        self.marks[mark as usize] += 1;
    }

    /// Counts an exchange that failed, by the name of its cause.
    pub fn cause(&mut self, name: &'static str) {
        *self.causes.entry(name).or_default() += 1;
    }

    /// How often a mark was met.
    #[must_use]
    pub fn of(&self, mark: Mark) -> u64 {
        self.marks[mark as usize]
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        for (sum, n) in self.marks.iter_mut().zip(&other.marks) {
            *sum += n;
        }
        for (cause, n) in &other.causes {
            *self.causes.entry(cause).or_default() += n;
        }
    }

    /// All counts with their names.
    #[must_use]
    pub fn table(&self) -> Vec<(String, u64)> {
        let marks = Mark::ALL.iter().map(|m| (m.name().to_owned(), self.of(*m)));
        // Calls of gRPC, which alone have deadlines of their own, have their own tests.
        let elsewhere = "deadline_exceeded";
        let met = Cause::WITHOUT_VIOLATIONS.iter().map(|c| c.name()).filter(|c| *c != elsewhere);
        let names = met.chain([BAD_REQUEST, BAD_RESPONSE]);
        let causes = names.map(|c| (format!("cause: {c}"), self.causes.get(c).copied().unwrap_or(0)));
        marks.chain(causes).collect()
    }

    /// The names of what never happened.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        self.table().into_iter().filter(|(_, n)| *n == 0).map(|(name, _)| name).collect()
    }
}
