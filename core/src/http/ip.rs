//! Addresses as text, formatted once and kept: once for each client, then copied into each of its requests.

use std::io::Write;
use std::net::IpAddr;

/// An address as text; IPv4 in IPv6 is written as IPv4, the rest of IPv6 as RFC 5952 has it.
#[derive(Clone, Debug)]
pub struct IpText(Text);

#[derive(Clone, Debug)]
enum Text {
    /// The first `len` bytes of `text`; those behind are zeros.
    Short {
        text: [u8; 16],
        len: u8,
    },
    Long(Box<[u8]>),
}

impl IpText {
    /// The text of this address. IPv6 addresses of more than 16 bytes of text take an allocation.
    #[must_use]
    pub fn new(ip: IpAddr) -> Self {
        // At most eight groups of four digits and seven colons.
        let mut room = [0; 39];
        let mut rest = &mut room[..];
        write!(rest, "{}", ip.to_canonical()).expect("room for every address");
        let len = 39 - rest.len();
        match room.first_chunk() {
            Some(text) if len <= 16 => Self(Text::Short { text: *text, len: len as u8 }),
            _ => Self(Text::Long(room[..len].into())),
        }
    }

    /// The text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Text::Short { text, len } => &text[..usize::from(*len)],
            Text::Long(text) => text,
        }
    }

    /// A text of at most 16 bytes, filled up with zeros, and its length: whoever has room for 16 bytes copies
    /// them with one move.
    #[inline]
    #[must_use]
    pub fn short(&self) -> Option<(&[u8; 16], usize)> {
        match &self.0 {
            Text::Short { text, len } => Some((text, usize::from(*len))),
            Text::Long(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::IpText;
    use std::net::IpAddr;

    #[test]
    fn short_and_long() {
        let table = [
            "0.0.0.0",
            "255.255.255.255",
            "::",
            "2001:db8::1",
            "2001:db8:0:1:1:1:1:1",
            "2001:db8:1111:2222:3333:4444:5555:6666",
        ];
        for text in table {
            let ip: IpAddr = text.parse().unwrap();
            let written = IpText::new(ip);
            assert_eq!(written.as_bytes(), text.as_bytes());
            assert_eq!(
                written.short().map(|(all, len)| &all[..len]),
                (text.len() <= 16).then_some(written.as_bytes())
            );
        }
        assert_eq!(IpText::new("::ffff:10.0.0.1".parse().unwrap()).as_bytes(), b"10.0.0.1");
    }
}
