//! Text to tree: operators, parentheses and quotes. What a term means is in `terms`.

use std::ops::Range;

use super::{MAX_BYTES, MAX_DEPTH, Matcher, terms};
use crate::config::suggest;

/// Something wrong in a matcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Bytes of the matcher's text.
    pub at: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl Problem {
    pub(super) fn new(at: Range<usize>, message: impl Into<String>) -> Self {
        Self { at, message: message.into(), help: None }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// An argument of a term, unescaped, and where it stood (with its quotes).
pub(super) struct Text {
    pub(super) value: String,
    pub(super) at: Range<usize>,
    /// No escape was used, so places within `value` are places within the source.
    pub(super) plain: bool,
}

struct Grammar<'t> {
    text: &'t str,
    pos: usize,
    /// Terms that make no sense; reading goes on after them.
    problems: Vec<Problem>,
}

/// The grammar broke: nothing after this can be understood.
struct Broken;

pub(super) fn parse(text: &str) -> Result<Matcher, Vec<Problem>> {
    if text.len() > MAX_BYTES {
        return Err(vec![Problem::new(0..text.len(), format!("matcher is longer than {MAX_BYTES} bytes"))]);
    }
    let mut g = Grammar { text, pos: 0, problems: Vec::new() };
    g.blanks();
    if g.pos == text.len() {
        let problem =
            Problem::new(0..text.len(), "matcher is empty").help("leave `matcher` out to take every request");
        return Err(vec![problem]);
    }
    let tree = g.any(0).and_then(|tree| g.end().map(|()| tree));
    match tree {
        Ok(tree) if g.problems.is_empty() => Ok(tree),
        _ => Err(g.problems),
    }
}

impl Grammar<'_> {
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

    /// The character at `pos`, or an empty range at the end.
    fn here(&self) -> Range<usize> {
        let len = self.text[self.pos..].chars().next().map_or(0, char::len_utf8);
        self.pos..self.pos + len
    }

    fn broken(&mut self, at: Range<usize>, message: impl Into<String>, help: Option<&str>) -> Broken {
        self.problems.push(Problem { at, message: message.into(), help: help.map(Into::into) });
        Broken
    }

    fn end(&mut self) -> Result<(), Broken> {
        if self.pos == self.text.len() {
            return Ok(());
        }
        let here = self.here();
        let rest = &self.text[self.pos..];
        Err(match rest.as_bytes()[0] {
            b')' => self.broken(here, "this `)` closes nothing", None),
            b'&' => self.broken(here, "expected `&&` or `||` between two terms", Some("write `&&`")),
            b'|' => self.broken(here, "expected `&&` or `||` between two terms", Some("write `||`")),
            _ => {
                let word = self.word();
                let at = if word.is_empty() { here } else { word };
                let help = match self.text[at.clone()].to_ascii_lowercase().as_str() {
                    "and" => Some("write `&&`"),
                    "or" => Some("write `||`"),
                    _ => None,
                };
                self.broken(at, "expected `&&` or `||` between two terms", help)
            }
        })
    }

    fn any(&mut self, depth: usize) -> Result<Matcher, Broken> {
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

    fn all(&mut self, depth: usize) -> Result<Matcher, Broken> {
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

    fn not(&mut self, depth: usize) -> Result<Matcher, Broken> {
        let mut negated = false;
        while self.take("!") {
            negated = !negated;
        }
        let here = self.here();
        let inner = if self.take("(") {
            if depth == MAX_DEPTH {
                return Err(self.broken(
                    here,
                    format!("more than {MAX_DEPTH} parentheses within each other"),
                    None,
                ));
            }
            let inner = self.any(depth + 1)?;
            if !self.take(")") {
                if self.pos < self.text.len() {
                    self.end()?;
                }
                return Err(self.broken(here, "this `(` is never closed", None));
            }
            inner
        } else {
            self.term()?
        };
        Ok(match inner {
            // Two negations, however they are written, are none: trees stay shallow and have one text.
            Matcher::Not(inner) if negated => *inner,
            inner if negated => Matcher::Not(Box::new(inner)),
            inner => inner,
        })
    }

    /// The letters and digits at `pos`, not taken.
    fn word(&self) -> Range<usize> {
        let rest = &self.text[self.pos..];
        let len = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-')).unwrap_or(rest.len());
        self.pos..self.pos + len
    }

    fn term(&mut self) -> Result<Matcher, Broken> {
        let name_at = self.word();
        if name_at.is_empty() {
            let here = self.here();
            return Err(match self.text[self.pos..].bytes().next() {
                None => {
                    self.broken(here, "expected a term after this", Some("for example Host('example.com')"))
                }
                Some(b'\'' | b'"') => self.broken(
                    here,
                    "expected a term, found a text",
                    Some("for example Host('example.com')"),
                ),
                Some(_) => self.broken(here, "expected a term", Some("for example Host('example.com')")),
            });
        }
        self.pos = name_at.end;
        self.blanks();
        let name = &self.text[name_at.clone()];
        if !self.take("(") {
            let help = match suggest::nearest(name, terms::NAMES) {
                _ if name.eq_ignore_ascii_case("not") => Some("write `!`".to_owned()),
                Some(near) if near != name => Some(format!("did you mean `{near}('…')`?")),
                _ => Some(format!("write {name}('…')")),
            };
            let message = format!("expected `(` after `{}`", suggest::clip(name));
            return Err(self.broken(name_at, message, help.as_deref()));
        }
        let mut arguments = Vec::new();
        if !self.take(")") {
            loop {
                arguments.push(self.argument()?);
                if self.take(")") {
                    break;
                }
                if !self.take(",") {
                    let here = self.here();
                    return Err(self.broken(here, "expected `,` or `)` after this text", None));
                }
            }
        }
        let whole = name_at.start..self.text[..self.pos].trim_end().len();
        Ok(terms::build(name, name_at, whole, arguments).unwrap_or_else(|problem| {
            self.problems.push(problem);
            Matcher::Any
        }))
    }

    fn argument(&mut self) -> Result<Text, Broken> {
        let start = self.pos;
        let Some(quote @ (b'\'' | b'"')) = self.text[start..].bytes().next() else {
            let word = self.word();
            let at = if word.is_empty() { self.here() } else { word };
            return Err(self.broken(at, "expected a text in quotes", Some("write '…'")));
        };
        let quote = char::from(quote);
        let mut value = String::new();
        let mut plain = true;
        let mut chars = self.text[start + 1..].char_indices().peekable();
        while let Some((i, c)) = chars.next() {
            if c == quote {
                self.pos = start + 1 + i + 1;
                let at = start..self.pos;
                self.blanks();
                return Ok(Text { value, at, plain });
            }
            match chars.peek() {
                Some(&(_, next @ ('\\' | '\'' | '"'))) if c == '\\' => {
                    plain = false;
                    value.push(next);
                    chars.next();
                }
                _ => value.push(c),
            }
        }
        Err(self.broken(start..start + 1, "this quote is never closed", None))
    }
}
