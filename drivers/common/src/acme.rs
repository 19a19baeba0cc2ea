//! Certificates that are obtained by themselves (ACME, RFC 8555). What is asked of an authority, and when, is
//! decided in [`ruststrom_core::acme`]; here it is done.
//!
//! Everything runs on one thread, `acme`, whichever driver the workers are on, and its requests on threads of
//! their own: no worker ever waits for any of it. Workers see two values that are replaced: the certificates
//! ([`SharedServer`](crate::tls::shared_server::SharedServer)) and the answers to challenges of HTTP-01
//! ([`Shared::set_http_challenges`](ruststrom_core::Shared::set_http_challenges)).
//!
//! | files | what they hold |
//! |---|---|
//! | [`control`] | all certificates of a configuration, from the start to the end of the process |
//! | [`renewal`] | a certificate that is renewed by hand |
//! | [`status`] | what is known of each certificate |
//! | `runner` | one certificate: does what its manager in the core says |
//! | `ca` | the steps of an order |
//! | `ca_http` | requests to an authority |
//! | `problem` | what went wrong with them |
//! | `trust` | whom an authority's own certificate has to be signed by |
//! | `challenges` | answers to challenges, for all processes that share a folder |
//! | `keeper` | the folder as one manager uses it |
//! | `folder` | files that survive a kill |
//! | `lease` | who may write to the folder |
//! | `certificate_file`, `account_file` | what is in the files |
//! | `self_signed` | what is served before the first certificate has come |
//! | `digest` | SHA-256 |

mod account_file;
mod ca;
mod ca_http;
mod certificate_file;
mod challenges;
pub mod control;
mod digest;
mod folder;
mod keeper;
mod lease;
mod problem;
pub mod renewal;
mod runner;
mod self_signed;
pub mod status;
#[cfg(test)]
mod test_folder;
mod trust;

pub use control::Acme;
