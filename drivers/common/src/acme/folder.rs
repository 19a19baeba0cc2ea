//! A folder that keeps an account, certificates and what is known of orders. Several processes may use it at
//! a time, on several machines.
//!
//! Files are for their owner alone (0600, in a folder of 0700). A file is written beside its place, synced,
//! and then renamed, and then the folder is synced: after a kill or a power cut at any moment there is the
//! old one or the new one. Whoever writes holds the lock of the folder meanwhile, which the kernel takes back
//! from a process that dies.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use super::digest::fingerprint;

/// Longest file; a longer one is none of ours.
const MAX_BYTES: u64 = 4 << 20;
/// Behind the name of a file that is being written.
const UNFINISHED: &str = ".new";
const LOCK: &str = "lock";
/// The lock is held for single writes: one that is not free for so long belongs to a machine in trouble.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// The name of a file: what it is for, and of what kind it is. File systems take 255 bytes; a longer name is
/// cut, and told from others by a digest.
pub(super) fn name_of(what: &str, kind: &str) -> String {
    const LONGEST: usize = 220;
    match what.get(..LONGEST - 66) {
        Some(start) if what.len() > LONGEST => format!("{start}--{}{kind}", fingerprint(what.as_bytes())),
        _ => format!("{what}{kind}"),
    }
}

/// A folder.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Folder(PathBuf);

/// The folder's lock, held until it is dropped.
pub(super) struct Locked<'f> {
    folder: &'f Folder,
    _lock: File,
}

/// What tells one version of a file from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    inode: u64,
    bytes: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl Folder {
    /// The folder at a path, whether there is one or not.
    pub(super) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Makes the folder if there is none, for `owner` (user and group) if one is given. The folders above it
    /// are made as usual; one that is there already is left as it is.
    ///
    /// # Errors
    /// If it cannot be made, or there is something else in its place.
    pub(super) fn make(&self, owner: Option<(u32, u32)>) -> io::Result<()> {
        if let Some(above) = self.0.parent().filter(|above| !above.as_os_str().is_empty()) {
            std::fs::create_dir_all(above)?;
        }
        match DirBuilder::new().mode(0o700).create(&self.0) {
            Ok(()) => match owner {
                Some((user, group)) => std::os::unix::fs::chown(&self.0, Some(user), Some(group)),
                None => Ok(()),
            },
            Err(e) if e.kind() == ErrorKind::AlreadyExists => match std::fs::metadata(&self.0)?.is_dir() {
                true => Ok(()),
                false => Err(io::Error::new(ErrorKind::NotADirectory, "it is not a folder")),
            },
            Err(e) => Err(e),
        }
    }

    /// Whether others than the owner can put files here.
    pub(super) fn is_open_to_others(&self) -> bool {
        std::fs::metadata(&self.0).is_ok_and(|found| found.permissions().mode() & 0o022 != 0)
    }

    /// The content of a file; `None` if there is no such file, or no folder.
    ///
    /// # Errors
    /// If it cannot be read or is too long.
    pub(super) fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        // Opening a pipe that somebody has put here would wait for ever.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(self.0.join(name)) {
            Ok(file) => file,
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        match bytes.len() as u64 > MAX_BYTES {
            true => {
                Err(io::Error::new(ErrorKind::InvalidData, format!("it has more than {MAX_BYTES} bytes")))
            }
            false => Ok(Some(bytes)),
        }
    }

    /// Which version of a file there is; `None` if there is none, or it cannot be seen.
    pub(super) fn version(&self, name: &str) -> Option<Version> {
        let found = std::fs::metadata(self.0.join(name)).ok()?;
        Some(Version {
            inode: found.ino(),
            bytes: found.len(),
            seconds: found.mtime(),
            nanoseconds: found.mtime_nsec(),
        })
    }

    /// Takes the lock, which makes the folder if there is none. What a killed process was writing is
    /// removed.
    ///
    /// # Errors
    /// If the lock cannot be made, or is not free for five seconds.
    pub(super) fn lock(&self) -> io::Result<Locked<'_>> {
        self.make(None)?;
        let path = self.0.join(LOCK);
        let mut options = OpenOptions::new();
        let lock = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let begun = Instant::now();
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::AGAIN) if begun.elapsed() < LOCK_WAIT => std::thread::sleep(LOCK_RETRY),
                Err(Errno::AGAIN) => {
                    let text = format!("{LOCK} in it is held by another process");
                    return Err(io::Error::new(ErrorKind::TimedOut, text));
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        let locked = Locked { folder: self, _lock: lock };
        locked.remove_unfinished()?;
        Ok(locked)
    }
}

impl Locked<'_> {
    /// The folder that is locked.
    pub(super) fn folder(&self) -> &Folder {
        self.folder
    }

    /// Writes a file, in the place of one that may be there.
    ///
    /// # Errors
    /// If it cannot be written: then there is what there was before.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let unfinished = self.folder.0.join(format!("{name}{UNFINISHED}"));
        let written = write_new(&unfinished, bytes)
            .and_then(|()| std::fs::rename(&unfinished, self.folder.0.join(name)))
            .and_then(|()| self.sync());
        if written.is_err() {
            // A full disk should not keep half a file.
            let _ = std::fs::remove_file(&unfinished);
        }
        written
    }

    /// Removes a file, if there is one.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        match std::fs::remove_file(self.folder.0.join(name)) {
            Ok(()) => self.sync(),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.folder.0)?.sync_all()
    }

    fn remove_unfinished(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.folder.0)? {
            let name = entry?.file_name();
            if name.to_str().is_some_and(|name| name.ends_with(UNFINISHED)) {
                let _ = std::fs::remove_file(self.folder.0.join(name));
            }
        }
        Ok(())
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acme::test_folder::TestFolder;

    fn names(folder: &Folder) -> Vec<String> {
        let entries = std::fs::read_dir(folder.path()).expect("a folder");
        let mut names: Vec<_> =
            entries.map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        names
    }

    #[test]
    fn files_are_their_owners_and_replaced_whole() {
        let test = TestFolder::new();
        let folder = Folder::at(test.path().join("above/acme"));
        assert_eq!(folder.read("a").expect("readable"), None, "there is no folder yet");
        let locked = folder.lock().expect("a lock");
        for text in ["one", "and two", ""] {
            locked.write("a", text.as_bytes()).expect("written");
            assert_eq!(folder.read("a").expect("readable").as_deref(), Some(text.as_bytes()));
        }
        let mode = |name: &str| {
            std::fs::metadata(folder.path().join(name)).expect("there").permissions().mode() & 0o7777
        };
        assert_eq!((mode(""), mode("a"), mode("lock")), (0o700, 0o600, 0o600));
        assert!(!folder.is_open_to_others());
        locked.remove("a").expect("removed");
        locked.remove("a").expect("it was not there");
        assert_eq!(names(&folder), ["lock"]);
    }

    #[test]
    fn names_fit_into_file_systems() {
        assert_eq!(name_of("a.example", ".pem"), "a.example.pem");
        let longest = "x.".repeat(126) + "x";
        let (one, other) =
            (name_of(&longest, ".order.json"), name_of(&(longest.clone() + "y"), ".order.json"));
        assert!(one.len() + UNFINISHED.len() <= 255 && one != other, "{one}");
        assert!(one.starts_with("x.x.") && one.ends_with(".order.json"), "{one}");
    }

    #[test]
    fn what_a_killed_process_was_writing_goes() {
        let test = TestFolder::new();
        let folder = Folder::at(test.path().join("acme"));
        folder.lock().expect("a lock").write("a", b"old").expect("written");
        std::fs::write(folder.path().join("a.new"), "ne").expect("written");
        assert_eq!(folder.read("a").expect("readable").as_deref(), Some(&b"old"[..]));
        folder.lock().expect("a lock").write("b", b"b").expect("written");
        assert_eq!(names(&folder), ["a", "b", "lock"]);
    }

    #[test]
    fn a_version_changes_with_its_file() {
        let test = TestFolder::new();
        let folder = Folder::at(test.path().join("acme"));
        assert_eq!(folder.version("a"), None);
        let locked = folder.lock().expect("a lock");
        locked.write("a", b"1").expect("written");
        let first = folder.version("a");
        assert!(first.is_some() && first == folder.version("a"));
        locked.write("a", b"2").expect("written");
        assert_ne!(folder.version("a"), first, "another inode at least");
    }

    #[test]
    fn only_one_at_a_time_writes() {
        let test = TestFolder::new();
        let folder = Folder::at(test.path().join("acme"));
        let held = folder.lock().expect("a lock");
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let locked = folder.lock().expect("a lock");
                sender.send(folder.read("a").expect("readable")).expect("received");
                drop(locked);
            });
            std::thread::sleep(Duration::from_millis(50));
            assert!(receiver.try_recv().is_err(), "it has to wait");
            held.write("a", b"first").expect("written");
            drop(held);
            assert_eq!(receiver.recv().expect("sent").as_deref(), Some(&b"first"[..]));
        });
    }

    #[test]
    fn what_is_not_a_folder_is_an_error() {
        let test = TestFolder::new();
        std::fs::write(test.path().join("file"), "").expect("written");
        let folder = Folder::at(test.path().join("file"));
        assert_eq!(folder.make(None).expect_err("a file").kind(), ErrorKind::NotADirectory);
        assert!(folder.lock().is_err());
        std::fs::create_dir(test.path().join("folder")).expect("made");
        let folder = Folder::at(test.path().to_owned());
        assert!(folder.read("folder").is_err(), "a folder in the place of a file");
    }
}
