//! Stories of other encoders (`testdata/hpack`): each block decodes to its fields, and what we encode of them
//! decodes to the same.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Decoder, Encoder, Fields, decode, encode, hex};

fn folders() -> Vec<PathBuf> {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/hpack");
    let more = std::env::var_os("HPACK_STORIES").map(PathBuf::from);
    let mut found = Vec::new();
    for root in [Some(ours), more].into_iter().flatten() {
        let entries = std::fs::read_dir(&root).unwrap_or_else(|e| panic!("{}: {e}", root.display()));
        let folders = entries.map(|e| e.expect("an entry").path());
        found.extend(folders.filter(|f| f.is_dir() && !f.ends_with("raw-data") && !f.ends_with(".git")));
    }
    found.sort();
    found
}

fn field_list(case: &Value) -> Fields {
    let fields = case["headers"].as_array().expect("a list");
    let pair = |field: &Value| {
        let (name, value) = field.as_object().expect("a field").iter().next().expect("a name");
        (name.clone(), value.as_str().expect("a value").to_owned())
    };
    fields.iter().map(pair).collect()
}

#[test]
fn stories_of_many_encoders() {
    let (mut stories, mut blocks) = (0, 0);
    let (mut theirs, mut ours) = (0, 0);
    for folder in folders() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("UTF-8");
            let story: Value = serde_json::from_str(&text).expect("JSON");
            let (mut decoder, mut back, mut encoder) = (Decoder::new(), Decoder::new(), Encoder::default());
            stories += 1;
            for case in story["cases"].as_array().expect("cases") {
                let shown = || format!("{}, block {}", path.display(), case["seqno"]);
                if let Some(size) = case["header_table_size"].as_u64() {
                    decoder.set_allowed(size as u32);
                    back.set_allowed(size as u32);
                    encoder.set_allowed(size as u32);
                }
                let (wire, fields) = (hex(case["wire"].as_str().expect("hex")), field_list(case));
                assert_eq!(decode(&mut decoder, &wire).as_ref(), Ok(&fields), "{}", shown());
                let encoded = encode(&mut encoder, &fields);
                assert_eq!(decode(&mut back, &encoded).as_ref(), Ok(&fields), "ours: {}", shown());
                blocks += 1;
                theirs += wire.len();
                ours += encoded.len();
            }
        }
    }
    assert!(stories >= 100 && blocks >= 1200, "{stories} stories with {blocks} blocks");
    // Half of those encoders use neither table nor code to the full.
    assert!(ours < theirs, "{ours} bytes, theirs {theirs}");
}
