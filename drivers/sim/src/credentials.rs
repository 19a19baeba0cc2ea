//! Names and passwords (RFC 7617) of clients in pools that ask for them. They follow from the id of the
//! exchange, so that both ends know them.

use crate::random::mix;

/// The password that is good, whoever has it.
pub(crate) const GOOD_PASSWORD: &str = "good";

/// What a request has in `Authorization`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// The values of its fields.
    pub(crate) fields: &'static [&'static str],
    /// Whose they are, if they are good.
    pub(crate) user: Option<&'static str>,
    /// The status of the response without asking anybody, if nobody is to be asked.
    pub(crate) refused: Option<u16>,
}

const NO_USER: Option<&str> = None;

/// Many of them are good.
const DRAWN: &[Credentials] = &[
    Credentials { fields: &["Basic YWRhOmdvb2Q="], user: Some("ada"), refused: None },
    Credentials { fields: &["basic  YWRhOmdvb2Q="], user: Some("ada"), refused: None },
    Credentials { fields: &["Basic Ym9iOmdvb2Q="], user: Some("bob"), refused: None },
    Credentials { fields: &["BASIC Y2F0Omdvb2Q="], user: Some("cat"), refused: None },
    Credentials { fields: &["Basic Y2F0Omdvb2Q="], user: Some("cat"), refused: None },
    Credentials { fields: &["Basic YWRhOmJhZA=="], user: NO_USER, refused: None },
    Credentials { fields: &["Basic Ym9iOmJhZA=="], user: NO_USER, refused: None },
    Credentials { fields: &["Basic Y2F0OmJhZA=="], user: NO_USER, refused: None },
    Credentials { fields: &["Basic OmJhZA=="], user: NO_USER, refused: Some(401) },
    Credentials { fields: &["Basic !"], user: NO_USER, refused: Some(401) },
    Credentials { fields: &[], user: NO_USER, refused: Some(401) },
    Credentials { fields: &["Basic YWRhOmdvb2Q=", "Basic YWRhOmdvb2Q="], user: NO_USER, refused: Some(400) },
];

/// Those of a request.
pub(crate) fn of_request(id: u64) -> Credentials {
    DRAWN[mix(id ^ 0xc4ed) as usize % DRAWN.len()]
}

/// What a client claims to be in `X-Remote-User`, if it does.
pub(crate) fn claimed_user(id: u64) -> Option<&'static str> {
    (mix(id ^ 0xc1a1) & 3 == 0).then_some("root")
}
