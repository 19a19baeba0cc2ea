//! SETTINGS (RFC 9113 §6.5): what one side lets the other do.

use super::frame::{MAX_MAX_FRAME_BYTES, MIN_MAX_FRAME_BYTES};
use super::hpack::DEFAULT_TABLE_BYTES;
use super::reason::Reason;

/// Identifiers of settings.
pub mod id {
    #![expect(missing_docs, reason = "each is named after its setting")]
    pub const HEADER_TABLE_SIZE: u16 = 0x1;
    pub const ENABLE_PUSH: u16 = 0x2;
    pub const MAX_CONCURRENT_STREAMS: u16 = 0x3;
    pub const INITIAL_WINDOW_SIZE: u16 = 0x4;
    pub const MAX_FRAME_SIZE: u16 = 0x5;
    pub const MAX_HEADER_LIST_SIZE: u16 = 0x6;
    /// RFC 8441.
    pub const ENABLE_CONNECT_PROTOCOL: u16 = 0x8;
    /// RFC 9218.
    pub const NO_RFC7540_PRIORITIES: u16 = 0x9;
}

/// The largest window, in bytes.
pub const MAX_WINDOW: u32 = (1 << 31) - 1;
/// The window as long as nothing else is said, in bytes.
pub const DEFAULT_WINDOW: u32 = 65_535;

/// What the peer lets us do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerSettings {
    /// Bytes of the dynamic table for what we send.
    pub header_table_bytes: u32,
    /// Streams that we may have open at once.
    pub max_streams: u32,
    /// The window that each new stream begins with, in bytes.
    pub initial_window: u32,
    /// The largest payload of a frame, in bytes.
    pub max_frame_bytes: u32,
    /// The largest field section that it takes, in bytes as RFC 9113 §6.5.2 counts them.
    pub max_list_bytes: u32,
    /// It takes extended CONNECT (RFC 8441).
    pub connect_protocol: bool,
    /// It has no use for priorities of RFC 7540 (RFC 9218 §2.1).
    pub no_old_priorities: bool,
}

impl Default for PeerSettings {
    /// What holds until the peer's first SETTINGS have come.
    fn default() -> Self {
        Self {
            header_table_bytes: DEFAULT_TABLE_BYTES,
            max_streams: u32::MAX,
            initial_window: DEFAULT_WINDOW,
            max_frame_bytes: MIN_MAX_FRAME_BYTES,
            max_list_bytes: u32::MAX,
            connect_protocol: false,
            no_old_priorities: false,
        }
    }
}

impl PeerSettings {
    /// Takes over one of its settings; one that nobody knows is ignored.
    ///
    /// # Errors
    /// If it may not have this value: an error of the connection.
    pub fn apply(&mut self, id: u16, value: u32, peer_is_server: bool) -> Result<(), Reason> {
        match id {
            id::HEADER_TABLE_SIZE => self.header_table_bytes = value,
            // A server pushes, it is not pushed to (RFC 9113 §6.5.2).
            id::ENABLE_PUSH if value > u32::from(!peer_is_server) => return Err(Reason::PROTOCOL_ERROR),
            id::MAX_CONCURRENT_STREAMS => self.max_streams = value,
            id::INITIAL_WINDOW_SIZE if value > MAX_WINDOW => return Err(Reason::FLOW_CONTROL_ERROR),
            id::INITIAL_WINDOW_SIZE => self.initial_window = value,
            id::MAX_FRAME_SIZE if !(MIN_MAX_FRAME_BYTES..=MAX_MAX_FRAME_BYTES).contains(&value) => {
                return Err(Reason::PROTOCOL_ERROR);
            }
            id::MAX_FRAME_SIZE => self.max_frame_bytes = value,
            id::MAX_HEADER_LIST_SIZE => self.max_list_bytes = value,
            // It can't be taken back (RFC 8441 §3).
            id::ENABLE_CONNECT_PROTOCOL if value > 1 || (value == 0 && self.connect_protocol) => {
                return Err(Reason::PROTOCOL_ERROR);
            }
            id::ENABLE_CONNECT_PROTOCOL => self.connect_protocol = value == 1,
            id::NO_RFC7540_PRIORITIES if value > 1 => return Err(Reason::PROTOCOL_ERROR),
            id::NO_RFC7540_PRIORITIES => self.no_old_priorities = value == 1,
            _ => {}
        }
        Ok(())
    }
}
