//! `realm`: what clients are told that a password is for (RFC 9110 §11.5).

use super::super::reader::{self, Section};
use super::super::report::Report;

/// The realm of a table; "Restricted" if it names none. `None` after an error.
pub(super) fn read(section: &Section<'_>, report: &mut Report<'_>) -> Option<Box<str>> {
    let Some(value) = section.get("realm") else { return Some("Restricted".into()) };
    let text = reader::label(value, "`realm`", report)?;
    // Clients differ in what they make of other characters there.
    if text.is_ascii() {
        return Some(text.into());
    }
    report.error(value.span(), "`realm` must be ASCII: clients do not agree on other characters there");
    None
}
