//! The scripts of `testdata/behaviour` on every driver: each of them gives what is written there, so all of
//! them behave the same.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use ruststrom_core::config::Driver;

use loopback::Loopback;
use script::Script;
use simulated::Simulated;

#[path = "support/address.rs"]
mod address;
#[path = "behaviour/loopback.rs"]
mod loopback;
#[path = "behaviour/script.rs"]
mod script;
#[path = "behaviour/simulated.rs"]
mod simulated;
#[path = "support/stand.rs"]
#[allow(dead_code, reason = "faults.rs uses the rest")]
mod stand;
#[path = "support/talk.rs"]
#[allow(dead_code, reason = "faults.rs uses the rest")]
mod talk;

/// What else may be asked to be the same, `Stand::start` runs on.
const DRIVER: Driver = Driver::Mio;

/// Each a network with moods of its own.
const SEEDS: u64 = 40;

/// The scripts, by name.
fn scripts() -> Vec<(String, Script)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/behaviour");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("the scripts").map(|e| e.expect("an entry").path()).collect();
    files.sort();
    assert!(!files.is_empty());
    let scripts = files.iter().map(|file| {
        let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(file).expect("UTF-8");
        let script = Script::parse(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        (name, script)
    });
    scripts.collect()
}

/// What is wrong with a transcript, if anything is.
fn judge(name: &str, driver: &str, script: &Script, transcript: &str) -> Option<String> {
    (transcript != script.text()).then(|| {
        // To look at, or to copy when it is right.
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.{driver}.txt"));
        std::fs::write(&file, transcript).expect("a temporary file");
        format!("{name} on {driver}: see {}\n{transcript}", file.display())
    })
}

#[test]
fn mio_and_smol_do_what_is_written() {
    let scripts = scripts();
    let wrong: Vec<String> = std::thread::scope(|s| {
        let mut running = Vec::new();
        for (name, script) in &scripts {
            for (driver, driver_name) in [(Driver::Mio, "mio"), (Driver::Smol, "smol")] {
                let running_script = s.spawn(move || {
                    let transcript = script.play(&mut Loopback::start(driver, script));
                    judge(name, driver_name, script, &transcript)
                });
                running.push((name, driver_name, running_script));
            }
        }
        let ended = running.into_iter().map(|(name, driver, r)| {
            r.join().unwrap_or_else(|_| Some(format!("{name} on {driver} did not end")))
        });
        ended.flatten().collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_simulator_does_what_is_written() {
    let wrong: Vec<String> = scripts()
        .iter()
        .filter_map(|(name, script)| {
            (0..SEEDS).find_map(|seed| {
                let played =
                    catch_unwind(AssertUnwindSafe(|| script.play(&mut Simulated::start(seed, script))));
                let transcript = played.unwrap_or_else(|_| "it did not end\n".into());
                judge(name, "sim", script, &transcript).map(|wrong| format!("seed {seed}: {wrong}"))
            })
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_line_that_is_not_so_is_found() {
    for (name, script) in scripts() {
        let lines: Vec<&str> = script.text().lines().collect();
        let got = || lines.iter().enumerate().filter(|(_, l)| l.starts_with("    ")).map(|(at, _)| at);
        for at in got().take(1).chain(got().next_back()) {
            let mut lines = lines.clone();
            lines[at] = "    something else";
            let wrong = Script::parse(&(lines.join("\n") + "\n")).expect("it still makes sense");
            let transcript = wrong.play(&mut Simulated::start(0, &wrong));
            assert_ne!(transcript, wrong.text(), "{name}: line {} may be anything", at + 1);
        }
    }
}
