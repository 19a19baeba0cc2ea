//! One turn of the world: what the proxies ask for is done, one thing happens, and everything is checked.

use std::collections::VecDeque;

use ruststrom_core::{ConnId, Effect, Endpoint, Fault, Query, Ready};

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

    /// One event for one shard; false if there is nothing left to tell.
    pub(crate) fn step(&mut self) -> bool {
        self.turn += 1;
        if let Some(event) = self.events.pop_front() {
            self.happen(event);
            return true;
        }
        if let Some(sock) = self.backlog.pop_front() {
            self.resume(sock);
            return true;
        }
        let all: Vec<Sock> = self.open.iter().copied().collect();
        let start = self.draw(all.len().max(1) as u64) as usize;
        let mut in_turn = all.iter().cycle().skip(start).take(all.len());
        in_turn.any(|sock| self.ready(*sock))
    }

    /// 0 unless there is chaos.
    pub(crate) fn draw(&mut self, below: u64) -> u64 {
        self.chaos.as_mut().map_or(0, |rng| rng.below(below))
    }

    /// At most so many of `n` at once.
    pub(crate) fn piece(&mut self, n: usize) -> usize {
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
                self.is_connected(sock);
                let Peer { shard, conn, .. } = self.peers[sock.0];
                self.shards[shard].handle_connected(conn, self.now);
                self.obey(shard);
            }
            Event::Failed(sock, fault) if !self.peers[sock.0].closed => {
                let Peer { shard, conn, .. } = self.peers[sock.0];
                self.shards[shard].handle_fault(conn, fault, self.now);
                self.obey(shard);
            }
            _ => {}
        }
    }

    /// Does what a shard asks for until it asks for nothing more, and checks it. Like the drivers' pump: who
    /// is listed is served at once, before the next one is looked at, and effects come when nobody is listed.
    pub(crate) fn obey(&mut self, shard: usize) {
        loop {
            if let Some(Ready { conn, send, .. }) = self.shards[shard].poll_conn() {
                if let Some(&sock) = self.socks.get(&(shard, conn)) {
                    self.listed(sock, send);
                }
            } else if let Some(effect) = self.shards[shard].poll_effect() {
                self.effect(shard, effect);
            } else {
                break;
            }
        }
        self.shards[shard].check();
        self.check_served(shard);
    }

    fn effect(&mut self, shard: usize, effect: Effect) {
        match effect {
            Effect::Connect { conn, to, tls } => {
                self.secured.push((to.clone(), tls));
                self.connect(shard, conn, to);
            }
            Effect::Shutdown(conn) => self.shut_down(self.socks[&(shard, conn)]),
            Effect::Close(conn) | Effect::Reset(conn) => {
                let sock = self.socks.remove(&(shard, conn)).expect("closed once");
                let peer = &mut self.peers[sock.0];
                (peer.closed, peer.cut) = (true, matches!(effect, Effect::Reset(_)));
                peer.inbox = VecDeque::new();
                self.open.remove(&sock);
                self.arrived.retain(|(s, _)| *s != sock);
                self.backlog.retain(|s| *s != sock);
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

    /// A backend looks at what it has.
    pub(crate) fn backend_looks(&mut self, sock: Sock) {
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
