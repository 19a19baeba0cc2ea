//! A certificate that is renewed by hand, whether the daemon runs or not: this process is one more of those
//! that share the folder.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ruststrom_core::{Shared, UnixSecs};

use super::challenges::Board;
use super::control::Acme;
use super::runner::Runner;
use crate::clock;
use crate::tls::shared_server::SharedServer;

/// An order has so long, with the wait for one that is under way.
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// Who waits no longer than this, in seconds, may be waiting for another process that has the lease.
const SHORT_WAIT: UnixSecs = 10;

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The folder has another certificate, valid until then.
    Renewed(UnixSecs),
    /// Nothing has come, for reasons that were logged. The authority's limits, or its own wish, allow the
    /// next attempt then.
    Failed(UnixSecs),
    /// It took too long.
    TimedOut,
}

impl Acme {
    /// Orders the certificate of a table of the configuration now, and waits for it. Answers to challenges
    /// are shown on `shared` and `server`, and by every process that shares the folder. `None`: there is no
    /// such certificate, or it comes from files.
    #[must_use]
    pub fn renew(&self, name: &str, shared: Arc<Shared>, server: &SharedServer) -> Option<Renewal> {
        let wanted = self.wanted.iter().find(|wanted| *wanted.settings.primary == *name)?.clone();
        let found = wanted.keeper(None).stored(&wanted.settings, wanted.kid());
        let stored = match found {
            Ok(found) => found.stored,
            Err(problem) => {
                log::error!(target: "acme", "{}", problem.text);
                return Some(Renewal::Failed(clock::wall().unix_secs));
            }
        };
        let before = stored.certificate.clone().whole().map(|certificate| certificate.id);
        let board = Arc::new(Board::new(shared, server.clone()));
        let mut runner = Runner::new(wanted, stored, board, server.clone());
        runner.manager.renew();
        // Nothing is heard of other processes here: their lease is asked for every few seconds.
        let (_wake, wakes) = smol::channel::bounded(1);
        let begun = Instant::now();
        Some(smol::block_on(async {
            while begun.elapsed() < LONGEST {
                let until = runner.until_wait().await;
                if let Some(certificate) = runner.manager.certificate()
                    && before.as_ref() != Some(&certificate.id)
                {
                    return Renewal::Renewed(certificate.not_after);
                }
                if until > clock::wall().unix_secs + SHORT_WAIT && !runner.manager.is_renewing() {
                    return Renewal::Failed(runner.manager.next_attempt());
                }
                runner.wait(until, &wakes).await;
            }
            Renewal::TimedOut
        }))
    }
}
