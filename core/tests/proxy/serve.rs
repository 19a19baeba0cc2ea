//! One connection is served as the drivers' pump does it: in rounds of one write and one read each, from
//! where the core lists it, so that bytes move before the core has been heard to the end.

use ruststrom_core::Fault;

use crate::world::{Peer, Sock, World};

/// Rounds of one connection in one turn; then the others come first.
const MAX_ROUNDS: usize = 16;

/// What a driver remembers of a connection.
#[derive(Debug, Default)]
pub(crate) struct Served {
    /// An event said so, and it has not been found drained since.
    readable: bool,
    /// There is room, as far as is known.
    writable: bool,
    /// The core has listed it with something to send, and has not been found without since.
    listed: bool,
    /// To be shut down once all has been sent.
    shutting: bool,
    /// The socket broke: reported once nothing is left to read.
    fault: Option<Fault>,
    /// That has been reported: nothing more is done with it.
    broken: bool,
    /// It found no page to be read into: the core lists it again.
    waits_for_page: bool,
    /// Rounds of that turn.
    rounds: (usize, usize),
    queued: bool,
}

impl World {
    /// A connection has come about: there is room in a new socket.
    pub(crate) fn is_connected(&mut self, sock: Sock) {
        let peer = &mut self.peers[sock.0];
        peer.connected = true;
        peer.served.writable = true;
    }

    /// Tells the driver what the poller would say of a socket, if there is anything new.
    pub(crate) fn ready(&mut self, sock: Sock) -> bool {
        let peer = &mut self.peers[sock.0];
        if !peer.connected || peer.served.broken || peer.closed {
            return false;
        }
        let readable = !peer.served.readable && !peer.ended && (!peer.inbox.is_empty() || peer.ending);
        let writable = !peer.served.writable && peer.room > 0 && peer.served.fault.is_none();
        let broken = peer.breaking.take();
        if !readable && !writable && broken.is_none() {
            return false;
        }
        peer.served.readable |= readable;
        peer.served.writable |= writable;
        if let Some(fault) = broken {
            self.broke(sock, fault);
        }
        self.serve(sock);
        self.obey(self.peers[sock.0].shard);
        true
    }

    /// It had used up its rounds in an earlier turn.
    pub(crate) fn resume(&mut self, sock: Sock) {
        self.peers[sock.0].served.queued = false;
        self.serve(sock);
        self.obey(self.peers[sock.0].shard);
    }

    /// The core has listed it. `send`: it may have something to send.
    pub(crate) fn listed(&mut self, sock: Sock, send: bool) {
        let served = &mut self.peers[sock.0].served;
        served.listed |= send;
        served.waits_for_page = false;
        if served.listed || served.readable || served.shutting || served.fault.is_some() {
            self.serve(sock);
        }
    }

    pub(crate) fn shut_down(&mut self, sock: Sock) {
        let peer = &mut self.peers[sock.0];
        assert!(!peer.shut && !peer.served.shutting, "its direction ends once");
        peer.served.shutting = true;
        self.serve(sock);
    }

    /// Writes and reads as wanted and possible.
    fn serve(&mut self, sock: Sock) {
        loop {
            let turn = self.turn;
            let peer = &mut self.peers[sock.0];
            if !peer.connected || peer.served.broken || peer.closed {
                return;
            }
            let served = &mut peer.served;
            if served.rounds.0 != turn {
                served.rounds = (turn, 0);
            }
            let can_write = served.writable && served.listed;
            if !can_write && !served.readable {
                break;
            }
            if served.rounds.1 == MAX_ROUNDS {
                if !std::mem::replace(&mut served.queued, true) {
                    self.backlog.push_back(sock);
                }
                return;
            }
            served.rounds.1 += 1;
            let wrote = can_write && self.write(sock);
            let read = self.peers[sock.0].served.readable && self.read(sock);
            if !wrote && !read {
                break;
            }
        }
        self.finish_pending(sock);
    }

    /// What had to wait until all had been read, or sent.
    fn finish_pending(&mut self, sock: Sock) {
        let peer = &mut self.peers[sock.0];
        if let Some(fault) = peer.served.fault {
            if !self.shards[peer.shard].wants(peer.conn).recv {
                self.report_fault(sock, fault);
            }
        } else if peer.served.shutting && !self.shards[peer.shard].wants(peer.conn).send {
            peer.served.shutting = false;
            peer.shut = true;
        }
    }

    /// Takes bytes from the core; whether there were any.
    fn write(&mut self, sock: Sock) -> bool {
        let Peer { shard, conn, room, .. } = self.peers[sock.0];
        let whole: usize = self.shards[shard].transmit(conn).slices().iter().map(|s| s.len()).sum();
        assert_eq!(whole > 0, self.shards[shard].wants(conn).send, "what is wanted, and what there is");
        if whole == 0 {
            self.peers[sock.0].served.listed = false;
            return false;
        }
        assert!(!self.peers[sock.0].shut, "nothing is sent after the end");
        let n = self.piece(whole).min(room);
        let peer = &mut self.peers[sock.0];
        let mut took = 0;
        for slice in self.shards[shard].transmit(conn).slices() {
            let here = slice.len().min(n - took);
            peer.received.extend_from_slice(&slice[..here]);
            took += here;
        }
        if peer.room != usize::MAX {
            peer.room -= n;
        }
        if n < whole {
            peer.served.writable = false;
        } else {
            // If there is more by then, the core lists the connection again.
            peer.served.listed = false;
        }
        if n == 0 {
            return false;
        }
        self.shards[shard].handle_sent(conn, n, self.now);
        if self.peers[sock.0].to.is_some() {
            self.backend_looks(sock);
        }
        true
    }

    /// Gives bytes, or the end, to the core; whether there was anything.
    fn read(&mut self, sock: Sock) -> bool {
        let now = self.now;
        let len = self.peers[sock.0].inbox.len();
        // There may be more than the socket says now: the next event tells.
        let offered = if len == 0 || self.draw(6) == 1 { 0 } else { self.piece(len) };
        let peer = &mut self.peers[sock.0];
        let proxy = &mut self.shards[peer.shard];
        let room = proxy.recv_buf(peer.conn);
        if room.is_empty() {
            peer.served.waits_for_page = proxy.wants(peer.conn).recv;
            if let Some(fault) = peer.served.fault {
                self.report_fault(sock, fault);
            }
            return false;
        }
        if offered > 0 {
            let room_len = room.len();
            let n = offered.min(room_len);
            let (front, back) = peer.inbox.as_slices();
            let in_front = n.min(front.len());
            room[..in_front].copy_from_slice(&front[..in_front]);
            room[in_front..n].copy_from_slice(&back[..n - in_front]);
            peer.inbox.drain(..n);
            // A short read says that there is no more; an end that is there already has an event of its own.
            let drained = n < room_len && peer.served.fault.is_none();
            proxy.handle_recv(peer.conn, n, now);
            if drained && self.draw(3) != 1 {
                self.peers[sock.0].served.readable = false;
            }
            return true;
        }
        if !peer.inbox.is_empty() || !(peer.ending || peer.served.fault.is_some()) {
            peer.served.readable = false;
            proxy.handle_recv(peer.conn, 0, now);
            return false;
        }
        match peer.served.fault {
            Some(fault) => self.report_fault(sock, fault),
            None => {
                (peer.ended, peer.served.readable) = (true, false);
                proxy.handle_recv_end(peer.conn, now);
            }
        }
        true
    }

    /// What the peer had sent before may still have to be read.
    fn broke(&mut self, sock: Sock, fault: Fault) {
        let peer = &mut self.peers[sock.0];
        (peer.served.writable, peer.served.shutting) = (false, false);
        if self.shards[peer.shard].wants(peer.conn).recv {
            (peer.served.readable, peer.served.fault) = (true, Some(fault));
        } else {
            self.report_fault(sock, fault);
        }
    }

    fn report_fault(&mut self, sock: Sock, fault: Fault) {
        let peer = &mut self.peers[sock.0];
        peer.served = Served { broken: true, ..Served::default() };
        self.shards[peer.shard].handle_fault(peer.conn, fault, self.now);
    }

    /// Nobody is forgotten: what is wanted of a socket that has bytes, or room, has been done.
    pub(crate) fn check_served(&self, shard: usize) {
        for sock in &self.open {
            let peer = &self.peers[sock.0];
            if peer.shard != shard || !peer.connected || peer.served.broken || peer.served.queued {
                continue;
            }
            let (wants, served) = (self.shards[shard].wants(peer.conn), &peer.served);
            let could_read = wants.recv && served.readable && !served.waits_for_page;
            assert!(!could_read, "{sock:?} wants to read, and nobody knows");
            assert!(!(wants.send && served.writable), "{sock:?} wants to send, and nobody knows");
            assert!(served.fault.is_none() || wants.recv, "{sock:?} is broken, and nobody was told");
        }
    }
}
