//! What is to be known of backends that speak TLS, which a reload replaces.

use std::sync::{Arc, Mutex, PoisonError};

use super::client::ClientTls;

/// That of the moment, for every worker. A connection goes on with what it began with.
#[derive(Clone, Debug, Default)]
pub struct SharedClient(Arc<Mutex<Arc<ClientTls>>>);

impl SharedClient {
    /// With this to begin with.
    #[must_use]
    pub fn new(client: ClientTls) -> Self {
        Self(Arc::new(Mutex::new(Arc::new(client))))
    }

    /// That of the moment. The lock is held for the copy of a pointer, once for each connection.
    #[must_use]
    pub fn get(&self) -> Arc<ClientTls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces it, for connections to come.
    pub fn replace(&self, client: ClientTls) {
        let client = Arc::new(client);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = client;
    }
}
