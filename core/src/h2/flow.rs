//! Flow control (RFC 9113 §5.2, §6.9): a window for each direction of each stream and of the connection.

use super::settings::MAX_WINDOW;

/// What the peer may still send. Credit is given back for what has been sent on, and told once it comes to
/// half of the window: one frame for many.
#[derive(Clone, Copy, Debug)]
pub struct RecvWindow {
    /// Bytes that the peer may still send; negative if a setting made the window smaller than what it had
    /// sent.
    left: i64,
    /// Bytes that it may send again, and has not been told.
    owed: u32,
    /// How large the window is, in bytes.
    size: u32,
}

/// Less than a frame of data is not told of a window that streams share.
const MIN_SHARED_UPDATE: u32 = 16 * 1024;

/// The peer sent more than it might.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded;

impl RecvWindow {
    /// A window of so many bytes, as the peer knows.
    #[must_use]
    pub fn new(size: u32) -> Self {
        Self { left: i64::from(size), owed: 0, size }
    }

    /// The peer has learnt from a setting that the window has another size (RFC 9113 §6.9.2).
    pub fn resize(&mut self, size: u32) {
        self.left += i64::from(size) - i64::from(self.size);
        self.size = size;
    }

    /// The window becomes so many bytes larger; the peer has to be told.
    pub fn grow(&mut self, by: u32) {
        self.size += by;
        self.owed += by;
    }

    /// Bytes came.
    ///
    /// # Errors
    /// If the peer had no credit for them.
    pub fn take(&mut self, bytes: u32) -> Result<(), Exceeded> {
        let left = self.left - i64::from(bytes);
        // What is empty needs no credit, even where a setting has made the window negative (RFC 9113 §6.9).
        if left < 0 && bytes > 0 {
            return Err(Exceeded);
        }
        self.left = left;
        Ok(())
    }

    /// Bytes that came are needed no more.
    pub fn release(&mut self, bytes: u32) {
        debug_assert!(bytes <= self.held());
        self.owed += bytes;
    }

    /// What to tell the peer now, in bytes: it counts as told.
    pub fn update(&mut self) -> Option<u32> {
        self.tell(self.size.div_ceil(2))
    }

    /// The same of a window that streams share: what some of them hold, and may hold for long, is not waited
    /// for. Of the rest, half is told.
    pub fn update_shared(&mut self) -> Option<u32> {
        let rest = self.size.saturating_sub(self.held()).div_ceil(2);
        self.tell(rest.max(MIN_SHARED_UPDATE).min(self.size.div_ceil(2)))
    }

    /// Tells what is owed, if it is as much as that.
    fn tell(&mut self, least: u32) -> Option<u32> {
        if self.owed == 0 || self.owed < least {
            return None;
        }
        let owed = std::mem::take(&mut self.owed);
        self.left += i64::from(owed);
        Some(owed)
    }

    /// Bytes that the peer may still send.
    #[must_use]
    pub fn left(&self) -> u32 {
        u32::try_from(self.left).unwrap_or(0)
    }

    /// Bytes that came and are still needed.
    #[must_use]
    pub fn held(&self) -> u32 {
        u32::try_from(i64::from(self.size) - self.left - i64::from(self.owed)).unwrap_or(0)
    }
}

/// What we may still send. A setting can make it negative (RFC 9113 §6.9.2).
#[derive(Clone, Copy, Debug)]
pub struct SendWindow(i64);

impl SendWindow {
    /// Of so many bytes.
    #[must_use]
    pub fn new(bytes: u32) -> Self {
        Self(i64::from(bytes))
    }

    /// Bytes that may be sent.
    #[must_use]
    pub fn left(self) -> u32 {
        u32::try_from(self.0).unwrap_or(0)
    }

    /// Bytes are sent, no more than there is room for.
    pub fn take(&mut self, bytes: u32) {
        debug_assert!(bytes <= self.left());
        self.0 -= i64::from(bytes);
    }

    /// The peer allows so many bytes more, or less.
    ///
    /// # Errors
    /// If that makes the window larger than one may be.
    pub fn change(&mut self, by: i64) -> Result<(), Exceeded> {
        let changed = self.0 + by;
        if changed > i64::from(MAX_WINDOW) {
            return Err(Exceeded);
        }
        self.0 = changed;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn credit_comes_back_by_halves() {
        let mut window = RecvWindow::new(1000);
        let taken = [window.take(1001), window.take(1000), window.take(1)];
        assert_eq!(taken, [Err(Exceeded), Ok(()), Err(Exceeded)]);
        window.release(499);
        assert_eq!((window.update(), window.held()), (None, 501));
        window.release(1);
        assert_eq!((window.update(), window.left(), window.update()), (Some(500), 500, None));
        window.grow(2000);
        assert_eq!((window.update(), window.left(), window.held()), (Some(2000), 2500, 500));
    }

    // Three quarters are held and stay so: what else comes and goes is told nevertheless.
    #[test]
    fn what_some_streams_hold_keeps_no_credit_from_others() {
        let mut window = RecvWindow::new(1 << 20);
        assert_eq!(window.take(3 << 18), Ok(()));
        for _ in 0..1_000 {
            assert_eq!(window.take(16_384), Ok(()));
            window.release(16_384);
            window.update_shared();
            assert_eq!(window.held(), 3 << 18);
        }
        // Without that it is as with any other.
        let mut windows = [RecvWindow::new(1 << 20); 2];
        for _ in 0..1_000 {
            for window in &mut windows {
                assert_eq!(window.take(1_000), Ok(()));
                window.release(1_000);
            }
            assert_eq!(windows[0].update(), windows[1].update_shared());
        }
    }

    // The peer has sent more than the new window when it learns of it: it has to wait until that is released.
    #[test]
    fn a_setting_makes_a_window_smaller() {
        let mut window = RecvWindow::new(1000);
        assert_eq!(window.take(700), Ok(()));
        window.resize(200);
        assert_eq!((window.left(), window.held(), window.take(1)), (0, 700, Err(Exceeded)));
        assert_eq!(window.take(0), Ok(()));
        window.release(99);
        assert_eq!(window.update(), None);
        window.release(501);
        assert_eq!((window.update(), window.left(), window.held()), (Some(600), 100, 100));
    }

    #[test]
    fn settings_make_windows_negative() {
        let mut window = SendWindow::new(100);
        window.take(80);
        assert_eq!(window.change(-100), Ok(()));
        assert_eq!(window.left(), 0);
        assert_eq!((window.change(81), window.left()), (Ok(()), 1));
        assert_eq!(window.change(i64::from(MAX_WINDOW)), Err(Exceeded));
        assert_eq!((window.change(i64::from(MAX_WINDOW) - 1), window.left()), (Ok(()), MAX_WINDOW));
    }

    proptest! {
        // What the peer may send, what is held here and what is owed are always the whole window.
        #[test]
        fn credit_is_conserved(size in 1..5000_u32, steps in prop::collection::vec(0..3000_u32, 1..60)) {
            let mut window = RecvWindow::new(size);
            let (mut held, mut peer) = (0, size);
            for (n, bytes) in steps.into_iter().enumerate() {
                if n % 2 == 0 {
                    let taken = window.take(bytes);
                    prop_assert_eq!(taken.is_ok(), bytes <= peer);
                    if taken.is_ok() {
                        (held, peer) = (held + bytes, peer - bytes);
                    }
                } else {
                    let bytes = bytes.min(held);
                    window.release(bytes);
                    held -= bytes;
                    peer += window.update().unwrap_or(0);
                }
                prop_assert_eq!((window.left(), window.held()), (peer, held));
                prop_assert!(peer + held <= size);
                prop_assert!(held > 0 || peer * 2 >= size, "a peer that is owed all can send half of it");
            }
        }
    }
}
