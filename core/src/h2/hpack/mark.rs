//! What a field's name and value are, found once: when a literal is read. Fields of the tables carry it
//! along, so an indexed field is not looked at again.

use crate::http::HeaderKind;
use crate::http::fields::is_token_char;

/// A pseudo-header field (RFC 9113 §8.3).
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pseudo {
    /// `:method`
    Method = 1,
    /// `:scheme`
    Scheme,
    /// `:authority`
    Authority,
    /// `:path`
    Path,
    /// `:protocol` of an extended CONNECT (RFC 8441 §4)
    Protocol,
    /// `:status`
    Status,
    /// Any other name that begins with a colon.
    Unknown,
}

/// See the file's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) kind: HeaderKind,
    /// The low bits are those of a [`Pseudo`], or zero.
    flags: u8,
}

const PSEUDO: u8 = 0b111;
const BAD_NAME: u8 = 1 << 3;
const BAD_VALUE: u8 = 1 << 4;
const NEVER_INDEXED: u8 = 1 << 5;

impl Mark {
    pub(super) const fn regular(kind: HeaderKind) -> Self {
        Self { kind, flags: 0 }
    }

    pub(super) const fn pseudo_field(pseudo: Pseudo) -> Self {
        Self { kind: HeaderKind::Other, flags: pseudo as u8 }
    }

    /// Of a field with this name and an empty value.
    pub(super) fn of_name(name: &[u8]) -> Self {
        if let [b':', rest @ ..] = name {
            return Self::pseudo_field(match rest {
                b"method" => Pseudo::Method,
                b"scheme" => Pseudo::Scheme,
                b"authority" => Pseudo::Authority,
                b"path" => Pseudo::Path,
                b"protocol" => Pseudo::Protocol,
                b"status" => Pseudo::Status,
                _ => Pseudo::Unknown,
            });
        }
        if name.is_empty() || !name.iter().all(|&b| NAME[usize::from(b)]) {
            return Self { kind: HeaderKind::Other, flags: BAD_NAME };
        }
        Self::regular(HeaderKind::of(name))
    }

    /// Of a field with the same name and this value.
    pub(super) fn with_value(self, value: &[u8]) -> Self {
        let edge = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
        let good = is_value(value) && !edge(value.first()) && !edge(value.last());
        let flags = self.flags & !(BAD_VALUE | NEVER_INDEXED) | if good { 0 } else { BAD_VALUE };
        Self { flags, ..self }
    }

    /// Whether no table may take the field, here or at any other hop.
    pub(super) fn never_indexed(self, never: bool) -> Self {
        Self { flags: self.flags | if never { NEVER_INDEXED } else { 0 }, ..self }
    }

    pub(super) fn is_never_indexed(self) -> bool {
        self.flags & NEVER_INDEXED != 0
    }

    pub(super) fn has_good_name(self) -> bool {
        self.flags & BAD_NAME == 0
    }

    pub(super) fn has_good_value(self) -> bool {
        self.flags & BAD_VALUE == 0
    }

    pub(super) fn pseudo(self) -> Option<Pseudo> {
        Some(match self.flags & PSEUDO {
            1 => Pseudo::Method,
            2 => Pseudo::Scheme,
            3 => Pseudo::Authority,
            4 => Pseudo::Path,
            5 => Pseudo::Protocol,
            6 => Pseudo::Status,
            7 => Pseudo::Unknown,
            _ => return None,
        })
    }
}

/// What a name may consist of: tokens without capitals (RFC 9113 §8.2).
static NAME: [bool; 256] = {
    let mut allowed = [false; 256];
    let mut b = 0;
    while b < 256 {
        allowed[b] = is_token_char(b as u8) && !(b as u8).is_ascii_uppercase();
        b += 1;
    }
    allowed
};

/// What a value may consist of (RFC 9110 §5.5): no control characters, whichever of them RFC 9113 §8.2.1
/// tolerates, because another hop may not.
static VALUE: [bool; 256] = {
    let mut allowed = [false; 256];
    let mut b = 0;
    while b < 256 {
        allowed[b] = b == b'\t' as usize || (b >= 0x20 && b != 0x7f);
        b += 1;
    }
    allowed
};

/// Whether a value has only what [`VALUE`] allows.
#[inline]
fn is_value(value: &[u8]) -> bool {
    // Eight bytes at once; the last ones overlap.
    let (eights, rest) = value.as_chunks::<8>();
    let plain = match value.last_chunk::<8>() {
        Some(last) => eights.iter().all(is_plain) && is_plain(last),
        None => rest.iter().all(|&b| VALUE[usize::from(b)]),
    };
    plain || value.iter().all(|&b| VALUE[usize::from(b)])
}

/// Whether none of the bytes is a control character. A tab is one here.
#[inline]
fn is_plain(eight: &[u8; 8]) -> bool {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    let word = u64::from_ne_bytes(*eight);
    // A borrow can only come from a byte that is found itself.
    let low = word.wrapping_sub(ONES * 0x20) & !word;
    let delete = (word ^ ONES * 0x7f).wrapping_sub(ONES) & !(word ^ ONES * 0x7f);
    (low | delete) & HIGH == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values() {
        let table: &[(&[u8], &[u8], bool, bool)] = &[
            (b"accept", b"*/*", true, true),
            (b"x-y_z.1!", b"a\tb \x80", true, true),
            (b"a", b"", true, true),
            (b"", b"a", false, true),
            (b"Accept", b"a", false, true),
            (b"a b", b"a", false, true),
            (b"a:b", b"a", false, true),
            (b"a\xc3", b"a", false, true),
            (b"a\0", b"a", false, true),
            (b"a", b"\r\nb: c", true, false),
            (b"a", b"b\n", true, false),
            (b"a", b"b\0c", true, false),
            (b"a", b"\x7f", true, false),
            (b"a", b" b", true, false),
            (b"a", b"b\t", true, false),
        ];
        for (name, value, good_name, good_value) in table {
            let mark = Mark::of_name(name).with_value(value);
            assert_eq!((mark.has_good_name(), mark.has_good_value()), (*good_name, *good_value), "{name:?}");
            assert_eq!(mark.pseudo(), None);
            // Another value makes it good again, and another name keeps what it was.
            assert!(mark.with_value(b"x").has_good_value());
        }
        let pseudo = [
            (":method", Pseudo::Method),
            (":scheme", Pseudo::Scheme),
            (":authority", Pseudo::Authority),
            (":path", Pseudo::Path),
            (":protocol", Pseudo::Protocol),
            (":status", Pseudo::Status),
            (":Status", Pseudo::Unknown),
            (":", Pseudo::Unknown),
        ];
        for (name, expected) in pseudo {
            assert_eq!(Mark::of_name(name.as_bytes()).pseudo(), Some(expected));
        }
        // Every byte at every place of values of any length.
        for b in 0..=u8::MAX {
            for len in 1..40 {
                for at in 0..len {
                    let mut value = vec![b'a'; len];
                    value[at] = b;
                    let blank = matches!(b, b' ' | b'\t') && (at == 0 || at + 1 == len);
                    let good = (b == b'\t' || b >= 0x20 && b != 0x7f) && !blank;
                    let mark = Mark::of_name(b"a").with_value(&value);
                    assert_eq!(mark.has_good_value(), good, "{}", value.escape_ascii());
                }
            }
        }
        let never = Mark::of_name(b"authorization").with_value(b"x").never_indexed(true);
        assert!(never.is_never_indexed() && never.has_good_name() && never.kind == HeaderKind::Authorization);
    }
}
