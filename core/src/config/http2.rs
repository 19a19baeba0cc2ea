//! `[http2]`: whether and how HTTP/2 is spoken to clients, and some of how it is spoken to backends.

use std::ops::RangeInclusive;
use std::time::Duration;

/// HTTP/2 to clients, and some of it to backends. A connection keeps the settings that it began with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2 {
    /// Whether it is spoken: over TLS where the client offers it, on plain listeners where it begins with it;
    /// default true.
    pub enabled: bool,
    /// Whether WebSockets pass over HTTP/2 (extended CONNECT, RFC 8441): clients are told that they are
    /// taken, and backends that take them get them so; default true.
    pub extended_connect: bool,
    /// Bytes of a stream that may be under way to us (SETTINGS_INITIAL_WINDOW_SIZE), within
    /// [`Http2::INITIAL_WINDOW`]; default 65536.
    pub initial_window: u32,
    /// Bytes of all streams of a connection that may be under way to us, within
    /// [`Http2::CONNECTION_WINDOW`]; default 1 MiB.
    pub connection_window: u32,
    /// Streams that a client may have open at once (SETTINGS_MAX_CONCURRENT_STREAMS), within
    /// [`Http2::STREAMS`]; default 100.
    pub max_concurrent_streams: u32,
    /// Bytes of the longest frame that a client may send (SETTINGS_MAX_FRAME_SIZE), within
    /// [`Http2::FRAME_SIZE`]; default 16384.
    pub max_frame_size: u32,
    /// Bytes of the table by which clients compress heads (SETTINGS_HEADER_TABLE_SIZE), up to
    /// [`Http2::MAX_HEADER_TABLE`]; default 4096.
    pub header_table_size: u32,
    /// Bytes of a response that may be under way from a backend, within [`Http2::INITIAL_WINDOW`]; default
    /// 16384, which lie in pages: no response is given up because its client is slow.
    pub backend_window: u32,
    /// A client that has been silent for so long gets a PING, and is given up if it stays silent for as long
    /// again; at least 1 s. [`Duration::MAX`], the default: never.
    pub keepalive: Duration,
    /// A backend that has been silent for so long while requests wait for it gets a PING, and is given up if
    /// it stays silent for as long again, or for 10 s, whichever is shorter; at least 1 s, default 30 s.
    /// [`Duration::MAX`]: never.
    pub backend_keepalive: Duration,
}

impl Http2 {
    /// Range of [`Http2::initial_window`] and [`Http2::backend_window`].
    pub const INITIAL_WINDOW: RangeInclusive<u32> = 16_384..=16 << 20;
    /// Range of [`Http2::connection_window`]: it cannot be less than what HTTP/2 begins with.
    pub const CONNECTION_WINDOW: RangeInclusive<u32> = 65_535..=64 << 20;
    /// Range of [`Http2::max_concurrent_streams`].
    pub const STREAMS: RangeInclusive<u32> = 1..=10_000;
    /// Range of [`Http2::max_frame_size`]: HTTP/2 allows no less.
    pub const FRAME_SIZE: RangeInclusive<u32> = 16_384..=262_144;
    /// Most bytes of [`Http2::header_table_size`].
    pub const MAX_HEADER_TABLE: u32 = 65_536;
}

impl Default for Http2 {
    fn default() -> Self {
        Self {
            enabled: true,
            extended_connect: true,
            initial_window: 65_536,
            connection_window: 1 << 20,
            max_concurrent_streams: 100,
            max_frame_size: 16_384,
            header_table_size: 4096,
            backend_window: 16_384,
            keepalive: Duration::MAX,
            backend_keepalive: Duration::from_secs(30),
        }
    }
}
