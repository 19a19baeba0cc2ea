//! The core is pure: it is built from a short list of crates, calls nothing that touches the outside world,
//! and has no unsafe code.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The crates that the core depends on, each with the crates that it depends on in turn: parsers and pure
/// computation. Before another is added, its code must be read: does it use a clock, a file, a socket, a
/// thread or random state?
const ALLOWED: &[(&str, &[&str])] = &[
    // Credentials of Basic, and keys of WebSockets; it comes with what the driver has for passwords, too.
    ("base64ct", &[]),
    ("brotli", &["alloc-no-stdlib", "alloc-stdlib", "brotli-decompressor"]),
    ("flate2", &["zlib-rs"]),
    ("http", &["bytes", "itoa"]),
    ("httparse", &[]),
    ("ipnet", &[]),
    ("itoa", &[]),
    ("memchr", &[]),
    ("rand_chacha", &["ppv-lite86", "rand_core", "zerocopy"]),
    ("regex", &["aho-corasick", "regex-automata", "regex-syntax"]),
    // The ledger of certificate orders; its JSON is the driver's.
    ("serde", &["proc-macro2", "quote", "serde_core", "serde_derive", "syn", "unicode-ident"]),
    // The answer to the key of a WebSocket; all but itself comes with what the driver has for passwords.
    (
        "sha1",
        &["block-buffer", "cfg-if", "cpufeatures", "crypto-common", "digest", "hybrid-array", "typenum"],
    ),
    ("siphasher", &[]),
    // Edit distances of two short strings, for "did you mean …?".
    ("strsim", &[]),
    (
        "toml",
        &[
            "equivalent",
            "hashbrown",
            "indexmap",
            "serde_core",
            "serde_spanned",
            "toml_datetime",
            "toml_parser",
            "winnow",
        ],
    ),
    // C, and pure computation all the same: it touches nothing but the memory that it is given and asks for.
    ("zstd", &["zstd-safe", "zstd-sys"]),
];

fn core() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The names of the crates that the core depends on, down to `depth` levels.
fn tree(depth: &str) -> BTreeSet<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(core()).args([
        "tree",
        "--offline",
        "--locked",
        "-p",
        "ruststrom-core",
        "--edges",
        "normal",
    ]);
    let out =
        cargo.args(["--prefix", "none", "--format", "{p}", "--depth", depth]).output().expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).expect("UTF-8");
    let names =
        text.lines().filter_map(|l| l.split(' ').next()).filter(|n| !n.is_empty() && *n != "ruststrom-core");
    names.map(str::to_owned).collect()
}

#[test]
fn the_core_is_built_from_these_crates_only() {
    let direct = ALLOWED.iter().map(|(name, _)| (*name).to_owned()).collect::<BTreeSet<_>>();
    let all = ALLOWED
        .iter()
        .flat_map(|(name, more)| more.iter().chain([name]))
        .map(|n| (*n).to_owned())
        .collect::<BTreeSet<_>>();
    assert_eq!(tree("1"), direct, "direct dependencies");
    assert_eq!(tree("99"), all, "all dependencies");
}

#[test]
fn clippy_bans_what_would_make_a_replay_differ() {
    let text = std::fs::read_to_string(core().join("clippy.toml")).expect("the bans");
    let bans: toml::Table = text.parse().expect("TOML");
    let paths = |key: &str| -> BTreeSet<String> {
        let list = bans[key].as_array().expect("a list");
        list.iter().map(|ban| ban["path"].as_str().expect("a path").to_owned()).collect()
    };
    let table: &[(&str, &[&str])] = &[
        (
            "disallowed-methods",
            &[
                "std::time::Instant::now",
                "std::time::SystemTime::now",
                "std::thread::spawn",
                "std::thread::sleep",
                "std::env::var",
            ],
        ),
        (
            "disallowed-types",
            &[
                "std::time::Instant",
                "std::time::SystemTime",
                "std::net::TcpStream",
                "std::net::TcpListener",
                "std::net::UdpSocket",
                "std::fs::File",
                "std::collections::HashMap",
                "std::collections::HashSet",
            ],
        ),
        ("disallowed-macros", &["std::println", "std::eprintln"]),
    ];
    for (key, wanted) in table {
        let found = paths(key);
        for path in *wanted {
            assert!(found.contains(*path), "{key} no longer bans {path}");
        }
    }
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Modules of the standard library that the core may not use; clippy's lists have no entries for whole
/// modules.
const OUT_OF_REACH: &[&str] = &[
    "std::fs",
    "std::thread",
    "std::process",
    "std::env",
    "std::os",
    "std::io::std",
    "std::sync::mpsc",
    "std::sync::Condvar",
    "std::net::Tcp",
    "std::net::Udp",
    "ToSocketAddrs",
    "RandomState",
    "HashMap",
    "HashSet",
    "thread_local!",
    "println!",
    "print!(",
    "dbg!",
    "include_bytes!(\"/",
    "extern \"C\"",
];

/// The first line of code in a file that uses one of those modules. Tests may use them, and come last in a
/// file.
fn impure(text: &str) -> Option<(usize, &str)> {
    let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let code = |line: &str| -> String { line.split("//").next().unwrap_or_default().to_owned() };
    text.lines()
        .enumerate()
        .find(|(_, line)| OUT_OF_REACH.iter().any(|word| code(line).contains(word)))
        .map(|(at, line)| (at + 1, line))
}

#[test]
fn no_source_of_the_core_touches_the_outside_world() {
    let table = [
        ("let a = 1;\nuse std::fs::File;\n", Some(2)),
        ("std::thread::spawn(f);", Some(1)),
        ("fn f() {}\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n", None),
        ("// std::thread is the driver's\nlet ip: std::net::IpAddr;", None),
    ];
    for (text, line) in table {
        assert_eq!(impure(text).map(|(at, _)| at), line, "{text}");
    }
    let mut files = Vec::new();
    sources(&core().join("src"), &mut files);
    assert!(files.len() > 50, "only {} files were found", files.len());
    for file in files.iter().filter(|f| !f.ends_with("tests.rs")) {
        let text = std::fs::read_to_string(file).expect("UTF-8");
        assert_eq!(impure(&text), None, "{}", file.display());
    }
}

#[test]
fn the_core_forbids_unsafe_code() {
    let text = std::fs::read_to_string(core().join("src/lib.rs")).expect("the crate's root");
    assert!(text.lines().any(|l| l == "#![forbid(unsafe_code)]"));
}
