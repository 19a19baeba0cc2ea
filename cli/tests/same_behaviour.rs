//! The scripts of `testdata/behaviour` on every driver: each driver has to produce exactly what the script
//! says, so all of them behave the same.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use ruststrom_core::config::Driver;

use loopback::Loopback;
use script::Script;
use simulated::Simulated;

#[path = "support/address.rs"]
mod address;
#[path = "support/client.rs"]
#[allow(dead_code, reason = "faults.rs uses the rest")]
mod client;
#[path = "support/harness.rs"]
#[allow(dead_code, reason = "faults.rs uses the rest")]
mod harness;
#[path = "behaviour/loopback.rs"]
mod loopback;
#[path = "behaviour/script.rs"]
mod script;
#[path = "behaviour/simulated.rs"]
mod simulated;

/// Seeds of the simulator for each script: each draws its own delays and partial reads and writes.
const SEEDS: u64 = 40;

/// All scripts with their names, sorted by name.
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

/// A message if the transcript differs from the script.
fn compare(name: &str, driver: &str, script: &Script, transcript: &str) -> Option<String> {
    (transcript != script.text()).then(|| {
        // Kept so that it can be read, or copied over the script if it is right.
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.{driver}.txt"));
        std::fs::write(&file, transcript).expect("a temporary file");
        format!("{name} differs on {driver}: see {}\n{transcript}", file.display())
    })
}

#[test]
fn mio_and_smol_follow_the_scripts() {
    // Some at a time: with the proxies of all scripts at once, timeouts of one second would expire early.
    let play = |scripts: &[(String, Script)]| -> Vec<String> {
        std::thread::scope(|s| {
            let mut running = Vec::new();
            for (name, script) in scripts {
                for (driver, driver_name) in [(Driver::Mio, "mio"), (Driver::Smol, "smol")] {
                    let running_script = s.spawn(move || {
                        let transcript = script.play(&mut Loopback::start(driver, script));
                        compare(name, driver_name, script, &transcript)
                    });
                    running.push((name, driver_name, running_script));
                }
            }
            let ended = running.into_iter().map(|(name, driver, r)| {
                r.join().unwrap_or_else(|_| Some(format!("{name} on {driver} did not end")))
            });
            ended.flatten().collect()
        })
    };
    let differences: Vec<String> = scripts().chunks(8).flat_map(play).collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn the_simulator_follows_the_scripts() {
    let differences: Vec<String> = scripts()
        .iter()
        .filter_map(|(name, script)| {
            (0..SEEDS).find_map(|seed| {
                let played =
                    catch_unwind(AssertUnwindSafe(|| script.play(&mut Simulated::start(seed, script))));
                let transcript = played.unwrap_or_else(|_| "it did not end\n".into());
                compare(name, "sim", script, &transcript)
                    .map(|difference| format!("seed {seed}: {difference}"))
            })
        })
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn a_wrong_line_of_a_script_is_found() {
    for (name, script) in scripts() {
        let lines: Vec<&str> = script.text().lines().collect();
        let expectations =
            || lines.iter().enumerate().filter(|(_, l)| l.starts_with("    ")).map(|(at, _)| at);
        for at in expectations().take(1).chain(expectations().next_back()) {
            let mut lines = lines.clone();
            lines[at] = "    something else";
            let wrong = Script::parse(&(lines.join("\n") + "\n")).expect("it can still be parsed");
            let transcript = wrong.play(&mut Simulated::start(0, &wrong));
            assert_ne!(transcript, wrong.text(), "{name}: line {} is not checked", at + 1);
        }
    }
}
