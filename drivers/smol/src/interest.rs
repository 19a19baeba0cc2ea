//! Asking the reactor for the next readiness of a socket.

use std::io;
use std::task::{Context, Poll};

use smol::Async;

/// Asks the reactor to wake `cx` at the next readiness to read. What an earlier event said is not repeated,
/// but what is there unread is reported.
pub(crate) fn ask_readable<T>(socket: &Async<T>, cx: &mut Context<'_>) -> io::Result<()> {
    while let Poll::Ready(asked) = socket.poll_readable(cx) {
        asked?;
    }
    Ok(())
}

/// Asks the reactor to wake `cx` at the next readiness to write, and at once if there is room.
pub(crate) fn ask_writable<T>(socket: &Async<T>, cx: &mut Context<'_>) -> io::Result<()> {
    while let Poll::Ready(asked) = socket.poll_writable(cx) {
        asked?;
    }
    Ok(())
}
