//! Numbers as digits, without `fmt`.

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
    use super::digits;

    #[test]
    fn numbers() {
        for n in [0, 1, 9, 10, 99, 100, 65535, 4_294_967_295, 4_294_967_296, u64::MAX] {
            assert_eq!(digits(n, &mut [0; 20]), n.to_string().as_bytes());
        }
    }
}
