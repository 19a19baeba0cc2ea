//! The daemon's own log: the `log` facade in front of a [`LogProducer`]. Off the request path, so it may use
//! `fmt`; still nobody waits for the sink.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::sync::OnceLock;
use std::time::Duration;

use log::{LevelFilter, Log, Metadata, Record};
use ruststrom_core::config::LogFormat;

use crate::clock;
use crate::line::{ESCAPED, Line, MARGIN, Stamp};
use crate::log_writer::{LogProducer, LogWriter};

/// A longer message is cut.
const MESSAGE: usize = 8 << 10;

/// What `RUST_LOG` asks for: a level for everything and others for modules, `info,ruststrom_mio=debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels {
    default: LevelFilter,
    /// Longest first.
    modules: Vec<(Box<str>, LevelFilter)>,
}

impl Default for Levels {
    fn default() -> Self {
        Self { default: LevelFilter::Info, modules: Vec::new() }
    }
}

impl Levels {
    /// Reads `RUST_LOG`: words separated by commas, each `level`, `module=level` or `module` (then everything
    /// of it). Words that are neither come back to be told to the user; they change nothing.
    #[must_use]
    pub fn parse(text: &str) -> (Self, Vec<String>) {
        let mut levels = Self::default();
        let mut bad = Vec::new();
        for word in text.split(',').map(str::trim).filter(|w| !w.is_empty()) {
            let module = |name: &str| {
                !name.is_empty()
                    && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':' | b'-'))
            };
            match word.split_once('=') {
                None => match word.parse() {
                    Ok(level) => levels.default = level,
                    Err(_) if module(word) => levels.modules.push((word.into(), LevelFilter::Trace)),
                    Err(_) => bad.push(word.to_owned()),
                },
                Some((name, level)) => match level.trim().parse() {
                    Ok(level) if module(name.trim()) => levels.modules.push((name.trim().into(), level)),
                    _ => bad.push(word.to_owned()),
                },
            }
        }
        levels.modules.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        (levels, bad)
    }

    /// The level of a module: that of the longest name which is it or one of its parents.
    #[must_use]
    pub fn of(&self, target: &str) -> LevelFilter {
        let inside = |name: &str| {
            target.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        self.modules.iter().find(|(name, _)| inside(name)).map_or(self.default, |(_, level)| *level)
    }

    /// The loudest of all.
    #[must_use]
    pub fn max(&self) -> LevelFilter {
        self.modules.iter().map(|(_, l)| *l).fold(self.default, Ord::max)
    }
}

/// The logger of the process.
pub struct Logger {
    levels: Levels,
    format: LogFormat,
    source: LogProducer,
    sink: LogWriter,
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

thread_local! {
    static SCRATCH: RefCell<(String, Vec<u8>, Stamp)> = RefCell::new((String::new(), vec![0; MESSAGE * ESCAPED + MARGIN], Stamp::default()));
}

/// Makes a logger in front of `sink` the logger of the process. Only the first call has an effect.
pub fn install(levels: Levels, format: LogFormat, sink: &LogWriter) {
    let max = levels.max();
    let logger = LOGGER.get_or_init(|| Logger::new(levels, format, sink));
    if log::set_logger(logger).is_ok() {
        log::set_max_level(max);
    }
}

impl Logger {
    /// A logger that is not installed.
    #[must_use]
    pub fn new(levels: Levels, format: LogFormat, sink: &LogWriter) -> Self {
        Self { levels, format, source: sink.source(), sink: sink.clone() }
    }

    fn format(&self, record: &Record<'_>, message: &str, stamp: &mut Stamp, line: &mut Line<'_>) {
        // Long messages (they may quote what a backend sent) are cut where a character begins.
        let message = cut(message, MESSAGE);
        let target = cut(record.target(), 128);
        let wall = clock::wall();
        let level = record.level();
        match self.format {
            LogFormat::Text => {
                line.lit(stamp.of(wall));
                line.byte(b' ');
                line.raw(level.as_str().as_bytes());
                line.raw(if level.as_str().len() == 4 { b"  " } else { b" " });
                if level >= log::Level::Debug {
                    line.quoted(target.as_bytes());
                    line.lit(b": ");
                }
                // One record is one line whatever is in it; UTF-8 stays readable.
                for c in message.chars() {
                    if c.is_control() {
                        line.byte(b' ');
                    } else {
                        line.raw(c.encode_utf8(&mut [0; 4]).as_bytes());
                    }
                }
            }
            LogFormat::Json => {
                line.lit(b"{\"time\":\"");
                line.lit(stamp.of(wall));
                line.lit(b"\",\"level\":\"");
                line.raw(level.as_str().as_bytes());
                line.lit(b"\",\"target\":\"");
                line.json(target.as_bytes());
                line.lit(b"\",\"message\":\"");
                line.json(message.as_bytes());
                line.lit(b"\"}");
            }
        }
        line.byte(b'\n');
    }
}

/// The first bytes of a text, not more than `most`, and no half character.
fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl Log for Logger {
    fn enabled(&self, m: &Metadata<'_>) -> bool {
        m.level() <= self.levels.of(m.target())
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let _ = SCRATCH.try_with(|scratch| {
            // A message that logs while it is formatted is lost rather than a panic.
            let Ok(mut scratch) = scratch.try_borrow_mut() else { return };
            let (message, buf, stamp) = &mut *scratch;
            message.clear();
            let _ = write!(message, "{}", record.args());
            let mut line = Line::new(buf);
            self.format(record, message, stamp, &mut line);
            let len = line.len();
            self.source.line(&buf[..len]);
        });
    }

    fn flush(&self) {
        self.sink.flush(Duration::from_secs(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_writer::tests::Written;
    use log::Level;

    #[test]
    fn rust_log() {
        use LevelFilter::{Debug, Error, Info, Off, Trace, Warn};
        type Row =
            (&'static str, &'static [(&'static str, LevelFilter)], LevelFilter, &'static [&'static str]);
        let table: &[Row] = &[
            ("", &[("any", Info)], Info, &[]),
            ("error", &[("any", Error)], Error, &[]),
            ("WARN", &[("any", Warn)], Warn, &[]),
            ("off", &[("any", Off)], Off, &[]),
            (
                "warn,a::b=trace, a=debug",
                &[("a", Debug), ("a::b", Trace), ("a::b::c", Trace), ("a::bc", Debug), ("ab", Warn)],
                Trace,
                &[],
            ),
            ("a", &[("a::x", Trace), ("b", Info)], Trace, &[]),
            ("a=error,info", &[("a", Error), ("b", Info)], Info, &[]),
            ("a=loud,=info,a b,debug", &[("a", Debug)], Debug, &["a=loud", "=info", "a b"]),
        ];
        for (text, modules, max, bad) in table {
            let (levels, found) = Levels::parse(text);
            assert_eq!(found, *bad, "{text}");
            assert_eq!(levels.max(), *max, "{text}");
            for (module, level) in *modules {
                assert_eq!(levels.of(module), *level, "{text}: {module}");
            }
        }
    }

    #[test]
    fn lines() {
        let long = "x".repeat(MESSAGE + 10);
        let cut = &long[..MESSAGE];
        let table: &[(Level, &str, &str, String, String)] = &[
            (
                Level::Info,
                "mod",
                "ready",
                "INFO  ready".into(),
                r#""level":"INFO","target":"mod","message":"ready"}"#.into(),
            ),
            (
                Level::Error,
                "mod",
                "bad\n\"grün\"",
                "ERROR bad \"grün\"".into(),
                r#""level":"ERROR","target":"mod","message":"bad\u000a\"grün\""}"#.into(),
            ),
            (
                Level::Debug,
                "m::n",
                "x",
                "DEBUG m::n: x".into(),
                r#""level":"DEBUG","target":"m::n","message":"x"}"#.into(),
            ),
            (Level::Warn, "quiet", "x", String::new(), String::new()),
            (
                Level::Warn,
                "m",
                &long,
                format!("WARN  {cut}"),
                format!(r#""level":"WARN","target":"m","message":"{cut}"}}"#),
            ),
        ];
        for (level, target, message, text, json) in table {
            for (format, want) in [(LogFormat::Text, text), (LogFormat::Json, json)] {
                let to = Written::default();
                let sink = LogWriter::start("test", to.clone()).expect("a thread");
                let logger = Logger::new(Levels::parse("trace,quiet=error").0, format, &sink);
                logger.log(
                    &Record::builder().level(*level).target(target).args(format_args!("{message}")).build(),
                );
                logger.flush();
                let got = String::from_utf8(to.bytes.lock().expect("no panic").clone()).expect("UTF-8");
                if want.is_empty() {
                    assert_eq!(got, "");
                    continue;
                }
                assert_eq!(got.matches('\n').count(), 1);
                assert!(got.ends_with(&format!("{want}\n")), "{got} {want}");
            }
        }
    }
}
