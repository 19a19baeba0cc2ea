//! The contract of middlewares, proven by middlewares that only tests have: over HTTP/1.1, over a protocol of
//! many streams, and from each to the other.

#[path = "middlewares/authentication.rs"]
mod authentication;
#[path = "middlewares/bodies.rs"]
mod bodies;
#[path = "middlewares/compression.rs"]
mod compression;
#[path = "middlewares/context.rs"]
mod context;
#[path = "middlewares/error_pages.rs"]
mod error_pages;
#[path = "middlewares/flushes.rs"]
mod flushes;
#[path = "middlewares/headers.rs"]
mod headers;
#[path = "middlewares/hooks.rs"]
mod hooks;
#[path = "middlewares/https_redirector.rs"]
mod https_redirector;
#[path = "middlewares/ip_filter.rs"]
mod ip_filter;
#[path = "middlewares/lookups.rs"]
mod lookups;
#[path = "middlewares/max_body_size.rs"]
mod max_body_size;
#[path = "middlewares/rate_limiter.rs"]
mod rate_limiter;
#[path = "middlewares/replies.rs"]
mod replies;
#[path = "middlewares/rewriting.rs"]
mod rewriting;
mod toy_wire;
mod two_wires;
