//! Content codings (RFC 9110 §8.4.1), and which of them a client takes (RFC 9110 §12.5.3).

/// A content coding that responses can be sent in. `x-gzip` is `gzip` (RFC 9110 §8.4.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentCoding {
    /// Brotli (RFC 7932).
    Br,
    /// Zstandard (RFC 8878), with windows of at most 8 MB (RFC 9659).
    Zstd,
    /// The gzip file format (RFC 1952).
    Gzip,
    /// The zlib format (RFC 1950), not a bare deflate stream.
    Deflate,
}

impl ContentCoding {
    /// Every one, the most wanted first.
    pub const ALL: [Self; 4] = [Self::Br, Self::Zstd, Self::Gzip, Self::Deflate];

    /// Its name in fields and in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Br => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// The best coding of those `offered` for a client that says this in its `Accept-Encoding` fields, each
    /// value one item. Of those with the highest weight the first in [`ContentCoding::ALL`] is the best.
    /// `None`: the content should go as it is, because the client says nothing, wants no other coding that is
    /// offered, or wants no coding more than any.
    ///
    /// A weight that is none counts as 0, and so does a coding that is named twice with 0 once: what a client
    /// may not be able to read is not sent.
    #[must_use]
    pub fn negotiate<'v>(fields: impl IntoIterator<Item = &'v [u8]>, offered: &[Self]) -> Option<Self> {
        let mut weights = Weights::default();
        for element in fields.into_iter().flat_map(|value| value.split(|b| *b == b',')) {
            weights.read(element);
        }
        let mut best = (0, None);
        for coding in Self::ALL {
            let weight = weights.of[coding as usize].or(weights.any).unwrap_or(0);
            if weight > best.0 && offered.contains(&coding) {
                best = (weight, Some(coding));
            }
        }
        let identity = weights.identity.or(weights.any).unwrap_or(0);
        best.1.filter(|_| best.0 >= identity)
    }
}

/// The weights of what a client names, in thousandths.
#[derive(Debug, Default)]
struct Weights {
    /// In the order of [`ContentCoding::ALL`].
    of: [Option<u16>; 4],
    identity: Option<u16>,
    /// `*`: what is not named.
    any: Option<u16>,
}

impl Weights {
    /// Reads `codings [ weight ]`. Other parameters are passed over; what is unknown is nothing that is
    /// offered.
    fn read(&mut self, element: &[u8]) {
        let mut parts = element.split(|b| *b == b';');
        let name = parts.next().unwrap_or_default().trim_ascii();
        let slot = match name {
            b"*" => &mut self.any,
            _ if name.eq_ignore_ascii_case(b"identity") => &mut self.identity,
            _ if name.eq_ignore_ascii_case(b"x-gzip") => &mut self.of[ContentCoding::Gzip as usize],
            _ => {
                let known = |coding: &ContentCoding| name.eq_ignore_ascii_case(coding.name().as_bytes());
                let Some(coding) = ContentCoding::ALL.into_iter().find(known) else { return };
                &mut self.of[coding as usize]
            }
        };
        let weight = weight(parts);
        *slot = Some(slot.map_or(weight, |before| before.min(weight)));
    }
}

/// The weight among the parameters of what a client names (RFC 9110 §12.4.2), in thousandths; one that is no
/// weight counts as 0.
pub(crate) fn weight<'a>(parameters: impl Iterator<Item = &'a [u8]>) -> u16 {
    let mut weight = 1000;
    for part in parameters {
        let Some(at) = part.iter().position(|b| *b == b'=') else { continue };
        if part[..at].trim_ascii().eq_ignore_ascii_case(b"q") {
            weight = weight.min(thousandths(part[at + 1..].trim_ascii()).unwrap_or(0));
        }
    }
    weight
}

/// `qvalue` (RFC 9110 §12.4.2): from 0 to 1, with at most three digits behind the point.
fn thousandths(text: &[u8]) -> Option<u16> {
    let (whole, digits) = match text {
        [whole] => (whole, &[][..]),
        [whole, b'.', digits @ ..] if digits.len() <= 3 => (whole, digits),
        _ => return None,
    };
    let mut value = match whole {
        b'0' => 0,
        b'1' => 1,
        _ => return None,
    };
    for place in 0..3 {
        let digit = digits.get(place).copied().unwrap_or(b'0');
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value * 10 + u16::from(digit - b'0');
    }
    (value <= 1000).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::ContentCoding::{Br, Deflate, Gzip, Zstd};
    use super::*;

    #[test]
    fn the_best_coding_of_those_that_a_client_takes() {
        let all = &ContentCoding::ALL[..];
        let table: &[(&[&str], &[ContentCoding], Option<ContentCoding>)] = &[
            // Nothing said, or nothing wanted.
            (&[], all, None),
            (&[""], all, None),
            (&["identity"], all, None),
            (&[" , ,, "], all, None),
            (&["compress, aes128gcm"], all, None),
            // The order is ours at equal weights.
            (&["gzip, deflate, br, zstd"], all, Some(Br)),
            (&["gzip, deflate, zstd"], all, Some(Zstd)),
            (&["deflate, gzip"], all, Some(Gzip)),
            (&["deflate"], all, Some(Deflate)),
            (&["gzip, deflate, br, zstd"], &[Deflate, Gzip], Some(Gzip)),
            (&["br"], &[Gzip], None),
            (&["br"], &[], None),
            // Weights.
            (&["br;q=0.9, gzip"], all, Some(Gzip)),
            (&["br;q=0.001, gzip;q=0.002, deflate;q=0.003"], all, Some(Deflate)),
            (&["br;q=0, gzip;q=0.0, zstd;q=0.00, deflate;q=0.000"], all, None),
            (&["br;q=0., gzip;q=1."], all, Some(Gzip)),
            (&["gzip;q=1.000, br;q=1.0"], all, Some(Br)),
            (&["gzip;q=0.5"], all, Some(Gzip)),
            // Everything that is not named.
            (&["*"], all, Some(Br)),
            (&["*;q=0"], all, None),
            (&["*;q=0, gzip"], all, Some(Gzip)),
            (&["*, br;q=0"], all, Some(Zstd)),
            (&["*;q=0.5, gzip;q=0.3"], all, Some(Br)),
            (&["*;q=0.5, gzip;q=0.3"], &[Gzip], None),
            (&["gzip, *;q=0.1"], all, Some(Gzip)),
            // As it is only where that is wanted more.
            (&["identity, gzip"], all, Some(Gzip)),
            (&["identity;q=0.5, gzip;q=0.5"], all, Some(Gzip)),
            (&["identity;q=0.501, gzip;q=0.5"], all, None),
            (&["identity, gzip;q=0.999"], all, None),
            (&["identity;q=0, gzip;q=0.001"], all, Some(Gzip)),
            (&["identity;q=0"], all, None),
            (&["identity;q=0, *;q=0"], all, None),
            (&["identity;q=0, compress"], all, None),
            // Several lines are one list.
            (&["gzip;q=0.5", "br;q=0.4"], all, Some(Gzip)),
            (&["", "zstd"], all, Some(Zstd)),
            // Odd blanks, letters and parameters.
            (&["\tGZip\t;\tQ=0.5 ,bR ;q=0.4"], all, Some(Gzip)),
            (&["gzip ; q = 0.5, br; q =0.4"], all, Some(Gzip)),
            (&["gzip;level=9;q=0.5, br;q=0.4;x"], all, Some(Gzip)),
            (&["gzip;;q=0;"], all, None),
            (&["x-gzip"], all, Some(Gzip)),
            (&["x-gzip;q=0, *"], &[Gzip], None),
            // What is no weight counts as 0, and what is refused once is refused.
            (&["gzip;q=1.001"], all, None),
            (&["gzip;q=2"], all, None),
            (&["gzip;q=.5"], all, None),
            (&["gzip;q=0.5000"], all, None),
            (&["gzip;q=-1"], all, None),
            (&["gzip;q=1e0"], all, None),
            (&["gzip;q="], all, None),
            (&["gzip;q=a, *"], &[Gzip], None),
            (&["gzip;q=0, gzip"], all, None),
            (&["gzip", "gzip;q=0"], all, None),
            (&["gzip;q=1;q=0"], all, None),
            // Names that are only like one.
            (&["gzip2, brr, zstd-, *deflate, gz ip"], all, None),
            (&["\"gzip\""], all, None),
        ];
        for (fields, offered, expected) in table {
            let found = ContentCoding::negotiate(fields.iter().map(|text| text.as_bytes()), offered);
            assert_eq!(found, *expected, "{fields:?} of {offered:?}");
        }
    }
}
