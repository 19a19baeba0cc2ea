//! The kernel sockets of one worker by slot, and every call on them: what the drivers have in common.
//!
//! A driver brings what it keeps for each socket (`T`, a file descriptor at least) and registers it with its
//! poller; reading, writing, connecting and closing are done here. System calls are made by rustix: libc's
//! functions are cancellation points, which costs two atomic operations each.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, ipproto, sockopt,
};
use ruststrom_core::{ConnId, Endpoint};

use crate::event::Readiness;
use crate::world::{Received, Sent};

/// Sockets by the slot of their connection.
pub struct SocketTable<T> {
    slots: Vec<Option<Slot<T>>>,
    open: usize,
}

struct Slot<T> {
    socket: T,
    epoch: u32,
    /// Every byte that the peer will ever send has arrived: a short read is not the last one, the end or an
    /// error is behind it and will be no event of its own.
    read_closed: bool,
}

impl<T> Default for SocketTable<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), open: 0 }
    }
}

impl<T: AsFd> SocketTable<T> {
    /// Keeps the socket of a connection, which does not block.
    pub fn insert(&mut self, c: ConnId, socket: T) {
        let at = c.slot as usize;
        if at >= self.slots.len() {
            self.slots.resize_with(at + 1, || None);
        }
        if self.slots[at].replace(Slot { socket, epoch: c.epoch, read_closed: false }).is_none() {
            self.open += 1;
        }
    }

    /// What is kept for a connection; `None` if its id is stale.
    #[inline]
    pub fn get(&self, c: ConnId) -> Option<&T> {
        let slot = self.slots.get(c.slot as usize)?.as_ref().filter(|s| s.epoch == c.epoch)?;
        Some(&slot.socket)
    }

    /// What is kept for a connection; `None` if its id is stale.
    #[inline]
    pub fn get_mut(&mut self, c: ConnId) -> Option<&mut T> {
        self.slot_mut(c).map(|s| &mut s.socket)
    }

    /// Closes nothing yet: the socket is the caller's. `None` if the id is stale.
    pub fn remove(&mut self, c: ConnId) -> Option<T> {
        let slot = self.slots.get_mut(c.slot as usize)?.take_if(|s| s.epoch == c.epoch)?;
        self.open -= 1;
        Some(slot.socket)
    }

    /// How many sockets there are.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open
    }

    /// Closes all sockets.
    pub fn clear(&mut self) {
        self.slots.clear();
        self.open = 0;
    }

    /// The poller has reported this: to be called before the event is handled.
    #[inline]
    pub fn note(&mut self, c: ConnId, r: Readiness) {
        if (r.closed || r.error)
            && let Some(slot) = self.slot_mut(c)
        {
            slot.read_closed = true;
        }
    }

    /// Reads. A short read has drained the socket, unless it is known that no more comes.
    ///
    /// # Errors
    /// As of [`World::recv`](crate::world::World::recv); `NotConnected` if the id is stale.
    #[inline]
    pub fn recv(&mut self, c: ConnId, buf: &mut [u8]) -> io::Result<Received> {
        let slot = self.slot_mut(c).ok_or(io::ErrorKind::NotConnected)?;
        let room = buf.len();
        let bytes = rustix::net::recv(slot.socket.as_fd(), buf, RecvFlags::empty())?.0;
        Ok(Received { bytes, drained: bytes < room && !slot.read_closed })
    }

    /// Whether the end of the stream is all that is left to read.
    ///
    /// # Errors
    /// As of [`SocketTable::recv`].
    pub fn at_end(&self, c: ConnId) -> io::Result<bool> {
        let socket = self.get(c).ok_or(io::ErrorKind::NotConnected)?;
        let (bytes, _) = rustix::net::recv(socket.as_fd(), &mut [0; 1][..], RecvFlags::PEEK)?;
        Ok(bytes == 0)
    }

    /// Writes. The socket would block after a short write.
    ///
    /// # Errors
    /// As of [`World::send`](crate::world::World::send); `NotConnected` if the id is stale.
    #[inline]
    pub fn send(&mut self, c: ConnId, slices: &[IoSlice<'_>]) -> io::Result<Sent> {
        let slot = self.slot_mut(c).ok_or(io::ErrorKind::NotConnected)?;
        let (sent, offered) = match slices {
            [one] => (rustix::net::send(slot.socket.as_fd(), one, SendFlags::NOSIGNAL), one.len()),
            many => {
                let offered = many.iter().map(|s| s.len()).sum();
                (rustix::io::writev(slot.socket.as_fd(), many), offered)
            }
        };
        match sent {
            Ok(bytes) => Ok(Sent { bytes, blocked: bytes < offered }),
            Err(e) => Err(slot.send_failed(e)),
        }
    }

    /// Why an error event came, if the kernel has kept a reason.
    pub fn take_error(&self, c: ConnId) -> Option<io::Error> {
        sockopt::socket_error(self.get(c)?.as_fd()).ok()?.err().map(Into::into)
    }

    /// Shuts the sending half down.
    pub fn shutdown(&self, c: ConnId) {
        if let Some(socket) = self.get(c) {
            // Fails if the peer has gone already; its event says so.
            let _ = rustix::net::shutdown(socket.as_fd(), Shutdown::Write);
        }
    }

    /// Closes the socket, which also takes it out of every poller.
    pub fn close(&mut self, c: ConnId) {
        drop(self.remove(c));
    }

    /// Closes the socket and resets the connection.
    pub fn reset(&mut self, c: ConnId) {
        if let Some(socket) = self.remove(c) {
            // If that fails it is just closed.
            let _ = sockopt::set_socket_linger(socket.as_fd(), Some(Duration::ZERO));
        }
    }

    #[inline]
    fn slot_mut(&mut self, c: ConnId) -> Option<&mut Slot<T>> {
        self.slots.get_mut(c.slot as usize)?.as_mut().filter(|s| s.epoch == c.epoch)
    }
}

impl<T> Slot<T> {
    /// A socket that broke has no more events, but what the peer had sent before can still be read.
    #[cold]
    fn send_failed(&mut self, e: Errno) -> io::Error {
        if !matches!(e, Errno::AGAIN | Errno::INTR) {
            self.read_closed = true;
        }
        e.into()
    }
}

/// A socket that does not block and has begun to connect; one to a Unix socket has connected.
///
/// # Errors
/// If there is no socket left, or connecting failed at once. `WouldBlock`: the queue of a Unix socket's
/// listener is full.
pub fn connect(to: &Endpoint) -> io::Result<OwnedFd> {
    match to {
        Endpoint::Ip(address) => connect_tcp(*address),
        Endpoint::Unix(path) => connect_unix(path),
    }
}

fn connect_unix(path: &str) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // It is done or it has failed: no socket of this kind is left on its way (unix(7)).
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}

fn connect_tcp(to: SocketAddr) -> io::Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    // Not worth a failed connection.
    let _ = sockopt::set_tcp_nodelay(&socket, true);
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(e) => Err(e.into()),
    }
}

/// Takes a connection from a listener; its socket does not block.
///
/// # Errors
/// As of accept(2); `WouldBlock` if nobody waits.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, SocketAddr)> {
    let (socket, peer) =
        rustix::net::acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    let peer = peer.and_then(|p| SocketAddr::try_from(p).ok()).ok_or(io::ErrorKind::ConnectionAborted)?;
    Ok((socket, peer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::{UnixDatagram, UnixListener};

    const C: ConnId = ConnId { slot: 2, epoch: 5 };

    /// A connection's kernel socket in a table, and its peer.
    fn pair() -> (SocketTable<OwnedFd>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let peer = TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
        let (socket, from) = accept(listener.as_fd()).expect("a connection waits");
        assert_eq!(from, peer.local_addr().expect("connected"));
        let mut table = SocketTable::default();
        table.insert(C, socket);
        (table, peer)
    }

    /// Reads once something is there.
    fn recv(table: &mut SocketTable<OwnedFd>, buf: &mut [u8]) -> io::Result<Received> {
        loop {
            match table.recv(C, buf) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                other => return other,
            }
        }
    }

    #[test]
    fn short_reads_drain_until_the_peer_has_closed() {
        let (mut table, mut peer) = pair();
        let mut buf = [0; 4];
        assert_eq!(table.recv(C, &mut buf).expect_err("nothing").kind(), io::ErrorKind::WouldBlock);
        peer.write_all(b"abcdef").expect("sent");
        let first = recv(&mut table, &mut buf).expect("bytes");
        assert_eq!(first, Received { bytes: 4, drained: false });
        let second = recv(&mut table, &mut buf).expect("bytes");
        assert_eq!(second, Received { bytes: 2, drained: true });
        peer.write_all(b"g").expect("sent");
        peer.shutdown(std::net::Shutdown::Write).expect("connected");
        table.note(C, Readiness { readable: true, closed: true, ..Readiness::default() });
        let last = recv(&mut table, &mut buf).expect("a byte");
        assert_eq!(last, Received { bytes: 1, drained: false });
        assert_eq!(recv(&mut table, &mut buf).expect("the end").bytes, 0);
    }

    #[test]
    fn short_writes_block_and_a_broken_socket_is_read_to_its_end() {
        let (mut table, mut peer) = pair();
        let big = vec![b'x'; 64 << 20];
        let sent = table.send(C, &[IoSlice::new(b"head"), IoSlice::new(&big)]).expect("room");
        assert!(sent.blocked && sent.bytes < big.len());
        assert_eq!(table.send(C, &[IoSlice::new(&big)]).expect_err("full").kind(), io::ErrorKind::WouldBlock);
        peer.write_all(b"early").expect("sent");
        // With bytes unread: a reset.
        drop(peer);
        while table.send(C, &[IoSlice::new(b"x")]).is_ok_and(|s| !s.blocked) {}
        let error = loop {
            match table.send(C, &[IoSlice::new(b"x")]) {
                Err(e) if e.kind() != io::ErrorKind::WouldBlock => break e,
                _ => std::thread::yield_now(),
            }
        };
        let broken = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
        assert!(broken.contains(&error.kind()), "{error}");
        let (mut buf, mut reads) = ([0; 64], 0);
        while let Ok(Received { bytes: 1.., drained }) = table.recv(C, &mut buf) {
            assert!(!drained, "what is behind these bytes is no event any more");
            reads += 1;
        }
        assert!(reads <= 1);
    }

    #[test]
    fn stale_ids_reach_no_socket() {
        let (mut table, mut peer) = pair();
        for stale in [ConnId { epoch: 4, ..C }, ConnId { slot: 1, ..C }, ConnId { slot: 9, ..C }] {
            let mut buf = [0; 4];
            assert_eq!(table.recv(stale, &mut buf).expect_err("stale").kind(), io::ErrorKind::NotConnected);
            let sent = table.send(stale, &[IoSlice::new(b"x")]);
            assert_eq!(sent.expect_err("stale").kind(), io::ErrorKind::NotConnected);
            table.close(stale);
            table.reset(stale);
            assert!(table.get(stale).is_none() && table.get_mut(stale).is_none());
        }
        assert_eq!(table.open(), 1);
        table.shutdown(C);
        assert_eq!(peer.read(&mut [0; 4]).expect("the end"), 0);
        table.reset(C);
        assert_eq!(table.open(), 0);
        let read = peer.write_all(b"x").and_then(|()| peer.read(&mut [0; 4]));
        assert!(read.is_err() || read.is_ok_and(|n| n == 0));
    }

    #[test]
    fn connecting_ends_with_a_peer_or_a_reason() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut table = SocketTable::default();
        table.insert(C, connect(&listener.local_addr().expect("bound").into()).expect("begun"));
        listener.accept().expect("a connection");
        assert!(table.take_error(C).is_none());
        let gone = { TcpListener::bind("127.77.3.1:0").expect("a free port").local_addr().expect("bound") };
        let refused = match connect(&gone.into()) {
            Err(e) => e,
            Ok(socket) => {
                table.insert(C, socket);
                std::thread::sleep(Duration::from_millis(20));
                table.take_error(C).expect("refused")
            }
        };
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    /// A folder of this test's own, removed with all in it.
    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("ruststrom-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).expect("a folder");
            Self(path)
        }

        fn at(&self, name: &str) -> Endpoint {
            Endpoint::Unix(self.0.join(name).to_str().expect("text").into())
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_unix_socket_carries_bytes_both_ways() {
        let folder = Folder::new("carries");
        let listener = UnixListener::bind(folder.0.join("a")).expect("a socket");
        let mut table = SocketTable::default();
        table.insert(C, connect(&folder.at("a")).expect("connected"));
        let (mut peer, _) = listener.accept().expect("a connection");
        assert!(table.take_error(C).is_none());
        let mut buf = [0; 16];
        assert_eq!(table.recv(C, &mut buf).expect_err("nothing yet").kind(), io::ErrorKind::WouldBlock);
        let sent = table.send(C, &[IoSlice::new(b"ab"), IoSlice::new(b"c")]).expect("sent");
        assert_eq!(sent, Sent { bytes: 3, blocked: false });
        peer.read_exact(&mut buf[..3]).expect("three bytes");
        assert_eq!(&buf[..3], b"abc");
        peer.write_all(b"hello").expect("written");
        assert_eq!(table.recv(C, &mut buf).expect("read"), Received { bytes: 5, drained: true });
        // More than fits: the call says that it would block.
        let much = vec![b'x'; 4 << 20];
        assert!(table.send(C, &[IoSlice::new(&much)]).expect("a part").blocked);
        drop(peer);
        table.reset(C);
        assert_eq!(table.open(), 0);
    }

    #[test]
    fn why_a_unix_socket_takes_no_connection() {
        let folder = Folder::new("takes-none");
        let errno = |name: &str| connect(&folder.at(name)).expect_err(name).raw_os_error();
        assert_eq!(errno("none"), Some(libc::ENOENT));
        let listener = UnixListener::bind(folder.0.join("gone")).expect("a socket");
        drop(listener);
        assert_eq!(errno("gone"), Some(libc::ECONNREFUSED), "its file outlives its listener");
        std::fs::write(folder.0.join("file"), "").expect("a file");
        assert_eq!(errno("file"), Some(libc::ECONNREFUSED));
        assert_eq!(errno("file/below"), Some(libc::ENOTDIR));
        let _datagrams = UnixDatagram::bind(folder.0.join("datagrams")).expect("a socket");
        assert_eq!(errno("datagrams"), Some(libc::EPROTOTYPE));
        // Nobody accepts: the queue fills up, and the next one fails at once.
        let slow = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).expect("a socket");
        rustix::net::bind(&slow, &SocketAddrUnix::new(folder.0.join("slow")).expect("short")).expect("bound");
        rustix::net::listen(&slow, 1).expect("listens");
        let waiting: Vec<OwnedFd> = (0..8).map_while(|_| connect(&folder.at("slow")).ok()).collect();
        assert!((1..8).contains(&waiting.len()), "{}", waiting.len());
        assert_eq!(errno("slow"), Some(libc::EAGAIN));
        // Once one is accepted there is room again.
        drop(rustix::net::accept(&slow).expect("one waits"));
        connect(&folder.at("slow")).expect("room");
        let longest = Endpoint::Unix(format!("/{}", "a".repeat(106)).into());
        assert_eq!(connect(&longest).expect_err("none").raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn a_socket_costs_twelve_bytes() {
        assert_eq!(size_of::<Option<Slot<OwnedFd>>>(), 12);
    }
}
