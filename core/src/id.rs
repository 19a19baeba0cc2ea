//! Ids: small, copyable, and stale ones are recognised by their epoch.

/// A connection of one shard (or, inside an `ExchangeId`, an exchange). It fits a `u64`, so a driver can use
/// it as its poll token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    /// Place in the shard's table.
    pub slot: u32,
    /// How often that place had been given out before; a stale id has an old one and is ignored.
    pub epoch: u32,
}

impl ConnId {
    /// Both halves in one word.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        (self.epoch as u64) << 32 | self.slot as u64
    }

    /// The inverse of [`ConnId::to_bits`].
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self { slot: bits as u32, epoch: (bits >> 32) as u32 }
    }
}

/// An exchange of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ExchangeId(pub(crate) ConnId);

/// One question to the driver (DNS now, LDAP later).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LookupId(pub u64);

/// A listener, by its place in [`crate::Config::listeners`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub u16);
