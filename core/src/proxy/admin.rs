//! The admin listener: whether the process lives, whether it may be sent traffic, and what it counts.

use http::{Method, StatusCode};

use crate::event::{LookupResult, Query};
use crate::http::RequestHead;
use crate::local_reply::{Body, LocalReply};

/// What a request to the admin listener gets.
pub(super) enum Page {
    Reply(LocalReply),
    /// What the driver knows.
    Lookup(Query),
}

/// The page of a request; `ready`: the process may be sent traffic.
pub(super) fn page(request: &RequestHead, ready: bool) -> Page {
    let text = |status, body| Page::Reply(LocalReply::text(status, body));
    match request.path() {
        _ if !matches!(*request.method(), Method::GET | Method::HEAD) => {
            // RFC 9110 §15.5.6: it has to say what would have been allowed.
            let reply = LocalReply::text(StatusCode::METHOD_NOT_ALLOWED, b"only GET and HEAD here\n");
            Page::Reply(reply.with_field("Allow", "GET, HEAD"))
        }
        b"/healthz" => text(StatusCode::OK, b"ok\n"),
        b"/readyz" if ready => text(StatusCode::OK, b"ready\n"),
        b"/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, b"not ready\n"),
        b"/metrics" => Page::Lookup(Query::Metrics),
        _ => Page::Reply(not_here()),
    }
}

/// What the driver found, as a page.
pub(super) fn found(result: &LookupResult) -> LocalReply {
    match result {
        LookupResult::Page { content_type, body } => {
            LocalReply { body: Body::Shared(body.clone()), content_type, ..LocalReply::new(StatusCode::OK) }
        }
        _ => not_here(),
    }
}

fn not_here() -> LocalReply {
    LocalReply::text(StatusCode::NOT_FOUND, b"not here: try /healthz or /readyz\n")
}
