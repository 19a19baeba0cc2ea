//! Numbers as digits, without `fmt`.

use std::net::Ipv4Addr;

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

/// An IPv4 address as text, and the text's length: what lies behind it is to be overwritten.
#[inline]
#[must_use]
pub(crate) fn ipv4(ip: Ipv4Addr) -> ([u8; 16], usize) {
    let (mut text, mut at) = ([0; 16], 0);
    for octet in ip.octets() {
        if let Some(room) = text[at..].first_chunk_mut() {
            *room = OCTETS[usize::from(octet)];
        }
        at += 2 + usize::from(octet >= 10) + usize::from(octet >= 100);
    }
    (text, at - 1)
}

/// Room for the digits of any `u64`.
pub(crate) type Digits = [u8; 20];

/// The digits of `n`, in `room`.
pub(crate) fn digits(mut n: u64, room: &mut Digits) -> &[u8] {
    let mut at = room.len();
    // Nearly all are ports and short lengths: in 32 bits a division is a multiplication.
    while n > u64::from(u32::MAX) {
        at -= 1;
        room[at] = b'0' + (n % 10) as u8;
        n /= 10;
    }
    let mut n = n as u32;
    loop {
        at -= 1;
        room[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            return &room[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{digits, ipv4};
    use std::net::Ipv4Addr;

    #[test]
    fn addresses() {
        for ip in [[0, 0, 0, 0], [1, 22, 255, 9], [10, 99, 100, 200], [255, 255, 255, 255]].map(Ipv4Addr::from) {
            let (text, len) = ipv4(ip);
            assert_eq!(text[..len], *ip.to_string().as_bytes());
        }
    }

    #[test]
    fn numbers() {
        for n in [0, 1, 9, 10, 99, 100, 65535, 4_294_967_295, 4_294_967_296, u64::MAX] {
            assert_eq!(digits(n, &mut [0; 20]), n.to_string().as_bytes());
        }
    }
}
