use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::middleware::request_windows::Decision;

const HERE: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
const THERE: [u64; 2] = [11, 12];

fn limit(requests: u32, secs: u64) -> RequestLimit {
    RequestLimit::new(requests, Duration::from_secs(secs))
}

fn ms(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

fn address(n: u32) -> IpAddr {
    IpAddr::V4((0x0a00_0000 + n).into())
}

fn bytes(windows: &RequestWindows, limit: &RequestLimit, taken: Instant) -> Vec<u8> {
    let (mut position, mut clients, mut bytes) = (Position::default(), Vec::new(), Vec::new());
    while windows.copy_some(&mut position, limit, (Instant::ZERO, taken), &mut clients) {
        clients.drain(..).for_each(|client| client.write(taken, &mut bytes));
    }
    bytes
}

/// How many clients became what.
fn put_all(mut bytes: &[u8], to: &RequestWindows, limit: &RequestLimit, taken: Instant) -> [usize; 4] {
    let mut counts = [0; 4];
    while !bytes.is_empty() {
        let client = CarriedClient::read(&mut bytes, taken).expect("whole");
        counts[to.put(&client, limit, taken) as usize] += 1;
    }
    counts
}

#[test]
fn whoever_has_used_up_the_limit_is_refused_there_too() {
    let (old, new, limit) =
        (RequestWindows::with_room(1024, HERE), RequestWindows::with_room(1024, THERE), limit(30, 60));
    for n in 0..40 {
        old.admit(address(1), &limit, ms(5_000 + n));
        old.admit(address(2), &limit, ms(5_000 + n * 1_000));
    }
    old.admit(address(3), &limit, ms(1));
    // The clock there began a thousand seconds before; a second and a half have gone by on the way.
    let bytes = bytes(&old, &limit, ms(61_500));
    assert_eq!(put_all(&bytes, &new, &limit, ms(1_061_500)), [2, 0, 0, 0], "the third is over");
    for (n, expected) in [(1, 30), (2, 15), (3, 0)] {
        let admitted = |windows: &RequestWindows, at: u64| {
            (0..40).filter(|_| windows.admit(address(n), &limit, ms(at)) == Decision::Admitted).count()
        };
        assert_eq!(admitted(&new, 1_064_999), if n == 3 { 30 } else { 0 }, "{n}");
        assert_eq!(admitted(&old, 64_999), if n == 3 { 30 } else { 0 }, "{n}");
        let (here, there) = (admitted(&old, 80_000), admitted(&new, 1_080_000));
        assert_eq!((here, there), (expected, expected), "{n}");
    }
}

#[test]
fn what_no_process_can_have_counted_is_left_out() {
    let (now, limit) = (ms(100_000), limit(20, 10));
    let cell = |at: u64, requests: u64| at << 32 | requests;
    let cells = |some: &[u64]| {
        let mut cells = [0; CELLS];
        cells[..some.len()].copy_from_slice(some);
        cells
    };
    for (what, key, seen_ms, some, expected) in [
        ("good", 7, 99_000, &[cell(98_000, 3), cell(99_001, 3)][..], Put::Known),
        ("a clock that is a little ahead", 7, 100_900, &[cell(100_001, 1)], Put::Known),
        ("a clock that is another one", 7, 101_001, &[cell(100_001, 1)], Put::Invalid),
        ("the end of time", 7, u64::MAX, &[cell(1, 1)], Put::Invalid),
        ("nobody", 0, 99_000, &[cell(98_000, 3)], Put::Invalid),
        ("newest first", 7, 99_000, &[cell(99_000, 3), cell(98_000, 3)], Put::Invalid),
        ("later than seen", 7, 99_000, &[cell(99_002, 3)], Put::Invalid),
        ("no requests", 7, 99_000, &[cell(98_000, 0)], Put::Invalid),
        ("before the epoch", 7, 50, &[cell(200, 1)], Put::Over),
        ("quiet for a window", 7, 80_000, &[cell(80_000, 3)], Put::Over),
        ("refused long after the last", 7, 99_000, &[cell(80_000, 3)], Put::Over),
        ("nothing counted", 7, 99_000, &[], Put::Over),
        ("as much as there is room for", 7, 99_000, &[cell(98_000, 0xffff_ffff); CELLS], Put::Known),
    ] {
        let windows = RequestWindows::with_room(1024, HERE);
        let client = CarriedClient { key, seen_ms, cells: cells(some) };
        assert_eq!(windows.put(&client, &limit, now), expected, "{what}");
        // Whatever was taken can be counted on.
        for at in [100_000, 109_999, 111_001, 4_000_000_000, 9_000_000_000] {
            for requests in [1, 20, u32::MAX] {
                let limit = RequestLimit::new(requests, Duration::from_secs(10));
                windows.admit(IpAddr::V6((7_u128 << 64).into()), &limit, ms(at));
            }
        }
    }
}

#[test]
fn the_later_of_two_copies_counts() {
    let (new, limit) = (RequestWindows::with_room(1024, THERE), limit(2, 60));
    let old = RequestWindows::with_room(1024, HERE);
    old.admit(address(1), &limit, ms(10));
    let first = bytes(&old, &limit, ms(10));
    old.admit(address(1), &limit, ms(20));
    let second = bytes(&old, &limit, ms(20));
    for both in [[&first, &second], [&second, &first]] {
        let taken = [ms(10), ms(20)];
        let at = |bytes: &[u8]| taken[usize::from(bytes == second)];
        both.iter().for_each(|bytes| assert_eq!(put_all(bytes, &new, &limit, at(bytes)), [1, 0, 0, 0]));
        assert!(matches!(new.admit(address(1), &limit, ms(30)), Decision::Refused { .. }));
    }
}

#[test]
fn clients_without_a_place_are_told_of() {
    let (old, new) = (RequestWindows::with_room(1 << 14, HERE), RequestWindows::with_room(1024, THERE));
    let limit = limit(3, 60);
    (0..5_000).for_each(|n| _ = old.admit(address(n), &limit, ms(5)));
    let [known, over, invalid, no_place] = put_all(&bytes(&old, &limit, ms(6)), &new, &limit, ms(6));
    assert_eq!((known + no_place, over, invalid), (5_000, 0, 0));
    assert!((900..=1024).contains(&known), "{known}");
}

#[test]
fn whoever_was_seen_since_then_is_copied_again() {
    let (old, limit) = (RequestWindows::with_room(1024, HERE), limit(3, 60));
    (0..10).for_each(|n| _ = old.admit(address(n), &limit, ms(10_000 + u64::from(n) * 1_000)));
    for (since, expected) in [(0, 10), (10_000, 10), (11_001, 9), (20_000, 1), (20_001, 0)] {
        let (mut position, mut clients) = (Position::default(), Vec::new());
        while old.copy_some(&mut position, &limit, (ms(since), ms(21_000)), &mut clients) {}
        assert_eq!(clients.len(), expected, "{since}");
    }
}

/// Requests that come while clients are copied move them: none is left out.
#[test]
fn places_that_are_added_meanwhile_lose_nobody() {
    let (old, limit) = (RequestWindows::with_room(1 << 18, HERE), limit(3, 60));
    (0..40_000).for_each(|n| _ = old.admit(address(n), &limit, ms(5)));
    let (mut position, mut clients, mut next) = (Position::default(), Vec::new(), 100_000);
    while old.copy_some(&mut position, &limit, (Instant::ZERO, ms(6)), &mut clients) {
        (next..next + 700).for_each(|n| _ = old.admit(address(n), &limit, ms(6)));
        next += 700;
    }
    let keys: std::collections::BTreeSet<_> = clients.iter().map(|client| client.key).collect();
    assert!((0..40_000_u32).all(|n| keys.contains(&(1 << 32 | u64::from(0x0a00_0000 + n)))));
}

#[test]
fn other_bytes_are_no_clients() {
    let (old, limit) = (RequestWindows::with_room(1024, HERE), limit(20, 60));
    (0..20).for_each(|n| _ = old.admit(address(1), &limit, ms(n)));
    let mut bytes = bytes(&old, &limit, ms(20));
    assert_eq!(bytes.len(), 8 + 4 + 1 + 10 * 8, "two requests in a cell");
    for length in 0..bytes.len() {
        assert_eq!(CarriedClient::read(&mut &bytes[..length], ms(20)), None, "{length}");
    }
    bytes[12] = 13;
    bytes.resize(200, 0);
    assert_eq!(CarriedClient::read(&mut &bytes[..], ms(20)), None, "more cells than there are");
}

/// Which client asks, after how many microseconds.
fn steps() -> impl Strategy<Value = Vec<(u32, u64)>> {
    let after = prop_oneof![4 => 0..2_000_u64, 4 => 0..100_000_u64, 1 => 0..1_500_000_u64];
    prop::collection::vec((0..3_u32, after), 1..300)
}

const WINDOW_NS: u64 = 1_000_000_000;

proptest! {
    /// Where the clocks are whole milliseconds apart the new process decides as the old one would.
    #[test]
    fn the_new_one_decides_as_the_old_one(
        requests in 1..60_u32,
        before in steps(),
        after in steps(),
        apart_ms in 0..5_000_000_000_u64,
    ) {
        let (old, new) = (RequestWindows::with_room(1024, HERE), RequestWindows::with_room(1024, THERE));
        let (limit, mut now) = (limit(requests, 1), 7_000_000_123_u64);
        for (client, us) in before {
            now += us * 1_000;
            old.admit(address(client), &limit, Instant::from_nanos(now));
        }
        let taken = ms(now.div_ceil(1_000_000));
        let there = taken + Duration::from_millis(apart_ms);
        put_all(&bytes(&old, &limit, taken), &new, &limit, there);
        now = taken.as_nanos();
        for (client, us) in after {
            now += us * 1_000;
            let here = old.admit(address(client), &limit, Instant::from_nanos(now));
            let there = Instant::from_nanos(now + apart_ms * 1_000_000);
            prop_assert_eq!(new.admit(address(client), &limit, there), here);
        }
    }

    /// However the clocks are apart, no window has more than the limit, in both processes together.
    #[test]
    fn no_window_has_more_than_the_limit(
        requests in 1..60_u32,
        before in steps(),
        after in steps(),
        apart in 0..5_000_000_000_u64,
    ) {
        let (old, new) = (RequestWindows::with_room(1024, HERE), RequestWindows::with_room(1024, THERE));
        let (limit, mut now) = (limit(requests, 1), 7_000_000_123_u64);
        let mut admitted: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        let n = before.len();
        for (nth, (client, us)) in before.into_iter().chain(after).enumerate() {
            if nth == n {
                let taken = Instant::from_nanos(now);
                let there = Instant::from_nanos(now + apart);
                put_all(&bytes(&old, &limit, taken), &new, &limit, there);
            }
            now += us * 1_000;
            let (windows, at) = if nth < n { (&old, now) } else { (&new, now + apart) };
            if windows.admit(address(client), &limit, Instant::from_nanos(at)) == Decision::Admitted {
                let all = admitted.entry(client).or_default();
                all.push(now);
                let count = all.iter().filter(|at| **at + WINDOW_NS > now).count();
                prop_assert!(count <= requests as usize, "{} of {}", count, requests);
            }
        }
    }

    #[test]
    fn any_bytes_are_read_without_harm(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        taken: u64,
        now in 0..u64::MAX / 2,
        requests in 1..=u32::MAX,
    ) {
        let windows = RequestWindows::with_room(1024, HERE);
        let limit = RequestLimit::new(requests, Duration::from_millis(u64::from(requests)));
        let (mut from, now) = (&bytes[..], Instant::from_nanos(now));
        while let Some(client) = CarriedClient::read(&mut from, Instant::from_nanos(taken)) {
            windows.put(&client, &limit, now);
            if let Ok(octets) = client.key.to_be_bytes()[4..].try_into() {
                windows.admit(IpAddr::V4(<[u8; 4]>::into(octets)), &limit, now);
            }
            windows.admit(IpAddr::V6((u128::from(client.key) << 64).into()), &limit, now);
        }
    }
}
