//! Files that middlewares read.

use std::fmt;
use std::sync::Arc;

/// A file that a middleware reads.
#[derive(Clone, PartialEq, Eq)]
pub struct FileRef {
    /// Its path, relative to the configuration's folder.
    pub path: Box<str>,
    /// Its content. Empty as parsed, since the core opens no file: the driver fills it in.
    pub content: Arc<[u8]>,
}

impl FileRef {
    /// The media type of the content, as the path's extension says; `None`: it says nothing.
    #[must_use]
    pub fn media_type(&self) -> Option<&'static str> {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase())?;
        // The encoding of other texts is for the content itself to say, where it can.
        let utf8 = std::str::from_utf8(&self.content).is_ok();
        Some(match (&*extension, utf8) {
            ("html" | "htm", true) => "text/html; charset=utf-8",
            ("html" | "htm", false) => "text/html",
            ("txt", true) => "text/plain; charset=utf-8",
            ("txt", false) => "text/plain",
            ("json", _) => "application/json",
            _ => return None,
        })
    }
}

impl fmt::Debug for FileRef {
    /// Without the content, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({} bytes)", self.path, self.content.len())
    }
}

/// What is wrong with the content of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFault {
    /// Its path, as in [`FileRef::path`].
    pub path: Box<str>,
    /// What is wrong, as the end of a sentence that begins with the file's path.
    pub message: String,
}

impl FileFault {
    /// A fault of this file.
    #[must_use]
    pub fn new(file: &FileRef, message: impl Into<String>) -> Self {
        Self { path: file.path.clone(), message: message.into() }
    }
}
