//! Keys of session tickets (RFC 5077, RFC 8446 §4.6.1).

use std::collections::HashMap;
use std::sync::Arc;

use rustls::Error;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::ProducesTickets;
use ruststrom_core::config::ClientAuth;

/// What clients have to show. A session may only go on where the same was demanded when it began: otherwise
/// a ticket would stand for a certificate that was never shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct ClientPolicy(pub(super) Option<(Arc<[u8]>, ClientAuth)>);

/// The keys that seal tickets, for each policy of client authentication. All workers share them; they are
/// made at random, changed every 6 hours, and open tickets for at most 12.
#[derive(Clone, Debug, Default)]
pub(super) struct TicketKeys(HashMap<ClientPolicy, Arc<dyn ProducesTickets>>);

impl TicketKeys {
    /// The keys of a policy: those that there are, else those that `previous` has, else new ones.
    ///
    /// # Errors
    ///
    /// The system gave no random bytes.
    pub(super) fn of(
        &mut self,
        policy: &ClientPolicy,
        previous: Option<&TicketKeys>,
    ) -> Result<Arc<dyn ProducesTickets>, Error> {
        if let Some(keys) = self.0.get(policy) {
            return Ok(keys.clone());
        }
        let keys = match previous.and_then(|p| p.0.get(policy)) {
            Some(keys) => keys.clone(),
            None => Ticketer::new()?,
        };
        self.0.insert(policy.clone(), keys.clone());
        Ok(keys)
    }
}
