//! The rules of HTTP that a message can break: one closed set for local replies, logs and metrics.

use super::StatusCode;

/// Declares the set once: variant, stable name, status.
macro_rules! violations {
    ($($(#[doc = $doc:literal])+ $variant:ident $name:literal $status:ident;)+) => {
        /// A rule of HTTP that a message broke.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Violation {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Violation {
            /// Every rule, in the order of declaration.
            pub const ALL: &'static [Violation] = &[$(Violation::$variant,)+];

            /// The name in metrics and logs: short, stable, `snake_case`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What was done, in a sentence, with its RFC.
            #[must_use]
            pub fn meaning(self) -> String {
                let lines: &[&str] = match self {
                    $(Self::$variant => &[$($doc,)+],)+
                };
                lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
            }

            /// The status of the local reply to a client that broke the rule: 400, 413, 414, 417, 421, 431,
            /// 501 or 505. If a backend broke it, the client gets 502.
            #[must_use]
            pub fn status(self) -> StatusCode {
                match self {
                    $(Self::$variant => StatusCode::$status,)+
                }
            }
        }
    };
}

violations! {
    /// The first line is no request line (RFC 9112 §3).
    StartLine "bad_start_line" BAD_REQUEST;
    /// The first bytes are no method: often TLS on the plain port.
    Method "bad_method" BAD_REQUEST;
    /// The first line is no status line (RFC 9112 §4).
    StatusLine "bad_status_line" BAD_REQUEST;
    /// A version other than HTTP/1.0 and HTTP/1.1 (RFC 9110 §15.6.6).
    Version "bad_version" HTTP_VERSION_NOT_SUPPORTED;
    /// CR without LF (RFC 9112 §2.2).
    BareCr "bare_cr" BAD_REQUEST;
    /// LF without CR (RFC 9112 §2.2).
    BareLf "bare_lf" BAD_REQUEST;
    /// A line that begins with a blank (RFC 9112 §2.2, §5.2).
    ObsFold "obs_fold" BAD_REQUEST;
    /// A blank between field name and colon (RFC 9112 §5.1).
    BlankBeforeColon "blank_before_colon" BAD_REQUEST;
    /// A field name that is no token, or none at all (RFC 9110 §5.1).
    FieldName "bad_field_name" BAD_REQUEST;
    /// A control character in a field value (RFC 9110 §5.5).
    FieldValue "bad_field_value" BAD_REQUEST;
    /// More bytes of head than the limit (RFC 6585 §5).
    HeadTooLarge "head_too_large" REQUEST_HEADER_FIELDS_TOO_LARGE;
    /// More fields than the limit (RFC 6585 §5).
    TooManyFields "too_many_fields" REQUEST_HEADER_FIELDS_TOO_LARGE;
    /// `Connection` lists more than 32 fields.
    TooManyOptions "too_many_connection_options" REQUEST_HEADER_FIELDS_TOO_LARGE;
    /// A target longer than the limit (RFC 9112 §3).
    TargetTooLong "target_too_long" URI_TOO_LONG;
    /// A byte that no target may have, or a form the method may not use (RFC 9112 §3.2).
    Target "bad_target" BAD_REQUEST;
    /// `%` without two hex digits after it in the path, or `%00` (RFC 3986 §2.1).
    TargetEscape "bad_target_escape" BAD_REQUEST;
    /// A path that climbs above the root, or would if `%2F` or `%5C` were decoded.
    TargetClimbs "target_climbs" BAD_REQUEST;
    /// An `https:` target over a connection that is not secured (RFC 9110 §7.4).
    HttpsOverHttp "https_over_http" MISDIRECTED_REQUEST;
    /// A host that the certificate of the connection is not for (RFC 9110 §7.4).
    Misdirected "misdirected_request" MISDIRECTED_REQUEST;
    /// HTTP without TLS where TLS is expected.
    PlainHttpOnTls "plain_http_on_tls_port" BAD_REQUEST;
    /// CONNECT, which only forward proxies serve (RFC 9110 §9.3.6).
    Connect "connect_method" NOT_IMPLEMENTED;
    /// Extended CONNECT for another protocol than `websocket` (RFC 8441 §4, RFC 9220 §3).
    Protocol "unknown_protocol" NOT_IMPLEMENTED;
    /// HTTP/1.1 without `Host` (RFC 9112 §3.2).
    MissingHost "missing_host" BAD_REQUEST;
    /// More than one `Host` (RFC 9112 §3.2).
    DuplicateHost "duplicate_host" BAD_REQUEST;
    /// A `Host` or authority that is not `host[:port]` (RFC 9110 §7.2).
    Host "bad_host" BAD_REQUEST;
    /// `Content-Length` beside `Transfer-Encoding` (RFC 9112 §6.1).
    LengthWithTransferEncoding "length_with_transfer_encoding" BAD_REQUEST;
    /// More than one `Content-Length`, equal or not (RFC 9112 §6.3).
    SeveralLengths "several_lengths" BAD_REQUEST;
    /// A `Content-Length` that is no number (RFC 9110 §8.6).
    Length "bad_length" BAD_REQUEST;
    /// More content than the pool takes, or a `Content-Length` of 2^63 or more (RFC 9110 §15.5.14).
    ContentTooLarge "content_too_large" PAYLOAD_TOO_LARGE;
    /// `Transfer-Encoding` without `chunked` as its last coding, or with `chunked` twice or with parameters
    /// (RFC 9112 §6.1, §6.3).
    TransferEncoding "bad_transfer_encoding" BAD_REQUEST;
    /// A transfer coding besides `chunked`, which stays last (RFC 9112 §6.1).
    UnknownCoding "unknown_transfer_coding" NOT_IMPLEMENTED;
    /// `Transfer-Encoding` in HTTP/1.0 (RFC 9112 §6.1).
    TransferEncodingIn10 "transfer_encoding_in_http_1_0" BAD_REQUEST;
    /// Content in a TRACE request (RFC 9110 §9.3.8).
    TraceContent "content_in_trace" BAD_REQUEST;
    /// An expectation other than `100-continue` (RFC 9110 §10.1.1).
    Expectation "unknown_expectation" EXPECTATION_FAILED;
    /// A chunk size that is not hexadecimal, or 2^63 and more (RFC 9112 §7.1).
    ChunkSize "bad_chunk_size" BAD_REQUEST;
    /// A chunk extension out of its grammar (RFC 9112 §7.1.1).
    ChunkExtension "bad_chunk_extension" BAD_REQUEST;
    /// Far more bytes of chunk extensions than of content (RFC 9112 §7.1.1).
    ChunkExtensionsTooLarge "chunk_extensions_too_large" BAD_REQUEST;
    /// No CRLF where a chunk ends (RFC 9112 §7.1).
    ChunkEnd "bad_chunk_end" BAD_REQUEST;
    /// More bytes or fields of trailers than the limit.
    TrailersTooLarge "trailers_too_large" REQUEST_HEADER_FIELDS_TOO_LARGE;
    /// A 101 that the request did not ask for (RFC 9110 §15.2.2).
    UnexpectedSwitch "unexpected_101" BAD_REQUEST;
    /// A response of success that is no 101, to a WebSocket of a client of HTTP/2, which would take it for
    /// one (RFC 8441 §5).
    NotSwitched "websocket_not_switched" BAD_REQUEST;
    /// A 101 whose `Sec-WebSocket-Accept` does not fit the key of the request (RFC 6455 §4.1).
    WebSocketAccept "bad_websocket_accept" BAD_REQUEST;
    /// More than 32 interim responses to one request.
    TooManyInterims "too_many_interims" BAD_REQUEST;
    /// Something else than HTTP/2 where that is to be spoken, HTTP/1.1 for example (RFC 9113 §3.4).
    NotHttp2 "not_http2" BAD_REQUEST;
    /// A broken rule of HTTP/2 that ends the connection (RFC 9113 §5.4.1).
    Http2Connection "http2_connection_error" BAD_REQUEST;
    /// A broken rule of HTTP/2 that ends a stream: mostly a malformed message (RFC 9113 §5.4.2, §8.1.1).
    Http2Stream "http2_stream_error" BAD_REQUEST;
}
