//! TLS with real peers: curl, Chromium, `openssl s_client` and Python's `ssl` as clients of the built binary,
//! `openssl s_server`, nginx, HAProxy and Python's `ssl` as its backends; and attacks on its handshakes. If a
//! peer is not installed its tests fail with the name of its Debian package.
//!
//! A test is a function of the driver; [`on_each_driver!`] makes two tests of it, one for each driver.

#[path = "support/on_each_driver.rs"]
#[macro_use]
mod on_each_driver;

#[path = "support/address.rs"]
mod address;
#[path = "tls/attacks.rs"]
mod attacks;
#[path = "tls/authority.rs"]
mod authority;
#[path = "tls/backends.rs"]
mod backends;
#[path = "tls/chromium.rs"]
mod chromium;
#[path = "support/client.rs"]
#[allow(dead_code, reason = "faults.rs uses the rest")]
mod client;
#[path = "tls/client_certificates.rs"]
mod client_certificates;
#[path = "tls/client_hello.rs"]
mod client_hello;
#[path = "tls/curl.rs"]
mod curl;
#[path = "support/daemon.rs"]
#[allow(dead_code, reason = "process.rs uses the rest")]
mod daemon;
#[path = "support/nginx.rs"]
#[allow(dead_code, reason = "peers.rs uses the rest")]
mod nginx;
#[path = "tls/openssl.rs"]
mod openssl;
#[path = "tls/proxies_as_backends.rs"]
mod proxies_as_backends;
#[path = "tls/proxy.rs"]
mod proxy;
#[path = "tls/python.rs"]
mod python;
#[path = "tls/python_backend.rs"]
mod python_backend;
#[path = "support/scripted_backend.rs"]
#[allow(dead_code, reason = "faults.rs uses the rest")]
mod scripted_backend;
#[path = "tls/sessions.rs"]
mod sessions;
#[path = "tls/versions.rs"]
mod versions;
