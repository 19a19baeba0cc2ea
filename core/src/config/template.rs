//! Values with placeholders: `{client_ip}` stands for what is known of the exchange. `{{` and `}}` are
//! braces.

use std::ops::Range;

/// A value with placeholders, read once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    segments: Box<[Segment]>,
}

/// A part of a [`Template`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// As it is written.
    Text(Box<str>),
    /// What the exchange has for it.
    Placeholder(Placeholder),
}

/// What of an exchange can stand in a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placeholder {
    /// `{client_ip}`: the client's address, after `trusted_proxies`.
    ClientIp,
    /// `{host}`: the authority that was asked for, with its port if it has one.
    Host,
    /// `{scheme}`: `http` or `https`, as the client spoke it.
    Scheme,
    /// `{request_id}`: as in `X-Request-ID`.
    RequestId,
    /// `{backend}`: the address of the backend, as configured.
    Backend,
}

impl Placeholder {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::ClientIp, Self::Host, Self::Scheme, Self::RequestId, Self::Backend];

    /// The name between the braces.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClientIp => "client_ip",
            Self::Host => "host",
            Self::Scheme => "scheme",
            Self::RequestId => "request_id",
            Self::Backend => "backend",
        }
    }
}

/// What is wrong with a template, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// Bytes of the text.
    pub span: Range<usize>,
    /// What is wrong there.
    pub kind: TemplateErrorKind,
}

/// What is wrong with a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplateErrorKind {
    /// A `{` that is not closed.
    Unclosed,
    /// A `}` that nothing has opened.
    Unopened,
    /// No placeholder has this name.
    Unknown,
    /// A character that no field may have (RFC 9110 §5.5): a control character other than a tab.
    Control,
    /// A blank at the beginning or end, which is no part of a field's value.
    OuterBlank,
    /// More than [`Template::MAX_BYTES`].
    TooLong,
}

impl Template {
    /// Longest text of a template, in bytes.
    pub const MAX_BYTES: usize = 4096;

    /// Reads a template for the value of a field.
    ///
    /// # Errors
    /// The first mistake.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let error = |span: Range<usize>, kind| Err(TemplateError { span, kind });
        if text.len() > Self::MAX_BYTES {
            return error(0..text.len(), TemplateErrorKind::TooLong);
        }
        if let Some((at, c)) = text.char_indices().find(|&(_, c)| c.is_ascii_control() && c != '\t') {
            return error(at..at + c.len_utf8(), TemplateErrorKind::Control);
        }
        let blank = |c: char| matches!(c, ' ' | '\t');
        if text.starts_with(blank) {
            return error(0..1, TemplateErrorKind::OuterBlank);
        }
        if text.ends_with(blank) {
            return error(text.len() - 1..text.len(), TemplateErrorKind::OuterBlank);
        }
        let (mut segments, mut plain, mut at) = (Vec::new(), String::new(), 0);
        while let Some(found) = text[at..].find(['{', '}']) {
            plain.push_str(&text[at..at + found]);
            at += found;
            let rest = &text[at..];
            if rest.starts_with("{{") || rest.starts_with("}}") {
                plain.push_str(&rest[..1]);
                at += 2;
                continue;
            }
            if rest.starts_with('}') {
                return error(at..at + 1, TemplateErrorKind::Unopened);
            }
            let Some(end) = rest.find('}') else { return error(at..at + 1, TemplateErrorKind::Unclosed) };
            let name = &rest[1..end];
            let Some(placeholder) = Placeholder::ALL.into_iter().find(|p| p.name() == name) else {
                return error(at + 1..at + end, TemplateErrorKind::Unknown);
            };
            if !plain.is_empty() {
                segments.push(Segment::Text(std::mem::take(&mut plain).into()));
            }
            segments.push(Segment::Placeholder(placeholder));
            at += end + 1;
        }
        plain.push_str(&text[at..]);
        if !plain.is_empty() {
            segments.push(Segment::Text(plain.into()));
        }
        Ok(Self { segments: segments.into() })
    }

    /// Its parts in order. Neighbouring texts are one.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The value, if nothing has to be put into it.
    #[must_use]
    pub fn constant(&self) -> Option<&str> {
        match &*self.segments {
            [] => Some(""),
            [Segment::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Whether this stands in it.
    #[must_use]
    pub fn has(&self, placeholder: Placeholder) -> bool {
        self.segments.contains(&Segment::Placeholder(placeholder))
    }
}

#[cfg(test)]
mod tests {
    use super::{Placeholder, Segment, Template, TemplateErrorKind};

    #[test]
    fn texts_and_placeholders() {
        let text = |text: &str| Segment::Text(text.into());
        let placeholder = Segment::Placeholder;
        let table = [
            ("", vec![]),
            ("plain", vec![text("plain")]),
            ("{client_ip}", vec![placeholder(Placeholder::ClientIp)]),
            (
                "a{host}{scheme} b",
                vec![text("a"), placeholder(Placeholder::Host), placeholder(Placeholder::Scheme), text(" b")],
            ),
            ("{{host}}", vec![text("{host}")]),
            ("{{{request_id}}}", vec![text("{"), placeholder(Placeholder::RequestId), text("}")]),
            ("ä{backend}", vec![text("ä"), placeholder(Placeholder::Backend)]),
        ];
        for (source, expected) in table {
            let template = Template::parse(source).expect(source);
            assert_eq!(template.segments(), expected, "{source}");
        }
        assert_eq!(Template::parse("a{{b").expect("valid").constant(), Some("a{b"));
        assert_eq!(Template::parse("{host}").expect("valid").constant(), None);
    }

    #[test]
    fn mistakes() {
        let long = "x".repeat(Template::MAX_BYTES + 1);
        let table = [
            ("a{host", 1..2, TemplateErrorKind::Unclosed),
            ("a}b", 1..2, TemplateErrorKind::Unopened),
            ("a{hosst}", 2..7, TemplateErrorKind::Unknown),
            ("{}", 1..1, TemplateErrorKind::Unknown),
            ("{ host }", 1..7, TemplateErrorKind::Unknown),
            ("ä\r\nSet-Cookie: a", 2..3, TemplateErrorKind::Control),
            ("a\0", 1..2, TemplateErrorKind::Control),
            ("a\x7f", 1..2, TemplateErrorKind::Control),
            (" a", 0..1, TemplateErrorKind::OuterBlank),
            ("a\t", 1..2, TemplateErrorKind::OuterBlank),
            (&long, 0..long.len(), TemplateErrorKind::TooLong),
        ];
        for (source, span, kind) in table {
            let error = Template::parse(source).expect_err(source);
            assert_eq!((error.span, error.kind), (span, kind), "{source:?}");
        }
    }
}
