//! Names of fields as gateways to other interfaces see them (RFC 3875 §4.1.18): `-` becomes `_`, and with
//! some of them so does whatever is neither a letter nor a digit.

/// Whether such a gateway may take `name` for `wanted`.
pub(crate) fn may_be_taken_for(name: &[u8], wanted: &[u8]) -> bool {
    name.len() == wanted.len()
        && name.iter().zip(wanted).all(|(found, wanted)| {
            found.eq_ignore_ascii_case(wanted) || (!found.is_ascii_alphanumeric() && *wanted == b'-')
        })
}

#[cfg(test)]
mod tests {
    use super::may_be_taken_for;

    #[test]
    fn spellings() {
        for (name, taken) in [
            ("X-Remote-User", true),
            ("x_remote_user", true),
            ("X.REMOTE-USER", true),
            ("X-Remote-Users", false),
            ("XaRemote-User", false),
            ("X-Remote-Use", false),
            ("", false),
        ] {
            assert_eq!(may_be_taken_for(name.as_bytes(), b"X-Remote-User"), taken, "{name}");
        }
    }
}
