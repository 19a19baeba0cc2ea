//! A daemon that runs gets other configurations: what changes, what goes on, and what a bad file does.
//!
//! A test is a function of the driver; [`on_each_driver`] makes two tests of it, one for each driver.

/// Test functions for both drivers, in the modules `mio` and `smol`, out of functions that take the driver's
/// name.
macro_rules! on_each_driver {
    ($($test:ident),+ $(,)?) => {
        mod mio {
            $(#[test] fn $test() { super::$test("mio"); })+
        }
        mod smol {
            $(#[test] fn $test() { super::$test("smol"); })+
        }
    };
}

#[path = "support/address.rs"]
mod address;
#[path = "tls/authority.rs"]
#[allow(dead_code, reason = "tls.rs uses the rest")]
mod authority;
#[path = "reload/changes.rs"]
mod changes;
#[path = "support/client.rs"]
#[allow(dead_code, reason = "faults.rs uses the rest")]
mod client;
#[path = "support/daemon.rs"]
#[allow(dead_code, reason = "process.rs uses the rest")]
mod daemon;
#[path = "support/scripted_backend.rs"]
#[allow(dead_code, reason = "faults.rs uses the rest")]
mod scripted_backend;
#[path = "reload/site.rs"]
mod site;
#[path = "reload/under_load.rs"]
mod under_load;
