//! The whole core as tables: what comes in, what time it is, and what must come out, through the facade
//! alone.

#[path = "proxy/backend_tls.rs"]
mod backend_tls;
#[path = "proxy/bound.rs"]
mod bound;
#[path = "proxy/causes.rs"]
mod causes;
#[path = "proxy/challenges.rs"]
mod challenges;
#[path = "proxy/choice.rs"]
mod choice;
#[path = "proxy/endpoints.rs"]
mod endpoints;
#[path = "proxy/lenient.rs"]
mod lenient;
#[path = "proxy/life.rs"]
mod life;
#[path = "proxy/limits.rs"]
mod limits;
#[path = "proxy/observer.rs"]
mod observer;
#[path = "proxy/queue.rs"]
mod queue;
#[path = "proxy/random.rs"]
mod random;
#[path = "proxy/records.rs"]
mod records;
#[path = "proxy/retries.rs"]
mod retries;
#[path = "proxy/script.rs"]
mod script;
#[path = "proxy/secured.rs"]
mod secured;
#[path = "proxy/serve.rs"]
mod serve;
#[path = "proxy/turn.rs"]
mod turn;
#[path = "proxy/unix_sockets.rs"]
mod unix_sockets;
#[path = "proxy/world.rs"]
mod world;
