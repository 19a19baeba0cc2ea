//! Imports between the files of this crate go one way, parent and child excepted.

mod import_graph;

use std::path::Path;

use import_graph::ImportGraph;

/// Imports (importing file, imported file) that close a circle and may do so for now. The test fails
/// when one of them closes none any more.
const TOLERATED: &[(&str, &str)] = &[];

#[test]
fn imports_of_the_core_go_one_way() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    ImportGraph::of_crate(&src, "lib.rs").assert_one_way(TOLERATED);
}

/// A crate of a few files; returns its circles.
fn circles(files: &[(&str, &str)]) -> Vec<String> {
    let text = |file: &str| files.iter().find(|(name, _)| *name == file).map(|(_, text)| (*text).to_owned());
    ImportGraph::read("lib.rs", &text).circles(&Default::default())
}

#[test]
fn circles_are_found_however_a_path_is_written() {
    const LIB: &str = "pub mod a; mod b; mod c; pub use a::deep::Deep; pub use b::B;";
    // The first file imports the second one, in each of these ways.
    let imports_of_b = [
        "use crate::b::B;",
        "use super::b::{self, B as Other};",
        "use crate::{c, b::{B}};",
        "use crate::B;",
        "use super::b; fn f() { b::g() }",
        "use crate::b as other; type X = other::B;",
        "fn f() -> crate::B { '\"'; crate::b::g() }",
        "fn f<'a>(x: &'a str) -> super::b::B<'a> { \"\\\"\"; r#\"\"#; }",
        "use crate::b::*;",
    ];
    for import in imports_of_b {
        for back in ["use crate::a::A;", "use crate::a;"] {
            let a = format!("mod deep; {import}");
            let found =
                circles(&[("lib.rs", LIB), ("a.rs", &a), ("a/deep.rs", ""), ("b.rs", back), ("c.rs", "")]);
            assert_eq!(found.len(), 1, "{import} {back}: {found:?}");
            assert!(
                found[0].contains("a.rs imports b.rs") && found[0].contains("b.rs imports a.rs"),
                "{found:?}"
            );
        }
    }
    let three = circles(&[
        ("lib.rs", LIB),
        ("a.rs", "mod deep; use crate::b::B;"),
        ("a/deep.rs", "use super::A;"),
        ("b.rs", "use crate::c::C;"),
        ("c.rs", "use crate::Deep;"),
    ]);
    assert!(three.is_empty(), "a child and its parent are no circle: {three:?}");
    let through_a_child = circles(&[
        ("lib.rs", LIB),
        ("a.rs", "mod deep; use deep::Deep;"),
        ("a/deep.rs", "use crate::b::B;"),
        ("b.rs", "use crate::c::C;"),
        ("c.rs", "use crate::a::A;"),
    ]);
    assert_eq!(through_a_child.len(), 1, "{through_a_child:?}");
}

#[test]
fn what_is_no_import_counts_for_nothing() {
    let no_imports_of_b = [
        "// use crate::b::B;",
        "/* use crate::b::B; /* nested */ use crate::b::B; */",
        "const T: &str = \"crate::b::B\"; const R: &str = r#\"\"crate::b::B\"#;",
        "const B: &[u8] = b\"crate::b::B\";",
        "#[cfg(test)] mod tests { use crate::b::B; }",
        "#[cfg(test)] use crate::b::{B};",
        "#[cfg(test)] mod tests;",
        "use std::b::B;",
        "use crate::a::b::B;",
    ];
    for text in no_imports_of_b {
        let found = circles(&[("lib.rs", "mod a; mod b;"), ("a.rs", text), ("b.rs", "use crate::a::A;")]);
        assert!(found.is_empty(), "{text}: {found:?}");
    }
}

#[test]
fn a_tolerated_import_must_close_a_circle() {
    let text = |b: &'static str| {
        move |file: &str| match file {
            "lib.rs" => Some("mod a; mod b;".to_owned()),
            "a.rs" => Some("use crate::b::B;".to_owned()),
            "b.rs" => Some(b.to_owned()),
            _ => None,
        }
    };
    let circle = ImportGraph::read("lib.rs", &text("use crate::a::A;"));
    circle.assert_one_way(&[("b.rs", "a.rs")]);
    assert!(std::panic::catch_unwind(|| circle.assert_one_way(&[])).is_err());
    let none = ImportGraph::read("lib.rs", &text(""));
    none.assert_one_way(&[]);
    assert!(std::panic::catch_unwind(|| none.assert_one_way(&[("b.rs", "a.rs")])).is_err());
}
