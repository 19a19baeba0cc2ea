//! The layout of the workspace: what lies at the top, which package depends on which, that no crate has
//! unsafe code, the names of source files and the length of their lines.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Package, root file of its crate, and the packages of this workspace that it may depend on: dependencies
/// point towards the core, never back.
const PACKAGES: &[(&str, &str, &[&str])] = &[
    ("ruststrom-core", "core/src/lib.rs", &[]),
    ("ruststrom-driver", "drivers/common/src/lib.rs", &["ruststrom-core"]),
    ("ruststrom-mio", "drivers/mio/src/lib.rs", &["ruststrom-core", "ruststrom-driver"]),
    ("ruststrom-sim", "drivers/sim/src/lib.rs", &["ruststrom-core", "ruststrom-driver"]),
    ("ruststrom-smol", "drivers/smol/src/lib.rs", &["ruststrom-core", "ruststrom-driver"]),
    (
        "rust-strom",
        "cli/src/main.rs",
        &["ruststrom-core", "ruststrom-driver", "ruststrom-mio", "ruststrom-smol"],
    ),
    ("ruststrom-benches", "benches/src/lib.rs", &["ruststrom-core"]),
];

/// The longest line of a source file, in characters. Text inside string literals and URLs does not count.
const MAX_COLUMNS: usize = 110;

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// A manifest of this workspace.
fn manifest(directory: &str) -> toml::Table {
    let path = top().join(directory).join("Cargo.toml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The names of the dependencies in one of a manifest's tables, for whatever target.
fn dependencies(manifest: &toml::Table, kind: &str) -> BTreeSet<String> {
    let targets = manifest.get("target").and_then(toml::Value::as_table).into_iter().flatten();
    let tables = targets.filter_map(|(_, target)| target.as_table()).chain([manifest]);
    let named = tables.filter_map(|table| table.get(kind)?.as_table()).flatten();
    named
        .map(|(name, value)| value.get("package").and_then(toml::Value::as_str).unwrap_or(name).to_owned())
        .collect()
}

/// The packages of this workspace with their manifests. They are read as they are: `cargo tree` and its like
/// would want to have crates that a build doesn't need, and download them.
fn members() -> BTreeMap<String, toml::Table> {
    let workspace = manifest("");
    let members = workspace["workspace"]["members"].as_array().expect("a list");
    members
        .iter()
        .map(|directory| manifest(directory.as_str().expect("a string")))
        .map(|manifest| (manifest["package"]["name"].as_str().expect("a name").to_owned(), manifest))
        .collect()
}

/// The packages of this workspace that `name` depends on, directly or not.
fn workspace_dependencies(
    members: &BTreeMap<String, toml::Table>,
    name: &str,
    kinds: &[&str],
) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![(name.to_owned(), kinds)];
    while let Some((name, kinds)) = open.pop() {
        let all = kinds.iter().flat_map(|kind| dependencies(&members[&name], kind));
        for dependency in all.filter(|d| members.contains_key(d)) {
            if found.insert(dependency.clone()) {
                // What a dependency is tested with is no dependency.
                open.push((dependency, &["dependencies", "build-dependencies"]));
            }
        }
    }
    found
}

#[test]
fn dependencies_point_one_way() {
    let members = members();
    assert_eq!(
        members.keys().cloned().collect::<BTreeSet<_>>(),
        PACKAGES.iter().map(|(name, ..)| (*name).to_owned()).collect(),
        "a new package needs its line in this test"
    );
    for (name, _, allowed) in PACKAGES {
        // Build scripts count too. The core's tests may not use what depends on the core either.
        let all = ["dependencies", "build-dependencies", "dev-dependencies"];
        let kinds = if allowed.is_empty() { &all[..] } else { &all[..2] };
        let found = workspace_dependencies(&members, name, kinds);
        assert_eq!(found, allowed.iter().map(|n| (*n).to_owned()).collect(), "{name}");
    }
    // The command is tested with the simulator, and that is seen.
    let tested_with = dependencies(&members["rust-strom"], "dev-dependencies");
    assert!(tested_with.contains("ruststrom-sim"), "{tested_with:?}");
}

#[test]
fn every_crate_forbids_unsafe_code() {
    for (name, root, _) in PACKAGES {
        let text = std::fs::read_to_string(top().join(root)).unwrap_or_else(|e| panic!("{root}: {e}"));
        assert!(text.lines().any(|l| l == "#![forbid(unsafe_code)]"), "{name}: {root} does not forbid it");
    }
}

/// Names that `.gitignore` lists.
fn ignored() -> BTreeSet<String> {
    let text = std::fs::read_to_string(top().join(".gitignore")).expect("a .gitignore");
    text.lines().map(|l| l.trim_matches('/').to_owned()).collect()
}

#[test]
fn nothing_else_lies_at_the_top() {
    let expected = [
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "README.md",
        "benches",
        "cli",
        "core",
        "drivers",
        "fuzz",
        "testdata",
    ];
    let ignored = ignored();
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(top()).expect("the top") {
        let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
        if !name.starts_with('.') && !ignored.contains(&name) {
            found.insert(name);
        }
    }
    assert_eq!(found, expected.map(str::to_owned).into());
}

/// Adds all `.rs` files below a directory, without hidden and ignored ones.
fn find_sources(directory: &Path, ignored: &BTreeSet<String>, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a readable directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if name.starts_with('.') || ignored.contains(&name) {
            continue;
        }
        if path.is_dir() {
            find_sources(&path, ignored, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    find_sources(top(), &ignored(), &mut found);
    assert!(found.len() > 100, "only {} source files were found", found.len());
    found.sort();
    found
}

/// A name like `util` says nothing about what a file is for. `drivers/common` is a package: its directory is
/// called so, no file in it.
#[test]
fn no_source_file_has_a_catch_all_name() {
    const CATCH_ALL: [&str; 6] = ["util", "utils", "helper", "helpers", "common", "misc"];
    for path in sources() {
        let shown = path.strip_prefix(top()).expect("below the top").display().to_string();
        let module = path.file_stem().expect("a name").to_string_lossy().into_owned();
        assert!(!CATCH_ALL.contains(&module.as_str()), "{shown}: name the file after what is in it");
        let directories = shown.replace("drivers/common/", "");
        assert!(
            !directories.split('/').any(|d| CATCH_ALL.contains(&d)),
            "{shown}: name the directory after what is in it"
        );
    }
}

/// `print!` and its like panic if their output is closed or full.
#[test]
fn nothing_is_printed_without_a_look_at_the_error() {
    const MACROS: [&str; 4] = ["print!(", "println!(", "eprint!(", "eprintln!("];
    for path in sources() {
        let shown = path.strip_prefix(top()).expect("below the top").display().to_string();
        let is_part_of_a_program = shown.contains("/src/") && !shown.starts_with("benches/");
        let text = std::fs::read_to_string(&path).expect("UTF-8");
        for (n, line) in text.lines().enumerate() {
            let code = line.trim_start();
            let printed = !code.starts_with("//") && MACROS.iter().any(|name| code.contains(name));
            assert!(!(is_part_of_a_program && printed), "{shown}:{}: {code}", n + 1);
        }
    }
}

/// What the scanner of [`columns`] is inside of at the end of a line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scan {
    Code,
    /// A string literal.
    Text,
    /// A raw string literal with this many `#`.
    RawText(usize),
}

/// The length of a line without the contents of string literals, and the state for the next line. A comment
/// counts whole, unless a URL is in it.
fn columns(line: &str, mut state: Scan) -> (usize, Scan) {
    let chars: Vec<char> = line.chars().collect();
    let (mut counted, mut at) = (0, 0);
    while at < chars.len() {
        let rest = &chars[at..];
        let hashes = |from: usize| rest[from.min(rest.len())..].iter().take_while(|c| **c == '#').count();
        let (taken, counts, next) = match (state, rest[0]) {
            (Scan::Code, '/') if rest.get(1) == Some(&'/') => {
                let comment: String = rest.iter().collect();
                return (counted + if comment.contains("://") { 0 } else { rest.len() }, state);
            }
            (Scan::Code, '"') => (1, true, Scan::Text),
            (Scan::Code, 'r') if rest.get(1 + hashes(1)) == Some(&'"') && !is_word(&chars, at) => {
                (2 + hashes(1), true, Scan::RawText(hashes(1)))
            }
            // A character literal, which may hold a quote.
            (Scan::Code, '\'') if rest.get(1) == Some(&'\\') => (3, true, state),
            (Scan::Code, '\'') if rest.get(2) == Some(&'\'') => (3, true, state),
            (Scan::Code, _) => (1, true, state),
            (Scan::Text, '\\') => (2, false, state),
            (Scan::Text, '"') => (1, true, Scan::Code),
            (Scan::RawText(n), '"') if hashes(1) >= n => (1 + n, true, Scan::Code),
            (Scan::Text | Scan::RawText(_), _) => (1, false, state),
        };
        counted += if counts { taken } else { 0 };
        at += taken;
        state = next;
    }
    (counted, state)
}

/// Whether the character before `at` belongs to the same word, or is the `b` of a byte string inside one.
fn is_word(chars: &[char], at: usize) -> bool {
    let part_of_word =
        |back: usize| at.checked_sub(back).is_some_and(|i| chars[i].is_alphanumeric() || chars[i] == '_');
    part_of_word(1) && (chars[at - 1] != 'b' || part_of_word(2))
}

#[test]
fn lines_are_short_enough_to_read() {
    let mut long = Vec::new();
    for path in sources() {
        let text = std::fs::read_to_string(&path).expect("UTF-8");
        let mut state = Scan::Code;
        for (n, line) in text.lines().enumerate() {
            let counted;
            (counted, state) = columns(line, state);
            if counted > MAX_COLUMNS {
                let shown = path.strip_prefix(top()).expect("below the top").display();
                long.push(format!("{shown}:{}: {counted} columns", n + 1));
            }
        }
        assert!(state == Scan::Code, "{}: a literal without an end: the scanner is wrong", path.display());
    }
    assert!(long.is_empty(), "lines of more than {MAX_COLUMNS} columns:\n{}", long.join("\n"));
}

#[test]
fn columns_are_counted_without_string_literals() {
    let table = [
        ("let a = 1;", 10),
        ("    // a comment", 16),
        ("// see https://example.com/a/b/c", 0),
        (r#"let a = "text \" more"; // why"#, 18),
        (r##"let a = r#"raw " text"#;"##, 14),
        (r#"let a = br"raw"; "#, 14),
        (r"let a = '\''; let b = '/'; let c: &'a str;", 42),
        (r#"let q = '"'; let b = 2;"#, 23),
    ];
    for (line, expected) in table {
        let (counted, state) = columns(line, Scan::Code);
        assert!(counted == expected && state == Scan::Code, "{line}: {counted}");
    }
    let (counted, state) = columns(r#"    let a = "first line"#, Scan::Code);
    assert!(counted == 13 && state == Scan::Text);
    let (counted, state) = columns(r#"    second line", b);"#, state);
    assert!(counted == 6 && state == Scan::Code);
}
