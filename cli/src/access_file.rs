//! The access log as a configuration wants it: its file, and who writes it.

use std::fs::File;
use std::path::{Path, PathBuf};

use ruststrom_core::Config;
use ruststrom_driver::access_target::{AccessTarget, SharedAccessTarget};
use ruststrom_driver::log_writer::{self, LogWriter};

use crate::outside;

/// A file that is open, and its path.
pub(crate) type Opened = Option<(File, PathBuf)>;

/// What a reload does with the access log.
pub(crate) enum Change {
    /// The same lines to the same place, perhaps in another format.
    Format,
    /// Other lines, or another place.
    Target(Opened),
}

/// Opens the access log's file; `None` if there is none. `lent` has one that is open at a path where none can
/// be opened.
///
/// # Errors
/// A message, if it cannot be opened.
pub(crate) fn open(
    config: &Config,
    folder: &Path,
    lent: impl FnOnce(&Path) -> Option<File>,
) -> Result<Opened, String> {
    let Some(path) = outside::access_log_path(config, folder) else { return Ok(None) };
    match log_writer::open_file(&path).or_else(|e| lent(&path).ok_or(e)) {
        Ok(file) => Ok(Some((file, path))),
        Err(e) => Err(format!("{}; choose another access_log.path", outside::access_log_error(&path, &e))),
    }
}

/// What another configuration does with the access log of the one before it. A file that is new is opened.
///
/// # Errors
/// A message, if it cannot be opened.
pub(crate) fn change(before: &Config, after: &Config, folder: &Path) -> Result<Change, String> {
    let place = |config: &Config| (config.access_log.enabled, outside::access_log_path(config, folder));
    if place(before) == place(after) {
        return Ok(Change::Format);
    }
    let opened = open(after, folder, |_| None);
    // Nobody is root any more.
    let as_user = |e| match &after.user {
        Some(user) if rustix::process::geteuid().as_raw() != 0 => {
            format!("{e} (it is opened as user {user})")
        }
        _ => e,
    };
    opened.map(Change::Target).map_err(as_user)
}

/// Where access lines go; `None` if there are to be none.
///
/// # Errors
/// A message, if the thread that writes to the file cannot be started.
pub(crate) fn target(
    config: &Config,
    opened: Opened,
    stdout: &LogWriter,
) -> Result<Option<AccessTarget>, String> {
    if !config.access_log.enabled {
        return Ok(None);
    }
    let own_file = opened.is_some();
    let writer = match opened {
        None => stdout.clone(),
        Some((file, path)) => LogWriter::with_file(path, file)
            .map_err(|e| format!("cannot start the access log's thread: {e}"))?,
    };
    Ok(Some(AccessTarget { format: config.access_log.format, writer, own_file }))
}

/// The target after a reload, in the place of the `current` one.
///
/// # Errors
/// A message, as [`target`] has it.
pub(crate) fn changed(
    change: Change,
    config: &Config,
    current: &SharedAccessTarget,
    stdout: &LogWriter,
) -> Result<Option<AccessTarget>, String> {
    match change {
        Change::Format => {
            Ok(current.get().map(|target| AccessTarget { format: config.access_log.format, ..target }))
        }
        Change::Target(opened) => target(config, opened, stdout),
    }
}
