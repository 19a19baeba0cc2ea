//! HPACK (RFC 7541) as a peer sees it: the examples of its appendix C, public stories of many encoders, every
//! limit, and that two sides stay in step whatever is sent.

#[path = "hpack/appendix_c.rs"]
mod appendix_c;
#[path = "hpack/indexing.rs"]
mod indexing;
#[path = "hpack/limits.rs"]
mod limits;
#[path = "hpack/round_trip.rs"]
mod round_trip;
#[path = "hpack/stories.rs"]
mod stories;

use ruststrom_core::h2::hpack::{BlockLimits, Decoder, Encoder, FieldBlock, Fit, HpackError};
use ruststrom_core::http::HeaderKind;

/// More than any example needs.
const WIDE: BlockLimits = BlockLimits { list_bytes: 65_535, fields: 1000, hard_bytes: 1 << 20 };

type Fields = Vec<(String, String)>;

fn fields(block: &FieldBlock) -> Fields {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    block.iter().map(|f| (text(f.name), text(f.value))).collect()
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Fields, HpackError> {
    let mut into = FieldBlock::new();
    let fit = decoder.decode(block, &WIDE, &mut into)?;
    assert_eq!(fit, Fit::Whole);
    Ok(fields(&into))
}

fn encode(encoder: &mut Encoder, fields: &[(String, String)]) -> Vec<u8> {
    let mut out = Vec::new();
    encoder.begin(&mut out);
    for (name, value) in fields {
        encoder.field(name.as_bytes(), value.as_bytes(), HeaderKind::of(name.as_bytes()), false, &mut out);
    }
    out
}

fn pairs(fields: &[(&str, &str)]) -> Fields {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16).expect("hex") as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
