//! RFC 7541, appendix C: its blocks decode to its fields, one table for each section, and its fields survive
//! our encoder, which writes the same bytes wherever it indexes the same fields.

use super::{Decoder, Encoder, Fields, decode, encode, hex, pairs};

/// Blocks of one connection, each with its fields, and how large the table may be.
struct Section {
    name: &'static str,
    table_bytes: u32,
    blocks: Vec<(&'static str, Fields)>,
}

fn requests() -> [Fields; 3] {
    let get = |path| pairs(&[(":method", "GET"), (":scheme", "http"), (":path", path)]);
    let (mut first, mut second) = (get("/"), get("/"));
    first.extend(pairs(&[(":authority", "www.example.com")]));
    second.extend(pairs(&[(":authority", "www.example.com"), ("cache-control", "no-cache")]));
    let third = pairs(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/index.html"),
        (":authority", "www.example.com"),
        ("custom-key", "custom-value"),
    ]);
    [first, second, third]
}

fn responses() -> [Fields; 3] {
    let rest = |status, date| {
        let location = "https://www.example.com";
        pairs(&[(":status", status), ("cache-control", "private"), ("date", date), ("location", location)])
    };
    let mut third = pairs(&[
        (":status", "200"),
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:22 GMT"),
        ("location", "https://www.example.com"),
        ("content-encoding", "gzip"),
    ]);
    let cookie = "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";
    third.extend(pairs(&[("set-cookie", cookie)]));
    let date = "Mon, 21 Oct 2013 20:13:21 GMT";
    [rest("302", date), rest("307", date), third]
}

fn section(name: &'static str, table_bytes: u32, wire: [&'static str; 3], fields: [Fields; 3]) -> Section {
    Section { name, table_bytes, blocks: wire.into_iter().zip(fields).collect() }
}

fn single(name: &'static str, wire: &'static str, field: (&str, &str)) -> Section {
    Section { name, table_bytes: 4096, blocks: vec![(wire, pairs(&[field]))] }
}

fn sections() -> Vec<Section> {
    vec![
        single(
            "C.2.1",
            "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
            ("custom-key", "custom-header"),
        ),
        single("C.2.2", "040c 2f73 616d 706c 652f 7061 7468", (":path", "/sample/path")),
        single("C.2.3", "1008 7061 7373 776f 7264 0673 6563 7265 74", ("password", "secret")),
        single("C.2.4", "82", (":method", "GET")),
        section(
            "C.3",
            4096,
            [
                "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                "8286 84be 5808 6e6f 2d63 6163 6865",
                "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
            ],
            requests(),
        ),
        section(
            "C.4",
            4096,
            [
                "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
                "8286 84be 5886 a8eb 1064 9cbf",
                "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
            ],
            requests(),
        ),
        section(
            "C.5",
            256,
            [
                "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 \
                 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                "4803 3330 37c1 c0bf",
                "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a \
                 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d \
                 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
            ],
            responses(),
        ),
        section(
            "C.6",
            256,
            [
                "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d \
                 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
                "4883 640e ffc1 c0bf",
                "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d \
                 d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 \
                 3d50 07",
            ],
            responses(),
        ),
    ]
}

#[test]
fn its_blocks_decode_to_its_fields() {
    for Section { name, table_bytes, blocks } in sections() {
        let mut decoder = Decoder::new();
        if table_bytes != 4096 {
            decoder.set_allowed(table_bytes);
            // The examples begin with that size already.
            assert_eq!(decode(&mut decoder, &[0x3f, (table_bytes - 31) as u8 | 0x80, 1]), Ok(vec![]));
        }
        for (n, (wire, fields)) in blocks.into_iter().enumerate() {
            assert_eq!(decode(&mut decoder, &hex(wire)), Ok(fields), "{name}.{}", n + 1);
        }
    }
}

#[test]
fn its_fields_survive_the_encoder() {
    for Section { name, table_bytes, blocks } in sections() {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::new());
        encoder.set_allowed(table_bytes);
        for (n, (_, fields)) in blocks.into_iter().enumerate() {
            let wire = encode(&mut encoder, &fields);
            assert_eq!(decode(&mut decoder, &wire), Ok(fields), "{name}.{}", n + 1);
        }
    }
}

// What it indexes that we do, too, is written byte for byte as there.
#[test]
fn the_same_choice_makes_the_same_bytes() {
    let mut encoder = Encoder::default();
    let [first, second, third] = requests();
    assert_eq!(encode(&mut encoder, &first), hex("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff"), "C.4.1");
    assert_eq!(encode(&mut encoder, &second), hex("8286 84be 5886 a8eb 1064 9cbf"), "C.4.2");
    // A name that nobody knows is indexed when its field comes again.
    let unindexed = hex("8287 85bf 0088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf");
    assert_eq!(encode(&mut encoder, &third), unindexed);
    let indexed = hex("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf");
    assert_eq!(encode(&mut encoder, &third), indexed, "C.4.3");

    let mut encoder = Encoder::default();
    let [first, ..] = responses();
    let date = "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff";
    let location = "6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3";
    let other = hex(&format!("{date} 0f 1f 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3"));
    assert_eq!(encode(&mut encoder, &first), other);
    assert_eq!(encode(&mut encoder, &first), hex(&format!("c0 bf be {location}")));
    let mut decoder = Decoder::new();
    assert_eq!(decode(&mut decoder, &hex(&format!("{date} {location}"))), Ok(first), "C.6.1");
}
