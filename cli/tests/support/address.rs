//! Addresses for programs that take a listening address as an argument, and addresses where nothing listens.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU8, Ordering};

/// A free port on a loopback address that no other test uses. On 127.0.0.1 another listener, or a client's
/// ephemeral port, could take the port before its user binds it; clients connect from 127.0.0.1.
pub(crate) fn reserve() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let nth = NEXT.fetch_add(1, Ordering::SeqCst);
    assert!(nth < 255, "127.255.255.255 is a broadcast address");
    let [.., high, low] = std::process::id().to_be_bytes();
    let address = Ipv4Addr::new(127, nth, high, low);
    TcpListener::bind((address, 0)).expect("a free port").local_addr().expect("bound")
}
