//! The coding that is chosen for any `Accept-Encoding` is the one that a naive reader chooses, which is that
//! of the fuzz target.

#[path = "../../fuzz/src/bodies/accept_encoding.rs"]
mod naive;

use proptest::prelude::*;

/// Words of the field, and what is like them.
fn words() -> impl Strategy<Value = String> {
    let words = [
        "gzip", "GZIP", "x-gzip", "br", "zstd", "deflate", "identity", "*", "compress", "brr", ";", ";q=",
        "; Q = ", ";q", "=", "0", "1", "0.5", "0.501", "0.", "1.000", "1.001", ".5", "0.0001", "-1", "2",
        " ", "\t", ",", ", ", ",,", "\n", "\"",
    ];
    let word = prop::sample::select(words.to_vec());
    prop::collection::vec(word, 0..40).prop_map(|words| words.concat())
}

/// A well-formed list.
fn lists() -> impl Strategy<Value = String> {
    let coding =
        prop::sample::select(vec!["gzip", "x-gzip", "br", "zstd", "deflate", "identity", "*", "other"]);
    let element = (coding, prop::option::of(0..=1000_u16)).prop_map(|(coding, weight)| match weight {
        Some(weight) => format!("{coding};q={}.{:03}", weight / 1000, weight % 1000),
        None => coding.to_owned(),
    });
    prop::collection::vec(element, 0..8).prop_map(|elements| elements.join(", "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn the_choice_is_that_of_a_naive_reader(offered in 0_u8..16, text in prop_oneof![words(), lists()]) {
        naive::run(&[&[offered], text.as_bytes()].concat());
    }

    #[test]
    fn whatever_bytes_come(offered in 0_u8..16, bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        naive::run(&[&[offered], &bytes[..]].concat());
    }
}
