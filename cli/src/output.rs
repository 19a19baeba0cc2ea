//! Standard output and standard error, which may be closed, full or without a reader.

use std::io::{self, ErrorKind, Write};

/// Writes to standard output.
///
/// # Errors
/// A message if the text could not be written. A reader that has gone has had what it wanted: that is none.
pub(crate) fn print(text: &str) -> Result<(), String> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).or_else(|e| unless_gone(&e))
}

/// Writes a line to standard error. If that fails nobody can be told.
pub(crate) fn print_error(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// The error of a failed write to standard output, unless its reader has gone.
pub(crate) fn unless_gone(error: &io::Error) -> Result<(), String> {
    match error.kind() {
        ErrorKind::BrokenPipe => Ok(()),
        _ => Err(format!("cannot write to standard output: {error}")),
    }
}
