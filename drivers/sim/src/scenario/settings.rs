//! The settings of a scenario as numbers, for the judges. The proxy reads them from the text of a file.

/// The timeouts in nanoseconds; 0: off.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timeouts {
    pub(crate) head: u64,
    pub(crate) idle: u64,
    /// With TLS only.
    pub(crate) handshake: u64,
    pub(crate) connect: u64,
    pub(crate) backend_head: u64,
    pub(crate) stall: u64,
    pub(crate) tunnel: u64,
    pub(crate) queue: u64,
}

/// The limits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits {
    /// Of all clients; 0: the default, more than there are.
    pub(crate) connections: u64,
    /// Bytes of a head, its fields, and bytes of a target; 0: the default, more than any client sends.
    pub(crate) head_bytes: u64,
    pub(crate) fields: u64,
    pub(crate) target_bytes: u64,
    /// Of one address; 0: none.
    pub(crate) connections_per_ip: u64,
    /// Requests that wait, by pool and shard; `None`: the default, more than there are.
    pub(crate) queue: Option<u64>,
    /// Bytes per second of an upload, and of a download; 0: none.
    pub(crate) min_rate: u64,
}

/// What all pools share.
#[derive(Clone, Debug, Default)]
pub(crate) struct PoolSettings {
    pub(crate) retries: u64,
    /// Of a probe, in nanoseconds.
    pub(crate) probe_timeout: u64,
    /// In nanoseconds; 0: never.
    pub(crate) slow_threshold: u64,
    pub(crate) rise: u64,
    pub(crate) fall: u64,
    /// Over which a recovered backend gets its share back, in nanoseconds.
    pub(crate) ramp_up: u64,
    /// How long a connection to a backend may be idle, in nanoseconds; 0: for ever.
    pub(crate) idle: u64,
    /// How many connections may be idle, by backend and shard.
    pub(crate) max_idle: u64,
}
