//! When a certificate is renewed.

use serde::{Deserialize, Serialize};

use super::certificate::{RenewalInfo, StoredCertificate};
use crate::UnixSecs;
use crate::rng::Rng;

const HOUR: u64 = 3600;

/// When a certificate is renewed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The chosen time.
    pub renew_at: UnixSecs,
    /// The window that it was chosen in, if the authority has named one.
    pub window: Option<(UnixSecs, UnixSecs)>,
    /// When the authority is asked for its window; `None`: never, since the certificate has no identifier.
    pub ask_at: Option<UnixSecs>,
    /// Until when the certificate is valid.
    pub not_after: UnixSecs,
}

impl Plan {
    /// At two thirds of the lifetime, give or take a fiftieth; the authority is asked at once.
    #[must_use]
    pub fn of(certificate: &StoredCertificate, now: UnixSecs, rng: &mut Rng) -> Self {
        let lifetime = lifetime(certificate);
        let jitter = lifetime / 50;
        let offset = (lifetime / 3 * 2 + lifetime % 3 * 2 / 3).saturating_sub(jitter);
        Self {
            renew_at: certificate.not_before.saturating_add(offset + rng.below(2 * jitter + 1)),
            window: None,
            ask_at: certificate.ari_id.is_some().then_some(now),
            not_after: certificate.not_after,
        }
    }

    /// Follows the authority's window (RFC 9773 §4.2): a random time in it, chosen once for each window. A
    /// window that ends before it begins counts for nothing.
    ///
    /// An authority can put the renewal off up to nine tenths of the lifetime, and bring it forward to its
    /// first fiftieth, so that a wrong window neither lets the certificate expire nor orders without end.
    pub fn follow(
        &mut self,
        certificate: &StoredCertificate,
        info: &RenewalInfo,
        now: UnixSecs,
        rng: &mut Rng,
    ) {
        let lifetime = lifetime(certificate);
        self.ask_at = Some(now.saturating_add(pause(lifetime, info.retry_after)));
        if info.end <= info.start || self.window == Some((info.start, info.end)) {
            return;
        }
        self.window = Some((info.start, info.end));
        let chosen = info.start + rng.below(info.end - info.start);
        let earliest = certificate.not_before.saturating_add(lifetime / 50);
        let latest = certificate.not_before.saturating_add(lifetime - lifetime / 10);
        self.renew_at = chosen.clamp(earliest, latest);
    }

    /// Asks the authority again later: it has no windows, or did not answer.
    pub fn ask_later(&mut self, certificate: &StoredCertificate, retry_after: Option<u64>, now: UnixSecs) {
        self.ask_at = Some(now.saturating_add(pause(lifetime(certificate), retry_after)));
    }
}

fn lifetime(certificate: &StoredCertificate) -> u64 {
    certificate.not_after.saturating_sub(certificate.not_before)
}

/// Seconds until the authority is asked for its window again: `Retry-After` between a minute and a day (RFC
/// 9773 §4.3.2), or six hours; less if the certificate is short-lived.
fn pause(lifetime: u64, retry_after: Option<u64>) -> u64 {
    let at_least = 60.min(lifetime / 20).max(1);
    let at_most = (24 * HOUR).min(lifetime / 20).max(at_least);
    retry_after.unwrap_or(6 * HOUR).clamp(at_least, at_most)
}
