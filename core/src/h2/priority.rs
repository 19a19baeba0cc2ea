//! Priorities (RFC 9218): how urgent a stream is, and whether its parts are of use one by one.

/// A priority. The smaller one is served first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority {
    /// 0 (most urgent) to 7.
    pub urgency: u8,
    /// Streams of equal urgency take turns, else one comes after the other.
    pub incremental: bool,
}

impl Default for Priority {
    fn default() -> Self {
        Self { urgency: 3, incremental: false }
    }
}

impl Priority {
    /// Of a stream of which nothing was said. Its client may want all streams at once: they take turns.
    pub const UNSAID: Self = Self { urgency: 3, incremental: true };

    /// Reads the value of a `priority` field (RFC 9218 §4), a dictionary of RFC 8941. What is not understood
    /// is ignored.
    #[must_use]
    pub fn parse(value: &[u8]) -> Self {
        let mut priority = Self::default();
        for member in value.split(|b| *b == b',') {
            // Parameters of a member mean nothing here.
            let member = member.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
            match member {
                [b'u', b'=', urgency @ b'0'..=b'7'] => priority.urgency = urgency - b'0',
                b"i" | b"i=?1" => priority.incremental = true,
                b"i=?0" => priority.incremental = false,
                _ => {}
            }
        }
        priority
    }
}

#[cfg(test)]
mod tests {
    use super::Priority;

    #[test]
    fn values() {
        let table = [
            ("", 3, false),
            ("u=0", 0, false),
            ("u=7, i", 7, true),
            ("i=?1,u=1", 1, true),
            ("i, i=?0", 3, false),
            ("u=8", 3, false),
            ("u=-1", 3, false),
            ("u=1;x=2 , i;y", 1, true),
            ("u=2,u=5", 5, false),
            ("x, \"u=1\"", 3, false),
        ];
        for (value, urgency, incremental) in table {
            assert_eq!(Priority::parse(value.as_bytes()), Priority { urgency, incremental }, "{value}");
        }
        let first = Priority::parse(b"u=1, i");
        assert!(first < Priority::default());
    }
}
