//! Scripts of `testdata/behaviour`: the steps of clients and backends, and below each step, indented, what
//! the endpoint receives. A script is independent of sockets and drivers: an [`Environment`] has those.
//!
//! The preamble ends with the first empty line. It has a description (`#`), the backends (`backends A B`;
//! `C!` refuses connections, `C?` neither accepts nor refuses them) and configuration: keys for every backend
//! (`each …`), for their pool (`pool …`), whose path prefix is `/p`, and for the top level (`proxy …`, which
//! replaces the line of [`CONFIG`] with that key). Then come the steps. `a` is a client, `A1` the first
//! connection to backend A. `\r`, `\n` and `\\` are escapes.
//!
//! ```text
//! a connects                 a finishes (shuts down its direction)
//! a sends BYTES              a closes
//! a repeats 5 x (xxxxx)      a resets
//! a gets                     wait 100ms
//! a gets head                drain
//! a gets 5 (bytes)
//! a gets end
//! ```
//!
//! `gets` waits, for a whole message if nothing else is said. A client connects with its first step if it has
//! no `connects`. The last indented lines are the outcome of the graceful stop and the record of each
//! exchange. 100 or more equal bytes are written as their number.

use std::collections::BTreeMap;
use std::time::Duration;

/// One step.
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

/// How much a `gets` step waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    Message,
    Head,
    Bytes(usize),
    End,
}

/// The top of the configuration: short timeouts, no health checks.
const CONFIG: &str = "http_address = \"127.0.0.1:0\"\nmetrics_address = false\nhealth_interval = { check_every = 0 }\n\
    timeouts = { head = \"1s\", idle = \"2s\", connect = \"1s\", backend_head = \"1s\", stall = \"1s\", drain = \"1s\" }\n";

/// What a backend does with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListenMode {
    /// Accepts them.
    Accept,
    /// Refuses them: nothing listens there.
    Refuse,
    /// Neither accepts nor refuses them: the SYN gets no answer.
    Silent,
}

/// A parsed script.
pub(crate) struct Script {
    text: String,
    pub(crate) backends: Vec<(String, ListenMode)>,
    each: String,
    pool: String,
    proxy: String,
    /// Each step with its line as it is in the file.
    steps: Vec<(String, Step)>,
    preamble: String,
}

/// What an endpoint received.
pub(crate) enum Received {
    Bytes(Vec<u8>),
    End,
    Reset,
}

/// A running proxy with clients and backends, to play a script with. Endpoints are called as in the script.
pub(crate) trait Environment {
    /// Connects a client; false if it is refused.
    fn connect(&mut self, client: &str) -> bool;
    /// Sends bytes; false if the connection is closed.
    fn send(&mut self, who: &str, bytes: &[u8]) -> bool;
    /// Waits for the next bytes or the end, and before that for the proxy's connection if there is none yet.
    fn receive(&mut self, who: &str) -> Received;
    /// Shuts down the direction to the proxy.
    fn finish(&mut self, who: &str);
    /// Closes the connection.
    fn close(&mut self, who: &str);
    /// Closes the connection with a reset.
    fn reset(&mut self, who: &str);
    /// Lets time pass.
    fn wait(&mut self, time: Duration);
    /// Begins a graceful stop.
    fn drain(&mut self);
    /// Stops gracefully; a line for the outcome, and one for the record of each exchange.
    fn end(&mut self) -> Vec<String>;
    /// Texts that differ from run to run, each with the placeholder to write instead.
    fn placeholders(&self) -> Vec<(String, String)>;
}

impl Script {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (preamble, rest) = text.split_once("\n\n").ok_or("no empty line after the preamble")?;
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
                _ => return Err(format!("neither a line of the preamble nor a step: {line}")),
            }
        }
        for line in rest.lines().filter(|l| !l.is_empty() && !l.starts_with(' ')) {
            let step =
                step(line).ok_or_else(|| format!("neither a line of the preamble nor a step: {line}"))?;
            script.steps.push((line.into(), step));
        }
        Ok(script)
    }

    /// The configuration of the script, with these addresses for its backends.
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

    /// The text of the script.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Plays the script; its text again, with what the endpoints received this time.
    pub(crate) fn play(&self, environment: &mut impl Environment) -> String {
        let mut transcript = format!("{}\n\n", self.preamble);
        let mut buffers: BTreeMap<String, ReceiveBuffer> = BTreeMap::new();
        for (line, step) in &self.steps {
            transcript += &format!("{line}\n");
            let got = perform(step, environment, &mut buffers);
            for piece in got {
                transcript += &format!("    {}\n", normalized(&piece, &environment.placeholders()));
            }
        }
        for line in environment.end() {
            transcript += &format!("    {}\n", normalized(&line, &environment.placeholders()));
        }
        transcript
    }
}

/// The backend of a connection: `A` for `A2`. A client's name is no backend's.
pub(crate) fn backend_of(who: &str) -> &str {
    who.trim_end_matches(|c: char| c.is_ascii_digit())
}

/// A backend as the preamble declares it.
fn backend(name: &str) -> (String, ListenMode) {
    let bare = name.trim_end_matches(['!', '?']);
    let mode = match &name[bare.len()..] {
        "!" => ListenMode::Refuse,
        "?" => ListenMode::Silent,
        _ => ListenMode::Accept,
    };
    (bare.to_owned(), mode)
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

/// Bytes and the end that were received and that no `gets` step has taken yet.
#[derive(Default)]
struct ReceiveBuffer {
    bytes: Vec<u8>,
    end: Option<&'static str>,
}

/// Performs a step; the lines to write below it.
fn perform(
    step: &Step,
    environment: &mut impl Environment,
    buffers: &mut BTreeMap<String, ReceiveBuffer>,
) -> Vec<String> {
    let mut got = Vec::new();
    match step {
        Step::Connect(who) => got.extend((!environment.connect(who)).then(|| "is refused".into())),
        Step::Send(who, bytes) => {
            got.extend((!environment.send(who, bytes)).then(|| "the connection is closed".into()))
        }
        Step::Get(who, until) => got = get(who, *until, environment, buffers.entry(who.clone()).or_default()),
        Step::Finish(who) => environment.finish(who),
        Step::Close(who) => environment.close(who),
        Step::Reset(who) => environment.reset(who),
        Step::Wait(time) => environment.wait(*time),
        Step::Drain => environment.drain(),
    }
    got
}

/// Waits for what a `gets` step asks for; its lines, and how the connection ended if it did.
fn get(
    who: &str,
    until: Until,
    environment: &mut impl Environment,
    buffer: &mut ReceiveBuffer,
) -> Vec<String> {
    let length = loop {
        let enough = match until {
            Until::Message => message(&buffer.bytes),
            Until::Head => head(&buffer.bytes),
            Until::Bytes(n) => (buffer.bytes.len() >= n).then_some(n),
            Until::End => None,
        };
        if let Some(length) = enough {
            break length;
        }
        if buffer.end.is_some() {
            break buffer.bytes.len();
        }
        match environment.receive(who) {
            Received::Bytes(bytes) => buffer.bytes.extend(bytes),
            Received::End => buffer.end = Some("(end)"),
            Received::Reset => buffer.end = Some("(reset)"),
        }
    };
    let got: Vec<u8> = buffer.bytes.drain(..length).collect();
    let mut lines: Vec<String> = got.split_inclusive(|b| *b == b'\n').map(escaped).collect();
    if buffer.bytes.is_empty() {
        lines.extend(buffer.end.map(str::to_owned));
    }
    lines
}

/// A line as scripts write it: escaped, with long runs of equal bytes counted.
fn escaped(line: &[u8]) -> String {
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

/// The length of the message that `bytes` begin with. A response without a length ends with its connection.
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

/// A line with placeholders for the texts that differ from run to run.
fn normalized(line: &str, placeholders: &[(String, String)]) -> String {
    for field in ["Date: ", "X-Request-ID: "] {
        if line.starts_with(field) {
            return format!("{field}…\\r\\n");
        }
    }
    placeholders.iter().fold(line.to_owned(), |line, (from, to)| line.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_message_is_found() {
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
        assert_eq!(escaped(b"aab\r\n"), "aab\\r\\n");
        assert_eq!(
            escaped(&[b"x".repeat(99), b"y".repeat(100), b"\n".to_vec()].concat()),
            format!("{}(100 times y)\\n", "x".repeat(99))
        );
    }

    #[test]
    fn invalid_scripts_are_rejected() {
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
