//! Certificates that are obtained by themselves: what follows each outcome, and simulated years.

#[path = "acme/authority.rs"]
mod authority;
#[path = "acme/bench.rs"]
mod bench;
#[path = "acme/status.rs"]
mod status;
#[path = "acme/steps.rs"]
mod steps;
#[path = "acme/years.rs"]
mod years;
