//! What the admin listener of a daemon tells: `/metrics`, `/status` and whether it is ready.
//!
//! A test is a function of the driver; [`on_each_driver!`] makes two tests of it, one for each driver.

#[path = "support/on_each_driver.rs"]
#[macro_use]
mod on_each_driver;

#[path = "support/address.rs"]
mod address;
#[path = "tls/authority.rs"]
#[allow(dead_code, reason = "tls.rs uses the rest")]
mod authority;
#[path = "support/client.rs"]
#[allow(dead_code, reason = "faults.rs uses the rest")]
mod client;
#[path = "support/daemon.rs"]
#[allow(dead_code, reason = "process.rs uses the rest")]
mod daemon;
#[path = "metrics/hostile.rs"]
mod hostile;
#[path = "metrics/monitoring.rs"]
mod monitoring;
#[path = "support/nginx.rs"]
#[allow(dead_code, reason = "peers.rs uses the rest")]
mod nginx;
#[path = "metrics/pages.rs"]
mod pages;
#[path = "metrics/prometheus.rs"]
mod prometheus;
#[path = "metrics/requests.rs"]
mod requests;
#[path = "support/scripted_backend.rs"]
#[allow(dead_code, reason = "faults.rs uses the rest")]
mod scripted_backend;
#[path = "metrics/site.rs"]
mod site;
