//! What every driver of the core needs, whatever waits for its sockets.
//!
//! [`pump`] carries bytes between a [`Proxy`](ruststrom_core::Proxy) and a [`World`](world::World) of
//! sockets. [`turn`] is one turn of an event loop around it: events, commands from the [`mailbox`],
//! connections to accept, timers, the order of closing. The simulator runs both as well. [`workers`] and
//! [`worker`] run turns on threads of the process; an [`engine`] brings what waits for events, and
//! [`sockets`]: kernel sockets lie in a [`socket_table`].
//!
//! [`tls`] is what handshakes need: certificates, names, tickets. [`acme`] obtains certificates. [`auth`]
//! finds out whether names and passwords are good. [`watch`] tells when files have changed.
//!
//! [`listen`], [`inherited`], [`lookup`], [`services`], [`clock`], [`limits`] and [`stop`] are the rest of
//! the outside world as the core sees it. [`log_writer`], [`logger`], [`access_log`], [`access_target`] and
//! [`health_log`] carry lines out of the process without ever making a worker wait.
//! [`metrics`] counts, and makes the pages of the admin listener; [`daemon_observer`] is what a worker of the
//! daemon tells both.
//!
//! Imports go one way: `event`, `world` and `mailbox` know nothing of the others (but for what is counted),
//! `sockets` stands on them,
//! then `pump`, `acceptor`, `turn`, `worker`, `engine` and `workers`, each on those before it.
#![forbid(unsafe_code)]

pub mod acceptor;
pub mod access_log;
pub mod access_target;
pub mod acme;
pub mod auth;
pub mod clock;
pub mod daemon_observer;
pub mod engine;
pub mod event;
pub mod health_log;
pub mod inherited;
pub mod limits;
pub mod line;
pub mod listen;
pub mod log_writer;
pub mod logger;
pub mod lookup;
pub mod mailbox;
pub mod metrics;
pub mod observer;
mod planted;
pub mod pump;
pub mod services;
pub mod socket_table;
pub mod sockets;
pub mod stop;
pub mod tls;
pub mod turn;
pub mod watch;
pub mod worker;
pub mod workers;
pub mod world;
