//! Events of folders by inotify(7).

use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};

/// Room for some hundred events.
const BUFFER: usize = 16 << 10;

pub(super) struct Notifier {
    events: OwnedFd,
    buffer: Box<[MaybeUninit<u8>]>,
}

impl Notifier {
    pub(super) fn new() -> io::Result<Self> {
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self { events, buffer: vec![MaybeUninit::uninit(); BUFFER].into_boxed_slice() })
    }

    /// Readable when there are events.
    pub(super) fn events(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Watches a folder, also for what is written to files in it if it `has_files` that matter; its number.
    pub(super) fn add(&self, folder: &Path, has_files: bool) -> io::Result<i32> {
        let mut flags = WatchFlags::ONLYDIR
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVE
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF;
        if has_files {
            flags |= WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE;
        }
        Ok(inotify::add_watch(&self.events, folder, flags)?)
    }

    /// A folder that matters no longer. It may be gone.
    pub(super) fn remove(&self, number: i32) {
        let _ = inotify::remove_watch(&self.events, number);
    }

    /// Takes all events: the number of the folder, and the name in it, if it is not of the folder itself.
    pub(super) fn take(&mut self, each: &mut dyn FnMut(i32, Option<&OsStr>)) {
        let mut reader = Reader::new(&self.events, &mut self.buffer);
        // It ends when there are no more.
        while let Ok(event) = reader.next() {
            each(event.wd(), event.file_name().map(|name| OsStr::from_bytes(name.to_bytes())));
        }
    }
}

/// Whether a folder is on a file system that other machines change, or what runs beside the kernel.
pub(super) fn is_remote(folder: &Path) -> bool {
    // statfs(2), linux/magic.h: NFS, SMB, CIFS, SMB2, FUSE, 9P, Ceph, AFS, Coda, Lustre, GFS2, OCFS2, vboxsf.
    const REMOTE: [u32; 13] = [
        0x6969,
        0x517b,
        0xff53_4d42,
        0xfe53_4d42,
        0x6573_5546,
        0x0102_1997,
        0x00c3_6400,
        0x5346_414f,
        0x7375_7245,
        0x0bd0_0bd0,
        0x0116_1970,
        0x7461_636f,
        0x786f_4256,
    ];
    // The word is signed and wide on some machines.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the number has 32 bits")]
    rustix::fs::statfs(folder).is_ok_and(|found| REMOTE.contains(&(found.f_type as u32)))
}
