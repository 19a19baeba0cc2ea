//! The built binary's arguments, its exit codes and what it says.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rust-strom"))
        .args(arguments)
        .env_remove("RUST_LOG")
        .output()
        .expect("it starts")
}

/// A file of this test's own; removed at the end.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("rust-strom-{}-{name}", std::process::id()));
        std::fs::write(&path, text).expect("a temporary file");
        Self(path)
    }
    fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

const GOOD: &str = "http_address = \"127.0.0.1:0\"\nmetrics_address = false\n[[backend_pools]]\naddresses = [\"127.0.0.1:9\"]\nschemes = [\"HTTP\"]\n";

#[test]
fn arguments() {
    let good = File::new("arguments.toml", GOOD.as_bytes());
    let folder = std::env::temp_dir();
    let folder = folder.to_str().expect("UTF-8");
    let table: &[(&[&str], i32, &str)] = &[
        // arguments, exit code, part of what is said
        (&["--version"], 0, concat!("rust-strom ", env!("CARGO_PKG_VERSION"))),
        (&["--help"], 0, "--config <FILE>"),
        (&[], 1, "no configuration was given; use --config FILE, or try: rust-strom demo"),
        (&["--confg", "x"], 1, "--config"),
        (&["--config"], 1, "a value is required"),
        (&["--check"], 1, "--config <FILE>"),
        (&["--config", "/nonexistent/x.toml"], 1, "cannot read /nonexistent/x.toml: "),
        (&["--config", folder], 1, "it is a folder"),
        (&["--config", good.path(), "--workers", "0"], 1, "0 is not in 1..=1024"),
        (&["--config", good.path(), "--driver", "tokio"], 1, "[possible values: mio, smol]"),
        (&["--config", good.path(), "--check"], 0, ": good"),
        (&["--config", good.path(), "--check", "--driver", "smol"], 0, ": good"),
        (&["--config", good.path(), "demo"], 1, "the demo has its own configuration"),
        (&["dmo"], 1, "demo"),
        (&["balancer.toml"], 1, "rust-strom --config FILE"),
    ];
    for (arguments, code, said) in table {
        let out = run(arguments);
        let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(*code), "{arguments:?}: {text}");
        assert!(text.contains(said), "{arguments:?}: {text}");
        // Errors are for people who look at standard error, checks and help for standard output.
        let to_stdout = *code == 0 || arguments.contains(&"--check") && arguments.len() > 2;
        assert_eq!(out.stderr.is_empty(), to_stdout, "{arguments:?}: {text}");
    }
}

#[test]
fn checks() {
    let tls =
        "[certificates.\"a.example\"]\nLocal = { certificate_path = \"c\", private_key_path = \"k\" }\n";
    let table: &[(&str, String, i32, &[&str])] = &[
        // file, text, exit code of --check, parts of what is said
        ("good", GOOD.into(), 0, &["good.toml: good\n"]),
        ("syntax", "http_address = \n".into(), 1, &["syntax.toml:1:", "error: "]),
        // All errors at once.
        (
            "two",
            GOOD.replace("metrics_address", "metric_address").replace("127.0.0.1:9", "127.0.0.1"),
            1,
            &[":2:1: error: ", ":4:", "did you mean"],
        ),
        ("warns", GOOD.replace("[\"127.0.0.1:9\"]", "[]"), 0, &["warning: ", "warns.toml: good\n"]),
        (
            "compression",
            GOOD.to_owned() + "[backend_pools.middlewares.Compression]\n",
            1,
            &["Compression is not built yet"],
        ),
        ("https", GOOD.replace("127.0.0.1:9", "https://127.0.0.1:9"), 1, &["not built yet"]),
        ("h2c", GOOD.replace("127.0.0.1:9", "h2c://127.0.0.1:9"), 1, &["not built yet"]),
        ("smol", "driver = \"smol\"\n".to_owned() + GOOD, 0, &["smol.toml: good\n"]),
        ("tls", "https_address = \"127.0.0.1:0\"\n".to_owned() + GOOD + tls, 1, &["not built yet"]),
    ];
    for (name, text, code, said) in table {
        let file = File::new(&format!("{name}.toml"), text.as_bytes());
        let out = run(&["--config", file.path(), "--check"]);
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert_eq!(out.status.code(), Some(*code), "{name}: {text}");
        for said in *said {
            assert!(text.contains(said), "{name}: {said}: {text}");
        }
        if *code == 1 {
            // A start is refused for the same reasons, in the same words.
            let out = run(&["--config", file.path()]);
            let start = String::from_utf8_lossy(&out.stderr).into_owned();
            assert_eq!(out.status.code(), Some(1), "{name}: {start}");
            assert!(
                start.starts_with("rust-strom: ") && start.contains(said[said.len() - 1]),
                "{name}: {start}"
            );
        }
    }
}

#[test]
fn a_file_that_is_no_text_is_said_to_be_none() {
    let file = File::new("latin1.toml", b"# fine\n# gr\xfcn\n");
    let out = run(&["--config", file.path()]);
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1));
    assert!(text.contains("line 2 is not UTF-8"), "{text}");
}

#[test]
fn a_start_that_fails_is_one_line_with_what_to_do() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = holder.local_addr().expect("bound").to_string();
    let table = [
        (GOOD.replace("127.0.0.1:0", &taken), format!("cannot listen on {taken}: the port is taken")),
        (
            GOOD.replace("127.0.0.1:0", "192.0.2.1:0"),
            "cannot listen on 192.0.2.1:0: no interface of this machine has that address".into(),
        ),
        (
            GOOD.to_owned() + "[access_log]\npath = \"/nonexistent/access.log\"\n",
            "cannot write the access log /nonexistent/access.log: ".into(),
        ),
    ];
    for (i, (text, said)) in table.into_iter().enumerate() {
        let file = File::new(&format!("start{i}.toml"), text.as_bytes());
        let out = run(&["--config", file.path()]);
        let err = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(1), "{err}");
        assert!(err.starts_with(&format!("rust-strom: {said}")) && err.matches('\n').count() == 1, "{err}");
    }
}

#[test]
fn a_pipe_that_nobody_reads_is_no_access_log() {
    // Opening one for writing waits for a reader, for ever: a start must not.
    let pipe = std::env::temp_dir().join(format!("rust-strom-{}-pipe", std::process::id()));
    let made = Command::new("mkfifo").arg(&pipe).status().expect("coreutils");
    assert!(made.success());
    let pipe = File(pipe);
    let file = File::new("pipe.toml", format!("{GOOD}[access_log]\npath = \"{}\"\n", pipe.path()).as_bytes());
    let mut child = Command::new(env!("CARGO_BIN_EXE_rust-strom"))
        .args(["--config", file.path()])
        .env_remove("RUST_LOG")
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let begun = Instant::now();
    while child.try_wait().expect("our child").is_none() && begun.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(10));
    }
    // Nothing happens if it has ended.
    let _ = child.kill();
    let out = child.wait_with_output().expect("our child");
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1), "{err}");
    assert!(err.contains("nobody reads that pipe") && err.matches('\n').count() == 1, "{err}");
}

#[test]
fn a_configuration_without_an_end_is_not_read_whole() {
    let out = run(&["--config", "/dev/zero", "--check"]);
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1), "{err}");
    assert!(err.contains("more than 16777216 bytes"), "{err}");
}

#[test]
fn a_limit_of_open_files_that_serves_nobody_is_refused() {
    let file = File::new("files.toml", GOOD.as_bytes());
    // A start that is not refused goes on until it is stopped.
    let line = "ulimit -n 64 && exec timeout 5 \"$0\" --config \"$1\" --workers 4";
    let out = Command::new("sh")
        .args(["-c", line, env!("CARGO_BIN_EXE_rust-strom"), file.path()])
        .output()
        .expect("a shell");
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1), "{err}");
    assert!(
        err.contains("a limit of 64 open files is too low for 4 workers; raise it")
            && err.matches('\n').count() == 1,
        "{err}"
    );
}
