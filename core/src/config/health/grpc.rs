//! `grpc`: a check by gRPC's own protocol.

use crate::config::diagnostic::clip;
use crate::config::model::{Backend, Http2Use};
use crate::config::reader::{self, Section};
use crate::config::report::Report;

/// Longest name of a service, in bytes.
const MAX_NAME_BYTES: usize = 255;
/// What is said of requests and responses that are not those of the protocol.
const OTHERS: &[&str] = &["path", "method", "expect", "body_contains"];

/// The name of the service that is asked for; an empty one is the server as a whole.
pub(super) fn service(s: &Section<'_>, backends: &[Backend], report: &mut Report<'_>) -> Option<Box<str>> {
    let value = s.get("grpc")?;
    if value.get_ref().as_bool() == Some(true) {
        report.mistyped(value, "`grpc`", "the name of a service").help =
            Some("\"\" is the server as a whole".into());
        return None;
    }
    let service = reader::string(value, "`grpc`", report)?;
    let is_name = |b: u8| b.is_ascii_graphic() && b != b'/';
    if service.len() > MAX_NAME_BYTES || !service.bytes().all(is_name) {
        let message = format!("\"{}\" is not the name of a service", clip(service));
        report.error(value.span(), message).help =
            Some("it is a name like \"shop.v1.Orders\", or \"\" for the server as a whole".into());
        return None;
    }
    for key in OTHERS.iter().filter(|key| s.get(key).is_some()) {
        let message = format!("`{key}` has no meaning for a check by gRPC");
        report.error(s.key_span(key), message).help = Some("leave it out".into());
    }
    if let Some(plain) = backends.iter().find(|backend| backend.protocol.http2() == Http2Use::Never) {
        let label = clip(&plain.label);
        let message = format!("gRPC needs HTTP/2, which is not spoken to backend \"{label}\"");
        report.error(value.span(), message).help =
            Some("gRPC is spoken to addresses with `h2c://`, or with `https://`".into());
        return None;
    }
    Some(service.into())
}
