//! Ids of listeners over reloads: a connection keeps the id of the listener that accepted it, while each
//! configuration has its listeners in its own order.

use std::net::SocketAddr;

use crate::config::{Listener, ListenerKind};
use crate::id::ListenerId;

/// Every listener that a shard has known. The first configuration's have their places as ids.
#[derive(Clone, Debug)]
pub struct ListenerIds {
    known: Vec<(Box<str>, SocketAddr, ListenerKind)>,
}

impl ListenerIds {
    /// Ids for the listeners of the first configuration.
    #[must_use]
    pub fn new(listeners: &[Listener]) -> Self {
        Self { known: listeners.iter().map(|l| (l.name.clone(), l.address, l.kind)).collect() }
    }

    /// The id of each listener of a newer configuration: one with the same address and kind is the same,
    /// whatever it is called now. The name decides only among several of port 0.
    pub fn adopt(&mut self, listeners: &[Listener]) -> Vec<ListenerId> {
        let mut taken = vec![false; self.known.len()];
        // Exact matches come first, so that no other takes their place.
        let mut ids = vec![None; listeners.len()];
        for by_name in [true, false] {
            for (id, l) in ids.iter_mut().zip(listeners).filter(|(id, _)| id.is_none()) {
                let same = self.known.iter().zip(&taken).position(|((name, address, kind), taken)| {
                    !taken && (*address, *kind) == (l.address, l.kind) && (!by_name || *name == l.name)
                });
                if let Some(at) = same {
                    taken[at] = true;
                    self.known[at].0 = l.name.clone();
                    *id = Some(at);
                }
            }
        }
        let number = |at: usize| ListenerId(u16::try_from(at).unwrap_or(u16::MAX));
        ids.into_iter()
            .zip(listeners)
            .map(|(id, l)| {
                number(id.unwrap_or_else(|| {
                    self.known.push((l.name.clone(), l.address, l.kind));
                    self.known.len() - 1
                }))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(name: &str, address: &str, kind: ListenerKind) -> Listener {
        Listener { name: name.into(), address: address.parse().unwrap(), kind, explicit: true }
    }

    #[test]
    fn ids_follow_addresses() {
        use ListenerKind::{Admin, Http};
        let one = [
            listener("a", "127.0.0.1:1", Http),
            listener("b", "127.0.0.1:0", Http),
            listener("c", "127.0.0.1:0", Http),
            listener("admin", "127.0.0.1:9", Admin),
        ];
        let mut ids = ListenerIds::new(&one);
        let numbers = |found: Vec<ListenerId>| found.iter().map(|id| id.0).collect::<Vec<_>>();
        assert_eq!(numbers(ids.adopt(&one)), [0, 1, 2, 3]);
        let two = [
            listener("c", "127.0.0.1:0", Http),
            listener("new", "127.0.0.1:2", Http),
            listener("renamed", "127.0.0.1:1", Http),
            listener("b", "127.0.0.1:0", Http),
            listener("x", "127.0.0.1:9", Http),
        ];
        assert_eq!(numbers(ids.adopt(&two)), [2, 4, 0, 1, 5]);
        assert_eq!(numbers(ids.adopt(&one)), [0, 1, 2, 3]);
    }
}
