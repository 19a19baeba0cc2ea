//! Every transition against the list in `testdata`, and the sequences of events that connections see.

use super::{
    ALL_EVENTS, ANY, CLOSING, Client, E, Event, IllegalEvent, MessageStates, PROPOSED, S, Server, Side, State,
};
use std::fmt::Write;

fn name(m: MessageStates) -> String {
    let flags = [(m.0 & CLOSING != 0, " closing"), (m.0 & PROPOSED != 0, " proposed")];
    let flags: String = flags.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
    format!("{:?}/{:?}{flags}", m.state(Client), m.state(Server))
}

/// Every side, state and event by itself, then every pair of states that can be reached and what each
/// event changes it to.
fn snapshot() -> String {
    let mut text = String::from("# side state event -> state, with the other side out of the way\n");
    for side in [Client, Server] {
        for state in ANY {
            for event in ALL_EVENTS {
                let then = super::TABLE[side as usize][*state as usize][event as usize];
                let then = match event {
                    E::Fail => "Error".to_owned(),
                    E::NoKeepAlive => format!("{state:?}"),
                    E::Next => if *state == S::Done { "Idle" } else { "-" }.to_owned(),
                    _ => then.map_or("-".to_owned(), |s| format!("{s:?}")),
                };
                writeln!(text, "{side:?} {state:?} {event:?} -> {then}").unwrap();
            }
        }
    }
    text.push_str("\n# client/server: side event -> client/server; what is not listed is refused\n");
    let mut reached = vec![MessageStates::new()];
    let mut next = 0;
    while next < reached.len() {
        let before = reached[next];
        next += 1;
        writeln!(text, "{}", name(before)).unwrap();
        for side in [Client, Server] {
            for event in ALL_EVENTS {
                let mut after = before;
                match after.apply(side, event) {
                    Ok(()) => {
                        writeln!(text, "  {side:?} {event:?} -> {}", name(after)).unwrap();
                        if !reached.contains(&after) {
                            reached.push(after);
                        }
                    }
                    Err(broken) => {
                        assert_eq!(after, before, "what is refused changes nothing");
                        assert_eq!(broken, IllegalEvent { side, state: before.state(side), event });
                    }
                }
            }
        }
    }
    text
}

#[test]
fn every_transition_is_as_written_down() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/h1-machine.txt");
    let found = snapshot();
    if option_env!("RUSTSTROM_REWRITE").is_some() {
        std::fs::write(path, &found).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap();
    for (n, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "line {}; rebuild with RUSTSTROM_REWRITE=1 to accept", n + 1);
    }
    assert_eq!(found, expected);
}

type Steps<'a> = &'a [(Side, Event)];

fn run(events: Steps<'_>) -> MessageStates {
    let mut m = MessageStates::new();
    for &(side, event) in events {
        m.apply(side, event).unwrap_or_else(|broken| panic!("{events:?}: {broken:?}"));
    }
    m
}

#[test]
fn sequences() {
    let (c, s) = (Client, Server);
    let table: &[(&str, Steps, State, State)] = &[
        ("plain", &[(c, E::Head), (c, E::End), (s, E::Head), (s, E::End)], S::Done, S::Done),
        ("early response", &[(c, E::Head), (s, E::Head), (s, E::End)], S::Body, S::Done),
        (
            "early response, then the rest",
            &[(c, E::Head), (s, E::Head), (s, E::End), (c, E::End)],
            S::Done,
            S::Done,
        ),
        ("again", &[(c, E::Head), (c, E::End), (s, E::Head), (s, E::End), (c, E::Next)], S::Idle, S::Idle),
        (
            "interim",
            &[(c, E::Head), (s, E::Interim), (s, E::Interim), (c, E::End), (s, E::Head)],
            S::Done,
            S::Body,
        ),
        (
            "close",
            &[(c, E::Head), (c, E::NoKeepAlive), (c, E::End), (s, E::Head), (s, E::End)],
            S::MustClose,
            S::MustClose,
        ),
        (
            "server closes",
            &[(c, E::Head), (c, E::End), (s, E::Head), (s, E::NoKeepAlive), (s, E::End)],
            S::MustClose,
            S::MustClose,
        ),
        (
            "half-close",
            &[(c, E::Head), (c, E::End), (c, E::Close), (s, E::Head), (s, E::End)],
            S::Closed,
            S::MustClose,
        ),
        ("bad request", &[(c, E::Fail), (s, E::Head), (s, E::End)], S::Error, S::MustClose),
        ("error response while idle", &[(s, E::Head), (s, E::End)], S::MustClose, S::MustClose),
        (
            "last one of a drain",
            &[(s, E::NoKeepAlive), (c, E::Head), (c, E::End), (s, E::Head), (s, E::End)],
            S::MustClose,
            S::MustClose,
        ),
        ("closed idle", &[(c, E::Close)], S::Closed, S::MustClose),
        ("backend closed idle", &[(s, E::Close)], S::MustClose, S::Closed),
        (
            "truncated response",
            &[(c, E::Head), (c, E::End), (s, E::Head), (s, E::Close)],
            S::MustClose,
            S::Error,
        ),
        ("upgrade", &[(c, E::HeadUpgrade), (c, E::End)], S::MightSwitch, S::Due),
        ("upgraded", &[(c, E::HeadUpgrade), (c, E::End), (s, E::Switch)], S::Switched, S::Switched),
        ("upgraded early", &[(c, E::HeadUpgrade), (s, E::Switch)], S::Body, S::Switched),
        (
            "upgraded early, then the rest",
            &[(c, E::HeadUpgrade), (s, E::Switch), (c, E::End)],
            S::Switched,
            S::Switched,
        ),
        (
            "interim, then upgraded",
            &[(c, E::HeadUpgrade), (c, E::End), (s, E::Interim), (s, E::Switch)],
            S::Switched,
            S::Switched,
        ),
        ("upgrade refused", &[(c, E::HeadUpgrade), (c, E::End), (s, E::Head), (s, E::End)], S::Done, S::Done),
        (
            "upgrade refused early",
            &[(c, E::HeadUpgrade), (s, E::Head), (c, E::End), (s, E::End)],
            S::Done,
            S::Done,
        ),
        (
            "upgrade with close",
            &[(c, E::HeadUpgrade), (c, E::NoKeepAlive), (c, E::End)],
            S::MightSwitch,
            S::Due,
        ),
        (
            "tunnel half-closed",
            &[(c, E::HeadUpgrade), (c, E::End), (s, E::Switch), (c, E::Close)],
            S::Closed,
            S::Switched,
        ),
    ];
    for (what, events, client, server) in table {
        let m = run(events);
        assert_eq!((m.state(Client), m.state(Server)), (*client, *server), "{what}");
    }
}

#[test]
fn refusals() {
    let (c, s) = (Client, Server);
    // The events so far, and an event that is not allowed then.
    let table: &[(Steps, Side, Event)] = &[
        (&[], s, E::Switch),
        (&[], s, E::Interim),
        (&[], s, E::End),
        (&[], c, E::End),
        (&[], c, E::Next),
        (&[(c, E::Head)], c, E::Head),
        (&[(c, E::Head), (c, E::End)], c, E::Head),
        (&[(c, E::Head), (c, E::End)], s, E::Switch),
        (&[(c, E::Head), (c, E::End)], c, E::Next),
        (&[(c, E::Head), (s, E::Head)], s, E::Head),
        (&[(c, E::Head), (s, E::Head)], s, E::Interim),
        (&[(c, E::HeadUpgrade), (s, E::Head)], s, E::Switch),
        (&[(c, E::HeadUpgrade), (c, E::End)], c, E::Head),
        (&[(c, E::HeadUpgrade), (c, E::End), (s, E::Switch)], s, E::Head),
        (&[(c, E::Head), (c, E::NoKeepAlive), (c, E::End), (s, E::Head), (s, E::End)], c, E::Next),
        (&[(c, E::Close)], s, E::Head),
        (&[(s, E::Head)], c, E::Head),
        (&[(s, E::Head), (s, E::End)], c, E::Head),
    ];
    for (events, side, event) in table {
        assert!(run(events).apply(*side, *event).is_err(), "{events:?} {side:?} {event:?}");
    }
}

#[test]
fn the_states_are_small() {
    assert!(size_of::<MessageStates>() <= 4);
}
