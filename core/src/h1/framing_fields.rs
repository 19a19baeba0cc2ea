//! What the fields of a head say about framing, persistence and this hop, gathered in one walk.

use memchr::memchr;

use crate::http::fields::{FieldLine, is};
use crate::http::{Framing, HeaderKind, Version, Violation};

/// The most options of `Connection` that may list fields; each costs a walk over the head.
const MAX_LISTED: usize = 32;

/// The values that framing and persistence are decided by.
#[derive(Default)]
pub(super) struct FramingFields<'a> {
    /// The value of the last `Host`.
    pub(super) host: &'a [u8],
    pub(super) host_count: u32,
    /// The value of the last `Content-Length`.
    content_length: &'a [u8],
    content_length_count: u32,
    /// The value of the last `Upgrade`.
    upgrade: &'a [u8],
    upgrade_count: u32,
    /// There is a `Transfer-Encoding`.
    pub(super) has_transfer_encoding: bool,
    /// `chunked` is the last coding so far.
    chunked_last: bool,
    /// A coding follows `chunked`, or `chunked` is named twice or with parameters.
    chunked_misplaced: bool,
    /// A coding besides `chunked` is named.
    other_coding: bool,
    close: bool,
    keep_alive: bool,
    upgrade_option: bool,
    /// How many options of `Connection` may list fields.
    listed: usize,
    pub(super) expect_continue: bool,
    /// There is an expectation besides `100-continue`.
    pub(super) unknown_expectation: bool,
    pub(super) te_trailers: bool,
    pub(super) max_forwards: Option<u64>,
    /// In seconds.
    pub(super) keep_alive_timeout: Option<u32>,
}

impl<'a> FramingFields<'a> {
    /// The kinds of fields that [`FramingFields::read`] looks into.
    pub(super) const KINDS: u64 = HeaderKind::set(&[
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

    /// Takes one field of the head into account.
    #[inline(always)]
    pub(super) fn read(&mut self, kind: HeaderKind, value: &'a [u8]) {
        match kind {
            HeaderKind::Host => {
                self.host = value;
                self.host_count += 1;
            }
            HeaderKind::ContentLength => {
                self.content_length = value;
                self.content_length_count += 1;
            }
            other => self.read_rarer(other, value),
        }
    }

    /// The fields that not nearly every head has.
    #[inline(never)]
    fn read_rarer(&mut self, kind: HeaderKind, value: &'a [u8]) {
        match kind {
            HeaderKind::TransferEncoding => self.transfer_encoding(value),
            HeaderKind::Connection => self.connection(value),
            HeaderKind::Upgrade => {
                self.upgrade = value;
                self.upgrade_count += 1;
            }
            HeaderKind::Expect => {
                for member in list(value) {
                    let good = member.eq_ignore_ascii_case(b"100-continue");
                    self.expect_continue |= good;
                    self.unknown_expectation |= !good;
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

    fn transfer_encoding(&mut self, value: &[u8]) {
        self.has_transfer_encoding = true;
        for coding in list(value) {
            self.chunked_misplaced |= self.chunked_last;
            // `chunked` with parameters counts as another coding: it has none (RFC 9112 §7.1).
            self.chunked_last = coding.eq_ignore_ascii_case(b"chunked");
            self.other_coding |= !self.chunked_last;
        }
    }

    fn connection(&mut self, value: &[u8]) {
        // Most values are one known option.
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
            ConnectionOption::KeepAlive => self.keep_alive = true,
            ConnectionOption::Close => self.close = true,
            ConnectionOption::Upgrade => self.upgrade_option = true,
            ConnectionOption::Te => {}
            ConnectionOption::Field => self.listed += 1,
        }
    }

    /// Whether `Connection` lists names of fields (RFC 9110 §7.6.1).
    #[inline]
    pub(super) fn lists_fields(&self) -> bool {
        self.listed > 0
    }

    /// Marks the fields that `Connection` lists (RFC 9110 §7.6.1). Returns the kinds that are there then.
    #[cold]
    pub(super) fn mark_connection_listed(
        &self,
        head: &[u8],
        lines: &mut [FieldLine],
    ) -> Result<u64, Violation> {
        if self.listed > MAX_LISTED {
            return Err(Violation::TooManyOptions);
        }
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
        Ok(lines.iter().fold(0, |kinds, line| kinds | HeaderKind::set(&[line.kind])))
    }

    /// The framing that the head declares (RFC 9112 §6.3); `None` if it declares nothing.
    #[inline]
    pub(super) fn declared(&self, version: Version) -> Result<Option<Framing>, Violation> {
        if self.has_transfer_encoding {
            return self.chunked(version).map(Some);
        }
        if self.content_length_count == 0 { Ok(None) } else { self.length().map(Some) }
    }

    /// RFC 9112 §6.1, §6.3. `chunked` alone is accepted: any other coding would have to be decoded here.
    fn chunked(&self, version: Version) -> Result<Framing, Violation> {
        if version == Version::HTTP_10 {
            Err(Violation::TransferEncodingIn10)
        } else if self.content_length_count > 0 {
            Err(Violation::LengthWithTransferEncoding)
        } else if self.chunked_misplaced || !self.chunked_last {
            Err(Violation::TransferEncoding)
        } else if self.other_coding {
            Err(Violation::UnknownCoding)
        } else {
            Ok(Framing::Chunked)
        }
    }

    fn length(&self) -> Result<Framing, Violation> {
        match (self.content_length_count, decimal(self.content_length)) {
            (1, Some(length)) => Ok(Framing::Length(length)),
            (1, None) if memchr(b',', self.content_length).is_none() => Err(Violation::Length),
            _ => Err(Violation::SeveralLengths),
        }
    }

    /// Whether the connection persists (RFC 9112 §9.3).
    pub(super) fn persists(&self, version: Version) -> bool {
        !self.close && (version == Version::HTTP_11 || self.keep_alive)
    }

    /// The value of `Upgrade` if there is one, `Connection` has the option, and a protocol is named.
    #[inline]
    pub(super) fn upgrade(&self) -> Option<&'a [u8]> {
        if self.upgrade_option && self.upgrade_count == 1 { self.named_upgrade() } else { None }
    }

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
    /// The name of a field.
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

/// The members of a comma-separated list without the empty ones (RFC 9110 §5.6.1.2).
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(trim).filter(|member| !member.is_empty())
}

/// A value without the blanks around it.
pub(super) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// The number that `digits`, at least one, stand for, if it is below 2^63.
fn decimal(digits: &[u8]) -> Option<u64> {
    let mut n: u64 = 0;
    for &d in digits {
        let d = d.wrapping_sub(b'0');
        // `n * 10 + d` cannot overflow then, and a result of 2^63 or more is refused below.
        if d > 9 || n > (1 << 63) / 10 {
            return None;
        }
        n = n * 10 + u64::from(d);
    }
    (!digits.is_empty() && n < 1 << 63).then_some(n)
}
