//! The answers we make ourselves: errors with their cause, and the admin page's few words.

use crate::cause::Cause;
use crate::http::StatusCode;

/// How an answer of our own is to look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own<'a> {
    pub(crate) status: u16,
    pub(crate) cause: Option<Cause>,
    pub(crate) body: &'a [u8],
    /// Body bytes are announced but not sent (RFC 9110 §9.3.2).
    pub(crate) head_only: bool,
    /// The connection may carry another request after it.
    pub(crate) keep_alive: bool,
    /// Of the request: 10 or 11, 0 if unknown.
    pub(crate) version: u8,
    pub(crate) date: &'a [u8; 29],
}

/// Seconds after which a client may try again when we had no backend for it.
const RETRY_AFTER_SECS: &[u8] = b"1";

/// Writes the whole answer; returns how much of it is body.
pub(crate) fn write(own: &Own<'_>, out: &mut Vec<u8>) -> usize {
    let reason = reason(own.status);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(own.status).as_bytes());
    let cause = own.cause.map_or("", Cause::name).as_bytes();
    let content_type: &[u8] = if cause.is_empty() && own.body.is_empty() {
        b""
    } else {
        b"\r\nContent-Type: text/plain; charset=utf-8"
    };
    for part in [b" ", reason, b"\r\nDate: ", own.date, content_type, b"\r\nContent-Length: "] {
        out.extend_from_slice(part);
    }
    // "503 Service Unavailable: no_backend\n", or the words given.
    let body_len = if cause.is_empty() { own.body.len() } else { 4 + reason.len() + 2 + cause.len() + 1 };
    out.extend_from_slice(itoa::Buffer::new().format(body_len).as_bytes());
    if let Some(c) = own.cause {
        for part in
            [b"\r\nProxy-Status: rust-strom; error=", error_type(c).as_bytes(), b"; details=\"", cause, b"\""]
        {
            out.extend_from_slice(part);
        }
    }
    if own.status == 405 {
        // RFC 9110 §15.5.6: it has to say what would have been allowed. Only our own page answers so.
        out.extend_from_slice(b"\r\nAllow: GET, HEAD");
    }
    if own.status == 503 {
        out.extend_from_slice(b"\r\nRetry-After: ");
        out.extend_from_slice(RETRY_AFTER_SECS);
    }
    out.extend_from_slice(match (own.keep_alive, own.version) {
        (false, _) => b"\r\nConnection: close\r\n\r\n",
        (true, 10) => b"\r\nConnection: keep-alive\r\n\r\n",
        (true, _) => b"\r\n\r\n",
    });
    if own.head_only {
        return 0;
    }
    if cause.is_empty() {
        out.extend_from_slice(own.body);
    } else {
        out.extend_from_slice(itoa::Buffer::new().format(own.status).as_bytes());
        for part in [b" ", reason, b": ", cause, b"\n"] {
            out.extend_from_slice(part);
        }
    }
    body_len
}

/// The registered phrase of each status that we send.
fn reason(status: u16) -> &'static [u8] {
    match status {
        // RFC 9110 §15.5.14; the http crate has the older "Payload Too Large".
        413 => b"Content Too Large",
        _ => {
            StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("Error").as_bytes()
        }
    }
}

/// The error type that RFC 9209 §2.3 has registered for it.
fn error_type(cause: Cause) -> &'static str {
    match cause {
        Cause::BadRequest(_) | Cause::ClientGone => "http_request_error",
        Cause::HeadTimeout | Cause::ClientStalled => "http_request_error",
        Cause::NoRoute => "destination_not_found",
        Cause::NoBackend => "destination_unavailable",
        Cause::QueueFull | Cause::QueueTimeout => "connection_limit_reached",
        Cause::LookupFailed | Cause::NoPages | Cause::Drained | Cause::ConnectFailed => {
            "proxy_internal_error"
        }
        Cause::ConnectRefused => "connection_refused",
        Cause::ConnectUnreachable => "destination_ip_unroutable",
        Cause::ConnectTimeout => "connection_timeout",
        Cause::BackendClosed | Cause::BackendReset => "connection_terminated",
        Cause::BadResponse(_) => "http_protocol_error",
        Cause::BackendTimeout => "http_response_timeout",
        Cause::ResponseTruncated => "http_response_incomplete",
        Cause::BackendStalled | Cause::TunnelTimeout => "connection_read_timeout",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_why_in_words_and_in_fields() {
        let date = b"Sun, 06 Nov 1994 08:49:37 GMT";
        let table = [
            (
                Own {
                    status: 503,
                    cause: Some(Cause::NoBackend),
                    body: b"",
                    head_only: false,
                    keep_alive: false,
                    version: 11,
                    date,
                },
                "HTTP/1.1 503 Service Unavailable\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: text/plain; charset=utf-8\r\n\
                 Content-Length: 36\r\nProxy-Status: rust-strom; error=destination_unavailable; details=\"no_backend\"\r\nRetry-After: 1\r\n\
                 Connection: close\r\n\r\n503 Service Unavailable: no_backend\n",
            ),
            (
                Own {
                    status: 502,
                    cause: Some(Cause::ConnectRefused),
                    body: b"",
                    head_only: true,
                    keep_alive: true,
                    version: 11,
                    date,
                },
                "HTTP/1.1 502 Bad Gateway\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: text/plain; charset=utf-8\r\n\
                 Content-Length: 33\r\nProxy-Status: rust-strom; error=connection_refused; details=\"connect_refused\"\r\n\r\n",
            ),
            (
                Own {
                    status: 200,
                    cause: None,
                    body: b"ok\n",
                    head_only: false,
                    keep_alive: true,
                    version: 11,
                    date,
                },
                "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 3\r\n\r\nok\n",
            ),
            (
                Own {
                    status: 405,
                    cause: None,
                    body: b"no\n",
                    head_only: false,
                    keep_alive: true,
                    version: 11,
                    date,
                },
                "HTTP/1.1 405 Method Not Allowed\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: text/plain; charset=utf-8\r\n\
                 Content-Length: 3\r\nAllow: GET, HEAD\r\n\r\nno\n",
            ),
        ];
        for (own, expected) in table {
            let mut out = Vec::new();
            write(&own, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
