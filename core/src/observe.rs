//! What the core tells of itself: one record for each exchange, and changes of health. No sink is in here;
//! a driver turns records into log lines and counters.

use std::net::SocketAddr;

use crate::cause::Cause;

/// Hears of everything that ended. Called inline on the request path: it must not block.
pub trait Observer {
    /// Whether the texts of a request (method, target, host, ...) are wanted in [`Record`]: copying them costs a little.
    fn wants_texts(&self) -> bool;
    /// Whether [`Observer::exchange`] is wanted at all: making a [`Record`] costs a little too.
    fn wants_records(&self) -> bool {
        true
    }
    /// An exchange has ended, well or not.
    fn exchange(&mut self, record: &Record<'_>);
    /// A backend's health changed, on whichever shard noticed.
    fn health(&mut self, change: &HealthChange<'_>);
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
    /// Before.
    pub from: HealthState,
    /// After.
    pub to: HealthState,
    /// Why, in a few words ("status 500", "connection refused", "timeout after 500 ms").
    pub why: &'a str,
}

/// One exchange, told when it has ended.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The peer of the client connection.
    pub client: SocketAddr,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// As received; empty if no head was understood. So are the other texts. All are bounded, and empty unless wanted.
    pub method: &'a [u8],
    /// The normalised target, or the first line of what could not be read; cut to 1 KiB.
    pub target: &'a [u8],
    /// `Host`, cut to 255 bytes.
    pub host: &'a [u8],
    /// `User-Agent`, cut to 255 bytes.
    pub user_agent: &'a [u8],
    /// `Referer`, cut to 255 bytes.
    pub referer: &'a [u8],
    /// `X-Request-ID` as forwarded.
    pub request_id: &'a [u8],
    /// 10 or 11; 0 if no head was understood.
    pub version: u8,
    /// Pool name, or empty.
    pub pool: &'a str,
    /// Label of the last backend tried, or empty.
    pub backend: &'a str,
    /// Place of the pool in the configuration.
    pub pool_index: Option<u16>,
    /// Place of the backend in the pool.
    pub backend_index: Option<u16>,
    /// Final status sent to the client; 0 if none was.
    pub status: u16,
    /// Why we made the answer ourselves, or why the exchange broke; `None` when all went well.
    pub cause: Option<Cause>,
    /// Connections tried for it.
    pub attempts: u8,
    /// The last attempt used an idle connection.
    pub reused: bool,
    /// Body bytes from the client (payload, without framing).
    pub bytes_in: u64,
    /// Body bytes to the client (payload, without framing).
    pub bytes_out: u64,
    /// When each phase was reached.
    pub timings: Timings,
}

/// Phases as whole microseconds from the first byte of the request head; `None`: not reached.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// First byte to whole head.
    pub head_us: u64,
    /// A backend was chosen (the queue is in between).
    pub chosen_us: Option<u64>,
    /// The connection to the backend was there.
    pub connected_us: Option<u64>,
    /// The request had been sent whole.
    pub sent_us: Option<u64>,
    /// The head of the final answer had been read.
    pub answered_us: Option<u64>,
    /// The last byte had gone to the client, or the exchange had broken.
    pub total_us: u64,
}
