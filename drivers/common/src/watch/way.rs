//! The way to a file: the folders and names that are looked up on it, symbolic links included. A change of
//! any of them may change what is found at its end.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

/// Links that the kernel follows on one way (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// What is at a path, where links are not followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Link(PathBuf),
    Folder,
    /// A file or nothing.
    Other,
}

/// A name in a folder, whose own path is without links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) folder: PathBuf,
    pub(super) name: OsString,
}

/// The steps to an absolute path, as far as there is a way. The last one is the file's own, or what is
/// missing.
pub(super) fn steps(path: &Path, entry: &dyn Fn(&Path) -> Entry) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut at = PathBuf::from("/");
    let mut ahead: VecDeque<OsString> = names(path).collect();
    let mut links = 0;
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        let here = at.join(&name);
        steps.push(Step { folder: at.clone(), name });
        match entry(&here) {
            Entry::Folder => at = here,
            Entry::Other => break,
            Entry::Link(_) if links == MAX_LINKS => break,
            Entry::Link(to) => {
                links += 1;
                if to.is_absolute() {
                    at = PathBuf::from("/");
                }
                for name in names(&to).rev() {
                    ahead.push_front(name);
                }
            }
        }
    }
    steps
}

/// The names in a path, `..` among them.
fn names(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsStr::new("..").to_owned()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_and_every_link_on_the_way_is_a_step() {
        let tree = |path: &Path| match path.to_str().expect("text") {
            "/etc" | "/etc/app" | "/etc/app/..one" | "/srv" | "/srv/real" => Entry::Folder,
            // As Kubernetes mounts a secret.
            "/etc/app/..data" => Entry::Link("..one".into()),
            "/etc/app/tls.crt" => Entry::Link("..data/tls.crt".into()),
            "/etc/abs" => Entry::Link("/srv/link".into()),
            "/srv/link" => Entry::Link("../srv/real".into()),
            "/etc/self" => Entry::Link("self".into()),
            _ => Entry::Other,
        };
        // (path, its steps, each as folder:name)
        for (path, expected) in [
            ("/", ""),
            ("/etc/app/a.toml", "/:etc /etc:app /etc/app:a.toml"),
            ("/etc/./app/../app/a.toml", "/:etc /etc:app /etc:app /etc/app:a.toml"),
            (
                "/etc/app/tls.crt",
                "/:etc /etc:app /etc/app:tls.crt /etc/app:..data /etc/app:..one /etc/app/..one:tls.crt",
            ),
            ("/etc/abs/x", "/:etc /etc:abs /:srv /srv:link /:srv /srv:real /srv/real:x"),
            // What is below something that is missing cannot be watched yet.
            ("/etc/gone/deep/x", "/:etc /etc:gone"),
            ("/../../etc/x", "/:etc /etc:x"),
        ] {
            let found: Vec<String> = steps(Path::new(path), &tree)
                .iter()
                .map(|step| format!("{}:{}", step.folder.display(), step.name.display()))
                .collect();
            assert_eq!(found.join(" "), expected, "{path}");
        }
        assert_eq!(steps(Path::new("/etc/self"), &tree).len(), MAX_LINKS + 2, "a circle ends");
    }
}
