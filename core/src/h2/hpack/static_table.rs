//! The static table (RFC 7541, appendix A), each field as text: `name: value CRLF`, as the dynamic table and
//! [`FieldBlock`](super::FieldBlock) have them.

use super::mark::{Mark, Pseudo};
use crate::http::HeaderKind;

/// A field that both sides know.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// `name: value CRLF`
    pub(super) text: &'static [u8],
    pub(super) name_len: u16,
    pub(super) mark: Mark,
}

impl Known {
    pub(super) fn name(&self) -> &'static [u8] {
        &self.text[..usize::from(self.name_len)]
    }

    pub(super) fn value(&self) -> &'static [u8] {
        &self.text[usize::from(self.name_len) + 2..self.text.len() - 2]
    }
}

macro_rules! field {
    ($name:literal, $value:literal, $kind:ident) => {
        Known {
            text: concat!($name, ": ", $value, "\r\n").as_bytes(),
            name_len: $name.len() as u16,
            mark: Mark::regular(HeaderKind::$kind),
        }
    };
}

macro_rules! pseudo {
    ($name:literal, $value:literal, $pseudo:ident) => {
        Known {
            text: concat!($name, ": ", $value, "\r\n").as_bytes(),
            name_len: $name.len() as u16,
            mark: Mark::pseudo_field(Pseudo::$pseudo),
        }
    };
}

/// How many there are; the dynamic table's newest field has the next index.
pub(super) const LEN: usize = 61;

/// Index 1 is the first of them.
pub(super) static FIELDS: [Known; LEN] = [
    pseudo!(":authority", "", Authority),
    pseudo!(":method", "GET", Method),
    pseudo!(":method", "POST", Method),
    pseudo!(":path", "/", Path),
    pseudo!(":path", "/index.html", Path),
    pseudo!(":scheme", "http", Scheme),
    pseudo!(":scheme", "https", Scheme),
    pseudo!(":status", "200", Status),
    pseudo!(":status", "204", Status),
    pseudo!(":status", "206", Status),
    pseudo!(":status", "304", Status),
    pseudo!(":status", "400", Status),
    pseudo!(":status", "404", Status),
    pseudo!(":status", "500", Status),
    field!("accept-charset", "", Other),
    field!("accept-encoding", "gzip, deflate", AcceptEncoding),
    field!("accept-language", "", Other),
    field!("accept-ranges", "", Other),
    field!("accept", "", Accept),
    field!("access-control-allow-origin", "", Other),
    field!("age", "", Other),
    field!("allow", "", Other),
    field!("authorization", "", Authorization),
    field!("cache-control", "", CacheControl),
    field!("content-disposition", "", Other),
    field!("content-encoding", "", ContentEncoding),
    field!("content-language", "", Other),
    field!("content-length", "", ContentLength),
    field!("content-location", "", Other),
    field!("content-range", "", Other),
    field!("content-type", "", ContentType),
    field!("cookie", "", Cookie),
    field!("date", "", Date),
    field!("etag", "", Other),
    field!("expect", "", Expect),
    field!("expires", "", Other),
    field!("from", "", Other),
    field!("host", "", Host),
    field!("if-match", "", Other),
    field!("if-modified-since", "", Other),
    field!("if-none-match", "", Other),
    field!("if-range", "", Other),
    field!("if-unmodified-since", "", Other),
    field!("last-modified", "", Other),
    field!("link", "", Other),
    field!("location", "", Other),
    field!("max-forwards", "", MaxForwards),
    field!("proxy-authenticate", "", ProxyAuthenticate),
    field!("proxy-authorization", "", ProxyAuthorization),
    field!("range", "", Other),
    field!("referer", "", Referer),
    field!("refresh", "", Other),
    field!("retry-after", "", RetryAfter),
    field!("server", "", Server),
    field!("set-cookie", "", SetCookie),
    field!("strict-transport-security", "", Other),
    field!("transfer-encoding", "", TransferEncoding),
    field!("user-agent", "", UserAgent),
    field!("vary", "", Other),
    field!("via", "", Via),
    field!("www-authenticate", "", Other),
];

/// A power of two, more than twice the number of names.
const SLOTS: usize = 128;

/// Where the fields of a name begin in [`FIELDS`], by [`slot`]; one more than that, and 0 for no name. A slot
/// that is taken passes on to the next.
static BY_NAME: [u8; SLOTS] = {
    let mut slots = [0; SLOTS];
    let mut i = 0;
    while i < LEN {
        // Fields of one name stand together.
        if i == 0 || FIELDS[i].name_len != FIELDS[i - 1].name_len || !same_name(i, i - 1) {
            let mut at = slot(FIELDS[i].text, FIELDS[i].name_len as usize);
            while slots[at] != 0 {
                at = (at + 1) % SLOTS;
            }
            slots[at] = i as u8 + 1;
        }
        i += 1;
    }
    slots
};

const fn same_name(a: usize, b: usize) -> bool {
    let mut i = 0;
    while i < FIELDS[a].name_len as usize {
        if FIELDS[a].text[i] != FIELDS[b].text[i] {
            return false;
        }
        i += 1;
    }
    true
}

/// The first `len` bytes of `name` are a name of one byte or more.
const fn slot(name: &[u8], len: usize) -> usize {
    let (first, middle, last) = (name[0] as usize, name[len / 2] as usize, name[len - 1] as usize);
    (len.wrapping_mul(7) ^ first.wrapping_mul(5) ^ middle.wrapping_mul(3) ^ last.wrapping_mul(37)) % SLOTS
}

/// The index of the field of this name and value, or else of the first one of this name, and whether its
/// value is this one.
pub(super) fn find(name: &[u8], value: &[u8]) -> Option<(u32, bool)> {
    if name.is_empty() {
        return None;
    }
    let mut at = slot(name, name.len());
    let first = loop {
        let first = usize::from(BY_NAME[at]).checked_sub(1)?;
        if FIELDS[first].name() == name {
            break first;
        }
        at = (at + 1) % SLOTS;
    };
    let same = FIELDS[first..].iter().take_while(|known| known.name() == name);
    let exact = same.clone().position(|known| known.value() == value && !value.is_empty());
    Some((1 + (first + exact.unwrap_or(0)) as u32, exact.is_some()))
}

/// The index of the first field of each kind that names one field alone; 0 for the others.
static BY_KIND: [u8; 64] = {
    let mut by_kind = [0; 64];
    let mut i = LEN;
    while i > 0 {
        i -= 1;
        let kind = FIELDS[i].mark.kind as usize;
        if kind != HeaderKind::Other as usize {
            by_kind[kind] = i as u8 + 1;
        }
    }
    by_kind
};

/// The index of the first field whose name is that of this kind.
#[inline]
pub(super) fn of_kind(kind: HeaderKind) -> Option<u32> {
    match BY_KIND[kind as usize] {
        0 => None,
        index => Some(u32::from(index)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_found_and_marked() {
        for (i, known) in FIELDS.iter().enumerate() {
            let (name, value) = (known.name(), known.value());
            assert_eq!(known.mark, Mark::of_name(name).with_value(value), "{i}");
            assert_eq!(known.text, [name, b": ", value, b"\r\n"].concat());
            let (index, exact) = find(name, value).expect("it is there");
            assert_eq!(FIELDS[index as usize - 1].name(), name);
            assert_eq!((index as usize == i + 1, exact), (true, !value.is_empty()), "{i}");
        }
        for (i, known) in FIELDS.iter().enumerate().filter(|(_, known)| known.mark.kind != HeaderKind::Other)
        {
            assert_eq!(of_kind(known.mark.kind), Some(i as u32 + 1), "one field for each kind");
            assert!(known.value().is_empty() || known.name() == b"accept-encoding", "{i}");
        }
        for kind in [HeaderKind::Other, HeaderKind::HopClaim, HeaderKind::ConnectionListed] {
            assert_eq!(of_kind(kind), None, "names of several fields");
        }
        assert_eq!(find(b":method", b"PUT"), Some((2, false)));
        assert_eq!(find(b":status", b"404"), Some((13, true)));
        assert_eq!(find(b"vary", b"x"), Some((59, false)));
        assert_eq!((find(b"", b""), find(b"x-other", b""), find(b":statuS", b"")), (None, None, None));
        let taken = BY_NAME.iter().filter(|slot| **slot != 0).count();
        assert_eq!(taken, 52, "one slot for each name");
    }
}
