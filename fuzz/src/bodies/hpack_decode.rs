//! Field blocks of any bytes: limits change nothing but what is kept, a block that is cut is broken or begins
//! with the same fields, and what was decoded is encoded so that it decodes to the same.

use ruststrom_core::h2::hpack::{BlockLimits, Decoder, Encoder, FieldBlock, Fit};

use super::input::Input;

const WIDE: BlockLimits = BlockLimits { list_bytes: 65_535, fields: u32::MAX, hard_bytes: 1 << 20 };

type Fields = Vec<(Vec<u8>, Vec<u8>, bool)>;

fn fields(block: &FieldBlock) -> Fields {
    block.iter().map(|f| (f.name.to_vec(), f.value.to_vec(), f.never_indexed)).collect()
}

fn counted(fields: &Fields) -> usize {
    fields.iter().map(|(name, value, _)| name.len() + value.len() + 32).sum()
}

pub(super) fn run(data: &[u8]) {
    let mut input = Input(data);
    let (list_bytes, most) = (u32::from(input.byte()) * 16, u32::from(input.byte()) % 32);
    let tight = BlockLimits { list_bytes, fields: most, hard_bytes: 1 << 20 };
    let (mut wide, mut narrow, mut back) = (Decoder::new(), Decoder::new(), Decoder::new());
    let (mut all, mut some, mut again) = (FieldBlock::new(), FieldBlock::new(), FieldBlock::new());
    let mut encoder = Encoder::default();
    while !input.is_empty() {
        let setting = input.byte();
        if setting & 7 == 0 {
            let bytes = u32::from(setting >> 3) * 200;
            for decoder in [&mut wide, &mut narrow, &mut back] {
                decoder.set_allowed(bytes);
            }
            encoder.set_allowed(bytes);
        }
        let block = input.piece();
        let (full, kept) = (wide.decode(block, &WIDE, &mut all), narrow.decode(block, &tight, &mut some));
        assert_eq!(full.err(), kept.err());
        let (fields_all, fields_some) = (fields(&all), fields(&some));
        if full.is_err() {
            return;
        }
        assert!(counted(&fields_some) <= list_bytes as usize && fields_some.len() <= most as usize);
        assert!(fields_all.starts_with(&fields_some));
        let fits = counted(&fields_all) <= list_bytes as usize && fields_all.len() <= most as usize;
        assert_eq!(kept, Ok(if full == Ok(Fit::Whole) && fits { Fit::Whole } else { Fit::TooLarge }));
        let text: Vec<u8> = fields_all
            .iter()
            .flat_map(|(name, value, _)| [name, &b": "[..], value, b"\r\n"].concat())
            .collect();
        assert_eq!(all.text(), text);

        // Our encoder makes capitals small.
        let lower: Fields = fields_all
            .into_iter()
            .map(|(name, value, never)| (name.to_ascii_lowercase(), value, never))
            .collect();
        let mut out = Vec::new();
        encoder.begin(&mut out);
        for ((name, value, never), field) in lower.iter().zip(all.iter()) {
            encoder.field(name, value, field.kind, *never, &mut out);
        }
        assert_eq!(back.decode(&out, &WIDE, &mut again), Ok(Fit::Whole));
        for ((name, value, never), field) in lower.iter().zip(again.iter()) {
            assert_eq!((field.name, field.value), (&name[..], &value[..]));
            assert!(field.never_indexed || !never, "what may not be indexed stays so");
        }
        assert_eq!(again.len(), lower.len());
    }
}
