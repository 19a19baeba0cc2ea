//! A daemon that runs gets other configurations: what changes, what goes on, and what a bad file does.
//!
//! A test is a function of the driver; [`on_each_driver!`] makes two tests of it, one for each driver.

#[path = "support/on_each_driver.rs"]
#[macro_use]
mod on_each_driver;

#[path = "reload/access_log.rs"]
mod access_log;
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
#[path = "support/nginx.rs"]
#[allow(dead_code, reason = "peers.rs uses the rest")]
mod nginx;
#[path = "support/scripted_backend.rs"]
#[allow(dead_code, reason = "faults.rs uses the rest")]
mod scripted_backend;
#[path = "reload/site.rs"]
mod site;
#[path = "reload/under_load.rs"]
mod under_load;
#[path = "reload/watching.rs"]
mod watching;
