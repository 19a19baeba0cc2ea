//! Where middlewares plug in: a chain of stages for each pool. The stages themselves come one file each.
//!
//! In file order on the way in, in reverse on the way out. A stage sees the request once, before a backend is
//! chosen; it may pass, answer, or ask the driver something and be asked again when the answer is there. On
//! the way out it may put a transform into the body's way.

use std::fmt::Debug;

use crate::cause::Cause;
use crate::h1::{ParsedRequest, ParsedResponse};
use crate::proxy::{LookupResult, Query};

/// One middleware of a pool, as configured. It holds no state of an exchange.
pub trait Stage: Debug + Send + Sync {
    /// A request on its way in.
    fn request(&self, request: &ParsedRequest<'_>) -> Verdict;

    /// What was asked has been answered; the request is at hand again.
    fn responded(&self, _request: &ParsedRequest<'_>, _response: &LookupResult) -> Verdict {
        Verdict::Pass
    }

    /// An answer on its way out: a transform for its body, or none.
    fn response(&self, _head: &ParsedResponse<'_>) -> Option<Box<dyn Transform>> {
        None
    }
}

/// What a stage says to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// On to the next.
    Pass,
    /// This is the answer.
    Refuse(Cause),
    /// Ask the driver first.
    Ask(Query),
}

/// Changes a body as it passes; it keeps what it needs between calls. Its output lies in a page of the
/// exchange's own.
pub trait Transform: Debug + Send {
    /// Takes from `input`, puts into `output`. `ended`: nothing comes after `input`.
    fn run(&mut self, input: &[u8], output: &mut [u8], ended: bool) -> Progress;
}

/// What one call of [`Transform::run`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes taken.
    pub taken: usize,
    /// Bytes put.
    pub put: usize,
    /// All has been put; only possible once `ended`.
    pub done: bool,
}
