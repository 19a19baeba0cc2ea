//! The daemon's log, on standard output.

use ruststrom_core::config::LogFormat;
use ruststrom_driver::log_writer::{LogTarget, LogWriter};
use ruststrom_driver::logger;

/// Starts it, at the levels that `RUST_LOG` says.
///
/// # Errors
/// A message, if `RUST_LOG` has a bad value or the log's thread cannot be started.
pub(crate) fn start(format: LogFormat) -> Result<LogWriter, String> {
    let stdout =
        LogWriter::open(&LogTarget::Stdout).map_err(|e| format!("cannot start the log's thread: {e}"))?;
    let levels = std::env::var_os("RUST_LOG").unwrap_or_default();
    logger::install(logger::levels(&levels.to_string_lossy())?, format, &stdout);
    Ok(stdout)
}
