//! Cases, and playing one of them.

use std::path::Path;
use std::time::Duration;

use ruststrom_core::Instant;
use ruststrom_core::h2::frame::PREFACE;
use ruststrom_core::h2::hpack::Decoder;
use ruststrom_core::h2::{Conn, Event, Limits, Received, Role};
use ruststrom_core::http::{Framing, HeaderKind};

use super::lines::{bytes, encoded, fields, payload, reason, rendered, shown};

/// A rule, and the steps that check it.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) place: String,
    pub(crate) clause: String,
    pub(crate) rule: String,
    role: Role,
    limits: Limits,
    /// No greetings are exchanged before.
    bare: bool,
    steps: Vec<Step>,
}

/// What comes or is done, and what has to come of it.
#[derive(Debug)]
struct Step {
    place: String,
    input: Vec<u8>,
    actions: Vec<String>,
    events: Vec<String>,
    frames: Vec<String>,
}

/// How the input of a case is split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Split {
    Whole,
    Bytes,
    At { step: usize, at: usize },
}

impl Case {
    /// Steps with input, and how many bytes that has.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = (usize, usize)> {
        // Long inputs are data, whose every byte is like the next.
        self.steps.iter().enumerate().map(|(n, step)| (n, step.input.len().min(300)))
    }
}

pub(crate) fn parse(file: &Path) -> Vec<Case> {
    let text = std::fs::read_to_string(file).expect("UTF-8");
    let name = file.file_name().expect("a name").to_string_lossy().into_owned();
    let mut cases: Vec<Case> = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let place = format!("{name}:{}", n + 1);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        if word == "case" {
            cases.push(Case {
                name: rest.into(),
                place,
                clause: String::new(),
                rule: String::new(),
                role: Role::Server,
                limits: Limits::default(),
                bare: false,
                steps: Vec::new(),
            });
            continue;
        }
        let case = cases.last_mut().unwrap_or_else(|| panic!("{place}: a line before the first case"));
        match word {
            "clause" => case.clause = rest.into(),
            "rule" => case.rule = rest.into(),
            "" => case.rule += &format!(" {rest}"),
            "client" => case.role = Role::Client,
            "bare" => case.bare = true,
            "limit" => limit(case, rest),
            ">" | "!" => {
                let goes_on = |step: &Step| {
                    step.events.is_empty()
                        && step.frames.is_empty()
                        && (word == "!" || step.actions.is_empty())
                };
                if !case.steps.last().is_some_and(goes_on) {
                    let (input, actions, events, frames) = (vec![], vec![], vec![], vec![]);
                    case.steps.push(Step { place, input, actions, events, frames });
                }
                let step = case.steps.last_mut().expect("just pushed");
                if word == ">" {
                    step.input.extend(encoded(&expanded(rest)));
                } else {
                    step.actions.push(expanded(rest));
                }
            }
            "=" => case.steps.last_mut().expect("a step").events.push(rest.into()),
            "<" => case.steps.last_mut().expect("a step").frames.push(expanded(rest)),
            _ => panic!("{place}: {word}?"),
        }
    }
    cases
}

fn limit(case: &mut Case, text: &str) {
    let (what, value) = text.split_once(' ').expect("a limit and a value");
    let value: u32 = value.parse().expect("a number");
    match what {
        "streams" => case.limits.streams = value,
        "stream_window" => case.limits.stream_window = value,
        "connection_window" => case.limits.connection_window = value,
        "frame_bytes" => case.limits.frame_bytes = value,
        "list_bytes" => case.limits.list_bytes = value,
        "fields" => case.limits.fields = value,
        "target_bytes" => case.limits.target_bytes = value as usize,
        "header_table_bytes" => case.limits.header_table_bytes = value,
        _ => panic!("{what}?"),
    }
}

/// Heads that nearly every case needs.
fn expanded(line: &str) -> String {
    line.replace("{get}", "| :method: GET | :scheme: http | :path: / | :authority: a.test")
        .replace("{post}", "| :method: POST | :scheme: http | :path: / | :authority: a.test")
        .replace("{ok}", "| :status: 200")
}

struct World {
    conn: Conn,
    received: Received,
    decoder: Decoder,
    now: Instant,
    events: Vec<String>,
    /// Data of the last event, if that was data.
    data: Option<(u32, Vec<u8>)>,
}

pub(crate) fn play(case: &Case, split: Split) -> Result<(), String> {
    let now = Instant::ZERO;
    let mut world = World {
        conn: Conn::new(case.role, case.limits, now),
        received: Received::default(),
        decoder: Decoder::new(),
        now,
        events: Vec::new(),
        data: None,
    };
    if case.role == Role::Client {
        let sent = world.conn.transmit();
        assert!(sent.starts_with(PREFACE));
        world.conn.handle_sent(PREFACE.len());
    }
    if !case.bare {
        let preface = if case.role == Role::Server { &PREFACE[..] } else { b"" };
        world.feed(&[preface, &encoded("SETTINGS"), &encoded("SETTINGS ack")].concat());
        assert!(world.take_events().is_empty());
        world.take_frames();
    }
    for (n, step) in case.steps.iter().enumerate() {
        match split {
            Split::Bytes => step.input.chunks(1).for_each(|byte| world.feed(byte)),
            Split::At { step, at } if step == n => {
                world.feed(&case.steps[n].input[..at]);
                world.feed(&case.steps[n].input[at..]);
            }
            _ => world.feed(&step.input),
        }
        for action in &step.actions {
            world.act(action)?;
        }
        let (events, frames) = (world.take_events(), world.take_frames());
        if events != step.events || frames != step.frames {
            let of = |what: &str, lines: &[String]| {
                lines.iter().map(|line| format!("\n      {what} {line}")).collect::<String>()
            };
            return Err(format!(
                "at {}: expected{}{}\n    but got{}{}",
                step.place,
                of("=", &step.events),
                of("<", &step.frames),
                of("=", &events),
                of("<", &frames)
            ));
        }
    }
    Ok(())
}

impl World {
    fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.conn.recv_buf();
            let n = room.len().min(bytes.len());
            if n == 0 {
                return;
            }
            room[..n].copy_from_slice(&bytes[..n]);
            self.conn.handle_recv(n);
            bytes = &bytes[n..];
            self.poll();
        }
    }

    fn poll(&mut self) {
        while let Some(event) = self.conn.poll_event(&mut self.received, self.now) {
            if let Event::Data { stream } = event {
                let bytes = self.conn.data().to_vec();
                match &mut self.data {
                    Some((same, data)) if *same == stream => data.extend(bytes),
                    _ => {
                        self.flush_data();
                        self.data = Some((stream, bytes));
                    }
                }
                continue;
            }
            self.flush_data();
            let line = self.shown(event);
            self.events.push(line);
            self.conn.check();
        }
        self.conn.check();
    }

    fn flush_data(&mut self) {
        if let Some((stream, data)) = self.data.take() {
            self.events.push(format!("data {stream} {}", payload(&data)));
        }
    }

    fn take_events(&mut self) -> Vec<String> {
        self.flush_data();
        std::mem::take(&mut self.events)
    }

    fn take_frames(&mut self) -> Vec<String> {
        let frames = rendered(self.conn.transmit(), &mut self.decoder);
        self.conn.handle_sent(self.conn.transmit().len());
        frames
    }

    fn shown(&self, event: Event) -> String {
        let ends = |ended| if ended { " end" } else { "" };
        match event {
            Event::Request { stream, ended } => {
                let head = &self.received.request;
                let (target, host) = (head.target().escape_ascii(), head.host().escape_ascii());
                let mut line = format!("request {stream}{} {} {target} {host}", ends(ended), head.method());
                match head.framing() {
                    Framing::Length(n) => line += &format!(" length={n}"),
                    framing => assert_eq!(framing == Framing::None, ended || head.upgrade().is_some()),
                }
                let fields = head.fields();
                line + &shown(fields.iter().filter(|f| f.kind != HeaderKind::Host).map(|f| (f.name, f.value)))
            }
            Event::Rejected { stream, violation, ended } => {
                format!("rejected {stream}{} {}", ends(ended), violation.name())
            }
            Event::Response { stream, ended } => {
                let head = &self.received.response;
                let line = format!("response {stream}{} {}", ends(ended), head.status().as_u16());
                line + &shown(head.fields().iter().map(|f| (f.name, f.value)))
            }
            Event::End { stream } => {
                let trailers = String::from_utf8_lossy(&self.received.trailers);
                let lines = trailers.lines().filter(|line| !line.is_empty());
                lines.fold(format!("end {stream}"), |line, field| format!("{line} | {field}"))
            }
            Event::Reset { stream, reason, unprocessed } => {
                format!("reset {stream} {reason}{}", if unprocessed { " unprocessed" } else { "" })
            }
            Event::Writable { stream } => format!("writable {stream}"),
            Event::GoingAway => "goaway".into(),
            Event::Broken(reason) => format!("broken {reason}"),
            Event::Data { .. } => unreachable!("data is joined"),
        }
    }

    /// Does what our side may do.
    fn act(&mut self, action: &str) -> Result<(), String> {
        let (head, text) = action.split_once(" | ").map_or((action, None), |(head, text)| (head, Some(text)));
        let mut words = head.split(' ');
        let verb = words.next().unwrap_or_default();
        if verb == "drain" {
            self.conn.drain();
            return Ok(());
        }
        if verb == "wait" {
            let millis = words.next().and_then(|w| w.parse().ok()).expect("milliseconds");
            self.now = self.now + Duration::from_millis(millis);
            return Ok(());
        }
        if verb == "open" {
            let stream = self.conn.open().map_or_else(|| "none".to_owned(), |stream| stream.to_string());
            self.events.push(format!("opened {stream}"));
            return Ok(());
        }
        let stream: u32 = words.next().and_then(|w| w.parse().ok()).expect("a stream");
        let rest: Vec<&str> = words.collect();
        let list = text.map(fields).unwrap_or_default();
        let put = |w: &mut ruststrom_core::h2::conn::BlockWriter<'_>| {
            list.iter().for_each(|(name, value)| w.field(name, value, HeaderKind::of(name), false));
        };
        match verb {
            "head" => {
                let to_head = list.iter().any(|(name, value)| name == b":method" && value == b"HEAD");
                let sent = self.conn.send_head(stream, rest.contains(&"end"), to_head, put);
                if !sent {
                    self.events.push(format!("not sent {stream}"));
                }
            }
            "connect" => assert!(self.conn.send_connect(stream, put)),
            "data" => {
                let data = bytes(rest[0]);
                let mut taken = 0;
                loop {
                    let n = self.conn.send_data(stream, &data[taken..]);
                    taken += n;
                    if n == 0 || taken == data.len() {
                        break;
                    }
                }
                if taken < data.len() {
                    self.events.push(format!("took {taken}"));
                }
            }
            "end" => self.conn.send_end(stream),
            "trailers" => self.conn.send_trailers(stream, put),
            "reset" => self.conn.reset(stream, reason(rest[0])),
            "release" => self.conn.release(stream, rest[0].parse().expect("a number")),
            other => return Err(format!("{other} is no action")),
        }
        self.poll();
        Ok(())
    }
}
