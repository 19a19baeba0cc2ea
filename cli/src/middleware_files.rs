//! The files that middlewares read: once, when a configuration is read, so that nothing of it happens while
//! requests are served.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use ruststrom_core::Config;
use ruststrom_core::config::{Diagnostic, FileFault, Places, Severity};
use ruststrom_driver::auth;

/// Longest file. It is kept in memory.
const MAX_BYTES: u64 = 4 << 20;

/// Reads them into the configuration; `folder` is the configuration's. What cannot be read, or has what its
/// middleware cannot use, is reported wherever it is named.
pub(crate) fn read(
    text: &str,
    places: &Places,
    mut config: Option<&mut Config>,
    folder: &Path,
) -> Vec<Diagnostic> {
    let mut contents: BTreeMap<&str, io::Result<Arc<[u8]>>> = BTreeMap::new();
    for file in &places.middleware_files {
        contents.entry(&file.path).or_insert_with(|| read_one(&folder.join(&*file.path)));
    }
    let pools = config.iter_mut().flat_map(|config| &mut config.pools);
    for file in pools
        .flat_map(|pool| &mut Arc::make_mut(pool).middlewares)
        .flat_map(|middleware| middleware.files_mut())
    {
        if let Some(Ok(content)) = contents.get(&*file.path) {
            file.content = content.clone();
        }
    }
    let unread = places.middleware_files.iter().filter_map(|file| {
        let error = contents.get(&*file.path)?.as_ref().err()?;
        let message = format!("cannot read {}: {error}", folder.join(&*file.path).display());
        Some(Diagnostic::at(text, file.span.clone(), Severity::Error, message, "give the path of a file"))
    });
    let mut problems: Vec<Diagnostic> = unread.collect();
    let is_read = |path: &str| contents.get(path).is_some_and(Result::is_ok);
    for fault in config.iter().flat_map(|config| faults(config)).filter(|fault| is_read(&fault.path)) {
        for file in places.middleware_files.iter().filter(|file| file.path == fault.path) {
            let message = format!("{}: {}", folder.join(&*fault.path).display(), fault.message);
            let help = "correct the file, or give the path of another";
            problems.push(Diagnostic::at(text, file.span.clone(), Severity::Error, message, help));
        }
    }
    problems
}

/// What middlewares cannot use of the files that they have read.
fn faults(config: &Config) -> Vec<FileFault> {
    let middlewares = config.pools.iter().flat_map(|pool| &pool.middlewares);
    let mut faults: Vec<FileFault> = middlewares.flat_map(|middleware| middleware.file_faults()).collect();
    faults.extend(auth::file_faults(config));
    // Two middlewares may read the same file.
    let mut seen = Vec::new();
    faults.retain(|fault| {
        let new = !seen.contains(fault);
        seen.push(fault.clone());
        new
    });
    faults
}

fn read_one(path: &Path) -> io::Result<Arc<[u8]>> {
    // Opening a pipe could wait for ever.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut content = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_BYTES {
        let message = format!("it has more than {} MiB, and would be kept in memory", MAX_BYTES >> 20);
        return Err(io::Error::other(message));
    }
    Ok(content.into())
}
