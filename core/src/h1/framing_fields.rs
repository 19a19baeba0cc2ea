//! What the rarer fields of a head say about framing, persistence and this hop, gathered in one walk.

use crate::http::fields::{FieldLine, is};
use crate::http::{Framing, HeaderKind, Version, Violation};

/// The most options of `Connection` that may list fields; each costs a walk over the head.
const MAX_LISTED: usize = 32;

/// What the fields of [`FramingFields::KINDS`] say. Most heads have none of them, so it is read only where
/// one is there.
#[derive(Default)]
pub(super) struct FramingFields<'a> {
    /// The value of the last `Upgrade`.
    upgrade: &'a [u8],
    upgrade_count: u32,
    /// There is a `Transfer-Encoding`.
    has_transfer_encoding: bool,
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
    /// The kinds of fields that are read.
    pub(super) const KINDS: u64 = HeaderKind::set(&[
        HeaderKind::TransferEncoding,
        HeaderKind::Connection,
        HeaderKind::Upgrade,
        HeaderKind::Expect,
        HeaderKind::Te,
        HeaderKind::MaxForwards,
        HeaderKind::KeepAlive,
    ]);

    /// Reads the fields of a head that has some of them.
    #[inline(never)]
    pub(super) fn read(head: &'a [u8], lines: &[FieldLine]) -> Self {
        let mut fields = Self::default();
        for line in lines.iter().filter(|line| line.kind.in_set(Self::KINDS)) {
            fields.take(line.kind, line.value(head));
        }
        fields
    }

    fn take(&mut self, kind: HeaderKind, value: &'a [u8]) {
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

    /// The framing that `Transfer-Encoding` declares (RFC 9112 §6.1, §6.3); `None` without one. `chunked`
    /// alone is accepted: any other coding would have to be decoded here.
    pub(super) fn coding(&self, version: Version, has_length: bool) -> Result<Option<Framing>, Violation> {
        if !self.has_transfer_encoding {
            Ok(None)
        } else if version == Version::HTTP_10 {
            Err(Violation::TransferEncodingIn10)
        } else if has_length {
            Err(Violation::LengthWithTransferEncoding)
        } else if self.chunked_misplaced || !self.chunked_last {
            Err(Violation::TransferEncoding)
        } else if self.other_coding {
            Err(Violation::UnknownCoding)
        } else {
            Ok(Some(Framing::Chunked))
        }
    }

    /// Whether the connection persists (RFC 9112 §9.3).
    pub(super) fn persists(&self, version: Version) -> bool {
        !self.close && (version == Version::HTTP_11 || self.keep_alive)
    }

    /// The value of `Upgrade` if there is one, `Connection` has the option, and a protocol is named.
    pub(super) fn upgrade(&self) -> Option<&'a [u8]> {
        let named = self.upgrade_option && self.upgrade_count == 1 && list(self.upgrade).next().is_some();
        named.then_some(self.upgrade)
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
#[inline]
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.len() > 18 {
        return long_decimal(digits);
    }
    // 18 digits are far from overflowing.
    let mut n = 0;
    for &d in digits {
        let d = d.wrapping_sub(b'0');
        if d > 9 {
            return None;
        }
        n = n * 10 + u64::from(d);
    }
    (!digits.is_empty()).then_some(n)
}

/// [`decimal`] for numbers that may be too large.
#[cold]
fn long_decimal(digits: &[u8]) -> Option<u64> {
    digits.iter().all(u8::is_ascii_digit).then_some(())?;
    let n = digits.iter().try_fold(0_u64, |n, d| n.checked_mul(10)?.checked_add(u64::from(d - b'0')))?;
    (n < 1 << 63).then_some(n)
}
