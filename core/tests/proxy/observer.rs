//! What the proxy tells of itself.

use std::net::SocketAddr;

use ruststrom_core::observe::{
    Head, HealthChange, HealthState, Kept, Level, Name, Named, Record, Step, Usable,
};
use ruststrom_core::{Cause, ConnId, Observer};

/// One record of the observer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EndedExchange {
    pub(crate) status: u16,
    pub(crate) cause: Option<Cause>,
    pub(crate) attempts: u8,
    pub(crate) failed: Vec<(String, Cause)>,
    pub(crate) backend: String,
    pub(crate) reused: bool,
    pub(crate) target: String,
    pub(crate) client: SocketAddr,
    pub(crate) bytes: (u64, u64),
    pub(crate) total_us: u64,
}

/// What the proxy reports.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) exchanges: Vec<EndedExchange>,
    /// Backend, before, after.
    pub(crate) health: Vec<(String, HealthState, HealthState)>,
    /// What was seen when it last changed.
    pub(crate) why: String,
    /// State, source, reason, and usable main backends and backups, of each change.
    pub(crate) health_lines: Vec<String>,
    pub(crate) notes: Vec<String>,
    /// What TLS has agreed on, of each request that came over it.
    pub(crate) tls: Vec<String>,
    /// Every request as it came, with all that is reported of it.
    pub(crate) heads: Vec<String>,
    /// The steps of connections as they print, if they are wanted.
    pub(crate) steps: Vec<String>,
    pub(crate) wants_steps: bool,
    /// Pool and its identity, of each exchange.
    pub(crate) pools: Vec<(String, Option<u64>)>,
}

impl Observer for Log {
    fn head(&mut self, head: &Head<'_>, kept: &mut Kept) {
        kept.copy(head.target);
        let texts = [head.method, head.target, head.host, head.user_agent, head.referer]
            .map(String::from_utf8_lossy)
            .join("|");
        let (whose, id) = match head.request_id {
            Named::Ours(id) => ("ours", &id[..]),
            Named::Theirs(id) => ("theirs", id),
        };
        let ip = head.client_ip.as_bytes().escape_ascii();
        self.heads.push(format!(
            "{ip} {:?} {} {texts} {whose} {}",
            head.scheme,
            head.version.map_or(0, |v| if v == ruststrom_core::http::Version::HTTP_11 { 11 } else { 10 }),
            id.escape_ascii()
        ));
        if let Some(tls) = head.tls {
            self.tls.push(format!(
                "{} {} {} {} {}",
                tls.version, tls.cipher, tls.server_name, tls.resumed, tls.client_subject
            ));
        }
    }
    fn exchange(&mut self, r: &Record<'_>) {
        self.pools.push((r.pool.to_owned(), r.pool_identity));
        self.exchanges.push(EndedExchange {
            status: r.status,
            cause: r.cause,
            attempts: r.attempts,
            failed: r.failed.iter().map(|(backend, cause)| (backend.to_owned(), cause)).collect(),
            backend: r.backend.to_owned(),
            reused: r.reused,
            target: String::from_utf8_lossy(r.kept.bytes()).into_owned(),
            client: r.client,
            bytes: (r.bytes_in, r.bytes_out),
            total_us: r.timings.micros(r.timings.ended).expect("an end"),
        });
    }
    fn health(&mut self, c: &HealthChange<'_>) {
        c.seen.clone_into(&mut self.why);
        let Usable { main, main_total, backup, backup_total } = c.left;
        self.health_lines.push(format!(
            "{} {} {}, {main}/{main_total} {backup}/{backup_total}",
            c.to.name(),
            c.source.name(),
            c.reason
        ));
        self.health.push((c.backend.to_owned(), c.from, c.to));
    }
    fn wants_steps(&self) -> bool {
        self.wants_steps
    }
    fn wants_bytes(&self) -> bool {
        self.wants_steps
    }
    fn step(&mut self, conn: ConnId, step: &Step<'_>) {
        self.steps.push(format!("{}: {step}", Name(conn)));
    }
    fn note(&mut self, _: Level, text: &str) {
        self.notes.push(text.to_owned());
    }
}
