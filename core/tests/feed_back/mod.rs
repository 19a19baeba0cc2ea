//! Puts what diagnostics suggest into the file, as a user does.

use ruststrom_core::config::{Diagnostic, Severity, Suggestion, parse, render};

/// The text after one suggestion was followed.
pub(crate) fn followed(text: &str, suggestion: &Suggestion) -> String {
    let mut text = text.to_owned();
    text.replace_range(suggestion.span.clone(), &suggestion.text);
    text
}

fn syntax_errors(text: &str) -> usize {
    toml::de::DeTable::parse_recoverable(text).1.len()
}

/// Follows every suggestion for a text, each alone: its problem must be gone, and what was put into the file
/// must have no error itself; it may show that something is missing beside it. The number of suggestions.
pub(crate) fn every_suggestion(text: &str) -> usize {
    let before = parse(text).diagnostics;
    let mut count = 0;
    for d in &before {
        for suggestion in &d.suggestions {
            count += 1;
            let corrected = followed(text, suggestion);
            let after = parse(&corrected).diagnostics;
            let number = |all: &[Diagnostic]| all.iter().filter(|o| o.message == d.message).count();
            let shown = || {
                let problem = render(std::slice::from_ref(d), "before", text);
                format!("{problem}{suggestion:?}\n{}", render(&after, "after", &corrected))
            };
            let put = suggestion.span.start..suggestion.span.start + suggestion.text.len();
            // A matcher is read up to its first error of some kinds: then the next one shows.
            let later = after.iter().filter(|o| o.message == d.message).all(|o| o.span.start > d.span.start);
            assert!(later || number(&after) < number(&before), "it does not help:\n{}", shown());
            for new in after.iter().filter(|new| new.severity == Severity::Error) {
                let overlaps = new.span.start < put.end && put.start < new.span.end;
                // A name that is known now shows what else is wrong with what it names.
                let renamed = d.help.as_deref().is_some_and(|help| help.starts_with("did you mean"));
                // The same goes for a value that can be read now.
                let readable = syntax_errors(&corrected) < syntax_errors(text);
                let reveals = readable
                    || (new.message == d.message && new.span.start > d.span.start)
                    || new.message.starts_with("missing `")
                    || (renamed && !new.message.contains("unknown"));
                assert!(!overlaps || reveals, "it is wrong itself:\n{}", shown());
            }
        }
        // What a help tells to write can be written.
        let tells = d.help.as_deref().is_some_and(|help| {
            ["write ", "did you mean \"", "use \"", "add "].iter().any(|verb| help.starts_with(verb))
        });
        assert!(!tells || !d.suggestions.is_empty(), "a help without a suggestion: {d:?}\n{text}");
    }
    count
}
