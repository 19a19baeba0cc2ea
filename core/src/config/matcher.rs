//! The matcher language: the tree, and the tree as text again. [`Matcher::parse`] reads it; `route` evaluates
//! it.
//!
//! ```text
//! any   = all *( "||" all )
//! all   = not *( "&&" not )
//! not   = *"!" ( "(" any ")" / term )
//! term  = name "(" text *( "," text ) ")"
//! text  = "'" … "'" / '"' … '"'
//! ```
//! Within a text `\\`, `\'` and `\"` stand for the second character; before anything else a backslash is
//! itself, so that regular expressions (`\.`, `\d`) are written as usual. Blanks may stand between any two
//! of these.

mod doubts;
mod error;
mod grammar;
mod meant;
mod path;
mod terms;

use std::fmt;

use ipnet::IpNet;
use regex::bytes::Regex;

pub use error::SyntaxError;

/// Longest text of a matcher, in bytes.
pub const MAX_BYTES: usize = 1 << 20;
/// Deepest nesting of parentheses. Code that walks the tree recurses at most about twice as deep.
pub const MAX_DEPTH: usize = 64;

/// Which requests a pool takes. It prints as a text that reads back as the same tree.
#[derive(Clone, Debug, PartialEq)]
pub enum Matcher {
    /// Takes everything: a pool without `matcher`.
    Any,
    /// `Host('h')`: lower case, without port or final dot; an IPv6 address in brackets.
    Host(Box<str>),
    /// `HostRegexp('p')`: against the host without port or final dot, in any case.
    HostRegexp(Pattern),
    /// `Path('/p')`: the whole path.
    Path(Box<str>),
    /// `PathPrefix('/p')`: `/p` and everything below `/p/`.
    PathPrefix(Box<str>),
    /// `PathRegexp('p')`: anywhere in the path unless anchored.
    PathRegexp(Pattern),
    /// `Method('M')`: case-sensitive (RFC 9110 §9.1).
    Method(Box<str>),
    /// `Header('k', 'v')`: any field `k` (lower case here) whose value is exactly `v`.
    Header(Box<str>, Box<str>),
    /// `HeaderRegexp('k', 'p')`: any field `k` in whose value `p` is found.
    HeaderRegexp(Box<str>, Pattern),
    /// `Query('k', 'v')`: any pair `k=v`, both compared after percent-decoding and with `+` as a blank.
    Query(Box<str>, Box<str>),
    /// `ClientIP('cidr')`: an address or network; v4-mapped v6 counts as v4.
    ClientIp(IpNet),
    /// `!`: what the inner matcher doesn't take.
    Not(Box<Matcher>),
    /// `&&`: what all take; two or more, none of them an `And`.
    And(Vec<Matcher>),
    /// `||`: what any takes; two or more, none of them an `Or`.
    Or(Vec<Matcher>),
}

impl Matcher {
    /// Reads a matcher of at most [`MAX_BYTES`] bytes and [`MAX_DEPTH`] nested parentheses.
    ///
    /// # Errors
    ///
    /// Every error found, at least one, in the order of `text`. Reading goes on after a wrong term, and ends
    /// where operators, parentheses or quotes can't be understood.
    pub fn parse(text: &str) -> Result<Self, Vec<SyntaxError>> {
        grammar::parse(text).0
    }

    /// [`Matcher::parse`], and warnings of what a valid matcher says but hardly means.
    pub(super) fn read(text: &str) -> (Result<Self, Vec<SyntaxError>>, Vec<SyntaxError>) {
        grammar::parse(text)
    }
}

/// A compiled regular expression, which matches in linear time. Two are equal if their texts are.
#[derive(Clone)]
pub struct Pattern {
    source: Box<str>,
    regex: Regex,
}

impl Pattern {
    /// Compiles an expression of bounded size and nesting. It matches bytes: `.` is one byte, `\w` is ASCII.
    fn new(source: &str, any_case: bool) -> Result<Self, regex::Error> {
        let regex = regex::bytes::RegexBuilder::new(source)
            .unicode(false)
            .case_insensitive(any_case)
            .size_limit(1 << 20)
            .dfa_size_limit(1 << 20)
            .nest_limit(64)
            .build()?;
        Ok(Self { source: source.into(), regex })
    }

    /// The expression as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// Whether the expression matches anywhere in `text`.
    #[must_use]
    pub fn is_match(&self, text: &[u8]) -> bool {
        self.regex.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.source, f)
    }
}

/// A text in single quotes as the grammar reads it back.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("'")?;
        let mut rest = self.0;
        while let Some(at) = rest.find(['\\', '\'']) {
            f.write_str(&rest[..at])?;
            f.write_str("\\")?;
            f.write_str(&rest[at..=at])?;
            rest = &rest[at + 1..];
        }
        f.write_str(rest)?;
        f.write_str("'")
    }
}

impl fmt::Display for Matcher {
    /// [`Matcher::Any`] prints as nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => Ok(()),
            Self::Host(h) => write!(f, "Host({})", Quoted(h)),
            Self::HostRegexp(p) => write!(f, "HostRegexp({})", Quoted(&p.source)),
            Self::Path(p) => write!(f, "Path({})", Quoted(p)),
            Self::PathPrefix(p) => write!(f, "PathPrefix({})", Quoted(p)),
            Self::PathRegexp(p) => write!(f, "PathRegexp({})", Quoted(&p.source)),
            Self::Method(m) => write!(f, "Method({})", Quoted(m)),
            Self::Header(k, v) => write!(f, "Header({}, {})", Quoted(k), Quoted(v)),
            Self::HeaderRegexp(k, p) => write!(f, "HeaderRegexp({}, {})", Quoted(k), Quoted(&p.source)),
            Self::Query(k, v) => write!(f, "Query({}, {})", Quoted(k), Quoted(v)),
            Self::ClientIp(net) => write!(f, "ClientIP('{net}')"),
            Self::Not(inner) if matches!(**inner, Self::And(_) | Self::Or(_)) => write!(f, "!({inner})"),
            Self::Not(inner) => write!(f, "!{inner}"),
            Self::And(terms) => join(f, terms, " && "),
            Self::Or(terms) => join(f, terms, " || "),
        }
    }
}

/// Writes terms joined by an operator. `Or` within `And` needs parentheses, `And` within `Or` doesn't.
fn join(f: &mut fmt::Formatter<'_>, terms: &[Matcher], operator: &str) -> fmt::Result {
    for (i, term) in terms.iter().enumerate() {
        if i > 0 {
            f.write_str(operator)?;
        }
        match term {
            Matcher::Or(_) => write!(f, "({term})")?,
            _ => write!(f, "{term}")?,
        }
    }
    Ok(())
}
