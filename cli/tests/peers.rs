//! Real peers: nginx as backends; curl, wrk, h2load, Python's `http.client`, `websockets` and `grpc` as
//! clients of the built binary. If a peer is not installed its tests fail with the name of its package.

#[path = "support/address.rs"]
mod address;
#[path = "peers/basics.rs"]
mod basics;
#[path = "support/client.rs"]
#[allow(dead_code, reason = "faults.rs uses the rest")]
mod client;
#[path = "support/daemon.rs"]
#[allow(dead_code, reason = "faults.rs uses the rest")]
mod daemon;
#[path = "peers/grpc.rs"]
mod grpc;
#[path = "peers/http2.rs"]
mod http2;
#[path = "support/nginx.rs"]
mod nginx;
#[path = "peers/outages.rs"]
mod outages;
#[path = "support/scripted_backend.rs"]
#[allow(dead_code, reason = "faults.rs uses the rest")]
mod scripted_backend;
#[path = "peers/upgrades.rs"]
mod upgrades;
#[path = "support/websocket_server.rs"]
mod websocket_server;
