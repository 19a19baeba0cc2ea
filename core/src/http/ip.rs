//! Addresses as text, without `fmt`; only long ones of IPv6 are kept in memory of their own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `0.` to `255.`, filled up behind the dot.
const OCTETS: [[u8; 4]; 256] = {
    let mut t = [[b'.'; 4]; 256];
    let mut i = 0;
    while i < 256 {
        let mut at = 0;
        if i >= 100 {
            t[i][at] = b'0' + (i / 100) as u8;
            at += 1;
        }
        if i >= 10 {
            t[i][at] = b'0' + (i / 10 % 10) as u8;
            at += 1;
        }
        t[i][at] = b'0' + (i % 10) as u8;
        i += 1;
    }
    t
};

/// An address as text; IPv4 in IPv6 is written as IPv4, the rest of IPv6 as RFC 5952 has it.
#[derive(Clone, Debug)]
pub struct IpText(Text);

#[derive(Clone, Debug)]
enum Text {
    /// What lies behind it means nothing.
    Short {
        text: [u8; 16],
        len: u8,
    },
    Long(Box<[u8]>),
}

impl IpText {
    /// Of this address. Some of IPv6 take an allocation.
    #[must_use]
    pub fn new(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(v4) => Self(short(v4)),
            IpAddr::V6(v6) => Self(long(v6)),
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

    /// A text that fits into 16 bytes, with what lies behind it, and its length: a move for who has room.
    #[inline]
    #[must_use]
    pub fn short(&self) -> Option<(&[u8; 16], usize)> {
        match &self.0 {
            Text::Short { text, len } => Some((text, usize::from(*len))),
            Text::Long(_) => None,
        }
    }
}

fn short(ip: Ipv4Addr) -> Text {
    let (mut text, mut at) = ([0; 16], 0);
    for octet in ip.octets() {
        // Four bytes are written, what lies behind the dot is overwritten by what follows.
        if let Some(room) = text[at..].first_chunk_mut() {
            *room = OCTETS[usize::from(octet)];
        }
        at += 2 + usize::from(octet >= 10) + usize::from(octet >= 100);
    }
    Text::Short { text, len: at as u8 - 1 }
}

fn long(ip: Ipv6Addr) -> Text {
    // At most eight groups of four digits and seven colons.
    let (mut text, mut len) = ([0; 39], 0);
    let mut push = |b: u8| {
        text[len] = b;
        len += 1;
    };
    let segments = ip.segments();
    // The longest run of two zeros or more, the first of equals.
    let (mut from, mut longest, mut run) = (8, 1, 0);
    for (i, &segment) in segments.iter().enumerate() {
        run = if segment == 0 { run + 1 } else { 0 };
        if run > longest {
            (from, longest) = (i + 1 - run, run);
        }
    }
    let mut i = 0;
    while i < 8 {
        if i == from {
            push(b':');
            push(b':');
            i += longest;
            continue;
        }
        if i > 0 && i != from + longest {
            push(b':');
        }
        let digits = (16 - segments[i].leading_zeros()).div_ceil(4).max(1);
        for digit in (0..digits).rev() {
            push(b"0123456789abcdef"[(segments[i] >> (4 * digit) & 15) as usize]);
        }
        i += 1;
    }
    match text.first_chunk() {
        Some(text) if len <= 16 => Text::Short { text: *text, len: len as u8 },
        _ => Text::Long(text[..len].into()),
    }
}

#[cfg(test)]
mod tests {
    use super::IpText;
    use std::net::IpAddr;

    #[test]
    fn as_fmt_writes_them() {
        let table = [
            "0.0.0.0",
            "1.22.255.9",
            "10.99.100.200",
            "127.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "1::",
            "2001:db8::1",
            "2001:db8:0:1:1:1:1:1",
            "1:0:0:2::3",
            "1:0:0:2:3::",
            "::2:3:4:5:6:7:8",
            "1:2:3:4:5:6:7::",
            "1:2:3:4:5:6:7:8",
            "fe80::abcd:0:0:12",
            "2001:db8:1111:2222:3333:4444:5555:6666",
        ];
        for text in table {
            let ip: IpAddr = text.parse().unwrap();
            let written = IpText::new(ip);
            assert_eq!(written.as_bytes(), ip.to_string().as_bytes(), "{text}");
            assert_eq!(
                written.short().map(|(all, len)| &all[..len]),
                (text.len() <= 16).then_some(written.as_bytes())
            );
        }
        assert_eq!(IpText::new("::ffff:10.0.0.1".parse().unwrap()).as_bytes(), b"10.0.0.1");
    }
}
