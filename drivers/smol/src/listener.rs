//! Waiting for connections to accept: one task for each listener of a worker.
//!
//! The worker accepts by itself, in its turns. Once that would block it calls [`Listener::accept_blocks`],
//! and the task waits until there is a connection again.

use std::future::poll_fn;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use smol::channel::{self, Receiver, Sender};
use smol::{Async, Timer};

use crate::interest::ask_readable;
use crate::ready_queue::{ReadyQueue, WakeReason};

/// Pause after a listener could not be waited for.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// A listener of a worker. Dropping it closes the socket.
pub(crate) struct Listener {
    socket: Arc<Async<TcpListener>>,
    blocked: Sender<()>,
}

/// What waits for the connections of a [`Listener`].
pub(crate) struct ListenerTask {
    place: usize,
    /// Not the socket itself: it has to be closed when the worker closes it, not when this task ends.
    socket: Weak<Async<TcpListener>>,
    blocked: Receiver<()>,
}

impl Listener {
    /// A listener, which does not block, and its task. `place` is its place among those of the worker.
    pub(crate) fn new(place: usize, listener: TcpListener) -> io::Result<(Self, ListenerTask)> {
        let socket = Arc::new(Async::new_nonblocking(listener)?);
        let (sender, receiver) = channel::bounded(1);
        let task = ListenerTask { place, socket: Arc::downgrade(&socket), blocked: receiver };
        Ok((Self { socket, blocked: sender }, task))
    }

    /// Accepting would block: a connection is to be reported again.
    pub(crate) fn accept_blocks(&self) {
        // Full: the task is about to wait anyway. Closed: the executor has ended.
        let _ = self.blocked.try_send(());
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl ListenerTask {
    /// Until the listener is closed.
    pub(crate) async fn run(self, queue: Arc<ReadyQueue>) {
        while self.blocked.recv().await.is_ok() {
            match self.readable().await {
                Some(Ok(())) => {}
                Some(Err(e)) => {
                    log::error!("cannot wait for connections: {e}");
                    // Then the worker tries to accept, and this task to wait.
                    Timer::after(RETRY_AFTER).await;
                }
                None => return,
            }
            queue.push(WakeReason::Listener(self.place));
        }
    }

    /// Waits for a connection; `None` once the listener is closed.
    async fn readable(&self) -> Option<io::Result<()>> {
        let mut asked = false;
        poll_fn(|cx| {
            let Some(socket) = self.socket.upgrade() else { return Poll::Ready(None) };
            if !std::mem::replace(&mut asked, true) {
                return match ask_readable(&socket, cx) {
                    Ok(()) => Poll::Pending,
                    Err(e) => Poll::Ready(Some(Err(e))),
                };
            }
            socket.poll_readable(cx).map(Some)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;
    use std::task::Waker;

    #[test]
    fn connections_are_reported_once_for_each_wait_until_the_listener_is_closed() {
        let socket = TcpListener::bind("127.77.2.1:0").expect("a port is free");
        socket.set_nonblocking(true).expect("a socket");
        let address = socket.local_addr().expect("bound");
        let (listener, task) = Listener::new(3, socket).expect("a reactor");
        let queue = Arc::<ReadyQueue>::default();
        let executor = smol::LocalExecutor::new();
        executor.spawn(task.run(queue.clone())).detach();
        let after = |millis| {
            smol::block_on(executor.run(Timer::after(Duration::from_millis(millis))));
            let mut reasons = Vec::new();
            queue.take(&mut reasons, Waker::noop());
            reasons
        };
        let soon = || (0..100).map(|_| after(20)).find(|reasons| !reasons.is_empty()).expect("an event");
        let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(5));
        let _first = connect().expect("listening");
        assert_eq!(after(50), [], "accepting does not block yet");
        for _ in 0..2 {
            listener.accept_blocks();
            assert_eq!(soon(), [WakeReason::Listener(3)]);
            assert_eq!(after(50), [], "only once, though the connection still waits");
        }
        listener.socket.get_ref().accept().expect("it waits");
        listener.accept_blocks();
        assert_eq!(after(50), []);
        let _second = connect().expect("listening");
        assert_eq!(soon(), [WakeReason::Listener(3)]);
        // Closed at once, though the task has not run since.
        listener.accept_blocks();
        drop(listener);
        assert_eq!(connect().expect_err("closed").kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(after(50), []);
    }
}
