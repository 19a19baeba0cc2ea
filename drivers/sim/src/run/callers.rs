//! The dice's clients as the shards see them that accept them.

use std::net::SocketAddr;

use ruststrom_core::ConnId;

use crate::client::Client;
use crate::net::{Far, Net};
use crate::shard::Callers;

impl Callers for Vec<Client> {
    fn addresses(&self, client: usize) -> (SocketAddr, SocketAddr) {
        (self[client].address, SocketAddr::from(([192, 0, 2, 1], 80)))
    }

    fn accepted(&mut self, client: usize, shard: usize, c: ConnId, net: &mut Net) {
        let sock = net.insert(shard, c, Far::Client(client), false);
        net.say(31 << 40 | sock as u64, || format!("shard {shard} accepts client {client} as {sock}, {c:?}"));
        net.client_socks[client] = sock;
        net.socks[sock].read_at_reload.push((0, net.version_of[shard]));
        self[client].sock = Some(sock);
        self[client].turn(net);
    }

    fn refused(&mut self, client: usize, net: &mut Net) {
        self[client].refused(net);
    }
}
