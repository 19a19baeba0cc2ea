//! Many exchanges over one connection: what ends, stalls or waits on one stream concerns no other. Played
//! over a toy protocol, so that it holds for any wire of many streams.

#[path = "multiplexed/cases.rs"]
mod cases;
mod toy_wire;
mod two_wires;

use two_wires::Speaks;

/// What clients and backends speak where both have many streams.
const BOTH: (Speaks, Speaks) = (Speaks::Toy, Speaks::Toy);
