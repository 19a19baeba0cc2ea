//! Text to tree: operators, parentheses and quotes, by recursive descent. What a term means is in `terms`.

use std::ops::Range;

use super::error::SyntaxError;
use super::terms::{self, Argument};
use super::{MAX_BYTES, MAX_DEPTH, Matcher, doubts, meant};
use crate::config::diagnostic::clip;
use crate::config::suggest;

struct Grammar<'t> {
    text: &'t str,
    pos: usize,
    /// Terms that are wrong in themselves: reading goes on after them. The error that a method returns ends
    /// the reading.
    wrong_terms: Vec<SyntaxError>,
    /// Terms that are valid but hardly meant so.
    doubts: Vec<SyntaxError>,
}

/// The tree or every error, and warnings about the tree.
pub(super) fn parse(text: &str) -> (Result<Matcher, Vec<SyntaxError>>, Vec<SyntaxError>) {
    if text.len() > MAX_BYTES {
        let message = format!("matcher is longer than {MAX_BYTES} bytes");
        return (Err(vec![SyntaxError::new(0..text.len(), message)]), Vec::new());
    }
    let mut g = Grammar { text, pos: 0, wrong_terms: Vec::new(), doubts: Vec::new() };
    g.blanks();
    if g.pos == text.len() {
        let error = SyntaxError::new(0..text.len(), "matcher is empty");
        return (Err(vec![error.with_help("leave `matcher` out to take every request")]), Vec::new());
    }
    let tree = g.any(0).and_then(|tree| g.end().map(|()| tree));
    let mut errors = g.wrong_terms;
    match tree {
        Ok(tree) if errors.is_empty() => return (Ok(tree), g.doubts),
        Ok(_) => {}
        Err(error) => errors.push(match meant::by_bare(text) {
            Some(term) => error.write(0..text.len(), term),
            None if suggest::is_variable(text) => error.with_help(suggest::VARIABLES),
            None => error,
        }),
    }
    (Err(errors), Vec::new())
}

impl Grammar<'_> {
    /// Skips blanks.
    fn blanks(&mut self) {
        let rest = &self.text[self.pos..];
        self.pos += rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
    }

    /// Takes `token` and the blanks after it.
    fn take(&mut self, token: &str) -> bool {
        let found = self.text[self.pos..].starts_with(token);
        if found {
            self.pos += token.len();
            self.blanks();
        }
        found
    }

    /// The range of the character at `pos`; empty at the end.
    fn here(&self) -> Range<usize> {
        let len = self.text[self.pos..].chars().next().map_or(0, char::len_utf8);
        self.pos..self.pos + len
    }

    /// Nothing may follow the tree.
    fn end(&self) -> Result<(), SyntaxError> {
        let here = self.here();
        let Some(next) = self.text[self.pos..].bytes().next() else { return Ok(()) };
        if next == b')' {
            return Err(SyntaxError::new(here, "this `)` closes nothing"));
        }
        let word = self.word();
        let span = if word.is_empty() { here } else { word };
        let operator = match self.text[span.clone()].to_ascii_lowercase().as_str() {
            "&" | "and" => Some("&&"),
            "|" | "or" => Some("||"),
            _ => None,
        };
        let error = SyntaxError::new(span.clone(), "expected `&&` or `||` between two terms");
        Err(match operator {
            Some(operator) => error.suggest(format!("write `{operator}`"), span, operator),
            None => error,
        })
    }

    /// Terms joined by `||`, which binds least.
    fn any(&mut self, depth: usize) -> Result<Matcher, SyntaxError> {
        let mut terms = Vec::new();
        loop {
            match self.all(depth)? {
                Matcher::Or(inner) => terms.extend(inner),
                one => terms.push(one),
            }
            if !self.take("||") {
                break;
            }
        }
        Ok(if terms.len() == 1 { terms.remove(0) } else { Matcher::Or(terms) })
    }

    /// Terms joined by `&&`.
    fn all(&mut self, depth: usize) -> Result<Matcher, SyntaxError> {
        let mut terms = Vec::new();
        loop {
            match self.not(depth)? {
                Matcher::And(inner) => terms.extend(inner),
                one => terms.push(one),
            }
            if !self.take("&&") {
                break;
            }
        }
        Ok(if terms.len() == 1 { terms.remove(0) } else { Matcher::And(terms) })
    }

    /// A term or a tree in parentheses, with any number of `!` before it.
    fn not(&mut self, depth: usize) -> Result<Matcher, SyntaxError> {
        let mut negated = false;
        while self.take("!") {
            negated = !negated;
        }
        let here = self.here();
        let inner = if self.take("(") {
            if depth == MAX_DEPTH {
                let message = format!("more than {MAX_DEPTH} parentheses within each other");
                return Err(SyntaxError::new(here, message));
            }
            let inner = self.any(depth + 1)?;
            if !self.take(")") {
                if self.pos < self.text.len() {
                    self.end()?;
                }
                return Err(SyntaxError::new(here, "this `(` is never closed"));
            }
            inner
        } else {
            self.term()?
        };
        Ok(match inner {
            // Two negations cancel out, however they are written: so trees stay shallow and have one text.
            Matcher::Not(inner) if negated => *inner,
            inner if negated => Matcher::Not(Box::new(inner)),
            inner => inner,
        })
    }

    /// The range of the letters, digits, `_` and `-` at `pos`, which are not taken.
    fn word(&self) -> Range<usize> {
        let rest = &self.text[self.pos..];
        let len = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-')).unwrap_or(rest.len());
        self.pos..self.pos + len
    }

    /// A name with its arguments.
    fn term(&mut self) -> Result<Matcher, SyntaxError> {
        let name_span = self.word();
        if name_span.is_empty() {
            let message = match self.text[self.pos..].bytes().next() {
                None => "expected a term after this",
                Some(b'\'' | b'"') => "expected a term, found a text",
                Some(_) => "expected a term",
            };
            return Err(SyntaxError::new(self.here(), message).with_help("for example Host('example.com')"));
        }
        self.pos = name_span.end;
        self.blanks();
        let name = &self.text[name_span.clone()];
        if !self.take("(") {
            let message = format!("expected `(` after `{}`", clip(name));
            let error = SyntaxError::new(name_span.clone(), message);
            return Err(match suggest::nearest(name, terms::NAMES) {
                _ if name.eq_ignore_ascii_case("not") => error.suggest("write `!`", name_span, "!"),
                Some(near) => error.with_help(format!("for example {}", terms::example(near))),
                None => error.with_help(format!("terms are {}", terms::NAMES.join(", "))),
            });
        }
        let arguments = self.arguments()?;
        let whole = name_span.start..self.text[..self.pos].trim_end().len();
        let term = terms::Term { name, name_span, whole };
        match terms::build(&term, &arguments) {
            Ok(matcher) => {
                self.doubts.extend(doubts::of(&term, &matcher, &arguments));
                Ok(matcher)
            }
            Err(error) => {
                self.wrong_terms.push(error);
                Ok(Matcher::Any)
            }
        }
    }

    /// The texts up to and with the `)` after them.
    fn arguments(&mut self) -> Result<Vec<Argument>, SyntaxError> {
        let mut arguments = Vec::new();
        if self.take(")") {
            return Ok(arguments);
        }
        loop {
            arguments.push(self.argument()?);
            if self.take(")") {
                return Ok(arguments);
            }
            if !self.take(",") {
                return Err(SyntaxError::new(self.here(), "expected `,` or `)` after this text"));
            }
        }
    }

    /// The error for an argument that doesn't begin with a quote.
    fn unquoted(&self) -> SyntaxError {
        let word = self.word();
        let span = if word.is_empty() { self.here() } else { word };
        let error = SyntaxError::new(span, "expected a text in quotes");
        let rest = &self.text[self.pos..];
        // Other programs have other quotes, or none.
        let closing = match rest.chars().next() {
            Some('`') => Some('`'),
            Some('‘' | '’') => Some('’'),
            Some('“' | '”' | '„') => Some('”'),
            _ => None,
        };
        let (len, inner) = match closing {
            Some(closing) => {
                let opening = rest.chars().next().map_or(0, char::len_utf8);
                let Some(end) = rest[opening..].find(closing) else { return error };
                (opening + end + closing.len_utf8(), &rest[opening..opening + end])
            }
            None => {
                let len = rest[..rest.find([',', ')']).unwrap_or(0)].trim_end().len();
                (len, &rest[..len])
            }
        };
        if inner.is_empty() || inner.contains(['\'', '"']) {
            return error;
        }
        error.write(self.pos..self.pos + len, meant::quoted(inner, '\''))
    }

    /// A text in quotes.
    fn argument(&mut self) -> Result<Argument, SyntaxError> {
        let start = self.pos;
        let Some(quote @ (b'\'' | b'"')) = self.text[start..].bytes().next() else {
            return Err(self.unquoted());
        };
        let quote = char::from(quote);
        let mut value = String::new();
        let mut verbatim = true;
        let mut chars = self.text[start + 1..].char_indices().peekable();
        while let Some((i, c)) = chars.next() {
            if c == quote {
                self.pos = start + 1 + i + 1;
                let span = start..self.pos;
                self.blanks();
                return Ok(Argument { value, span, verbatim, quote });
            }
            match chars.peek() {
                Some(&(_, next @ ('\\' | '\'' | '"'))) if c == '\\' => {
                    verbatim = false;
                    value.push(next);
                    chars.next();
                }
                _ => value.push(c),
            }
        }
        Err(SyntaxError::new(start..start + 1, "this quote is never closed"))
    }
}
