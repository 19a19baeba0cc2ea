//! A security layer without cryptography: the same on every machine, and the same in every run of a seed.
//!
//! It has what the proxy's [`TlsWorld`](ruststrom_driver::tls::TlsWorld) has to cope with: records with a
//! type and a length, content that is masked and has a tag (so that plaintext that leaks, or a record that is
//! lost, repeated, cut or of another connection is noticed), handshakes of two versions with several flights,
//! server names, protocols to choose from, certificates with all that can be wrong with them, certificates of
//! clients, tickets behind the handshake, new keys that want an answer, alerts, and `close_notify`.
//!
//! | file | what it holds |
//! |---|---|
//! | `record` | records: how they are sealed and opened |
//! | `message` | the messages of a handshake as bytes |
//! | `endpoint` | one end of a connection |
//! | `layer` | the layer that the proxy uses: an endpoint as a session, with bounds drawn by the seed |

mod endpoint;
mod layer;
mod message;
mod record;

pub(crate) use self::endpoint::{ClientSide, Endpoint, Failure, Served, ServerSide};
pub(crate) use self::layer::{SessionStatus, SimLayer};
pub(crate) use self::message::{Alpn, CertificateKind, ClientHello, ServerHello, alert};
pub(crate) use self::record::MAX_CONTENT;
