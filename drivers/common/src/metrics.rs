//! What is counted, and the pages of the admin listener that show it: `/metrics` and `/status`.
//!
//! Every worker counts in plain cells of its own ([`counted`], by way of [`worker`]), so that a request takes
//! no lock. When a page is asked for, a thread of its own ([`hub`]) asks every worker by its mailbox for a
//! copy, adds them up ([`ledger`]), gathers what there is besides ([`facts`]) and writes the page ([`page`],
//! [`status`]). A worker that does not respond is left with what it said last.
//!
//! Labels are names of the configuration and words of closed sets, so what clients and backends send never
//! makes a new series: the one thing of theirs is the status, of which there are 500, one for all invalid
//! ones, and `000`. What is not configured any more is shown once more ([`departed`]).

pub mod columns;
pub mod counted;
pub mod departed;
pub mod facts;
pub mod histogram;
pub mod hub;
pub mod ledger;
pub mod page;
pub mod process;
pub mod slots;
pub mod status;
pub mod text_format;
pub mod worker;
