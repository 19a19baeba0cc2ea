//! `rust-strom`: arguments here, configuration files in [`load`], what they say of this machine in
//! [`outside`], [`named_files`] and [`names`], accounts in [`privileges`], the daemon in [`serve`], its
//! logs in [`daemon_log`] and [`access_file`], its signals in [`signals`], other configurations for it in
//! [`reload`], certificates in [`cert`], requests explained in [`explain`], what packages are made with in
//! [`manual`], what containers are checked with in [`ready`], and the [`demo`]. What a service manager passes
//! and is told is in [`activation`] and [`notify`], the [`pid_file`] names the process; in an [`upgrade`] it
//! starts its successor, which knows it as its [`predecessor`], and what both say is in [`handover`].
//!
//! Exit codes: 0 all is well, 1 a bad configuration or a start that failed, 2 something was cut.
#![forbid(unsafe_code)]

mod access_file;
mod activation;
mod cert;
mod daemon_log;
mod demo;
mod explain;
mod handover;
mod load;
mod manual;
mod middleware_files;
mod named_files;
mod names;
mod notify;
mod output;
mod outside;
mod pid_file;
mod predecessor;
mod privileges;
mod ready;
mod reload;
mod serve;
mod signals;
mod state_transfer;
mod upgrade;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use predecessor::Predecessor;
use ruststrom_core::config;
use ruststrom_driver::watch::Contents;

/// A load balancer for HTTP: one file, one process.
#[derive(Debug, Parser)]
#[command(
    name = "rust-strom",
    version,
    after_help = "RUST_LOG sets the level of the log: error, warn, info, debug, trace, or module=level."
)]
struct Arguments {
    /// The configuration (TOML).
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Check the configuration, say everything that is wrong with it, and exit.
    #[arg(long, requires = "config")]
    check: bool,
    /// Worker threads, whatever the configuration says [default: one for each core].
    #[arg(long, value_name = "N", global = true, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// What the workers run on, whatever the configuration says.
    #[arg(long, value_enum, value_name = "DRIVER", global = true)]
    driver: Option<Driver>,
    /// Write the id of the process that serves into this file.
    #[arg(long, value_name = "FILE", requires = "config")]
    pid_file: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Driver {
    /// One event loop for each worker.
    Mio,
    /// smol's reactor, an executor for each worker.
    Smol,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Three backends and a proxy in one process, ready to curl.
    Demo {
        /// Over TLS too, with a certificate that is made for this run.
        #[arg(long)]
        tls: bool,
    },
    /// The certificates of a configuration.
    Cert {
        #[command(subcommand)]
        command: CertCommand,
    },
    /// What would become of a request, and why: pool, middlewares, backend.
    Explain(explain::ExplainArguments),
    /// Whether the daemon of this configuration is ready: asks its admin listener.
    Ready,
    /// Print the completions of a shell.
    #[command(hide = true)]
    Completions {
        /// Whose.
        shell: clap_complete::Shell,
    },
    /// Print the manual page, for man(1).
    #[command(hide = true)]
    Man,
}

#[derive(Debug, Subcommand)]
enum CertCommand {
    /// A table: names, source, issuer, end, next renewal, last error.
    Status,
    /// Order a certificate of ACME now, whether it is time or not.
    Renew {
        /// The name of its table in the configuration.
        name: String,
    },
}

/// A bad configuration, or a start that failed.
const FAILED: u8 = 1;
/// Something was cut.
const FORCED: u8 = 2;

fn main() -> ExitCode {
    let done = match Arguments::try_parse() {
        Ok(arguments) => run(arguments),
        Err(e) => {
            // Help and version come this way too.
            let printed = e.print();
            if e.kind() == ErrorKind::InvalidSubcommand {
                output::print_error("A configuration is served with: rust-strom --config FILE");
            }
            if e.use_stderr() {
                return ExitCode::from(FAILED);
            }
            printed.or_else(|e| output::unless_gone(&e)).map(|()| ExitCode::SUCCESS)
        }
    };
    match done {
        Ok(code) => code,
        Err(why) => {
            output::print_error(&format!("rust-strom: {why}"));
            ExitCode::from(FAILED)
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode, String> {
    let driver = arguments.driver.map(|d| match d {
        Driver::Mio => config::Driver::Mio,
        Driver::Smol => config::Driver::Smol,
    });
    match (arguments.command, arguments.config) {
        (Some(Command::Demo { tls }), None) => demo::run(tls, arguments.workers, driver),
        (Some(Command::Demo { .. }), Some(_)) => {
            Err("the demo has its own configuration; leave --config out".into())
        }
        (Some(Command::Cert { command }), Some(file)) => match command {
            CertCommand::Status => cert::status(&file),
            CertCommand::Renew { name } => cert::renew(&name, &file),
        },
        (Some(Command::Cert { .. }), None) => {
            Err("whose certificates? use --config FILE with this command".into())
        }
        (Some(Command::Explain(arguments)), Some(file)) => explain::run(&arguments, &file),
        (Some(Command::Explain(_)), None) => {
            Err("by which configuration? use --config FILE with this command".into())
        }
        (Some(Command::Ready), Some(file)) => ready::run(&file),
        (Some(Command::Ready), None) => Err("which daemon? use --config FILE with this command".into()),
        (Some(Command::Completions { shell }), _) => manual::completions(shell, Arguments::command()),
        (Some(Command::Man), _) => manual::page(Arguments::command()),
        (None, None) => Err("no configuration was given; use --config FILE, or try: rust-strom demo".into()),
        (None, Some(file)) => {
            let folder = file.parent().map(PathBuf::from).unwrap_or_default();
            let name = file.display().to_string();
            if arguments.check {
                return check(&name, &load::read(&file)?, &folder);
            }
            let signals = signals::hold()?;
            let mut predecessor = Predecessor::from_environment()?;
            // Before it is read: if it changes meanwhile, it will be read again.
            let mut contents = Contents::default();
            contents.add(&file);
            let loaded =
                load::read(&file).and_then(|text| load::load(&name, &text, &folder, None, &mut contents));
            let served = loaded.and_then(|loaded| {
                contents.settle();
                let start = serve::Start {
                    loaded,
                    file: Some((file, contents)),
                    folder,
                    workers: arguments.workers,
                    driver,
                    pid_file: arguments.pid_file,
                    signals,
                    predecessor: predecessor.as_mut(),
                };
                serve::serve(start, |_| ())
            });
            if let (Err(why), Some(predecessor)) = (&served, &predecessor) {
                predecessor.refuse(why);
            }
            served
        }
    }
}

/// Prints everything there is to say about a file.
fn check(name: &str, text: &str, folder: &Path) -> Result<ExitCode, String> {
    let checked = load::check(name, text, folder);
    let verdict = if checked.accepted { format!("{name}: good\n") } else { String::new() };
    output::print(&(checked.report + &verdict))?;
    Ok(if checked.accepted { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}
