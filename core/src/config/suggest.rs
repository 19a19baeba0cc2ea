//! "Did you mean …?": the known name that an unknown one most likely stands for, and texts that other
//! programs would replace by something else.

/// What other load balancers and web servers call what is called otherwise here: (their word, ours). A word
/// counts only where ours is known.
const OTHER_WORDS: &[(&str, &str)] = &[
    ("algorithm", "strategy"),
    ("balance", "strategy"),
    ("lb_policy", "strategy"),
    ("policy", "strategy"),
    ("backends", "addresses"),
    ("servers", "addresses"),
    ("targets", "addresses"),
    ("upstreams", "addresses"),
    ("upstream", "backend_pools"),
    ("pools", "backend_pools"),
    ("bind", "http_address"),
    ("listen", "http_address"),
    ("host", "matcher"),
    ("match", "matcher"),
    ("route", "matcher"),
    ("rule", "matcher"),
    ("cert", "certificate_path"),
    ("cert_file", "certificate_path"),
    ("key_file", "private_key_path"),
    ("ca_file", "client_ca"),
    ("ssl_client_certificate", "client_ca"),
    ("ssl_verify_client", "client_auth"),
    ("acme_server", "directory_url"),
    ("acme_ca", "directory_url"),
    ("ca", "directory_url"),
    ("ca_server", "directory_url"),
    ("directory", "directory_url"),
    ("server", "directory_url"),
    ("contact", "email"),
    ("external_account", "eab"),
    ("external_account_binding", "eab"),
    ("alt_names", "names"),
    ("domains", "names"),
    ("sans", "names"),
    ("subject_alt_names", "names"),
    ("cache_dir", "persist_dir"),
    ("storage", "persist_dir"),
    ("health", "health_config"),
    ("healthcheck", "health_config"),
    ("interval", "check_every"),
    ("max_fails", "fall"),
    ("client", "idle"),
    ("keepalive", "idle"),
    ("server", "backend_head"),
    ("read", "backend_head"),
    ("tls", "certificates"),
    ("ssl", "certificates"),
    ("uri", "path"),
    ("url", "address"),
    ("max_conns", "max_connections"),
    ("maxconn", "max_connections"),
    ("maxconn", "connections"),
    ("nbthread", "workers"),
    ("threads", "workers"),
    ("worker_processes", "workers"),
    ("ip_hash", "IPHash"),
    ("source", "IPHash"),
    ("least_conn", "LeastConnection"),
    ("sticky", "StickyCookie"),
    ("basic_auth", "BasicAuth"),
    ("auth_basic", "BasicAuth"),
    ("auth_basic_user_file", "users_file"),
    ("gzip", "Compression"),
    ("encode", "Compression"),
    ("redirectscheme", "HttpsRedirector"),
    ("limit_req", "RateLimiter"),
    ("client_max_body_size", "MaxBodySize"),
];

/// The help for a text that [`is_variable`].
pub(super) const VARIABLES: &str =
    "variables of the environment are written \"${NAME}\" or \"${NAME:-default}\", in strings";

/// Whether other programs would replace a part of the text: `${X}`, `$X`, `{$X}`, `{env.X}`, `{{ x }}` or
/// `%X%`.
pub(super) fn is_variable(text: &str) -> bool {
    let name = |rest: &str| rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '{');
    let dollar = text.match_indices('$').any(|(i, _)| name(&text[i + 1..]));
    let percent = text.split('%').nth(1).is_some_and(|word| {
        word.len() > 2
            && text.matches('%').count() == 2
            && word.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')
    });
    dollar || percent || text.contains("{{") || text.contains("{env.")
}

/// The known name that `word` was most likely meant to be, if any is near enough: letter case and `_`, `-`
/// and blanks don't count, and up to a third of the characters may differ. A name may also lack a part
/// before or after `_`, or be another program's.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    /// No known name is this long; it also bounds the work for each unknown key.
    const MAX_CHARS: usize = 64;
    if word.chars().count() > MAX_CHARS {
        return None;
    }
    let plain = |s: &str| {
        s.chars().filter(|c| !matches!(c, '_' | '-' | ' ')).flat_map(char::to_lowercase).collect::<String>()
    };
    let (written, word) = (word.to_lowercase(), plain(word));
    let word_chars = word.chars().count();
    let ours = |&&(theirs, _): &&(&str, &str)| plain(theirs) == word;
    let translated =
        OTHER_WORDS.iter().filter(ours).find_map(|(_, ours)| known.iter().find(|k| *k == ours).copied());
    translated.or_else(|| by_distance(&word, word_chars, known, &plain)).or_else(|| {
        let (before, after) = (format!("_{written}"), format!("{written}_"));
        let mut parts = known.iter().filter(|k| k.ends_with(&before) || k.starts_with(&after));
        // Only one may be meant.
        parts.next().copied().filter(|_| parts.next().is_none())
    })
}

/// The nearest name by edit distance; `plain` is how names are compared.
fn by_distance<'k>(
    word: &str,
    word_chars: usize,
    known: &[&'k str],
    plain: &dyn Fn(&str) -> String,
) -> Option<&'k str> {
    known
        .iter()
        .map(|&k| {
            let name = plain(k);
            let allowed = name.chars().count().max(word_chars) / 3;
            // Insertions, deletions, replacements and swaps of neighbours.
            (strsim::osa_distance(word, &name), allowed.max(1), k)
        })
        .filter(|&(distance, allowed, _)| distance <= allowed && distance < word_chars.max(1))
        .min_by_key(|&(distance, ..)| distance)
        .map(|(.., k)| k)
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
            ("every", Some("check_every")),
            ("check", Some("check_every")),
            ("interval", Some("check_every")),
            ("Servers", Some("addresses")),
            ("listen", None),
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
    fn variables_of_other_programs() {
        for text in
            ["${LISTEN}", "$PORT", "0.0.0.0:${PORT:-80}", "{$PORT}", "{{ port }}", "{env.PORT}", "%PORT%"]
        {
            assert!(is_variable(text), "{text}");
        }
        for text in ["", "^/a$", "/a%20b%20c", "$", "a{2,3}", "100%", "[::]:80", "$1"] {
            assert!(!is_variable(text), "{text}");
        }
    }

    #[test]
    fn a_swap_of_neighbours_is_one_edit() {
        // Two replacements away from either name, were there no swaps: too far for four letters.
        assert_eq!(nearest("haed", &["need", "head"]), Some("head"));
        assert_eq!(nearest("ab", &["ba"]), Some("ba"));
    }
}
