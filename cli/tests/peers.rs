//! Real peers: nginx as backends; curl, wrk, h2load, Python's `http.client` and `websockets` as clients of
//! the built binary. A peer that is not installed fails the test: it says which Debian package has it.

#[path = "support/address.rs"]
mod address;
#[path = "peers/basics.rs"]
mod basics;
#[path = "support/daemon.rs"]
#[allow(dead_code, reason = "faults.rs uses the rest")]
mod daemon;
#[path = "support/nginx.rs"]
mod nginx;
#[path = "peers/outages.rs"]
mod outages;
#[path = "support/scripted.rs"]
#[allow(dead_code, reason = "faults.rs uses the rest")]
mod scripted;
#[path = "support/talk.rs"]
#[allow(dead_code, reason = "faults.rs uses the rest")]
mod talk;
#[path = "peers/upgrades.rs"]
mod upgrades;
