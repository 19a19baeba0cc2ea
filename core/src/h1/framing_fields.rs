//! What the fields of a head say about framing, persistence and hops, gathered in one walk.

use memchr::memchr;

use super::scan::ParsedLines;
use crate::http::fields::{FieldLine, is};
use crate::http::{Fields, Framing, HeaderKind, Version, Violation};

/// Options of `Connection` that name fields; each costs a walk over the head.
const OPTIONS: usize = 32;

/// What one walk over the fields finds.
#[derive(Default)]
pub(super) struct FramingFields<'a> {
    pub(super) host: &'a [u8],
    pub(super) hosts: u32,
    pub(super) length: &'a [u8],
    pub(super) lengths: u32,
    pub(super) upgrade: &'a [u8],
    pub(super) upgrades: u32,
    /// There is a `Transfer-Encoding`.
    pub(super) coded: bool,
    /// `chunked` was named, and nothing after it.
    pub(super) chunked_last: bool,
    /// `chunked` was named twice or before another coding, or with parameters.
    pub(super) coded_badly: bool,
    /// A coding besides `chunked` was named.
    pub(super) other_coding: bool,
    pub(super) close: bool,
    pub(super) keep: bool,
    pub(super) says_upgrade: bool,
    /// Options of `Connection` that may name fields.
    pub(super) options: usize,
    pub(super) expect_continue: bool,
    pub(super) strange_expectation: bool,
    pub(super) te_trailers: bool,
    pub(super) max_forwards: Option<u64>,
    pub(super) keep_alive_timeout: Option<u32>,
}

impl<'a> FramingFields<'a> {
    /// Looks through these lines, of these kinds.
    #[inline]
    pub(super) fn read_all(&mut self, head: &'a [u8], lines: &[FieldLine], kinds: u64) {
        if kinds & READ != 0 {
            for line in lines.iter().filter(|line| line.kind.in_set(READ)) {
                let value = line.value(head);
                match line.kind {
                    HeaderKind::Host => {
                        self.host = value;
                        self.hosts += 1;
                    }
                    HeaderKind::ContentLength => {
                        self.length = value;
                        self.lengths += 1;
                    }
                    other => self.read(other, value),
                }
            }
        }
    }

    /// What is not in nearly every head.
    fn read(&mut self, kind: HeaderKind, value: &'a [u8]) {
        match kind {
            HeaderKind::TransferEncoding => self.codings(value),
            HeaderKind::Connection => self.connection(value),
            HeaderKind::Upgrade => {
                self.upgrade = value;
                self.upgrades += 1;
            }
            HeaderKind::Expect => {
                for member in list(value) {
                    let good = member.eq_ignore_ascii_case(b"100-continue");
                    self.expect_continue |= good;
                    self.strange_expectation |= !good;
                }
            }
            HeaderKind::Te => {
                self.te_trailers |= list(value).any(|member| member.eq_ignore_ascii_case(b"trailers"))
            }
            HeaderKind::MaxForwards => self.max_forwards = decimal(value),
            HeaderKind::KeepAlive => {
                for member in list(value) {
                    match member.split_at_checked(8) {
                        Some((name, seconds)) if name.eq_ignore_ascii_case(b"timeout=") => {
                            self.keep_alive_timeout =
                                decimal(seconds).map(|s| u32::try_from(s).unwrap_or(u32::MAX));
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    fn codings(&mut self, value: &[u8]) {
        self.coded = true;
        for coding in list(value) {
            if coding.eq_ignore_ascii_case(b"chunked") {
                self.coded_badly |= self.chunked_last;
                self.chunked_last = true;
            } else {
                // Parameters after `chunked` come here too: not last, then, and that is an error.
                self.coded_badly |= self.chunked_last;
                self.chunked_last = false;
                self.other_coding = true;
            }
        }
    }

    fn connection(&mut self, value: &[u8]) {
        // By far the commonest are lists of one known member.
        let whole = ConnectionOption::of(value);
        if whole != ConnectionOption::Field {
            return self.option(&whole);
        }
        for option in list(value) {
            self.option(&ConnectionOption::of(option));
        }
    }

    fn option(&mut self, option: &ConnectionOption) {
        match option {
            ConnectionOption::KeepAlive => self.keep = true,
            ConnectionOption::Close => self.close = true,
            ConnectionOption::Upgrade => self.says_upgrade = true,
            ConnectionOption::Te => {}
            ConnectionOption::Field => self.options += 1,
        }
    }

    /// The fields, of which these are the lines; those that `Connection` names are marked.
    #[inline]
    pub(super) fn fields<'s>(
        &self,
        head: &'s [u8],
        lines: &'s mut [FieldLine],
        cut: &ParsedLines,
    ) -> Result<Fields<'s>, Violation> {
        let kinds = match self.options {
            0 => cut.kinds(),
            1..=OPTIONS => mark_connection_listed(head, lines),
            _ => return Err(Violation::TooManyOptions),
        };
        Ok(Fields::new(head, lines, kinds, cut.plain()))
    }

    /// RFC 9112 §6.1, §6.3. Only `chunked` alone is taken: any other coding would have to be undone here.
    pub(super) fn chunked(&self, version: Version) -> Result<Framing, Violation> {
        if version == Version::HTTP_10 {
            Err(Violation::TransferEncodingIn10)
        } else if self.lengths > 0 {
            Err(Violation::LengthWithTransferEncoding)
        } else if self.coded_badly || !self.chunked_last {
            Err(Violation::TransferEncoding)
        } else if self.other_coding {
            Err(Violation::UnknownCoding)
        } else {
            Ok(Framing::Chunked)
        }
    }

    #[inline]
    pub(super) fn length(&self) -> Result<Option<u64>, Violation> {
        if self.lengths == 0 { Ok(None) } else { self.declared_length() }
    }

    fn declared_length(&self) -> Result<Option<u64>, Violation> {
        match self.lengths {
            1 => match decimal(self.length) {
                None if memchr(b',', self.length).is_some() => Err(Violation::SeveralLengths),
                None => Err(Violation::Length),
                length => Ok(length),
            },
            _ => Err(Violation::SeveralLengths),
        }
    }

    /// RFC 9112 §9.3.
    pub(super) fn keep_alive(&self, version: Version) -> bool {
        !self.close && (version == Version::HTTP_11 || self.keep)
    }

    #[inline]
    pub(super) fn upgrade(&self) -> Option<&'a [u8]> {
        if self.says_upgrade && self.upgrades == 1 { self.named_upgrade() } else { None }
    }

    /// A list without members names no protocol.
    #[cold]
    fn named_upgrade(&self) -> Option<&'a [u8]> {
        list(self.upgrade).next().is_some().then_some(self.upgrade)
    }
}

/// An option of `Connection`.
#[derive(PartialEq, Eq)]
enum ConnectionOption {
    KeepAlive,
    Close,
    Upgrade,
    Te,
    /// Names a field.
    Field,
}

impl ConnectionOption {
    fn of(option: &[u8]) -> Self {
        match option.len() {
            2 if is!(option, b"te") => Self::Te,
            5 if is!(option, b"close") => Self::Close,
            7 if is!(option, b"upgrade") => Self::Upgrade,
            10 if is!(option, b"keep-alive") => Self::KeepAlive,
            _ => Self::Field,
        }
    }
}

/// What [`FramingFields::read`] looks into.
const READ: u64 = HeaderKind::set(&[
    HeaderKind::Host,
    HeaderKind::ContentLength,
    HeaderKind::TransferEncoding,
    HeaderKind::Connection,
    HeaderKind::Upgrade,
    HeaderKind::Expect,
    HeaderKind::Te,
    HeaderKind::MaxForwards,
    HeaderKind::KeepAlive,
]);

/// The members of a comma-separated list, empty ones skipped (RFC 9110 §5.6.1.2).
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(trim).filter(|member| !member.is_empty())
}

/// Without the blanks around it.
pub(super) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// 1*DIGIT below 2^63.
fn decimal(digits: &[u8]) -> Option<u64> {
    let mut n: u64 = 0;
    for &d in digits {
        let d = d.wrapping_sub(b'0');
        // Below 2^63 before it, so far from overflowing with it as not to be taken for less.
        if d > 9 || n > (1 << 63) / 10 {
            return None;
        }
        n = n * 10 + u64::from(d);
    }
    (!digits.is_empty() && n < 1 << 63).then_some(n)
}

/// Marks the fields that `Connection` names (RFC 9110 §7.6.1). Gives back the kinds that are there now.
#[cold]
pub(super) fn mark_connection_listed(head: &[u8], lines: &mut [FieldLine]) -> u64 {
    for connection in 0..lines.len() {
        if lines[connection].kind != HeaderKind::Connection {
            continue;
        }
        let value = lines[connection].value(head);
        for option in list(value).filter(|o| ConnectionOption::of(o) == ConnectionOption::Field) {
            for line in lines.iter_mut() {
                if line.kind.may_be_connection_listed() && line.name(head).eq_ignore_ascii_case(option) {
                    line.kind = HeaderKind::ConnectionListed;
                }
            }
        }
    }
    lines.iter().fold(0, |kinds, line| kinds | HeaderKind::set(&[line.kind]))
}
