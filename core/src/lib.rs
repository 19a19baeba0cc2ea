//! RustStrom's core: a load balancer for HTTP as one value that decides everything and touches nothing. It
//! has no socket, clock, thread, file or log; a *driver* moves the bytes, tells the time and obeys. The same
//! [`Proxy`] runs on mio, on smol, in the simulator, under the fuzzer and in benchmarks.
//!
//! # The contract with a driver
//!
//! Each worker thread has one [`Proxy`]: a shard. `handle_*` takes what the world did, `poll_*` hands out
//! what to do, plain names only look.
//!
//! 1. **One input** goes in: [`Proxy::handle_accept`], [`Proxy::handle_recv`], [`Proxy::handle_sent`],
//!    [`Proxy::handle_timeout`], …
//! 2. **Then both queues are drained until they are empty**: [`Proxy::poll_conn`] names connections to look
//!    at, [`Proxy::poll_effect`] what else to do ([`Effect::Connect`], [`Effect::Close`], [`Effect::Lookup`],
//!    …).
//! 3. **Then [`Proxy::poll_timeout`]** says when `handle_timeout` is due. Late or repeated calls do nothing.
//!
//! What a connection wants of its socket is derived from its state by [`Proxy::wants`], never stored. Buffers
//! are lent: [`Proxy::recv_buf`] lends room to read into (no room: do not read now), [`Proxy::transmit`]
//! lends slices of the bytes where they lie; `handle_recv` and `handle_sent` say how much of it was used: a
//! body passes from one HTTP/1.1 connection to another without being copied, unless it is short enough to
//! join its head. Ids of connections that have gone are stale, and ignored.
//!
//! # One request's way
//!
//! ```text
//!   client's socket                                                            backend's socket
//!        │ handle_accept   proxy/accept     caps, deadlines                           ▲
//!        ▼ handle_recv     h1::conn         the head is parsed, the body decoded      │
//!   http::RequestHead      kept by the exchange, whatever wire it came by             │
//!        ▼                 proxy/request    route finds the pool                      │
//!        ▼                 proxy/chain      the pool's middlewares, in file order     │ handle_sent
//!        ▼                 balance          which backend, by proxy/choose            │
//!        ▼                 proxy/choose     an idle connection of pool, or Connect    │
//!        └────────────────▶ h1::write       the head made anew ▶ proxy/transfer ──────┘
//!
//!        ┌──── proxy/transfer ◀ h1::write ◀ proxy/chain (in reverse) ◀ proxy/response ◀ handle_recv
//!        ▼ handle_sent     proxy/end        record, counters, connections kept or closed
//! ```
//!
//! # The rooms
//!
//! | module | what it is |
//! |---|---|
//! | `event`, `endpoint` | what goes in and out of a [`Proxy`], where connections lead; re-exported here |
//! | `time`, `id` | [`Instant`], [`Wall`]; ids with epochs; re-exported here |
//! | [`slab`], [`wheel`], [`rng`], `sync` | table of ids, timing wheel, seeded generator, atomics for loom |
//! | [`page`], `buffer` | the capped memory for bytes on their way; what of a page is received and decoded |
//! | [`config`] | from a file's text to a checked [`Config`], or to every error in it at once |
//! | [`mod@http`] | what all wires share: heads, fields, framing, targets, dates, broken rules |
//! | [`h1`] | HTTP/1.1: parsing, bodies, what may follow what, writing, one connection |
//! | [`h2`] | HTTP/2: frames, field compression, streams and windows, budgets, one connection |
//! | [`grpc`] | what calls of gRPC ask of a proxy: statuses of errors, deadlines |
//! | [`wire`] | what a socket speaks: HTTP/1.1, a tunnel, or a protocol of many streams |
//! | `conn` | one socket's state: its role (client, backend, probe), wire and deadline |
//! | [`proxy`] | [`Proxy`]; its files put all of this together, a step of the way each |
//! | [`route`] | which pool takes a request |
//! | [`middleware`] | the contract of middlewares, and how a pool's chain is made from its configuration |
//! | [`balance`] | which backend of the pool gets it |
//! | [`health`] | whether a backend may get traffic, and when it is probed |
//! | [`pool`] | idle connections to backends |
//! | [`shared`] | what the shards of a process share; nothing else is |
//! | [`local_reply`], [`cause`] | responses that the proxy makes itself, and why |
//! | [`acme`] | certificates that are obtained by themselves: what is asked of an authority, and when |
//! | [`observe`] | what a driver logs and counts: one record for each exchange |
//! | [`mod@explain`] | what would become of a request, and why: it passes through a [`Proxy`] of its own |
//! | `planted` | bugs for the simulator to find; compiled in for its tests only |
//!
//! Modules import each other in one direction: `proxy` all others, none of them `proxy` but `explain`. A test
//! holds it.
//!
//! # Example
//!
//! A driver whose sockets are byte buffers:
//!
//! ```
//! use ruststrom_core::config::{self, ListenerKind};
//! use ruststrom_core::observe::{HealthChange, Level, Record};
//! use ruststrom_core::{Accepted, ConnId, Effect, Instant, ListenerId, Observer, Proxy, Shared};
//! use std::sync::Arc;
//!
//! struct Log;
//! impl Observer for Log {
//!     fn exchange(&mut self, record: &Record<'_>) {
//!         println!("{} by {}", record.status, record.backend);
//!     }
//!     fn health(&mut self, _: &HealthChange<'_>) {}
//!     fn note(&mut self, _: Level, _: &str) {}
//! }
//!
//! const NOW: Instant = Instant::from_millis(0);
//!
//! fn receive(proxy: &mut Proxy<Log>, c: ConnId, bytes: &[u8]) -> Vec<Effect> {
//!     assert!(proxy.wants(c).recv);
//!     proxy.recv_buf(c)[..bytes.len()].copy_from_slice(bytes);
//!     proxy.handle_recv(c, bytes.len(), NOW);
//!     drain(proxy)
//! }
//!
//! fn send(proxy: &mut Proxy<Log>, c: ConnId) -> String {
//!     let bytes = proxy.transmit(c).slices().iter().flat_map(|slice| slice.to_vec()).collect::<Vec<u8>>();
//!     proxy.handle_sent(c, bytes.len(), NOW);
//!     drain(proxy);
//!     String::from_utf8(bytes).unwrap()
//! }
//!
//! fn drain(proxy: &mut Proxy<Log>) -> Vec<Effect> {
//!     while let Some(_ready) = proxy.poll_conn() {} // here a driver reads from and writes to its socket
//!     std::iter::from_fn(|| proxy.poll_effect()).collect()
//! }
//!
//! let text = "http_address = '127.0.0.1:80'\n[health_interval]\ncheck_every = 0\n\
//!             [[backend_pools]]\naddresses = ['127.0.0.1:8080']";
//! let config = Arc::new(config::parse(text).config.unwrap());
//! let mut proxy = Proxy::new(config, Arc::new(Shared::new("lb", 1)), 0, 1, Log, NOW);
//! let (peer, local) = ("192.0.2.7:5000".parse().unwrap(), "127.0.0.1:80".parse().unwrap());
//! let accepted = Accepted { listener: ListenerId(0), kind: ListenerKind::Http, peer, local };
//! let client = proxy.handle_accept(&accepted, NOW).unwrap();
//!
//! let effects = receive(&mut proxy, client, b"GET /hello HTTP/1.1\r\nHost: example.com\r\n\r\n");
//! let [Effect::Connect { conn: backend, ref to, tls: None }] = effects[..] else { panic!("{effects:?}") };
//! assert_eq!(to.to_string(), "127.0.0.1:8080");
//! proxy.handle_connected(backend, NOW);
//! drain(&mut proxy);
//! assert!(send(&mut proxy, backend).starts_with("GET /hello HTTP/1.1\r\nHost: example.com\r\n"));
//!
//! receive(&mut proxy, backend, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
//! let response = send(&mut proxy, client);
//! assert_eq!(response.lines().next(), Some("HTTP/1.1 200 OK"));
//! assert!(response.ends_with("\r\n\r\nhello"));
//! assert!(proxy.poll_timeout().is_some(), "the client may be idle for so long");
//! ```
#![forbid(unsafe_code)]

pub mod acme;
pub mod balance;
mod buffer;
pub mod cause;
pub mod config;
mod conn;
mod endpoint;
mod event;
pub mod explain;
pub mod grpc;
pub mod h1;
pub mod h2;
pub mod health;
pub mod http;
mod id;
pub mod local_reply;
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
mod secret;
pub mod shared;
pub mod slab;
mod sync;
mod time;
pub mod wheel;
pub mod wire;

pub use cause::Cause;
pub use config::Config;
pub use endpoint::Endpoint;
pub use event::{
    Accepted, Effect, Fault, LookupResult, Negotiated, Query, Ready, Refused, TimeoutReason, TlsFault,
    Transmit, Waiting, Wanted, Wants,
};
pub use id::{ConnId, ListenerId, LookupId};
pub use observe::Observer;
pub use proxy::Proxy;
pub use secret::Secret;
pub use shared::Shared;
pub use time::{Instant, UnixSecs, Wall};
