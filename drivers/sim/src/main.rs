//! Soaks, replays, and the check that planted bugs are found. Exit code 0 only if every seed was clean.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use ruststrom_sim::{Coverage, Draw, Outcome, planted, run, run_twice};

const USAGE: &str = "\
ruststrom-sim [--seeds N] [--from SEED] [--keep-going] [--once]   run seeds, each twice
ruststrom-sim --seed SEED [--trace]                               run one again
ruststrom-sim --planted                                           show that planted bugs are found
";

/// The last lines of a failure's trace that are printed.
const TRACE_LINES: usize = 60;
/// From so many seeds on, whatever never happened fails a sweep.
const COVERS_FROM: u64 = 1000;

struct Args {
    seeds: u64,
    from: u64,
    seed: Option<u64>,
    trace: bool,
    keep_going: bool,
    once: bool,
    planted: bool,
}

fn number(text: Option<String>) -> Option<u64> {
    let text = text?;
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn args() -> Option<Args> {
    let mut args = Args {
        seeds: 1000,
        from: 1,
        seed: None,
        trace: false,
        keep_going: false,
        once: false,
        planted: false,
    };
    let mut given = std::env::args().skip(1);
    while let Some(arg) = given.next() {
        match arg.as_str() {
            "--seeds" => args.seeds = number(given.next())?,
            "--from" => args.from = number(given.next())?,
            "--seed" => args.seed = Some(number(given.next())?),
            "--trace" => args.trace = true,
            "--keep-going" => args.keep_going = true,
            "--once" => args.once = true,
            "--planted" => args.planted = true,
            _ => return None,
        }
    }
    Some(args)
}

fn main() -> ExitCode {
    let Some(args) = args() else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    let clean = match args.seed {
        _ if args.planted => planted::check(&mut |line| println!("{line}")),
        Some(seed) => replay(seed, args.trace),
        None => sweep(&args),
    };
    if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One line for a failure, how it was drawn, and what happened last.
fn report(outcome: &Outcome) {
    let Some(violation) = &outcome.violation else { return };
    println!("{:#018x} {} {}: {}", outcome.seed, outcome.events, violation.invariant, violation.text);
}

fn replay(seed: u64, all: bool) -> bool {
    println!("{:#?}", Draw::new(seed));
    let outcome = run(seed, true);
    let skip = if all { 0 } else { outcome.trace.len().saturating_sub(TRACE_LINES) };
    for line in &outcome.trace[skip..] {
        println!("{line}");
    }
    report(&outcome);
    let again = run_twice(seed);
    if again.violation != outcome.violation {
        report(&again);
    }
    if again.violation.is_none() {
        println!(
            "{seed:#018x} clean: {} events, {} exchanges, hash {:016x}",
            again.events,
            again.exchanges(),
            again.hash
        );
    }
    outcome.violation.is_none() && again.violation.is_none()
}

/// User and system time of this process, from its start.
fn cpu_seconds() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

/// Runs the seeds, and ends with how fast that was: exchanges of all runs by the CPU time of the whole
/// process.
fn sweep(args: &Args) -> bool {
    let (mut all, mut failures, mut runs, mut events, mut exchanges, mut hash) =
        (Coverage::default(), 0u64, 0u64, 0u64, 0u64, 0u64);
    let started = Instant::now();
    let shows = std::io::stderr().is_terminal();
    let mut shown = Instant::now();
    let mut done = 0;
    for seed in args.from..args.from.saturating_add(args.seeds) {
        let outcome = if args.once { run(seed, false) } else { run_twice(seed) };
        done += 1;
        all.add(&outcome.coverage);
        // The second run of a seed was the same as the first, or it is a failure.
        let times = if args.once || outcome.violation.is_some() { 1 } else { 2 };
        runs += times;
        events += outcome.events * times;
        exchanges += outcome.exchanges() * times;
        // One number for the whole sweep: a change that was to change nothing can be held against it.
        hash = hash.rotate_left(1) ^ outcome.hash;
        if outcome.violation.is_some() {
            failures += 1;
            report(&outcome);
            if !args.keep_going {
                replay(seed, false);
                break;
            }
        }
        if shows && shown.elapsed() > Duration::from_millis(200) {
            shown = Instant::now();
            let width = (done * 40 / args.seeds.max(1)) as usize;
            eprint!("\r[{:<40}] {done}/{} {failures} failed", "#".repeat(width), args.seeds);
            let _ = std::io::stderr().flush();
        }
    }
    if shows {
        eprintln!();
    }
    let took = started.elapsed().as_secs_f64();
    for (name, count) in all.table() {
        println!("{count:>10}  {name}");
    }
    let cpu = cpu_seconds();
    println!("{done} seeds, {failures} failed, {runs} runs, {events} events, {took:.1} s, hash {hash:016x}");
    println!(
        "{exchanges} exchanges in {cpu:.1} CPU seconds: {:.0} exchanges per CPU second",
        exchanges as f64 / cpu
    );
    let missing = all.missing();
    let uncovered = done >= COVERS_FROM && !missing.is_empty();
    if uncovered {
        println!("never happened: {}", missing.join(", "));
    }
    failures == 0 && !uncovered
}
