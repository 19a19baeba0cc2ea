//! The file with the id of the process that serves.

use std::fs;
use std::io;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

/// The file. It is removed at the end, unless another process has taken its place.
pub(crate) struct PidFile(PathBuf);

impl PidFile {
    /// Puts this process's id into the file. It belongs to `owner` from then on, who may then replace what is
    /// in it even where no file can be made.
    ///
    /// # Errors
    /// A message if it cannot be written.
    pub(crate) fn write(path: &Path, owner: Option<(u32, u32)>) -> Result<Self, String> {
        put(path, owner)?;
        Ok(Self(path.to_owned()))
    }
}

/// Puts this process's id into a file that was its own, if there is another one in it now.
///
/// # Errors
/// A message if it cannot be written.
pub(crate) fn take_back(path: &Path) -> Result<(), String> {
    if is_ours(path) { Ok(()) } else { put(path, None) }
}

fn is_ours(path: &Path) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.trim() == std::process::id().to_string())
}

/// Whoever reads the file meanwhile sees one id or the other.
fn put(path: &Path, owner: Option<(u32, u32)>) -> Result<(), String> {
    let text = format!("{}\n", std::process::id());
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let replaced = fs::write(&new, &text)
        .and_then(|()| owner.map_or(Ok(()), |(uid, gid)| chown(&new, Some(uid), Some(gid))))
        .and_then(|()| fs::rename(&new, path));
    let written = replaced.or_else(|e| {
        let _ = fs::remove_file(&new);
        if e.kind() == io::ErrorKind::PermissionDenied { fs::write(path, &text) } else { Err(e) }
    });
    written
        .map_err(|e| format!("cannot write the PID file {}: {e}; choose another --pid-file", path.display()))
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Where it cannot be removed it names nobody.
        if is_ours(&self.0) && fs::remove_file(&self.0).is_err() && fs::write(&self.0, "").is_err() {
            log::warn!("cannot remove the PID file {}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_replaced_and_removed_by_whom_it_names() {
        let folder = std::env::temp_dir().join(format!("rust-strom-pid-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("pid");
        let ours = format!("{}\n", std::process::id());
        fs::write(&path, "1\n").expect("a file");
        let file = PidFile::write(&path, None).expect("written");
        assert_eq!(fs::read_to_string(&path).expect("there"), ours);
        drop(file);
        assert!(!path.exists());
        let file = PidFile::write(&path, None).expect("written");
        fs::write(&path, "1\n").expect("another process's");
        take_back(&path).expect("written");
        assert_eq!(fs::read_to_string(&path).expect("there"), ours);
        fs::write(&path, "1\n").expect("another process's");
        drop(file);
        assert_eq!(fs::read_to_string(&path).expect("there"), "1\n");
        assert!(PidFile::write(&folder.join("missing/pid"), None).is_err_and(|e| e.contains("--pid-file")));
        fs::remove_dir_all(&folder).expect("a folder");
    }
}
