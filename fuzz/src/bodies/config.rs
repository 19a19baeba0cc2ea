//! Configuration texts: never a panic, always places within the text; what is accepted is accepted again, and prints as itself.

use ruststrom_core::config::{Matcher, Severity, parse, render};

pub(super) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let parsed = parse(text);
    let shown = render(&parsed.diagnostics, "fuzz.toml", text);
    assert_eq!(shown.is_empty(), parsed.diagnostics.is_empty());
    let newlines = text.matches('\n').count();
    for d in parsed.diagnostics.iter().chain(&parsed.not_built) {
        assert!(d.span.start <= d.span.end && d.span.end <= text.len(), "{d:?}");
        assert!((1..=newlines + 1).contains(&d.line) && d.column >= 1, "{d:?}");
        assert!(!d.message.is_empty() && !d.message.contains('\n'), "{d:?}");
    }
    let errors = parsed.diagnostics.iter().any(|d| d.severity == Severity::Error);
    assert_eq!(parsed.config.is_none(), errors, "no configuration if and only if there is an error");
    let again = parse(text);
    assert_eq!(again.config, parsed.config);
    assert_eq!(render(&again.diagnostics, "fuzz.toml", text), shown);
    let Some(config) = parsed.config else { return };
    assert!(config.pools.len() < 65_536);
    for pool in &config.pools {
        if pool.matcher != Matcher::Any {
            assert_eq!(Matcher::parse(&pool.matcher.to_string()).as_ref(), Ok(&pool.matcher), "{}", pool.matcher);
        }
        assert!(pool.backends.iter().all(|b| b.weight <= 1000));
        assert!((1..=1000).contains(&pool.health.slow_weight_permille));
        assert!((1024..=16_384).contains(&pool.limits.head_bytes) && (8..=256).contains(&pool.limits.fields));
    }
}
