//! What the core tells of itself: one record for each exchange, and changes of health. No sink is in here;
//! a driver turns records into log lines and counters.

mod step;

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::cause::Cause;
use crate::config;
use crate::h1::RequestId;
use crate::http::ip::IpText;
use crate::http::{Scheme, Version};
use crate::id::ConnId;
use crate::middleware::Counter;
use crate::time::Instant;

pub use step::{Name, Step};

/// Hears of everything that ended. Called inline on the request path: it must not block.
pub trait Observer {
    /// Whether [`Observer::exchange`] is wanted at all: making what it is told costs a little.
    fn wants_records(&self) -> bool {
        true
    }
    /// Whether [`Observer::head`] is wanted too: what that is told costs more. Asked only of those that want
    /// records.
    fn wants_heads(&self) -> bool {
        true
    }
    /// The head of a request has been read, or could not be; each exchange that ends has been told of so
    /// before. The head will be gone by then: what is wanted of it has to be kept now. A request that
    /// waits for a lookup is told again; what was kept before is overwritten.
    fn head(&mut self, head: &Head<'_>, kept: &mut Kept) {
        let _ = (head, kept);
    }
    /// An exchange has ended, well or not.
    fn exchange(&mut self, record: &Record<'_>);
    /// A backend's health changed, on whichever shard noticed.
    fn health(&mut self, change: &HealthChange<'_>);
    /// A middleware of this pool, whose identity stays the same over reloads, has counted something.
    fn count(&mut self, pool: &str, identity: u64, counter: Counter) {
        let _ = (pool, identity, counter);
    }
    /// A health check of a backend has ended, and something was learned of the backend.
    fn check(&mut self, check: &Check<'_>) {
        let _ = check;
    }
    /// Whether [`Observer::step`] is wanted. Asked at each step: it should be one test.
    #[inline]
    fn wants_steps(&self) -> bool {
        false
    }
    /// Whether [`Step::Received`] and [`Step::Sent`] are wanted too.
    #[inline]
    fn wants_bytes(&self) -> bool {
        false
    }
    /// A connection has come so far.
    fn step(&mut self, conn: ConnId, step: &Step<'_>) {
        let _ = (conn, step);
    }
    /// An exchange of a client's connection has come so far. `stream`: the one that carries it; 0 where the
    /// connection carries one exchange at a time.
    fn exchange_step(&mut self, conn: ConnId, stream: u32, step: &Step<'_>) {
        let _ = stream;
        self.step(conn, step);
    }
    /// Something an operator should read, once (a name that does not resolve, pages exhausted, ...).
    fn note(&mut self, level: Level, text: &str);
}

/// How loud a note is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something is broken.
    Error,
    /// Something may break.
    Warning,
    /// Good to know.
    Info,
    /// For developers.
    Debug,
}

/// The three states of SPEC §3 and the one before the first probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HealthState {
    /// Not yet probed; used like a healthy one.
    Unknown,
    /// 200–399 under the slow threshold.
    Healthy,
    /// 200–399 at or above it.
    Slow,
    /// Anything else.
    Unhealthy,
}

/// A backend went from one state to another.
#[derive(Clone, Copy, Debug)]
pub struct HealthChange<'a> {
    /// Pool name.
    pub pool: &'a str,
    /// Backend label.
    pub backend: &'a str,
    /// The scheme of its address: `http`, `https` or `h2c`.
    pub scheme: &'static str,
    /// Before.
    pub from: HealthState,
    /// After.
    pub to: HealthState,
    /// What noticed it.
    pub source: HealthSource,
    /// Why, as one stable word: `check_status`, `connect_refused`.
    pub reason: &'a str,
    /// What was seen, in a few words: "HTTP 500", "no answer in 500 ms".
    pub seen: &'a str,
    /// What is left of the pool.
    pub left: Usable,
}

/// A health check of a backend: the best outcome of all its addresses.
#[derive(Clone, Copy)]
pub struct Check<'a> {
    /// Pool name.
    pub pool: &'a str,
    /// Backend label.
    pub backend: &'a str,
    /// Identity of the backend, the same over reloads.
    pub identity: u64,
    /// How long the response took, if it was as expected; `None`: the check has failed.
    pub took: Option<Duration>,
    /// Why, as one stable word: `check_passed`, `check_status`, `connect_refused`.
    pub reason: &'static str,
    /// What was seen, in a few words: "HTTP 500", "no answer in 500 ms".
    pub seen: &'a dyn fmt::Display,
}

/// What noticed that a backend's health has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthSource {
    /// A health check.
    Check,
    /// A request of a client.
    Traffic,
}

/// How many of a pool's backends take requests. Those of weight 0 do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usable {
    /// Main backends that take requests.
    pub main: u16,
    /// Main backends.
    pub main_total: u16,
    /// Backups that would take requests.
    pub backup: u16,
    /// Backups.
    pub backup_total: u16,
}

impl HealthState {
    /// As one word, for logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Slow => "slow",
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl HealthSource {
    /// As one word, for logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Traffic => "traffic",
        }
    }
}

/// A request as it came. All texts are bounded, and empty if no head was understood.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The peer of the client connection; if that is a trusted proxy, the client that it speaks for, with
    /// the port 0, since nobody says that one.
    pub client: SocketAddr,
    /// Its address as text.
    pub client_ip: &'a IpText,
    /// What the connection was secured by.
    pub scheme: Scheme,
    /// As received; cut to 32 bytes. It is a token (RFC 9110 §5.6.2), so nothing in it has to be escaped
    /// anywhere.
    pub method: &'a [u8],
    /// The normalised target, or the first line of what could not be read; cut to 1 KiB.
    pub target: &'a [u8],
    /// The version that the client spoke; `None` if no head was understood.
    pub version: Option<Version>,
    /// The stream that it came on (RFC 9113 §5.1.1); 0 over HTTP/1.1.
    pub stream: u32,
    /// `Host`, cut to 255 bytes: `host[:port]` (RFC 9110 §7.2), so nothing in it has to be escaped anywhere.
    pub host: &'a [u8],
    /// `User-Agent`, cut to 255 bytes.
    pub user_agent: &'a [u8],
    /// `Referer`, cut to 255 bytes.
    pub referer: &'a [u8],
    /// `X-Request-ID` as forwarded, cut to 128 bytes.
    pub request_id: Named<'a>,
    /// What TLS has agreed on, where the connection speaks it.
    pub tls: Option<Tls<'a>>,
}

/// What TLS has agreed on.
#[derive(Clone, Copy, Debug)]
pub struct Tls<'a> {
    /// The version: `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite, as IANA has registered it.
    pub cipher: &'static str,
    /// The server name that the client asked for; empty: none. At most 255 bytes, a host name (RFC 6066 §3).
    pub server_name: &'a str,
    /// An earlier session was resumed.
    pub resumed: bool,
    /// Subject of the certificate that the client has shown; empty: none.
    pub client_subject: &'a str,
}

/// Who named a request.
#[derive(Clone, Copy, Debug)]
pub enum Named<'a> {
    /// We did: hexadecimal digits.
    Ours(&'a RequestId),
    /// A trusted peer, with any bytes; or nobody, with none.
    Theirs(&'a [u8]),
}

/// What an observer keeps of a request until its exchange has ended: bytes of its own making, in two parts if
/// it likes.
#[derive(Debug, Default)]
pub struct Kept {
    /// Longer than what is used: it is never made shorter, so that room costs nothing.
    bytes: Vec<u8>,
    first: usize,
    used: usize,
}

impl Kept {
    /// In memory that was used before.
    pub(crate) fn recycled(bytes: Vec<u8>) -> Self {
        Self { bytes, first: 0, used: 0 }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// At least `len` bytes to write to; what lies there means nothing.
    #[inline]
    pub fn room(&mut self, len: usize) -> &mut [u8] {
        if self.bytes.len() < len {
            self.grow(len);
        }
        &mut self.bytes
    }

    #[cold]
    fn grow(&mut self, len: usize) {
        let len = len.next_multiple_of(128);
        self.bytes.reserve_exact(len - self.bytes.len());
        self.bytes.resize(len, 0);
    }

    /// The first `used` bytes of the room are to be kept, and the first `first` of those are the first part.
    #[inline]
    pub fn keep(&mut self, first: usize, used: usize) {
        debug_assert!(first <= used && used <= self.bytes.len());
        (self.first, self.used) = (first, used);
    }

    /// Keeps a copy of this, as one part.
    pub fn copy(&mut self, text: &[u8]) {
        self.copy_parts(text, b"");
    }

    /// Keeps a copy of two parts.
    pub fn copy_parts(&mut self, first: &[u8], second: &[u8]) {
        let used = first.len() + second.len();
        let (to_first, to_second) = self.room(used)[..used].split_at_mut(first.len());
        to_first.copy_from_slice(first);
        to_second.copy_from_slice(second);
        self.keep(first.len(), used);
    }

    /// So many bytes were kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.used
    }

    /// Nothing was kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// All of it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.used]
    }

    /// Both parts.
    #[inline]
    #[must_use]
    pub fn parts(&self) -> (&[u8], &[u8]) {
        (&self.bytes[..self.first], &self.bytes[self.first..self.used])
    }
}

/// One exchange, told when it has ended.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// What [`Observer::head`] has kept.
    pub kept: &'a Kept,
    /// The peer of the client connection.
    pub client: SocketAddr,
    /// Pool name, or empty.
    pub pool: &'a str,
    /// Label of the last backend tried, or empty.
    pub backend: &'a str,
    /// Identity of the pool, the same over reloads; `None` before routing.
    pub pool_identity: Option<u64>,
    /// Identity of the last backend tried, the same over reloads.
    pub backend_identity: Option<u64>,
    /// Whose request it was, as a middleware has found; empty: nobody knows. Without control characters.
    pub user: &'a str,
    /// Final status sent to the client; 0 if none was.
    pub status: u16,
    /// Why we made the response ourselves, or why the exchange broke; `None` when all went well.
    pub cause: Option<Cause>,
    /// Connections tried for it.
    pub attempts: u8,
    /// Those of them that failed. If the last one did, it is the one that `backend` and `cause` are about.
    pub failed: FailedAttempts<'a>,
    /// The last attempt used an idle connection.
    pub reused: bool,
    /// Body bytes from the client (payload, without framing).
    pub bytes_in: u64,
    /// Body bytes to the client (payload, without framing).
    pub bytes_out: u64,
    /// When each phase was reached.
    pub timings: &'a Timings,
}

/// Attempts of one exchange that failed, oldest first.
#[derive(Clone, Copy, Debug, Default)]
pub struct FailedAttempts<'a> {
    backends: &'a [config::Backend],
    attempts: &'a [FailedAttempt],
}

/// An attempt that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailedAttempt {
    /// Place of its backend in the pool.
    pub backend: u16,
    /// What went wrong.
    pub cause: Cause,
}

impl<'a> FailedAttempts<'a> {
    /// Those of an exchange of a pool with these backends.
    #[must_use]
    pub fn new(backends: &'a [config::Backend], attempts: &'a [FailedAttempt]) -> Self {
        Self { backends, attempts }
    }

    /// Whether none failed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.attempts.is_empty()
    }

    /// Label of the backend and cause of each.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Cause)> + use<'a> {
        let backends = self.backends;
        let label = move |place: u16| backends.get(usize::from(place)).map_or("", |b| &b.label);
        self.attempts.iter().map(move |attempt| (label(attempt.backend), attempt.cause))
    }
}

/// When each phase of an exchange was reached; [`Instant::NEVER`]: it was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// The first byte of the request's head.
    pub started: Instant,
    /// The whole head.
    pub head: Instant,
    /// A backend was chosen (the queue is in between).
    pub chosen: Instant,
    /// The connection to the backend was there.
    pub connected: Instant,
    /// The request had been sent whole.
    pub sent: Instant,
    /// The head of the final response had been read.
    pub responded: Instant,
    /// The last byte had gone to the client, or the exchange had broken.
    pub ended: Instant,
}

impl Timings {
    /// Of an exchange that begins.
    #[must_use]
    pub const fn new(started: Instant) -> Self {
        const N: Instant = Instant::NEVER;
        Self { started, head: N, chosen: N, connected: N, sent: N, responded: N, ended: N }
    }

    /// Whole microseconds from the first byte to one of the phases; `None` if that was not reached.
    #[inline]
    #[must_use]
    pub fn micros(&self, phase: Instant) -> Option<u64> {
        if phase == Instant::NEVER { None } else { Some(phase.micros_since(self.started)) }
    }
}
