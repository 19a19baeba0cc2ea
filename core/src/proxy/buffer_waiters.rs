//! Reading when pages are scarce: who found none waits here, and is put into the ready queue again as pages
//! come back.
//!
//! The last tenth of the pages is for exchanges under way. If new requests could take those too, everyone
//! might hold one page and wait for another. A request that waits for something else before it is sent holds
//! none, and will need one for the head that its backend gets: it has that promised, or any number of them
//! could begin meanwhile.

use std::collections::VecDeque;

use super::Proxy;
use crate::config::ListenerKind;
use crate::conn::{Conn, Role};
use crate::id::{ConnId, ExchangeId};
use crate::observe::Observer;
use crate::page::{PageId, Pages};

/// Connections that want to read but found no page, oldest first.
#[derive(Debug, Default)]
pub(super) struct BufferWaiters {
    under_way: VecDeque<ConnId>,
    /// They would begin something new.
    new: VecDeque<ConnId>,
}

impl BufferWaiters {
    /// Whether a connection stands in one of the lists.
    pub(super) fn contains(&self, c: ConnId) -> bool {
        self.under_way.contains(&c) || self.new.contains(&c)
    }
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
    /// Whether what is read from it begins an exchange. The admin listener is asked for just when everything
    /// else is full.
    #[inline]
    pub(super) fn begins_exchange(&self) -> bool {
        matches!(&self.role, Role::Client(client) if client.kind != ListenerKind::Admin)
            && self.exchange.is_none()
    }
}

impl<O: Observer> Proxy<O> {
    /// No page to read into is free: the connection waits for one.
    #[cold]
    pub(super) fn wait_for_page(&mut self, c: ConnId) -> &mut [u8] {
        let conn = &mut self.tables.conns[c];
        let begins = conn.begins_exchange();
        if !std::mem::replace(&mut conn.waits_for_page, true) {
            let waiters = &mut self.signals.waiters;
            let queue = if begins { &mut waiters.new } else { &mut waiters.under_way };
            if !(crate::planted::planted!(61) && c.epoch > 0) {
                queue.push_back(c);
            }
            // Those that have gone still stand in it: now and then they are removed.
            if queue.len() > 2 * self.tables.conns.len() + 32 {
                let conns = &self.tables.conns;
                queue.retain(|c| conns.get(*c).is_some());
            }
        }
        &mut []
    }

    /// Lets as many of those that wait try again as there are pages.
    #[inline]
    pub(super) fn wake_buffer_waiters(&mut self) {
        let waiters = &self.signals.waiters;
        if !waiters.under_way.is_empty() || !waiters.new.is_empty() {
            self.wake_waiters();
        }
    }

    #[cold]
    fn wake_waiters(&mut self) {
        let mut free = self.tables.pages.free();
        while free > 0
            && let Some(c) = self.signals.waiters.under_way.pop_front()
        {
            free -= usize::from(self.wake(c));
        }
        let mut free = free.min(self.tables.pages.free_until_scarce());
        while free > 0
            && let Some(c) = self.signals.waiters.new.pop_front()
        {
            free -= usize::from(self.wake(c));
        }
    }

    /// An exchange waits before its request can be sent.
    pub(super) fn promise_page(&mut self, x: ExchangeId) {
        let e = &mut self.tables.exchanges[x];
        if !std::mem::replace(&mut e.page_promised, true) {
            self.tables.pages.promise();
        }
    }

    /// An exchange takes its page now, or needs none.
    #[inline]
    pub(super) fn redeem_page(&mut self, x: ExchangeId) {
        let e = &mut self.tables.exchanges[x];
        if std::mem::replace(&mut e.page_promised, false) {
            self.tables.pages.redeem();
        }
    }

    /// Lets a connection try again; whether it will take a page.
    fn wake(&mut self, c: ConnId) -> bool {
        let Some(conn) = self.tables.conns.get_mut(c) else { return false };
        conn.waits_for_page = false;
        let wants = self.wants(c).recv;
        if wants {
            self.mark_readable(c);
        }
        wants
    }
}
