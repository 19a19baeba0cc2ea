//! What a block may not be or do, and that the tables stay in step where it only was too large.

use ruststrom_core::h2::hpack::{BlockLimits, Decoder, Encoder, FieldBlock, Fit, HpackError};
use ruststrom_core::http::HeaderKind;

use super::{WIDE, decode, fields, hex, pairs};

#[test]
fn broken_blocks() {
    let table: &[(&str, HpackError)] = &[
        ("80", HpackError::Index),
        ("be", HpackError::Index),
        ("ff 00", HpackError::Index),
        ("ff ff ff ff ff 7f", HpackError::Integer),
        ("ff 80 80 80 80 80 00", HpackError::Integer),
        ("7e 01 61", HpackError::Index),
        ("82 7f", HpackError::Truncated),
        ("40", HpackError::Truncated),
        ("40 05 6162", HpackError::Truncated),
        ("40 01 61", HpackError::Truncated),
        ("40 01 61 ff", HpackError::Truncated),
        ("40 7f ff ff ff ff 07", HpackError::Truncated),
        ("40 7f ff ff ff ff 0f", HpackError::Integer),
        ("40 81 ff 00", HpackError::Huffman),
        ("00 01 61 84 ff ff ff ff", HpackError::Huffman),
        // A size update behind a field, and one that is too large.
        ("82 20", HpackError::SizeUpdate),
        ("20 82 3f e1 1f", HpackError::SizeUpdate),
        ("3f e2 1f", HpackError::SizeUpdate),
        ("3f ff ff ff ff 7f", HpackError::Integer),
    ];
    for (block, expected) in table {
        assert_eq!(decode(&mut Decoder::new(), &hex(block)), Err(*expected), "{block}");
        // At each cut it is broken, too, or complete.
        let bytes = hex(block);
        for cut in 0..bytes.len() {
            let _ = decode(&mut Decoder::new(), &bytes[..cut]);
        }
    }
    assert_eq!(decode(&mut Decoder::new(), &hex("20 3f e1 1f 82")), Ok(pairs(&[(":method", "GET")])));
    assert_eq!(decode(&mut Decoder::new(), &[]), Ok(vec![]));
}

#[test]
fn a_smaller_setting_calls_for_a_size_update() {
    let mut decoder = Decoder::new();
    decoder.set_allowed(100);
    assert_eq!(decode(&mut decoder, &hex("82")), Err(HpackError::MissingSizeUpdate));
    for (update, expected) in [("3f 45", Ok(())), ("20", Ok(())), ("3f 46", Err(HpackError::SizeUpdate))] {
        let mut decoder = Decoder::new();
        decoder.set_allowed(100);
        assert_eq!(decode(&mut decoder, &hex(&format!("{update} 82"))).map(|_| ()), expected, "{update}");
        if expected.is_ok() {
            assert!(decode(&mut decoder, &hex("82")).is_ok(), "it was told once");
        }
    }
    // A peer that uses less already has nothing to say; nor has one whose setting grew.
    let mut decoder = Decoder::new();
    assert!(decode(&mut decoder, &hex("20 82")).is_ok());
    decoder.set_allowed(100);
    assert!(decode(&mut decoder, &hex("82")).is_ok());
    decoder.set_allowed(5000);
    assert!(decode(&mut decoder, &hex("82")).is_ok());
    assert!(decode(&mut decoder, &hex("3f e9 26 82")).is_ok());
}

// A name taken from the table may be evicted by its own field (RFC 7541 §4.4).
#[test]
fn a_name_outlives_its_eviction() {
    let mut decoder = Decoder::new();
    assert!(decode(&mut decoder, &hex("3f 1b 40 03 616263 01 31")).is_ok(), "58 bytes");
    let (name, value) = ("abc", "x".repeat(20));
    let block = format!("7e 14 {}", "78".repeat(20));
    assert_eq!(decode(&mut decoder, &hex(&block)), Ok(pairs(&[(name, &value)])));
    assert_eq!(decode(&mut decoder, &hex("be")), Ok(pairs(&[(name, &value)])));
    // A field larger than the table empties it.
    let block = format!("7e 1e {}", "78".repeat(30));
    assert!(decode(&mut decoder, &hex(&block)).is_ok());
    assert_eq!(decode(&mut decoder, &hex("be")), Err(HpackError::Index));
}

/// A block that fills the table with one field and repeats it: each byte expands to 4 KiB.
fn bomb(repeats: usize) -> Vec<u8> {
    let mut block = hex("40 01 61 7f a0 1e");
    block.extend(vec![b'x'; 127 + 0xf20]);
    block.extend(vec![0xbe; repeats]);
    block
}

#[test]
fn a_bomb_is_dropped_and_the_tables_stay_in_step() {
    let limits = BlockLimits { list_bytes: 10_000, fields: 100, hard_bytes: 1 << 20 };
    let (mut decoder, mut into) = (Decoder::new(), FieldBlock::new());
    assert_eq!(decoder.decode(&bomb(1), &limits, &mut into), Ok(Fit::Whole));
    assert_eq!(into.len(), 2);
    assert_eq!(decoder.decode(&bomb(200), &limits, &mut into), Ok(Fit::TooLarge));
    assert_eq!((into.len(), into.text().len()), (2, 2 * 4004), "no more than the limits allow");
    // What was added behind the limit is in the table.
    let late = [bomb(10), hex("40 01 62 01 63")].concat();
    assert_eq!(decoder.decode(&late, &limits, &mut into), Ok(Fit::TooLarge));
    assert_eq!(decode(&mut decoder, &hex("be")), Ok(pairs(&[("b", "c")])));
    // Beyond the hard limit it is not read on.
    assert_eq!(decoder.decode(&bomb(16_000), &limits, &mut into), Err(HpackError::TooLarge));
}

#[test]
fn fields_are_counted_one_by_one() {
    let limits = BlockLimits { list_bytes: 65_535, fields: 100, hard_bytes: 1 << 20 };
    let (mut decoder, mut into) = (Decoder::new(), FieldBlock::new());
    // Crumbs of a cookie: a byte of the block for each.
    let crumbs = |n| [hex("60 01 61"), vec![0xbe; n]].concat();
    assert_eq!(decoder.decode(&crumbs(99), &limits, &mut into), Ok(Fit::Whole));
    assert!(into.iter().all(|f| (f.name, f.kind) == (b"cookie", HeaderKind::Cookie)));
    assert_eq!(decoder.decode(&crumbs(100), &limits, &mut into), Ok(Fit::TooLarge));
    assert_eq!(into.len(), 100);
    // Each counts 32 bytes beyond its own.
    let limits = BlockLimits { list_bytes: 10 * 39, fields: 100, hard_bytes: 100 * 39 };
    assert_eq!(decoder.decode(&crumbs(9), &limits, &mut into), Ok(Fit::Whole));
    assert_eq!(decoder.decode(&crumbs(10), &limits, &mut into), Ok(Fit::TooLarge));
    assert_eq!(decoder.decode(&crumbs(99), &limits, &mut into), Ok(Fit::TooLarge));
    assert_eq!(decoder.decode(&crumbs(100), &limits, &mut into), Err(HpackError::TooLarge));
}

#[test]
fn marks_of_fields() {
    let (mut decoder, mut into) = (Decoder::new(), FieldBlock::new());
    // never: value; without: Name: value; indexed: a: CR LF
    let block = hex("10 01 6e 01 31 00 02 4161 01 32 40 01 61 02 0d0a be 82");
    assert_eq!(decoder.decode(&block, &WIDE, &mut into), Ok(Fit::Whole));
    let marks: Vec<_> =
        into.iter().map(|f| (f.never_indexed, f.good_name, f.good_value, f.pseudo.is_some())).collect();
    let expected = [
        (true, true, true, false),
        (false, false, true, false),
        (false, true, false, false),
        (false, true, false, false),
        (false, true, true, true),
    ];
    assert_eq!(marks, expected);
    // It lies there as HTTP/1.1 has it.
    assert_eq!(into.text(), b"n: 1\r\nAa: 2\r\na: \r\n\r\na: \r\n\r\n:method: GET\r\n");
    assert_eq!(into.iter().map(|f| f.at).collect::<Vec<_>>(), [0, 6, 13, 20, 27]);
}

// Whatever the peer allows and forbids in between: it is told, and both sides stay in step.
#[test]
fn the_encoder_tells_of_every_size() {
    let field = |encoder: &mut Encoder| {
        let mut out = Vec::new();
        encoder.begin(&mut out);
        encoder.field(b"server", b"s", HeaderKind::Server, false, &mut out);
        out
    };
    let mut encoder = Encoder::default();
    assert_eq!(field(&mut encoder), hex("76 01 73"));
    encoder.set_allowed(100);
    encoder.set_allowed(4096);
    assert_eq!(field(&mut encoder), hex("3f 45 3f e1 1f be"), "it fits all the time");
    encoder.set_allowed(0);
    encoder.set_allowed(2000);
    assert_eq!(field(&mut encoder), hex("20 3f b1 0f 76 01 73"));
    assert_eq!(field(&mut encoder), hex("be"));
    encoder.set_allowed(1 << 20);
    assert_eq!(field(&mut encoder), hex("3f e1 1f be"), "no more than we want");
    encoder.set_allowed(0);
    assert_eq!(field(&mut encoder), hex("20 0f 27 01 73"));
    assert_eq!(field(&mut Encoder::new(0)), hex("20 0f 27 01 73"));
}

#[test]
fn warm_blocks_take_no_memory() {
    let (mut decoder, mut into) = (Decoder::new(), FieldBlock::new());
    let block = hex("82 87 85 40 01 61 01 62 be 0f 0d 03 313030");
    let text = |into: &FieldBlock| into.text().as_ptr();
    decoder.decode(&block, &WIDE, &mut into).expect("a good block");
    let before = text(&into);
    for _ in 0..1000 {
        assert_eq!(decoder.decode(&block, &WIDE, &mut into), Ok(Fit::Whole));
    }
    assert_eq!(text(&into), before);
    assert_eq!(fields(&into).len(), 6);
}
