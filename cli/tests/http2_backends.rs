//! Backends that speak HTTP/2, with real peers: nginx, HAProxy and nghttpd by prior knowledge and over TLS,
//! h2load and curl as clients. If a peer is not installed its tests fail with the name of its Debian package.
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
#[path = "http2_backends/content.rs"]
mod content;
#[path = "support/daemon.rs"]
#[allow(dead_code, reason = "process.rs uses the rest")]
mod daemon;
#[path = "support/nginx.rs"]
#[allow(dead_code, reason = "peers.rs uses the rest")]
mod nginx;
#[path = "http2_backends/outages.rs"]
mod outages;
#[path = "tls/proxy.rs"]
#[allow(dead_code, reason = "tls.rs uses the rest")]
mod proxy;
#[path = "http2_backends/servers.rs"]
#[allow(dead_code, reason = "websockets.rs uses the rest")]
mod servers;
