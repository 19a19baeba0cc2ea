//! Certificates that are obtained by themselves (ACME, RFC 8555): what is asked of an authority, and when.
//!
//! Nothing here opens a socket, a file or a clock. A [`Manager`] says what to do next, one [`Action`] at a
//! time; a driver does it and hands back the [`Outcome`]:
//!
//! ```text
//!   let mut manager = Manager::new(settings, stored, now, seed);    // what the folder has is served already
//!   loop {
//!       for note in manager.notes() { log it }
//!       match manager.poll(now) {
//!           Action::Wait(until) => sleep until then, or until the settings change
//!           action              => { do it; manager.handle(now, outcome) }
//!       }
//!   }
//! ```
//!
//! One manager is for one certificate: a table of the configuration. All those whose certificates are in one
//! folder, in this process or on other machines, share the folder's [`Ledger`] and its lease: whoever has the
//! lease may ask the authority and write to the folder, the others load what is there. A manager holds the
//! lease for one order at a time, and does nothing but [`Action::Look`] without it.
//!
//! # An order's way
//!
//! ```text
//!   TakeLease ─ Account ─┬─ RenewalInfo                              Save
//!                        └─ NewOrder ─ Authorizations ─ Validate… ─ Poll… ─ Finalize ─ Poll… ─ Download
//!                           or Resume                                                 Store ─ Serve ─ Save
//!                                                                                           ReleaseLease
//! ```
//!
//! # What survives a kill
//!
//! The ledger is saved *before* each request that counts against a limit (a new account, a new order, a
//! validation, a certificate), so that limits hold however often a process is killed. The URL of the order is
//! in it: the next run goes on with that order instead of making another. The key of an unfinished order is
//! in the folder before the authority gets to see it.

mod action;
mod advice;
mod certificate;
mod challenge;
mod ledger;
mod manager;
mod problem;
mod renewal;
mod settings;
mod status;

pub use action::{
    Action, Authorization, AuthorizationStatus, Kept, LEASE_GRACE_SECS, LEASE_SECS, Order, OrderStatus,
    Outcome, STEP_SECS, Step, Stored,
};
pub use certificate::{RenewalInfo, StoredCertificate};
pub use challenge::Challenge;
pub use ledger::{Failure, Ledger};
pub use manager::{Manager, Note};
pub use problem::{Problem, ProblemKind};
pub use renewal::Plan;
pub use settings::{LETS_ENCRYPT, LETS_ENCRYPT_STAGING, Limits, Settings};
pub use status::{StatusRow, status_table};
