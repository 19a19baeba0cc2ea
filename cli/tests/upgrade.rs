//! USR2: another process takes the place of the one that serves, or does not, and nobody is turned away.
//!
//! A test is a function of the driver; [`on_each_driver!`] makes two tests of it, one for each driver.

#[path = "support/on_each_driver.rs"]
#[macro_use]
mod on_each_driver;

#[path = "support/address.rs"]
mod address;
#[path = "support/client.rs"]
#[allow(dead_code, reason = "faults.rs uses the rest")]
mod client;
#[path = "support/daemon.rs"]
#[allow(dead_code, reason = "process.rs uses the rest")]
mod daemon;
#[path = "upgrade/refused.rs"]
mod refused;
#[path = "support/scripted_backend.rs"]
#[allow(dead_code, reason = "faults.rs uses the rest")]
mod scripted_backend;
#[path = "upgrade/state_transfer.rs"]
mod state_transfer;
#[path = "upgrade/succession.rs"]
mod succession;
#[path = "upgrade/under_load.rs"]
mod under_load;
#[path = "upgrade/without_root.rs"]
mod without_root;
