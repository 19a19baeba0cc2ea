//! The house stands as it was drawn: what lies at the top, which room knows which, and that no room has
//! unsafe code.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// Package, the file its crate begins with, and the packages of this workspace it may be built on: always
/// towards the core, never back.
const ROOMS: &[(&str, &str, &[&str])] = &[
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

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// The packages of this workspace that `cargo tree` names: those with a path behind their version.
fn tree(arguments: &[&str]) -> BTreeSet<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .current_dir(top())
        .args(["tree", "--offline", "--locked", "--prefix", "none", "--format", "{p}"])
        .args(arguments);
    let out = cargo.output().expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).expect("UTF-8");
    text.lines()
        .filter(|l| l.contains(" (/"))
        .filter_map(|l| l.split(' ').next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn dependencies_point_one_way() {
    let members = tree(&["--workspace", "--depth", "0"]);
    assert_eq!(
        members,
        ROOMS.iter().map(|(name, ..)| (*name).to_owned()).collect(),
        "a new room needs its line in this test"
    );
    for (name, _, wanted) in ROOMS {
        // A build script would be code that runs before all others; the core's tests may not lean on what
        // leans on the core.
        let edges = if wanted.is_empty() { "normal,build,dev" } else { "normal,build" };
        let mut found = tree(&["-p", name, "--edges", edges]);
        assert!(found.remove(*name), "{name} is not in its own tree");
        assert_eq!(found, wanted.iter().map(|n| (*n).to_owned()).collect(), "{name}");
    }
}

#[test]
fn no_room_has_unsafe_code() {
    for (name, root, _) in ROOMS {
        let text = std::fs::read_to_string(top().join(root)).unwrap_or_else(|e| panic!("{root}: {e}"));
        assert!(text.lines().any(|l| l == "#![forbid(unsafe_code)]"), "{name}: {root} does not forbid it");
    }
}

#[test]
fn nothing_else_lies_at_the_top() {
    let wanted =
        ["Cargo.lock", "Cargo.toml", "LICENSE", "README.md", "benches", "cli", "core", "drivers", "testdata"];
    // A room that is built later.
    let later = ["fuzz"];
    let ignored = std::fs::read_to_string(top().join(".gitignore")).expect("what git ignores");
    let ignored = ignored.lines().map(|l| l.trim_matches('/')).collect::<BTreeSet<_>>();
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(top()).expect("the top") {
        let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
        if !name.starts_with('.') && !ignored.contains(name.as_str()) && !later.contains(&name.as_str()) {
            found.insert(name);
        }
    }
    assert_eq!(found, wanted.map(str::to_owned).into());
}
