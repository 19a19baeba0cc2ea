//! Parses the corpus into cases. `testdata/h1/README.md` describes the format.

use std::fmt::Write as _;
use std::path::Path;

/// `Date` while the corpus runs (the wall clock stands still).
pub(crate) const DATE: &str = "Tue, 15 Nov 2022 08:12:31 GMT";

/// One end of the proxy: a client or a backend connection, by its number in the case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    /// `C`, `C2`, ...
    Client(u8),
    /// `B`, `B2`, ...: in the order in which the proxy opened them.
    Backend(u8),
}

/// A piece of expected bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Atom {
    /// Exactly these.
    Bytes(Vec<u8>),
    /// The request's id, whatever it is.
    Id,
    /// This much of a body, chunked: one chunk when the input came whole, any chunks otherwise.
    Chunks(Vec<u8>),
}

/// One step of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// That side sends one of these alternatives, each of which must have the same result.
    Send(Side, Vec<Vec<u8>>),
    /// That side has received exactly this since the last time it was asked.
    Receive(Side, Vec<Atom>),
    /// That side has received exactly this or any prefix of it.
    ReceiveAtMost(Side, Vec<Atom>),
    /// That side shuts down its direction.
    End(Side),
    /// That side resets the connection.
    Reset(Side),
    /// The next connection to the backend is refused.
    Refuse,
    /// Time passes: milliseconds.
    Wait(u64),
    /// The proxy has closed that side.
    Closed(Side),
    /// The proxy has reset that side, so that it cannot take what it has for complete.
    Cut(Side),
    /// The proxy has shut down its direction to that side, but still reads.
    Shut(Side),
    /// The proxy has not closed that side.
    Open(Side),
    /// The number of backend connections that the proxy has opened since the case began.
    Connections(u8),
    /// All backend connections are closed.
    BackendsClosed,
}

/// Which verdict a case expects on its (first) request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The request is forwarded.
    Forward,
    /// The request is rejected with a local reply, and the connection is closed.
    Refuse,
}

/// One case: a rule, and the steps that check it.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// Its unique name.
    pub(crate) name: String,
    /// File and line, for messages.
    pub(crate) place: String,
    /// The clause of an RFC, or another source of the rule.
    pub(crate) clause: String,
    /// The rule in a few words.
    pub(crate) rule: String,
    /// Why it is right to forward what HAProxy or nginx rejects.
    pub(crate) right: Option<String>,
    /// It is played in one piece only: split into pieces it would have another result.
    pub(crate) uncut: bool,
    /// The steps, in order.
    pub(crate) steps: Vec<Step>,
    /// The verdict on the (first) request.
    pub(crate) verdict: Verdict,
}

/// All cases of a folder, by file name.
pub(crate) fn read_folder(folder: &Path) -> Vec<Case> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|f| f.expect("a readable folder").path())
        .filter(|f| f.extension().is_some_and(|x| x == "txt"))
        .collect();
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let name = file.file_name().expect("a file").to_string_lossy().into_owned();
        cases.extend(parse(&name, &text));
    }
    cases
}

/// All cases of a file.
pub(crate) fn parse(file: &str, text: &str) -> Vec<Case> {
    let mut reader = Reader { cases: Vec::new(), alternative: false };
    for (n, line) in text.lines().enumerate() {
        let place = format!("{file}:{}", n + 1);
        assert_eq!(line, line.trim_end(), "{place}: a space at the end of a line is invisible: write \\x20");
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        reader.line(&place, line);
    }
    reader.cases
}

struct Reader {
    cases: Vec<Case>,
    /// The last line was `or`.
    alternative: bool,
}

impl Reader {
    fn line(&mut self, place: &str, line: &str) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = if is_arrow(word) { rest } else { rest.trim_start() };
        if word == "case" {
            assert!(!rest.is_empty(), "{place}: a case needs a name");
            self.cases.push(Case {
                name: rest.into(),
                place: place.into(),
                clause: String::new(),
                rule: String::new(),
                right: None,
                uncut: false,
                steps: Vec::new(),
                verdict: Verdict::Forward,
            });
            return;
        }
        let alternative = std::mem::take(&mut self.alternative);
        let case = self.cases.last_mut().unwrap_or_else(|| panic!("{place}: a line before the first case"));
        match word {
            "clause" => case.clause = rest.into(),
            "rule" => case.rule = rest.into(),
            "right" => case.right = Some(rest.into()),
            "" => {
                let text = case.right.as_mut().unwrap_or(&mut case.rule);
                text.push(' ');
                text.push_str(rest);
            }
            "uncut" => case.uncut = true,
            "or" => self.alternative = true,
            "reject" | "cut" => rejected(case, place, word, rest),
            "ok" => {
                let close = rest == "close";
                let b = if rest.is_empty() || close { Side::Backend(1) } else { side(place, rest) };
                case.steps.push(Step::Send(b, vec![literal(place, "{ok}")]));
                case.steps.push(Step::Receive(
                    Side::Client(1),
                    atoms(place, if close { "{ok close}" } else { "{ok}" }),
                ));
                if close {
                    case.steps.push(Step::Closed(Side::Client(1)));
                }
            }
            "bad" => {
                case.steps.push(Step::Receive(
                    Side::Client(1),
                    vec![Atom::Bytes(local_reply("502", rest, "keep"))],
                ));
                case.steps.push(Step::Closed(Side::Backend(1)));
            }
            "get" | "head" | "get10" | "post" => {
                let (ask, asked) = (format!("{{{word}}}"), format!("{{{word} forwarded}}"));
                case.steps.push(Step::Send(Side::Client(1), vec![literal(place, &ask)]));
                case.steps.push(Step::Receive(Side::Backend(1), atoms(place, &asked)));
            }
            "refuse" => case.steps.push(Step::Refuse),
            "connections" => case
                .steps
                .push(Step::Connections(rest.parse().unwrap_or_else(|_| panic!("{place}: a number")))),
            "wait" => {
                let seconds = rest.strip_suffix('s').and_then(|s| s.parse::<u64>().ok());
                case.steps.push(Step::Wait(1000 * seconds.unwrap_or_else(|| panic!("{place}: wait Ns"))));
            }
            _ if is_arrow(word) => transfer(case, place, word, rest, alternative),
            _ => {
                let side = side(place, word);
                case.steps.push(match rest {
                    "end" => Step::End(side),
                    "reset" => Step::Reset(side),
                    "closed" => Step::Closed(side),
                    "cut" => Step::Cut(side),
                    "shut" => Step::Shut(side),
                    "open" => Step::Open(side),
                    _ => panic!("{place}: {line:?} is not a line of the format"),
                });
            }
        }
    }
}

/// The steps of `reject` and `cut`: a local reply, and what the backend may have received before.
fn rejected(case: &mut Case, place: &str, word: &str, rest: &str) {
    case.verdict = Verdict::Refuse;
    let (status, cause) = rest.split_once(' ').unwrap_or_else(|| panic!("{place}: {word} STATUS CAUSE"));
    let response = local_reply(status, cause, "");
    case.steps.push(Step::Receive(Side::Client(1), vec![Atom::Bytes(response)]));
    case.steps.push(Step::Closed(Side::Client(1)));
    if word == "reject" {
        let opened = case.steps.iter().filter(|s| matches!(s, Step::Receive(Side::Backend(_), _))).count();
        case.steps.push(Step::Connections(if opened == 0 { 0 } else { 1 }));
    } else {
        // The backend has received at most the block before, and then the end.
        let at = case.steps.iter().rposition(|s| matches!(s, Step::Receive(Side::Backend(_), _)));
        let at = at.unwrap_or_else(|| {
            panic!("{place}: cut needs a B< block before it, the most that the backend may receive")
        });
        if let Step::Receive(side, atoms) = case.steps[at].clone() {
            case.steps[at] = Step::ReceiveAtMost(side, atoms);
        }
        case.steps.push(Step::BackendsClosed);
    }
}

/// The step of an arrow: bytes that a side sends or has received.
fn transfer(case: &mut Case, place: &str, word: &str, rest: &str, alternative: bool) {
    let at = word.find(['<', '>']).expect("an arrow");
    let (who, arrow) = word.split_at(at);
    let side = side(place, who);
    if arrow == "<*" {
        case.steps.push(Step::ReceiveAtMost(side, atoms(place, rest)));
    } else if arrow == ">" {
        let bytes = literal(place, rest);
        match case.steps.last_mut() {
            Some(Step::Send(s, all)) if *s == side && alternative => all.push(bytes),
            Some(Step::Send(s, all)) if *s == side => all.last_mut().expect("one at least").extend(bytes),
            _ => case.steps.push(Step::Send(side, vec![bytes])),
        }
    } else {
        let more = atoms(place, rest);
        match case.steps.last_mut() {
            Some(Step::Receive(s, all)) if *s == side => all.extend(more),
            _ => case.steps.push(Step::Receive(side, more)),
        }
    }
}

fn is_arrow(word: &str) -> bool {
    (word.starts_with('C') || word.starts_with('B')) && [">", "<", "<*"].iter().any(|a| word.ends_with(a))
}

fn side(place: &str, word: &str) -> Side {
    let number = |n: &str| if n.is_empty() { Some(1) } else { n.parse().ok() };
    let side = match word.split_at(1) {
        ("C", n) => number(n).map(Side::Client),
        ("B", n) => number(n).map(Side::Backend),
        _ => None,
    };
    side.unwrap_or_else(|| panic!("{place}: {word:?} is neither a line of the format nor a side"))
}

fn literal(place: &str, text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for atom in atoms(place, text) {
        match atom {
            Atom::Bytes(b) => bytes.extend(b),
            _ => panic!("{place}: this macro is only allowed in received bytes"),
        }
    }
    bytes
}

/// Escapes and macros to atoms.
fn atoms(place: &str, text: &str) -> Vec<Atom> {
    let mut out = Vec::new();
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        match c {
            '\\' => {
                let (byte, len) = escape(place, rest);
                bytes.push(byte);
                rest = &rest[len..];
            }
            '{' => {
                let end = rest.find('}').unwrap_or_else(|| panic!("{place}: a macro without }}"));
                let (name, argument) = rest[1..end].split_once(' ').unwrap_or((&rest[1..end], ""));
                for atom in expand(place, name, argument) {
                    match atom {
                        Atom::Bytes(b) => bytes.extend(b),
                        other => {
                            out.push(Atom::Bytes(std::mem::take(&mut bytes)));
                            out.push(other);
                        }
                    }
                }
                rest = &rest[end + 1..];
            }
            _ => {
                assert!((' '..='~').contains(&c), "{place}: {c:?} is not visible ASCII: write it as \\xNN");
                bytes.push(c as u8);
                rest = &rest[1..];
            }
        }
    }
    out.push(Atom::Bytes(bytes));
    out.retain(|a| !matches!(a, Atom::Bytes(b) if b.is_empty()));
    out
}

fn escape(place: &str, text: &str) -> (u8, usize) {
    match text.as_bytes().get(1) {
        Some(b'r') => (b'\r', 2),
        Some(b'n') => (b'\n', 2),
        Some(b't') => (b'\t', 2),
        Some(b'\\') => (b'\\', 2),
        Some(b'{') => (b'{', 2),
        Some(b'}') => (b'}', 2),
        Some(b'x') => (
            text.get(2..4)
                .and_then(|h| u8::from_str_radix(h, 16).ok())
                .unwrap_or_else(|| panic!("{place}: \\xNN")),
            4,
        ),
        _ => panic!("{place}: no such escape: {text:?}"),
    }
}

fn expand(place: &str, name: &str, argument: &str) -> Vec<Atom> {
    let text = |t: &str| atoms(place, t);
    match name {
        "id" => vec![Atom::Id],
        "date" => text(DATE),
        "chunks" => vec![Atom::Chunks(literal(place, argument))],
        "repeat" => {
            let (n, what) = argument.split_once(' ').unwrap_or_else(|| panic!("{place}: repeat N TEXT"));
            vec![Atom::Bytes(
                literal(place, what).repeat(n.parse().unwrap_or_else(|_| panic!("{place}: repeat N TEXT"))),
            )]
        }
        // That many short fields, the same when sent and when received.
        "fields" => {
            let n: u32 = argument.parse().unwrap_or_else(|_| panic!("{place}: fields N"));
            let mut all = String::new();
            for i in 0..n {
                write!(all, "X-F{i}: v\r\n").expect("memory");
            }
            vec![Atom::Bytes(all.into_bytes())]
        }
        "chunks_of" => {
            let (n, what) = argument.split_once(' ').unwrap_or_else(|| panic!("{place}: chunks_of N TEXT"));
            vec![Atom::Chunks(
                literal(place, what)
                    .repeat(n.parse().unwrap_or_else(|_| panic!("{place}: chunks_of N TEXT"))),
            )]
        }
        "added" => text(&added("1.1", argument)),
        "added10" => text(&added("1.0", argument)),
        // The added fields without Via, for requests in which the client sent a Via.
        "forwarded" => text(&forwarded(argument)),
        "ok" if argument.is_empty() => {
            text("HTTP/1.1 200 OK\\r\\nDate: {date}\\r\\nContent-Length: 2\\r\\n\\r\\nok")
        }
        "ok" => text(
            "HTTP/1.1 200 OK\\r\\nDate: {date}\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\nok",
        ),
        "get" if argument.is_empty() => text("GET / HTTP/1.1\\r\\nHost: a.test\\r\\n\\r\\n"),
        "get" => text("GET / HTTP/1.1\\r\\nHost: a.test\\r\\n{added a.test}\\r\\n"),
        "head" if argument.is_empty() => text("HEAD / HTTP/1.1\\r\\nHost: a.test\\r\\n\\r\\n"),
        "head" => text("HEAD / HTTP/1.1\\r\\nHost: a.test\\r\\n{added a.test}\\r\\n"),
        "get10" if argument.is_empty() => text("GET / HTTP/1.0\\r\\nHost: a.test\\r\\n\\r\\n"),
        "get10" => text("GET / HTTP/1.1\\r\\nHost: a.test\\r\\n{added10 a.test}\\r\\n"),
        "post" if argument.is_empty() => {
            text("POST / HTTP/1.1\\r\\nHost: a.test\\r\\nContent-Length: 4\\r\\n\\r\\nbody")
        }
        "post" => {
            text("POST / HTTP/1.1\\r\\nHost: a.test\\r\\nContent-Length: 4\\r\\n{added a.test}\\r\\nbody")
        }
        _ if name.bytes().all(|b| b.is_ascii_digit()) => {
            let (cause, how) = argument.split_once(' ').unwrap_or((argument, ""));
            vec![Atom::Bytes(local_reply(name, cause, how))]
        }
        _ => panic!("{place}: no macro is called {name:?}"),
    }
}

/// The fields that the proxy adds to a request, for a client of that version.
fn added(version: &str, host: &str) -> String {
    format!("Via: {version} rust-strom\\r\\n{}", forwarded(host))
}

fn forwarded(host: &str) -> String {
    let host = if host.is_empty() { String::new() } else { format!("X-Forwarded-Host: {host}\\r\\n") };
    format!(
        "X-Forwarded-For: 192.0.2.7\\r\\nX-Real-IP: 192.0.2.7\\r\\n{host}X-Forwarded-Proto: http\\r\\nX-Forwarded-Port: 80\\r\\n\
         X-Forwarded-Server: lb.test\\r\\nX-Request-ID: {{id}}\\r\\n"
    )
}

/// A local reply; `how` contains `head` if the request was HEAD, and `keep` if the connection stays open.
fn local_reply(status: &str, cause: &str, how: &str) -> Vec<u8> {
    let reason = match status {
        "200" => "OK",
        "400" => "Bad Request",
        "499" => "Client Closed Request",
        "404" => "Not Found",
        "408" => "Request Timeout",
        "413" => "Content Too Large",
        "414" => "URI Too Long",
        "417" => "Expectation Failed",
        "421" => "Misdirected Request",
        "431" => "Request Header Fields Too Large",
        "501" => "Not Implemented",
        "502" => "Bad Gateway",
        "503" => "Service Unavailable",
        "504" => "Gateway Timeout",
        "505" => "HTTP Version Not Supported",
        _ => panic!("{status}: no local reply has this status"),
    };
    let body = format!("{status} {reason}: {cause}\n");
    let retry = if status == "503" { "Retry-After: 1\r\n" } else { "" };
    let close = if how.contains("keep") { "" } else { "Connection: close\r\n" };
    let mut all = format!(
        "HTTP/1.1 {status} {reason}\r\nDate: {DATE}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Proxy-Status: rust-strom; error={}; details=\"{cause}\"\r\n{retry}{close}\r\n",
        body.len(),
        proxy_error(status, cause),
    );
    if !how.contains("head") {
        all.push_str(&body);
    }
    all.into_bytes()
}

/// The registered error type of RFC 9209 §2.3.
fn proxy_error(status: &str, cause: &str) -> &'static str {
    match (status, cause) {
        ("502", "connect_refused") => "connection_refused",
        (_, "connect_timeout") => "connection_timeout",
        (_, "connect_unreachable") => "destination_ip_unroutable",
        (_, "backend_closed" | "backend_reset") => "connection_terminated",
        (_, "backend_timeout") => "http_response_timeout",
        (_, "response_truncated") => "http_response_incomplete",
        ("502", _) => "http_protocol_error",
        _ => "http_request_error",
    }
}
