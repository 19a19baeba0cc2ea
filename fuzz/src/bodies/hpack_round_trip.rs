//! Fields of any bytes through encoder and decoder, with settings that change in between: they come out as
//! they went in, and credentials are in no table.

use ruststrom_core::h2::hpack::{BlockLimits, Decoder, Encoder, FieldBlock, Fit};
use ruststrom_core::http::HeaderKind;

use super::input::Input;

const WIDE: BlockLimits = BlockLimits { list_bytes: 65_535, fields: u32::MAX, hard_bytes: 1 << 20 };

const NAMES: [&[u8]; 12] = [
    b":method",
    b":path",
    b":authority",
    b":status",
    b"Accept",
    b"cookie",
    b"Authorization",
    b"date",
    b"X-Custom",
    b"etag",
    b"server",
    b"vary",
];

pub(super) fn run(data: &[u8]) {
    let mut input = Input(data);
    let mut encoder = Encoder::new(u32::from(input.byte()) * 40);
    let (mut decoder, mut into) = (Decoder::new(), FieldBlock::new());
    let mut left = 60;
    while !input.is_empty() && left > 0 {
        left -= 1;
        let setting = input.byte();
        if setting & 3 == 0 {
            let bytes = u32::from(setting >> 2) * 100;
            decoder.set_allowed(bytes);
            encoder.set_allowed(bytes);
        }
        let mut sent = Vec::new();
        let mut out = Vec::new();
        encoder.begin(&mut out);
        for _ in 0..input.below(12) {
            let choice = input.byte();
            let name = match NAMES.get(usize::from(choice & 15)) {
                Some(name) => name,
                None => input.piece(),
            };
            let value = if choice & 32 == 0 { input.piece() } else { b"a value that comes again" };
            let never = choice & 64 != 0;
            encoder.field(name, value, HeaderKind::of(name), never, &mut out);
            sent.push((name.to_ascii_lowercase(), value, never));
        }
        if out.is_empty() {
            continue;
        }
        if decoder.decode(&out, &WIDE, &mut into) != Ok(Fit::Whole) {
            let bytes: usize = sent.iter().map(|(name, value, _)| name.len() + value.len() + 32).sum();
            assert!(bytes > 65_535, "only what is too large is not whole");
            return;
        }
        assert_eq!(into.len(), sent.len());
        for (field, (name, value, never)) in into.iter().zip(&sent) {
            assert_eq!((field.name, field.value), (&name[..], *value));
            let credentials = matches!(field.kind, HeaderKind::Authorization);
            assert!(field.never_indexed || !(*never || credentials));
        }
    }
}
