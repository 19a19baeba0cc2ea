//! How many requests each client has had in a sliding window, for all shards together.
//!
//! A client's admitted requests are counted in cells: a cell takes up to a twelfth of the limit, and keeps
//! the time of its last request. It counts until the window has left that time behind, so nothing is
//! forgotten too early: in no window are more requests admitted than the limit. What is remembered too long
//! are requests of the oldest cell alone: a client is refused only if it has had more than eleven twelfths
//! of its limit. Up to a limit of 12 the count is exact.
//!
//! Clients lie in buckets of a fixed size, two for each, behind a keyed hash (`HashKeys`). A place is taken
//! anew once its client has been quiet for a window: nothing is swept, and a decision looks at no more than
//! two buckets. Where there are none but those of others the number of buckets doubles, up to a limit: memory
//! follows the clients that there have been at once.

pub(crate) mod carried;
mod hash_keys;

use std::net::IpAddr;
use std::sync::PoisonError;
use std::time::Duration;

use crate::planted::planted;
use crate::sync::{AtomicU64, Mutex, Ordering, Padded};
use crate::time::Instant;
use hash_keys::HashKeys;

/// Cells of a client.
const CELLS: usize = 12;
/// Clients of a bucket.
const BUCKET: usize = 16;
/// Number of locks, a power of two: a client always uses the same one, two clients seldom use one together.
const STRIPES: usize = 64;
/// Clients that have a place at once: with 112 bytes for each, 112 MiB if all are taken.
const CLIENTS: usize = 1 << 20;
/// For so much longer than the window a place is kept: no other shard's clock is further behind.
const SLACK_MS: u64 = 1_000;
/// Time between two warnings that there is no place left.
const WARN_EVERY_MS: u64 = 60_000;

/// A limit of requests in a window.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimit {
    requests: u64,
    window_ms: u64,
    /// Requests that one cell takes.
    cell: u64,
}

impl RequestLimit {
    /// At most `requests`, 1 or more, in any `window`, which is from 1 ms to 31 days.
    #[must_use]
    pub fn new(requests: u32, window: Duration) -> Self {
        let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX).clamp(1, 31 * 24 * 3_600_000);
        let requests = u64::from(requests.max(1));
        Self { requests, window_ms, cell: requests.div_ceil(CELLS as u64) }
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is within the limit, and has been counted.
    Admitted,
    /// It is not, and has not been counted.
    Refused {
        /// After this time one would be admitted, if none is before.
        retry_after: Duration,
    },
    /// There is no place to count requests of a client that was not known: it is refused.
    NoPlace {
        /// After this time there is a place, if nobody takes it before.
        retry_after: Duration,
    },
}

/// The requests of clients.
#[derive(Debug)]
pub struct RequestWindows {
    stripes: Box<[Padded<Mutex<Stripe>>]>,
    keys: HashKeys,
    /// When the last warning was due, in milliseconds; 0: never.
    warned_ms: AtomicU64,
}

/// Clients that share a lock. An empty place has the key 0. In the beginning there are no places.
#[derive(Debug)]
struct Stripe {
    /// Buckets that there may be, a power of two. There are as many as that or a smaller power of two.
    most: usize,
    keys: Vec<u64>,
    /// The latest time that each client was seen, in milliseconds.
    seen: Vec<u64>,
    /// The cells of each client, oldest first: the lower half of the time of its last request, rounded up to
    /// milliseconds, and how many requests there were. An unused cell is 0.
    cells: Vec<[u64; CELLS]>,
}

impl RequestWindows {
    /// With room for about a million clients. `keys` are random.
    #[must_use]
    pub fn new(keys: [u64; 2]) -> Self {
        Self::with_room(CLIENTS, keys)
    }

    /// With room for so many clients, rounded up to a power of two that is 1024 at least.
    #[must_use]
    pub fn with_room(clients: usize, keys: [u64; 2]) -> Self {
        let most = clients.div_ceil(STRIPES * BUCKET).next_power_of_two();
        let stripe = || Stripe { most, keys: Vec::new(), seen: Vec::new(), cells: Vec::new() };
        Self {
            stripes: (0..STRIPES).map(|_| Padded(Mutex::new(stripe()))).collect(),
            keys: HashKeys::of(keys),
            warned_ms: AtomicU64::new(0),
        }
    }

    /// Decides about a request of this client, and counts it if it is admitted. A clock that is behind the
    /// one by which the client was seen before counts as that. Takes a lock for a moment.
    pub fn admit(&self, client: IpAddr, limit: &RequestLimit, now: Instant) -> Decision {
        let client = Client::new(key(client), &self.keys);
        let stripe = &self.stripes[client.stripe()].0;
        stripe.lock().unwrap_or_else(PoisonError::into_inner).admit(&client, &self.keys, limit, now)
    }

    /// Nobody is known any more.
    pub(crate) fn forget(&self) {
        for stripe in &self.stripes {
            stripe.0.lock().unwrap_or_else(PoisonError::into_inner).keys.fill(0);
        }
    }

    /// Whether somebody should be told now that there is no place; true once in a minute.
    pub(crate) fn warns(&self, now: Instant) -> bool {
        let now = (now.as_nanos() / 1_000_000).max(1);
        let last = self.warned_ms.load(Ordering::Relaxed);
        let due = last == 0 || now >= last + WARN_EVERY_MS;
        due && self.warned_ms.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// Who is looked for.
struct Client {
    /// See [`key`].
    key: u64,
    /// Nobody who does not know the keys can choose it.
    hash: u64,
}

impl Client {
    #[inline]
    fn new(key: u64, keys: &HashKeys) -> Self {
        Self { key, hash: keys.hash(key) }
    }

    #[inline]
    fn stripe(&self) -> usize {
        self.hash as usize % STRIPES
    }

    /// Its two of so many buckets, which may be one, by bits that did not choose its stripe. Those of twice
    /// as many are these, or these and the number that there were.
    #[inline]
    fn buckets(&self, buckets: usize) -> [usize; 2] {
        [(self.hash >> 6) as usize & 0x1f_ffff, (self.hash >> 32) as usize].map(|bits| bits & (buckets - 1))
    }
}

impl Stripe {
    fn admit(&mut self, client: &Client, keys: &HashKeys, limit: &RequestLimit, now: Instant) -> Decision {
        let known = if self.keys.is_empty() {
            None
        } else {
            let [first, second] = client.buckets(self.buckets());
            self.find(first, client.key).or_else(|| self.find(second, client.key))
        };
        let place = known.map_or_else(|| self.take_place(client, keys, limit, now), Ok);
        match place {
            Ok(at) => count(&mut self.cells[at], &mut self.seen[at], limit, now.as_nanos()),
            Err(retry_after) => Decision::NoPlace { retry_after },
        }
    }

    fn buckets(&self) -> usize {
        self.keys.len() / BUCKET
    }

    #[inline]
    fn find(&self, bucket: usize, key: u64) -> Option<usize> {
        let places = bucket * BUCKET;
        let keys = &self.keys[places..places + BUCKET];
        keys.iter().position(|known| *known == key).map(|at| places + at)
    }

    /// When a place can be taken, in milliseconds.
    fn free_at(&self, at: usize, limit: &RequestLimit) -> u64 {
        // The last request was up to a millisecond later.
        if self.keys[at] == 0 { 0 } else { self.seen[at] + 1 + limit.window_ms + SLACK_MS }
    }

    /// A client that is not known takes a place. `Err`: after this time there is one.
    #[cold]
    fn take_place(
        &mut self,
        client: &Client,
        keys: &HashKeys,
        limit: &RequestLimit,
        now: Instant,
    ) -> Result<usize, Duration> {
        let now_ms = now.as_nanos() / 1_000_000;
        let at = self
            .find_place(client, keys, limit, now_ms)
            .map_err(|free_at| Duration::from_millis(free_at - now_ms))?;
        (self.keys[at], self.seen[at], self.cells[at]) = (client.key, now_ms, [0; CELLS]);
        Ok(at)
    }

    /// A place that can be taken, in that of the client's buckets that has more of them; buckets are added
    /// for it if need be. Or else when there is one, in milliseconds.
    fn find_place(
        &mut self,
        client: &Client,
        keys: &HashKeys,
        limit: &RequestLimit,
        now_ms: u64,
    ) -> Result<usize, u64> {
        loop {
            let own = match self.buckets() {
                0 => [0; 2],
                buckets => client.buckets(buckets),
            };
            let places = |bucket: usize| {
                (bucket * BUCKET..(bucket + 1) * BUCKET).take_while(|at| *at < self.keys.len())
            };
            let [mut first, mut second] =
                own.map(|bucket| places(bucket).filter(|at| now_ms >= self.free_at(*at, limit)));
            let more_in_second = second.clone().count() > first.clone().count();
            let free = if more_in_second { second.next() } else { first.next() };
            if let Some(at) = free {
                return Ok(at);
            }
            if self.buckets() == self.most {
                let next = own.into_iter().flat_map(places).map(|at| self.free_at(at, limit)).min();
                return Err(next.unwrap_or(now_ms));
            }
            self.grow(keys);
        }
    }

    /// Doubles the number of buckets. What lay in one of them goes into one of the two that it becomes: there
    /// is room.
    fn grow(&mut self, keys: &HashKeys) {
        let (before, buckets) = (self.buckets(), (2 * self.buckets()).max(1));
        for column in [&mut self.keys, &mut self.seen] {
            column.resize(buckets * BUCKET, 0);
        }
        self.cells.resize(buckets * BUCKET, [0; CELLS]);
        let mut to: Vec<usize> = (before..buckets).map(|bucket| bucket * BUCKET).collect();
        for from in 0..before * BUCKET {
            let (key, bucket) = (self.keys[from], from / BUCKET);
            if key != 0 && !Client::new(key, keys).buckets(buckets).contains(&bucket) {
                let at = to[bucket];
                to[bucket] += 1;
                self.keys.swap(from, at);
                self.seen.swap(from, at);
                self.cells.swap(from, at);
            }
        }
    }
}

/// Decides about a request of a client that was `seen` last in that millisecond, and counts it.
#[inline]
fn count(cells: &mut [u64; CELLS], seen: &mut u64, limit: &RequestLimit, now_ns: u64) -> Decision {
    // A request counts from the end of its millisecond, and the window is looked at from the beginning of
    // one.
    let floor = now_ns / 1_000_000;
    let (now, mut time) =
        if floor >= *seen { (floor, now_ns.div_ceil(1_000_000)) } else { (*seen, *seen + 1) };
    // No cell is later than this, or 31 days older: that gives the upper half of its time.
    let latest = *seen + 1;
    let time_of = |cell: u64| latest - u64::from((latest as u32).wrapping_sub((cell >> 32) as u32));
    *seen = now;

    let early = if planted!(146) { limit.window_ms / 2 } else { 0 };
    let (mut used, mut expired, mut counted) = (0, 0, 0);
    for &cell in cells.iter() {
        if cell == 0 {
            break;
        }
        used += 1;
        if now + early >= time_of(cell) + limit.window_ms {
            expired = used;
        } else {
            counted += u64::from(cell as u32);
        }
    }
    if counted >= limit.requests {
        return refusal(&cells[expired..used], counted, now, limit, time_of);
    }
    if expired > 0 {
        cells.copy_within(expired..used, 0);
        cells[used - expired..used].fill(0);
        used -= expired;
    }
    let mut count = 0;
    if let Some(&last) = cells[..used].last() {
        // Where the clocks of shards are apart.
        time = time.max(time_of(last));
        // There is no other cell only where the limit has been raised a moment ago.
        if u64::from(last as u32) < limit.cell || used == CELLS {
            (count, used) = (last & 0xffff_ffff, used - 1);
        }
    }
    cells[used] = time << 32 | (count + 1);
    Decision::Admitted
}

/// The limit is reached: when have enough of the cells left the window?
#[cold]
fn refusal(
    cells: &[u64],
    mut counted: u64,
    now: u64,
    limit: &RequestLimit,
    time_of: impl Fn(u64) -> u64,
) -> Decision {
    let mut free_at = now;
    for &cell in cells {
        if counted < limit.requests {
            break;
        }
        counted -= u64::from(cell as u32);
        free_at = time_of(cell) + limit.window_ms;
    }
    Decision::Refused { retry_after: Duration::from_millis(free_at - now) }
}

/// What is counted as one client: an IPv4 address, also one mapped into IPv6; of an IPv6 address the first 64
/// bits, since one client usually has all addresses of a /64. IPv4 addresses stand where `0:1::/32` would be,
/// which no host has (RFC 4291 §2.4). Never 0.
fn key(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(v4) => 1 << 32 | u64::from(v4.to_bits()),
        IpAddr::V6(v6) => ((v6.to_bits() >> 64) as u64).max(1),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const KEYS: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn windows() -> RequestWindows {
        RequestWindows::with_room(1024, KEYS)
    }

    fn limit(requests: u32, secs: u64) -> RequestLimit {
        RequestLimit::new(requests, Duration::from_secs(secs))
    }

    fn ms(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    #[test]
    fn a_burst_passes_and_then_the_next_when_it_has_left_the_window() {
        let (windows, limit) = (windows(), limit(100, 60));
        let admitted = |at: u64, n: usize| {
            (0..n).filter(|_| windows.admit(CLIENT, &limit, ms(at)) == Decision::Admitted).count()
        };
        assert_eq!(admitted(1_000, 150), 100);
        let refused = windows.admit(CLIENT, &limit, ms(60_500));
        assert_eq!(refused, Decision::Refused { retry_after: Duration::from_millis(500) });
        assert_eq!(admitted(60_999, 5), 0);
        assert_eq!(admitted(61_000, 150), 100);
    }

    #[test]
    fn who_is_one_client() {
        let same = [
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("2001:db8::1", "2001:db8::ffff:1", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("0.0.0.0", "::", false),
            ("0.0.0.1", "::1", false),
        ];
        for (a, b, expected) in same {
            let (a, b): (IpAddr, IpAddr) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(key(a) == key(b), expected, "{a} {b}");
            assert!(key(a) != 0 && key(b) != 0);
            let (windows, limit) = (windows(), limit(1, 60));
            assert_eq!(windows.admit(a, &limit, ms(5)), Decision::Admitted);
            assert_eq!(windows.admit(b, &limit, ms(5)) == Decision::Admitted, !expected, "{a} {b}");
        }
    }

    #[test]
    fn a_changed_limit_keeps_what_was_counted() {
        let windows = windows();
        let admitted = |limit: &RequestLimit, at: u64, n: usize| {
            (0..n).filter(|_| windows.admit(CLIENT, limit, ms(at)) == Decision::Admitted).count()
        };
        assert_eq!(admitted(&limit(20, 60), 0, 30), 20);
        assert_eq!(admitted(&limit(5000, 60), 10, 9000), 4980);
        assert_eq!(admitted(&limit(20, 60), 59_999, 9), 0);
        assert_eq!(admitted(&limit(5010, 60), 60_000, 90), 28, "18 of the first limit have left");
        assert_eq!(admitted(&limit(20, 60), 60_010, 90), 0, "28 are left");
        assert_eq!(admitted(&limit(40, 60), 60_010, 90), 12);
    }

    /// After weeks of quiet, and with the longest window: no count comes back when 32 bits of time begin
    /// anew.
    #[test]
    fn times_are_not_mistaken_for_later_ones() {
        let (windows, month) = (windows(), limit(1, 31 * 24 * 3600));
        let day = 24 * 3_600_000;
        for at in [0, 31 * day, 62 * day, 112 * day, 1_000 * day, 1_031 * day] {
            assert_eq!(windows.admit(CLIENT, &month, ms(at)), Decision::Admitted, "{at}");
            for later in [0, 1, day, 31 * day - 1] {
                let refused = windows.admit(CLIENT, &month, ms(at + later));
                let retry_after = Duration::from_millis(31 * day - later);
                assert_eq!(refused, Decision::Refused { retry_after }, "{at} {later}");
            }
        }
    }

    #[test]
    fn a_flood_of_addresses_takes_no_memory_and_no_place_of_those_who_are_known() {
        let (windows, limit) = (RequestWindows::with_room(4096, KEYS), limit(3, 10));
        let address = |n: u32| IpAddr::V4((0x0a00_0000 + n).into());
        let known: Vec<u32> =
            (0..20).filter(|n| windows.admit(address(*n), &limit, ms(0)) == Decision::Admitted).collect();
        assert_eq!(known.len(), 20);
        let mut counts = BTreeMap::new();
        for n in 100..300_100 {
            let name = match windows.admit(address(n), &limit, ms(5_000)) {
                Decision::Admitted => "admitted",
                Decision::Refused { .. } => "refused",
                Decision::NoPlace { retry_after } => {
                    assert!(retry_after > Duration::ZERO && retry_after <= Duration::from_millis(11_001));
                    "no place"
                }
            };
            *counts.entry(name).or_insert(0) += 1;
        }
        assert_eq!(counts.get("refused"), None);
        assert_eq!(counts["admitted"], 4096 - 20, "every place is taken");
        for n in known {
            assert_eq!(windows.admit(address(n), &limit, ms(5_000)), Decision::Admitted);
        }
        assert!(windows.warns(ms(5_000)) && !windows.warns(ms(64_999)) && windows.warns(ms(65_000)));
        // When they have been quiet for a window their places are taken anew.
        let later = (1_000_000..1_002_000)
            .filter(|n| windows.admit(address(*n), &limit, ms(16_001)) == Decision::Admitted);
        assert_eq!(later.count(), 2_000);
    }

    /// Two buckets for each client fill evenly: four of five places are taken before anybody is refused.
    #[test]
    fn places_are_found_until_most_are_taken() {
        let (windows, limit) = (RequestWindows::with_room(1 << 16, KEYS), limit(3, 10));
        let first = (0_u32..)
            .find(|n| windows.admit(IpAddr::V4((*n).into()), &limit, ms(0)) != Decision::Admitted)
            .unwrap();
        assert!(first > (1 << 16) * 4 / 5, "{first}");
    }

    /// Nor do clients at equal distances, whatever the distance, fill few buckets: not even by the unluckiest
    /// of keys, which leaves neighbours neighbours. (Of so few places that a shortage comes early by chance.)
    #[test]
    fn places_are_found_for_neighbours_of_any_kind() {
        let limit = limit(3, 10);
        let unlucky = HashKeys { a: 1 << 64, b: 5 };
        let all_keys = (0..6).map(|seed| HashKeys::of([seed, 7])).chain([unlucky]);
        for keys in all_keys {
            for distance in [1_u64, 3, 1 << 8, 1 << 16, 1 << 32, 1 << 44] {
                let windows = RequestWindows { keys, ..RequestWindows::with_room(1 << 13, KEYS) };
                let address = |n: u64| {
                    let network = n.wrapping_mul(distance).wrapping_add(0x2001_0db8 << 32);
                    IpAddr::V6((u128::from(network) << 64 | 1).into())
                };
                let first = (0..1 << 13)
                    .find(|n| windows.admit(address(*n), &limit, ms(0)) != Decision::Admitted)
                    .unwrap_or(1 << 13);
                assert!(first > (1 << 13) / 3, "{first} at the distance {distance:#x}, {keys:?}");
            }
        }
    }

    /// No count is lost while places are added.
    #[test]
    fn memory_follows_the_clients_that_there_have_been() {
        let (windows, limit) = (RequestWindows::with_room(1 << 16, KEYS), limit(2, 10));
        let places = || windows.stripes.iter().map(|s| s.0.lock().unwrap().keys.len()).sum::<usize>();
        assert_eq!(places(), 0);
        let clients = 20_000_u32;
        for (round, expected) in [(0, true), (1, true), (2, false)] {
            for n in 0..clients {
                let admitted = windows.admit(IpAddr::V4(n.into()), &limit, ms(round)) == Decision::Admitted;
                assert_eq!(admitted, expected, "{round} {n}");
            }
            assert!((20_000..80_000).contains(&places()), "{}", places());
        }
        for n in 0..10 * clients {
            windows.admit(IpAddr::V4(n.into()), &limit, ms(3));
        }
        assert_eq!(places(), 1 << 16);
        assert!(
            (0..clients).all(|n| windows.admit(IpAddr::V4(n.into()), &limit, ms(4)) != Decision::Admitted)
        );
    }

    #[test]
    fn threads_together_are_admitted_as_often_as_one() {
        let (windows, limit) = (windows(), limit(1000, 60));
        let admitted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|shard| {
                    let (windows, limit) = (&windows, &limit);
                    scope.spawn(move || {
                        let at = |n: u64| ms(1_000 + n * 3 + shard * 7);
                        (0..600)
                            .filter(|n| windows.admit(CLIENT, limit, at(*n)) == Decision::Admitted)
                            .count()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(admitted, 1000);
    }

    /// What happens next: who asks, on which shard, after how many microseconds, and the limit from then on.
    #[derive(Clone, Debug)]
    struct Step {
        client: u8,
        shard: usize,
        after_us: u64,
        limit: Option<u32>,
    }

    fn step(changes: bool) -> impl Strategy<Value = Step> {
        let after = prop_oneof![
            4 => 0..2_000_u64,
            4 => 0..100_000_u64,
            1 => 0..3_000_000_u64,
            1 => Just(0_u64),
            1 => Just(1_000_000_u64),
        ];
        let limit = if changes {
            prop_oneof![20 => Just(None), 1 => (1..200_u32).prop_map(Some)].boxed()
        } else {
            Just(None).boxed()
        };
        (0..3_u8, 0..3_usize, after, limit).prop_map(|(client, shard, after_us, limit)| Step {
            client,
            shard,
            after_us,
            limit,
        })
    }

    /// The exact log of each client, by the latest clock that has seen it.
    #[derive(Default)]
    struct Naive {
        admitted: BTreeMap<u8, Vec<u64>>,
        seen: BTreeMap<u8, u64>,
    }

    const WINDOW_NS: u64 = 1_000_000_000;

    impl Naive {
        fn time(&mut self, client: u8, now: u64) -> u64 {
            let seen = self.seen.entry(client).or_default();
            *seen = now.max(*seen);
            *seen
        }

        /// Admitted requests in the window that ends now.
        fn count(&self, client: u8, now: u64, window: u64) -> usize {
            self.admitted.get(&client).map_or(0, |all| all.iter().filter(|at| **at + window > now).count())
        }
    }

    /// Runs the steps; checks that no window has more than the limit, and, if `exactness` says so, that
    /// nobody is refused with less than eleven twelfths of it.
    fn judge(first: u32, skew_us: [u64; 3], steps: &[Step], exactness: bool) -> Result<(), TestCaseError> {
        let windows = windows();
        let (mut requests, mut limit) = (first, limit(first, 1));
        let (mut naive, mut clock, mut last_refusal) = (Naive::default(), 7_000_000_123, None);
        for step in steps {
            if let Some(changed) = step.limit {
                (requests, limit) = (changed, super::RequestLimit::new(changed, Duration::from_secs(1)));
            }
            clock += step.after_us * 1_000;
            let now = clock + skew_us[step.shard] * 1_000;
            let time = naive.time(step.client, now);
            let ip = IpAddr::V4([10, 0, 0, step.client].into());
            match windows.admit(ip, &limit, Instant::from_nanos(now)) {
                Decision::Admitted => {
                    naive.admitted.entry(step.client).or_default().push(time);
                    let count = naive.count(step.client, time, WINDOW_NS);
                    prop_assert!(count <= requests as usize, "{} of {} at {}", count, requests, time);
                    if let Some((_, client, _)) = last_refusal
                        && client == ip
                    {
                        last_refusal = None;
                    }
                }
                Decision::Refused { retry_after } => {
                    if exactness {
                        // Times are rounded by up to a millisecond at both ends.
                        let count = naive.count(step.client, time, WINDOW_NS + 2_000_000);
                        let sure = requests - (requests.div_ceil(12) - 1);
                        prop_assert!(count >= sure as usize, "refused with {} of {}", count, requests);
                    }
                    prop_assert!(retry_after > Duration::ZERO && retry_after <= Duration::from_millis(1_002));
                    last_refusal = Some((Instant::from_nanos(time) + retry_after, ip, limit));
                }
                Decision::NoPlace { .. } => prop_assert!(false, "there is room for all"),
            }
        }
        if let Some((due, ip, limit)) = last_refusal {
            prop_assert_eq!(windows.admit(ip, &limit, due), Decision::Admitted, "a retry when it was said");
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn no_window_has_more_than_the_limit(
            first in 1..100_u32,
            skew_us in prop::array::uniform3(0..20_000_u64),
            steps in prop::collection::vec(step(true), 1..600),
        ) {
            judge(first, skew_us, &steps, false)?;
        }

        #[test]
        fn nobody_is_refused_far_below_the_limit(
            first in 1..60_u32,
            skew_us in prop::array::uniform3(0..3_u64),
            steps in prop::collection::vec(step(false), 1..600),
        ) {
            judge(first, skew_us, &steps, true)?;
        }
    }

    /// Clients that come steadily, a little below their limit or at it, are refused one time in ten at most.
    #[test]
    fn steady_clients_near_the_edge() {
        for requests in [1, 2, 5, 12, 13, 20, 100, 1000] {
            for percent in [80, 90, 95, 100] {
                let (windows, limit) = (windows(), limit(requests, 60));
                let gap_us = 60_000_000 * 100 / (u64::from(requests) * percent) + 2_000;
                let asked = 20 * u64::from(requests);
                let refused = (0..asked)
                    .filter(|n| {
                        let now = Instant::from_nanos((1_000 + n * gap_us) * 1_000);
                        windows.admit(CLIENT, &limit, now) != Decision::Admitted
                    })
                    .count() as u64;
                assert!(refused * 10 <= asked, "{refused} of {asked}, {percent} % of {requests}");
                assert!(percent > 90 || refused == 0, "{refused} of {asked}, {percent} % of {requests}");
            }
        }
    }
}
