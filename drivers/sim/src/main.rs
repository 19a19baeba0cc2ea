//! Sweeps over many seeds, replays of one, and the check that planted bugs are found. The exit code is 0 only
//! if no run violated an invariant.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use rustix::time::{ClockId, clock_gettime};
use ruststrom_sim::{Coverage, RunReport, Scenario, planted, run, run_twice};

/// How many of the last lines of a failed run's trace are printed.
const TRACE_LINES: usize = 60;
/// A sweep over at least so many seeds fails if anything of the coverage table never happened.
const COVERAGE_FROM: u64 = 1000;

/// Runs RustStrom in a simulated network with faults.
///
/// Without --seed or --planted it sweeps over seeds, each run twice. A failure is one line, `SEED EVENTS
/// INVARIANT: DETAILS`; the seed runs it again.
#[derive(Debug, Parser)]
#[command(name = "ruststrom-sim")]
struct Args {
    /// How many seeds a sweep runs.
    #[arg(long, value_name = "N", default_value = "1000", value_parser = number)]
    seeds: u64,
    /// The first seed of a sweep; with --planted, the first bug.
    #[arg(long, value_name = "SEED", default_value = "1", value_parser = number)]
    from: u64,
    /// Run this one seed, and print its scenario and the end of its trace.
    #[arg(long, value_name = "SEED", value_parser = number)]
    seed: Option<u64>,
    /// With --seed: print the whole trace.
    #[arg(long)]
    trace: bool,
    /// Go on after a failure.
    #[arg(long)]
    keep_going: bool,
    /// Run each seed once instead of twice.
    #[arg(long)]
    once: bool,
    /// Show that every planted bug is found (needs the feature `planted`).
    #[arg(long)]
    planted: bool,
}

/// Prints a line. If nobody can read it there is nothing to go on for: the process ends as after a failure.
macro_rules! say {
    ($($text:tt)*) => {
        if writeln!(std::io::stdout(), $($text)*).is_err() {
            std::process::exit(1);
        }
    };
}

/// A decimal number, or a hexadecimal one after `0x`.
fn number(text: &str) -> Result<u64, std::num::ParseIntError> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let clean = match args.seed {
        _ if args.planted => planted::check(args.from, &mut |line| say!("{line}")),
        Some(seed) => replay(seed, args.trace),
        None => sweep(&args),
    };
    if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints the line of a failure.
fn print_failure(report: &RunReport) {
    if let Some(violation) = &report.violation {
        say!("{:#018x} {} {violation}", report.seed, report.events);
    }
}

/// Runs a seed and prints everything about it. True if the run was clean.
fn replay(seed: u64, whole_trace: bool) -> bool {
    say!("{:#?}", Scenario::new(seed));
    let report = run(seed, true);
    let skip = if whole_trace { 0 } else { report.trace.len().saturating_sub(TRACE_LINES) };
    for line in &report.trace[skip..] {
        say!("{line}");
    }
    print_failure(&report);
    let again = run_twice(seed);
    if again.violation != report.violation {
        print_failure(&again);
    }
    if again.violation.is_none() {
        say!(
            "{seed:#018x} clean: {} events, {} exchanges, hash {:016x}",
            again.events,
            again.exchanges(),
            again.hash
        );
    }
    report.violation.is_none() && again.violation.is_none()
}

/// User and system time of this process since its start.
fn cpu_seconds() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

/// What a sweep has counted so far.
#[derive(Default)]
struct Totals {
    coverage: Coverage,
    seeds: u64,
    failures: u64,
    runs: u64,
    events: u64,
    exchanges: u64,
    /// Over all runs, so that a change that must not change any run can be compared with the version before.
    hash: u64,
}

impl Totals {
    fn add(&mut self, report: &RunReport, once: bool) {
        // The second run of a seed is like the first, or it is a failure.
        let times = if once || report.violation.is_some() { 1 } else { 2 };
        self.coverage.add(&report.coverage);
        self.seeds += 1;
        self.failures += u64::from(report.violation.is_some());
        self.runs += times;
        self.events += report.events * times;
        self.exchanges += report.exchanges() * times;
        self.hash = self.hash.rotate_left(1) ^ report.hash;
    }
}

/// Runs many seeds, and prints the coverage and how fast that was: complete responses of all runs by the CPU
/// time of the whole process. True if all runs were clean and nothing is missing from the coverage.
fn sweep(args: &Args) -> bool {
    let mut totals = Totals::default();
    let started = Instant::now();
    let shows_progress = std::io::stderr().is_terminal();
    let mut shown = Instant::now();
    for seed in args.from..args.from.saturating_add(args.seeds) {
        let report = if args.once { run(seed, false) } else { run_twice(seed) };
        totals.add(&report, args.once);
        if report.violation.is_some() {
            print_failure(&report);
            if !args.keep_going {
                replay(seed, false);
                break;
            }
        }
        if shows_progress && shown.elapsed() > Duration::from_millis(200) {
            shown = Instant::now();
            let width = (totals.seeds * 40 / args.seeds.max(1)) as usize;
            let bar = "#".repeat(width);
            let Totals { seeds, failures, .. } = totals;
            // The terminal may have gone; the sweep's result is printed elsewhere.
            let mut terminal = std::io::stderr();
            let _ = write!(terminal, "\r[{bar:<40}] {seeds}/{} {failures} failed", args.seeds);
            let _ = terminal.flush();
        }
    }
    if shows_progress {
        let _ = writeln!(std::io::stderr());
    }
    print_totals(&totals, started.elapsed());
    let missing = totals.coverage.missing();
    let uncovered = totals.seeds >= COVERAGE_FROM && !missing.is_empty();
    if uncovered {
        say!("never happened: {}", missing.join(", "));
    }
    totals.failures == 0 && !uncovered
}

fn print_totals(totals: &Totals, took: Duration) {
    for (name, count) in totals.coverage.table() {
        say!("{count:>10}  {name}");
    }
    let Totals { seeds, failures, runs, events, exchanges, hash, .. } = totals;
    let took = took.as_secs_f64();
    let cpu = cpu_seconds();
    say!("{seeds} seeds, {failures} failed, {runs} runs, {events} events, {took:.1} s, hash {hash:016x}");
    say!(
        "{exchanges} exchanges in {cpu:.1} CPU seconds: {:.0} exchanges per CPU second",
        *exchanges as f64 / cpu
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from([&["ruststrom-sim"], args].concat())
    }

    #[test]
    fn seeds_are_decimal_or_hexadecimal() {
        let args = parse(&["--seed", "0x8ea", "--trace"]).expect("good arguments");
        assert_eq!((args.seed, args.trace, args.from, args.seeds), (Some(0x8ea), true, 1, 1000));
        let args = parse(&["--from", "300001", "--seeds", "0x10", "--once", "--keep-going"])
            .expect("good arguments");
        assert_eq!((args.from, args.seeds, args.once, args.keep_going), (300_001, 16, true, true));
        assert!(parse(&["--planted"]).expect("good arguments").planted);
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [&["--seed"][..], &["--seed", "x"], &["--seeds", "-1"], &["--unknown"], &["5"]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
