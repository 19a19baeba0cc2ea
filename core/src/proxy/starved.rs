//! Reading when pages are scarce: who found none waits here, and is listed again as pages come back.
//!
//! The last tenth of the pages is for exchanges under way. If new requests could take those too, everyone
//! might hold one page and wait for another.

use std::collections::VecDeque;

use super::Proxy;
use crate::config::ListenerKind;
use crate::conn::{Conn, Role};
use crate::id::ConnId;
use crate::observe::Observer;
use crate::page::{PageId, Pages};

/// Connections that want to read but found no page, oldest first.
#[derive(Debug, Default)]
pub(super) struct Starved {
    under_way: VecDeque<ConnId>,
    /// They would begin something new.
    new: VecDeque<ConnId>,
}

/// A page to read into, if there is one for that.
#[inline]
pub(super) fn lend(pages: &mut Pages, begins: bool, large: bool) -> Option<PageId> {
    match (begins, large) {
        (true, _) if pages.scarce() => None,
        (_, true) => pages.lend_large().or_else(|| pages.lend()),
        (_, false) => pages.lend(),
    }
}

impl Conn {
    /// Whether what is read from it begins an exchange. Our own page is asked for just when everything else
    /// is full.
    #[inline]
    pub(super) fn begins(&self) -> bool {
        matches!(&self.role, Role::Client(client) if client.kind != ListenerKind::Admin)
            && self.exchange.is_none()
    }
}

impl<O: Observer> Proxy<O> {
    /// No page to read into is free: the connection waits for one.
    #[cold]
    pub(super) fn starve(&mut self, c: ConnId) -> &mut [u8] {
        let conn = &mut self.conns[c];
        let begins = conn.begins();
        if !std::mem::replace(&mut conn.starved, true) {
            let queue = if begins { &mut self.starved.new } else { &mut self.starved.under_way };
            queue.push_back(c);
            // Those that have gone are still in it: now and then they leave.
            if queue.len() > 2 * self.conns.len() + 32 {
                let conns = &self.conns;
                queue.retain(|c| conns.get(*c).is_some());
            }
        }
        &mut []
    }

    /// Lists as many of those that wait as there are pages.
    #[inline]
    pub(super) fn feed_starved(&mut self) {
        if !self.starved.under_way.is_empty() || !self.starved.new.is_empty() {
            self.feed();
        }
    }

    #[cold]
    fn feed(&mut self) {
        let mut free = self.pages.free();
        while free > 0
            && let Some(c) = self.starved.under_way.pop_front()
        {
            free -= usize::from(self.call(c));
        }
        let mut free = if self.pages.scarce() { 0 } else { free };
        while free > 0
            && let Some(c) = self.starved.new.pop_front()
        {
            free -= usize::from(self.call(c));
        }
    }

    /// Lets a connection try again; whether it will take a page.
    fn call(&mut self, c: ConnId) -> bool {
        let Some(conn) = self.conns.get_mut(c) else { return false };
        conn.starved = false;
        let wants = self.wants(c).recv;
        if wants {
            self.list_recv(c);
        }
        wants
    }
}
