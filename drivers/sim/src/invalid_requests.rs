//! Requests that must be refused, from the corpus of HTTP/1.1 messages: none of them may reach a backend.

use std::sync::OnceLock;

use crate::random::SplitMix64;

/// The files of the corpus with such requests. Their format is described in `testdata/h1/README.md`.
const FILES: &[&str] = &[
    include_str!("../../../testdata/h1/requests/attacks.txt"),
    include_str!("../../../testdata/h1/requests/fields.txt"),
    include_str!("../../../testdata/h1/requests/host.txt"),
    include_str!("../../../testdata/h1/requests/length.txt"),
    include_str!("../../../testdata/h1/requests/start_line.txt"),
    include_str!("../../../testdata/h1/requests/target.txt"),
];

/// One of the requests.
pub(crate) fn pick(rng: &mut SplitMix64) -> &'static [u8] {
    static CASES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    let cases = CASES.get_or_init(|| FILES.iter().flat_map(|text| cases(text)).collect());
    &cases[rng.below(cases.len() as u64) as usize]
}

/// The requests of a file that must be refused outright.
fn cases(text: &str) -> Vec<Vec<u8>> {
    let mut found: Vec<Vec<u8>> = Vec::new();
    let mut sent: Option<Vec<Vec<u8>>> = None;
    let lines = text.replace("\n ", "");
    for line in lines.lines() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match (word, &mut sent) {
            ("case", _) => sent = Some(vec![Vec::new()]),
            ("C>", Some(all)) => match literal(rest) {
                Some(more) => all.last_mut().expect("one at least").extend(more),
                None => sent = None,
            },
            ("clause" | "rule" | "uncut" | "right", _) | ("" | "#", _) => {}
            ("or", Some(all)) => all.push(Vec::new()),
            ("reject", Some(all)) => {
                found.append(all);
                sent = None;
            }
            _ => sent = None,
        }
    }
    found.retain(|case| !case.is_empty());
    found
}

/// The bytes of a text with escapes; `None` if it has macros, which are not expanded here.
fn literal(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        out.push(match b {
            b'{' => return None,
            b'\\' => match bytes.next()? {
                b'r' => b'\r',
                b'n' => b'\n',
                b't' => b'\t',
                b'x' => {
                    let digits = [bytes.next()?, bytes.next()?];
                    u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
                }
                other => other,
            },
            _ => b,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_has_requests_to_refuse() {
        let all: Vec<Vec<u8>> = FILES.iter().flat_map(|text| cases(text)).collect();
        assert!(all.len() > 60, "{}", all.len());
        assert!(all.iter().any(|c| c.windows(8).any(|w| w == b"\r\nFoo: b")));
    }
}
