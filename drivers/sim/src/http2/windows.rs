//! The ledger of credit on one connection (RFC 9113 §5.2, §6.9), kept by the frames on the wire alone.

use std::collections::BTreeMap;

/// A window as long as nothing else is said.
pub(crate) const DEFAULT_WINDOW: i64 = 65_535;

/// What one side may send: on each stream, and in all.
#[derive(Debug)]
pub(crate) struct Windows {
    pub(crate) connection: i64,
    /// What a new stream begins with.
    pub(crate) initial: i64,
    pub(crate) streams: BTreeMap<u32, i64>,
}

impl Windows {
    pub(crate) fn new() -> Self {
        Self { connection: DEFAULT_WINDOW, initial: DEFAULT_WINDOW, streams: BTreeMap::new() }
    }

    /// A stream begins.
    pub(crate) fn open(&mut self, stream: u32) {
        self.streams.insert(stream, self.initial);
    }

    /// A stream is over: only the connection's credit goes on.
    pub(crate) fn close(&mut self, stream: u32) {
        self.streams.remove(&stream);
    }

    /// Bytes that may be sent on a stream now.
    pub(crate) fn left(&self, stream: u32) -> u64 {
        let of_stream = self.streams.get(&stream).copied().unwrap_or(0);
        u64::try_from(of_stream.min(self.connection)).unwrap_or(0)
    }

    /// Bytes were sent, all of which count, padding too. `Err`: there was no credit for them.
    pub(crate) fn sent(&mut self, stream: u32, bytes: u64) -> Result<(), String> {
        let bytes = bytes as i64;
        self.connection -= bytes;
        if self.connection < 0 {
            return Err(format!("{} bytes more than the connection's window", -self.connection));
        }
        // Who has been told of the end of a stream may not know of it yet.
        let Some(window) = self.streams.get_mut(&stream) else { return Ok(()) };
        *window -= bytes;
        // A setting may have made it negative: then nothing may be sent until it is positive again.
        if *window < 0 && bytes > 0 {
            return Err(format!("{} bytes more than the window of stream {stream}", -*window));
        }
        Ok(())
    }

    /// The other side allows more; returns the window that this makes.
    pub(crate) fn granted(&mut self, stream: u32, bytes: u32) -> Option<i64> {
        let window = if stream == 0 { &mut self.connection } else { self.streams.get_mut(&stream)? };
        *window += i64::from(bytes);
        Some(*window)
    }

    /// A setting changes what streams begin with, and those that are open by as much (RFC 9113 §6.9.2).
    pub(crate) fn set_initial(&mut self, initial: i64) {
        let by = initial - self.initial;
        self.initial = initial;
        self.streams.values_mut().for_each(|window| *window += by);
    }
}

/// What we let the proxy send, by what it knows for sure. A setting that allows more counts when it is sent,
/// one that allows less when it is acknowledged.
#[derive(Debug)]
pub(crate) struct Grants {
    pub(crate) windows: Windows,
    /// Settings that are not acknowledged: what streams begin with by each, and the largest frame.
    pub(crate) unacknowledged: Vec<(i64, u32)>,
    /// By the newest one that is.
    acknowledged: (i64, u32),
}

impl Grants {
    pub(crate) fn new(max_frame: u32) -> Self {
        let acknowledged = (DEFAULT_WINDOW, max_frame);
        Self { windows: Windows::new(), unacknowledged: Vec::new(), acknowledged }
    }

    /// SETTINGS are sent.
    pub(crate) fn settings(&mut self, initial: i64, max_frame: u32) {
        self.unacknowledged.push((initial, max_frame));
        self.count();
    }

    /// They are acknowledged. False: none is due.
    pub(crate) fn acknowledge(&mut self) -> bool {
        if self.unacknowledged.is_empty() {
            return false;
        }
        self.acknowledged = self.unacknowledged.remove(0);
        self.count();
        true
    }

    fn count(&mut self) {
        let initial = self.unacknowledged.iter().map(|(initial, _)| *initial).max();
        self.windows.set_initial(self.acknowledged.0.max(initial.unwrap_or(0)));
    }

    /// The largest payload that it may send.
    pub(crate) fn max_frame(&self) -> u32 {
        let largest = self.unacknowledged.iter().map(|(_, largest)| *largest).max();
        self.acknowledged.1.max(largest.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit() {
        let mut windows = Windows::new();
        windows.open(1);
        windows.open(3);
        assert_eq!(windows.sent(1, 60_000), Ok(()));
        assert_eq!((windows.left(1), windows.left(3)), (5_535, 5_535));
        assert_eq!(windows.granted(0, 60_000), Some(65_535));
        windows.set_initial(100);
        assert_eq!((windows.left(1), windows.left(3), windows.streams[&1]), (0, 100, -59_900));
        assert!(windows.sent(3, 101).is_err());
        assert_eq!(windows.sent(1, 0), Ok(()), "an empty frame needs no credit");
        assert_eq!((windows.granted(1, 59_901), windows.granted(9, 1)), (Some(1), None));
    }

    #[test]
    fn a_setting_that_allows_less_counts_once_it_is_known() {
        let mut grants = Grants::new(16_384);
        grants.windows.open(1);
        grants.settings(10, 16_384);
        assert_eq!(grants.windows.left(1), 65_535);
        grants.settings(100_000, 20_000);
        assert_eq!((grants.windows.streams[&1], grants.max_frame()), (100_000, 20_000));
        assert!(grants.acknowledge() && grants.acknowledge() && !grants.acknowledge());
        assert_eq!((grants.windows.streams[&1], grants.max_frame()), (100_000, 20_000));
    }
}
