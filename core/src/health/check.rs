//! What a health check asks, as bytes, and how its response is judged.

use std::ops::RangeInclusive;

use super::grpc;
use crate::config;

/// So many bytes of a response's content are searched for a text.
pub const MAX_SEARCHED_BYTES: u32 = 64 << 10;

/// What a check of a backend sends, with its content behind the head.
#[must_use]
pub fn request_bytes(health: &config::Health, backend: &config::Backend) -> Box<[u8]> {
    let host = health.host.as_ref().unwrap_or(&backend.host);
    let (method, path) = match health.grpc {
        Some(_) => ("POST", grpc::PATH),
        None => (health.method.name(), &*health.path),
    };
    let mut out = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n").into_bytes();
    let mut put = |name: &str, value: &str| {
        for part in [name, ": ", value, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    };
    for (name, value) in [("User-Agent", "rust-strom-health"), ("Accept", "*/*")] {
        if !health.headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name)) {
            put(name, value);
        }
    }
    for (name, value) in &health.headers {
        put(name, value);
    }
    match &health.grpc {
        Some(service) => {
            put("Content-Type", "application/grpc");
            put("TE", "trailers");
            out.extend_from_slice(b"\r\n");
            out.extend_from_slice(&grpc::request_content(service));
        }
        None => {
            put("Connection", "close");
            out.extend_from_slice(b"\r\n");
        }
    }
    out.into_boxed_slice()
}

/// What the response to a check has to be.
#[derive(Clone, Debug)]
pub struct Expectation {
    statuses: Vec<RangeInclusive<u16>>,
    text: Option<Text>,
}

/// A text to search for in content that comes in pieces (Knuth, Morris and Pratt).
#[derive(Clone, Debug)]
struct Text {
    bytes: Box<[u8]>,
    /// For each place the length of the longest beginning of the text that ends there, and is not all of it.
    borders: Box<[u16]>,
}

/// How far a search has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// So much of the text's beginning ends where the content ends so far.
    matched: u16,
    /// Bytes searched.
    searched: u32,
}

/// What a search has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The text is there.
    Yes,
    /// Not yet.
    NotYet,
    /// Not in as much of the content as is searched.
    No,
}

impl Expectation {
    /// That of a pool.
    #[must_use]
    pub fn of(health: &config::Health) -> Self {
        let text = health.body_contains.as_ref().map(|text| Text::new(text.as_bytes()));
        Self { statuses: health.expect.clone(), text }
    }

    /// Whether this is the status of a good response.
    #[must_use]
    pub fn has_status(&self, status: u16) -> bool {
        self.statuses.iter().any(|range| range.contains(&status))
    }

    /// Whether content is looked at.
    #[must_use]
    pub fn wants_content(&self) -> bool {
        self.text.is_some()
    }

    /// Searches the next piece of the content. Without a text to search for it is found at once.
    pub fn search(&self, search: &mut Search, piece: &[u8]) -> Found {
        let Some(text) = &self.text else { return Found::Yes };
        let left = (MAX_SEARCHED_BYTES - search.searched) as usize;
        for &byte in piece.iter().take(left) {
            search.matched = text.next(search.matched, byte);
            if usize::from(search.matched) == text.bytes.len() {
                return Found::Yes;
            }
        }
        search.searched += piece.len().min(left) as u32;
        if search.searched == MAX_SEARCHED_BYTES { Found::No } else { Found::NotYet }
    }
}

impl Text {
    /// Of 1 to 65535 bytes.
    fn new(bytes: &[u8]) -> Self {
        let mut text = Self { bytes: bytes.into(), borders: vec![0; bytes.len()].into() };
        let mut border = 0;
        for (at, &byte) in bytes.iter().enumerate().skip(1) {
            border = text.next(border, byte);
            text.borders[at] = border;
        }
        text
    }

    /// How much is matched after one more byte.
    fn next(&self, mut matched: u16, byte: u8) -> u16 {
        while self.bytes[usize::from(matched)] != byte {
            if matched == 0 {
                return 0;
            }
            matched = self.borders[usize::from(matched) - 1];
        }
        matched + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(keys: &str) -> (config::Health, config::Backend) {
        let text = format!(
            "http_address = \"[::]:80\"\n[[backend_pools]]\naddresses = [\"app:8080\"]\n\
             [backend_pools.health_config]\n{keys}\n"
        );
        let parsed = config::parse(&text);
        let pool = parsed.config.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics)).pools.remove(0);
        (pool.health.clone(), pool.backends[0].clone())
    }

    #[test]
    fn requests() {
        let table = [
            (
                "",
                "GET / HTTP/1.1\r\nHost: app:8080\r\nUser-Agent: rust-strom-health\r\nAccept: */*\r\n\
                 Connection: close\r\n\r\n",
            ),
            (
                "method = \"HEAD\"\npath = \"/up?x=1\"\nhost = \"shop.example\"\nport = 9000",
                "HEAD /up?x=1 HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: rust-strom-health\r\n\
                 Accept: */*\r\nConnection: close\r\n\r\n",
            ),
            (
                "headers = { user-agent = \"probe/1\", Authorization = \"Basic eDp5\" }\nmethod = \"OPTIONS\"",
                "OPTIONS / HTTP/1.1\r\nHost: app:8080\r\nAccept: */*\r\nuser-agent: probe/1\r\n\
                 Authorization: Basic eDp5\r\nConnection: close\r\n\r\n",
            ),
        ];
        for (keys, expected) in table {
            let (health, backend) = health(keys);
            let bytes = request_bytes(&health, &backend);
            assert_eq!(std::str::from_utf8(&bytes), Ok(expected), "{keys}");
        }
        let (mut health, mut backend) = health("");
        backend.host = "localhost".into();
        let begins = |health: &config::Health, with: &str| {
            request_bytes(health, &backend).starts_with(with.as_bytes())
        };
        assert!(begins(&health, "GET / HTTP/1.1\r\nHost: localhost\r\n"), "of a Unix socket");
        health.host = Some("shop.example".into());
        assert!(begins(&health, "GET / HTTP/1.1\r\nHost: shop.example\r\n"));
    }

    #[test]
    fn statuses() {
        let table: &[(&str, &[u16], &[u16])] = &[
            ("", &[200, 204, 301, 399], &[199, 400, 500, 599]),
            ("expect = 204", &[204], &[200, 203, 205]),
            ("expect = [200, \"300-399\", \"401\"]", &[200, 300, 399, 401], &[201, 299, 400, 402]),
        ];
        for (keys, good, bad) in table {
            let expected = Expectation::of(&health(keys).0);
            for status in *good {
                assert!(expected.has_status(*status), "{keys}: {status}");
            }
            for status in *bad {
                assert!(!expected.has_status(*status), "{keys}: {status}");
            }
        }
    }

    /// The text is found wherever it lies and however the content is cut into pieces.
    #[test]
    fn texts_in_pieces() {
        let table = [
            ("ok", "all is ok here", true),
            ("ok", "o k", false),
            ("aab", "aaaab", true),
            ("abab-abac", "abab-abab-abac", true),
            ("abab-abac", "abab-ababab-aba", false),
            ("x", "", false),
        ];
        for (text, content, there) in table {
            let expected = Expectation::of(&health(&format!("body_contains = \"{text}\"")).0);
            assert!(expected.wants_content());
            for size in 1..=content.len().max(1) {
                let mut search = Search::default();
                let mut pieces = content.as_bytes().chunks(size);
                let found = pieces.any(|piece| expected.search(&mut search, piece) == Found::Yes);
                assert_eq!(found, there, "{text} in {content} in pieces of {size}");
            }
        }
    }

    #[test]
    fn a_search_has_a_bound() {
        let expected = Expectation::of(&health("body_contains = \"end\"").0);
        let most = MAX_SEARCHED_BYTES as usize;
        for (before, found) in [(most - 3, Found::Yes), (most - 2, Found::No), (most + 9, Found::No)] {
            let content = ["x".repeat(before).as_bytes(), b"end"].concat();
            for size in [1000, most, content.len()] {
                let mut search = Search::default();
                let last = content
                    .chunks(size)
                    .map(|piece| expected.search(&mut search, piece))
                    .find(|found| *found != Found::NotYet);
                assert_eq!(last, Some(found), "{before} bytes before it, in pieces of {size}");
            }
        }
    }
}
