//! The daemon's own log: the `log` facade in front of a [`LogProducer`]. Not for the request path, so it may
//! use `fmt`; still nobody waits for what is written.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use env_filter::Filter;
use log::kv::{Key, Value, VisitSource};
use log::{LevelFilter, Log, Metadata, Record};
use ruststrom_core::config::LogFormat;

use crate::clock;
use crate::line::{ESCAPED, Line, MARGIN, Timestamp};
use crate::log_writer::{LogProducer, LogWriter};

/// A longer message is cut; in bytes.
const MAX_MESSAGE: usize = 8 << 10;
/// A longer target, or value of a field, is cut; in bytes.
const MAX_TARGET: usize = 128;
/// Further fields are left out.
const MAX_FIELDS: usize = 12;

/// The modules that log: those of this program, of which each path begins with one, and what it stands on.
const MODULES: &[&str] = &[
    "acme",
    "health",
    "proxy",
    "rust_strom",
    "ruststrom_core",
    "ruststrom_driver",
    "ruststrom_mio",
    "ruststrom_smol",
    "mio",
    "polling",
    "async_io",
    QUIET[0],
    QUIET[1],
    QUIET[2],
    QUIET[3],
    QUIET[4],
];

/// They say nothing unless they are named. The first warns of what peers do, and nobody knows of which one it
/// speaks; what there is to say of a connection's TLS stands among what it goes through. The next two are the
/// client of ACME authorities, whose errors `acme` has, and the last two that of directories, whose errors
/// `auth` has.
const QUIET: [&str; 5] = ["rustls", "ureq", "ureq_proto", "ldap3", "lber"];

/// Reads the value of `RUST_LOG` for this program.
///
/// # Errors
/// A sentence about the first word that is no level, no module that logs, and no `module=level` of one.
pub fn levels(text: &str) -> Result<Filter, String> {
    let (filter, invalid) = parse_levels(text);
    let is_module = |path: &str| MODULES.contains(&path.split("::").next().unwrap_or_default());
    let unknown = |word: &&str| match word.trim().split_once('=') {
        Some((module, _)) => !is_module(module),
        None => {
            !word.trim().is_empty() && word.trim().parse::<LevelFilter>().is_err() && !is_module(word.trim())
        }
    };
    let Some(word) = invalid.first().map(String::as_str).or_else(|| text.split(',').find(unknown)) else {
        return Ok(filter);
    };
    Err(format!(
        "RUST_LOG: \"{}\" is neither a level (error, warn, info, debug, trace, off) nor module=level \
         with one of the modules {}",
        word.trim().escape_debug(),
        MODULES.join(", ")
    ))
}

/// Reads words separated by commas, each `level`, `module=level` or `module` (then everything of it). Where
/// nothing is said it is `info`, and nothing from [`QUIET`]. Also returns the words that are none of these
/// and change nothing.
fn parse_levels(text: &str) -> (Filter, Vec<String>) {
    let mut levels = env_filter::Builder::new();
    levels.filter_level(LevelFilter::Info);
    for module in QUIET {
        levels.filter_module(module, LevelFilter::Off);
    }
    let mut invalid = Vec::new();
    if levels.try_parse(text).is_err() {
        for word in text.split(',') {
            if levels.try_parse(word).is_err() {
                invalid.push(word.trim().to_owned());
            }
        }
    }
    (levels.build(), invalid)
}

/// The logger of the process.
pub struct Logger {
    levels: Filter,
    /// [`LogFormat::Json`], else [`LogFormat::Text`].
    json: AtomicBool,
    producer: LogProducer,
    writer: LogWriter,
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// What formatting a line needs.
struct Scratch {
    message: String,
    value: String,
    line: Vec<u8>,
    timestamp: Timestamp,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        message: String::new(),
        value: String::new(),
        line: vec![0; MAX_MESSAGE * ESCAPED + MAX_FIELDS * (2 * MAX_TARGET * ESCAPED + 8) + MARGIN],
        timestamp: Timestamp::default(),
    });
}

/// Makes a logger in front of `writer` that of the process. Only the first call has an effect.
pub fn install(levels: Filter, format: LogFormat, writer: &LogWriter) {
    let max = levels.filter();
    let logger = LOGGER.get_or_init(|| Logger::new(levels, format, writer));
    if log::set_logger(logger).is_ok() {
        log::set_max_level(max);
    }
}

/// Another format for the lines of the process's log from now on.
pub fn set_format(format: LogFormat) {
    if let Some(logger) = LOGGER.get() {
        logger.json.store(format == LogFormat::Json, Ordering::Relaxed);
    }
}

impl Logger {
    /// A logger that is not installed.
    #[must_use]
    pub fn new(levels: Filter, format: LogFormat, writer: &LogWriter) -> Self {
        let json = AtomicBool::new(format == LogFormat::Json);
        Self { levels, json, producer: writer.producer(), writer: writer.clone() }
    }

    fn format(&self, record: &Record<'_>, texts: &mut Texts<'_>, line: &mut Line<'_>) {
        // Long messages (they may quote what a backend sent) are cut where a character begins.
        let message = cut(texts.message, MAX_MESSAGE);
        let timestamp = &mut *texts.timestamp;
        let target = cut(record.target(), MAX_TARGET);
        let wall = clock::wall();
        let level = record.level();
        match if self.json.load(Ordering::Relaxed) { LogFormat::Json } else { LogFormat::Text } {
            LogFormat::Text => {
                line.lit(timestamp.at(wall));
                line.byte(b' ');
                line.raw(level.as_str().as_bytes());
                line.raw(if level.as_str().len() == 4 { b"  " } else { b" " });
                if level >= log::Level::Debug {
                    line.quoted(target.as_bytes());
                    line.lit(b": ");
                }
                // One record is one line whatever is in it; UTF-8 stays readable.
                line.message(message);
            }
            LogFormat::Json => {
                line.lit(b"{\"time\":\"");
                line.lit(timestamp.at(wall));
                line.lit(b"\",\"level\":\"");
                line.raw(level.as_str().as_bytes());
                line.lit(b"\",\"target\":\"");
                line.json(target.as_bytes());
                line.lit(b"\",\"message\":\"");
                line.json(message.as_bytes());
                line.byte(b'"');
                let mut fields = Fields { line, value: texts.value, left: MAX_FIELDS };
                // It never fails: who visits decides.
                let _ = record.key_values().visit(&mut fields);
                line.byte(b'}');
            }
        }
        line.byte(b'\n');
    }
}

/// What a line is made of, and room for more.
struct Texts<'a> {
    message: &'a str,
    value: &'a mut String,
    timestamp: &'a mut Timestamp,
}

/// Writes the fields of a record behind its message.
struct Fields<'f, 'l> {
    line: &'f mut Line<'l>,
    value: &'f mut String,
    left: usize,
}

impl<'kvs> VisitSource<'kvs> for Fields<'_, '_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(()) };
        self.left = left;
        self.line.lit(b",\"");
        self.line.json(cut(key.as_str(), MAX_TARGET).as_bytes());
        self.line.lit(b"\":");
        if let Some(number) = value.to_u64() {
            self.line.number(number);
            return Ok(());
        }
        self.value.clear();
        let _ = write!(self.value, "{value}");
        self.line.byte(b'"');
        self.line.json(cut(self.value, MAX_TARGET).as_bytes());
        self.line.byte(b'"');
        Ok(())
    }
}

/// The start of a text, at most `max` bytes of it, without a part of a character.
fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl Log for Logger {
    fn enabled(&self, m: &Metadata<'_>) -> bool {
        self.levels.enabled(m)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.levels.matches(record) {
            return;
        }
        let _ = SCRATCH.try_with(|scratch| {
            // A message that logs while it is formatted is lost rather than a panic.
            let Ok(mut scratch) = scratch.try_borrow_mut() else { return };
            let Scratch { message, value, line: room, timestamp } = &mut *scratch;
            message.clear();
            let _ = write!(message, "{}", record.args());
            let mut line = Line::new(room);
            self.format(record, &mut Texts { message, value, timestamp }, &mut line);
            let len = line.len();
            self.producer.line(&room[..len]);
        });
    }

    fn flush(&self) {
        self.writer.flush(Duration::from_secs(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_writer::tests::Written;
    use log::Level;

    #[test]
    fn levels_of_modules() {
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
                &[("a", Debug), ("a::b", Trace), ("a::b::c", Trace), ("a::c", Debug), ("b", Warn)],
                Trace,
                &[],
            ),
            ("a", &[("a::x", Trace), ("b", Info)], Trace, &[]),
            ("trace", &[("rustls::conn", Off), ("rustl", Trace)], Trace, &[]),
            ("rustls=warn,error", &[("rustls::conn", Warn), ("b", Error)], Warn, &[]),
            ("a=error,info", &[("a", Error), ("b", Info)], Info, &[]),
            ("a=loud,b=debug=x,a=debug", &[("a", Debug), ("b", Info)], Debug, &["a=loud", "b=debug=x"]),
        ];
        for (text, modules, max, expected) in table {
            let (levels, invalid) = parse_levels(text);
            assert_eq!(invalid, *expected, "{text}");
            assert_eq!(levels.filter(), *max, "{text}");
            for (module, level) in *modules {
                for each in Level::iter() {
                    let enabled = levels.enabled(&Metadata::builder().target(module).level(each).build());
                    assert_eq!(enabled, each <= *level, "{text}: {module} {each}");
                }
            }
        }
    }

    #[test]
    fn bad_values() {
        for good in [
            "",
            "info",
            "WARN",
            "debug,health=off",
            "warn, health=info",
            "proxy",
            "ruststrom_driver::turn=trace,off",
            "rustls=debug",
        ] {
            assert!(levels(good).is_ok(), "{good}");
        }
        for (bad, word) in [
            ("debgu", "debgu"),
            ("info,heatlh=debug", "heatlh=debug"),
            ("health=inof", "health=inof"),
            ("info;debug", "info;debug"),
            ("2", "2"),
            ("warn,\u{1b}[2J", "\\u{1b}[2J"),
        ] {
            let Err(error) = levels(bad) else { panic!("{bad} is accepted") };
            assert!(error.starts_with(&format!("RUST_LOG: \"{word}\" is neither a level")), "{error}");
        }
    }

    #[test]
    fn lines() {
        let long = "x".repeat(MAX_MESSAGE + 10);
        let cut = &long[..MAX_MESSAGE];
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
                let writer = LogWriter::start("test", to.clone()).expect("a thread");
                let logger = Logger::new(parse_levels("trace,quiet=error").0, format, &writer);
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

    /// Fields of a record stand behind its message in JSON, with any bytes; text has its message alone.
    #[test]
    fn fields_of_a_record() {
        let table = [
            (LogFormat::Text, "ERROR down\n"),
            (
                LogFormat::Json,
                "\"message\":\"down\",\"pool\":\"a\\\"b\\u000a\",\"usable\":2,\"total\":65535}\n",
            ),
        ];
        for (format, expected) in table {
            let to = Written::default();
            let writer = LogWriter::start("test", to.clone()).expect("a thread");
            let logger = Logger::new(parse_levels("info").0, format, &writer);
            let fields = [
                ("pool", Value::from("a\"b\n")),
                ("usable", Value::from(2_u16)),
                ("total", Value::from(65_535)),
            ];
            logger.log(
                &Record::builder()
                    .level(Level::Error)
                    .target("health")
                    .args(format_args!("down"))
                    .key_values(&fields)
                    .build(),
            );
            logger.flush();
            let got = String::from_utf8(to.bytes.lock().expect("no panic").clone()).expect("UTF-8");
            assert!(got.ends_with(expected), "{got}");
        }
    }

    /// As many fields as there may be, each as long as it may be when every byte is escaped, fit the room.
    #[test]
    fn the_longest_line_fits() {
        let to = Written::default();
        let writer = LogWriter::start("test", to.clone()).expect("a thread");
        let logger = Logger::new(parse_levels("info").0, LogFormat::Json, &writer);
        let long = "\u{1}".repeat(2 * MAX_MESSAGE);
        let fields: Vec<(&str, Value<'_>)> =
            (0..MAX_FIELDS + 3).map(|_| (long.as_str(), Value::from(long.as_str()))).collect();
        logger.log(
            &Record::builder()
                .level(Level::Error)
                .target(&long)
                .args(format_args!("{long}"))
                .key_values(&fields.as_slice())
                .build(),
        );
        logger.flush();
        let got = to.bytes.lock().expect("no panic").clone();
        assert!(got.ends_with(b"\"}\n") && got.len() > MAX_MESSAGE * ESCAPED, "{}", got.len());
    }
}
