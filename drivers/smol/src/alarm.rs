//! Connections that break while nobody waits for them.
//!
//! The reactor tells only of what it was asked for, and readable is what a socket stays for as long as bytes
//! or an end lie in it unread. So those that the core does not want to read from are put into an epoll set of
//! the worker's own, edge triggered, which says when one breaks (EPOLLERR, EPOLLHUP). The set itself is
//! waited for in the reactor, like a socket.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll, Waker};

use async_io::Async;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use ruststrom_core::ConnId;
use ruststrom_driver::event::Readiness;

/// Events fetched with one call.
const EVENTS: usize = 64;

pub(crate) struct Alarm {
    set: Async<OwnedFd>,
}

impl Alarm {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { set: Async::new_nonblocking(epoll::create(CreateFlags::CLOEXEC)?)? })
    }

    /// From now on until it is closed. What has broken already is told too.
    pub(crate) fn watch(&self, c: ConnId, socket: impl AsFd) -> io::Result<()> {
        epoll::add(self.set.get_ref(), socket, EventData::new_u64(c.to_bits()), EventFlags::ET)?;
        Ok(())
    }

    /// Wakes once there is something to hear.
    pub(crate) fn wait(&self, waker: &Waker) -> io::Result<()> {
        let mut cx = Context::from_waker(waker);
        // Ready is an old event: what has come since makes the reactor tell at once.
        while let Poll::Ready(asked) = self.set.poll_readable(&mut cx) {
            asked?;
        }
        Ok(())
    }

    /// Calls `broken` for each that has broken since the last time.
    pub(crate) fn hear(&self, mut broken: impl FnMut(ConnId, Readiness)) -> io::Result<()> {
        let mut events = [const { std::mem::MaybeUninit::uninit() }; EVENTS];
        loop {
            let (heard, _) =
                epoll::wait(self.set.get_ref(), &mut events, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
            for event in &*heard {
                let flags = event.flags;
                let readiness = Readiness {
                    closed: flags.contains(EventFlags::HUP),
                    error: flags.contains(EventFlags::ERR),
                    ..Readiness::default()
                };
                broken(ConnId::from_bits(event.data.u64()), readiness);
            }
            if heard.len() < EVENTS {
                return Ok(());
            }
        }
    }
}
