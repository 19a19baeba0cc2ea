//! Any fields through our encoder and decoder, with settings that change in between; and any bytes at all.

use proptest::prelude::*;
use ruststrom_core::h2::hpack::{BlockLimits, Decoder, Encoder, FieldBlock, Fit};

use super::{WIDE, decode, encode, fields};

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            ":method",
            ":path",
            ":authority",
            ":status",
            "accept",
            "cookie",
            "date",
            "server",
            "vary",
            "via",
            "authorization",
            "x-a",
            "x-b",
            "content-length",
        ])
        .prop_map(str::to_owned),
        "[a-z0-9-]{0,12}",
    ]
}

fn value() -> impl Strategy<Value = String> {
    let long = (0..300_usize, 0..26_u8).prop_map(|(len, n)| char::from(b'a' + n).to_string().repeat(len));
    prop_oneof!["[ -~]{0,8}", long]
}

proptest! {
    #[test]
    fn both_sides_stay_in_step(
        blocks in prop::collection::vec(
            (
                prop::option::weighted(0.2, 0..6000_u32),
                prop::collection::vec((name(), value()), 0..12),
            ),
            1..40,
        ),
        most in prop_oneof![Just(4096_u32), 0..5000_u32],
    ) {
        let (mut encoder, mut decoder) = (Encoder::new(most), Decoder::new());
        for (setting, sent) in blocks {
            if let Some(bytes) = setting {
                decoder.set_allowed(bytes);
                encoder.set_allowed(bytes);
            }
            let block = encode(&mut encoder, &sent);
            if block.is_empty() {
                continue;
            }
            prop_assert_eq!(decode(&mut decoder, &block), Ok(sent));
        }
    }

    // Whatever comes: no panic, no more than the limits allow, and the limits change nothing but what is
    // kept.
    #[test]
    fn any_bytes(
        blocks in prop::collection::vec(
            prop::collection::vec(prop_oneof![any::<u8>(), 0x80..=0xff_u8, 0x3e..=0x42_u8, 0..4_u8], 0..60),
            1..8,
        ),
    ) {
        let tight = BlockLimits { list_bytes: 200, fields: 4, hard_bytes: 1 << 20 };
        let (mut wide, mut narrow) = (Decoder::new(), Decoder::new());
        let (mut all, mut some) = (FieldBlock::new(), FieldBlock::new());
        for block in blocks {
            let (a, b) = (wide.decode(&block, &WIDE, &mut all), narrow.decode(&block, &tight, &mut some));
            prop_assert_eq!(a.err(), b.err());
            if a.is_err() {
                break;
            }
            let bytes = |block: &FieldBlock| {
                block.iter().map(|f| f.name.len() + f.value.len() + 32).sum::<usize>()
            };
            prop_assert!(some.len() <= 4 && bytes(&some) <= 200);
            prop_assert_eq!(b == Ok(Fit::Whole), all.len() <= 4 && bytes(&all) <= 200);
            prop_assert!(fields(&all).starts_with(&fields(&some)));
        }
    }
}
