//! Reads a configuration file: from TOML text to a checked [`Config`], or to every error in it at once.
//!
//! [`parse`] is pure: it opens no file, so whether certificates and error pages exist is for the driver to
//! check. Every key, with its default, is in `testdata/configs/reference.toml`.
//!
//! The files import in one direction, from the top of this list to its end:
//!
//! | files | what they hold |
//! |---|---|
//! | `file` | [`parse`]: the order in which everything is read |
//! | `syntax` | errors of the TOML syntax, and what else can be read of such a file |
//! | `lint` | warnings that need more than one key to be seen |
//! | `pool`, `listeners`, `certificates` | readers of the file's large sections |
//! | `backends`, `backend_tls`, `strategy`, `health` | readers of the parts of a pool |
//! | `acme` | reader of a certificate's `ACME` |
//! | `settings`, `middlewares` | more of them |
//! | `reader` | typed access to TOML tables that goes on after an error |
//! | `literal`, `duration`, `base64url` | byte positions within TOML strings; durations with units; keys |
//! | `report` | collects diagnostics while reading |
//! | `model`, `middleware_settings` | the checked values: what everything else in the core reads |
//! | `template`, `substitution`, `tls_target`, `http2` | more of them |
//! | `environment`, `secrets` | variables in strings; what no diagnostic shows |
//! | `difference` | what a reload changes, in words |
//! | `credential_source`, `directory`, `user_list` | the same for who knows users and passwords |
//! | `file_ref` | files that middlewares read |
//! | `matcher` | the matcher language |
//! | `render` | diagnostics as text for a terminal |
//! | `address`, `keys`, `suggest` | texts of addresses; names of keys; "did you mean …?" |
//! | `diagnostic` | errors and warnings as data |

mod acme;
mod address;
mod backend_tls;
mod backends;
mod base64url;
mod certificates;
mod credential_source;
mod diagnostic;
mod difference;
mod directory;
mod duration;
mod environment;
mod file;
mod file_ref;
mod health;
mod http2;
mod keys;
mod lint;
mod listeners;
mod literal;
pub mod matcher;
mod middleware_settings;
mod middlewares;
mod model;
mod pool;
mod reader;
mod render;
mod report;
mod secrets;
mod settings;
mod strategy;
pub mod substitution;
mod suggest;
mod syntax;
pub mod template;
mod tls_target;
mod unix_socket;
mod user_list;

pub use credential_source::CredentialSource;
pub use diagnostic::{Diagnostic, Severity, Suggestion};
pub use difference::difference;
pub use directory::{BindPassword, Directory, DirectoryBind};
pub use environment::Environment;
pub use file::{parse, parse_in};
pub use http2::Http2;
pub use matcher::Matcher;
pub use middleware_settings::*;
pub use model::*;
pub use render::render;
pub use report::{BackendTlsPlaces, CertificatePlaces, HostName, MiddlewareFile, Parsed, Places};
pub use secrets::without_secrets;
pub use tls_target::{Alpn, BackendTls, ClientCertificate, TlsName, TlsTarget};
pub use user_list::{HashKind, PasswordHash, UserList};
