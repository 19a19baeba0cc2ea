//! Addresses as text, formatted once and kept: once for each client, then copied into each of its requests.

use std::io::Write;
use std::net::IpAddr;

/// An address as text; IPv4 in IPv6 is written as IPv4, the rest of IPv6 as RFC 5952 has it. Each connection
/// of a client has one, so it is small where it can be.
#[derive(Clone, Debug)]
pub struct IpText(Text);

#[derive(Clone, Debug)]
enum Text {
    /// Filled up with zeros.
    Short {
        text: [u8; SHORT_BYTES],
        len: u8,
    },
    Long(Box<[u8]>),
}

/// Eight groups of four digits and seven colons.
const MAX_BYTES: usize = 39;
/// Every IPv4 address and many of IPv6.
const SHORT_BYTES: usize = 22;

impl IpText {
    /// The text of this address.
    #[must_use]
    pub fn new(ip: IpAddr) -> Self {
        let mut text = [0; MAX_BYTES];
        let mut rest = &mut text[..];
        write!(rest, "{}", ip.to_canonical()).expect("room for every address");
        let len = MAX_BYTES - rest.len();
        match text.first_chunk() {
            Some(short) if len <= SHORT_BYTES => Self(Text::Short { text: *short, len: len as u8 }),
            _ => Self(Text::Long(text[..len].into())),
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
            Text::Short { text, len } if *len <= 16 => Some((text.first_chunk()?, usize::from(*len))),
            _ => None,
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
