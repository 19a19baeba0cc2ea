//! Our own page: whether the process lives and whether it may be sent traffic.

use crate::h1::ParsedRequest;
use crate::http::Method;

/// Status and body for a request to the metrics address.
pub(super) fn page(request: &ParsedRequest<'_>, ready: bool) -> (u16, &'static [u8]) {
    match request.target.path {
        _ if !matches!(request.method, Method::GET | Method::HEAD) => (405, b"only GET and HEAD here\n"),
        b"/healthz" => (200, b"ok\n"),
        b"/readyz" if ready => (200, b"ready\n"),
        b"/readyz" => (503, b"not ready\n"),
        _ => (404, b"not here: try /healthz or /readyz\n"),
    }
}
