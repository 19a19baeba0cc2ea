//! What a world is made of: texts, and how backends behave.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use ruststrom_core::config::{self, Config};
use ruststrom_core::{Endpoint, Fault};

/// What becomes of a connection to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Open {
    Take,
    Fails(Fault),
    /// Neither yes nor no.
    Silent,
}

/// What a backend does with a whole request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Nothing: the test speaks for it.
    Hold,
    Bytes(Vec<u8>),
    BytesThenClose(Vec<u8>),
    Close,
    Reset,
    /// Made of the request; true: and then closed.
    Made(fn(&str) -> (Vec<u8>, bool)),
}

impl From<&str> for Reply {
    fn from(text: &str) -> Self {
        Self::Bytes(text.into())
    }
}

/// How a backend behaves. What is first in a list comes first, then the rest of the time what stands beside
/// it.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) opens: VecDeque<Open>,
    pub(crate) open: Open,
    pub(crate) replies: VecDeque<Reply>,
    pub(crate) reply: Reply,
    /// To probes.
    pub(crate) probe: Reply,
    /// What a probe's connection meets; `None`: the same as everyone's.
    pub(crate) probe_open: Option<Open>,
}

/// A good answer with a body.
pub(crate) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

impl Default for Script {
    fn default() -> Self {
        Self {
            opens: VecDeque::new(),
            open: Open::Take,
            replies: VecDeque::new(),
            reply: Reply::from(&*ok("")),
            probe: Reply::from("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
            probe_open: None,
        }
    }
}

pub(crate) fn config(text: &str) -> Arc<Config> {
    let parsed = config::parse(text);
    match parsed.config {
        Some(config) => Arc::new(config),
        None => panic!("{}", config::render(&parsed.diagnostics, "test", text)),
    }
}

/// A file with one pool of these keys (and tables behind them), no probes.
pub(crate) fn one_pool(pool: &str) -> String {
    format!(
        "http_address = \"192.0.2.1:80\"\n[health_interval]\ncheck_every = 0\n[[backend_pools]]\n{pool}\n"
    )
}

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// The address of a backend as a file has it.
pub(crate) fn endpoint(text: &str) -> Endpoint {
    text.strip_prefix("unix:").map_or_else(|| addr(text).into(), |path| Endpoint::Unix(path.into()))
}

pub(crate) fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n")
}

/// Length of the first whole request in `bytes`.
pub(crate) fn whole(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).expect("a head of text").to_ascii_lowercase();
    if text.contains("\r\ntransfer-encoding: chunked\r\n") {
        let mut at = head;
        loop {
            let line = bytes[at..].windows(2).position(|w| w == b"\r\n")?;
            let size = usize::from_str_radix(std::str::from_utf8(&bytes[at..at + line]).expect("hex"), 16)
                .expect("a chunk size");
            at += line + 2;
            if size == 0 {
                // No test sends trailers.
                return (bytes.len() >= at + 2).then_some(at + 2);
            }
            at += size + 2;
            if at > bytes.len() {
                return None;
            }
        }
    }
    let length =
        text.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse::<usize>().ok()).unwrap_or(0);
    (bytes.len() >= head + length).then_some(head + length)
}
