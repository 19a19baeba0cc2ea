//! One body for each target. They panic where something is wrong.

// Paths are written out because the replay includes this file from elsewhere.
#[path = "bodies/accept_encoding.rs"]
mod accept_encoding;
#[path = "bodies/basic_credentials.rs"]
mod basic_credentials;
#[path = "bodies/chunked.rs"]
mod chunked;
#[path = "bodies/config.rs"]
mod config;
#[path = "bodies/connection.rs"]
mod connection;
#[path = "bodies/differential.rs"]
mod differential;
#[path = "bodies/far_end.rs"]
mod far_end;
#[path = "bodies/frames.rs"]
mod frames;
#[path = "bodies/h2_connection.rs"]
mod h2_connection;
#[path = "bodies/h2_frames.rs"]
mod h2_frames;
#[path = "bodies/h2_proxy.rs"]
mod h2_proxy;
#[path = "bodies/head.rs"]
mod head;
#[path = "bodies/hpack_decode.rs"]
mod hpack_decode;
#[path = "bodies/hpack_differential.rs"]
mod hpack_differential;
#[path = "bodies/hpack_round_trip.rs"]
mod hpack_round_trip;
#[path = "bodies/input.rs"]
mod input;
#[path = "bodies/matcher.rs"]
mod matcher;
#[path = "bodies/naive.rs"]
mod naive;
#[path = "bodies/play.rs"]
mod play;
#[path = "bodies/received.rs"]
mod received;
#[path = "bodies/restore.rs"]
mod restore;
#[path = "bodies/rewriting.rs"]
mod rewriting;
#[path = "bodies/words.rs"]
mod words;

#[allow(unused_imports, reason = "the replay makes the seeds")]
pub(crate) use connection::seed as connection_seed;

/// The targets by name.
pub(crate) const TARGETS: [&str; 17] = [
    "head",
    "chunked",
    "differential",
    "connection",
    "config",
    "matcher",
    "rewriting",
    "script",
    "accept_encoding",
    "basic_credentials",
    "hpack_decode",
    "hpack_round_trip",
    "hpack_differential",
    "h2_frames",
    "h2_connection",
    "h2_proxy",
    "restore",
];

/// Plays `data` through the body of a target.
///
/// # Panics
/// If a property is broken, or there is no such target.
pub(crate) fn run(target: &str, data: &[u8]) {
    match target {
        "head" => head::run(data),
        "chunked" => chunked::run(data),
        "differential" => differential::run(data),
        "connection" => connection::run(data),
        "config" => config::run(data),
        "matcher" => matcher::run(data),
        "rewriting" => rewriting::run(data),
        "script" => play::run(data),
        "accept_encoding" => accept_encoding::run(data),
        "basic_credentials" => basic_credentials::run(data),
        "hpack_decode" => hpack_decode::run(data),
        "hpack_round_trip" => hpack_round_trip::run(data),
        "hpack_differential" => hpack_differential::run(data),
        "h2_frames" => h2_frames::run(data),
        "h2_connection" => h2_connection::run(data),
        "h2_proxy" => h2_proxy::run(data),
        "restore" => restore::run(data),
        other => panic!("there is no target {other}"),
    }
}
