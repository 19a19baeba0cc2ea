//! "Did you mean …?": the nearest known name by edit distance.

/// The known name that `word` was most likely meant to be, if any is near enough: letter case and `_`, `-`
/// and blanks don't count, and up to a third of the characters may differ.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    /// No known name is this long; it also bounds the work for each unknown key.
    const MAX_CHARS: usize = 64;
    if word.chars().count() > MAX_CHARS {
        return None;
    }
    let plain = |s: &str| {
        s.chars().filter(|c| !matches!(c, '_' | '-' | ' ')).flat_map(char::to_lowercase).collect::<String>()
    };
    let word = plain(word);
    let word_chars = word.chars().count();
    known
        .iter()
        .map(|&k| {
            let name = plain(k);
            let allowed = name.chars().count().max(word_chars) / 3;
            // Insertions, deletions, replacements and swaps of neighbours.
            (strsim::osa_distance(&word, &name), allowed.max(1), k)
        })
        .filter(|&(distance, allowed, _)| distance <= allowed && distance < word_chars.max(1))
        .min_by_key(|&(distance, ..)| distance)
        .map(|(.., k)| k)
}

/// The help that asks for the nearest known name.
pub(super) fn did_you_mean(word: &str, known: &[&str]) -> Option<String> {
    nearest(word, known).map(|near| format!("did you mean \"{near}\"?"))
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
    fn a_swap_of_neighbours_is_one_edit() {
        // Two replacements away from either name, were there no swaps: too far for four letters.
        assert_eq!(nearest("haed", &["need", "head"]), Some("head"));
        assert_eq!(nearest("ab", &["ba"]), Some("ba"));
    }
}
