//! Ids: small, copyable, and stale ones are recognised by their epoch.

use crate::slab::Key;

/// A connection of one shard. It fits a `u64`, so a driver can use it as its poll token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    /// Slot in the shard's table, below `u32::MAX / 2`.
    pub slot: u32,
    /// How often that slot had been given out before, never `u32::MAX`; a stale id has an old epoch and is
    /// ignored.
    pub epoch: u32,
}

impl ConnId {
    /// The id in one number: the epoch in the high half, the slot in the low half.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        (self.epoch as u64) << 32 | self.slot as u64
    }

    /// The id of a number that [`ConnId::to_bits`] made.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self { slot: bits as u32, epoch: (bits >> 32) as u32 }
    }
}

/// An exchange of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ExchangeId(pub(crate) ConnId);

impl Key for ConnId {
    #[inline(always)]
    fn from_parts(slot: u32, epoch: u32) -> Self {
        Self { slot, epoch }
    }

    #[inline(always)]
    fn slot(self) -> u32 {
        self.slot
    }

    #[inline(always)]
    fn epoch(self) -> u32 {
        self.epoch
    }
}

impl Key for ExchangeId {
    #[inline(always)]
    fn from_parts(slot: u32, epoch: u32) -> Self {
        Self(ConnId { slot, epoch })
    }

    #[inline(always)]
    fn slot(self) -> u32 {
        self.0.slot
    }

    #[inline(always)]
    fn epoch(self) -> u32 {
        self.0.epoch
    }
}

/// A lookup that the driver was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LookupId(pub u64);

/// A listener, by its place in [`crate::Config::listeners`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub u16);
