//! `regex` and `replacement`, of every kind that has them.

use super::super::diagnostic::clip;
use super::super::literal::Literal;
use super::super::reader::{self, Section};
use super::super::report::Report;
use super::super::substitution::{Substitution, SubstitutionError};

/// The rule of a table; `example`: of an expression and a replacement, as TOML.
pub(super) fn read(
    section: &Section<'_>,
    example: (&str, &str),
    report: &mut Report<'_>,
) -> Option<Substitution> {
    let (regex, replacement) = (section.required("regex", example.0, report), section.get("replacement"));
    if replacement.is_none() {
        section.required("replacement", example.1, report);
    }
    let regex = regex.and_then(|value| Some((reader::string(value, "`regex`", report)?, value.span())));
    let replacement =
        replacement.and_then(|value| Some((reader::string(value, "`replacement`", report)?, value.span())));
    let ((regex, regex_span), (replacement, replacement_span)) = (regex?, replacement?);
    match Substitution::parse(regex, replacement) {
        Ok(rule) => Some(rule),
        Err(SubstitutionError::Regex(reason)) => {
            report.error(regex_span, format!("bad regular expression \"{}\": {reason}", clip(regex)));
            None
        }
        Err(SubstitutionError::Replacement { span, message, instead }) => {
            let literal = Literal::new(report.text, replacement_span.clone(), replacement);
            let span = literal.span_of(span);
            let error = report.error(span.clone(), message);
            if let Some(instead) = instead.filter(|_| span != replacement_span) {
                error.suggest(format!("write {instead}"), span, instead);
            }
            None
        }
    }
}
