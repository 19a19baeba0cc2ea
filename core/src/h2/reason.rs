//! Error codes (RFC 9113 §7).

/// Why a stream or a connection ends: the code in RST_STREAM and GOAWAY.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Reason(pub u32);

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {
        impl Reason {
            $($(#[$doc])* pub const $name: Self = Self($code);)*

            /// The name in RFC 9113, or nothing for a code that has none.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($code => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

reasons! {
    /// No error.
    NO_ERROR = 0x0;
    /// The peer broke a rule that no other code is for.
    PROTOCOL_ERROR = 0x1;
    /// We failed.
    INTERNAL_ERROR = 0x2;
    /// The peer sent more than its window allows, or made a window too large.
    FLOW_CONTROL_ERROR = 0x3;
    /// Our SETTINGS were not acknowledged in time.
    SETTINGS_TIMEOUT = 0x4;
    /// A frame on a stream that the peer had ended.
    STREAM_CLOSED = 0x5;
    /// A frame of a wrong size.
    FRAME_SIZE_ERROR = 0x6;
    /// The stream was not processed at all: it may be tried again.
    REFUSED_STREAM = 0x7;
    /// The stream is needed no more.
    CANCEL = 0x8;
    /// A field block could not be decoded.
    COMPRESSION_ERROR = 0x9;
    /// The connection of a CONNECT broke.
    CONNECT_ERROR = 0xa;
    /// The peer makes too much work.
    ENHANCE_YOUR_CALM = 0xb;
    /// TLS is not good enough.
    INADEQUATE_SECURITY = 0xc;
    /// HTTP/1.1 is wanted.
    HTTP_1_1_REQUIRED = 0xd;
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "0x{:x}", self.0),
        }
    }
}

impl std::fmt::Debug for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}
