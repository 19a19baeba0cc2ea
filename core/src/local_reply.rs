//! The responses that the proxy makes itself: errors with their cause, what middlewares reply, and the pages
//! of the admin listener.

use std::sync::Arc;

use http::StatusCode;

use crate::cause::Cause;
use crate::event::TlsFault;
use crate::http::{HeadFull, ResponseHead, reason_phrase};

/// A response that no backend made. Framing, `Date` and `Connection` are added when it is sent.
#[derive(Clone, Debug)]
pub struct LocalReply {
    /// Its status.
    pub status: StatusCode,
    /// Why, if the proxy could not serve the request: for the log, `Proxy-Status` and the text.
    pub cause: Option<Cause>,
    /// Further fields.
    pub fields: Vec<(Box<str>, Box<str>)>,
    /// Its content. Without one, a cause makes a line of text.
    pub body: Body,
    /// The media type of the content, if there is any.
    pub content_type: &'static str,
}

/// Content that lies in memory already.
#[derive(Clone, Debug, Default)]
pub enum Body {
    /// None.
    #[default]
    Empty,
    /// As long as the process lives.
    Static(&'static [u8]),
    /// Shared with others.
    Shared(Arc<[u8]>),
    /// For this response alone.
    Owned(Vec<u8>),
}

impl Body {
    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Empty => &[],
            Self::Static(bytes) => bytes,
            Self::Shared(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// Plain text.
const TEXT: &str = "text/plain; charset=utf-8";
/// Seconds after which a client may try again when no backend could serve it.
const RETRY_AFTER_SECS: &str = "1";

impl LocalReply {
    /// An empty one.
    #[must_use]
    pub fn new(status: StatusCode) -> Self {
        Self { status, cause: None, fields: Vec::new(), body: Body::Empty, content_type: TEXT }
    }

    /// A line of text.
    #[must_use]
    pub fn text(status: StatusCode, body: &'static [u8]) -> Self {
        Self { body: Body::Static(body), ..Self::new(status) }
    }

    /// The error of this cause.
    #[must_use]
    pub fn error(cause: Cause) -> Self {
        let status = StatusCode::from_u16(cause.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { cause: Some(cause), ..Self::new(status) }
    }

    /// Adds a field.
    #[must_use]
    pub fn with_field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    /// Writes its head, and gives its content, which may be made of the cause.
    pub(crate) fn into_parts(self, head: &mut ResponseHead) -> Result<Body, HeadFull> {
        let body = match (&self.body, self.cause) {
            (Body::Empty, Some(cause)) => Body::Owned(cause_text(self.status, cause)),
            _ => self.body,
        };
        let len = body.bytes().len();
        head.begin(self.status, len as u64);
        if len > 0 {
            head.add_field(b"Content-Type", self.content_type.as_bytes())?;
        }
        if let Some(cause) = self.cause {
            let (kind, details) = (error_type(cause), cause.name());
            let status = ["rust-strom; error=", kind, "; details=\"", details, "\""].concat();
            head.add_field(b"Proxy-Status", status.as_bytes())?;
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE && !crate::planted::planted!(68) {
            head.add_field(b"Retry-After", RETRY_AFTER_SECS.as_bytes())?;
        }
        for (name, value) in &self.fields {
            head.set_field(name.as_bytes(), value.as_bytes())?;
        }
        Ok(body)
    }
}

/// "503 Service Unavailable: no_backend\n".
fn cause_text(status: StatusCode, cause: Cause) -> Vec<u8> {
    [status.as_str().as_bytes(), b" ", reason_phrase(status), b": ", cause.name().as_bytes(), b"\n"].concat()
}

/// The error type that RFC 9209 §2.3 has registered for it.
fn error_type(cause: Cause) -> &'static str {
    match cause {
        Cause::BadRequest(_) | Cause::ClientClosed => "http_request_error",
        Cause::HeadTimeout | Cause::ClientStalled => "http_request_error",
        Cause::NoRoute => "destination_not_found",
        Cause::NoBackend => "destination_unavailable",
        Cause::QueueFull | Cause::QueueTimeout => "connection_limit_reached",
        Cause::LookupFailed | Cause::NoPages | Cause::Drained | Cause::ConnectFailed => {
            "proxy_internal_error"
        }
        Cause::ConnectRefused | Cause::ConnectNoSocket | Cause::ConnectDenied | Cause::ConnectBacklogFull => {
            "connection_refused"
        }
        Cause::ConnectUnreachable => "destination_ip_unroutable",
        Cause::ConnectTimeout => "connection_timeout",
        Cause::BackendTls(fault) => match fault {
            TlsFault::UnknownCa
            | TlsFault::WrongName
            | TlsFault::Expired
            | TlsFault::NotYetValid
            | TlsFault::BadCertificate => "tls_certificate_error",
            TlsFault::ClientCertificate | TlsFault::Refused => "tls_alert_received",
            TlsFault::NotTls | TlsFault::Protocol => "tls_protocol_error",
            TlsFault::Closed => "connection_terminated",
        },
        Cause::BackendClosed | Cause::BackendReset => "connection_terminated",
        Cause::NoWebSockets => "http_upgrade_failed",
        Cause::BadResponse(_) => "http_protocol_error",
        Cause::BackendTimeout | Cause::DeadlineExceeded => "http_response_timeout",
        Cause::ResponseTruncated => "http_response_incomplete",
        Cause::BackendLost | Cause::BackendStalled | Cause::TunnelTimeout => "connection_read_timeout",
    }
}
