//! Field blocks of any bytes: limits change nothing but what is kept, and no more than they say is ever read
//! or kept; a block that is cut is broken or begins with the same fields; and what was decoded is encoded so
//! that it decodes to the same.

use ruststrom_core::h2::hpack::{BlockLimits, Decoder, Encoder, FieldBlock, Fit, HpackError};

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
    let mut history = History::default();
    while !input.is_empty() {
        let setting = input.byte();
        if setting & 7 == 0 {
            let bytes = u32::from(setting >> 3) * 200;
            for decoder in [&mut wide, &mut narrow, &mut back] {
                decoder.set_allowed(bytes);
            }
            encoder.set_allowed(bytes);
            history.set_allowed(bytes);
        }
        let block = input.piece();
        history.blocks.push(block);
        let (full, kept) = (wide.decode(block, &WIDE, &mut all), narrow.decode(block, &tight, &mut some));
        assert_eq!(full.err(), kept.err());
        let (fields_all, fields_some) = (fields(&all), fields(&some));
        assert!(counted(&fields_all) <= WIDE.hard_bytes as usize);
        if full.is_err() {
            return;
        }
        // One of many: it reads everything again.
        if block.len() % 4 == 1 && history.blocks.len() <= 16 && full == Ok(Fit::Whole) {
            history.cut(usize::from(setting), &fields_all);
            history.hard_limit(counted(&fields_all) as u32);
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

/// What a decoder was given: the settings before each block.
#[derive(Default)]
struct History<'a> {
    allowed: Vec<(usize, u32)>,
    blocks: Vec<&'a [u8]>,
}

impl History<'_> {
    fn set_allowed(&mut self, bytes: u32) {
        self.allowed.push((self.blocks.len(), bytes));
    }

    /// Another decoder, before the last block.
    fn before_last(&self) -> (Decoder, &[u8]) {
        let (mut decoder, mut into) = (Decoder::new(), FieldBlock::new());
        for (n, block) in self.blocks.iter().enumerate() {
            for (_, bytes) in self.allowed.iter().filter(|(before, _)| *before == n) {
                decoder.set_allowed(*bytes);
            }
            if n + 1 < self.blocks.len() {
                decoder.decode(block, &WIDE, &mut into).expect("it was decoded before");
            }
        }
        (decoder, self.blocks.last().expect("a block"))
    }

    /// The last block, whose fields are known, ends too early.
    fn cut(&self, at: usize, whole: &Fields) {
        let (mut decoder, block) = self.before_last();
        let mut into = FieldBlock::new();
        let fit = decoder.decode(&block[..at % block.len()], &WIDE, &mut into);
        let kept = fields(&into);
        match fit {
            Ok(fit) => assert!(fit == Fit::Whole && whole.starts_with(&kept)),
            Err(why) => assert!(
                matches!(why, HpackError::Truncated | HpackError::Huffman) && whole.starts_with(&kept),
                "{why:?}"
            ),
        }
    }

    /// The last block, which comes to so many bytes, is read if that is allowed, and not if one less is.
    fn hard_limit(&self, bytes: u32) {
        let Some(less) = bytes.checked_sub(1) else { return };
        for (hard_bytes, expected) in [(bytes, Ok(Fit::Whole)), (less, Err(HpackError::TooLarge))] {
            let (mut decoder, block) = self.before_last();
            let limits = BlockLimits { hard_bytes, ..WIDE };
            assert_eq!(decoder.decode(block, &limits, &mut FieldBlock::new()), expected);
        }
    }
}
