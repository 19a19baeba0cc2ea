//! The rules of HTTP that a message can break: one closed set for answers, logs and metrics.

/// Declares the set once: variant, stable name, status.
macro_rules! violations {
    ($($(#[doc = $doc:literal])+ $variant:ident $name:literal $status:literal;)+) => {
        /// A rule of HTTP that a message broke.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Violation {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Violation {
            /// Every rule, in the order of declaration.
            pub const ALL: &'static [Violation] = &[$(Violation::$variant,)+];

            /// Short, stable, `snake_case`: the metric label and the log's word.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What a client that broke it is answered: 400, 414, 417, 421, 431, 501 or 505. A backend's fault is always 502 to the client.
            #[must_use]
            pub fn status(self) -> u16 {
                match self {
                    $(Self::$variant => $status,)+
                }
            }
        }
    };
}

violations! {
    /// Nothing that fits a request line (RFC 9112 §3).
    StartLine "bad_start_line" 400;
    /// The first bytes are no method: often TLS on the plain port.
    Method "bad_method" 400;
    /// Nothing that fits a status line (RFC 9112 §4).
    StatusLine "bad_status_line" 400;
    /// A version other than HTTP/1.0 and HTTP/1.1 (RFC 9110 §15.6.6).
    Version "bad_version" 505;
    /// CR without LF (RFC 9112 §2.2).
    BareCr "bare_cr" 400;
    /// LF without CR (RFC 9112 §2.2).
    BareLf "bare_lf" 400;
    /// A line that begins with a blank (RFC 9112 §2.2, §5.2).
    ObsFold "obs_fold" 400;
    /// A blank between field name and colon (RFC 9112 §5.1).
    BlankBeforeColon "blank_before_colon" 400;
    /// A field name that is no token, or none at all (RFC 9110 §5.1).
    FieldName "bad_field_name" 400;
    /// A control character in a field value (RFC 9110 §5.5).
    FieldValue "bad_field_value" 400;
    /// More bytes of head than the limit (RFC 6585 §5).
    HeadTooLarge "head_too_large" 431;
    /// More fields than the limit (RFC 6585 §5).
    TooManyFields "too_many_fields" 431;
    /// More options in `Connection` than anyone needs.
    TooManyOptions "too_many_connection_options" 431;
    /// A target longer than the limit (RFC 9112 §3).
    TargetTooLong "target_too_long" 414;
    /// A byte that no target may have, or a form the method may not use (RFC 9112 §3.2).
    Target "bad_target" 400;
    /// `%` without two hex digits after it in the path, or `%00` (RFC 3986 §2.1).
    TargetEscape "bad_target_escape" 400;
    /// A path that climbs above the root, or would once `%2F` or `%5C` are decoded.
    TargetClimbs "target_climbs" 400;
    /// An `https:` target over a connection that is not secured (RFC 9110 §7.4).
    HttpsOverHttp "https_over_http" 421;
    /// CONNECT: this is no forward proxy (RFC 9110 §9.3.6).
    Connect "connect_method" 501;
    /// HTTP/1.1 without `Host` (RFC 9112 §3.2).
    MissingHost "missing_host" 400;
    /// More than one `Host` (RFC 9112 §3.2).
    DuplicateHost "duplicate_host" 400;
    /// A `Host` or authority that is not `host[:port]` (RFC 9110 §7.2).
    Host "bad_host" 400;
    /// `Content-Length` beside `Transfer-Encoding` (RFC 9112 §6.1).
    LengthWithTransferEncoding "length_with_transfer_encoding" 400;
    /// More than one `Content-Length`, equal or not (RFC 9112 §6.3).
    SeveralLengths "several_lengths" 400;
    /// A `Content-Length` that is not a number below 2^63 (RFC 9110 §8.6).
    Length "bad_length" 400;
    /// `Transfer-Encoding` without `chunked` as its last coding, with it twice, or in a form it has not (RFC 9112 §6.1, §6.3).
    TransferEncoding "bad_transfer_encoding" 400;
    /// A transfer coding besides `chunked`, which stays last (RFC 9112 §6.1).
    UnknownCoding "unknown_transfer_coding" 501;
    /// `Transfer-Encoding` in HTTP/1.0 (RFC 9112 §6.1).
    TransferEncodingIn10 "transfer_encoding_in_http_1_0" 400;
    /// Content in a TRACE request (RFC 9110 §9.3.8).
    TraceContent "content_in_trace" 400;
    /// An expectation other than `100-continue` (RFC 9110 §10.1.1).
    Expectation "unknown_expectation" 417;
    /// A chunk size that is not hexadecimal, or 2^63 and more (RFC 9112 §7.1).
    ChunkSize "bad_chunk_size" 400;
    /// A chunk extension out of its grammar (RFC 9112 §7.1.1).
    ChunkExtension "bad_chunk_extension" 400;
    /// More chunk extensions than the content is worth (RFC 9112 §7.1.1).
    ChunkExtensionsTooLarge "chunk_extensions_too_large" 400;
    /// No CRLF where a chunk ends (RFC 9112 §7.1).
    ChunkEnd "bad_chunk_end" 400;
    /// More bytes or fields of trailers than the limit.
    TrailersTooLarge "trailers_too_large" 431;
    /// A 101 that nobody asked for (RFC 9110 §15.2.2).
    UnexpectedSwitch "unexpected_101" 400;
    /// More interim answers than anyone needs.
    TooManyInterims "too_many_interims" 400;
}
