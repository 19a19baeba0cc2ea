//! One turn of the world: what the proxies ask for is done, one thing happens, and everything is checked.

use std::collections::VecDeque;

use ruststrom_core::{ConnId, Effect, Endpoint, Fault, Query, Wants};

use crate::world::{Event, Open, Peer, Reply, Sock, TURNS, World, whole};

impl World {
    /// Everything that can happen without time passing or anyone doing anything new.
    pub(crate) fn settle(&mut self) {
        for _ in 0..TURNS {
            if !self.step() {
                return;
            }
        }
        panic!("the proxy never settles");
    }

    /// One input to one shard; false if there is nothing left to tell.
    pub(crate) fn step(&mut self) -> bool {
        if let Some(event) = self.events.pop_front() {
            self.happen(event);
            return true;
        }
        let all: Vec<Sock> = self.open.iter().copied().collect();
        let start = self.draw(all.len().max(1) as u64) as usize;
        for i in 0..all.len() {
            let sock = all[(start + i) % all.len()];
            let write_first = self.draw(4) != 1;
            if (write_first && self.take(sock)) || self.give(sock) || self.take(sock) {
                return true;
            }
        }
        false
    }

    /// 0 unless there is chaos.
    fn draw(&mut self, below: u64) -> u64 {
        self.chaos.as_mut().map_or(0, |rng| rng.below(below))
    }

    /// At most so many of `n` at once.
    fn piece(&mut self, n: usize) -> usize {
        match self.draw(4) {
            0 => n,
            1 => n.min(1),
            _ => 1 + self.draw(n as u64) as usize,
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Nudged(shard) => {
                self.shards[shard].handle_shared(self.now);
                self.obey(shard);
            }
            Event::Connected(sock) if !self.peers[sock.0].closed => {
                self.peers[sock.0].connected = true;
                let Peer { shard, conn, .. } = self.peers[sock.0];
                self.shards[shard].handle_connected(conn, self.now);
                self.acted(sock);
                self.obey(shard);
            }
            Event::Failed(sock, fault) if !self.peers[sock.0].closed => {
                let Peer { shard, conn, .. } = self.peers[sock.0];
                self.peers[sock.0].ended = true;
                self.shards[shard].handle_fault(conn, fault, self.now);
                self.acted(sock);
                self.obey(shard);
            }
            _ => {}
        }
    }

    /// After an input about a connection a driver looks by itself whether it may read.
    pub(crate) fn acted(&mut self, sock: Sock) {
        let peer = &mut self.peers[sock.0];
        let wants = self.shards[peer.shard].wants(peer.conn);
        peer.known = Wants { recv: wants.recv && !peer.waits_for_page, send: wants.send && peer.known.send };
    }

    /// Does what a shard asks for, and checks it.
    pub(crate) fn obey(&mut self, shard: usize) {
        loop {
            let conn = self.shards[shard].poll_conn();
            if let Some((&sock, hint)) = conn.and_then(|l| Some((self.socks.get(&(shard, l.conn))?, l.send)))
            {
                let peer = &mut self.peers[sock.0];
                let wants = self.shards[shard].wants(peer.conn);
                peer.known = Wants { recv: wants.recv, send: wants.send && (hint || peer.known.send) };
                peer.waits_for_page = false;
            }
            let Some(effect) = self.shards[shard].poll_effect() else {
                if conn.is_none() {
                    break;
                }
                continue;
            };
            match effect {
                Effect::Connect { conn, to, tls } => {
                    self.secured.push((to.clone(), tls));
                    self.connect(shard, conn, to);
                }
                Effect::Shutdown(conn) => {
                    let sock = self.socks[&(shard, conn)];
                    self.peers[sock.0].shut = true;
                }
                Effect::Close(conn) | Effect::Reset(conn) => {
                    let sock = self.socks.remove(&(shard, conn)).expect("closed once");
                    let peer = &mut self.peers[sock.0];
                    (peer.closed, peer.cut) = (true, matches!(effect, Effect::Reset(_)));
                    peer.inbox = VecDeque::new();
                    self.open.remove(&sock);
                    self.arrived.retain(|(s, _)| *s != sock);
                }
                Effect::Lookup { id, query: Query::Resolve { host, port } } => {
                    self.lookups.push((shard, id, format!("{host}:{port}")));
                }
                Effect::Lookup { query, .. } => panic!("nobody asks for {query:?}"),
                Effect::Nudge(other) => {
                    assert_ne!(usize::from(other), shard, "a shard that nudges itself");
                    self.nudges += 1;
                    self.events.push_back(Event::Nudged(other.into()));
                }
                Effect::Drained => self.drained.push(shard),
            }
        }
        let proxy = &self.shards[shard];
        proxy.check();
        // A want that nobody pointed at would never be served by a driver.
        for sock in &self.open {
            let peer = &self.peers[sock.0];
            if peer.shard == shard {
                let (now, known) = (proxy.wants(peer.conn), peer.known);
                assert!(
                    (!now.recv || known.recv || peer.waits_for_page) && (!now.send || known.send),
                    "{sock:?} wants {now:?} and nobody knows"
                );
            }
        }
    }

    fn connect(&mut self, shard: usize, conn: ConnId, to: Endpoint) {
        let sock = self.add(shard, conn, Some(to.clone()));
        let probe = self.shards[shard].counts().probes
            > self.open.iter().filter(|s| self.peers[s.0].probe && self.peers[s.0].shard == shard).count();
        self.peers[sock.0].probe = probe;
        let script = self.scripts.entry(to.clone()).or_default();
        let open = match script.probe_open.filter(|_| probe) {
            Some(open) => open,
            None => script.opens.pop_front().filter(|_| !probe).unwrap_or(script.open),
        };
        match open {
            Open::Take => self.events.push_back(Event::Connected(sock)),
            Open::Fails(fault) => self.events.push_back(Event::Failed(sock, fault)),
            Open::Silent => {}
        }
        let busy = self
            .open
            .iter()
            .filter(|s| self.peers[s.0].to.as_ref() == Some(&to) && !self.peers[s.0].probe)
            .count();
        let most = self.busiest.entry(to).or_default();
        *most = busy.max(*most);
    }

    /// Takes bytes from the proxy.
    fn take(&mut self, sock: Sock) -> bool {
        let Peer { shard, conn, room, connected, .. } = self.peers[sock.0];
        if !connected || room == 0 || !self.peers[sock.0].known.send || self.peers[sock.0].breaking.is_some()
        {
            return false;
        }
        assert!(!self.peers[sock.0].shut, "nothing is sent after the end");
        let whole: usize = self.shards[shard].transmit(conn).slices().iter().map(|s| s.len()).sum();
        assert!(whole > 0, "a connection that wants to send has something to send");
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
        // Once all has gone a driver waits to be told of more.
        peer.known.send = n < whole;
        self.shards[shard].handle_sent(conn, n, self.now);
        self.acted(sock);
        self.obey(shard);
        if self.peers[sock.0].to.is_some() {
            self.serve(sock);
        }
        true
    }

    /// Gives bytes, or the end, to the proxy.
    fn give(&mut self, sock: Sock) -> bool {
        let peer = &mut self.peers[sock.0];
        let (shard, conn) = (peer.shard, peer.conn);
        if peer.ended || !peer.connected {
            return false;
        }
        if let Some(fault) = peer.breaking.filter(|_| peer.inbox.is_empty() || !peer.known.recv) {
            peer.ended = true;
            self.shards[shard].handle_fault(conn, fault, self.now);
        } else if !peer.known.recv {
            return false;
        } else if !peer.inbox.is_empty() {
            let len = peer.inbox.len();
            let n = self.piece(len);
            let room = self.shards[shard].recv_buf(conn);
            if room.is_empty() {
                // The core lists it again once there is a page.
                let peer = &mut self.peers[sock.0];
                (peer.known.recv, peer.waits_for_page) = (false, true);
                self.obey(shard);
                return false;
            }
            let n = n.min(room.len());
            let inbox = &mut self.peers[sock.0].inbox;
            let (front, back) = inbox.as_slices();
            let in_front = n.min(front.len());
            room[..in_front].copy_from_slice(&front[..in_front]);
            room[in_front..n].copy_from_slice(&back[..n - in_front]);
            inbox.drain(..n);
            self.shards[shard].handle_recv(conn, n, self.now);
        } else if peer.ending {
            peer.ended = true;
            self.shards[shard].handle_recv_end(conn, self.now);
        } else {
            return false;
        }
        self.acted(sock);
        self.obey(shard);
        true
    }

    /// A backend looks at what it has.
    fn serve(&mut self, sock: Sock) {
        let Some(to) = self.peers[sock.0].to.clone() else { return };
        // A probe is short, and content need not be searched time and again.
        let peer = &mut self.peers[sock.0];
        if peer.received[..peer.received.len().min(1024)].windows(17).any(|w| w == b"rust-strom-health") {
            peer.probe = true;
        }
        let script = self.scripts.entry(to.clone()).or_default();
        if let (Reply::Hold, true) = (&script.reply, script.replies.is_empty())
            && !self.peers[sock.0].probe
        {
            let received = &self.peers[sock.0].received;
            if whole(received).is_some() && self.arrived.iter().all(|(s, _)| *s != sock) {
                let target =
                    String::from_utf8_lossy(received).split(' ').nth(1).unwrap_or_default().to_owned();
                self.arrived.push((sock, target));
            }
            return;
        }
        while let Some(len) = whole(&self.peers[sock.0].received) {
            let request: Vec<u8> = self.peers[sock.0].received.drain(..len).collect();
            let request = String::from_utf8(request).expect("text");
            let script = self.scripts.entry(to.clone()).or_default();
            let reply = if self.peers[sock.0].probe {
                self.probed.push((to.clone(), self.now));
                script.probe.clone()
            } else {
                self.served.push((to.clone(), request.clone()));
                script.replies.pop_front().unwrap_or_else(|| script.reply.clone())
            };
            match reply {
                Reply::Hold => return,
                Reply::Bytes(bytes) => self.put(sock, bytes),
                Reply::BytesThenClose(bytes) => {
                    self.put(sock, bytes);
                    self.peers[sock.0].ending = true;
                }
                Reply::Close => self.peers[sock.0].ending = true,
                Reply::Reset => self.peers[sock.0].breaking = Some(Fault::Reset),
                Reply::Made(make) => {
                    let (response, close) = make(&request);
                    self.put(sock, response);
                    self.peers[sock.0].ending |= close;
                }
            }
        }
    }
}
