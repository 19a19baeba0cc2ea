//! Plays the tables of HTTP/2 in `testdata/h2` with one connection: frames in, events and frames out. Each
//! case is fed in one piece, byte by byte, and split in two at every byte of everything that comes.

#[path = "h2_tables/lines.rs"]
mod lines;
#[path = "h2_tables/play.rs"]
mod play;

use std::collections::BTreeSet;
use std::path::Path;

use play::{Case, Split};

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/h2");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("the tables")
        .map(|f| f.expect("an entry").path())
        .filter(|f| f.extension().is_some_and(|e| e == "txt"))
        .collect();
    files.sort();
    files.iter().flat_map(|file| play::parse(file)).collect()
}

#[test]
fn every_case_in_every_split() {
    // `H2_CASE=name` plays one case only.
    let only = std::env::var_os("H2_CASE").map(|name| name.to_string_lossy().into_owned());
    let (mut failed, mut runs) = (Vec::new(), 0);
    for case in cases() {
        if only.as_ref().is_some_and(|name| *name != case.name) {
            continue;
        }
        let mut splits = vec![Split::Whole, Split::Bytes];
        for (step, bytes) in case.inputs() {
            splits.extend((1..bytes).map(|at| Split::At { step, at }));
        }
        // One difference of a case is enough to see.
        let difference = splits.into_iter().find_map(|split| {
            runs += 1;
            let played = std::panic::catch_unwind(|| play::play(&case, split));
            match played {
                Ok(Ok(())) => None,
                Ok(Err(difference)) => Some(format!("{split:?}: {difference}")),
                Err(_) => Some(format!("{split:?}: a panic")),
            }
        });
        if let Some(difference) = difference {
            failed.push(format!(
                "{} ({}) {difference}\n    {}: {}",
                case.name, case.place, case.clause, case.rule
            ));
        }
    }
    assert!(failed.is_empty(), "{} cases fail\n\n{}\n", failed.len(), failed.join("\n\n"));
    assert!(runs > 1000 || only.is_some(), "{runs} runs");
}

#[test]
fn the_tables_are_complete() {
    let cases = cases();
    assert!(cases.len() >= 150, "{} cases", cases.len());
    let mut names = BTreeSet::new();
    for case in &cases {
        assert!(names.insert(&case.name), "{}: the name {} is taken", case.place, case.name);
        let source = ["RFC 9113 §", "RFC 7541 §", "RFC 9218 §", "RFC 8441 §", "RFC 9110 §", "ANCHORS"];
        assert!(source.iter().any(|s| case.clause.starts_with(s)), "{}: clause", case.place);
        assert!(case.rule.len() > 10, "{}: rule", case.place);
    }
}
