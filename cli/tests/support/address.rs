//! Addresses for others: programs that are told where to listen, and places where nobody may.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU8, Ordering};

/// A free port on a loopback address of its own. On 127.0.0.1 it could be taken again before its user binds
/// it, by any listener or client of any test: nobody else binds to this address, and clients come from
/// 127.0.0.1.
pub(crate) fn lone() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let nth = NEXT.fetch_add(1, Ordering::SeqCst);
    assert!(nth < 255, "127.255.255.255 is no address to listen on");
    let [.., high, low] = std::process::id().to_be_bytes();
    let address = Ipv4Addr::new(127, nth, high, low);
    TcpListener::bind((address, 0)).expect("a free port").local_addr().expect("bound")
}
