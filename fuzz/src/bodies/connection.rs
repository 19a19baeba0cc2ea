//! Whole connections through the proxy: every byte of clients and backends is the fuzzer's. What backends
//! receive must be requests that keep the rules, as the second parser has them; every invariant holds after
//! every input, and in the end nothing is left.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ruststrom_core::proxy::Counts;
use ruststrom_core::{Config, config};

use super::input::Input;
use super::received;
use crate::format::{Case, Side, Step};
use crate::wire::World;

fn settings() -> &'static Arc<Config> {
    static CONFIG: OnceLock<Arc<Config>> = OnceLock::new();
    CONFIG.get_or_init(|| {
        let text = "http_address = \"192.0.2.1:80\"\n[health_interval]\ncheck_every = 0\n[[backend_pools]]\naddresses = [\"192.0.2.20:80\"]\n\
                    [limits]\nhead_bytes = 2048\nfields = 32\ntarget_bytes = 512\n";
        let parsed = config::parse(text);
        Arc::new(parsed.config.unwrap_or_else(|| panic!("{}", config::render(&parsed.diagnostics, "fuzz", text))))
    })
}

/// Clients and backend connections that an input can name.
const SIDES: u8 = 4;

pub(super) fn run(data: &[u8]) {
    let mut input = Input(data);
    let take = [usize::MAX, 1, 7, 100][input.below(4)];
    let mut world = World::new(settings(), take);
    // Bytes one at a time are slow: what is long is played in pieces.
    let mut budget = 20_000_usize;
    while !input.is_empty() && budget > 0 {
        let (what, who) = (input.byte(), input.byte() % SIDES + 1);
        let (client, backend) = (Side::Client(who), Side::Backend(who));
        if what % 8 != 3 && what % 2 == 0 && !world.peers.contains_key(&client) {
            world.accept(client);
        }
        match what % 8 {
            0 | 1 => {
                let side = if what % 8 == 0 { client } else { backend };
                let bytes = input.piece();
                budget = budget.saturating_sub(bytes.len() + 1);
                let one_by_one = what & 8 != 0 && bytes.len() < 500;
                for piece in bytes.chunks(if one_by_one { 1 } else { usize::MAX }) {
                    world.send(side, piece);
                }
            }
            2 => world.end(client),
            3 => world.end(backend),
            4 => world.reset(client),
            5 => world.reset(backend),
            6 => world.wait(Duration::from_millis(100 * u64::from(input.byte()))),
            _ => world.refuse_next = true,
        }
        budget = budget.saturating_sub(10);
    }
    for (side, peer) in &world.peers {
        if let Side::Backend(_) = side {
            received::requests(&peer.received);
        }
    }
    everybody_goes(&mut world);
}

/// Whatever was going on: once all peers have gone, and the longest timeout has passed, nothing is left.
pub(super) fn everybody_goes(world: &mut World) {
    world.refuse_next = false;
    let sides: Vec<Side> = world.peers.keys().copied().collect();
    for side in &sides {
        if let Side::Client(_) = side {
            world.reset(*side);
        }
    }
    let counts = world.counts();
    let idle = Counts { backends_idle: counts.backends_idle, timers: counts.timers, ..Counts::default() };
    assert_eq!(counts, idle, "left after all clients have gone");
    for side in &sides {
        world.end(*side);
    }
    world.wait(Duration::from_secs(7200));
    assert_eq!(world.counts(), Counts::default(), "left after all have gone");
}

/// A case of the corpus as an input: the first of each of its alternatives.
#[allow(dead_code, reason = "the replay makes the seeds")]
pub(crate) fn seed(case: &Case) -> Vec<u8> {
    let mut out = vec![0];
    let number = |side: &Side| match side {
        Side::Client(n) | Side::Backend(n) => n - 1,
    };
    let is_backend = |side: &Side| u8::from(matches!(side, Side::Backend(_)));
    for step in &case.steps {
        match step {
            Step::Send(side, all) => {
                out.extend([is_backend(side), number(side)]);
                out.extend((all[0].len() as u16).to_be_bytes());
                out.extend(&all[0]);
            }
            Step::End(side) => out.extend([2 + is_backend(side), number(side)]),
            Step::Reset(side) => out.extend([4 + is_backend(side), number(side)]),
            Step::Wait(ms) => out.extend([6, 0, (ms / 100).min(255) as u8]),
            Step::Refuse => out.extend([7, 0]),
            _ => {}
        }
    }
    out
}
