//! Body bytes that can be checked wherever they arrive: each is a function of its exchange, of what it
//! belongs to, and of its offset.

/// Which body of an exchange a byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PayloadKind {
    Request = 1,
    Response = 2,
    /// From the client through a tunnel.
    TunnelUp = 3,
    /// From the backend through a tunnel.
    TunnelDown = 4,
}

/// All byte values in steps of [`STEP`], twice: any 256 bytes of a body that begin at a multiple of 256 are a
/// slice of it.
static RAMP: [u8; 512] = {
    let mut ramp = [0; 512];
    let mut at = 0;
    while at < 512 {
        ramp[at] = (at as u8).wrapping_mul(STEP);
        at += 1;
    }
    ramp
};
const STEP: u8 = 7;
/// How many steps add up to 1, modulo 256.
const STEPS_TO_ONE: u8 = 183;

/// The bytes of a body from the offset `at` on: `max` of them, or less at the next multiple of 256. They
/// differ between exchanges, kinds, neighbours, and offsets that are a multiple of 256 apart.
pub(crate) fn expected(id: u64, kind: PayloadKind, at: u64, max: u64) -> &'static [u8] {
    let salt = (id.wrapping_mul(0x9e37_79b9) >> 7) ^ ((kind as u64) * 0x55);
    let first = (at
        .wrapping_add(at >> 8)
        .wrapping_mul(u64::from(STEP))
        .wrapping_add((at >> 16) * 13)
        .wrapping_add(salt)) as u8;
    let start = usize::from(first.wrapping_mul(STEPS_TO_ONE));
    &RAMP[start..start + max.min(256 - at % 256) as usize]
}

/// Appends `len` bytes of a body from the offset `from` on.
pub(crate) fn fill(id: u64, kind: PayloadKind, from: u64, len: u64, out: &mut Vec<u8>) {
    out.reserve(len as usize);
    let (mut at, to) = (from, from + len);
    while at < to {
        let bytes = expected(id, kind, at, to - at);
        out.extend_from_slice(bytes);
        at += bytes.len() as u64;
    }
}

/// A field value of `len` letters that differs between exchanges.
pub(crate) fn padding(id: u64, len: u64) -> String {
    let mut bytes = Vec::new();
    fill(id, PayloadKind::Request, 0, len, &mut bytes);
    bytes.into_iter().map(|byte| char::from(b'a' + byte % 26)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [PayloadKind; 4] =
        [PayloadKind::Request, PayloadKind::Response, PayloadKind::TunnelUp, PayloadKind::TunnelDown];

    fn bytes(id: u64, kind: PayloadKind, from: u64, len: u64) -> Vec<u8> {
        let mut out = Vec::new();
        fill(id, kind, from, len, &mut out);
        out
    }

    #[test]
    fn every_byte_depends_on_exchange_kind_and_offset() {
        let whole = bytes(5, PayloadKind::Response, 0, 200_000);
        for (at, byte) in whole.iter().enumerate() {
            let at = at as u64;
            let salt = (5_u64.wrapping_mul(0x9e37_79b9) >> 7) ^ 0xaa;
            assert_eq!(*byte, ((at + (at >> 8)) * 7 + (at >> 16) * 13 + salt) as u8, "{at}");
        }
        for (from, len) in [(0, 0), (255, 1), (255, 2), (256, 256), (1000, 5000), (65_535, 2), (131_072, 300)]
        {
            let slice = &whole[from as usize..(from + len) as usize];
            assert_eq!(bytes(5, PayloadKind::Response, from, len), slice);
        }
        let differs = |kind| bytes(5, kind, 0, 64) != whole[..64];
        assert!(KINDS.iter().all(|kind| *kind == PayloadKind::Response || differs(*kind)));
        assert_ne!(bytes(6, PayloadKind::Response, 0, 64), whole[..64]);
        let at_distance = |at: usize| whole[at] != whole[at + 1] && whole[at] != whole[at + 256];
        assert!((256..whole.len() - 256).all(at_distance));
    }
}
