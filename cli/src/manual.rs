//! What packages have beside the binary, made of its arguments: completions of shells, and the manual page.

use std::process::ExitCode;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::output;

/// Prints the script that a shell reads.
///
/// # Errors
/// A message, if it could not be written.
pub(crate) fn completions(shell: Shell, mut command: Command) -> Result<ExitCode, String> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "rust-strom", &mut script);
    print(&script)
}

/// Prints the manual page.
///
/// # Errors
/// A message, if it could not be written.
pub(crate) fn page(command: Command) -> Result<ExitCode, String> {
    let mut page = Vec::new();
    let rendered = Man::new(command).section("8").render(&mut page);
    rendered.map_err(|e| format!("cannot make the page: {e}"))?;
    print(&page)
}

fn print(text: &[u8]) -> Result<ExitCode, String> {
    output::print(&String::from_utf8_lossy(text))?;
    Ok(ExitCode::SUCCESS)
}
