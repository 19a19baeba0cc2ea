//! "Did you mean …?": the nearest known name by edit distance.

/// The known name that `word` was most likely meant to be, if any is near enough.
pub(crate) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    // Nobody misspells a name into something this long; it also bounds the work for each unknown key.
    if word.chars().count() > 64 {
        return None;
    }
    let plain = |s: &str| {
        s.chars().filter(|c| !matches!(c, '_' | '-' | ' ')).flat_map(char::to_lowercase).collect::<Vec<_>>()
    };
    let word = plain(word);
    known
        .iter()
        .map(|&k| {
            let name = plain(k);
            let allowed = name.len().max(word.len()) / 3;
            (distance(&word, &name), allowed.max(1), k)
        })
        .filter(|&(distance, allowed, _)| distance <= allowed && distance < word.len().max(1))
        .min_by_key(|&(distance, ..)| distance)
        .map(|(.., k)| k)
}

/// Insertions, deletions, replacements and swaps of neighbours that make one of the other.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// A text from the file as a message shows it: bounded, nothing that moves a terminal's cursor.
pub(crate) fn clip(text: &str) -> String {
    const SHOWN: usize = 60;
    let mut out: String =
        text.chars().take(SHOWN).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(SHOWN).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_names() {
        let known = &["Authentication", "Compression", "RateLimiter", "addresses", "check_every", "path"];
        let cases = [
            ("Authentification", Some("Authentication")),
            ("authentication", Some("Authentication")),
            ("addreses", Some("addresses")),
            ("adresses", Some("addresses")),
            ("check-every", Some("check_every")),
            ("checkevery", Some("check_every")),
            ("RateLimitre", Some("RateLimiter")),
            ("pth", Some("path")),
            ("zzz", None),
            ("", None),
            ("x", None),
        ];
        for (word, wanted) in cases {
            assert_eq!(nearest(word, known), wanted, "{word}");
        }
        assert_eq!(nearest(&"p".repeat(100_000), known), None);
    }

    #[test]
    fn swap_counts_once() {
        let chars = |s: &str| s.chars().collect::<Vec<_>>();
        for (a, b, wanted) in
            [("ab", "ba", 1), ("abc", "abc", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("ca", "abc", 3)]
        {
            assert_eq!(distance(&chars(a), &chars(b)), wanted, "{a} {b}");
        }
    }
}
