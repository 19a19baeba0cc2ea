//! The core as the pump calls it.

use std::io::IoSlice;
use std::sync::Arc;

use ruststrom_core::config::ListenerKind;
use ruststrom_core::observe::Observer;
use ruststrom_core::{
    Accepted, Config, ConnId, Effect, Fault, Instant, LookupId, LookupResult, Negotiated, Proxy, Ready,
    Refused, TimeoutReason, Wall, Wants,
};

/// The inputs and outputs of the core that the pump needs: those of [`Proxy`], with its contract. Tests put
/// something simpler behind the pump.
pub trait ProxyApi {
    /// A connection was accepted.
    fn handle_accept(&mut self, a: &Accepted, now: Instant) -> Result<ConnId, Refused>;
    /// A connection asked for is there.
    fn handle_connected(&mut self, c: ConnId, now: Instant);
    /// The socket of a connection asked for is there, and its handshake begins.
    fn handle_handshaking(&mut self, c: ConnId, now: Instant);
    /// The security layer of a connection has agreed on what is spoken on it.
    fn handle_negotiated(&mut self, c: ConnId, n: &Negotiated<'_>, now: Instant);
    /// Room lent for reading.
    fn recv_buf(&mut self, c: ConnId) -> &mut [u8];
    /// So many bytes were read into it.
    fn handle_recv(&mut self, c: ConnId, n: usize, now: Instant);
    /// End of stream.
    fn handle_recv_end(&mut self, c: ConnId, now: Instant);
    /// The peer has closed its direction; what it sent before is unread.
    fn handle_peer_closing(&mut self, c: ConnId, now: Instant);
    /// So many bytes have gone.
    fn handle_sent(&mut self, c: ConnId, n: usize, now: Instant);
    /// The socket broke.
    fn handle_fault(&mut self, c: ConnId, f: Fault, now: Instant);
    /// A lookup ended.
    fn handle_lookup(&mut self, l: LookupId, a: LookupResult, now: Instant);
    /// A new configuration.
    fn handle_config(&mut self, config: Arc<Config>, now: Instant);
    /// Another shard changed something.
    fn handle_shared(&mut self, now: Instant);
    /// The wall clock.
    fn handle_wall(&mut self, w: Wall);
    /// Time has passed.
    fn handle_timeout(&mut self, now: Instant);
    /// Stop gracefully.
    fn drain(&mut self, until: Instant, now: Instant);
    /// A connection to look at.
    fn poll_conn(&mut self) -> Option<Ready>;
    /// What it wants.
    fn wants(&self, c: ConnId) -> Wants;
    /// Lends `f` what is to be sent: at most eight slices, none of them empty.
    fn with_slices<R>(&self, c: ConnId, f: impl FnOnce(&[IoSlice<'_>]) -> R) -> R;
    /// What to do next.
    fn poll_effect(&mut self) -> Option<Effect>;
    /// Whether to accept.
    fn accepting(&self, kind: ListenerKind) -> bool;
    /// When to call [`ProxyApi::handle_timeout`], and what for.
    fn poll_timeout(&self) -> Option<(Instant, TimeoutReason)>;
}

impl<O: Observer> ProxyApi for Proxy<O> {
    fn handle_accept(&mut self, a: &Accepted, now: Instant) -> Result<ConnId, Refused> {
        Proxy::handle_accept(self, a, now)
    }
    fn handle_connected(&mut self, c: ConnId, now: Instant) {
        Proxy::handle_connected(self, c, now);
    }
    fn handle_handshaking(&mut self, c: ConnId, now: Instant) {
        Proxy::handle_handshaking(self, c, now);
    }
    fn handle_negotiated(&mut self, c: ConnId, n: &Negotiated<'_>, now: Instant) {
        Proxy::handle_negotiated(self, c, n, now);
    }
    fn recv_buf(&mut self, c: ConnId) -> &mut [u8] {
        Proxy::recv_buf(self, c)
    }
    fn handle_recv(&mut self, c: ConnId, n: usize, now: Instant) {
        Proxy::handle_recv(self, c, n, now);
    }
    fn handle_recv_end(&mut self, c: ConnId, now: Instant) {
        Proxy::handle_recv_end(self, c, now);
    }
    fn handle_peer_closing(&mut self, c: ConnId, now: Instant) {
        Proxy::handle_peer_closing(self, c, now);
    }
    fn handle_sent(&mut self, c: ConnId, n: usize, now: Instant) {
        Proxy::handle_sent(self, c, n, now);
    }
    fn handle_fault(&mut self, c: ConnId, f: Fault, now: Instant) {
        Proxy::handle_fault(self, c, f, now);
    }
    fn handle_lookup(&mut self, l: LookupId, a: LookupResult, now: Instant) {
        Proxy::handle_lookup(self, l, a, now);
    }
    fn handle_config(&mut self, config: Arc<Config>, now: Instant) {
        Proxy::handle_config(self, config, now);
    }
    fn handle_shared(&mut self, now: Instant) {
        Proxy::handle_shared(self, now);
    }
    fn handle_wall(&mut self, w: Wall) {
        Proxy::handle_wall(self, w);
    }
    fn handle_timeout(&mut self, now: Instant) {
        Proxy::handle_timeout(self, now);
    }
    fn drain(&mut self, until: Instant, now: Instant) {
        Proxy::drain(self, until, now);
    }
    fn poll_conn(&mut self) -> Option<Ready> {
        Proxy::poll_conn(self)
    }
    fn wants(&self, c: ConnId) -> Wants {
        Proxy::wants(self, c)
    }
    fn with_slices<R>(&self, c: ConnId, f: impl FnOnce(&[IoSlice<'_>]) -> R) -> R {
        Proxy::with_transmit(self, c, f)
    }
    fn poll_effect(&mut self) -> Option<Effect> {
        Proxy::poll_effect(self)
    }
    fn accepting(&self, kind: ListenerKind) -> bool {
        Proxy::accepting(self, kind)
    }
    fn poll_timeout(&self) -> Option<(Instant, TimeoutReason)> {
        Proxy::poll_timeout(self)
    }
}
