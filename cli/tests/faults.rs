//! Faults of clients, backends and the machine, against real drivers: clients that are slow, break off or
//! come in large numbers, backends that break every rule, and limits that are reached. Each time the process
//! stays up, all other clients are served, and afterwards no connection, buffer or timer is left over: the
//! core's own counters say so.
//!
//! A test is a function of the driver; [`on_each_driver`] makes two tests of it, one for each driver.

use ruststrom_core::config::Driver;

/// Test functions for both drivers, in the modules `mio` and `smol`, out of functions that take the driver.
macro_rules! on_each_driver {
    ($($test:ident),+ $(,)?) => {
        mod mio {
            $(#[test] fn $test() { super::$test(ruststrom_core::config::Driver::Mio); })+
        }
        mod smol {
            $(#[test] fn $test() { super::$test(ruststrom_core::config::Driver::Smol); })+
        }
    };
}

#[path = "support/address.rs"]
mod address;
#[path = "faults/backends.rs"]
mod backends;
#[path = "support/client.rs"]
#[allow(dead_code, reason = "peers.rs uses the rest")]
mod client;
#[path = "faults/clients.rs"]
mod clients;
#[path = "support/daemon.rs"]
#[allow(dead_code, reason = "peers.rs uses the rest")]
mod daemon;
#[path = "faults/fd_exhaustion.rs"]
mod fd_exhaustion;
#[path = "support/harness.rs"]
#[allow(dead_code, reason = "same_behaviour.rs uses the rest")]
mod harness;
#[path = "faults/limits.rs"]
mod limits;
#[path = "support/scripted_backend.rs"]
#[allow(dead_code, reason = "peers.rs uses the rest")]
mod scripted_backend;
#[path = "faults/timeouts.rs"]
mod timeouts;
#[path = "faults/unix_sockets.rs"]
mod unix_sockets;

/// The driver's name, as the argument `--driver` takes it.
fn driver_name(driver: Driver) -> &'static str {
    match driver {
        Driver::Mio => "mio",
        Driver::Smol => "smol",
    }
}
