//! `IpAllow` and `IpDeny`: clients from several addresses of the loopback, also behind a trusted proxy.

use std::net::{IpAddr, SocketAddr};

use crate::client::{Client, connect_from};
use crate::proxy::{config, start};
use crate::scripted_backend::Backend;

on_each_driver!(clients_are_let_in_by_their_addresses);

const FILTERS: &str = "[backend_pools.middlewares.IpDeny]\nranges = [\"127.0.0.66\", \"203.0.113.0/24\"]\n\
                       [backend_pools.middlewares.IpAllow]\nranges = [\"127.0.0.64/26\", \"2001:db8::/32\"]\n";

fn status(from: &str, to: SocketAddr, fields: &str) -> u16 {
    let from: IpAddr = from.parse().expect("an address");
    let mut client = Client::over(connect_from(from, to));
    client.send(format!("GET / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n")).expect("sent");
    client.response(false).expect("a response").status
}

fn clients_are_let_in_by_their_addresses(driver: &str) {
    let backend = Backend::good("in");
    let (daemon, address) =
        start(&config(driver, "trusted_proxies = [\"127.0.0.3\"]", backend.address, FILTERS));
    for (from, fields, expected) in [
        ("127.0.0.65", "", 200),
        ("127.0.0.66", "", 403),
        ("127.0.0.128", "", 403),
        ("127.0.0.2", "X-Forwarded-For: 127.0.0.65\r\n", 403),
        ("127.0.0.3", "X-Forwarded-For: 127.0.0.65\r\n", 200),
        ("127.0.0.3", "X-Forwarded-For: 2001:db8::7\r\n", 200),
        ("127.0.0.3", "X-Forwarded-For: 127.0.0.65, 203.0.113.9\r\n", 403),
        ("127.0.0.3", "", 403),
    ] {
        assert_eq!(status(from, address, fields), expected, "{from} {fields}");
    }
    daemon.stop();
}
