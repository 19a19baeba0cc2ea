//! What packages have beside the binary, made of its arguments: completions of shells, and the manual page.

use std::io;
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

/// What is no argument.
const REST: &str = r#".SH SIGNALS
.TP
TERM, QUIT, INT
A graceful stop: nothing new is taken, what runs is finished. INT again cuts what runs.
.TP
HUP
The configuration is read again; if anything is wrong, what was served is served on.
.TP
USR1
The file of the access log is opened anew.
.TP
USR2
The program as its file is now takes the place of this process, without a failed request.
.SH EXIT STATUS
.TP
0
All is well.
.TP
1
The configuration or an argument is invalid, or the start has failed.
.TP
2
Exchanges were cut off at the end of a stop.
.SH FILES
.TP
/etc/rust\-strom/config.toml
The configuration of the service.
"#;

/// Prints the manual page.
///
/// # Errors
/// A message, if it could not be written.
pub(crate) fn page(command: Command) -> Result<ExitCode, String> {
    let mut page = Vec::new();
    render(command, &mut page).map_err(|e| format!("cannot make the page: {e}"))?;
    print(&page)
}

/// One page for all commands: clap would refer to others, which nobody installs.
fn render(mut command: Command, page: &mut Vec<u8>) -> io::Result<()> {
    // Now its commands know how they are called.
    command.build();
    let man = Man::new(command.clone()).section("8");
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    page.extend(b".SH COMMANDS\n");
    render_commands(&command, page)?;
    man.render_extra_section(page)?;
    page.extend(REST.as_bytes());
    Ok(())
}

fn render_commands(of: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    let visible = of.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help");
    for command in visible {
        if command.has_subcommands() {
            render_commands(command, page)?;
            continue;
        }
        // What all commands have is described above. The demo has its own configuration.
        let hidden = |id: &str| match id {
            "workers" | "driver" | "help" => true,
            "config" => command.get_name() == "demo",
            _ => false,
        };
        let own = command.clone().mut_args(|a| {
            let is_hidden = hidden(a.get_id().as_str());
            a.hide(is_hidden)
        });
        let name = command.get_bin_name().unwrap_or(command.get_name()).replace('-', "\\-");
        page.extend(format!(".SS {name}\n").bytes());
        let man = Man::new(own);
        let mut sections = Vec::new();
        man.render_description_section(&mut sections)?;
        man.render_options_section(&mut sections)?;
        let lines = String::from_utf8_lossy(&sections);
        let lines = lines.lines().map(|line| if line.starts_with(".SH ") { ".PP" } else { line });
        lines.for_each(|line| page.extend(line.bytes().chain([b'\n'])));
    }
    Ok(())
}

fn print(text: &[u8]) -> Result<ExitCode, String> {
    output::print(&String::from_utf8_lossy(text))?;
    Ok(ExitCode::SUCCESS)
}
