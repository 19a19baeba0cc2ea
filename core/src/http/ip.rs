//! Addresses as text, formatted once and kept: once for each client, then copied into each of its requests.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};

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
    Long(Box<Long>),
}

#[derive(Clone, Debug)]
struct Long {
    text: [u8; MAX_BYTES],
    len: u8,
}

/// Eight groups of four digits and seven colons.
const MAX_BYTES: usize = 39;
/// Every IPv4 address and many of IPv6.
const SHORT_BYTES: usize = 22;

impl Default for IpText {
    /// That of no address.
    fn default() -> Self {
        Self(Text::Short { text: [0; SHORT_BYTES], len: 0 })
    }
}

impl IpText {
    /// The text of this address.
    #[must_use]
    pub fn new(ip: IpAddr) -> Self {
        let mut text = Self::default();
        text.assign(ip);
        text
    }

    /// Room for every address.
    pub const MAX_BYTES: usize = MAX_BYTES;

    /// The text of an address, written into `room`.
    pub fn write(ip: IpAddr, room: &mut [u8; MAX_BYTES]) -> &[u8] {
        let len = match ip.to_canonical() {
            IpAddr::V4(ip) => dotted(ip, room),
            IpAddr::V6(ip) => {
                let mut rest = &mut room[..];
                write!(rest, "{ip}").expect("room for every address");
                MAX_BYTES - rest.len()
            }
        };
        &room[..len]
    }

    /// Becomes the text of another address. Memory that a long one needed stays for those to come.
    pub fn assign(&mut self, ip: IpAddr) {
        let mut whole = [0; MAX_BYTES];
        let len = Self::write(ip, &mut whole).len();
        match &mut self.0 {
            Text::Long(long) => **long = Long { text: whole, len: len as u8 },
            Text::Short { .. } => {
                self.0 = match whole.first_chunk() {
                    Some(short) if len <= SHORT_BYTES => Text::Short { text: *short, len: len as u8 },
                    _ => Text::Long(Box::new(Long { text: whole, len: len as u8 })),
                }
            }
        }
    }

    /// The text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Text::Short { text, len } => &text[..usize::from(*len)],
            Text::Long(long) => &long.text[..usize::from(long.len)],
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

/// Writes an IPv4 address; returns its length.
fn dotted(ip: Ipv4Addr, to: &mut [u8; MAX_BYTES]) -> usize {
    let mut len = 0;
    for (place, octet) in ip.octets().into_iter().enumerate() {
        if place > 0 {
            to[len] = b'.';
            len += 1;
        }
        let mut buffer = itoa::Buffer::new();
        let digits = buffer.format(octet).as_bytes();
        to[len..len + digits.len()].copy_from_slice(digits);
        len += digits.len();
    }
    len
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
        // One after the other in the same memory.
        let mut again = IpText::new("::1".parse().unwrap());
        for text in table.iter().chain(table.iter().rev()) {
            again.assign(text.parse().unwrap());
            assert_eq!(again.as_bytes(), text.as_bytes());
        }
        assert_eq!(IpText::new("::ffff:10.0.0.1".parse().unwrap()).as_bytes(), b"10.0.0.1");
    }
}
