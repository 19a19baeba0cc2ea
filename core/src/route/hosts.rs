//! A hash table from host to the pools that need it. It never changes once made and holds only names of the
//! configuration, so no client can make its chains longer: the hash needs no secret key.

use super::evaluate::is_host;

/// Hosts in lower case, looked up in any case.
#[derive(Debug)]
pub(super) struct Hosts {
    /// Where the entries of each bucket begin in `entries`; one more than there are buckets (a power of
    /// two).
    buckets: Vec<u32>,
    entries: Vec<Entry>,
    /// The pools of all entries.
    pools: Vec<u16>,
}

#[derive(Debug)]
struct Entry {
    host: Box<str>,
    from: u32,
    until: u32,
}

impl Hosts {
    /// A table of (host, pool) pairs in any order; the pools of a host are sorted and without duplicates.
    pub(super) fn new(mut known: Vec<(&str, u16)>) -> Self {
        known.sort_unstable();
        known.dedup();
        let mut hosts: Vec<(&str, u32, u32)> = Vec::new();
        let mut pools = Vec::with_capacity(known.len());
        for (host, pool) in known {
            let at = pools.len() as u32;
            pools.push(pool);
            match hosts.last_mut() {
                Some((last, _, until)) if *last == host => *until = at + 1,
                _ => hosts.push((host, at, at + 1)),
            }
        }
        let size = (hosts.len() * 2).next_power_of_two();
        let bucket = |host: &str| hash(host.as_bytes()) as usize & (size - 1);
        hosts.sort_by_cached_key(|&(host, ..)| bucket(host));
        let mut buckets = vec![0_u32; size + 1];
        for &(host, ..) in &hosts {
            buckets[bucket(host) + 1] += 1;
        }
        for i in 1..buckets.len() {
            buckets[i] += buckets[i - 1];
        }
        let entries =
            hosts.into_iter().map(|(host, from, until)| Entry { host: host.into(), from, until }).collect();
        Self { buckets, entries, pools }
    }

    /// The pools that need this host, in file order.
    pub(super) fn get(&self, host: &[u8]) -> &[u16] {
        let bucket = hash(host) as usize & (self.buckets.len() - 2);
        let entries = &self.entries[self.buckets[bucket] as usize..self.buckets[bucket + 1] as usize];
        match entries.iter().find(|e| is_host(e.host.as_bytes(), host)) {
            Some(e) => &self.pools[e.from as usize..e.until as usize],
            None => &[],
        }
    }
}

/// A hash of eight bytes at a time in which letters of both cases are alike (so are a few other pairs of
/// bytes, which does no harm).
fn hash(host: &[u8]) -> u64 {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |h: u64, word: u64| {
        let h = (h ^ (word | 0x2020_2020_2020_2020)).wrapping_mul(MULTIPLIER);
        h ^ (h >> 29)
    };
    let mut chunks = host.chunks_exact(8);
    let mut h = host.len() as u64;
    for chunk in &mut chunks {
        h = mix(h, chunk.iter().rev().fold(0, |word, &b| word << 8 | u64::from(b)));
    }
    h = mix(h, chunks.remainder().iter().fold(0, |word, &b| word << 8 | u64::from(b)));
    h ^ (h >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_host_in_any_case() {
        let names: Vec<String> = (0..1000).map(|i| format!("app-{i}.example.com")).collect();
        let known = names
            .iter()
            .enumerate()
            .flat_map(|(i, n)| [(n.as_str(), i as u16), (n.as_str(), 2000), (n.as_str(), i as u16)]);
        let hosts = Hosts::new(known.collect());
        for (i, name) in names.iter().enumerate() {
            assert_eq!(hosts.get(name.as_bytes()), [i as u16, 2000]);
            assert_eq!(hosts.get(name.to_ascii_uppercase().as_bytes()), [i as u16, 2000]);
        }
        for other in ["", "app-1000.example.com", "app-1.example.co", "APP-1.example.comm"] {
            assert_eq!(hosts.get(other.as_bytes()), [0_u16; 0]);
        }
        assert_eq!(Hosts::new(Vec::new()).get(b"x"), [0_u16; 0]);
    }

    #[test]
    fn chains_stay_short() {
        for pattern in ["{}.example.com", "tenant{}.app.internal", "a{}"] {
            let names: Vec<String> = (0..10_000).map(|i| pattern.replace("{}", &i.to_string())).collect();
            let hosts = Hosts::new(names.iter().map(|n| (n.as_str(), 0)).collect());
            let longest = hosts.buckets.windows(2).map(|w| w[1] - w[0]).max().unwrap();
            assert!(longest <= 10, "{pattern}: {longest}");
        }
    }
}
