//! Content codings: which of them clients say they take, of which types responses are, and how coded content
//! is read. All follows from the id of the exchange, so that both ends know it.

use std::io::Read as _;

use crate::random::mix;

/// What a client says in `Accept-Encoding`, and which codings it then gets, the most wanted first.
type Accepted = (&'static str, &'static [&'static str]);

const ACCEPTED: &[Accepted] = &[
    ("gzip", &["gzip"]),
    ("gzip, deflate, br, zstd", &["br", "zstd", "gzip", "deflate"]),
    ("br;q=0.5, gzip;q=0.8", &["gzip", "br"]),
    ("*", &["br", "zstd", "gzip", "deflate"]),
    ("gzip;q=0, *;q=0.1", &["br", "zstd", "deflate"]),
    ("deflate", &["deflate"]),
    ("ZSTD ; Q=1.0 , br;q=0", &["zstd"]),
    ("identity", &[]),
    ("identity;q=0.5, br;q=0.2", &[]),
    ("", &[]),
];

/// The media types of responses, and whether they are compressed.
const TYPES: &[(&str, bool)] = &[
    ("text/plain", true),
    ("text/html; charset=utf-8", true),
    ("application/json", true),
    ("application/problem+json", true),
    ("image/png", false),
];

/// What the client of an exchange says in `Accept-Encoding`; `None`: no such field.
pub(crate) fn accepted(id: u64) -> Option<Accepted> {
    let drawn = mix(id ^ 0xacce) as usize;
    (!drawn.is_multiple_of(6)).then(|| ACCEPTED[drawn / 6 % ACCEPTED.len()])
}

/// The media type of the response of an exchange, if it has one.
pub(crate) fn media_type(id: u64) -> Option<&'static str> {
    let drawn = mix(id ^ 0x7e9e) as usize;
    (!drawn.is_multiple_of(8)).then(|| TYPES[drawn / 8 % TYPES.len()].0)
}

/// Whether content of a media type is compressed.
pub(crate) fn is_text(media_type: &str) -> bool {
    media_type.starts_with("text/") || TYPES.iter().any(|(known, is_text)| *known == media_type && *is_text)
}

/// The content behind a coding; `Err`: it is not whole, or something follows it.
pub(crate) fn decode(coding: &str, coded: &[u8]) -> Result<Vec<u8>, String> {
    let (mut content, mut left) = (Vec::new(), coded);
    let read = match coding {
        "gzip" => flate2::bufread::GzDecoder::new(&mut left).read_to_end(&mut content),
        "deflate" => flate2::bufread::ZlibDecoder::new(&mut left).read_to_end(&mut content),
        "br" => {
            let mut decoder = brotli::Decompressor::new(&mut left, 4096);
            decoder.read_to_end(&mut content)
        }
        "zstd" => zstd::stream::read::Decoder::with_buffer(&mut left)
            .and_then(|decoder| decoder.single_frame().read_to_end(&mut content)),
        _ => return Err(format!("the coding {coding:?}")),
    };
    read.map_err(|why| format!("{coding} of {} bytes: {why}", coded.len()))?;
    if left.is_empty() { Ok(content) } else { Err(format!("{} bytes behind {coding}", left.len())) }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn coded(content: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(content).expect("memory");
        let mut deflate = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        deflate.write_all(content).expect("memory");
        let mut br = Vec::new();
        brotli::CompressorWriter::new(&mut br, 4096, 2, 18).write_all(content).expect("memory");
        let zstd = zstd::stream::encode_all(content, 1).expect("memory");
        let (gzip, deflate) = (gzip.finish().expect("memory"), deflate.finish().expect("memory"));
        vec![("gzip", gzip), ("deflate", deflate), ("br", br), ("zstd", zstd)]
    }

    #[test]
    fn only_whole_content_is_decoded() {
        let content: Vec<u8> = (0..5_000_u32).map(|i| (i * i / 7) as u8).collect();
        for (coding, bytes) in coded(&content) {
            assert_eq!(decode(coding, &bytes).as_ref(), Ok(&content), "{coding}");
            for cut in [0, bytes.len() / 2, bytes.len() - 1] {
                assert!(decode(coding, &bytes[..cut]).is_err(), "{coding} up to {cut}");
            }
        }
        assert!(decode("identity", &content).is_err());
    }

    #[test]
    fn what_clients_say_is_met_by_codings_that_exist() {
        for (said, codings) in ACCEPTED {
            assert!(
                codings.iter().all(|coding| ["br", "zstd", "gzip", "deflate"].contains(coding)),
                "{said}"
            );
        }
        assert!(is_text("text/x") && is_text("application/json") && !is_text("image/png"));
        assert!((0..100).any(|id| accepted(id).is_none()) && (0..100).any(|id| media_type(id).is_none()));
    }
}
