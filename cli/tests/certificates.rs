//! The files of certificates, as the built binary sees them: `--check` and a start say the same, where the
//! configuration names the file.

#[path = "support/client.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod client;
#[path = "support/daemon.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod daemon;

use std::process::{Command, Output};

use daemon::{Daemon, TempDir};

/// Makes `NAME.crt`, which signs itself, and `NAME.key`, with more arguments of `openssl req`.
fn make(folder: &TempDir, name: &str, more: &[&str]) {
    let files = [format!("{name}.key"), format!("{name}.crt")];
    let out = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-subj", "/CN=x", "-keyout", &files[0], "-out", &files[1]])
        .args(more)
        .current_dir(&folder.0)
        .output()
        .expect("openssl is installed");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

fn run(folder: &TempDir, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rust-strom"));
    command.args(["--config", "balancer.toml"]).args(arguments).current_dir(&folder.0);
    command.output().expect("it starts")
}

#[test]
fn what_is_wrong_is_said_where_the_file_is_named() {
    let folder = TempDir::new("certificates");
    make(&folder, "good", &["-addext", "subjectAltName=DNS:a.example"]);
    make(&folder, "other", &["-addext", "subjectAltName=DNS:b.example,DNS:c.example"]);
    folder.write("empty.pem", "");
    folder.write(
        "balancer.toml",
        "http_address = \"127.0.0.1:0\"\nhttps_address = \"127.0.0.1:0\"\nmetrics_address = false\n\
         [[backend_pools]]\naddresses = [\"127.0.0.1:9\"]\n\n\
         [certificates.\"a.example\"]\nclient_ca = \"empty.pem\"\n\
         Local = { certificate_path = \"good.crt\", private_key_path = \"other.key\" }\n\n\
         [certificates.\"b.example\"]\ntype = \"Local\"\n\
         private_key_path = \"other.crt\"\ncertificate_path = \"other.key\"\n\n\
         [certificates.\"d.example\"]\n\
         Local = { certificate_path = \"other.crt\", private_key_path = \"other.key\" }\n",
    );
    let expected = [
        "balancer.toml:8:13: error: cannot read the client CA empty.pem: it is empty",
        "balancer.toml:9:61: error: the private key other.key is not that of the certificate good.crt, but of another one",
        "balancer.toml:13:20: error: there is no private key in other.crt, but a certificate",
        "balancer.toml:14:20: error: there is no certificate in other.key, but a private key",
        "balancer.toml:17:30: warning: the certificate other.crt is not for \"d.example\", but for b.example, c.example",
    ];
    let checked = run(&folder, &["--check"]);
    let text = String::from_utf8_lossy(&checked.stdout).into_owned();
    let said: Vec<&str> = text.lines().filter(|l| l.starts_with("balancer.toml:")).collect();
    assert_eq!(said, expected, "{text}");
    assert_eq!(checked.status.code(), Some(1));
    let marked = "9 | Local = { certificate_path = \"good.crt\", private_key_path = \"other.key\" }\n  |                                                             ^^^^^^^^^^^\n";
    assert!(text.contains(marked), "{text}");
    assert!(text.contains("  = help: are `certificate_path` and `private_key_path` swapped?\n"), "{text}");

    // A start prints the errors, and does not begin.
    let started = run(&folder, &[]);
    let text = String::from_utf8_lossy(&started.stderr).into_owned();
    let said: Vec<&str> = text.lines().filter(|l| l.starts_with("balancer.toml:")).collect();
    assert_eq!(said, expected[..4], "{text}");
    assert_eq!(started.status.code(), Some(1));
}

#[test]
fn what_clients_may_refuse_is_a_warning() {
    let folder = TempDir::new("certificates");
    make(&folder, "other", &["-addext", "subjectAltName=DNS:b.example"]);
    // No listener needs it: the start is about the warning only.
    let text = format!(
        "http_address = \"127.0.0.1:0\"\nmetrics_address = false\n[[backend_pools]]\naddresses = [\"127.0.0.1:9\"]\n\
         [certificates.\"a.example\"]\ntype = \"Local\"\ncertificate_path = \"{0}/other.crt\"\nprivate_key_path = \"{0}/other.key\"\n",
        folder.0.display()
    );
    folder.write("balancer.toml", &text);
    let checked = run(&folder, &["--check"]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    let warning = format!("the certificate {}/other.crt is not for \"a.example\"", folder.0.display());
    assert!(said.contains(&format!("balancer.toml:7:20: warning: {warning}")), "{said}");
    assert!(said.ends_with("balancer.toml: good\n"), "{said}");
    assert_eq!(checked.status.code(), Some(0));

    let daemon = Daemon::start(&text, &[]);
    daemon.wait_for("INFO  ready");
    let output = daemon.output();
    let logged = output.lines().find(|l| l.contains(&warning)).unwrap_or_else(|| panic!("{output}"));
    assert!(logged.contains("WARN") && logged.contains("config.toml:7:20: "), "{logged}");
    assert!(logged.ends_with("give the certificate that belongs to it"), "{logged}");
    daemon.stop();
}
