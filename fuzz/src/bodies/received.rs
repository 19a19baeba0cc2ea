//! What a backend's connection received, by the second parser: whole requests that keep the rules, the last
//! one perhaps cut.

use ruststrom_core::h1::HeadLimits;
use ruststrom_core::http::Framing;

use super::naive;

/// A request as a backend got it.
pub(super) struct Got {
    pub(super) head: naive::Request,
    /// As far as it has come.
    pub(super) content: Vec<u8>,
    /// Nothing of it is missing.
    pub(super) whole: bool,
}

/// The requests of one connection. Of a tunnel only the head is told.
///
/// # Panics
/// If there is anything else.
pub(super) fn requests(mut received: &[u8]) -> Vec<Got> {
    let wide = HeadLimits { head_bytes: usize::MAX, fields: 1000, target_bytes: usize::MAX };
    let mut all = Vec::new();
    while let Some(end) = naive::end(received) {
        let request = naive::request(&received[..end], &wide);
        let Some(head) = request else { panic!("a backend got {}", received[..end].escape_ascii()) };
        received = &received[end..];
        if head.upgrade.is_some() {
            // What follows may be a tunnel.
            all.push(Got { head, content: Vec::new(), whole: false });
            return all;
        }
        let (content, len) = match head.framing {
            Framing::None | Framing::Close => (Vec::new(), Some(0)),
            Framing::Length(n) => {
                let n = usize::try_from(n).unwrap_or(usize::MAX);
                (received[..received.len().min(n)].to_vec(), Some(n).filter(|n| *n <= received.len()))
            }
            Framing::Chunked => match naive::chunked(received) {
                Ok(Some((content, end))) => {
                    let trailers = naive::end(&[b"T: t\r\n", &received[end..]].concat());
                    (content, trailers.map(|trailers| end + trailers - 6))
                }
                Ok(None) => (Vec::new(), None),
                Err(()) => panic!("a backend got bad chunks: {}", received.escape_ascii()),
            },
        };
        all.push(Got { head, content, whole: len.is_some() });
        match len {
            Some(len) => received = &received[len..],
            None => return all,
        }
    }
    let start = received.iter().take(16).take_while(|&&b| b != b' ').all(u8::is_ascii_graphic);
    assert!(start, "a backend got {}", received.escape_ascii());
    all
}
