//! Plays a case in the [`World`], with its bytes split in every way, and reports the first difference.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use ruststrom_core::Config;
use ruststrom_core::proxy::Counts;

use crate::format::{Atom, Case, DATE, Side, Step};
use crate::world::World;

/// How the sent bytes of a case are split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Split {
    /// Each step in one piece.
    Whole,
    /// Byte by byte, in both directions.
    Bytes,
    /// Step `step` in two pieces, the first of `at` bytes.
    At {
        /// Index of the step in the case.
        step: usize,
        /// Length of the first piece, 1 or more.
        at: usize,
    },
}

/// Plays a case with every split and every choice of its alternatives; the number of runs. Each must have the
/// same result.
pub(crate) fn play_all(case: &Case, config: &Arc<Config>) -> Result<u64, String> {
    let mut runs = 0;
    for alternative in 0..alternatives(case) {
        let mut run = |split| {
            runs += 1;
            play(case, config, alternative, split).map_err(|e| {
                format!("{} ({}) alternative {}, {split:?}: {e}", case.name, case.place, alternative + 1)
            })
        };
        run(Split::Whole)?;
        if case.uncut {
            continue;
        }
        run(Split::Bytes)?;
        for (step, what) in case.steps.iter().enumerate() {
            if let Step::Send(_, all) = what {
                for at in 1..pick(all, alternative).len() {
                    run(Split::At { step, at })?;
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

fn play(case: &Case, config: &Arc<Config>, alternative: usize, split: Split) -> Result<(), String> {
    let exact = split == Split::Whole;
    let mut world = World::new(config, if split == Split::Bytes { 1 } else { usize::MAX });
    for (n, step) in case.steps.iter().enumerate() {
        let at_step = |e: String| format!("step {}: {e}", n + 1);
        // A client connects with its first step.
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
                silent(&world).map_err(at_step)?;
                if !world.peers.contains_key(side) {
                    return Err(at_step(format!("{side:?} cannot send: there is no such connection")));
                }
                let bytes = pick(all, alternative);
                let (first, second) = match split {
                    Split::At { step, at } if step == n => bytes.split_at(at),
                    _ => (bytes, &[][..]),
                };
                if split == Split::Bytes {
                    bytes.iter().for_each(|b| world.send(*side, std::slice::from_ref(b)));
                } else {
                    world.send(*side, first);
                    world.send(*side, second);
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
                silent(&world).map_err(at_step)?;
                world.wait(Duration::from_millis(*ms));
            }
            expectation => expect(&mut world, expectation, exact).map_err(at_step)?,
        }
    }
    silent(&world)?;
    nothing_else_closed(case, &world)?;
    probe(&mut world).map_err(|e| format!("the next request: {e}"))?;
    everything_ends(&mut world)
}

/// Checks a step that expects something.
fn expect(world: &mut World, step: &Step, exact: bool) -> Result<(), String> {
    match step {
        Step::Receive(side, atoms) => {
            let got = world.peers.get_mut(side).map(|p| std::mem::take(&mut p.received)).unwrap_or_default();
            match matched(atoms, &got, exact) {
                Some(len) if len == got.len() => {}
                // The next steps may expect the rest.
                Some(len) => world.peers.get_mut(side).expect("it received").received.extend(&got[len..]),
                None => return Err(differs(*side, atoms, &got)),
            }
        }
        Step::ReceiveAtMost(side, atoms) => {
            let got = world.peers.get_mut(side).map(|p| std::mem::take(&mut p.received)).unwrap_or_default();
            if !is_prefix(atoms, &got) {
                return Err(differs(*side, atoms, &got));
            }
        }
        Step::Closed(side) => closed(world, *side)?,
        Step::Cut(side) => match world.peers.get(side) {
            Some(p) if p.reset => {}
            _ => return Err(format!("{side:?} should have been reset")),
        },
        Step::Shut(side) => match world.peers.get(side) {
            Some(p) if p.shut && !p.closed => {}
            _ => return Err(format!("{side:?} should have been half-closed")),
        },
        Step::Open(side) => match world.peers.get(side) {
            Some(p) if !p.shut && !p.closed => {}
            _ => return Err(format!("{side:?} should have stayed open")),
        },
        Step::Connections(n) => {
            if world.connections != *n {
                return Err(format!("{} connections to backends, not {n}", world.connections));
            }
        }
        Step::BackendsClosed => {
            for side in backends(world) {
                closed(world, side)?;
            }
        }
        other => unreachable!("{other:?} expects nothing"),
    }
    Ok(())
}

/// No peer has received bytes that the case does not expect.
fn silent(world: &World) -> Result<(), String> {
    match world.peers.iter().find(|(_, p)| !p.received.is_empty()) {
        Some((side, peer)) => Err(surplus(*side, &peer.received)),
        None => Ok(()),
    }
}

/// The connection is closed, or half-closed by the proxy and closed once the peer shuts down its direction.
fn closed(world: &mut World, side: Side) -> Result<(), String> {
    if world.peers.get(&side).is_some_and(|p| p.shut && !p.closed) {
        world.end(side);
    }
    match world.peers.get(&side) {
        Some(p) if p.closed && (!p.reset || matches!(side, Side::Backend(_))) => Ok(()),
        Some(p) if p.reset => Err(format!("{side:?} should have been closed, not reset")),
        Some(_) => Err(format!("{side:?} should have been closed")),
        None => Err(format!("{side:?} was never opened")),
    }
}

/// Connections that the case does not close are open.
fn nothing_else_closed(case: &Case, world: &World) -> Result<(), String> {
    for (side, peer) in &world.peers {
        let gone = |s: &Step| match s {
            Step::Closed(x) | Step::Cut(x) | Step::Shut(x) | Step::Reset(x) => x == side,
            Step::BackendsClosed => matches!(side, Side::Backend(_)),
            _ => false,
        };
        if (peer.closed || peer.shut) && !case.steps.iter().any(gone) {
            return Err(format!("{side:?} was closed, which the case does not expect"));
        }
    }
    Ok(())
}

fn backends(world: &World) -> Vec<Side> {
    world.peers.keys().copied().filter(|s| matches!(s, Side::Backend(_))).collect()
}

/// After the case another request and its response are forwarded completely: on the same connections if the
/// case left them open, else on new ones.
fn probe(world: &mut World) -> Result<(), String> {
    let open = |world: &World, side: &Side| world.peers.get(side).is_some_and(|p| !p.closed && !p.shut);
    let mut client = Side::Client(1);
    if !open(world, &client) {
        client = Side::Client(99);
        world.accept(client);
    }
    let mut idle: Vec<Side> = backends(world).into_iter().filter(|s| open(world, s)).collect();
    // The first backend is asked again.
    idle.retain(|s| !world.peers[s].to_backup);
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

/// After all peers have closed, nothing is left over.
fn everything_ends(world: &mut World) -> Result<(), String> {
    let sides: Vec<Side> = world.peers.keys().copied().collect();
    for side in sides.iter().rev() {
        world.end(*side);
    }
    for side in sides {
        if !world.peers[&side].closed {
            return Err(format!("{side:?} is still open after all peers have closed"));
        }
    }
    silent(world)?;
    let left = world.counts();
    if left != Counts::default() {
        return Err(format!("left over after all peers have closed: {left:?}"));
    }
    if world.exchanges() == 0 {
        return Err("no exchange was recorded".into());
    }
    Ok(())
}

/// The length of the prefix of `got` that matches the atoms, if there is one. `exact`: the input was sent
/// whole.
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

/// Whether `got` is a prefix of the atoms.
pub(crate) fn is_prefix(atoms: &[Atom], mut got: &[u8]) -> bool {
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

/// The length of the chunks that hold exactly `data`; without it, whether all of `got` is valid so far.
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
    format!("{side:?} received unexpected bytes:\n{}", indented(&visible(got)))
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

/// Bytes with the escapes of the corpus.
fn visible(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(2000)];
    let text =
        cut.escape_ascii().to_string().replace("\\n", "\\n\n").replace("\\'", "'").replace("\\\"", "\"");
    if cut.len() < bytes.len() { text + " ..." } else { text }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("      {line}\n")).collect()
}
