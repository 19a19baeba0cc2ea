//! Sockets that listened before this process did: those of a service manager, or of the process that this one
//! takes the place of.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use ruststrom_core::ListenerId;
use ruststrom_core::config::{Listener, ListenerKind};
use socket2::{SockRef, Socket, Type};

use crate::listen::{BoundListener, takes_both};

/// A socket that listened before this process did.
#[derive(Debug)]
pub struct Inherited {
    /// What arrives there, if whoever had it before was a process of ours; else it is for any kind.
    pub kind: Option<ListenerKind>,
    /// Where it listens.
    pub address: SocketAddr,
    /// The socket itself.
    pub socket: TcpListener,
}

impl Inherited {
    /// Looks at a socket.
    ///
    /// # Errors
    /// If it is none that listens for TCP connections.
    pub fn new(kind: Option<ListenerKind>, socket: OwnedFd) -> io::Result<Self> {
        let socket = Socket::from(socket);
        let address = socket.local_addr()?.as_socket();
        let address = address.filter(|_| socket.r#type().is_ok_and(|kind| kind == Type::STREAM));
        let address = address.filter(|_| socket.is_listener().unwrap_or(false));
        let address =
            address.ok_or_else(|| io::Error::other("it is no socket that listens for TCP connections"))?;
        // As of one that we have bound ourselves.
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        Ok(Self { kind, address, socket: socket.into() })
    }

    /// Whether it is what a listener would bind.
    fn is_for(&self, listener: &Listener, all: &[Listener]) -> bool {
        let same_address = match self.kind {
            // Nobody else was given the port that was chosen then.
            Some(_) if listener.address.port() == 0 => {
                listener.address.ip() == self.address.ip() && !all.iter().any(|l| l.address == self.address)
            }
            _ => listener.address == self.address,
        };
        let same_kind = self.kind.is_none_or(|kind| kind == listener.kind);
        // What somebody else has made is taken as it is.
        let any = self.kind.is_none() || !self.address.is_ipv6() || !self.address.ip().is_unspecified();
        same_address && same_kind && (any || self.is_dual() == takes_both(listener, all))
    }

    fn is_dual(&self) -> bool {
        self.address.is_ipv6() && SockRef::from(&self.socket).only_v6().is_ok_and(|only| !only)
    }
}

/// The listeners of a configuration that were open before; what is not used stays in `inherited`. Each has
/// all sockets of its address: nobody who waits in the queue of one of them may be left there. If there are
/// fewer than `shards`, workers share some: a new one beside them might not be allowed, and would take
/// clients at once.
///
/// # Errors
/// If no descriptors are left.
pub fn take_over(
    listeners: &[Listener],
    inherited: &mut Vec<Inherited>,
    shards: u16,
) -> io::Result<Vec<BoundListener>> {
    let mut taken = Vec::new();
    for (place, l) in listeners.iter().enumerate() {
        let Some(first) = inherited.iter().find(|i| i.is_for(l, listeners)) else { continue };
        let address = first.address;
        let (ours, others) = std::mem::take(inherited)
            .into_iter()
            .partition(|i| i.address == address && i.is_for(l, listeners));
        *inherited = others;
        let mut sockets: Vec<TcpListener> = Vec::new();
        let mut seen = Vec::new();
        for Inherited { socket, .. } in ours {
            // Workers that share a socket lend it several times.
            let of = rustix::fs::fstat(&socket)?.st_ino;
            if !seen.contains(&of) {
                seen.push(of);
                sockets.push(socket);
            }
        }
        for nth in sockets.len()..usize::from(shards) {
            sockets.push(sockets[nth % seen.len()].try_clone()?);
        }
        let dual = takes_both(l, listeners);
        taken.push(BoundListener { id: ListenerId(place as u16), address, kind: l.kind, dual, sockets });
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::bind_all;
    use std::net::TcpStream;

    fn listener(address: &str) -> Listener {
        let address = address.parse().expect("an address");
        Listener { name: "test".into(), address, kind: ListenerKind::Http, explicit: true }
    }

    fn inherited(kind: Option<ListenerKind>, address: &str, sockets: u16) -> Vec<Inherited> {
        let (bound, _) = bind_all(&[listener(address)], sockets).expect("free");
        let sockets = bound.into_iter().flat_map(|b| b.sockets);
        sockets.map(|socket| Inherited::new(kind, socket.into()).expect("it listens")).collect()
    }

    #[test]
    fn every_socket_of_an_address_is_taken_and_shared_if_there_are_few() {
        for (sockets, workers, taken) in [(1, 1, 1), (1, 3, 3), (2, 3, 3), (3, 2, 3)] {
            let mut all = inherited(None, "127.0.0.1:0", sockets);
            let address = all[0].address;
            // One that was lent twice is one.
            let again = all[0].socket.try_clone().expect("a descriptor");
            all.push(Inherited::new(None, again.into()).expect("it listens"));
            let bound = take_over(&[listener(&address.to_string())], &mut all, workers).expect("descriptors");
            assert!(all.is_empty());
            assert_eq!((bound.len(), bound[0].sockets.len(), bound[0].address), (1, taken, address));
            // Whoever connects is accepted by some socket, whichever the kernel has chosen.
            for _ in 0..20 {
                let client = TcpStream::connect(address).expect("listening");
                let from = client.local_addr().expect("connected");
                let accepted = (0..200).find_map(|_| {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                    bound[0].sockets.iter().find_map(|s| s.accept().ok())
                });
                assert_eq!(accepted.expect("accepted").1, from);
            }
        }
    }

    #[test]
    fn sockets_of_other_addresses_are_left() {
        use ListenerKind::{Admin, Http};
        let own = |kind| inherited(kind, "127.0.0.1:0", 1);
        for (kind, configured, used) in [
            (None, "same", true),
            (Some(Http), "same", true),
            (Some(Admin), "same", false),
            // Only a process of ours had been asked for any port.
            (Some(Http), "127.0.0.1:0", true),
            (None, "127.0.0.1:0", false),
            (Some(Http), "127.0.0.2:0", false),
            (None, "127.0.0.1:1", false),
        ] {
            let mut all = own(kind);
            let same = all[0].address.to_string();
            let configured = if configured == "same" { &same } else { configured };
            let bound = take_over(&[listener(configured)], &mut all, 1).expect("descriptors");
            assert_eq!((bound.len(), all.len()), if used { (1, 0) } else { (0, 1) }, "{kind:?} {configured}");
        }
        // Another listener is configured with the port that was chosen for this one.
        let mut all = own(Some(Http));
        let chosen = all[0].address.to_string();
        let bound = take_over(&[listener("127.0.0.1:0"), listener(&chosen)], &mut all, 1);
        assert_eq!(bound.expect("descriptors").iter().map(|b| b.id.0).collect::<Vec<_>>(), [1]);
        // One for IPv6 only does not become one for both.
        for (beside, used) in [("127.0.0.1:1", true), ("v4", false)] {
            let mut all = inherited(Some(Http), "[::]:0", 1);
            let port = all[0].address.port();
            let beside = if beside == "v4" { format!("0.0.0.0:{port}") } else { beside.into() };
            let config = [listener(&format!("[::]:{port}")), listener(&beside)];
            assert_eq!(take_over(&config, &mut all, 1).expect("descriptors").len(), usize::from(used));
        }
    }

    #[test]
    fn what_does_not_listen_is_refused() {
        let connected = TcpStream::connect(inherited(None, "127.0.0.1:0", 1)[0].address);
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("free");
        let (unix, _) = std::os::unix::net::UnixStream::pair().expect("sockets");
        let file = std::fs::File::open("/dev/null").expect("it is there");
        let mut refused: Vec<OwnedFd> = vec![udp.into(), unix.into(), file.into()];
        refused.extend(connected.ok().map(OwnedFd::from));
        assert!(refused.len() >= 3);
        for fd in refused {
            assert!(Inherited::new(None, fd).is_err());
        }
    }
}
