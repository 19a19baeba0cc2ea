//! RustStrom's core: everything that decides, nothing that touches the world.
#![forbid(unsafe_code)]

pub mod balance;
pub mod cause;
pub mod config;
mod conn;
pub mod h1;
pub mod health;
pub mod http;
mod id;
mod local_reply;
pub mod middleware;
pub mod observe;
pub mod page;
#[cfg_attr(feature = "planted", doc(hidden))]
#[cfg(feature = "planted")]
pub mod planted;
#[cfg(not(feature = "planted"))]
mod planted;
pub mod pool;
pub mod proxy;
pub mod rng;
pub mod route;
pub mod shared;
pub mod slab;
mod sync;
mod time;
pub mod wheel;

pub use cause::Cause;
pub use config::Config;
pub use id::{ConnId, ListenerId, LookupId};
pub use observe::Observer;
pub use proxy::{Accepted, Effect, Fault, Listed, LookupResult, Proxy, Query, Refused, Transmit, Wants};
pub use shared::Shared;
pub use time::{Instant, Wall};
