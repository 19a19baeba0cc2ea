//! What would become of a request, and why: which pool takes it and why none before it does, what each
//! middleware does to it, which backend it goes to, and what its client gets.
//!
//! Nothing is judged a second time here. The request passes through a real [`Proxy`](crate::Proxy) with one
//! shard whose sockets are byte buffers (`rehearsal`); its middlewares are the real ones, each with a
//! witness around it (`witness`); matchers are evaluated by what routes, backends chosen by what balances.
//! What only a running daemon knows is taken as it is after a start: no backend has been checked, no client
//! counted, nothing is in flight. What would have to be asked of others (directories, lists of passwords,
//! names) is taken to be answered well, and said so.

mod asked;
mod choice;
mod rehearsal;
mod settings;
mod text;
mod told;
mod witness;

use std::net::IpAddr;

use serde::Serialize;

pub use asked::{Asked, Problem};
pub use choice::{BackendChoice, Candidate, How, OtherStrategy};
use rehearsal::Rehearsal;

use crate::cause::Cause;
use crate::config::Config;
use crate::route::PoolVerdict;

/// What would become of a request. It prints as text for people, and serializes for programs.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The request as the proxy understands it.
    pub request: Request,
    /// What each pool says of it, in file order up to the one that takes it. Empty if no pool was asked.
    pub pools: Vec<Pool>,
    /// The name of the pool that takes it.
    pub pool: Option<String>,
    /// The pool's middlewares in file order, and what each does to the request.
    pub middlewares: Vec<Middleware>,
    /// The backend that gets it; `None` if it comes to none.
    pub choice: Option<BackendChoice>,
    /// The head that the backend gets, line by line.
    pub to_backend: Vec<String>,
    /// What the backend is taken to respond, line by line.
    pub backend_response: Vec<String>,
    /// The middlewares that the response passes, in their order, and what each does to it.
    pub response_middlewares: Vec<Middleware>,
    /// The head that the client gets, line by line.
    pub to_client: Vec<String>,
    /// What the proxy responds by itself; `None` if a backend is asked.
    pub local_reply: Option<Reply>,
}

/// A request as the proxy understands it.
#[derive(Clone, Debug, Serialize)]
pub struct Request {
    /// The method.
    pub method: String,
    /// `http` or `https`, by the listener.
    pub scheme: &'static str,
    /// The name of the listener.
    pub listener: String,
    /// Its address.
    pub address: String,
    /// The host that was asked for.
    pub host: String,
    /// The target as it was sent.
    pub sent_target: String,
    /// The normalised target, which everything goes by; `None` if the head was not understood.
    pub target: Option<String>,
    /// Who is connected.
    pub peer: IpAddr,
    /// Whether the peer is one of `trusted_proxies`.
    pub peer_is_trusted: bool,
    /// The client: the peer, or whom a trusted one speaks for.
    pub client: IpAddr,
}

/// What a pool says of a request.
#[derive(Clone, Debug, Serialize)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// It is the one that takes the request.
    pub takes: bool,
    /// Its conditions.
    #[serde(flatten)]
    pub verdict: PoolVerdict,
}

/// A middleware on the way of a request or a response.
#[derive(Clone, Debug, Serialize)]
pub struct Middleware {
    /// Its name in the configuration.
    pub name: &'static str,
    /// How it is set up, in short.
    pub settings: String,
    /// The message comes to it: nothing before it has responded.
    pub reached: bool,
    /// What it does, a line each.
    pub does: Vec<String>,
}

/// A response that the proxy makes itself.
#[derive(Clone, Debug, Serialize)]
pub struct Reply {
    /// Its status; 0 if there is none, because the handshake of TLS fails.
    pub status: u16,
    /// The [cause](Cause) in the log and the response; `None` if a middleware wants it so.
    pub cause: Option<&'static str>,
    /// What that means.
    pub why: String,
}

impl Reply {
    fn of(cause: Cause) -> Self {
        let why = match cause {
            Cause::BadRequest(violation) => violation.meaning(),
            Cause::NoRoute => "No pool takes the request.".into(),
            Cause::NoBackend => "The pool has no usable backend.".into(),
            other => other.name().replace('_', " "),
        };
        Self { status: cause.status(), cause: Some(cause.name()), why }
    }
}

/// Explains what a daemon with this configuration does with a request, right after its start.
///
/// # Errors
/// If nothing can be sent that way: an URL that is none, no listener for it.
pub fn explain(config: &Config, asked: &Asked<'_>) -> Result<Explanation, Problem> {
    let sent = asked.sent(config)?;
    let seen = Rehearsal::of(config, &sent).run();
    Ok(told::told(config, &sent, &seen))
}
