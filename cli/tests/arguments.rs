//! The built binary's arguments, exit codes and messages.

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

/// A temporary file, removed when dropped.
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
        // arguments, exit code, part of the output
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
    for (arguments, code, part) in table {
        let out = run(arguments);
        let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(*code), "{arguments:?}: {text}");
        assert!(text.contains(part), "{arguments:?}: {text}");
        // Errors go to standard error, the results of checks and help to standard output.
        let to_stdout = *code == 0 || arguments.contains(&"--check") && arguments.len() > 2;
        assert_eq!(out.stderr.is_empty(), to_stdout, "{arguments:?}: {text}");
    }
}

#[test]
fn checks() {
    let tls = "[certificates.\"a.example\"]\nLocal = { certificate_path = \"no-such.crt\", private_key_path = \"no-such.key\" }\n";
    let table: &[(&str, String, i32, &[&str])] = &[
        // file, text, exit code of --check, parts of the output
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
            0,
            &["compression.toml: good\n"],
        ),
        ("https", GOOD.replace("127.0.0.1:9", "https://127.0.0.1:9"), 0, &["https.toml: good\n"]),
        ("h2c", GOOD.replace("127.0.0.1:9", "h2c://127.0.0.1:9"), 0, &["h2c.toml: good\n"]),
        ("smol", "driver = \"smol\"\n".to_owned() + GOOD, 0, &["smol.toml: good\n"]),
        (
            "tls",
            "https_address = \"127.0.0.1:0\"\n".to_owned() + GOOD + tls,
            1,
            &[
                "error: cannot read the certificate ",
                "no-such.crt: No such file",
                "error: cannot read the private key ",
            ],
        ),
    ];
    for (name, text, code, parts) in table {
        let file = File::new(&format!("{name}.toml"), text.as_bytes());
        let out = run(&["--config", file.path(), "--check"]);
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert_eq!(out.status.code(), Some(*code), "{name}: {text}");
        for part in *parts {
            assert!(text.contains(part), "{name}: {part}: {text}");
        }
        if *code == 1 {
            // A start fails for the same reasons, with the same messages.
            let out = run(&["--config", file.path()]);
            let start = String::from_utf8_lossy(&out.stderr).into_owned();
            assert_eq!(out.status.code(), Some(1), "{name}: {start}");
            assert!(
                start.starts_with("rust-strom: ") && start.contains(parts[parts.len() - 1]),
                "{name}: {start}"
            );
        }
    }
}

/// A line with an error is shown, and nothing in it that is secret.
#[test]
fn secrets_are_not_shown() {
    let users = "[backend_pools.middlewares.BasicAuth]\nusers = [\n\"ada:hunter2\"]\n";
    let file = File::new("secrets.toml", (GOOD.to_owned() + users).as_bytes());
    for out in [run(&["--config", file.path(), "--check"]), run(&["--config", file.path()])] {
        let shown = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
        assert!(shown.contains("\"***********\"") && !shown.contains("hunter2"), "{shown}");
    }
}

/// What TLS to backends needs of the machine is looked at, and what is wrong is told where the file says so.
#[test]
fn tls_to_backends() {
    let pool = GOOD.replace("127.0.0.1:9", "https://127.0.0.1:9");
    let with = |table: &str| format!("{pool}[backend_pools.tls]\n{table}\n");
    let missing = "error: cannot read the CA file ";
    // name, text, SSL_CERT_FILE, whether it is accepted, line and column, the rest of the line
    let table = [
        ("b-ca", with("ca_file = \"none.pem\""), None, false, (7, 11), missing),
        (
            "b-key",
            with("client_certificate = \"none.crt\"\nclient_key = \"none.key\""),
            None,
            false,
            (8, 14),
            "error: cannot read the private key ",
        ),
        (
            "b-system",
            pool.clone(),
            Some("/nonexistent"),
            false,
            (4, 13),
            "error: this system trusts no certificate authority: ",
        ),
        (
            "b-open",
            with("verify = false"),
            Some("/nonexistent"),
            true,
            (7, 10),
            "warning: certificates are not ",
        ),
    ];
    for (name, text, authorities, accepted, (line, column), message) in table {
        let file = File::new(&format!("{name}.toml"), text.as_bytes());
        let run = |arguments: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_rust-strom"));
            command.args(arguments).env_remove("RUST_LOG").env_remove("SSL_CERT_DIR");
            if let Some(authorities) = authorities {
                command.env("SSL_CERT_FILE", authorities);
            }
            command.output().expect("it starts")
        };
        let out = run(&["--config", file.path(), "--check"]);
        let report = String::from_utf8_lossy(&out.stdout).into_owned();
        assert_eq!(out.status.code(), Some(i32::from(!accepted)), "{name}: {report}");
        let expected = format!("{name}.toml:{line}:{column}: {message}");
        assert!(report.contains(&expected), "{name}: {expected}: {report}");
        if !accepted {
            let out = run(&["--config", file.path()]);
            let start = String::from_utf8_lossy(&out.stderr).into_owned();
            assert_eq!(out.status.code(), Some(1), "{name}: {start}");
            assert!(start.contains(&expected), "{name}: {start}");
        }
    }
}

#[test]
fn a_file_that_is_not_utf_8_is_rejected() {
    let file = File::new("latin1.toml", b"# fine\n# gr\xfcn\n");
    let out = run(&["--config", file.path()]);
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1));
    assert!(text.contains("line 2 is not UTF-8"), "{text}");
}

#[test]
fn a_failed_start_prints_one_line_with_the_remedy() {
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
    for (i, (text, message)) in table.into_iter().enumerate() {
        let file = File::new(&format!("start{i}.toml"), text.as_bytes());
        let out = run(&["--config", file.path()]);
        let err = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(1), "{err}");
        assert!(
            err.starts_with(&format!("rust-strom: {message}")) && err.matches('\n').count() == 1,
            "{err}"
        );
    }
}

/// Output that is full or that nobody reads any more.
#[test]
fn output_that_cannot_be_written() {
    let good = File::new("output-good.toml", GOOD.as_bytes());
    let bad = File::new("output-bad.toml", b"http_address = 1\n");
    let full = || Stdio::from(std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux"));
    let gone = || {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        Stdio::from(writer)
    };
    let table: [(&[&str], i32, i32); 6] = [
        // arguments, exit code with a full output, and without a reader
        (&["--config", good.path(), "--check"], 1, 0),
        (&["--config", bad.path(), "--check"], 1, 1),
        (&["--help"], 1, 0),
        (&["--version"], 1, 0),
        (&["--unknown"], 1, 1),
        (&["--config", "/nonexistent"], 1, 1),
    ];
    for (arguments, with_full, without_reader) in table {
        let run = |out: Stdio, err: Stdio| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_rust-strom"));
            command.args(arguments).stdout(out).stderr(err).output().expect("it starts")
        };
        let out = run(full(), Stdio::piped());
        let err = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(with_full), "{arguments:?}: {err}");
        assert!(!err.contains("panicked"), "{arguments:?}: {err}");
        if without_reader == 0 {
            assert!(err.starts_with("rust-strom: cannot write to standard output: "), "{err}");
        }
        let out = run(gone(), Stdio::piped());
        let err = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(without_reader), "{arguments:?}: {err}");
        assert!(!err.contains("panicked") && !err.contains("standard output"), "{arguments:?}: {err}");
        // A panic would have the exit code 101, also where its message is lost.
        for (out, err) in [(full(), full()), (gone(), gone()), (gone(), full())] {
            let status = run(out, err).status;
            assert!(matches!(status.code(), Some(0 | 1)), "{arguments:?}: {status}");
        }
    }
}

#[test]
fn a_check_finds_an_access_log_that_cannot_be_written() {
    let folder = std::env::temp_dir();
    let missing = folder.join(format!("rust-strom-{}-not-made.log", std::process::id()));
    let existing = File::new("existing.log", b"before\n");
    let table = [
        ("/nonexistent/access.log", Some("No such file or directory")),
        (folder.to_str().expect("UTF-8"), Some("Is a directory")),
        (existing.path(), None),
        (&format!("{}/x", existing.path()), Some("Not a directory")),
        (missing.to_str().expect("UTF-8"), None),
        ("/dev/null", None),
        ("-", None),
    ];
    for (path, reason) in table {
        let text = format!("{GOOD}[access_log]\npath = \"{path}\"\n");
        let file = File::new("access-log.toml", text.as_bytes());
        let out = run(&["--config", file.path(), "--check"]);
        let stdout = String::from_utf8_lossy(&out.stdout).into_owned();
        assert_eq!(out.status.code(), Some(i32::from(reason.is_some())), "{path}: {stdout}");
        if let Some(reason) = reason {
            let message = format!(":7:8: error: cannot write the access log {path}: {reason}");
            assert!(stdout.contains(&message), "{path}: {stdout}");
        }
        let off = text.replace("[access_log]", "[access_log]\nenabled = false");
        let file = File::new("access-log-off.toml", off.as_bytes());
        assert_eq!(run(&["--config", file.path(), "--check"]).status.code(), Some(0), "{path}");
    }
    assert!(!missing.exists(), "a check makes no file");
    assert_eq!(std::fs::read(existing.path()).expect("it is there"), b"before\n");
}

#[test]
fn a_pipe_without_a_reader_is_rejected_as_access_log() {
    // Opening a pipe for writing blocks until it has a reader: a start must not.
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
    // Has no effect if the process has exited.
    let _ = child.kill();
    let out = child.wait_with_output().expect("our child");
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1), "{err}");
    assert!(err.contains("nobody reads that pipe") && err.matches('\n').count() == 1, "{err}");
}

#[test]
fn an_endless_configuration_file_is_rejected() {
    let out = run(&["--config", "/dev/zero", "--check"]);
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1), "{err}");
    assert!(err.contains("more than 16777216 bytes"), "{err}");
}

#[test]
fn too_low_a_limit_of_open_files_is_rejected() {
    let file = File::new("files.toml", GOOD.as_bytes());
    // `timeout` stops a start that is wrongly accepted.
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

/// The manual page has all commands with their arguments, and refers to no page that is not installed.
#[test]
fn the_manual_page_is_whole() {
    let output = run(&["man"]);
    assert!(output.status.success());
    let page = String::from_utf8(output.stdout).expect("UTF-8").replace('\\', "");
    for part in [
        "rust-strom explain",
        "--client-ip",
        "rust-strom cert renew",
        "--tls",
        "--pid-file",
        "SIGNALS",
        "USR2",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(!page.contains("(8)"), "{page}");
}
