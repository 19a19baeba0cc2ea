//! What goes wrong in the world, done to a real driver: clients that dawdle, break off or come in crowds,
//! backends that do everything a backend must not do, and limits that are reached. Each time the process
//! stays up, everyone else is served, and afterwards nothing is left: the core's own counters say so.

#[path = "support/address.rs"]
mod address;
#[path = "faults/backends.rs"]
mod backends;
#[path = "faults/clients.rs"]
mod clients;
#[path = "faults/crowds.rs"]
mod crowds;
#[path = "support/daemon.rs"]
#[allow(dead_code, reason = "peers.rs uses the rest")]
mod daemon;
#[path = "faults/limits.rs"]
mod limits;
#[path = "faults/quiet.rs"]
mod quiet;
#[path = "support/scripted.rs"]
#[allow(dead_code, reason = "peers.rs uses the rest")]
mod scripted;
#[path = "support/stand.rs"]
#[allow(dead_code, reason = "peers.rs uses the rest")]
mod stand;
#[path = "support/talk.rs"]
#[allow(dead_code, reason = "peers.rs uses the rest")]
mod talk;

/// `faults_smol.rs` is the same for the other one.
const DRIVER: ruststrom_core::config::Driver = ruststrom_core::config::Driver::Mio;

/// Its argument.
fn driver() -> &'static str {
    match DRIVER {
        ruststrom_core::config::Driver::Mio => "mio",
        ruststrom_core::config::Driver::Smol => "smol",
    }
}
