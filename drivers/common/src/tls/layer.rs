//! A security layer as [`TlsWorld`](super::TlsWorld) uses it: state machines that take bytes and give bytes,
//! without sockets and without a clock.

use std::io::{self, IoSlice};

use ruststrom_core::config::TlsTarget;
use ruststrom_core::{Fault, Negotiated};

/// Makes the sessions of one worker.
pub trait Layer {
    /// The security of one connection.
    type Session: Session;

    /// A session with a client, which speaks first.
    fn accept(&mut self) -> Self::Session;
    /// A session with a backend.
    ///
    /// # Errors
    /// If the settings are of no use.
    fn connect(&mut self, target: &TlsTarget) -> Result<Self::Session, Fault>;
}

/// The security of one connection. The first error is the last: after it only what is to be sent because of
/// it (an alert) is asked for.
pub trait Session {
    /// Takes bytes that came from the peer, at least one of them and not always all; 0 if there is no room
    /// before [`Session::read`] has made some. At most 64 KiB are kept.
    ///
    /// # Errors
    /// The peer broke the protocol, or could not be verified.
    fn receive(&mut self, ciphertext: &[u8]) -> Result<usize, Fault>;
    /// Moves plaintext into `buf`; returns how much.
    fn read(&mut self, buf: &mut [u8]) -> usize;
    /// There is plaintext to read.
    fn has_plaintext(&self) -> bool;
    /// The peer has said that it sends nothing more (`close_notify`, RFC 8446 §6.1).
    fn is_ended(&self) -> bool;
    /// Secures all of `plaintext`, none of which is empty.
    fn write(&mut self, plaintext: &[IoSlice<'_>]);
    /// There are bytes to be sent to the peer.
    fn has_output(&self) -> bool;
    /// Offers bytes to be sent to `send`, which says how many of them went, once.
    ///
    /// # Errors
    /// That of `send`.
    fn flush(&mut self, send: &mut dyn FnMut(&[IoSlice<'_>]) -> io::Result<usize>) -> io::Result<()>;
    /// Says that nothing more will be sent (`close_notify`).
    fn end(&mut self);
    /// More about the error, if it is wanted for the log and there is more to say than its fault does.
    fn failure(&self) -> Option<&str> {
        None
    }
    /// What the handshake has agreed on, once it is over.
    fn negotiated(&self) -> Option<Negotiated<'_>>;
}
