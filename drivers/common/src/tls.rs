//! TLS on both sides: [`TlsWorld`] around any world of sockets, and rustls as its security layer.
//!
//! | files | what they hold |
//! |---|---|
//! | [`world`] | carries bytes between the pump, the session of each secured connection, and the sockets |
//! | [`layer`] | what a security layer is to the world; the simulator has one of its own |
//! | [`session`] | the layer that rustls is |
//! | [`server`] | a `rustls::ServerConfig` for each certificate, chosen by the name that a client asks for |
//! | [`shared_client`] | what is known of backends, replaced by a reload |
//! | [`shared_server`] | those certificates, replaced while they are served |
//! | [`client`] | a `rustls::ClientConfig` for each backend with `https://` |
//! | `alert` | names of alerts, for logs |
//! | `fault` | what an error of rustls means for a connection to a backend |
//! | `roots` | the authorities that backends' certificates have to be signed by |
//! | `verify` | whether a backend's certificate is believed |
//! | `unverified` | `verify = false` |
//! | `certificate` | a certificate's files, read and checked |
//! | `authority` | the file of those that sign the certificates of clients |
//! | `tickets` | keys of session tickets, kept over reloads |
//! | [`subject`] | the subject of a certificate as one line |
//! | `pem` | one PEM file, cut into its sections |
//! | [`problem`] | what is wrong with a file, and which value of the configuration names it |
//! | [`provider`] | the cryptography that everything here uses |

mod alert;
mod authority;
mod certificate;
pub mod client;
mod fault;
pub mod layer;
mod pem;
pub mod problem;
pub mod provider;
pub(crate) mod roots;
pub mod server;
pub mod session;
pub mod shared_client;
pub mod shared_server;
pub mod subject;
#[cfg(test)]
mod test_files;
mod tickets;
mod unverified;
mod verify;
pub mod world;

pub use world::TlsWorld;
