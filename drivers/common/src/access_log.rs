//! One line for each exchange, and a log message for each change of health: the observer that every worker has.
//!
//! Lines are gathered in a chunk of the worker's own and handed over when its turn ends: no allocation, no `fmt`, no lock that anybody holds for
//! longer than a swap. What the sink cannot take is dropped and counted.

use ruststrom_core::config::LogFormat;
use ruststrom_core::observe::{HealthChange, HealthState, Level, Observer, Record, Timings};
use ruststrom_core::{Instant, Wall};

use crate::line::{ESCAPED, Line, MARGIN, Stamp};
use crate::sink::{Chunk, Handed, Sink, Source};
use crate::watch::Watch;

/// A turn that gathers more hands over in between.
const FULL: usize = 256 << 10;

/// A worker's observer.
pub struct Reporter {
    access: Option<Access>,
}

struct Access {
    format: LogFormat,
    source: Source,
    chunk: Chunk,
    stamp: Stamp,
    /// The turn's time, and a wall time that was true at some instant: stamps are made from them when a line is written.
    now: Instant,
    wall: (Wall, Instant),
}

impl Reporter {
    /// One that writes access lines to a sink.
    #[must_use]
    pub fn new(format: LogFormat, sink: &Sink) -> Self {
        let (chunk, stamp, wall) = (Chunk::default(), Stamp::default(), (Wall::default(), Instant::ZERO));
        Self { access: Some(Access { format, source: sink.source(), chunk, stamp, now: Instant::ZERO, wall }) }
    }

    /// One that writes no access lines.
    #[must_use]
    pub fn quiet() -> Self {
        Self { access: None }
    }

    /// Access lines that were dropped.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.access.as_ref().map_or(0, |a| a.source.dropped())
    }
}

impl Observer for Reporter {
    fn wants_records(&self) -> bool {
        self.access.is_some()
    }
    fn wants_texts(&self) -> bool {
        self.access.is_some()
    }

    fn exchange(&mut self, record: &Record<'_>) {
        if let Some(a) = &mut self.access {
            a.exchange(record);
        }
    }

    fn health(&mut self, c: &HealthChange<'_>) {
        let (pool, backend, why) = (c.pool, c.backend, c.why);
        match c.to {
            HealthState::Unhealthy => log::error!(target: "health", "pool {pool}: backend {backend} is unhealthy: {why}"),
            HealthState::Slow => log::warn!(target: "health", "pool {pool}: backend {backend} is slow: {why}"),
            HealthState::Healthy => log::info!(target: "health", "pool {pool}: backend {backend} is healthy: {why}"),
            HealthState::Unknown => log::info!(target: "health", "pool {pool}: backend {backend} has not been checked yet: {why}"),
        }
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

impl Watch for Reporter {
    fn turn(&mut self, now: Instant) {
        if let Some(a) = &mut self.access {
            a.now = now;
        }
    }

    fn wall(&mut self, wall: Wall, now: Instant) {
        if let Some(a) = &mut self.access {
            a.wall = (wall, now);
        }
    }

    fn turn_ended(&mut self) -> bool {
        self.access.as_mut().is_some_and(|a| a.source.hand_over(&mut a.chunk) == Handed::Busy)
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        // The last lines of a worker; the writer holds the lock for no longer than a swap.
        while self.source.hand_over(&mut self.chunk) == Handed::Busy {
            std::thread::yield_now();
        }
    }
}

impl Access {
    fn exchange(&mut self, r: &Record<'_>) {
        let texts = r.method.len() + r.target.len() + r.host.len() + r.user_agent.len() + r.referer.len() + r.request_id.len();
        let most = (texts + r.pool.len() + r.backend.len()) * ESCAPED + MARGIN;
        if self.chunk.len() >= FULL {
            let _ = self.source.hand_over(&mut self.chunk);
        }
        let wall = self.wall_now();
        let Some(room) = self.chunk.room(most) else { return self.source.drop_lines(1) };
        let mut line = Line::new(room);
        match self.format {
            LogFormat::Text => text(r, &mut self.stamp, wall, &mut line),
            LogFormat::Json => json(r, &mut self.stamp, wall, &mut line),
        }
        let len = line.len();
        self.chunk.commit(len);
    }

    fn wall_now(&self) -> Wall {
        let (wall, at) = self.wall;
        let ms = u64::from(wall.millis) + self.now.since(at).as_nanos() as u64 / 1_000_000;
        Wall { unix_secs: wall.unix_secs + ms / 1000, millis: (ms % 1000) as u16 }
    }
}

/// `TIME CLIENT "METHOD TARGET HTTP/V" STATUS key=value ...`, times in milliseconds.
fn text(r: &Record<'_>, stamp: &mut Stamp, wall: Wall, l: &mut Line<'_>) {
    stamp.write(wall, l);
    l.byte(b' ');
    l.address(r.client);
    l.lit(b" \"");
    l.quoted(r.method);
    l.byte(b' ');
    l.quoted(r.target);
    match r.version {
        11 => l.lit(b" HTTP/1.1\" "),
        10 => l.lit(b" HTTP/1.0\" "),
        _ => l.lit(b" -\" "),
    }
    l.number(u64::from(r.status));
    l.byte(b' ');
    l.raw(r.scheme.as_bytes());
    l.lit(b" host=\"");
    l.quoted(r.host);
    l.lit(b"\" in=");
    l.number(r.bytes_in);
    l.lit(b" out=");
    l.number(r.bytes_out);
    l.lit(b" pool=\"");
    l.quoted(r.pool.as_bytes());
    l.lit(b"\" backend=\"");
    l.quoted(r.backend.as_bytes());
    l.lit(b"\" tries=");
    l.number(u64::from(r.attempts));
    if r.reused {
        l.lit(b" reused");
    } else {
        l.lit(b" fresh");
    }
    l.lit(b" head=");
    l.millis(r.timings.head_us);
    let Timings { chosen_us, connected_us, sent_us, answered_us, .. } = r.timings;
    l.lit(b" chosen=");
    millis_or_dash(chosen_us, l);
    l.lit(b" connected=");
    millis_or_dash(connected_us, l);
    l.lit(b" sent=");
    millis_or_dash(sent_us, l);
    l.lit(b" answered=");
    millis_or_dash(answered_us, l);
    l.lit(b" total=");
    l.millis(r.timings.total_us);
    l.lit(b" cause=");
    l.raw(r.cause.map_or("-", |c| c.name()).as_bytes());
    l.lit(b" id=\"");
    l.quoted(r.request_id);
    l.lit(b"\" agent=\"");
    l.quoted(r.user_agent);
    l.lit(b"\" referer=\"");
    l.quoted(r.referer);
    l.lit(b"\"\n");
}

#[inline]
fn millis_or_dash(us: Option<u64>, l: &mut Line<'_>) {
    match us {
        Some(us) => l.millis(us),
        None => l.byte(b'-'),
    }
}

/// One object a line, times in microseconds; a phase that was not reached is `null`.
fn json(r: &Record<'_>, stamp: &mut Stamp, wall: Wall, l: &mut Line<'_>) {
    l.lit(b"{\"time\":\"");
    stamp.write(wall, l);
    l.lit(b"\",\"client\":\"");
    l.address(r.client);
    l.lit(b"\",\"scheme\":\"");
    l.raw(r.scheme.as_bytes());
    l.lit(b"\",\"method\":\"");
    l.json(r.method);
    l.lit(b"\",\"target\":\"");
    l.json(r.target);
    l.lit(b"\",\"host\":\"");
    l.json(r.host);
    match r.version {
        11 => l.lit(b"\",\"version\":\"1.1\",\"status\":"),
        10 => l.lit(b"\",\"version\":\"1.0\",\"status\":"),
        _ => l.lit(b"\",\"version\":null,\"status\":"),
    }
    l.number(u64::from(r.status));
    match r.cause {
        None => l.lit(b",\"cause\":null,\"pool\":\""),
        Some(c) => {
            l.lit(b",\"cause\":\"");
            l.raw(c.name().as_bytes());
            l.lit(b"\",\"pool\":\"");
        }
    }
    l.json(r.pool.as_bytes());
    l.lit(b"\",\"backend\":\"");
    l.json(r.backend.as_bytes());
    l.lit(b"\",\"attempts\":");
    l.number(u64::from(r.attempts));
    if r.reused {
        l.lit(b",\"reused\":true,\"bytes_in\":");
    } else {
        l.lit(b",\"reused\":false,\"bytes_in\":");
    }
    l.number(r.bytes_in);
    l.lit(b",\"bytes_out\":");
    l.number(r.bytes_out);
    l.lit(b",\"head_us\":");
    l.number(r.timings.head_us);
    let Timings { chosen_us, connected_us, sent_us, answered_us, .. } = r.timings;
    l.lit(b",\"chosen_us\":");
    micros_or_null(chosen_us, l);
    l.lit(b",\"connected_us\":");
    micros_or_null(connected_us, l);
    l.lit(b",\"sent_us\":");
    micros_or_null(sent_us, l);
    l.lit(b",\"answered_us\":");
    micros_or_null(answered_us, l);
    l.lit(b",\"total_us\":");
    l.number(r.timings.total_us);
    l.lit(b",\"request_id\":\"");
    l.json(r.request_id);
    l.lit(b"\",\"user_agent\":\"");
    l.json(r.user_agent);
    l.lit(b"\",\"referer\":\"");
    l.json(r.referer);
    l.lit(b"\"}\n");
}

#[inline]
fn micros_or_null(us: Option<u64>, l: &mut Line<'_>) {
    match us {
        Some(us) => l.number(us),
        None => l.lit(b"null"),
    }
}

#[cfg(test)]
mod tests;
