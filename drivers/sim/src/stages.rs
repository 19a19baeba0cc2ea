//! What stands in the chain of a pool in some runs: a stage that asks before it lets pass, and one that puts
//! answers through a transform.

use std::fmt::Debug;

use ruststrom_core::h1::{ParsedRequest, ParsedResponse};
use ruststrom_core::middleware::{Progress, Stage, Transform, Verdict};
use ruststrom_core::{Cause, LookupResult, Query};

/// Lets nobody pass before a lookup says so.
#[derive(Debug)]
pub(crate) struct Asks;

impl Stage for Asks {
    fn request(&self, _: &ParsedRequest<'_>) -> Verdict {
        Verdict::Ask(Query::Resolve { host: "stage.test".into(), port: 1 })
    }

    fn responded(&self, _: &ParsedRequest<'_>, response: &LookupResult) -> Verdict {
        match response {
            LookupResult::Addresses(_) => Verdict::Pass,
            LookupResult::Failed(_) => Verdict::Refuse(Cause::LookupFailed),
        }
    }
}

/// Changes nothing, in steps of its own.
#[derive(Debug)]
pub(crate) struct Copies;

impl Stage for Copies {
    fn request(&self, _: &ParsedRequest<'_>) -> Verdict {
        Verdict::Pass
    }

    fn response(&self, _: &ParsedResponse<'_>) -> Option<Box<dyn Transform>> {
        Some(Box::new(Copy { held: Vec::new() }))
    }
}

/// Holds up to a few bytes back, as a compressor would.
#[derive(Debug)]
struct Copy {
    held: Vec<u8>,
}

impl Transform for Copy {
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
