//! What fields of messages have to look like over HTTP/2 (RFC 9113 §8.2).

/// Fields that are about a connection of HTTP/1.1 (RFC 9113 §8.2.2).
pub(crate) const OF_CONNECTION: &[&str] =
    &["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// Whether fields, or trailers, may be in a message of HTTP/2.
pub(crate) fn check_regular(fields: &[(String, String)]) -> Result<(), String> {
    for (name, value) in fields {
        let lower = !name.is_empty() && !name.bytes().any(|b| b.is_ascii_uppercase() || b == b':');
        let trimmed = value.trim_matches([' ', '\t']) == value;
        if !lower || !trimmed || OF_CONNECTION.contains(&&**name) || name == "te" {
            return Err(format!("the field {name}: {value:?}"));
        }
    }
    Ok(())
}
