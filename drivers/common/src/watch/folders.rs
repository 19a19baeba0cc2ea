//! Events of the folders on the way to files, where the kernel can tell of them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

#[cfg(target_os = "linux")]
use super::inotify::{Notifier, is_remote};
#[cfg(not(target_os = "linux"))]
use super::no_events::{Notifier, is_remote};
use super::way::{self, Entry};

/// So often the way is looked up anew if it changes meanwhile.
const ATTEMPTS: usize = 4;

/// What came of watching the way to some files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Followed {
    /// There may be changes without events.
    pub(super) blind: bool,
    /// The way was changing meanwhile: another look should follow.
    pub(super) stale: bool,
}

/// For each folder the names in it that matter, and whether one of them is the end of a way.
type Names = BTreeMap<PathBuf, (BTreeSet<OsString>, bool)>;

/// The folders that are watched.
pub(super) struct Folders {
    /// `None`: the kernel tells nothing.
    notifier: Option<Notifier>,
    /// The names that matter, by the kernel's number of the folder.
    watched: BTreeMap<i32, BTreeSet<OsString>>,
    /// It was said that files are looked at regularly.
    said: bool,
}

impl Folders {
    pub(super) fn new() -> Self {
        let notifier = Notifier::new().inspect_err(|e| log::debug!("no events of files: {e}")).ok();
        Self { notifier, watched: BTreeMap::new(), said: false }
    }

    /// As where the kernel tells nothing.
    #[cfg(test)]
    pub(super) fn without_events() -> Self {
        Self { notifier: None, watched: BTreeMap::new(), said: false }
    }

    /// Readable when there are events.
    pub(super) fn events(&self) -> Option<BorrowedFd<'_>> {
        self.notifier.as_ref().map(Notifier::events)
    }

    /// Watches the ways to these files, as they are now, and nothing else.
    pub(super) fn follow<'p>(&mut self, paths: impl Iterator<Item = &'p Path>) -> Followed {
        let paths: Vec<PathBuf> = paths.filter_map(|path| std::path::absolute(path).ok()).collect();
        let mut names = names(&paths);
        for _ in 0..ATTEMPTS {
            let blind = self.watch(&names);
            // What has changed before it was watched came without an event.
            let now = self::names(&paths);
            if now == names {
                return Followed { blind, stale: false };
            }
            names = now;
        }
        Followed { blind: self.watch(&names), stale: true }
    }

    /// Watches these folders, and no others; whether there may be changes without events.
    fn watch(&mut self, names: &Names) -> bool {
        let Some(notifier) = &self.notifier else {
            if !names.is_empty() && !self.said {
                self.said = true;
                log::warn!("changes of files cannot be waited for here: they are looked for every 10 s");
            }
            return true;
        };
        let mut watched: BTreeMap<i32, BTreeSet<OsString>> = BTreeMap::new();
        let mut blind = None;
        for (folder, (names, has_files)) in names {
            match notifier.add(folder, *has_files) {
                Ok(number) => watched.entry(number).or_default().extend(names.iter().cloned()),
                // Gone in this moment, which the folder above it tells.
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                // Whoever may pass through a folder need not be allowed to read it.
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    log::debug!("no events of {}: {e}", folder.display());
                    blind = blind.or(Some(None));
                }
                Err(e) => blind = Some(Some(format!("{}: {e}", folder.display()))),
            }
            if *has_files && is_remote(folder) {
                log::debug!("{} is on a file system that others change", folder.display());
                blind = blind.or(Some(None));
            }
        }
        for gone in self.watched.keys().filter(|number| !watched.contains_key(number)) {
            notifier.remove(*gone);
        }
        self.watched = watched;
        if let Some(Some(why)) = &blind
            && !self.said
        {
            self.said = true;
            log::warn!(
                "cannot watch {why}; files are looked at every 10 s (see fs.inotify.max_user_watches)"
            );
        }
        blind.is_some()
    }

    /// Takes the events that there are; whether one of them matters.
    pub(super) fn take_events(&mut self) -> bool {
        let watched = &self.watched;
        let Some(notifier) = &mut self.notifier else { return false };
        let mut matters = false;
        notifier.take(&mut |number, name| {
            matters |= match name {
                // Of the folder itself; without a number events have been lost.
                None => number < 0 || watched.contains_key(&number),
                Some(name) => watched.get(&number).is_some_and(|names| names.contains(name)),
            };
        });
        matters
    }
}

/// The folders on the ways to these files.
fn names(paths: &[PathBuf]) -> Names {
    let mut names = Names::new();
    for path in paths {
        let steps = way::steps(path, &entry);
        let count = steps.len();
        for (n, step) in steps.into_iter().enumerate() {
            let (in_folder, has_files) = names.entry(step.folder).or_default();
            in_folder.insert(step.name);
            *has_files |= n + 1 == count;
        }
    }
    names
}

fn entry(path: &Path) -> Entry {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => Entry::Folder,
        Ok(found) if found.is_symlink() => fs::read_link(path).map_or(Entry::Other, Entry::Link),
        _ => Entry::Other,
    }
}
