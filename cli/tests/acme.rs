//! Certificates that are obtained by themselves, by the built binary from a real CA (pebble), which asks for
//! its challenges over real sockets.

#[path = "support/address.rs"]
mod address;
#[path = "support/client.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod client;
#[path = "support/daemon.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod daemon;
#[path = "acme/issuance.rs"]
mod issuance;
#[path = "acme/kills.rs"]
mod kills;
#[path = "acme/mock_ca.rs"]
mod mock_ca;
#[path = "acme/pebble.rs"]
mod pebble;
#[path = "acme/readme.rs"]
mod readme;
#[path = "acme/renewal.rs"]
mod renewal;
#[path = "acme/sharing.rs"]
mod sharing;
#[path = "acme/site.rs"]
mod site;
#[path = "acme/together.rs"]
mod together;
#[path = "acme/trouble.rs"]
mod trouble;
