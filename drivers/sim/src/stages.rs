//! The middlewares of some scenarios: one that waits for a lookup before each request, and one that passes
//! response bodies through a transform.

use std::fmt::Debug;

use ruststrom_core::h1::{Request, ResponseHead};
use ruststrom_core::middleware::{Progress, Stage, Transform, Verdict};
use ruststrom_core::{Cause, LookupResult, Query};

/// Lets no request pass before a lookup has succeeded.
#[derive(Debug)]
pub(crate) struct LookupStage;

impl Stage for LookupStage {
    fn request(&self, _: &Request<'_>) -> Verdict {
        Verdict::Ask(Query::Resolve { host: "stage.test".into(), port: 1 })
    }

    fn responded(&self, _: &Request<'_>, response: &LookupResult) -> Verdict {
        match response {
            LookupResult::Addresses(_) => Verdict::Pass,
            LookupResult::Failed(_) => Verdict::Refuse(Cause::LookupFailed),
        }
    }
}

/// Passes response bodies on unchanged, but later and in other pieces.
#[derive(Debug)]
pub(crate) struct DelayStage;

impl Stage for DelayStage {
    fn request(&self, _: &Request<'_>) -> Verdict {
        Verdict::Pass
    }

    fn response(&self, _: &ResponseHead<'_>) -> Option<Box<dyn Transform>> {
        Some(Box::new(DelayTransform { held: Vec::new() }))
    }
}

/// Holds up to 100 bytes back before the end, as a compressor would.
#[derive(Debug)]
struct DelayTransform {
    held: Vec<u8>,
}

impl Transform for DelayTransform {
    fn run(&mut self, input: &[u8], output: &mut [u8], ended: bool) -> Progress {
        let taken = input.len().min(777);
        self.held.extend_from_slice(&input[..taken]);
        let keep = if ended && taken == input.len() { 0 } else { 100 };
        let put = self.held.len().saturating_sub(keep).min(output.len());
        output[..put].copy_from_slice(&self.held[..put]);
        self.held.drain(..put);
        Progress { taken, put, done: ended && taken == input.len() && self.held.is_empty() }
    }
}
