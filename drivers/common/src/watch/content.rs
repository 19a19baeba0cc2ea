//! What files had in them, so that it can be told whether they have something else in them now.

use std::collections::BTreeMap;
use std::fs::{Metadata, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// What is behind so many bytes of a file is not looked at: whoever loads it takes no more.
const MAX_BYTES: u64 = (16 << 20) + 1;

/// Files, and what they had in them.
///
/// They are added before they are loaded; when that is done, [`Contents::settle`] finds out whether one was
/// changed meanwhile.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    files: BTreeMap<PathBuf, Found>,
    /// Some file was changed while it was loaded: nobody knows what of it was.
    unsure: bool,
}

/// What was found at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Found {
    content: Content,
    /// `None`: it could not even be seen.
    stamp: Option<Stamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Content {
    /// A hash of it.
    Bytes(u64),
    Missing,
    /// A pipe, a device, a folder: what is read there is not there any more, or never was.
    NoFile,
    /// It may not be read by this process any more, or cannot.
    Unreadable,
}

/// Changes whenever a file does, and sometimes when it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Stamp {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Contents {
    /// Adds a file, if it is not there yet: to be called before it is loaded.
    pub fn add(&mut self, path: &Path) {
        if !self.files.contains_key(path) {
            self.files.insert(path.to_owned(), Found::at(path));
        }
    }

    /// All have been loaded.
    pub fn settle(&mut self) {
        self.unsure |= self.files.iter().any(|(path, found)| found.stamp != Stamp::at(path));
    }

    /// The paths of the files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.keys().map(|path| &**path)
    }

    /// If they have something else in them now: a hash of it.
    #[must_use]
    pub fn difference(&self) -> Option<u64> {
        let mut hasher = DefaultHasher::new();
        let mut differs = self.unsure;
        for (path, before) in &self.files {
            let now = Found::at(path);
            differs |= !before.is_same(&now);
            now.hash(&mut hasher);
        }
        differs.then(|| hasher.finish())
    }
}

impl Found {
    fn at(path: &Path) -> Self {
        // The stamp comes first: a change between the two shows later.
        let stamp = Stamp::at(path);
        let content = match read(path) {
            Ok(content) => content,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Content::Missing
            }
            Err(_) => Content::Unreadable,
        };
        Self { content, stamp }
    }

    fn is_same(&self, now: &Self) -> bool {
        match now.content {
            // Rights may have been given up since it was loaded; it can be seen then whether it was changed.
            Content::Unreadable => now.stamp.is_none() || now.stamp == self.stamp,
            content => content == self.content,
        }
    }
}

fn read(path: &Path) -> io::Result<Content> {
    // Opening a pipe would wait for its writer.
    if !std::fs::metadata(path)?.is_file() {
        return Ok(Content::NoFile);
    }
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path)?.take(MAX_BYTES);
    let mut hasher = DefaultHasher::new();
    let mut buffer = [0; 16 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Content::Bytes(hasher.finish())),
            Ok(n) => hasher.write(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

impl Stamp {
    fn at(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|metadata| Self::of(&metadata))
    }

    fn of(m: &Metadata) -> Self {
        Self {
            device: m.dev(),
            inode: m.ino(),
            len: m.len(),
            modified: (m.mtime(), m.mtime_nsec()),
            changed: (m.ctime(), m.ctime_nsec()),
        }
    }
}
