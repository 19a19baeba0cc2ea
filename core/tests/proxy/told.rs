//! What the proxy tells of itself.

use std::net::SocketAddr;

use ruststrom_core::observe::{HealthChange, HealthState, Level, Record};
use ruststrom_core::{Cause, Observer};

/// One record of the observer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) cause: Option<Cause>,
    pub(crate) attempts: u8,
    pub(crate) backend: String,
    pub(crate) reused: bool,
    pub(crate) target: String,
    pub(crate) client: SocketAddr,
    pub(crate) bytes: (u64, u64),
    pub(crate) total_us: u64,
}

/// What the proxy told.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) told: Vec<Told>,
    /// Backend, before, after.
    pub(crate) health: Vec<(String, HealthState, HealthState)>,
    /// Why it last changed.
    pub(crate) why: String,
    pub(crate) notes: Vec<String>,
}

impl Observer for Log {
    fn wants_texts(&self) -> bool {
        true
    }
    fn exchange(&mut self, r: &Record<'_>) {
        self.told.push(Told {
            status: r.status,
            cause: r.cause,
            attempts: r.attempts,
            backend: r.backend.to_owned(),
            reused: r.reused,
            target: String::from_utf8_lossy(r.target).into_owned(),
            client: r.client,
            bytes: (r.bytes_in, r.bytes_out),
            total_us: r.timings.total_us,
        });
    }
    fn health(&mut self, c: &HealthChange<'_>) {
        c.why.clone_into(&mut self.why);
        self.health.push((c.backend.to_owned(), c.from, c.to));
    }
    fn note(&mut self, _: Level, text: &str) {
        self.notes.push(text.to_owned());
    }
}
