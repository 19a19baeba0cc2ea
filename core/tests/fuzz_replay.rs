//! Plays the inputs that were kept (`testdata/fuzz`, a folder for each target of `fuzz/`) through the bodies
//! of the fuzz targets: seeds, and everything that once broke something.

#[path = "../../fuzz/src/bodies.rs"]
mod bodies;
#[path = "corpus/format.rs"]
#[allow(dead_code, reason = "shared with the corpus test")]
mod format;
#[path = "proxy/observer.rs"]
#[allow(dead_code, reason = "shared with the tests of the proxy")]
mod observer;
#[path = "proxy/script.rs"]
#[allow(dead_code, reason = "shared with the tests of the proxy")]
mod script;
#[path = "proxy/serve.rs"]
mod serve;
#[path = "proxy/turn.rs"]
mod turn;
#[path = "corpus/world.rs"]
#[allow(dead_code, reason = "shared with the corpus test")]
mod wire;
#[path = "proxy/world.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the tests of the proxy")]
mod world;

use std::path::{Path, PathBuf};

fn testdata(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata").join(folder)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|e| e.expect("an entry").path()).collect();
    files.sort();
    files
}

fn all_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for path in files(folder) {
        if path.is_dir() { all_files(&path, found) } else { found.push(path) }
    }
}

/// Bytes without a pattern, for targets that choose by them.
fn choices(n: u8) -> Vec<u8> {
    (0..120_u8).map(|i| i.wrapping_mul(37).wrapping_add(n.wrapping_mul(91)) ^ i >> 2).collect()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// What a target begins with: inputs made of the corpus, the example files and a few matchers.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    let cases = ["requests", "responses"]
        .map(|name| (name == "responses", format::read_folder(&testdata("h1").join(name))));
    let cases = cases.iter().flat_map(|(responses, cases)| cases.iter().map(|case| (*responses, case)));
    // Of each case the first message of the side that it is about.
    let first = |responses: bool, case: &format::Case| {
        case.steps.iter().find_map(|step| match step {
            format::Step::Send(side, all) if matches!(side, format::Side::Backend(_)) == responses => {
                Some(all[0].clone())
            }
            _ => None,
        })
    };
    match target {
        "connection" => {
            seeds.extend(cases.map(|(_, case)| (case.name.clone(), bodies::connection_seed(case))))
        }
        "head" | "differential" => {
            for (responses, case) in cases {
                let Some(message) = first(responses, case) else { continue };
                let choice = if responses { 4 } else { 0 };
                let prefix: &[u8] = if target == "head" { &[choice, 2] } else { &[choice] };
                seeds.push((case.name.clone(), [prefix, &message].concat()));
            }
        }
        "chunked" => {
            for (responses, case) in cases {
                let Some(message) = first(responses, case) else { continue };
                let Some(at) = message.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
                if message.windows(7).any(|w| w == b"chunked") && message.len() > at + 4 {
                    seeds.push((case.name.clone(), [&[2, 3][..], &message[at + 4..]].concat()));
                }
            }
        }
        "config" => {
            let mut found = Vec::new();
            all_files(&testdata("configs"), &mut found);
            for path in found {
                let name = path.file_name().expect("a name").to_string_lossy().into_owned();
                seeds.push((name, std::fs::read(&path).expect("readable")));
            }
        }
        "matcher" => {
            let requests = "a.example:80\n/a/b?k=v&x=%20y\nGET\n10.1.2.3\nX-Key: one\nx-key: two";
            let matchers = [
                "Host('a.example')",
                "!(Path('/a') || PathPrefix('/a/')) && Method('GET')",
                "HostRegexp('^a\\.') && PathRegexp('b$')",
                "Header('x-key', 'two') || HeaderRegexp('X-Key', '^o')",
                "Query('k', 'v') && Query(\"x\", \" y\")",
                "ClientIP('10.0.0.0/8') || ClientIP('2001:db8::/32')",
            ];
            seeds.extend(
                matchers
                    .iter()
                    .enumerate()
                    .map(|(n, m)| (format!("matcher-{n}"), format!("{m}\n{requests}").into_bytes())),
            );
        }
        "rewriting" => {
            let rules = [
                "^/old/(.*)$\n/new/$1\n{client_ip}, {{{host}}}\n/old/a/b?c",
                "^(?P<scheme>https?)://([^/]*)(.*)$\n${scheme}://$2/x$3$$\n{scheme}://{host}\nhttp://a.test/b",
                "(a|b)*\n$0$0$0$1st\nä }\n/abab",
                ".*\n$0\n \n/a//b/../c",
                "(\n${1\n{backend\n/",
            ];
            seeds.extend(rules.iter().enumerate().map(|(n, r)| (format!("rule-{n}"), r.as_bytes().to_vec())));
        }
        "script" => {
            seeds.extend((0..8).map(|n| (format!("script-{n}"), [&[n, n, 1][..], &choices(n)].concat())))
        }
        "accept_encoding" => {
            let values = [
                "gzip, deflate, br, zstd",
                "gzip;q=0.5, br;q=0.4, *;q=0.1, identity;q=0",
                "x-gzip ; Q = 0.999,, deflate;q=0.",
                "*;q=0\nidentity\nbr;q=1.001",
            ];
            seeds.extend(
                values.iter().enumerate().map(|(n, v)| (format!("value-{n}"), format!("\x0f{v}").into())),
            );
        }
        "basic_credentials" => {
            let values: [&[u8]; 10] = [
                b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
                b"basic  dGVzdDoxMjPCow==",
                b"Basic YTo=",
                b"Basic YTpi=",
                b"Basic YTpiOmN=",
                b"Basic",
                b"Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
                b"Basic\tYTpi",
                b"ada:love",
                b"a\x00:\xff",
            ];
            seeds.extend((0..).zip(values).map(|(n, v): (usize, _)| (format!("value-{n}"), v.to_vec())));
            seeds.extend((0..8).map(|n| (format!("bytes-{n}"), choices(n))));
        }
        "hpack_decode" | "hpack_differential" => {
            // Of a story its first blocks, each with the choice of no setting and its length before it.
            for folder in files(&testdata("hpack")).iter().filter(|path| path.is_dir()) {
                let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
                let story = std::fs::read_to_string(folder.join("story_05.json")).expect("a story");
                let story: serde_json::Value = serde_json::from_str(&story).expect("JSON");
                let mut seed = if target == "hpack_decode" { vec![0xff, 31] } else { Vec::new() };
                for case in story["cases"].as_array().expect("cases").iter().take(6) {
                    let wire = hex(case["wire"].as_str().expect("hex"));
                    seed.push(1);
                    seed.extend((wire.len() as u16).to_be_bytes());
                    seed.extend(wire);
                }
                seeds.push((name, seed));
            }
        }
        "hpack_round_trip" => {
            seeds.extend((0..8).map(|n| (format!("choices-{n}"), [&[n * 36][..], &choices(n)].concat())));
        }
        "h2_frames" => {
            let frames = [
                "000006 04 00 00000000 0003 00000064 000000 04 01 00000000",
                "000003 01 04 00000001 828684 000005 00 08 00000001 02 6162 0000 000001 00 01 00000001 63",
                "000002 01 21 00000003 8286 000001 09 00 00000003 84 000000 09 04 00000003",
                "000004 08 00 00000000 00000001 000008 06 00 00000000 0102030405060708",
                "000008 07 00 00000000 0000000100000000 000004 03 00 00000001 00000008",
                "000007 10 00 00000000 00000001 753d31 000005 02 00 00000003 8000000110 000003 fa 00 00000000 \
                 010203",
            ];
            let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
            for (n, frames) in frames.iter().enumerate() {
                seeds.push((format!("client-{n}"), [&[2, 1][..], preface, &hex(frames)].concat()));
                seeds.push((format!("server-{n}"), [&[1, 0][..], &hex(frames)].concat()));
            }
        }
        "h2_connection" => {
            // A step each: what it is, and on which of eight streams; then what it chooses.
            let steps = [
                // Requests, content, responses, content, ends.
                "02 00 00 00 23 49 00 00 04 01 05 00 0b 0e 10 f0 12 20 17 14 00 17 1d",
                // The same of a client: streams, heads, responses.
                "19 19 30 02 10 01 12 05 14 00 17 02 00 00 00 04 02 05 00 22 00 00 00 0b 1e 17 1d",
                // Settings and windows, then much data both ways.
                "06 02 03 06 04 02 07 0c 02 01 00 00 10 00 12 ff 12 ff 17 04 07 04 07 04 07 0b 0e 1d",
                // Resets, pings, priorities, leaving.
                "03 00 00 00 08 00 08 03 08 05 08 06 08 07 1a 17 08 07 08 0f 22 00 00 00 15 35 1b 1d",
                // Fields that break rules, padding, blocks in parts, trailers.
                "02 c0 c0 00 05 48 50 70 5f 22 01 40 02 ff 09 01 06 00 04 30 0b 0b 1d",
            ];
            for (n, steps) in steps.iter().enumerate() {
                for choice in [0_u8, 1, 2, 3, 4, 8, 13] {
                    seeds.push((format!("steps-{n}-{choice}"), [&[choice, 2][..], &hex(steps)].concat()));
                }
            }
            seeds.extend((0..16).map(|n| (format!("choices-{n}"), [&[n, n][..], &choices(n)].concat())));
        }
        "h2_proxy" => {
            // As above, with who it is behind each step.
            let steps = [
                // A request and its response; with content; the next one reuses the connection.
                "03 00 00 00 00 0d 00 00 22 00 01 00 00 24 00 01 25 00 00 0d 00 02",
                // Two clients, a response with an interim one before it, content that goes on.
                "03 00 00 00 00 03 01 00 00 00 0d 00 05 0d 00 00 0d 03 08 15 03 00 1b 00 ff",
                // What must not pass: fields of connections, line breaks, lengths that lie.
                "02 00 41 00 03 40 08 00 22 00 47 00 00 42 00 68 00 00 62 00 01 40 04 00 85 00 00",
                // Settings that hold a long response up.
                "06 00 01 03 01 03 00 00 00 00 0d 00 0d 13 00 ff 13 00 ff 07 00 08 07 00 09 08 00 00",
                // Trailers, a tunnel, refusal, reset by the backend.
                "19 00 02 00 01 00 00 09 00 01 06 00 22 00 05 40 54 00 0d 00 07 16 00 18 00",
            ];
            for (n, steps) in steps.iter().enumerate() {
                for choice in [0_u8, 1, 18] {
                    seeds.push((format!("steps-{n}-{choice}"), [&[choice][..], &hex(steps)].concat()));
                }
            }
            seeds.extend((0..16).map(|n| (format!("choices-{n}"), [&[n][..], &choices(n)].concat())));
        }
        "restore" => {
            let records = [
                // All that is known, with its end, and a record that nobody knows.
                "00 00 02 00 00 02 01 00 01 09 0003 010203 02 02 00 02 03 00",
                // The same in pieces, with some bytes changed.
                "01 02 02 00 02 15 ff 1a 01 02 01 01 1e 80 02 02 01 01 ff",
                // A client with three times of requests, one with too many, and half of one.
                "02 00 03 00 0025 0102030405060708 10000000 03 01000000 05000000 02000000 06000000 03000000 \
                 07000000",
                "00 03 03 00 000d 0102030405060708 ffffffff ff 03 01 0002 0102",
                // Records that are longer than what follows, and than any may be.
                "02 01 00 0007 01 ff000000 0102 00 0005 02 ffffffff",
            ];
            seeds.extend((0..).zip(records).map(|(n, r): (usize, _)| (format!("records-{n}"), hex(r))));
            seeds.extend((0..8).map(|n| (format!("choices-{n}"), [&[n, n][..], &choices(n)].concat())));
        }
        _ => {}
    }
    if matches!(target, "config" | "matcher") {
        seeds.extend((0..8).map(|n| (format!("words-{n}"), [&[0][..], &choices(n)].concat())));
    }
    assert!(!seeds.is_empty(), "{target} has no seeds");
    seeds
}

fn kept(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = testdata("fuzz").join(target);
    if !folder.exists() {
        return Vec::new();
    }
    let name = |file: &Path| file.file_name().expect("a name").to_string_lossy().into_owned();
    files(&folder).iter().map(|file| (name(file), std::fs::read(file).expect("readable"))).collect()
}

#[test]
fn seeds_and_everything_kept() {
    let mut failed = Vec::new();
    for target in bodies::TARGETS {
        for (name, data) in seeds(target).into_iter().chain(kept(target)) {
            if std::panic::catch_unwind(|| bodies::run(target, &data)).is_err() {
                failed.push(format!("{target}: {name}"));
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// For the fuzzer, which wants files: `cargo test -p ruststrom-core --test fuzz_replay -- --ignored`.
#[test]
#[ignore = "writes fuzz/target/corpus"]
fn write_seeds() {
    for target in bodies::TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/target/corpus").join(target);
        std::fs::create_dir_all(&folder).expect("a folder");
        for (name, data) in seeds(target).into_iter().chain(kept(target)) {
            std::fs::write(folder.join(name), data).expect("writable");
        }
    }
}
