//! What authorities ask for that want to know whether a name leads here (HTTP-01, RFC 8555 §8.3).

use std::sync::{Arc, PoisonError};

use crate::sync::{AtomicBool, Mutex, Ordering};

/// Where authorities ask, before the token.
pub(crate) const PATH: &[u8] = b"/.well-known/acme-challenge/";

/// What one request of an authority is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpChallenge {
    /// The last segment of the path that it asks for.
    pub token: Box<str>,
    /// The key authorization (RFC 8555 §8.1).
    pub answer: Arc<[u8]>,
}

/// Tokens and their answers: few, for seconds, and mostly none.
#[derive(Debug, Default)]
pub(super) struct HttpChallenges {
    /// There are some. Requests look no further if there are not.
    any: AtomicBool,
    answers: Mutex<Vec<HttpChallenge>>,
}

impl HttpChallenges {
    pub(super) fn set(&self, answers: Vec<HttpChallenge>) {
        let any = !answers.is_empty();
        *self.answers.lock().unwrap_or_else(PoisonError::into_inner) = answers;
        self.any.store(any, Ordering::Release);
    }

    #[inline]
    pub(super) fn answer(&self, path: &[u8]) -> Option<Arc<[u8]>> {
        if self.any.load(Ordering::Acquire) { self.find(path.strip_prefix(PATH)?) } else { None }
    }

    #[cold]
    fn find(&self, token: &[u8]) -> Option<Arc<[u8]>> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.iter().find(|c| c.token.as_bytes() == token).map(|c| c.answer.clone())
    }
}
