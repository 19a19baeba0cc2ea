//! Budgets for what costs a peer less than it costs us. Each is a bucket of tokens that fills with time; who
//! empties one is told to calm down (RFC 9113 §10.5), and the connection ends.

use crate::time::Instant;

/// What a peer can do too often.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abuse {
    /// It resets streams that are under way (CVE-2023-44487).
    Resets,
    /// It makes us reset streams (CVE-2025-8671).
    ResetsCaused,
    /// DATA with little or no payload.
    SmallData,
    /// PING.
    Pings,
    /// SETTINGS.
    Settings,
    /// WINDOW_UPDATE, beyond those that our data calls for.
    WindowUpdates,
    /// What has no effect: frames of closed streams, priorities, frames that nobody knows.
    Glitches,
}

const KINDS: usize = 7;

/// How much of each is allowed at once, and how much of it comes back in a second.
const ALLOWED: [(u32, u32); KINDS] = {
    let mut allowed = [(0, 0); KINDS];
    allowed[Abuse::Resets as usize] = (200, 50);
    allowed[Abuse::ResetsCaused as usize] = (100, 20);
    allowed[Abuse::SmallData as usize] = (20_000, 20_000);
    allowed[Abuse::Pings as usize] = (1_000, 100);
    allowed[Abuse::Settings as usize] = (50, 5);
    allowed[Abuse::WindowUpdates as usize] = (2_000, 1_000);
    allowed[Abuse::Glitches as usize] = (500, 50);
    allowed
};

/// A DATA frame with so many bytes of payload costs no token; an empty one costs the most.
const FULL_DATA_BYTES: u32 = 64;
/// Tokens that an empty DATA frame costs, whose stream goes on.
const EMPTY_DATA: u32 = 100;

/// The budgets of one connection.
#[derive(Debug)]
pub struct Budgets {
    left: [u32; KINDS],
    filled: Instant,
}

/// A budget is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsedUp(pub Abuse);

impl Budgets {
    /// Full ones.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { left: ALLOWED.map(|(most, _)| most), filled: now }
    }

    /// Takes so many tokens.
    ///
    /// # Errors
    /// If there are not so many left.
    pub fn take(&mut self, what: Abuse, tokens: u32, now: Instant) -> Result<(), UsedUp> {
        // Filled rarely: whoever stays below what is allowed at once never needs it.
        if self.left[what as usize] < tokens {
            self.fill(now);
        }
        let left = &mut self.left[what as usize];
        *left = left.checked_sub(tokens).ok_or(UsedUp(what))?;
        Ok(())
    }

    /// A DATA frame with so many bytes of payload came, and its stream goes on.
    ///
    /// # Errors
    /// If there were too many of them.
    pub fn data(&mut self, payload: u32, now: Instant) -> Result<(), UsedUp> {
        match payload {
            0 => self.take(Abuse::SmallData, EMPTY_DATA, now),
            1..FULL_DATA_BYTES => self.take(Abuse::SmallData, 1, now),
            _ => Ok(()),
        }
    }

    /// What we sent gives the peer reason for so much more of this.
    pub fn allow(&mut self, what: Abuse, tokens: u32) {
        let (most, _) = ALLOWED[what as usize];
        let left = &mut self.left[what as usize];
        *left = left.saturating_add(tokens).min(most);
    }

    fn fill(&mut self, now: Instant) {
        let millis = now.micros_since(self.filled) / 1000;
        // Less than that would be lost to rounding.
        if millis < 100 {
            return;
        }
        self.filled = now;
        for (left, (most, per_second)) in self.left.iter_mut().zip(ALLOWED) {
            let more = u64::from(per_second).saturating_mul(millis) / 1000;
            *left = u32::try_from(more).unwrap_or(u32::MAX).saturating_add(*left).min(most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Abuse; KINDS] = [
        Abuse::Resets,
        Abuse::ResetsCaused,
        Abuse::SmallData,
        Abuse::Pings,
        Abuse::Settings,
        Abuse::WindowUpdates,
        Abuse::Glitches,
    ];

    #[test]
    fn bursts_and_rates() {
        for what in ALL {
            let (most, per_second) = ALLOWED[what as usize];
            let mut budgets = Budgets::new(Instant::ZERO);
            let mut taken = |millis: u64| {
                let now = Instant::from_millis(millis);
                std::iter::from_fn(|| budgets.take(what, 1, now).ok()).count() as u32
            };
            assert_eq!((taken(0), taken(99)), (most, 0), "{what:?}");
            assert_eq!((taken(1000), taken(2000)), (per_second, per_second), "{what:?}");
            assert_eq!(taken(3_600_000), most, "{what:?}");
        }
    }

    #[test]
    fn data_costs_by_its_size_and_what_we_send_allows_more() {
        let mut budgets = Budgets::new(Instant::ZERO);
        let mut count =
            |payload| std::iter::from_fn(|| budgets.data(payload, Instant::ZERO).ok()).take(50_000).count();
        assert_eq!((count(64), count(0), count(1)), (50_000, 200, 0));
        budgets.allow(Abuse::SmallData, 30_000);
        assert_eq!(budgets.take(Abuse::SmallData, 20_001, Instant::ZERO), Err(UsedUp(Abuse::SmallData)));
        assert_eq!(budgets.take(Abuse::SmallData, 20_000, Instant::ZERO), Ok(()));
    }
}
