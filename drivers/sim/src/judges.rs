//! The reference model: what the documentation says that each exchange and each run must look like, held
//! against what happened on the simulated network. It is written from the documentation and knows nothing of
//! the core's code.
//!
//! | file | what it judges |
//! |---|---|
//! | `documented` | the table of causes in the documentation, and the form of local replies |
//! | `backend_streams` | streams of connections to backends |
//! | `record` | the record of an exchange: times, bytes, attempts, backend, status |
//! | `chains` | middlewares over reloads |
//! | `causes` | a cause needs a reason in the simulated world |
//! | `deadlines` | timeouts that have not fired although they are over |
//! | `choices` | which backend may be chosen: usable, untried, the least busy one |
//! | `shares` | shares over many choices: in turn, by weight, growing |
//! | `homes` | hashes of clients: only those of a backend move with it |
//! | `cookies` | sticky cookies: followed, and set when there is none |
//! | `head_limits` | limits of request heads |
//! | `health` | changes of a backend's health |
//! | `identities` | connections that a client has authenticated |
//! | `limits` | limits of client connections |
//! | `rate_limits` | limits of requests |
//! | `tls` | when handshakes end, and that nothing is left lying in a session |
//! | `streams` | requests over HTTP/2 that were refused or cut |
//! | `results` | what clients have received, against the records |

mod backend_streams;
mod causes;
mod chains;
mod choices;
mod cookies;
mod deadlines;
mod documented;
mod head_limits;
mod health;
mod homes;
mod identities;
mod limits;
mod rate_limits;
mod record;
mod results;
mod shares;
mod streams;
mod tls;

pub(crate) use self::documented::{check_local_reply, named_cause, reply_text};
pub(crate) use self::record::backend_of;

use crate::scenario::MS;

/// A timer may be late by this: the simulated worker's sleep ends up to 50 ms late, and the core counts in
/// steps of about a millisecond.
const LATE: u64 = 60 * MS;
