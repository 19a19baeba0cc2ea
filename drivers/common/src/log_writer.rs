//! Writing log lines without ever making a worker wait: each [`LogWriter`] has a thread that writes to one
//! file, and everybody else only hands chunks of lines over to it.
//!
//! A [`LogProducer`] (a worker's access log, the daemon's logger) has one chunk with the writer. While the
//! writer is slow that chunk fills, and what no longer fits is dropped and counted. Chunks are allocated once
//! and swapped between producer and writer.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, TryLockError};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// Bytes that may wait in one chunk. Memory is touched only as far as it is used.
pub const CHUNK: usize = 1 << 20;
/// With so many bytes waiting the writer writes at once, ...
const WRITE_NOW_BYTES: usize = 32 << 10;
/// ... else after this long.
const MAX_DELAY: Duration = Duration::from_millis(80);
/// Dropped lines are logged at most this often.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Whole lines, up to [`CHUNK`] bytes.
pub struct Chunk {
    bytes: Box<[u8]>,
    used: usize,
    lines: u64,
}

impl Default for Chunk {
    fn default() -> Self {
        Self { bytes: vec![0; CHUNK].into_boxed_slice(), used: 0, lines: 0 }
    }
}

impl Chunk {
    /// How many bytes it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether it holds no line.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Room for a line, if at least `len` bytes are left.
    #[inline]
    pub fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        let room = &mut self.bytes[self.used..];
        if room.len() < len { None } else { Some(room) }
    }

    /// A line of `len` bytes was written into the room.
    #[inline]
    pub fn commit(&mut self, len: usize) {
        self.used += len;
        self.lines += 1;
    }

    fn clear(&mut self) {
        self.used = 0;
        self.lines = 0;
    }

    fn append(&mut self, other: &Chunk) -> bool {
        let end = self.used + other.used;
        if end > self.bytes.len() {
            return false;
        }
        self.bytes[self.used..end].copy_from_slice(&other.bytes[..other.used]);
        self.used = end;
        self.lines += other.lines;
        true
    }
}

/// Where a log writer writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// A file, appended to and made if it is missing.
    File(PathBuf),
}

/// What a producer shares with the writer.
#[derive(Default)]
struct Handover {
    chunk: Mutex<Chunk>,
    dropped: AtomicU64,
    /// Its producer has handed over its last.
    ended: AtomicBool,
}

struct Inner {
    name: Box<str>,
    handovers: Mutex<Vec<Arc<Handover>>>,
    /// Some chunk is not empty.
    work: AtomicBool,
    /// ... and should be written at once.
    urgent: AtomicBool,
    /// The file is to be opened anew.
    reopen: AtomicBool,
    /// The file is to be closed when there is no producer any more.
    close: AtomicBool,
    closed: AtomicBool,
    /// The file is to be lent to another process, ...
    lend: AtomicBool,
    /// ... and lies here then.
    lent: Mutex<Option<(PathBuf, File)>>,
    /// How often everything that waited was written, for those who wait for that.
    rounds: Mutex<u64>,
    round_done: Condvar,
    lost: AtomicU64,
    thread: OnceLock<Thread>,
}

/// A log writer and its thread, which lives until [`LogWriter::close`], or as long as the process. Cheap to
/// clone.
#[derive(Clone)]
pub struct LogWriter(Arc<Inner>);

/// What became of a chunk that was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handed {
    /// Taken: the chunk is empty.
    Taken,
    /// The writer is just fetching: try again soon. The chunk is as it was.
    Busy,
    /// The writer is too slow: the lines were dropped and counted.
    Dropped,
}

impl LogWriter {
    /// Opens the target and starts the thread.
    ///
    /// # Errors
    /// If the file cannot be opened, or no thread can be started.
    pub fn open(target: &LogTarget) -> io::Result<Self> {
        match target {
            LogTarget::Stdout => Self::start("standard output", Stdout),
            LogTarget::File(path) => Self::with_file(path.clone(), open_file(path)?),
        }
    }

    /// A log writer for a file that [`open_file`] has opened at `path`, where it may be opened anew.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn with_file(path: PathBuf, file: File) -> io::Result<Self> {
        Self::run(&path.display().to_string(), LogFile { path, file })
    }

    /// A log writer that writes to `to`; `name` is for messages.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(name: &str, to: impl Write + Send + 'static) -> io::Result<Self> {
        Self::run(name, Fixed(to))
    }

    fn run(name: &str, to: impl Sink + Send + 'static) -> io::Result<Self> {
        let inner = Arc::new(Inner {
            name: name.into(),
            handovers: Mutex::default(),
            work: AtomicBool::new(false),
            urgent: AtomicBool::new(false),
            reopen: AtomicBool::new(false),
            close: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            lend: AtomicBool::new(false),
            lent: Mutex::default(),
            rounds: Mutex::new(0),
            round_done: Condvar::new(),
            lost: AtomicU64::new(0),
            thread: OnceLock::new(),
        });
        let writer = inner.clone();
        let thread = std::thread::Builder::new().name("log-writer".into()).spawn(move || writer.run(to))?;
        let _ = inner.thread.set(thread.thread().clone());
        Ok(Self(inner))
    }

    /// A new producer.
    #[must_use]
    pub fn producer(&self) -> LogProducer {
        let handover = Arc::<Handover>::default();
        self.0.handovers.lock().unwrap_or_else(PoisonError::into_inner).push(handover.clone());
        LogProducer { handover, writer: self.0.clone() }
    }

    /// Lines dropped so far: they came too fast, or could not be written.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped()
    }

    /// Opens the file anew once what was handed over before has been written: somebody may have moved the old
    /// one away. Nothing happens if the target is no file. If the file cannot be opened the log says so, and
    /// the old one is written on.
    pub fn reopen(&self) {
        self.0.reopen.store(true, Ordering::Release);
        self.0.wake(true);
    }

    /// Closes the file and ends the thread, once the last producer is gone and what it has handed over is
    /// written.
    pub fn close(&self) {
        self.0.close.store(true, Ordering::Release);
        self.0.wake(true);
    }

    /// Whether the file is closed, or about to be: everything has been written.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Acquire)
    }

    /// Whether both are the same.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The file that is written to, and its path, once more, for another process; `None` if it is none, or
    /// within `timeout` the writer did not get to it.
    #[must_use]
    pub fn file(&self, timeout: Duration) -> Option<(PathBuf, File)> {
        self.0.lend.store(true, Ordering::Release);
        self.flush(timeout);
        self.0.lent.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits until all that was handed over before has been written, but no longer than `timeout`; whether
    /// it has.
    pub fn flush(&self, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        let mut rounds = self.0.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        // The round under way may have passed the last chunk already, so the one after it is waited for.
        let enough = *rounds + 2;
        while *rounds < enough && !self.is_closed() {
            self.0.wake(true);
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            rounds = self
                .0
                .round_done
                .wait_timeout(rounds, left.min(Duration::from_millis(10)))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }
}

impl Inner {
    fn wake(&self, urgent: bool) {
        let hurry = urgent && !self.urgent.swap(true, Ordering::AcqRel);
        let first = !self.work.swap(true, Ordering::AcqRel);
        if (hurry || first)
            && let Some(t) = self.thread.get()
        {
            t.unpark();
        }
    }

    fn dropped(&self) -> u64 {
        let handovers = self.handovers.lock().unwrap_or_else(PoisonError::into_inner);
        handovers.iter().map(|h| h.dropped.load(Ordering::Relaxed)).sum::<u64>()
            + self.lost.load(Ordering::Relaxed)
    }

    fn run(&self, mut to: impl Sink) {
        let mut chunk = Chunk::default();
        // The last write broke off in the middle of a line.
        let mut torn = false;
        let (mut logged_at, mut logged) = (None::<Instant>, 0);
        loop {
            while !self.work.load(Ordering::Acquire) {
                std::thread::park();
            }
            let delay_until = Instant::now() + MAX_DELAY;
            while !self.urgent.load(Ordering::Acquire) {
                let left = delay_until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                std::thread::park_timeout(left);
            }
            self.work.store(false, Ordering::Release);
            self.urgent.store(false, Ordering::Release);
            let mut place = 0;
            let mut failure = None;
            loop {
                let Some(handover) =
                    self.handovers.lock().unwrap_or_else(PoisonError::into_inner).get(place).cloned()
                else {
                    break;
                };
                // Read before its chunk: then that is the last.
                let ended = handover.ended.load(Ordering::Acquire);
                place += 1;
                std::mem::swap(
                    &mut *handover.chunk.lock().unwrap_or_else(PoisonError::into_inner),
                    &mut chunk,
                );
                if !chunk.is_empty()
                    && let Err((written, e)) = write_lines(&mut to, &chunk.bytes[..chunk.used], &mut torn)
                {
                    // A full disk or a closed pipe must not stop the proxy; the rest of the lines is gone.
                    // One of which nothing but its end is missing gets that later.
                    let whole = count_lines(&chunk.bytes[..chunk.used.min(written + 1)]);
                    self.lost.fetch_add(chunk.lines.saturating_sub(whole), Ordering::Relaxed);
                    failure = Some(e);
                }
                chunk.clear();
                if ended {
                    place -= 1;
                    self.forget(place);
                }
            }
            if self.reopen.swap(false, Ordering::AcqRel) {
                self.open_anew(&mut to, &mut torn);
            }
            if self.lend.swap(false, Ordering::AcqRel) {
                *self.lent.lock().unwrap_or_else(PoisonError::into_inner) = to.lend();
            }
            *self.rounds.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            self.round_done.notify_all();
            if self.close.load(Ordering::Acquire) && self.has_no_producer() {
                self.closed.store(true, Ordering::Release);
                return;
            }
            let dropped = self.dropped();
            if dropped > logged && logged_at.is_none_or(|t| t.elapsed() >= LOG_INTERVAL) {
                let why = failure.map_or_else(|| "it is too slow".to_owned(), |e| e.to_string());
                log::warn!("{} log lines for {} were dropped: {why}", dropped - logged, self.name);
                (logged_at, logged) = (Some(Instant::now()), dropped);
            }
        }
    }
}

impl Inner {
    /// Forgets a producer that has ended, but not what it has dropped.
    #[cold]
    fn forget(&self, place: usize) {
        let mut handovers = self.handovers.lock().unwrap_or_else(PoisonError::into_inner);
        let dropped = handovers.remove(place).dropped.load(Ordering::Relaxed);
        self.lost.fetch_add(dropped, Ordering::Relaxed);
    }

    fn has_no_producer(&self) -> bool {
        self.handovers.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    #[cold]
    fn open_anew(&self, to: &mut impl Sink, torn: &mut bool) {
        match to.reopen() {
            Ok(Reopened::NoFile) => {}
            Ok(Reopened::Empty) => {
                *torn = false;
                log::info!("{} was opened anew", self.name);
            }
            Ok(Reopened::WithLines) => log::info!("{} was opened anew: it has lines already", self.name),
            Err(e) => log::error!("{} cannot be opened anew: {e}; the old file is written on", self.name),
        }
    }
}

/// Where a log writer's bytes go.
trait Sink: Write {
    /// Opens the target anew.
    fn reopen(&mut self) -> io::Result<Reopened> {
        Ok(Reopened::NoFile)
    }

    /// The file, once more.
    fn lend(&self) -> Option<(PathBuf, File)> {
        None
    }
}

/// What came of opening a target anew.
enum Reopened {
    /// It is no file.
    NoFile,
    /// A new file.
    Empty,
    /// The same file, or another that is in use.
    WithLines,
}

/// A sink that cannot be opened anew.
struct Fixed<W>(W);

impl<W: Write> Write for Fixed<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<W: Write> Sink for Fixed<W> {}

/// A file, or a pipe with a name.
struct LogFile {
    path: PathBuf,
    file: File,
}

impl Write for LogFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file.write(buf)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Sink for LogFile {
    fn reopen(&mut self) -> io::Result<Reopened> {
        self.file = open_file(&self.path)?;
        let empty = self.file.metadata().is_ok_and(|metadata| metadata.len() == 0);
        Ok(if empty { Reopened::Empty } else { Reopened::WithLines })
    }

    fn lend(&self) -> Option<(PathBuf, File)> {
        Some((self.path.clone(), self.file.try_clone().ok()?))
    }
}

/// Opens a log file to be appended to, and makes it if it is missing.
///
/// # Errors
/// If that fails, or if it is a pipe that nobody reads.
pub fn open_file(path: &Path) -> io::Result<File> {
    // Opening a pipe would wait for its reader, for ever; a full one is waited for in `write_all`.
    let mut options = OpenOptions::new();
    options.append(true).create(true).custom_flags(libc::O_NONBLOCK);
    options.open(path).map_err(|e| {
        if e.raw_os_error() == Some(libc::ENXIO) {
            io::Error::new(e.kind(), "nobody reads that pipe")
        } else {
            e
        }
    })
}

/// Writes lines. If the write before was torn within a line, that line is ended first: no two lines are
/// joined. Fails with the bytes of the lines that have been written.
fn write_lines(to: &mut impl Write, lines: &[u8], torn: &mut bool) -> Result<(), (usize, io::Error)> {
    if *torn {
        write_all(to, b"\n").map_err(|(_, e)| (0, e))?;
        *torn = false;
    }
    write_all(to, lines).inspect_err(|(written, _)| {
        *torn = *written > 0 && lines[written - 1] != b'\n';
    })
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|b| **b == b'\n').count() as u64
}

/// Writes everything, or fails with how much of it has been written.
fn write_all(to: &mut impl Write, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut written = 0;
    while written < bytes.len() {
        match to.write(&bytes[written..]) {
            Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
            Ok(n) => written += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            // A pipe is full, or somebody made our standard output nonblocking (it may be shared with another
            // process).
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(5)),
            Err(e) => return Err((written, e)),
        }
    }
    Ok(())
}

/// Standard output without the buffer of [`std::io::Stdout`].
struct Stdout;

impl Write for Stdout {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(rustix::stdio::stdout(), buf)?)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where lines come from: hands them to a log writer.
pub struct LogProducer {
    handover: Arc<Handover>,
    writer: Arc<Inner>,
}

impl LogProducer {
    /// Hands the lines of `chunk` over without ever waiting.
    pub fn hand_over(&self, chunk: &mut Chunk) -> Handed {
        if chunk.is_empty() {
            return Handed::Taken;
        }
        let mut waiting = match self.handover.chunk.try_lock() {
            Ok(waiting) => waiting,
            Err(TryLockError::Poisoned(p)) => p.into_inner(),
            Err(TryLockError::WouldBlock) => return Handed::Busy,
        };
        let before = waiting.len();
        if waiting.is_empty() {
            std::mem::swap(&mut *waiting, chunk);
        } else if !waiting.append(chunk) {
            drop(waiting);
            self.drop_lines(chunk.lines);
            chunk.clear();
            return Handed::Dropped;
        }
        let after = waiting.len();
        drop(waiting);
        chunk.clear();
        if before == 0 || after >= WRITE_NOW_BYTES {
            self.writer.wake(after >= WRITE_NOW_BYTES);
        }
        Handed::Taken
    }

    /// Hands over one line, from a thread that may wait for the length of a copy: for the logger, which is
    /// not on the request path.
    pub fn line(&self, line: &[u8]) {
        let mut waiting = self.handover.chunk.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(room) = waiting.room(line.len()) else {
            drop(waiting);
            return self.drop_lines(1);
        };
        room[..line.len()].copy_from_slice(line);
        waiting.commit(line.len());
        let urgent = waiting.len() >= WRITE_NOW_BYTES;
        drop(waiting);
        self.writer.wake(urgent);
    }

    /// Whether its lines go to this writer.
    #[must_use]
    pub fn is_of(&self, writer: &LogWriter) -> bool {
        Arc::ptr_eq(&self.writer, &writer.0)
    }

    /// Counts lines that did not even get into a chunk.
    pub fn drop_lines(&self, lines: u64) {
        self.handover.dropped.fetch_add(lines, Ordering::Relaxed);
    }

    /// Lines of this producer that were dropped.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.handover.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for LogProducer {
    fn drop(&mut self) {
        self.handover.ended.store(true, Ordering::Release);
        self.writer.wake(false);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Keeps what was written; `gate` closed makes it hang.
    #[derive(Clone, Default)]
    pub(crate) struct Written {
        pub(crate) bytes: Arc<Mutex<Vec<u8>>>,
        pub(crate) closed: Arc<AtomicBool>,
        pub(crate) fail: Arc<AtomicBool>,
    }

    impl Write for Written {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            while self.closed.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(1));
            }
            if self.fail.load(Ordering::Acquire) {
                return Err(io::Error::from_raw_os_error(libc::ENOSPC));
            }
            let n = buf.len().min(1000);
            self.bytes.lock().expect("no panic").extend_from_slice(&buf[..n]);
            Ok(n)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_writer_ends_when_its_last_producer_does() {
        let written = Written::default();
        let writer = LogWriter::start("test", written.clone()).expect("a thread");
        let (first, second) = (writer.producer(), writer.producer());
        first.line(b"one\n");
        drop(first);
        writer.close();
        assert!(writer.flush(Duration::from_secs(10)));
        assert!(!writer.is_closed(), "somebody may still have lines");
        second.line(b"two\n");
        second.drop_lines(3);
        drop(second);
        assert!(writer.flush(Duration::from_secs(10)));
        let begun = Instant::now();
        while !writer.is_closed() {
            assert!(begun.elapsed() < Duration::from_secs(10));
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(*written.bytes.lock().expect("no panic"), b"one\ntwo\n");
        assert_eq!(writer.dropped(), 3, "of producers that are gone too");
        assert_eq!(Arc::strong_count(&written.bytes), 1, "the target is closed");
    }

    fn put(chunk: &mut Chunk, line: &[u8]) {
        chunk.room(line.len()).expect("room")[..line.len()].copy_from_slice(line);
        chunk.commit(line.len());
    }

    const WAIT: Duration = Duration::from_secs(20);

    fn hand(producer: &LogProducer, chunk: &mut Chunk) -> Handed {
        loop {
            match producer.hand_over(chunk) {
                Handed::Busy => std::thread::yield_now(),
                other => return other,
            }
        }
    }

    #[test]
    fn every_line_arrives_once_and_in_the_order_of_its_producer() {
        let to = Written::default();
        let writer = LogWriter::start("test", to.clone()).expect("a thread");
        let threads: Vec<_> = (0..3)
            .map(|t| {
                let producer = writer.producer();
                std::thread::spawn(move || {
                    let mut chunk = Chunk::default();
                    for i in 0..3000 {
                        put(&mut chunk, format!("{t} {i}\n").as_bytes());
                        if i % 7 == 0 {
                            assert_eq!(hand(&producer, &mut chunk), Handed::Taken);
                        }
                    }
                    assert_eq!(hand(&producer, &mut chunk), Handed::Taken);
                })
            })
            .collect();
        for t in threads {
            t.join().expect("no panic");
        }
        assert!(writer.flush(WAIT));
        let text = String::from_utf8(to.bytes.lock().expect("no panic").clone()).expect("text");
        for t in 0..3 {
            let start = format!("{t} ");
            let lines: Vec<&str> = text.lines().filter(|l| l.starts_with(&start)).collect();
            let want: Vec<String> = (0..3000).map(|i| format!("{t} {i}")).collect();
            assert_eq!(lines, want);
        }
        assert_eq!(writer.dropped(), 0);
    }

    #[test]
    fn lines_are_written_soon_without_a_flush() {
        let to = Written::default();
        let writer = LogWriter::start("test", to.clone()).expect("a thread");
        let producer = writer.producer();
        for n in 1..5 {
            producer.line(b"x\n");
            let begun = Instant::now();
            while to.bytes.lock().expect("no panic").len() < 2 * n {
                assert!(begun.elapsed() < WAIT, "line {n} was never written");
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }

    #[test]
    fn a_slow_writer_costs_lines_and_no_time() {
        let to = Written::default();
        to.closed.store(true, Ordering::Release);
        let writer = LogWriter::start("test", to.clone()).expect("a thread");
        let producer = writer.producer();
        let mut chunk = Chunk::default();
        let line = [b'a'; 1023].iter().copied().chain(*b"\n").collect::<Vec<_>>();
        let (mut taken, mut dropped) = (0, 0);
        for _ in 0..4096 {
            put(&mut chunk, &line);
            match hand(&producer, &mut chunk) {
                Handed::Dropped => dropped += 1,
                _ => taken += 1,
            }
            assert!(chunk.is_empty());
        }
        // What the writer holds and what waits are a chunk each.
        assert!((1024..=2048).contains(&taken), "{taken}");
        assert_eq!((writer.dropped(), producer.dropped()), (dropped, dropped));
        assert!(!writer.flush(Duration::from_millis(20)), "a flush gives up on a writer that hangs");
        to.closed.store(false, Ordering::Release);
        assert!(writer.flush(WAIT));
        assert_eq!(to.bytes.lock().expect("no panic").len(), taken * 1024);
        // It has recovered.
        put(&mut chunk, &line);
        assert_eq!(hand(&producer, &mut chunk), Handed::Taken);
        assert!(writer.flush(WAIT));
        assert_eq!(to.bytes.lock().expect("no panic").len(), (taken + 1) * 1024);
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let to = Written::default();
        to.fail.store(true, Ordering::Release);
        let writer = LogWriter::start("test", to.clone()).expect("a thread");
        let producer = writer.producer();
        producer.line(b"one\n");
        producer.line(b"two\n");
        assert!(writer.flush(WAIT));
        assert_eq!(writer.dropped(), 2);
        to.fail.store(false, Ordering::Release);
        producer.line(b"three\n");
        assert!(writer.flush(WAIT));
        assert_eq!(*to.bytes.lock().expect("no panic"), b"three\n");
    }

    /// A disk of a few bytes, to which more are added.
    #[derive(Clone, Default)]
    struct SmallDisk {
        bytes: Arc<Mutex<Vec<u8>>>,
        room: Arc<std::sync::atomic::AtomicUsize>,
    }

    impl Write for SmallDisk {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            let room = self.room.load(Ordering::Acquire);
            if room == 0 {
                return Err(io::Error::from_raw_os_error(libc::ENOSPC));
            }
            let n = buf.len().min(room);
            self.room.store(room - n, Ordering::Release);
            self.bytes.lock().expect("no panic").extend_from_slice(&buf[..n]);
            Ok(n)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Wherever a disk becomes full: once there is room again every line stands alone, and each is either
    /// whole or counted.
    #[test]
    fn a_write_that_fails_half_way_joins_no_lines() {
        for room in 0..=12 {
            let to = SmallDisk::default();
            to.room.store(room, Ordering::Release);
            let writer = LogWriter::start("test", to.clone()).expect("a thread");
            let producer = writer.producer();
            producer.line(b"first\n");
            producer.line(b"other\n");
            assert!(writer.flush(WAIT));
            // Full once more, at the line end that was missing or behind it.
            for more in [0, 0, 1000] {
                to.room.fetch_add(more, Ordering::AcqRel);
                producer.line(b"third\n");
                assert!(writer.flush(WAIT));
            }
            let text = String::from_utf8(to.bytes.lock().expect("no panic").clone()).expect("text");
            assert!(
                text.ends_with('\n') && !text.starts_with('\n') && !text.contains("\n\n"),
                "{room}: {text:?}"
            );
            let lines: Vec<&str> = text.lines().collect();
            let whole = lines.iter().filter(|l| ["first", "other", "third"].contains(*l)).count() as u64;
            assert_eq!(whole + writer.dropped(), 5, "{room}: {text:?}");
            let torn = lines.len() as u64 - whole;
            assert_eq!(torn, u64::from((1..5).contains(&(room % 6))), "{room}: {text:?}");
        }
    }

    /// Rotation: lines go to the file that has the name when it is opened anew, and none is lost.
    #[test]
    fn files_are_opened_anew() {
        let folder = std::env::temp_dir().join(format!("ruststrom-reopen-{}", std::process::id()));
        std::fs::create_dir(&folder).expect("a new folder");
        let (path, old) = (folder.join("access.log"), folder.join("access.log.1"));
        let writer = LogWriter::open(&LogTarget::File(path.clone())).expect("a file");
        let producer = writer.producer();
        let put = |line: &[u8]| {
            producer.line(line);
            assert!(writer.flush(WAIT));
        };
        put(b"1\n");
        std::fs::rename(&path, &old).expect("ours");
        put(b"2\n");
        writer.reopen();
        assert!(writer.flush(WAIT));
        put(b"3\n");
        // Nobody moved it: it goes on.
        writer.reopen();
        put(b"4\n");
        // The name is taken by something else: the old file is written on.
        std::fs::remove_file(&path).expect("ours");
        std::fs::create_dir(&path).expect("ours");
        writer.reopen();
        put(b"5\n");
        std::fs::remove_dir(&path).expect("ours");
        writer.reopen();
        assert!(writer.flush(WAIT));
        put(b"6\n");
        let read = |path| std::fs::read_to_string(path).expect("a file");
        assert_eq!((read(&old).as_str(), read(&path).as_str()), ("1\n2\n", "6\n"));
        assert_eq!(writer.dropped(), 0);
        std::fs::remove_dir_all(&folder).expect("ours");
    }

    #[test]
    fn files_are_appended_to() {
        let path = std::env::temp_dir().join(format!("ruststrom-log-writer-{}", std::process::id()));
        for _ in 0..2 {
            let writer = LogWriter::open(&LogTarget::File(path.clone())).expect("a file");
            writer.producer().line(b"line\n");
            assert!(writer.flush(WAIT));
        }
        let text = std::fs::read(&path).expect("made");
        std::fs::remove_file(&path).expect("ours");
        assert_eq!(text, b"line\nline\n");
        assert!(LogWriter::open(&LogTarget::File("/nonexistent/folder/log".into())).is_err());
    }
}
