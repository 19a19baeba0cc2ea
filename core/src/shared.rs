//! What worker shards share.

/// What the shards of one process share.
pub struct Shared {
    hostname: Box<str>,
    shards: u16,
}

impl Shared {
    /// For a process with `shards` workers on the host `hostname`.
    #[must_use]
    pub fn new(hostname: &str, shards: u16) -> Self {
        Self { hostname: hostname.into(), shards }
    }
    /// How many shards.
    #[must_use]
    pub fn shards(&self) -> u16 {
        self.shards
    }
    /// For `X-Forwarded-Server`.
    #[must_use]
    pub fn hostname(&self) -> &str {
        &self.hostname
    }
}
