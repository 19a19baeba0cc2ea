//! What every driver of the core needs, whatever waits for its sockets.
//!
//! [`pump`] carries bytes between a [`Proxy`](ruststrom_core::Proxy) and a [`World`](pump::World) of sockets
//! and is all that a driver has of logic. [`crew`] and [`worker`] run it on threads; an [`engine`] brings the
//! waiting and the sockets. [`listen`], [`lookup`], [`errands`], [`clock`], [`limits`] and [`stop`] are the
//! rest of the world as the core sees it; [`sink`], [`journal`] and [`access_log`] carry lines out of
//! the process without ever making a worker wait.
#![forbid(unsafe_code)]

mod acceptor;
pub mod access_log;
pub mod clock;
pub mod crew;
pub mod engine;
pub mod errands;
mod inbox;
pub mod journal;
pub mod limits;
pub mod line;
pub mod listen;
pub mod lookup;
pub mod pump;
pub mod sink;
pub mod stop;
pub mod watch;
pub mod worker;
