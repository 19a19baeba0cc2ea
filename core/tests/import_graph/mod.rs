//! Which file of a crate imports which, read from the source text.
//!
//! Files are found by following `mod name;` from the crate's root; modules for tests (`#[cfg(test)]`) are
//! skipped. Every path in the code counts, in `use` declarations and elsewhere: `crate::`, `super::`,
//! `self::`, child modules, and names that a `use` has bound to a module. A path leads to the file of the
//! last module in it; a name that the crate's root re-exports leads to the file that the root takes it from.
//! The paths of a file to its parent module do not count: parent and child may import each other.

mod tokens;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use tokens::{FileContent, Import};

/// The files of a crate and their imports.
pub(crate) struct ImportGraph {
    /// For each file the files that it imports, each with a path that does it.
    imports: BTreeMap<String, BTreeMap<String, String>>,
}

/// A module of the crate.
struct Module {
    file: String,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    content: FileContent,
}

impl ImportGraph {
    /// Reads the crate whose sources lie in the folder `src`, with the root `root` (`lib.rs`, `main.rs`).
    ///
    /// # Panics
    /// If a file cannot be read.
    pub(crate) fn of_crate(src: &Path, root: &str) -> Self {
        Self::read(root, &|file| std::fs::read_to_string(src.join(file)).ok())
    }

    /// Reads a crate from `text`, which gives the text of a file by its path under `src`.
    ///
    /// # Panics
    /// If the file of a module is missing.
    pub(crate) fn read(root: &str, text: &dyn Fn(&str) -> Option<String>) -> Self {
        let content = FileContent::parse(&text(root).unwrap_or_else(|| panic!("{root} cannot be read")));
        let mut modules =
            vec![Module { file: root.into(), parent: None, children: BTreeMap::new(), content }];
        let mut next = 0;
        while next < modules.len() {
            for name in modules[next].content.modules.clone() {
                let folder = match modules[next].parent {
                    None => String::new(),
                    Some(_) => {
                        modules[next].file.trim_end_matches(".rs").trim_end_matches("/mod").to_owned() + "/"
                    }
                };
                let files = [format!("{folder}{name}.rs"), format!("{folder}{name}/mod.rs")];
                let (file, text) = files
                    .into_iter()
                    .find_map(|file| text(&file).map(|text| (file, text)))
                    .unwrap_or_else(|| panic!("{}: no file for the module {name}", modules[next].file));
                let child = modules.len();
                modules[next].children.insert(name, child);
                modules.push(Module {
                    file,
                    parent: Some(next),
                    children: BTreeMap::new(),
                    content: FileContent::parse(&text),
                });
            }
            next += 1;
        }
        let mut imports = BTreeMap::new();
        for (index, module) in modules.iter().enumerate() {
            let targets: &mut BTreeMap<String, String> = imports.entry(module.file.clone()).or_default();
            let paths = module.content.uses.iter().map(|import| &import.path).chain(&module.content.paths);
            for path in paths {
                if let Some(target) = resolve(&modules, index, path, 0)
                    && target != index
                    && module.parent != Some(target)
                {
                    targets.entry(modules[target].file.clone()).or_insert_with(|| path.join("::"));
                }
            }
        }
        Self { imports }
    }

    /// Asserts that imports go one way: that no files import each other in a circle, once the `tolerated`
    /// imports (from, to) are left out; and that each of those is still needed, that is, closes a circle.
    ///
    /// # Panics
    /// If there is a circle, which the message shows, or a tolerated import that closes none.
    pub(crate) fn assert_one_way(&self, tolerated: &[(&str, &str)]) {
        let left_out: BTreeSet<(&str, &str)> = tolerated.iter().copied().collect();
        let circles = self.circles(&left_out);
        assert!(circles.is_empty(), "files import each other in a circle:\n{}", circles.join("\n"));
        for import in tolerated {
            let mut others = left_out.clone();
            others.remove(import);
            assert!(
                !self.circles(&others).is_empty(),
                "the import of {} by {} closes no circle any more: take it off the list of tolerated imports",
                import.1,
                import.0
            );
        }
    }

    /// A shortest circle through each file that is in one, each circle as text; none of them shares a file
    /// with another.
    pub(crate) fn circles(&self, left_out: &BTreeSet<(&str, &str)>) -> Vec<String> {
        let mut shown = BTreeSet::new();
        let mut circles = Vec::new();
        for file in self.imports.keys() {
            if let Some(circle) = self.circle_through(file, left_out)
                && !circle.iter().any(|file| shown.contains(file))
            {
                let steps = circle.iter().zip(circle.iter().cycle().skip(1));
                let steps =
                    steps.map(|(from, to)| format!("  {from} imports {to} ({})", self.imports[*from][*to]));
                circles.push(steps.collect::<Vec<_>>().join("\n"));
                shown.extend(circle);
            }
        }
        circles
    }

    /// The files of a shortest circle that begins at `start`.
    fn circle_through<'a>(
        &'a self,
        start: &'a str,
        left_out: &BTreeSet<(&str, &str)>,
    ) -> Option<Vec<&'a str>> {
        let mut before: BTreeMap<&str, &str> = BTreeMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(file) = queue.pop_front() {
            for to in self.imports[file].keys().filter(|to| !left_out.contains(&(file, to.as_str()))) {
                if to == start {
                    let mut circle = vec![file];
                    while circle[circle.len() - 1] != start {
                        circle.push(before[circle[circle.len() - 1]]);
                    }
                    circle.reverse();
                    return Some(circle);
                }
                if !before.contains_key(to.as_str()) {
                    before.insert(to, file);
                    queue.push_back(to);
                }
            }
        }
        None
    }
}

/// The module whose file `path`, as written in the module `from`, leads to; `None` if it leads out of the
/// crate or to something local. `depth` ends chains of names that are bound to each other.
fn resolve(modules: &[Module], from: usize, path: &[String], depth: usize) -> Option<usize> {
    let bound = |module: usize, name: &str| {
        let is_it = |import: &&Import| import.name.as_deref() == Some(name);
        modules[module].content.uses.iter().filter(is_it).find_map(|import| {
            // `use x::x` binds x; its own first word is another x.
            let itself = module == from && import.path == path;
            (depth < 8 && !itself).then(|| resolve(modules, module, &import.path, depth + 1)).flatten()
        })
    };
    let (first, mut rest) = path.split_first()?;
    let mut at = match first.as_str() {
        "crate" => 0,
        "self" => from,
        "super" => modules[from].parent?,
        name => match modules[from].children.get(name) {
            Some(&child) => child,
            None => bound(from, name)?,
        },
    };
    while let Some((name, after)) = rest.split_first() {
        at = match modules[at].children.get(name) {
            _ if name == "super" => modules[at].parent?,
            Some(&child) => child,
            None if at == 0 => bound(0, name).unwrap_or(0),
            None => break,
        };
        if at == 0 {
            break;
        }
        rest = after;
    }
    Some(at)
}
