//! The admin listener: whether the process lives, whether it may be sent traffic, what it counts, and how
//! everything is.

use http::{Method, StatusCode};

use crate::event::{LookupResult, Query};
use crate::http::{RequestHead, weight};
use crate::local_reply::{Body, LocalReply};

/// What a request to the admin listener gets.
pub(super) enum Page {
    Reply(LocalReply),
    /// What the driver knows.
    Lookup(Query),
}

/// Whether the process may be sent traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    /// Not every backend has been checked once.
    Starting,
    Ready,
    /// It is about to end.
    Leaving,
}

/// The page of a request.
pub(super) fn page(request: &RequestHead, readiness: Readiness) -> Page {
    let text = |status, body| Page::Reply(LocalReply::text(status, body));
    match request.path() {
        _ if !matches!(*request.method(), Method::GET | Method::HEAD) => {
            // RFC 9110 §15.5.6: it has to say what would have been allowed.
            let reply = LocalReply::text(StatusCode::METHOD_NOT_ALLOWED, b"only GET and HEAD here\n");
            Page::Reply(reply.with_field("Allow", "GET, HEAD"))
        }
        b"/healthz" => text(StatusCode::OK, b"ok\n"),
        b"/readyz" => match readiness {
            Readiness::Ready => text(StatusCode::OK, b"ready\n"),
            Readiness::Starting => text(StatusCode::SERVICE_UNAVAILABLE, b"not ready\n"),
            Readiness::Leaving => text(StatusCode::SERVICE_UNAVAILABLE, b"leaving\n"),
        },
        b"/metrics" => Page::Lookup(Query::Metrics { open_metrics: accepts_open_metrics(request) }),
        b"/status" => Page::Lookup(Query::Status),
        _ => text(StatusCode::NOT_FOUND, b"not here: try /healthz, /readyz, /metrics or /status\n"),
    }
}

/// Whether `Accept` (RFC 9110 §12.5.1) names the media type of OpenMetrics, and prefers no other one of text.
fn accepts_open_metrics(request: &RequestHead) -> bool {
    let (mut open, mut plain) = (0, 0);
    for range in request.fields().named(b"accept").flat_map(|value| value.split(|b| *b == b',')) {
        let mut parts = range.split(|b| *b == b';');
        let name = parts.next().unwrap_or_default().trim_ascii();
        let weight = weight(parts);
        if name.eq_ignore_ascii_case(b"application/openmetrics-text") {
            open = open.max(weight);
        } else if name.eq_ignore_ascii_case(b"text/plain") {
            plain = plain.max(weight);
        }
    }
    open > 0 && open >= plain
}

/// What the driver found, as a page.
pub(super) fn found(result: &LookupResult) -> LocalReply {
    let reply = match result {
        LookupResult::Page { content_type, body } => {
            LocalReply { body: Body::Shared(body.clone()), content_type, ..LocalReply::new(StatusCode::OK) }
        }
        LookupResult::Failed(why) => LocalReply {
            body: Body::Owned([why.as_bytes(), b"\n"].concat()),
            ..LocalReply::new(StatusCode::SERVICE_UNAVAILABLE)
        },
        _ => LocalReply::text(StatusCode::INTERNAL_SERVER_ERROR, b"no page was found\n"),
    };
    // What is counted is of this moment.
    reply.with_field("Cache-Control", "no-store")
}
