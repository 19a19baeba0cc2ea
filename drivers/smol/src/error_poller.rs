//! Notices connections that break while nobody waits for their readiness.
//!
//! The reactor reports only what it was asked for, and a socket stays readable for as long as bytes or an end
//! lie in it unread. So sockets from which the core does not want to read are put into an epoll set of the
//! worker's own, edge triggered and without interest in reads or writes: it reports only EPOLLERR and
//! EPOLLHUP. The reactor waits for the set like for a socket.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use ruststrom_core::ConnId;
use ruststrom_driver::event::Readiness;
use smol::{Async, Timer};

use crate::ready_queue::{ReadyQueue, WakeReason};

/// Events fetched with one call.
const EVENTS: usize = 64;
/// Pause after a failure of the set itself.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The epoll set of one worker.
pub(crate) struct ErrorPoller {
    set: Async<OwnedFd>,
}

impl ErrorPoller {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { set: Async::new_nonblocking(epoll::create(CreateFlags::CLOEXEC)?)? })
    }

    /// Watches a socket until it is closed. An error that it has already is reported too.
    pub(crate) fn watch(&self, c: ConnId, socket: impl AsFd) -> io::Result<()> {
        epoll::add(self.set.get_ref(), socket, EventData::new_u64(c.to_bits()), EventFlags::ET)?;
        Ok(())
    }

    /// The task that puts errors into the worker's queue.
    pub(crate) async fn run(self: Arc<Self>, queue: Arc<ReadyQueue>) {
        loop {
            let ready = self.set.readable().await;
            if let Err(e) = ready.and_then(|()| self.drain(&queue)) {
                log::error!("cannot wait for errors of connections: {e}");
                Timer::after(RETRY_AFTER).await;
            }
        }
    }

    /// Moves all errors since the last time into the queue.
    fn drain(&self, queue: &ReadyQueue) -> io::Result<()> {
        let mut events = [const { std::mem::MaybeUninit::uninit() }; EVENTS];
        loop {
            let (found, _) =
                epoll::wait(self.set.get_ref(), &mut events, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
            for event in &*found {
                let flags = event.flags;
                let readiness = Readiness {
                    closed: flags.contains(EventFlags::HUP),
                    error: flags.contains(EventFlags::ERR),
                    ..Readiness::default()
                };
                queue.push(WakeReason::Failed(ConnId::from_bits(event.data.u64()), readiness));
            }
            if found.len() < EVENTS {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::task::Waker;

    #[test]
    fn a_reset_is_reported_but_bytes_are_not() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let mut peer = TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
        let (socket, _) = listener.accept().expect("connected");
        let (poller, queue) = (Arc::new(ErrorPoller::new().expect("epoll")), Arc::<ReadyQueue>::default());
        let c = ConnId { slot: 7, epoch: 3 };
        poller.watch(c, &socket).expect("a socket");
        let executor = smol::LocalExecutor::new();
        executor.spawn(poller.run(queue.clone())).detach();
        let after = |millis| {
            smol::block_on(executor.run(Timer::after(Duration::from_millis(millis))));
            let mut reasons = Vec::new();
            queue.take(&mut reasons, Waker::noop());
            reasons
        };
        peer.write_all(b"not an error").expect("there is room");
        assert_eq!(after(50), []);
        socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).expect("a socket");
        drop(peer);
        let reset = (0..100).map(|_| after(20)).find(|reasons| !reasons.is_empty());
        let readiness = Readiness { closed: true, error: true, ..Readiness::default() };
        assert_eq!(reset.expect("an event"), [WakeReason::Failed(c, readiness)]);
        assert_eq!(after(50), [], "reported once");
    }
}
