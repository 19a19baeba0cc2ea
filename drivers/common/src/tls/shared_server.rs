//! Certificates that are replaced while they are served.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use super::server::ServerTls;

/// The certificates of the moment, for every worker. A handshake goes on with those that it began with.
#[derive(Clone, Debug, Default)]
pub struct SharedServer(Arc<Mutex<Arc<ServerTls>>>);

impl SharedServer {
    /// With these to begin with.
    #[must_use]
    pub fn new(server: ServerTls) -> Self {
        Self(Arc::new(Mutex::new(Arc::new(server))))
    }

    /// Those of the moment. The lock is held for the copy of a pointer, once for each connection.
    #[must_use]
    pub fn get(&self) -> Arc<ServerTls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces them, for handshakes to come, by what `change` makes of them: a value that never blocks those
    /// who read. Of two changes at a time none is lost.
    pub fn change(&self, change: impl Fn(&ServerTls) -> ServerTls) {
        let _: Result<(), Infallible> = self.try_change(|before| Ok(change(before)));
    }

    /// [`SharedServer::change`] by what may fail: then they stay as they are. `change` is asked again if
    /// there was another change meanwhile.
    ///
    /// # Errors
    /// That of `change`.
    pub fn try_change<E>(&self, mut change: impl FnMut(&ServerTls) -> Result<ServerTls, E>) -> Result<(), E> {
        loop {
            let before = self.get();
            let after = Arc::new(change(&before)?);
            let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if Arc::ptr_eq(&current, &before) {
                *current = after;
                return Ok(());
            }
        }
    }
}
