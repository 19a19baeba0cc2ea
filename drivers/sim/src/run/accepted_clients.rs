//! How the shards of a run accept its clients.

use std::net::{IpAddr, SocketAddr};

use ruststrom_core::ConnId;
use ruststrom_core::config::ListenerKind;

use crate::client::Client;
use crate::coverage::Mark;
use crate::net::{ClientSource, Net, Peer};

impl ClientSource for Vec<Client> {
    fn address(&self, client: usize) -> SocketAddr {
        self[client].address
    }

    fn kind(&self, client: usize) -> ListenerKind {
        if self[client].admin.is_some() {
            ListenerKind::Admin
        } else if self[client].tls.is_some() {
            ListenerKind::Https
        } else {
            ListenerKind::Http
        }
    }

    fn accepted(&mut self, client: usize, shard: usize, c: ConnId, net: &mut Net) {
        let socket = net.insert(shard, c, Peer::Client(client), false);
        net.trace(31 << 40 | socket as u64, || {
            format!("shard {shard} accepts client {client} as {socket}, {c:?}")
        });
        net.client_sockets[client] = socket;
        let version = net.accepting_version(shard);
        net.sockets[socket].read_at_reload.push((0, version));
        if let IpAddr::V6(ip) = self[client].address.ip() {
            net.mark(if ip.to_ipv4_mapped().is_some() { Mark::MappedClient } else { Mark::Ipv6Client });
        }
        if self[client].admin.is_none() {
            net.judge_accepted(client);
        }
        self[client].socket = Some(socket);
        self[client].secure(net, socket);
        self[client].turn(net);
    }

    fn above_limit(&mut self, client: usize, net: &mut Net) {
        if self[client].admin.is_some() {
            net.ledger.fail("admin-is-let-in", format!("client {client} was refused"));
        }
        net.judge_refused(client);
        self[client].refused(net);
    }

    fn refused(&mut self, client: usize, net: &mut Net) {
        net.judge_turned_away(client);
        self[client].refused(net);
    }
}
