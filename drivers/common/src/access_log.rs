//! One access line for each exchange, and a log message for each change of health: the observer that every
//! worker of the daemon has.
//!
//! Lines are gathered in a chunk of the worker's own and handed over when its turn ends: no allocation, no
//! `fmt`, no lock that is held for longer than a swap. What the writer is too slow for is dropped and
//! counted.

use ruststrom_core::config::LogFormat;
use ruststrom_core::http::{Scheme, Version};
use ruststrom_core::observe::{
    Head, HealthChange, Kept, Level, Name, Named, Observer, Record, Step, Timings, Tls,
};
use ruststrom_core::{ConnId, Instant, Wall};

use crate::access_target::{AccessTarget, SharedAccessTarget};
use crate::health_log::log_change;
use crate::line::{ESCAPED, Line, MARGIN, Timestamp};
use crate::log_writer::{Chunk, Handed, LogProducer, LogWriter};
use crate::observer::WorkerObserver;

/// A turn that gathers more bytes hands over in between.
const HAND_OVER: usize = 256 << 10;

/// Room for everything of a head that is not text from outside.
const HEAD_MARGIN: usize = 224;
/// The same for what TLS has agreed on.
const TLS_MARGIN: usize = 192;

/// The observer of a worker of the daemon.
pub struct LogObserver {
    access: Option<Access>,
    /// Where access lines are to go.
    target: SharedAccessTarget,
    /// When the turn began, and a wall time with the instant at which it was read.
    now: Instant,
    wall: (Wall, Instant),
    /// The log has the steps of connections, and the bytes of each; that does not change.
    steps: (bool, bool),
    /// The worker that the observer is of.
    worker: u16,
}

/// The module of the log that has the steps of connections.
const STEPS: &str = "proxy";

/// Whether the steps of connections are logged, and the bytes of each.
fn logs_steps() -> (bool, bool) {
    (log::log_enabled!(target: STEPS, log::Level::Debug), log::log_enabled!(target: STEPS, log::Level::Trace))
}

struct Access {
    format: LogFormat,
    producer: LogProducer,
    chunk: Chunk,
    /// When the turn began, and a wall time with the instant at which it was read: the first line of a turn
    /// makes its timestamp from them.
    now: Instant,
    wall: (Wall, Instant),
    timestamp: Timestamp,
    /// The turn that it was made for; [`Instant::NEVER`]: none.
    timestamp_of: Instant,
    /// For heads that need escapes.
    scratch: Vec<u8>,
}

impl LogObserver {
    /// An observer that also writes access lines.
    #[must_use]
    pub fn new(format: LogFormat, writer: &LogWriter) -> Self {
        let target = AccessTarget { format, writer: writer.clone(), own_file: false };
        Self::writing_to(SharedAccessTarget::new(Some(target)))
    }

    /// An observer that writes no access lines.
    #[must_use]
    pub fn without_access_log() -> Self {
        Self::writing_to(SharedAccessTarget::default())
    }

    /// An observer whose access lines go to this target, if there is one, and to another one after a reload.
    #[must_use]
    pub fn writing_to(target: SharedAccessTarget) -> Self {
        let (now, wall) = (Instant::ZERO, (Wall::default(), Instant::ZERO));
        let access = target.get().map(|target| Access::new(&target, now, wall));
        Self { access, target, now, wall, steps: logs_steps(), worker: 0 }
    }

    /// That of the worker with this number, which the names of connections begin with.
    #[must_use]
    pub fn of_worker(self, worker: u16) -> Self {
        Self { worker, ..self }
    }

    /// Access lines that were dropped.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.access.as_ref().map_or(0, |a| a.producer.dropped())
    }
}

impl Observer for LogObserver {
    #[inline]
    fn wants_records(&self) -> bool {
        self.access.is_some()
    }

    #[inline]
    fn head(&mut self, head: &Head<'_>, kept: &mut Kept) {
        if let Some(a) = &mut self.access {
            keep(a.format, head, kept, &mut a.scratch);
        }
    }

    #[inline]
    fn exchange(&mut self, record: &Record<'_>) {
        if let Some(a) = &mut self.access {
            a.exchange(record);
        }
    }

    fn health(&mut self, c: &HealthChange<'_>) {
        log_change(c);
    }

    #[inline]
    fn wants_steps(&self) -> bool {
        self.steps.0
    }

    #[inline]
    fn wants_bytes(&self) -> bool {
        self.steps.1
    }

    #[cold]
    fn step(&mut self, conn: ConnId, step: &Step<'_>) {
        let level = match step {
            Step::Received { .. } | Step::Sent { .. } => log::Level::Trace,
            _ => log::Level::Debug,
        };
        log::log!(target: STEPS, level, "connection {}.{}: {step}", self.worker, Name(conn));
    }

    fn note(&mut self, level: Level, text: &str) {
        let level = match level {
            Level::Error => log::Level::Error,
            Level::Warning => log::Level::Warn,
            Level::Info => log::Level::Info,
            Level::Debug => log::Level::Debug,
        };
        log::log!(target: "proxy", level, "{text}");
    }
}

impl WorkerObserver for LogObserver {
    fn turn(&mut self, now: Instant) {
        self.now = now;
        if let Some(a) = &mut self.access {
            a.now = now;
        }
    }

    fn wall(&mut self, wall: Wall, now: Instant) {
        self.wall = (wall, now);
        if let Some(a) = &mut self.access {
            a.wall = (wall, now);
            a.timestamp_of = Instant::NEVER;
        }
    }

    fn turn_ended(&mut self) -> bool {
        self.access.as_mut().is_some_and(|a| a.producer.hand_over(&mut a.chunk) == Handed::Busy)
    }

    fn reconfigured(&mut self) {
        match (&mut self.access, self.target.get()) {
            (Some(access), Some(target)) if access.producer.is_of(&target.writer) => {
                access.format = target.format;
            }
            // What was gathered for the old one is handed over when it is dropped.
            (access, target) => {
                *access = target.map(|target| Access::new(&target, self.now, self.wall));
            }
        }
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        // The last lines of a worker; the writer holds the lock for no longer than a swap.
        while self.producer.hand_over(&mut self.chunk) == Handed::Busy {
            std::thread::yield_now();
        }
    }
}

impl Access {
    fn new(target: &AccessTarget, now: Instant, wall: (Wall, Instant)) -> Self {
        Self {
            format: target.format,
            producer: target.writer.producer(),
            chunk: Chunk::default(),
            now,
            wall,
            timestamp: Timestamp::default(),
            timestamp_of: Instant::NEVER,
            scratch: Vec::new(),
        }
    }

    fn exchange(&mut self, r: &Record<'_>) {
        // The format may have changed since its request came, or there was no access log then.
        let format = match r.kept.parts().0.first() {
            Some(b' ') => LogFormat::Text,
            Some(_) => LogFormat::Json,
            None => return,
        };
        if self.chunk.len() >= HAND_OVER {
            let _ = self.producer.hand_over(&mut self.chunk);
        }
        if self.timestamp_of != self.now {
            self.timestamp_of = self.now;
            let wall = self.wall_now();
            self.timestamp.at(wall);
        }
        let mut names = (r.pool.len() + r.backend.len()) * ESCAPED;
        if !r.failed.is_empty() {
            names += room_of_failed(r);
        }
        if !r.user.is_empty() {
            names += r.user.len() * ESCAPED + br#","user":"""#.len();
        }
        let Some(room) = self.chunk.room(r.kept.len() + names + MARGIN) else {
            return self.producer.drop_lines(1);
        };
        let mut line = Line::new(room);
        match format {
            LogFormat::Text => text(r, self.timestamp.last(), &mut line),
            LogFormat::Json => json(r, self.timestamp.last(), &mut line),
        }
        let len = line.len();
        self.chunk.commit(len);
    }

    fn wall_now(&self) -> Wall {
        let (wall, at) = self.wall;
        let ms = u64::from(wall.millis) + self.now.nanos_since(at) / 1_000_000;
        Wall { unix_secs: wall.unix_secs + ms / 1000, millis: (ms % 1000) as u16 }
    }
}

/// Writes that part of a line which is known when a request comes, so that its texts are copied and looked at
/// once only.
#[inline]
fn keep(format: LogFormat, head: &Head<'_>, kept: &mut Kept, scratch: &mut Vec<u8>) {
    let id = match head.request_id {
        Named::Ours(id) => id.len(),
        Named::Theirs(id) => id.len(),
    };
    let texts = head.method.len()
        + head.target.len()
        + head.host.len()
        + head.user_agent.len()
        + head.referer.len()
        + head.tls.map_or(0, |tls| tls.server_name.len() + tls.client_subject.len() + TLS_MARGIN)
        + id;
    let (first, used, whole) =
        put_head(format, head, kept.room(texts + HEAD_MARGIN), |line, text| line.plain(text));
    if whole {
        kept.keep(first, used);
    } else {
        keep_with_escapes(format, head, kept, scratch, texts * ESCAPED + HEAD_MARGIN);
    }
}

/// Escapes may take much room, and are rare: only what was needed is kept.
#[cold]
fn keep_with_escapes(
    format: LogFormat,
    head: &Head<'_>,
    kept: &mut Kept,
    scratch: &mut Vec<u8>,
    most: usize,
) {
    if scratch.len() < most {
        scratch.resize(most, 0);
    }
    let (first, used, _) = put_head(format, head, scratch, |line, text| {
        match format {
            LogFormat::Text => line.quoted(text),
            LogFormat::Json => line.json(text),
        }
        true
    });
    kept.copy_parts(&scratch[..first], &scratch[first..used]);
}

/// Where the second part begins, where it ends, and whether each text was written: `put` writes one, or says
/// that it can't.
#[inline]
fn put_head(
    format: LogFormat,
    head: &Head<'_>,
    room: &mut [u8],
    put: impl Fn(&mut Line<'_>, &[u8]) -> bool,
) -> (usize, usize, bool) {
    let mut line = Line::new(room);
    let (first, whole) = match format {
        LogFormat::Text => text_head(head, &mut line, put),
        LogFormat::Json => json_head(head, &mut line, put),
    };
    (first, line.len(), whole)
}

#[inline]
fn put_id(id: Named<'_>, l: &mut Line<'_>, put: impl Fn(&mut Line<'_>, &[u8]) -> bool) -> bool {
    match id {
        Named::Ours(id) => {
            l.lit(id);
            true
        }
        Named::Theirs(id) => put(l, id),
    }
}

/// What is before the status, and what ends the line.
#[inline]
fn text_head(h: &Head<'_>, l: &mut Line<'_>, put: impl Fn(&mut Line<'_>, &[u8]) -> bool) -> (usize, bool) {
    l.byte(b' ');
    l.address(h.client, h.client_ip);
    l.lit(b" \"");
    l.raw(h.method);
    l.byte(b' ');
    let mut whole = put(l, h.target);
    match h.version {
        Some(Version::HTTP_11) => l.lit(b" HTTP/1.1\" "),
        Some(Version::HTTP_10) => l.lit(b" HTTP/1.0\" "),
        Some(Version::HTTP_2) => l.lit(b" HTTP/2.0\" "),
        _ => l.lit(b" -\" "),
    }
    let first = l.len();
    match h.scheme {
        Scheme::Http => l.lit(b" http"),
        Scheme::Https => l.lit(b" https"),
    }
    if let Some(tls) = &h.tls {
        whole &= text_tls(tls, l, &put);
    }
    if h.stream > 0 {
        l.keyed_number(b" stream=", u64::from(h.stream));
    }
    l.lit(b" host=\"");
    l.raw(h.host);
    l.lit(b"\" id=\"");
    whole &= put_id(h.request_id, l, &put);
    l.lit(b"\" agent=\"");
    whole &= put(l, h.user_agent);
    l.lit(b"\" referer=\"");
    whole &= put(l, h.referer);
    l.lit(b"\"\n");
    (first, whole)
}

/// ` tls_version=TLSv1.3 tls_cipher=TLS_AES_128_GCM_SHA256 sni="example.com" tls_resumed=false`, and the
/// subject of the client's certificate if there is one.
fn text_tls(tls: &Tls<'_>, l: &mut Line<'_>, put: impl Fn(&mut Line<'_>, &[u8]) -> bool) -> bool {
    l.lit(b" tls_version=");
    l.raw(tls.version.as_bytes());
    l.lit(b" tls_cipher=");
    l.raw(tls.cipher.as_bytes());
    l.lit(b" sni=\"");
    let mut whole = put(l, tls.server_name.as_bytes());
    l.raw(if tls.resumed { b"\" tls_resumed=true" } else { b"\" tls_resumed=false" });
    if !tls.client_subject.is_empty() {
        l.lit(b" client_subject=\"");
        whole &= put(l, tls.client_subject.as_bytes());
        l.byte(b'"');
    }
    whole
}

/// `"tls_version":"TLSv1.3","tls_cipher":"TLS_AES_128_GCM_SHA256","sni":"example.com","tls_resumed":false`,
/// and the subject of the client's certificate if there is one; behind an open string.
fn json_tls(tls: &Tls<'_>, l: &mut Line<'_>, put: impl Fn(&mut Line<'_>, &[u8]) -> bool) -> bool {
    l.lit(b"\",\"tls_version\":\"");
    l.raw(tls.version.as_bytes());
    l.lit(b"\",\"tls_cipher\":\"");
    l.raw(tls.cipher.as_bytes());
    l.lit(b"\",\"tls_resumed\":");
    l.raw(if tls.resumed { b"true" } else { b"false" });
    l.lit(b",\"sni\":\"");
    let mut whole = put(l, tls.server_name.as_bytes());
    if !tls.client_subject.is_empty() {
        l.lit(b"\",\"client_subject\":\"");
        whole &= put(l, tls.client_subject.as_bytes());
    }
    whole
}

/// `TIME CLIENT "METHOD TARGET HTTP/V" STATUS key=value ...`, times in milliseconds.
#[inline(always)]
fn text(r: &Record<'_>, timestamp: &[u8; 24], l: &mut Line<'_>) {
    let (request, rest) = r.kept.parts();
    l.lit(timestamp);
    l.raw(request);
    l.number(u64::from(r.status));
    l.keyed_number(b" in=", r.bytes_in);
    l.keyed_number(b" out=", r.bytes_out);
    l.lit(b" pool=\"");
    l.name(r.pool, Line::quoted);
    l.lit(b"\" backend=\"");
    l.name(r.backend, Line::quoted);
    l.keyed_number(b"\" tries=", u64::from(r.attempts));
    if r.reused {
        l.lit(b" reused");
    } else {
        l.lit(b" fresh");
    }
    let t = r.timings;
    phase(b" head=0.000", t, t.head, l);
    phase(b" chosen=0.000", t, t.chosen, l);
    phase(b" connected=0.000", t, t.connected, l);
    phase(b" sent=0.000", t, t.sent, l);
    phase(b" answered=0.000", t, t.responded, l);
    phase(b" total=0.000", t, t.ended, l);
    match r.cause {
        None => l.lit(b" cause=-"),
        Some(c) => {
            l.lit(b" cause=");
            l.raw(c.name().as_bytes());
        }
    }
    if !r.failed.is_empty() {
        l.apart(|line| text_failed(r, line));
    }
    if !r.user.is_empty() {
        l.apart(|line| text_user(r, line));
    }
    l.raw(rest);
}

/// Room for the attempts that failed.
#[cold]
fn room_of_failed(r: &Record<'_>) -> usize {
    const BETWEEN: usize = br#"{"backend":"","cause":""},"#.len();
    r.failed.iter().map(|(backend, cause)| backend.len() * ESCAPED + cause.name().len() + BETWEEN).sum()
}

/// ` tried=[A:connect_refused, B:backend_timeout]`
#[cold]
fn text_failed<'a>(r: &Record<'_>, mut l: Line<'a>) -> Line<'a> {
    l.lit(b" tried=[");
    for (n, (backend, cause)) in r.failed.iter().enumerate() {
        if n > 0 {
            l.lit(b", ");
        }
        l.name(backend, Line::quoted);
        l.byte(b':');
        l.raw(cause.name().as_bytes());
    }
    l.byte(b']');
    l
}

/// ` user="ada"`
#[cold]
fn text_user<'a>(r: &Record<'_>, mut l: Line<'a>) -> Line<'a> {
    l.lit(b" user=\"");
    l.name(r.user, Line::quoted);
    l.byte(b'"');
    l
}

/// `,"tried":[{"backend":"A","cause":"connect_refused"}]`
#[cold]
fn json_failed(r: &Record<'_>, l: &mut Line<'_>) {
    l.lit(b",\"tried\":[");
    for (n, (backend, cause)) in r.failed.iter().enumerate() {
        if n > 0 {
            l.byte(b',');
        }
        l.lit(b"{\"backend\":\"");
        l.name(backend, Line::json);
        l.lit(b"\",\"cause\":\"");
        l.raw(cause.name().as_bytes());
        l.lit(b"\"}");
    }
    l.byte(b']');
}

/// `,"user":"ada"`
#[cold]
fn json_user(r: &Record<'_>, l: &mut Line<'_>) {
    l.lit(b",\"user\":\"");
    l.name(r.user, Line::json);
    l.byte(b'"');
}

/// `key` ends with `0.000`.
#[inline(always)]
fn phase<const N: usize>(key: &[u8; N], t: &Timings, at: Instant, l: &mut Line<'_>) {
    // A phase that was not reached is far away.
    if !l.short_millis(key, at.nanos_since(t.started)) {
        l.apart(|line| long_phase(&key[..N - 5], t.micros(at), line));
    }
}

#[inline(never)]
fn long_phase<'a>(key: &[u8], us: Option<u64>, mut l: Line<'a>) -> Line<'a> {
    l.raw(key);
    match us {
        Some(us) => l.millis(us),
        None => l.byte(b'-'),
    }
    l
}

/// What is known of a request when it comes.
#[inline]
fn json_head(h: &Head<'_>, l: &mut Line<'_>, put: impl Fn(&mut Line<'_>, &[u8]) -> bool) -> (usize, bool) {
    l.lit(b"\",\"client\":\"");
    l.address(h.client, h.client_ip);
    match h.scheme {
        Scheme::Http => l.lit(b"\",\"scheme\":\"http"),
        Scheme::Https => l.lit(b"\",\"scheme\":\"https"),
    }
    let mut whole = h.tls.as_ref().is_none_or(|tls| json_tls(tls, l, &put));
    l.lit(b"\",\"method\":\"");
    l.raw(h.method);
    l.lit(b"\",\"target\":\"");
    whole &= put(l, h.target);
    match h.version {
        Some(Version::HTTP_11) => l.lit(b"\",\"version\":\"1.1\",\"host\":\""),
        Some(Version::HTTP_10) => l.lit(b"\",\"version\":\"1.0\",\"host\":\""),
        Some(Version::HTTP_2) => {
            l.keyed_number(b"\",\"version\":\"2.0\",\"stream\":", u64::from(h.stream));
            l.lit(b",\"host\":\"");
        }
        _ => l.lit(b"\",\"version\":null,\"host\":\""),
    }
    l.raw(h.host);
    l.lit(b"\",\"request_id\":\"");
    whole &= put_id(h.request_id, l, &put);
    l.lit(b"\",\"user_agent\":\"");
    whole &= put(l, h.user_agent);
    l.lit(b"\",\"referer\":\"");
    whole &= put(l, h.referer);
    (l.len(), whole)
}

/// One object a line, times in microseconds; a phase that was not reached is `null`.
fn json(r: &Record<'_>, timestamp: &[u8; 24], l: &mut Line<'_>) {
    l.lit(b"{\"time\":\"");
    l.lit(timestamp);
    l.raw(r.kept.bytes());
    l.keyed_number(b"\",\"status\":", u64::from(r.status));
    match r.cause {
        None => l.lit(b",\"cause\":null,\"pool\":\""),
        Some(c) => {
            l.lit(b",\"cause\":\"");
            l.raw(c.name().as_bytes());
            l.lit(b"\",\"pool\":\"");
        }
    }
    l.name(r.pool, Line::json);
    l.lit(b"\",\"backend\":\"");
    l.name(r.backend, Line::json);
    l.keyed_number(b"\",\"attempts\":", u64::from(r.attempts));
    if !r.failed.is_empty() {
        json_failed(r, l);
    }
    if !r.user.is_empty() {
        json_user(r, l);
    }
    if r.reused {
        l.lit(b",\"reused\":true,\"bytes_in\":");
    } else {
        l.lit(b",\"reused\":false,\"bytes_in\":");
    }
    l.number(r.bytes_in);
    l.keyed_number(b",\"bytes_out\":", r.bytes_out);
    let t = r.timings;
    micros(b",\"head_us\":", t, t.head, l);
    micros(b",\"chosen_us\":", t, t.chosen, l);
    micros(b",\"connected_us\":", t, t.connected, l);
    micros(b",\"sent_us\":", t, t.sent, l);
    micros(b",\"answered_us\":", t, t.responded, l);
    micros(b",\"total_us\":", t, t.ended, l);
    l.lit(b"}\n");
}

#[inline]
fn micros<const N: usize>(key: &[u8; N], t: &Timings, at: Instant, l: &mut Line<'_>) {
    match t.micros(at) {
        Some(us) => l.keyed_number(key, us),
        None => {
            l.lit(key);
            l.lit(b"null");
        }
    }
}

#[cfg(test)]
mod tests;
