//! `Authorization: Basic` (RFC 7617): a name and a password in base64.

use base64ct::{Base64, Encoding as _};

use crate::http::{Fields, HeaderKind};
use crate::secret::Secret;

/// Longest name, in bytes.
const MAX_USER: usize = 256;
/// Longest password, in bytes.
const MAX_PASSWORD: usize = 1024;

/// What a request says of who sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offered {
    /// Nothing, or something in another scheme.
    Nothing,
    /// `Authorization` more than once: whoever reads the request next might take the other one.
    Repeated,
    /// Basic, but not as RFC 7617 has it: no base64, no UTF-8, no colon, control characters, or too long.
    Malformed,
    /// The name or the password is empty. Some directories let anybody pass who has no password
    /// (RFC 4513 §5.1.2).
    Empty,
    /// A name and a password.
    Credentials {
        /// The name: 1 to 256 bytes without control characters.
        user: Box<str>,
        /// The password: 1 to 1024 bytes without control characters.
        password: Secret,
    },
}

impl Offered {
    /// What the fields of a request say.
    #[must_use]
    pub fn of(fields: Fields<'_>) -> Self {
        if !fields.has(HeaderKind::Authorization) && fields.named(b"authorization").next().is_none() {
            return Self::Nothing;
        }
        let mut values = fields.named(b"authorization");
        match (values.next(), values.next()) {
            (Some(value), None) => Self::of_value(value),
            (None, _) => Self::Nothing,
            (Some(_), Some(_)) => Self::Repeated,
        }
    }

    /// What the value of the one field says.
    #[must_use]
    pub fn of_value(value: &[u8]) -> Self {
        // RFC 9110 §11.4: the scheme in any case, then at least one blank.
        let Some((scheme, rest)) = value.split_at_checked(5) else { return Self::Nothing };
        if !scheme.eq_ignore_ascii_case(b"basic") || rest.first().is_some_and(|b| *b != b' ') {
            return Self::Nothing;
        }
        let text = decode(rest.trim_ascii()).and_then(|bytes| String::from_utf8(bytes).ok());
        let Some((user, password)) = text.as_deref().and_then(|text| text.split_once(':')) else {
            return Self::Malformed;
        };
        let too_long = user.len() > MAX_USER || password.len() > MAX_PASSWORD;
        if too_long || user.chars().chain(password.chars()).any(char::is_control) {
            return Self::Malformed;
        }
        if user.is_empty() || password.is_empty() {
            return Self::Empty;
        }
        Self::Credentials { user: user.into(), password: Secret(password.into()) }
    }
}

/// The bytes that padded base64 (RFC 4648 §4) stands for; nothing but its one right form is taken, in a time
/// that says nothing of the bytes.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = vec![0; text.len() / 4 * 3];
    let len = Base64::decode(text, &mut bytes).ok()?.len();
    bytes.truncate(len);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(user: &str, password: &str) -> Offered {
        Offered::Credentials { user: user.into(), password: Secret(password.into()) }
    }

    #[test]
    fn values_and_what_they_say() {
        let long = "QUFB".repeat(90);
        let long = format!("Basic {long}Onc=");
        let table: &[(&str, Offered)] = &[
            // RFC 7617 §2 and §2.1.
            ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", credentials("Aladdin", "open sesame")),
            ("Basic dGVzdDoxMjPCow==", credentials("test", "123\u{a3}")),
            ("bAsIc   QWxhZGRpbjpvcGVuIHNlc2FtZQ==", credentials("Aladdin", "open sesame")),
            ("Basic YTpiOmM=", credentials("a", "b:c")),
            ("Basic KikodWlkPSo6eA==", credentials("*)(uid=*", "x")),
            ("", Offered::Nothing),
            ("Basi", Offered::Nothing),
            ("Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ==", Offered::Nothing),
            ("Basical QWxhZGRpbjpvcGVuIHNlc2FtZQ==", Offered::Nothing),
            ("Basic\tYTpi", Offered::Nothing),
            ("Basic", Offered::Malformed),
            ("Basic ", Offered::Malformed),
            ("Basic YTpi=", Offered::Malformed),
            ("Basic YTpiOmM", Offered::Malformed),
            ("Basic YTpiOmN=", Offered::Malformed),
            ("Basic YTpi====", Offered::Malformed),
            ("Basic YT:i", Offered::Malformed),
            ("Basic YT-_", Offered::Malformed),
            ("Basic YTpi YTpi", Offered::Malformed),
            ("Basic YTpi,Basic YTpi", Offered::Malformed),
            ("Basic ====", Offered::Malformed),
            ("Basic YWJj", Offered::Malformed),
            ("Basic YTr/", Offered::Malformed),
            ("Basic YToK", Offered::Malformed),
            ("Basic YQA6Yg==", Offered::Malformed),
            ("Basic YcKFOmI=", Offered::Malformed),
            (&long, Offered::Malformed),
            ("Basic Og==", Offered::Empty),
            ("Basic YTo=", Offered::Empty),
            ("Basic OmI=", Offered::Empty),
        ];
        for (value, expected) in table {
            assert_eq!(Offered::of_value(value.as_bytes()), *expected, "{value}");
        }
    }
}
