//! Plays a case in the world, cut into pieces in every way, and says where it went otherwise than written.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use ruststrom_core::Config;
use ruststrom_core::proxy::Counts;

use crate::format::{Atom, Case, DATE, Side, Step};
use crate::world::World;

/// How the bytes of a case travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Each step in one piece.
    Whole,
    /// Each byte alone, both ways.
    Bytes,
    /// Step `step` in two pieces, the first of `at` bytes.
    At {
        /// Place of the step in the case.
        step: usize,
        /// 1 or more.
        at: usize,
    },
}

/// Every way to cut a case, and every choice of its alternatives: each must end alike.
pub(crate) fn play_all(case: &Case, config: &Arc<Config>) -> Result<u64, String> {
    let mut runs = 0;
    for alternative in 0..alternatives(case) {
        let mut run = |cut| {
            runs += 1;
            play(case, config, alternative, cut).map_err(|e| {
                format!("{} ({}) alternative {}, {cut:?}: {e}", case.name, case.place, alternative + 1)
            })
        };
        run(Cut::Whole)?;
        if case.uncut {
            continue;
        }
        run(Cut::Bytes)?;
        for (step, what) in case.steps.iter().enumerate() {
            if let Step::Send(_, all) = what {
                for at in 1..pick(all, alternative).len() {
                    run(Cut::At { step, at })?;
                }
            }
        }
    }
    Ok(runs)
}

fn alternatives(case: &Case) -> usize {
    let count = |s: &Step| if let Step::Send(_, all) = s { all.len() } else { 1 };
    case.steps.iter().map(count).max().unwrap_or(1)
}

fn pick(all: &[Vec<u8>], alternative: usize) -> &[u8] {
    &all[alternative.min(all.len() - 1)]
}

fn play(case: &Case, config: &Arc<Config>, alternative: usize, cut: Cut) -> Result<(), String> {
    let exact = cut == Cut::Whole;
    let mut world = World::new(config, if cut == Cut::Bytes { 1 } else { usize::MAX });
    for (n, step) in case.steps.iter().enumerate() {
        let told = |e: String| format!("step {}: {e}", n + 1);
        // A client is there from its first line on.
        if let Step::Send(side @ Side::Client(_), _)
        | Step::End(side @ Side::Client(_))
        | Step::Reset(side @ Side::Client(_))
        | Step::Open(side @ Side::Client(_)) = step
            && !world.peers.contains_key(side)
        {
            world.accept(*side);
        }
        match step {
            Step::Send(side, all) => {
                silent(&world).map_err(told)?;
                if !world.peers.contains_key(side) {
                    return Err(told(format!("{side:?} can't send: there is no such connection")));
                }
                let bytes = pick(all, alternative);
                let (first, second) = match cut {
                    Cut::At { step, at } if step == n => bytes.split_at(at),
                    _ => (bytes, &[][..]),
                };
                if cut == Cut::Bytes {
                    bytes.iter().for_each(|b| world.send(*side, std::slice::from_ref(b)));
                } else {
                    world.send(*side, first);
                    world.send(*side, second);
                }
            }
            Step::Receive(side, atoms) => {
                let got =
                    world.peers.get_mut(side).map(|p| std::mem::take(&mut p.received)).unwrap_or_default();
                match matched(atoms, &got, exact) {
                    Some(len) if len == got.len() => {}
                    // The next steps may tell of the rest.
                    Some(len) => world.peers.get_mut(side).expect("it received").received.extend(&got[len..]),
                    None => return Err(told(differs(*side, atoms, &got))),
                }
            }
            Step::ReceiveAtMost(side, atoms) => {
                let got =
                    world.peers.get_mut(side).map(|p| std::mem::take(&mut p.received)).unwrap_or_default();
                if !begins(atoms, &got) {
                    return Err(told(differs(*side, atoms, &got)));
                }
            }
            Step::End(side) | Step::Reset(side) => {
                if let Step::End(_) = step {
                    world.end(*side)
                } else {
                    world.reset(*side)
                }
            }
            Step::Refuse => world.refuse_next = true,
            Step::Wait(ms) => {
                silent(&world).map_err(told)?;
                world.wait(Duration::from_millis(*ms));
            }
            Step::Closed(side) => closed(&mut world, *side).map_err(told)?,
            Step::Cut(side) => match world.peers.get(side) {
                Some(p) if p.cut => {}
                _ => return Err(told(format!("{side:?} was to be cut by a reset"))),
            },
            Step::Shut(side) => match world.peers.get(side) {
                Some(p) if p.shut && !p.closed => {}
                _ => return Err(told(format!("{side:?} was to be half closed"))),
            },
            Step::Open(side) => match world.peers.get(side) {
                Some(p) if !p.shut && !p.closed => {}
                _ => return Err(told(format!("{side:?} was to stay open"))),
            },
            Step::Connections(n) => {
                if world.connections != *n {
                    return Err(told(format!("{} connections to backends, not {n}", world.connections)));
                }
            }
            Step::BackendsClosed => {
                for side in backends(&world) {
                    closed(&mut world, side).map_err(told)?;
                }
            }
        }
    }
    silent(&world)?;
    nobody_else_closed(case, &world)?;
    probe(&mut world).map_err(|e| format!("the next request: {e}"))?;
    everything_ends(&mut world)
}

/// Nobody has received anything that the case does not tell of.
fn silent(world: &World) -> Result<(), String> {
    match world.peers.iter().find(|(_, p)| !p.received.is_empty()) {
        Some((side, peer)) => Err(surplus(*side, &peer.received)),
        None => Ok(()),
    }
}

/// Closed at once, or after our half of it was closed and the peer did its part.
fn closed(world: &mut World, side: Side) -> Result<(), String> {
    if world.peers.get(&side).is_some_and(|p| p.shut && !p.closed) {
        world.end(side);
    }
    match world.peers.get(&side) {
        Some(p) if p.closed && (!p.cut || matches!(side, Side::Backend(_))) => Ok(()),
        Some(p) if p.cut => Err(format!("{side:?} was to be closed, not cut by a reset")),
        Some(_) => Err(format!("{side:?} was to be closed")),
        None => Err(format!("{side:?} was never opened")),
    }
}

/// What the case does not say was closed is open.
fn nobody_else_closed(case: &Case, world: &World) -> Result<(), String> {
    for (side, peer) in &world.peers {
        let gone = |s: &Step| match s {
            Step::Closed(x) | Step::Cut(x) | Step::Shut(x) | Step::Reset(x) => x == side,
            Step::BackendsClosed => matches!(side, Side::Backend(_)),
            _ => false,
        };
        if (peer.closed || peer.shut) && !case.steps.iter().any(gone) {
            return Err(format!("{side:?} was closed, and nobody told of it"));
        }
    }
    Ok(())
}

fn backends(world: &World) -> Vec<Side> {
    world.peers.keys().copied().filter(|s| matches!(s, Side::Backend(_))).collect()
}

/// Whatever happened before, the next request arrives whole and alone and its answer too: on the same
/// connections where the case left them open, on new ones where it did not.
fn probe(world: &mut World) -> Result<(), String> {
    let open = |world: &World, side: &Side| world.peers.get(side).is_some_and(|p| !p.closed && !p.shut);
    let mut client = Side::Client(1);
    if !open(world, &client) {
        client = Side::Client(99);
        world.accept(client);
    }
    let idle: Vec<Side> = backends(world).into_iter().filter(|s| open(world, s)).collect();
    world.send(client, b"GET /next HTTP/1.1\r\nHost: next.test\r\n\r\n");
    let backend = match idle.iter().copied().find(|s| !world.peers[s].received.is_empty()) {
        Some(side) => side,
        None if idle.is_empty() && world.connections > 0 => Side::Backend(world.connections),
        None => return Err(format!("none of {idle:?} was used for it")),
    };
    let head = crate::format::parse(
        "probe",
        "case probe\nB< GET /next HTTP/1.1\\r\\n\nB< Host: next.test\\r\\n\nB< {added next.test}\nB< \\r\\n\n",
    );
    let Some(Step::Receive(_, atoms)) = head.first().and_then(|c| c.steps.first()) else {
        unreachable!("written above")
    };
    let got = world.peers.get_mut(&backend).map(|p| std::mem::take(&mut p.received)).unwrap_or_default();
    if matched(atoms, &got, true) != Some(got.len()) {
        return Err(differs(backend, atoms, &got));
    }
    let response = format!("HTTP/1.1 200 OK\r\nDate: {DATE}\r\nContent-Length: 4\r\n\r\nnext");
    world.send(backend, response.as_bytes());
    let got = world.peers.get_mut(&client).map(|p| std::mem::take(&mut p.received)).unwrap_or_default();
    if got != response.as_bytes() {
        return Err(differs(client, &[Atom::Bytes(response.into_bytes())], &got));
    }
    silent(world)
}

/// Everybody goes home; then nothing is left.
fn everything_ends(world: &mut World) -> Result<(), String> {
    let sides: Vec<Side> = world.peers.keys().copied().collect();
    for side in sides.iter().rev() {
        world.end(*side);
    }
    for side in sides {
        if !world.peers[&side].closed {
            return Err(format!("{side:?} is still there after everybody went home"));
        }
    }
    silent(world)?;
    let left = world.counts();
    if left != Counts::default() {
        return Err(format!("something is left after everybody went home: {left:?}"));
    }
    if world.exchanges() == 0 {
        return Err("no exchange was told to the observer".into());
    }
    Ok(())
}

/// How many bytes of `got` the atoms are, if it begins with them.
pub(crate) fn matched(atoms: &[Atom], got: &[u8], exact: bool) -> Option<usize> {
    let mut at = 0;
    for atom in atoms {
        at += match atom {
            Atom::Bytes(b) => got[at..].starts_with(b).then_some(b.len())?,
            Atom::Id => id_len(&got[at..])?,
            Atom::Chunks(data) if exact => {
                let one = [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat();
                got[at..].starts_with(&one).then_some(one.len())?
            }
            Atom::Chunks(data) => chunks_len(data, &got[at..]).0?,
        };
    }
    Some(at)
}

/// Whether `got` is a beginning of the atoms.
pub(crate) fn begins(atoms: &[Atom], mut got: &[u8]) -> bool {
    for atom in atoms {
        let len = match atom {
            Atom::Bytes(b) if b.len() > got.len() => return b.starts_with(got),
            Atom::Bytes(b) => got.starts_with(b).then_some(b.len()),
            Atom::Id if got.iter().all(|&b| is_id(b)) => return true,
            Atom::Id => id_len(got),
            Atom::Chunks(data) => match chunks_len(data, got) {
                (None, all_good) => return all_good,
                (len, _) => len,
            },
        };
        match len {
            Some(len) => got = &got[len..],
            None => return false,
        }
    }
    got.is_empty()
}

fn is_id(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'-'
}

fn id_len(got: &[u8]) -> Option<usize> {
    let len = got.iter().take_while(|&&b| is_id(b)).count();
    (8..=64).contains(&len).then_some(len)
}

/// How many bytes the chunks are that hold exactly `data`; else whether all that is there is good so far.
fn chunks_len(data: &[u8], got: &[u8]) -> (Option<usize>, bool) {
    let (mut at, mut left) = (0, data);
    while !left.is_empty() {
        let Some(end) = got[at..].windows(2).position(|w| w == b"\r\n") else {
            return (None, got[at..].iter().all(|b| b.is_ascii_hexdigit() || *b == b'\r'));
        };
        let digits =
            std::str::from_utf8(&got[at..at + end]).ok().filter(|s| s.bytes().all(|b| b.is_ascii_hexdigit()));
        let size = digits.and_then(|s| usize::from_str_radix(s, 16).ok());
        let Some(size) = size.filter(|n| (1..=left.len()).contains(n)) else { return (None, false) };
        at += end + 2;
        let here = size.min(got.len() - at);
        if got[at..at + here] != left[..here] {
            return (None, false);
        }
        at += here;
        let rest = &got[at..];
        if rest.len() < 2 {
            return (None, b"\r\n".starts_with(rest));
        }
        if !rest.starts_with(b"\r\n") {
            return (None, false);
        }
        (at, left) = (at + 2, &left[size..]);
    }
    (Some(at), true)
}

fn surplus(side: Side, got: &[u8]) -> String {
    format!("{side:?} received what nobody told of:\n{}", indented(&visible(got)))
}

fn differs(side: Side, atoms: &[Atom], got: &[u8]) -> String {
    let mut expected = String::new();
    for atom in atoms {
        match atom {
            Atom::Bytes(b) => expected += &visible(b),
            Atom::Id => expected += "{id}",
            Atom::Chunks(b) => write!(expected, "{{chunks {}}}", visible(b)).expect("memory"),
        }
    }
    format!("{side:?} expected\n{}    and received\n{}", indented(&expected), indented(&visible(got)))
}

/// Bytes as the corpus writes them.
fn visible(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(2000)];
    let text =
        cut.escape_ascii().to_string().replace("\\n", "\\n\n").replace("\\'", "'").replace("\\\"", "\"");
    if cut.len() < bytes.len() { text + " ..." } else { text }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("      {line}\n")).collect()
}
