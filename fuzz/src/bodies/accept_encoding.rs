//! `Accept-Encoding`: the coding that is chosen is the one that a reader chooses who follows RFC 9110 the
//! long way round.
//!
//! An input is a byte whose low four bits say which codings are offered, and field values, each a line.

use ruststrom_core::http::ContentCoding;

pub(super) fn run(data: &[u8]) {
    let (offered, lines) = data.split_first().map_or((0, data), |(first, rest)| (*first, rest));
    let offered: Vec<ContentCoding> = ContentCoding::ALL
        .into_iter()
        .enumerate()
        .filter(|(i, _)| offered >> i & 1 == 1)
        .map(|(_, c)| c)
        .collect();
    let lines: Vec<&[u8]> = lines.split(|b| *b == b'\n').collect();
    let found = ContentCoding::negotiate(lines.iter().copied(), &offered);
    let text: Vec<String> = lines.iter().map(|line| line.iter().map(|b| char::from(*b)).collect()).collect();
    assert_eq!(found, naive(&text, &offered), "{text:?} of {offered:?}");
    // Whether they stand in one line or in several makes no difference.
    let joined = lines.join(&b","[..]);
    assert_eq!(ContentCoding::negotiate([&joined[..]], &offered), found, "{text:?}");
}

/// What the elements of all lines say, in their order: a name in small letters, and a weight.
fn elements(lines: &[String]) -> Vec<(String, f64)> {
    let blank = |c: char| c.is_ascii_whitespace();
    let mut elements = Vec::new();
    for element in lines.join(",").split(',') {
        let mut parts = element.split(';').map(|part| part.trim_matches(blank));
        let name = parts.next().expect("a first part").to_ascii_lowercase();
        let weights = parts.filter_map(|part| {
            let (key, value) = part.split_once('=')?;
            (["q", "Q"].contains(&key.trim_matches(blank))).then(|| weight(value.trim_matches(blank)))
        });
        elements.push((if name == "x-gzip" { "gzip".into() } else { name }, weights.fold(1.0, f64::min)));
    }
    elements
}

/// A `qvalue`; 0 for what is none.
fn weight(text: &str) -> f64 {
    let shaped = text.len() <= 5
        && text.starts_with(['0', '1'])
        && text[1..].chars().enumerate().all(|(i, c)| if i == 0 { c == '.' } else { c.is_ascii_digit() });
    text.parse().ok().filter(|weight| shaped && *weight <= 1.0).unwrap_or(0.0)
}

fn naive(lines: &[String], offered: &[ContentCoding]) -> Option<ContentCoding> {
    let elements = elements(lines);
    let of = |wanted: &str| {
        elements.iter().filter(|(name, _)| name == wanted).map(|(_, weight)| *weight).reduce(f64::min)
    };
    let weight = |name: &str| of(name).or_else(|| of("*")).unwrap_or(0.0);
    let acceptable = |coding: &&ContentCoding| weight(coding.name()) > 0.0 && offered.contains(coding);
    // Of equal ones `max_by` has the last.
    let best = ContentCoding::ALL
        .iter()
        .rev()
        .filter(acceptable)
        .max_by(|a, b| weight(a.name()).total_cmp(&weight(b.name())))?;
    (weight(best.name()) >= weight("identity")).then_some(*best)
}
