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
