//! What our encoder puts into the table, and what never.

use ruststrom_core::h2::hpack::{Decoder, Encoder, FieldBlock, Fit};
use ruststrom_core::http::HeaderKind;

use super::{WIDE, encode, pairs};

/// Bytes of each of three blocks with this field only, and whether a decoder finds it marked.
fn three_times(name: &str, value: &str, never: bool) -> ([usize; 3], bool) {
    let (mut encoder, mut decoder, mut into) = (Encoder::default(), Decoder::new(), FieldBlock::new());
    let mut marked = false;
    let lengths = std::array::from_fn(|_| {
        let mut out = Vec::new();
        let kind = HeaderKind::of(name.as_bytes());
        encoder.field(name.as_bytes(), value.as_bytes(), kind, never, &mut out);
        assert_eq!(decoder.decode(&out, &WIDE, &mut into), Ok(Fit::Whole));
        let field = into.iter().next().expect("a field");
        assert_eq!((field.name, field.value), (name.to_ascii_lowercase().as_bytes(), value.as_bytes()));
        marked = field.never_indexed;
        out.len()
    });
    (lengths, marked)
}

#[test]
fn which_fields_are_indexed_and_when() {
    let at_once = [
        (":authority", "example.com"),
        (":status", "301"),
        ("Server", "one"),
        ("date", "Tue, 15 Nov 2022 08:12:31 GMT"),
        ("User-Agent", "curl/8"),
        ("via", "1.1 lb"),
    ];
    for (name, value) in at_once {
        let ([first, again, more], marked) = three_times(name, value, false);
        assert!(first > 1 && (again, more, marked) == (1, 1, false), "{name}");
    }
    let second = [(":path", "/a"), ("X-Custom", "value"), ("etag", "\"1\""), ("content-length", "17")];
    for (name, value) in second {
        let ([first, again, more], marked) = three_times(name, value, false);
        assert!(first > 1 && again > 1 && (more, marked) == (1, false), "{name}");
    }
    let long = "session=0123456789abcdef0123456789";
    let never_ours = [("cookie", long, false), ("Set-Cookie", long, false), ("x-request-id", "1", false)];
    let never = [
        ("authorization", "Basic YTpi", true),
        ("Proxy-Authorization", "Basic YTpi", true),
        ("cookie", "a=b", true),
        ("set-cookie", "a=b", true),
    ];
    for (name, value, expected) in never_ours.into_iter().chain(never) {
        let (lengths, marked) = three_times(name, value, false);
        assert!(lengths.iter().all(|n| *n > 3) && marked == expected, "{name}");
    }
    // What came as one that is never indexed is sent on as such, whatever it is.
    let (lengths, marked) = three_times("server", "one", true);
    assert!(lengths == [lengths[0]; 3] && lengths[0] > 3 && marked);
    assert!(three_times(":method", "GET", true).1);
}

// A field that comes too seldom, or is too large, pushes nothing out.
#[test]
fn one_off_values_leave_the_table_alone() {
    let mut encoder = Encoder::default();
    let steady = pairs(&[(":authority", "example.com"), ("user-agent", "a browser"), ("accept", "*/*")]);
    encode(&mut encoder, &steady);
    for n in 0..500 {
        let path = format!("/page/{n}");
        encode(&mut encoder, &pairs(&[(":path", &path), ("x-request-id", &path), ("referer", &path)]));
    }
    encode(&mut encoder, &pairs(&[("server", &"x".repeat(3000))]));
    assert_eq!(encode(&mut encoder, &steady).len(), 3);
}

// Else the ids of requests fill the table one by one, and push out what repeats.
#[test]
fn no_one_off_value_passes_for_one_that_came_again() {
    let mut encoder = Encoder::default();
    let mut out = Vec::new();
    for n in 0..200_000_u64 {
        let id = format!("{:016x} by a backend", n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        out.clear();
        encoder.field(b"x-id", id.as_bytes(), HeaderKind::Other, false, &mut out);
        assert_eq!(out[0], 0, "{id} goes into the table");
    }
}
