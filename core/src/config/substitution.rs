//! A regular expression, and what takes the place of what it matches: `$1`, `${name}`, and `$$` for a dollar.

use std::fmt;
use std::ops::Range;

use regex::bytes::{Regex, RegexBuilder};

/// A rule that rewrites a text. Two are equal if their texts are.
#[derive(Clone)]
pub struct Substitution {
    regex_source: Box<str>,
    replacement_source: Box<str>,
    regex: Regex,
    parts: Box<[Part]>,
}

#[derive(Clone, Debug)]
enum Part {
    Text(Box<str>),
    Group(usize),
}

/// What is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubstitutionError {
    /// The expression, and why.
    Regex(String),
    /// A part of the replacement.
    Replacement {
        /// Its bytes.
        span: Range<usize>,
        /// What is wrong.
        message: String,
        /// What to write instead.
        instead: Option<String>,
    },
}

/// What became of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rewritten {
    /// The expression does not match.
    Unmatched,
    /// The whole text, rewritten.
    To(Vec<u8>),
    /// It would be longer than it may be.
    TooLong,
}

/// Longest replacement, in bytes.
const MAX_REPLACEMENT_BYTES: usize = 1024;

impl Substitution {
    /// Compiles a rule. The expression matches bytes in linear time: `.` is one byte, `\w` is ASCII. The
    /// replacement is of visible ASCII characters.
    ///
    /// # Errors
    /// The first mistake in either.
    pub fn parse(regex: &str, replacement: &str) -> Result<Self, SubstitutionError> {
        let built = RegexBuilder::new(regex)
            .unicode(false)
            .size_limit(1 << 20)
            .dfa_size_limit(1 << 20)
            .nest_limit(64)
            .build();
        let compiled = built.map_err(|error| {
            SubstitutionError::Regex(match error {
                regex::Error::CompiledTooBig(_) => "it is too big".into(),
                other => {
                    // The last line says what is wrong; the lines before it show the expression.
                    let text = other.to_string();
                    let last = text.lines().last().unwrap_or_default().trim();
                    last.strip_prefix("error: ").unwrap_or(last).into()
                }
            })
        })?;
        let parts = parts(&compiled, replacement)?;
        Ok(Self {
            regex_source: regex.into(),
            replacement_source: replacement.into(),
            regex: compiled,
            parts: parts.into(),
        })
    }

    /// What is put in the place of a match, as written.
    #[must_use]
    pub fn replacement(&self) -> &str {
        &self.replacement_source
    }

    /// Rewrites the first match in `text`; the rest of it stays. At most `most` bytes come out of it.
    #[must_use]
    pub fn apply(&self, text: &[u8], most: usize) -> Rewritten {
        let Some(groups) = self.regex.captures(text) else { return Rewritten::Unmatched };
        let whole = groups.get(0).map_or(0..0, |found| found.range());
        let mut out = text[..whole.start].to_vec();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Group(group) => {
                    out.extend_from_slice(groups.get(*group).map_or(&[][..], |found| found.as_bytes()));
                }
            }
            if out.len() > most {
                return Rewritten::TooLong;
            }
        }
        out.extend_from_slice(&text[whole.end..]);
        if out.len() > most { Rewritten::TooLong } else { Rewritten::To(out) }
    }
}

fn parts(regex: &Regex, replacement: &str) -> Result<Vec<Part>, SubstitutionError> {
    let error = |span: Range<usize>, message: String, instead: Option<String>| {
        Err(SubstitutionError::Replacement { span, message, instead })
    };
    if replacement.len() > MAX_REPLACEMENT_BYTES {
        let message = format!("a replacement has at most {MAX_REPLACEMENT_BYTES} bytes");
        return error(0..replacement.len(), message, None);
    }
    if let Some((at, c)) = replacement.char_indices().find(|(_, c)| !c.is_ascii_graphic()) {
        let escaped: String = c.to_string().bytes().map(|b| format!("%{b:02X}")).collect();
        let message = "only visible ASCII characters can stand here".to_owned();
        return error(at..at + c.len_utf8(), message, Some(escaped));
    }
    let (mut parts, mut plain, mut at) = (Vec::new(), String::new(), 0);
    while let Some(found) = replacement[at..].find('$') {
        plain.push_str(&replacement[at..at + found]);
        at += found;
        let rest = &replacement[at + 1..];
        if rest.starts_with('$') {
            plain.push('$');
            at += 2;
            continue;
        }
        let (name, len) = match rest.strip_prefix('{') {
            Some(inner) => match inner.find('}') {
                Some(end) => (&inner[..end], end + 3),
                None => return error(at..at + 2, "this `${` is never closed".into(), Some("$${".into())),
            },
            None => {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                let name = &rest[..end.unwrap_or(rest.len())];
                (name, name.len() + 1)
            }
        };
        if name.is_empty() {
            let message = "a `$` begins the name of a group".to_owned();
            return error(at..at + len, message, Some("$$".into()));
        }
        let group = match name.parse::<usize>() {
            Ok(number) => (number < regex.captures_len()).then_some(number),
            Err(_) => regex.capture_names().position(|known| known == Some(name)),
        };
        let Some(group) = group else {
            // `$1st` is the group "1st": the first group and a text is what is meant.
            let digits = name.bytes().take_while(u8::is_ascii_digit).count();
            let (number, tail) = name.split_at(digits);
            let meant = number.parse::<usize>().is_ok_and(|n| n < regex.captures_len());
            let instead = (meant && !tail.is_empty()).then(|| format!("${{{number}}}{tail}"));
            return error(at..at + len, format!("the expression has no group \"{name}\""), instead);
        };
        if !plain.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut plain).into()));
        }
        parts.push(Part::Group(group));
        at += len;
    }
    plain.push_str(&replacement[at..]);
    if !plain.is_empty() {
        parts.push(Part::Text(plain.into()));
    }
    Ok(parts)
}

impl PartialEq for Substitution {
    fn eq(&self, other: &Self) -> bool {
        (&self.regex_source, &self.replacement_source) == (&other.regex_source, &other.replacement_source)
    }
}

impl fmt::Debug for Substitution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} -> {:?}", self.regex_source, self.replacement_source)
    }
}

#[cfg(test)]
mod tests {
    use super::{Rewritten, Substitution, SubstitutionError};

    #[test]
    fn groups_by_number_and_name() {
        let table = [
            ("^/(.*)$", "/new/$1", "/a/b", "/new/a/b"),
            ("^/(?P<first>[^/]*)/(.*)$", "/$2/${first}x$$$0", "/a/b", "/b/ax$/a/b"),
            ("b", "X", "/abab", "/aXab"),
            ("(z)?a", "[$1]", "/a", "/[]"),
            ("", "x", "/a", "x/a"),
            ("/a", "", "/a", ""),
        ];
        for (regex, replacement, text, expected) in table {
            let rule = Substitution::parse(regex, replacement).expect(regex);
            let Rewritten::To(found) = rule.apply(text.as_bytes(), 100) else { panic!("{regex}: no match") };
            assert_eq!(String::from_utf8_lossy(&found), expected, "{regex} {replacement} {text}");
        }
        let rule = Substitution::parse("^/a(.*)", "$1$1$1").expect("valid");
        assert_eq!(rule.apply(b"/b", 100), Rewritten::Unmatched);
        assert_eq!(rule.apply(b"/a1234", 12), Rewritten::To(b"123412341234".to_vec()));
        assert_eq!(rule.apply(b"/a1234", 11), Rewritten::TooLong);
    }

    #[test]
    fn mistakes_in_replacements() {
        let table = [
            ("/$2", 1..3, "the expression has no group \"2\"", None),
            ("/$1st", 1..5, "the expression has no group \"1st\"", Some("${1}st")),
            ("/${nme}", 1..7, "the expression has no group \"nme\"", None),
            ("/$", 1..2, "a `$` begins the name of a group", Some("$$")),
            ("/${}", 1..4, "a `$` begins the name of a group", Some("$$")),
            ("/${1", 1..3, "this `${` is never closed", Some("$${")),
            ("/a b", 2..3, "only visible ASCII characters can stand here", Some("%20")),
            ("/ä", 1..3, "only visible ASCII characters can stand here", Some("%C3%A4")),
            ("/\r\n", 1..2, "only visible ASCII characters can stand here", Some("%0D")),
        ];
        for (replacement, span, message, instead) in table {
            let error = Substitution::parse("^/(.*)$", replacement).expect_err(replacement);
            let instead = instead.map(str::to_owned);
            let expected = SubstitutionError::Replacement { span, message: message.into(), instead };
            assert_eq!(error, expected, "{replacement}");
        }
    }

    #[test]
    fn mistakes_in_expressions() {
        for (regex, expected) in [("(", "unclosed group"), ("a{1000}{1000}", "it is too big")] {
            let error = Substitution::parse(regex, "/").expect_err(regex);
            assert_eq!(error, SubstitutionError::Regex(expected.into()));
        }
    }
}
