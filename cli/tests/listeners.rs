//! Pools that are bound to listeners, in the built binary with both drivers: each listener has its own pools,
//! of HTTP/1.1 clients that keep their connections too.

#[path = "support/address.rs"]
mod address;
#[path = "support/client.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod client;
#[path = "support/daemon.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod daemon;
#[path = "support/scripted_backend.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod scripted_backend;

use client::Client;
use daemon::Daemon;
use scripted_backend::Backend;

/// A check of a pool that bears with a busy machine.
const HEALTH: &str = "health_config = { timeout = 5000, slow_threshold = 0 }\n";

#[test]
fn each_listener_has_its_pools() {
    let (site, internal, shared) =
        (Backend::good("site"), Backend::good("internal"), Backend::good("shared"));
    let text = format!(
        "http_address = [\"127.0.0.1:0\", \"[::1]:0\"]\n\
         [[listeners]]\nname = \"internal\"\naddress = [\"127.0.0.1:0\", \"127.0.0.2:0\"]\n\
         [[listeners]]\nname = \"status\"\naddress = \"127.0.0.1:0\"\nkind = \"admin\"\n\
         [[listeners]]\nname = \"unbound\"\naddress = \"127.0.0.1:0\"\n\
         [[backend_pools]]\nlisteners = \"internal\"\nmatcher = \"PathPrefix('/only')\"\n\
         addresses = [\"{}\"]\n{HEALTH}\
         [[backend_pools]]\nlisteners = [\"http\"]\nmatcher = \"PathPrefix('/only')\"\n\
         addresses = [\"{}\"]\n{HEALTH}\
         [[backend_pools]]\nlisteners = [\"http\", \"internal\"]\naddresses = [\"{}\"]\n{HEALTH}",
        internal.address, site.address, shared.address
    );
    for driver in ["mio", "smol"] {
        let daemon = Daemon::start(&text, &["--workers", "2", "--driver", driver]);
        daemon.wait_for("INFO  ready");
        let all: Vec<String> = daemon
            .output()
            .lines()
            .filter_map(|line| Some(line.split_once("listening on ")?.1.to_owned()))
            .collect();
        let of = |name: &str| -> Vec<std::net::SocketAddr> {
            let named = all.iter().filter(|line| line.contains(&format!("({name})")));
            named
                .map(|line| line.split(' ').next().and_then(|a| a.parse().ok()).expect("an address"))
                .collect()
        };
        let (http, internal) = (of("http"), of("internal, http"));
        let (status, unbound) = (of("status, admin"), of("unbound, http"));
        assert_eq!(
            (http.len(), internal.len(), status.len(), unbound.len(), all.len()),
            (2, 2, 1, 1, 6),
            "{all:?}"
        );
        for (addresses, only) in [(http, "site"), (internal, "internal")] {
            for address in addresses {
                let mut client = Client::to(address);
                for (target, body) in [("/only/x", only), ("/", "shared"), ("/only", only)] {
                    let response = client.get(target).expect("a response");
                    assert_eq!((response.status, &*response.text()), (200, body), "{address} {target}");
                }
            }
        }
        let mut client = Client::to(unbound[0]);
        let response = client.get("/").expect("a response");
        assert_eq!(response.status, 404, "no pool takes its requests: {response:?}");
        assert!(response.text().contains("no_route"), "{response:?}");
        drop(client);
        let mut client = Client::to(status[0]);
        assert_eq!(client.get("/readyz").expect("a response").status, 200);
        drop(client);
        daemon.stop();
    }
}
