//! The built-in middlewares with real peers: curl and raw connections as clients of the built binary, nginx
//! and scripted backends behind it, slapd beside it. If a peer is not installed its tests fail with the name
//! of its Debian package.
//!
//! A test is a function of the driver; [`on_each_driver!`] makes two tests of it, one for each driver.

#[path = "support/on_each_driver.rs"]
#[macro_use]
mod on_each_driver;

#[path = "support/address.rs"]
mod address;
#[path = "middlewares/authentication.rs"]
mod authentication;
#[path = "tls/authority.rs"]
#[allow(dead_code, reason = "tls.rs uses the rest")]
mod authority;
#[path = "middlewares/basic_auth.rs"]
mod basic_auth;
#[path = "support/client.rs"]
#[allow(dead_code, reason = "faults.rs uses the rest")]
mod client;
#[path = "middlewares/compression.rs"]
mod compression;
#[path = "support/daemon.rs"]
#[allow(dead_code, reason = "process.rs uses the rest")]
mod daemon;
#[path = "middlewares/error_pages.rs"]
mod error_pages;
#[path = "middlewares/headers.rs"]
mod headers;
#[path = "middlewares/https_redirector.rs"]
mod https_redirector;
#[path = "middlewares/ip_filter.rs"]
mod ip_filter;
#[path = "middlewares/max_body_size.rs"]
mod max_body_size;
#[path = "support/nginx.rs"]
#[allow(dead_code, reason = "peers.rs uses the rest")]
mod nginx;
#[path = "middlewares/proxy.rs"]
mod proxy;
#[path = "middlewares/rate_limiter.rs"]
mod rate_limiter;
#[path = "middlewares/rewriting.rs"]
mod rewriting;
#[path = "support/scripted_backend.rs"]
#[allow(dead_code, reason = "faults.rs uses the rest")]
mod scripted_backend;
#[path = "middlewares/slapd.rs"]
mod slapd;
