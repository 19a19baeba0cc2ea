//! The subject of a certificate as one line of ASCII, for header fields and logs.

use std::fmt::Write;

use rustls::pki_types::CertificateDer;
use x509_parser::asn1_rs::{Any, Tag};
use x509_parser::parse_x509_certificate;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// Longest line, in bytes.
pub const MAX_BYTES: usize = 256;

/// Ends a line that had to be cut.
const CUT: &str = "...";

/// Attributes by their object identifier: those of RFC 4514 §3, and two more that OpenSSL names.
const NAMES: &[(&str, &str)] = &[
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
    ("2.5.4.5", "serialNumber"),
];

/// The subject of a certificate as RFC 4514 writes it, the most specific part first:
/// `CN=alice,OU=people,O=Example`. What is not printable ASCII stands as `\XX` for each byte of its UTF-8. A
/// line of more than [`MAX_BYTES`] is cut between two characters and ends with `...`. `None` if it is not a
/// certificate.
#[must_use]
pub fn of_certificate(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = parse_x509_certificate(certificate).ok()?;
    Some(line(parsed.subject()))
}

/// A name as one line, see [`of_certificate`].
pub(super) fn line(name: &X509Name<'_>) -> String {
    let mut out = Line::default();
    let mut rdns: Vec<_> = name.iter_rdn().collect();
    rdns.reverse();
    for (i, rdn) in rdns.into_iter().enumerate() {
        for (j, attribute) in rdn.iter().enumerate() {
            out.push(match (i, j) {
                (0, 0) => "",
                (_, 0) => ",",
                _ => "+",
            });
            out.attribute(attribute);
        }
    }
    out.finish()
}

/// A line that takes whole pieces as long as there is room.
#[derive(Default)]
struct Line {
    text: String,
    /// The last length at which [`CUT`] would have fitted behind.
    cut_at: usize,
    is_full: bool,
}

impl Line {
    /// Adds a piece that is not to be cut.
    fn push(&mut self, piece: &str) {
        if self.is_full || self.text.len() + piece.len() > MAX_BYTES {
            self.is_full = true;
            return;
        }
        self.text.push_str(piece);
        if self.text.len() <= MAX_BYTES - CUT.len() {
            self.cut_at = self.text.len();
        }
    }

    fn attribute(&mut self, attribute: &AttributeTypeAndValue<'_>) {
        let oid = attribute.attr_type().to_id_string();
        let name = NAMES.iter().find(|(known, _)| *known == oid).map(|(_, name)| *name);
        self.push(name.unwrap_or(&oid));
        self.push("=");
        match (name, text(attribute.attr_value())) {
            (Some(_), Some(text)) => self.value(&text),
            // RFC 4514 §2.4: the value in BER, in hexadecimal.
            _ => self.hex(attribute.attr_value()),
        }
    }

    fn value(&mut self, text: &str) {
        let last = text.chars().count().saturating_sub(1);
        let mut piece = String::new();
        for (i, c) in text.chars().enumerate() {
            piece.clear();
            match c {
                '"' | '+' | ',' | ';' | '<' | '>' | '\\' => piece.extend(['\\', c]),
                '#' if i == 0 => piece.push_str("\\#"),
                ' ' if i == 0 || i == last => piece.push_str("\\ "),
                ' '..='~' => piece.push(c),
                _ => {
                    for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                        let _ = write!(piece, "\\{byte:02X}");
                    }
                }
            }
            self.push(&piece);
        }
    }

    fn hex(&mut self, value: &Any<'_>) {
        self.push("#");
        // Tag and length are written anew, the length in as few bytes as it takes.
        let length = value.data.len();
        let tag = u8::try_from(value.tag().0).unwrap_or(0x1f);
        let constructed = if value.header.is_constructed() { 0x20 } else { 0 };
        let big = length.to_be_bytes();
        let digits = &big[big.iter().take_while(|&&b| b == 0).count()..];
        let mut head = vec![tag | constructed];
        if length >= 0x80 {
            head.push(0x80 | digits.len() as u8);
        }
        head.extend_from_slice(if length == 0 { &[0] } else { digits });
        for byte in head.iter().chain(value.data) {
            if self.is_full {
                return;
            }
            self.push(&format!("{byte:02x}"));
        }
    }

    fn finish(mut self) -> String {
        if self.is_full {
            self.text.truncate(self.cut_at);
            self.text.push_str(CUT);
        }
        self.text
    }
}

/// A value that is text in one of the encodings of X.520; `None` for anything else.
fn text(value: &Any<'_>) -> Option<String> {
    let data = value.data;
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString | Tag::VisibleString => {
            std::str::from_utf8(data).ok().map(str::to_owned)
        }
        // Latin-1 in practice.
        Tag::T61String => Some(data.iter().map(|&b| char::from(b)).collect()),
        Tag::BmpString if data.len().is_multiple_of(2) => {
            let units = data.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            char::decode_utf16(units).collect::<Result<_, _>>().ok()
        }
        Tag::UniversalString if data.len().is_multiple_of(4) => data
            .chunks_exact(4)
            .map(|four| char::from_u32(u32::from_be_bytes([four[0], four[1], four[2], four[3]])))
            .collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
