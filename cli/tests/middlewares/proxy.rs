//! The built binary with a pool that has middlewares.

use std::net::SocketAddr;

use crate::daemon::Daemon;

/// The configuration of a proxy with two workers and one pool without health checks. `top` are further keys
/// of the file, `middlewares` are tables of the pool as README.md writes them.
pub(crate) fn config(driver: &str, top: &str, backend: SocketAddr, middlewares: &str) -> String {
    let http = if top.contains("http_address") { "" } else { "http_address = \"127.0.0.1:0\"\n" };
    format!(
        "{http}metrics_address = false\ndriver = \"{driver}\"\nworkers = 2\naccess_log = {{ format = \"json\" \
         }}\n{top}\n[health_interval]\ncheck_every = 0\n[[backend_pools]]\nname = \"api\"\n\
         addresses = [\"{backend}\"]\n{middlewares}\n"
    )
}

/// Starts it; its address of plain HTTP.
pub(crate) fn start(config: &str) -> (Daemon, SocketAddr) {
    let daemon = Daemon::start(config, &[]);
    let address = daemon.address();
    (daemon, address)
}
