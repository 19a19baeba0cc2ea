//! Binding listeners: all of them, for all workers, before any worker starts. What cannot be bound becomes
//! one line that says what to do.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use ruststrom_core::ListenerId;
use ruststrom_core::config::{Listener, ListenerKind};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Connections that may wait to be accepted; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;

/// A listener of the configuration with one socket for each worker.
#[derive(Debug)]
pub struct BoundListener {
    /// Its place in the configuration.
    pub id: ListenerId,
    /// The real address: port 0 has become the one the kernel chose.
    pub address: SocketAddr,
    /// What arrives there.
    pub kind: ListenerKind,
    /// An unspecified IPv6 address takes IPv4 too.
    pub dual: bool,
    /// One for each worker, sharing the address by SO_REUSEPORT; of one that was open before, as many as
    /// there were, or more: workers then share some of them.
    pub sockets: Vec<TcpListener>,
}

/// An address that could not be bound.
#[derive(Debug)]
pub struct ListenError {
    /// The address.
    pub address: SocketAddr,
    /// Why it could not be bound.
    pub error: io::Error,
    /// `process 12 (nginx)`, if it is known who holds the port.
    pub holder: Option<String>,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}: ", self.address)?;
        match self.error.kind() {
            io::ErrorKind::AddrInUse => {
                f.write_str("the port is taken")?;
                if let Some(holder) = &self.holder {
                    write!(f, " by {holder}")?;
                }
                f.write_str("; stop what holds it or choose another port")
            }
            io::ErrorKind::PermissionDenied => {
                write!(
                    f,
                    "no permission for a port below 1024; run with CAP_NET_BIND_SERVICE or use a port above 1023"
                )
            }
            io::ErrorKind::AddrNotAvailable => {
                write!(
                    f,
                    "no interface of this machine has that address; use one of its own, 0.0.0.0 or [::]"
                )
            }
            _ if self.error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                write!(
                    f,
                    "this machine has no {}; use an address of the other family",
                    if self.address.is_ipv6() { "IPv6" } else { "IPv4" }
                )
            }
            _ if self.error.raw_os_error() == Some(libc::EMFILE) => {
                write!(f, "too many open files; raise the limit (ulimit -n) or use fewer workers")
            }
            _ => write!(f, "{}", self.error),
        }
    }
}

impl std::error::Error for ListenError {}

/// Binds every listener for `shards` workers. A taken port is an error even if its holder would share it: a
/// second instance of ours would silently get half of the connections. Returns the bound listeners, and an
/// error for each that was left out because the configuration does not name its address.
///
/// # Errors
/// If an address that the configuration names cannot be bound.
pub fn bind_all(
    listeners: &[Listener],
    shards: u16,
) -> Result<(Vec<BoundListener>, Vec<ListenError>), ListenError> {
    bind_others(listeners, &[], shards, &|_| true)
}

/// [`bind_all`] of those listeners of a newer configuration that `wanted` tells by their places. `held` are
/// the addresses that this process listens on: they are shared until the older listeners are closed.
///
/// # Errors
/// If an address that the configuration names cannot be bound.
pub fn bind_others(
    listeners: &[Listener],
    held: &[SocketAddr],
    shards: u16,
    wanted: &dyn Fn(usize) -> bool,
) -> Result<(Vec<BoundListener>, Vec<ListenError>), ListenError> {
    let mut bound = Vec::with_capacity(listeners.len());
    let mut left_out = Vec::new();
    let dual = |l: &Listener| takes_both(l, listeners);
    // All are tried before the first is bound: listeners of our own may overlap, and the narrower one then
    // takes its share.
    let wanted = listeners.iter().enumerate().filter(|(place, _)| wanted(*place));
    let is_held = |l: &Listener| held.iter().any(|held| held.port() == l.address.port());
    let tried = |l: &Listener| if is_held(l) { Ok(()) } else { try_bind(l.address, dual(l)) };
    let tried: Vec<_> = wanted.map(|(place, l)| (place, l, tried(l))).collect();
    for (place, l, tried) in tried {
        match tried.and_then(|()| bind(l.address, dual(l), shards.max(1))) {
            Ok((address, sockets)) => {
                let (id, kind, dual) = (ListenerId(place as u16), l.kind, dual(l));
                bound.push(BoundListener { id, address, kind, dual, sockets })
            }
            Err(error) => {
                let holder =
                    if error.kind() == io::ErrorKind::AddrInUse { holder(l.address.port()) } else { None };
                let e = ListenError { address: l.address, error, holder };
                if l.explicit {
                    return Err(e);
                }
                left_out.push(e);
            }
        }
    }
    Ok((bound, left_out))
}

/// Whether a listener takes IPv4 too, if its address is `[::]`: with `0.0.0.0:80` beside `[::]:80` the second
/// takes IPv6 only, dual stack would clash with the first.
#[must_use]
pub fn takes_both(listener: &Listener, all: &[Listener]) -> bool {
    let v4_too = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), listener.address.port());
    listener.address.port() == 0 || !all.iter().any(|other| other.address == v4_too)
}

/// A plain bind finds even a holder that shares its port. It never listens, so nobody can connect to it.
fn try_bind(address: SocketAddr, dual: bool) -> io::Result<()> {
    if address.port() == 0 { Ok(()) } else { socket(address, dual)?.bind(&SockAddr::from(address)) }
}

fn bind(address: SocketAddr, dual: bool, shards: u16) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    let mut sockets = Vec::with_capacity(usize::from(shards));
    let mut real = address;
    for _ in 0..shards {
        let s = socket(address, dual)?;
        #[cfg(unix)]
        s.set_reuse_port(true)?;
        // Inherited by every accepted connection.
        s.set_tcp_nodelay(true)?;
        s.set_nonblocking(true)?;
        s.bind(&SockAddr::from(real))?;
        s.listen(BACKLOG)?;
        let s = TcpListener::from(s);
        real = s.local_addr()?;
        sockets.push(s);
    }
    Ok((real, sockets))
}

fn socket(address: SocketAddr, dual: bool) -> io::Result<Socket> {
    let s = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if let IpAddr::V6(ip) = address.ip() {
        s.set_only_v6(!(dual && ip.is_unspecified()))?;
    }
    // A restart does not wait for the connections of the run before it to leave TIME_WAIT.
    s.set_reuse_address(true)?;
    Ok(s)
}

/// Who listens on a port: `process 12 (nginx)`. Only for the message, so it knows Linux's `/proc` and what we
/// may read there.
fn holder(port: u16) -> Option<String> {
    let mut inodes = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let Ok(text) = std::fs::read_to_string(table) else { continue };
        for line in text.lines().skip(1) {
            let mut words = line.split_ascii_whitespace();
            // sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
            let (local, state, inode) = (words.nth(1)?, words.nth(1)?, words.nth(5)?);
            let at = local.rsplit(':').next().and_then(|p| u16::from_str_radix(p, 16).ok());
            if at == Some(port) && state == "0A" {
                inodes.push(format!("socket:[{inode}]"));
            }
        }
    }
    if inodes.is_empty() {
        return None;
    }
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let Ok(pid) = process.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(files) = std::fs::read_dir(process.path().join("fd")) else { continue };
        for file in files.flatten() {
            let Ok(target) = std::fs::read_link(file.path()) else { continue };
            if inodes.iter().any(|i| target.as_os_str() == i.as_str()) {
                let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                return Some(format!("process {pid} ({})", name.trim_end()));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    fn listener(address: &str, explicit: bool) -> Listener {
        let kind = if explicit { ListenerKind::Http } else { ListenerKind::Admin };
        Listener { name: "test".into(), address: address.parse().expect("an address"), kind, explicit }
    }

    #[test]
    fn port_zero_is_one_port_for_all_workers() {
        let (bound, left_out) =
            bind_all(&[listener("127.0.0.1:0", true), listener("[::1]:0", true)], 3).expect("free");
        assert!(left_out.is_empty());
        assert_eq!(bound.len(), 2);
        for (place, b) in bound.iter().enumerate() {
            assert_eq!(b.id, ListenerId(place as u16));
            assert_eq!(b.sockets.len(), 3);
            assert_ne!(b.address.port(), 0);
            for s in &b.sockets {
                assert_eq!(s.local_addr().expect("bound"), b.address);
                assert_eq!(s.accept().expect_err("nonblocking").kind(), io::ErrorKind::WouldBlock);
            }
        }
    }

    #[test]
    fn nodelay_is_inherited() {
        let (bound, _) = bind_all(&[listener("127.0.0.1:0", true)], 1).expect("free");
        let _client = TcpStream::connect(bound[0].address).expect("listening");
        let accepted = (0..200).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            bound[0].sockets[0].accept().ok()
        });
        assert!(accepted.expect("accepted").0.nodelay().expect("a socket"));
    }

    #[test]
    fn unspecified_v6_takes_v4_too() {
        let (bound, _) = bind_all(&[listener("[::]:0", true)], 1).expect("free");
        let port = bound[0].address.port();
        TcpStream::connect(("127.0.0.1", port)).expect("dual stack");
        TcpStream::connect(("::1", port)).expect("dual stack");
    }

    #[test]
    fn listeners_of_one_process_may_overlap() {
        // Below the ports that clients get: one of those may be taken at any address. Somebody may listen
        // here too, but not on each.
        let mut ports =
            (0..).map(|n: u32| 20_000 + std::process::id().wrapping_mul(31).wrapping_add(n * 97) % 12_000);
        let mut bind = |pair: [&str; 2]| {
            let port = ports.next().expect("without end");
            bind_all(&pair.map(|host| listener(&format!("{host}:{port}"), true)), 2)
        };
        for pair in
            [["0.0.0.0", "[::]"], ["[::]", "0.0.0.0"], ["0.0.0.0", "127.0.0.1"], ["127.0.0.1", "[::]"]]
        {
            let bound = (0..20)
                .find_map(|_| bind(pair).ok())
                .unwrap_or_else(|| panic!("{pair:?}: {}", bind(pair).expect_err("taken")));
            assert_eq!(bound.0.len(), 2);
        }
    }

    #[test]
    fn a_taken_port_is_an_error_even_if_its_holder_would_share_it() {
        // An address of its own: nobody else takes the port when it is free again.
        let (first, _) = bind_all(&[listener("127.77.0.1:0", true)], 2).expect("free");
        let address = first[0].address.to_string();
        let e = bind_all(&[listener(&address, true)], 1).expect_err("taken").to_string();
        let start = format!("cannot listen on {address}: the port is taken");
        assert!(e.starts_with(&start) && e.ends_with("; stop what holds it or choose another port"), "{e}");
        if std::path::Path::new("/proc/net/tcp").exists() {
            assert!(e.contains(&format!("by process {}", std::process::id())), "{e}");
        }
        let (bound, left_out) =
            bind_all(&[listener("127.0.0.1:0", true), listener(&address, false)], 1).expect("only a warning");
        assert_eq!((bound.len(), left_out.len()), (1, 1));
        drop(first);
        bind_all(&[listener(&address, true)], 1).expect("free again at once");
    }

    #[test]
    fn errors_say_what_to_do() {
        let e = |errno, address: &str| {
            let e = ListenError {
                address: address.parse().expect("an address"),
                error: io::Error::from_raw_os_error(errno),
                holder: None,
            };
            e.to_string()
        };
        assert_eq!(
            e(libc::EACCES, "0.0.0.0:80"),
            "cannot listen on 0.0.0.0:80: no permission for a port below 1024; run with CAP_NET_BIND_SERVICE or use a port above 1023"
        );
        let not_ours =
            bind_all(&[listener("192.0.2.1:0", true)], 1).expect_err("TEST-NET-1 is nobody's").to_string();
        assert_eq!(
            not_ours,
            "cannot listen on 192.0.2.1:0: no interface of this machine has that address; use one of its own, 0.0.0.0 or [::]"
        );
        assert!(e(libc::EMFILE, "0.0.0.0:80").contains("ulimit -n"));
        assert!(e(libc::EAFNOSUPPORT, "[::]:80").contains("has no IPv6"));
    }
}
