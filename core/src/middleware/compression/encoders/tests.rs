//! Memory is counted from the lending of an encoder to its end, and has a limit.

use super::*;
use crate::http::ContentCoding;
use crate::http::ContentCoding::{Br, Deflate, Gzip, Zstd};

fn kind(coding: ContentCoding) -> Kind {
    Kind::new(coding, None, None)
}

#[test]
fn memory_is_counted_while_encoders_are_lent_and_while_they_are_idle() {
    let encoders = Arc::new(Encoders::default());
    let gzip = kind(Gzip).bytes();
    let one = encoders.lend(kind(Gzip), None).expect("memory");
    let two = encoders.lend(kind(Gzip), Some(5000)).expect("memory");
    assert_eq!(encoders.counts(), (2 * gzip, 0));
    drop(one);
    assert_eq!(encoders.counts(), (2 * gzip, 1));
    // The idle one is used again.
    let three = encoders.lend(kind(Gzip), None).expect("memory");
    assert_eq!(encoders.counts(), (2 * gzip, 0));
    drop((two, three));
    assert_eq!(encoders.counts(), (2 * gzip, 2));
    // Another coding or level needs another one.
    let (deflate, level) =
        (encoders.lend(kind(Deflate), None), encoders.lend(Kind::new(Gzip, Some(9), None), None));
    assert_eq!(encoders.counts(), (4 * gzip, 2));
    drop((deflate, level));
    assert_eq!(encoders.counts(), (4 * gzip, 4));
    // Brotli's do not begin anew.
    let before = encoders.counts();
    let br = encoders.lend(kind(Br), None).expect("memory");
    assert_eq!(encoders.counts(), (before.0 + kind(Br).bytes(), before.1));
    drop(br);
    assert_eq!(encoders.counts(), before);
}

#[test]
fn at_the_limit_there_is_none_and_idle_ones_make_room() {
    let gzip = kind(Gzip).bytes();
    let encoders = Arc::new(Encoders::new(kind(Zstd).bytes() + gzip));
    let mut lent: Vec<Lent> = std::iter::from_fn(|| encoders.lend(kind(Gzip), None)).collect();
    assert_eq!(lent.len() as u64, (kind(Zstd).bytes() + gzip) / gzip);
    assert!(encoders.lend(kind(Deflate), None).is_none() && encoders.lend(kind(Br), None).is_none());
    lent.pop();
    // Idle it is of use to another coding too.
    let deflate = encoders.lend(kind(Deflate), None).expect("an idle one makes room");
    assert_eq!(encoders.counts(), (gzip * (lent.len() as u64 + 1), 0));
    assert!(encoders.lend(kind(Gzip), None).is_none());
    drop((lent, deflate));
    // Several of them make room for a larger one.
    let zstd = encoders.lend(kind(Zstd), None).expect("idle ones make room");
    let (bytes, idle) = encoders.counts();
    assert!(bytes <= kind(Zstd).bytes() + gzip && idle == 1, "{bytes} {idle}");
    drop(zstd);
}

#[test]
fn idle_encoders_have_a_limit_of_their_own() {
    let encoders = Arc::new(Encoders::default());
    let many = 2 * MAX_IDLE_BYTES / kind(Gzip).bytes();
    let lent: Vec<Lent> = (0..many).map(|_| encoders.lend(kind(Gzip), None).expect("memory")).collect();
    drop(lent);
    let (bytes, idle) = encoders.counts();
    assert!(bytes <= MAX_IDLE_BYTES && bytes == idle as u64 * kind(Gzip).bytes(), "{bytes} {idle}");
    assert_eq!(idle as u64, MAX_IDLE_BYTES / kind(Gzip).bytes());
}
