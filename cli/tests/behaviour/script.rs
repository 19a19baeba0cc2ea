//! Scripts of `testdata/behaviour`: what clients and backends do in turn, and below it, indented, what they
//! get. A script knows nothing of sockets or drivers: a [`Stage`] has those.
//!
//! Before the first empty line: what it is about (`#`), `backends A B` (`C!` refuses connections, `C?` leaves
//! them unanswered), lines of configuration for all of them (`each …`), for their pool (`pool …`), which
//! serves `/p`, and for the top (`proxy …`, instead of [`CONFIG`]'s of that name). Then steps. `a` is a
//! client, `A1` the first connection to backend A. `\r`, `\n` and `\\` are escapes.
//!
//! ```text
//! a connects                 a finishes (ends its direction)
//! a sends BYTES              a closes
//! a repeats 5 x (xxxxx)      a resets
//! a gets                     wait 100ms
//! a gets head                drain
//! a gets 5 (bytes)
//! a gets end
//! ```
//!
//! Who gets waits for it, a whole message if nothing else is said. Clients connect by themselves when they
//! first send. What a script gets at the very end is the outcome, and what was told of exchanges. Many equal
//! bytes are written as their number.

use std::collections::BTreeMap;
use std::time::Duration;

/// One line that is a step.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Connect(String),
    Send(String, Vec<u8>),
    Get(String, Until),
    Finish(String),
    Close(String),
    Reset(String),
    Wait(Duration),
    Drain,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    Message,
    Head,
    Bytes(usize),
    End,
}

/// Short times, and no probes.
const CONFIG: &str = "http_address = \"127.0.0.1:0\"\nmetrics_address = false\nhealth_interval = { check_every = 0 }\n\
    timeouts = { head = \"1s\", idle = \"2s\", connect = \"1s\", backend_head = \"1s\", stall = \"1s\", drain = \"1s\" }\n";

/// How a backend takes connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listens {
    Yes,
    /// They are refused.
    No,
    /// They are neither taken nor refused.
    Silently,
}

/// A script.
pub(crate) struct Script {
    text: String,
    pub(crate) backends: Vec<(String, Listens)>,
    each: String,
    pool: String,
    proxy: String,
    /// Each with its line as it was written.
    steps: Vec<(String, Step)>,
    preamble: String,
}

/// What came next.
pub(crate) enum Came {
    Bytes(Vec<u8>),
    End,
    Reset,
}

/// A driver, with clients and backends around it.
pub(crate) trait Stage {
    /// False if it is refused.
    fn connect(&mut self, client: &str) -> bool;
    /// False if nobody takes it.
    fn send(&mut self, who: &str, bytes: &[u8]) -> bool;
    /// Waits for what comes next. That the proxy connects to a backend is waited for here.
    fn receive(&mut self, who: &str) -> Came;
    fn finish(&mut self, who: &str);
    fn close(&mut self, who: &str);
    fn reset(&mut self, who: &str);
    fn wait(&mut self, time: Duration);
    /// Begins a graceful stop.
    fn drain(&mut self);
    /// Stops gracefully; a line for the outcome, and one for each exchange that was told of.
    fn end(&mut self) -> Vec<String>;
    /// What differs from run to run, and what to write for it.
    fn names(&self) -> Vec<(String, String)>;
}

impl Script {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (preamble, rest) = text.split_once("\n\n").ok_or("no empty line behind the preamble")?;
        let mut script = Self {
            text: text.into(),
            backends: Vec::new(),
            each: String::new(),
            pool: String::new(),
            proxy: String::new(),
            steps: Vec::new(),
            preamble: preamble.into(),
        };
        for line in preamble.lines() {
            match line.split_once(' ').unwrap_or((line, "")) {
                ("#", _) => {}
                ("backends", names) => {
                    script.backends.extend(names.split_ascii_whitespace().map(backend));
                }
                ("each", toml) => script.each += &format!(", {toml}"),
                ("pool", toml) => script.pool += &format!("{toml}\n"),
                ("proxy", toml) => script.proxy += &format!("{toml}\n"),
                _ => return Err(format!("what is this: {line}")),
            }
        }
        for line in rest.lines().filter(|l| !l.is_empty() && !l.starts_with(' ')) {
            let step = step(line).ok_or_else(|| format!("what is this: {line}"))?;
            script.steps.push((line.into(), step));
        }
        Ok(script)
    }

    /// The configuration, with these addresses for the backends.
    pub(crate) fn config(&self, addresses: &[String]) -> String {
        let addresses: Vec<String> =
            addresses.iter().map(|a| format!("{{ address = \"{a}\"{} }}", self.each)).collect();
        let key = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
        let own: Vec<String> = self.proxy.lines().map(key).collect();
        let top: String =
            CONFIG.lines().filter(|l| !own.contains(&key(l))).map(|l| format!("{l}\n")).collect();
        format!(
            "{top}{}[[backend_pools]]\nname = \"p\"\nmatcher = \"PathPrefix('/p')\"\nschemes = [\"HTTP\"]\naddresses = [{}]\n{}",
            self.proxy,
            addresses.join(", "),
            self.pool
        )
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The script again, with what was got this time.
    pub(crate) fn play(&self, stage: &mut impl Stage) -> String {
        let mut transcript = format!("{}\n\n", self.preamble);
        let mut inboxes: BTreeMap<String, Inbox> = BTreeMap::new();
        for (line, step) in &self.steps {
            transcript += &format!("{line}\n");
            let got = perform(step, stage, &mut inboxes);
            for piece in got {
                transcript += &format!("    {}\n", normal(&piece, &stage.names()));
            }
        }
        for line in stage.end() {
            transcript += &format!("    {}\n", normal(&line, &stage.names()));
        }
        transcript
    }
}

/// `A` for its connection `A2`; a client's name is nobody's.
pub(crate) fn backend_of(who: &str) -> &str {
    who.trim_end_matches(|c: char| c.is_ascii_digit())
}

/// A backend as it is declared.
fn backend(name: &str) -> (String, Listens) {
    let bare = name.trim_end_matches(['!', '?']);
    let listens = match &name[bare.len()..] {
        "!" => Listens::No,
        "?" => Listens::Silently,
        _ => Listens::Yes,
    };
    (bare.to_owned(), listens)
}

fn step(line: &str) -> Option<Step> {
    if line == "drain" {
        return Some(Step::Drain);
    }
    if let Some(time) = line.strip_prefix("wait ") {
        return Some(Step::Wait(Duration::from_millis(time.strip_suffix("ms")?.parse().ok()?)));
    }
    let mut words = line.splitn(3, ' ');
    let (who, does) = (words.next()?.to_owned(), words.next()?);
    Some(match (does, words.next()) {
        ("connects", None) => Step::Connect(who),
        ("sends", Some(bytes)) => Step::Send(who, unescaped(bytes)?),
        ("repeats", Some(what)) => {
            let (times, bytes) = what.split_once(' ')?;
            Step::Send(who, unescaped(bytes)?.repeat(times.parse().ok()?))
        }
        ("gets", None) => Step::Get(who, Until::Message),
        ("gets", Some("head")) => Step::Get(who, Until::Head),
        ("gets", Some("end")) => Step::Get(who, Until::End),
        ("gets", Some(n)) => Step::Get(who, Until::Bytes(n.parse().ok()?)),
        ("finishes", None) => Step::Finish(who),
        ("closes", None) => Step::Close(who),
        ("resets", None) => Step::Reset(who),
        _ => return None,
    })
}

fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        out.push(match b {
            b'\\' => match bytes.next()? {
                b'r' => b'\r',
                b'n' => b'\n',
                b'\\' => b'\\',
                _ => return None,
            },
            b => b,
        });
    }
    Some(out)
}

/// What came and was not got yet.
#[derive(Default)]
struct Inbox {
    bytes: Vec<u8>,
    end: Option<&'static str>,
}

fn perform(step: &Step, stage: &mut impl Stage, inboxes: &mut BTreeMap<String, Inbox>) -> Vec<String> {
    let mut got = Vec::new();
    match step {
        Step::Connect(who) => got.extend((!stage.connect(who)).then(|| "is refused".into())),
        Step::Send(who, bytes) => got.extend((!stage.send(who, bytes)).then(|| "nobody takes it".into())),
        Step::Get(who, until) => got = get(who, *until, stage, inboxes.entry(who.clone()).or_default()),
        Step::Finish(who) => stage.finish(who),
        Step::Close(who) => stage.close(who),
        Step::Reset(who) => stage.reset(who),
        Step::Wait(time) => stage.wait(*time),
        Step::Drain => stage.drain(),
    }
    got
}

/// Lines of what came, and how the connection ended if it did.
fn get(who: &str, until: Until, stage: &mut impl Stage, inbox: &mut Inbox) -> Vec<String> {
    let length = loop {
        let enough = match until {
            Until::Message => message(&inbox.bytes),
            Until::Head => head(&inbox.bytes),
            Until::Bytes(n) => (inbox.bytes.len() >= n).then_some(n),
            Until::End => None,
        };
        if let Some(length) = enough {
            break length;
        }
        if inbox.end.is_some() {
            break inbox.bytes.len();
        }
        match stage.receive(who) {
            Came::Bytes(bytes) => inbox.bytes.extend(bytes),
            Came::End => inbox.end = Some("(end)"),
            Came::Reset => inbox.end = Some("(reset)"),
        }
    };
    let got: Vec<u8> = inbox.bytes.drain(..length).collect();
    let mut lines: Vec<String> = got.split_inclusive(|b| *b == b'\n').map(written).collect();
    if inbox.bytes.is_empty() {
        lines.extend(inbox.end.map(str::to_owned));
    }
    lines
}

/// A line as a transcript has it.
fn written(line: &[u8]) -> String {
    let runs = line.chunk_by(|a, b| a == b).map(|run| match run.len() {
        0..=99 => run.escape_ascii().to_string(),
        many => format!("({many} times {})", run[..1].escape_ascii()),
    });
    runs.collect()
}

/// The length of the head that `bytes` begin with.
fn head(bytes: &[u8]) -> Option<usize> {
    Some(bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4)
}

/// The length of the message that `bytes` begin with. An answer without a length ends with its connection.
fn message(bytes: &[u8]) -> Option<usize> {
    let head = head(bytes)?;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    if ["http/1.1 1", "http/1.1 204", "http/1.1 304"].iter().any(|s| text.starts_with(s)) {
        return Some(head);
    }
    let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "));
    if let Some(length) = field("content-length") {
        let length = head + length.parse::<usize>().ok()?;
        return (bytes.len() >= length).then_some(length);
    }
    if field("transfer-encoding").is_some() {
        return chunks(bytes, head);
    }
    (!text.starts_with("http/")).then_some(head)
}

/// Where the chunks that begin at `at` end, trailers and all.
fn chunks(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let line = bytes.get(at..)?.windows(2).position(|w| w == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[at..at + line]).ok()?, 16).ok()?;
        at += line + 2;
        if size == 0 {
            break;
        }
        at += size + 2;
    }
    loop {
        let line = bytes.get(at..)?.windows(2).position(|w| w == b"\r\n")?;
        at += line + 2;
        if line == 0 {
            return Some(at);
        }
    }
}

/// A line without what differs from run to run.
fn normal(line: &str, names: &[(String, String)]) -> String {
    for field in ["Date: ", "X-Request-ID: "] {
        if line.starts_with(field) {
            return format!("{field}…\\r\\n");
        }
    }
    names.iter().fold(line.to_owned(), |line, (from, to)| line.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_their_length() {
        let table: &[(&[u8], Option<usize>)] = &[
            (b"GET / HTTP/1.1\r\nHost: x\r\n", None),
            (b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET", Some(27)),
            (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", None),
            (b"HTTP/1.1 100 Continue\r\n\r\nHTTP", Some(25)),
            (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nHTTP", Some(48)),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", None),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok!", Some(40)),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", None),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nA: b\r\n\r\n!", Some(65)),
        ];
        for (bytes, length) in table {
            assert_eq!(message(bytes), *length, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn many_equal_bytes_are_counted() {
        assert_eq!(written(b"aab\r\n"), "aab\\r\\n");
        assert_eq!(
            written(&[b"x".repeat(99), b"y".repeat(100), b"\n".to_vec()].concat()),
            format!("{}(100 times y)\\n", "x".repeat(99))
        );
    }

    #[test]
    fn scripts_that_make_no_sense_are_refused() {
        for text in [
            "# no steps",
            "what\n\na gets\n",
            "#\n\na get\n",
            "#\n\na sends \\q\n",
            "#\n\nwait 5\n",
            "#\n\na gets much\n",
            "#\n\na repeats x\n",
        ] {
            assert!(Script::parse(text).is_err(), "{text}");
        }
    }
}
