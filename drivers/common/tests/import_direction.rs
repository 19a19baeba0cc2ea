//! Imports between the files of each driver, and of the command, go one way, parent and child excepted.

#[path = "../../../core/tests/import_graph/mod.rs"]
mod import_graph;

use std::path::Path;

use import_graph::ImportGraph;

/// A crate: its folder in the workspace, the file of its root, and the imports (importing file, imported
/// file) that close a circle and are still to be removed. The test fails when one of them closes none any
/// more.
type Crate = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const CRATES: &[Crate] = &[
    ("drivers/common", "lib.rs", &[]),
    ("drivers/mio", "lib.rs", &[]),
    ("drivers/smol", "lib.rs", &[]),
    ("drivers/sim", "lib.rs", &[]),
    ("drivers/sim", "main.rs", &[]),
    ("cli", "main.rs", &[]),
];

#[test]
fn imports_of_every_driver_and_the_command_go_one_way() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (folder, root, tolerated) in CRATES {
        println!("{folder}/src/{root}");
        ImportGraph::of_crate(&workspace.join(folder).join("src"), root).assert_one_way(tolerated);
    }
}
