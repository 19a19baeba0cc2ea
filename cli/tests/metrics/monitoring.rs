//! Alert rules, the dashboard and the documentation name the metrics that there are, and no others.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::authority::Authority;
use crate::daemon::TempDir;
use crate::nginx::{output, program};
use crate::scripted_backend::Backend;
use crate::site::{TOP, pool, scrape, start};

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

pub(crate) fn monitoring(name: &str) -> PathBuf {
    top().join("cli/monitoring").join(name)
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.as_ref().display()))
}

/// What is named in a text: words that begin as ours do, without what histograms add.
fn named(text: &str) -> BTreeSet<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_word(c));
    let ours = words.filter(|word| word.starts_with("ruststrom_") || word.starts_with("process_"));
    let metric = |word: &str| {
        let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end));
        of_histogram.unwrap_or(word).to_owned()
    };
    ours.map(metric).collect()
}

/// The names of all metrics that a daemon has.
fn existing() -> BTreeSet<String> {
    let backend = Backend::good("here");
    let daemon = start("mio", &[TOP, &pool("api", &[backend.address], "")].concat());
    let metrics = scrape(&daemon);
    let names = metrics.names().into_iter().map(str::to_owned).collect();
    daemon.stop();
    names
}

/// Every expression below a value of the dashboard.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), value) {
                    ("expr", Value::String(expression)) => found.push(expression.clone()),
                    _ => expressions(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

/// The expressions of the dashboard, with values for its variables.
pub(crate) fn dashboard_expressions() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&read(monitoring("grafana-dashboard.json"))).expect("JSON");
    let mut found = Vec::new();
    expressions(&dashboard, &mut found);
    assert!(found.len() > 25, "{found:?}");
    let filled = |expression: String| {
        let expression = expression.replace("$__rate_interval", "1m");
        ["$job", "$instance", "$pool"].iter().fold(expression, |text, name| text.replace(name, ".*"))
    };
    let filled: Vec<String> = found.into_iter().map(filled).collect();
    assert!(filled.iter().all(|expression| !expression.contains('$')), "{filled:?}");
    filled
}

#[test]
fn everything_that_rules_and_the_dashboard_name_exists() {
    let existing = existing();
    for file in ["alerts.yml", "grafana-dashboard.json", "prometheus.yml"] {
        // Its name is that of the whole.
        let missing: Vec<_> = named(&read(monitoring(file))).difference(&existing).cloned().collect();
        assert!(missing.is_empty(), "{file}: {missing:?}");
    }
    let used: BTreeSet<String> =
        named(&[read(monitoring("alerts.yml")), read(monitoring("grafana-dashboard.json"))].concat());
    let unused: Vec<_> = existing.difference(&used).map(|name| &**name).collect();
    let told_otherwise = ["process_resident_memory_bytes", "process_start_time_seconds"];
    assert_eq!(unused, told_otherwise, "the dashboard shows everything else");
}

#[test]
fn every_metric_is_documented_and_no_other() {
    let text = read(top().join("cli/docs/metrics.md"));
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let documented: BTreeSet<String> = rows.map(str::to_owned).collect();
    assert_eq!(documented, existing());
}

#[test]
fn labels_and_types_are_as_documented() {
    let text = read(top().join("cli/docs/metrics.md"));
    let backend = Backend::good("here");
    let authority = Authority::new("A");
    let pair = authority.sign("a.test", &["a.test"]);
    let certificate =
        format!("https_address = \"127.0.0.1:0\"\n{TOP}[certificates.\"a.test\"]\n{}", pair.local());
    let middlewares = "[backend_pools.middlewares.Compression]\n[backend_pools.middlewares.RateLimiter]\nlimit = 1\nwindow_sec = 1\n\
                       [backend_pools.middlewares.BasicAuth]\nusers_file = \"users\"\n";
    let users = include_str!("../../../drivers/common/src/auth/password_hash/users.htpasswd");
    let folder = TempDir::new("users");
    let users = folder.write("users", users);
    let middlewares = middlewares.replace("\"users\"", &format!("\"{}\"", users.display()));
    let daemon = start("mio", &[&certificate, &*pool("api", &[backend.address], &middlewares)].concat());
    let _ = crate::client::Client::to(daemon.listens("http")).get("/elsewhere").expect("a response");
    let metrics = crate::site::scrape_until(&daemon, "a failure", |metrics| metrics.all_requests() == 1.0);
    let mut checked = 0;
    for line in
        text.lines().filter(|line| line.starts_with("| `ruststrom_") || line.starts_with("| `process_"))
    {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let (name, kind) = (cells[1].trim_matches('`'), cells[2]);
        assert!(metrics.text.contains(&format!("# TYPE {name} {kind}\n")), "{line}");
        let labels: BTreeSet<&str> =
            cells[3].split(", ").map(|l| l.trim_matches('`')).filter(|l| !l.is_empty()).collect();
        let samples = metrics.series().into_iter().filter(|series| {
            let metric = series.split('{').next().expect("a name");
            let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| metric.strip_suffix(end));
            if kind == "histogram" { of_histogram == Some(name) } else { metric == name }
        });
        let mut any = false;
        for series in samples {
            any = true;
            let inside = series.split_once('{').map_or("", |(_, rest)| rest.trim_end_matches('}'));
            let names = inside.split("\",").filter_map(|label| label.split('=').next());
            let found: BTreeSet<&str> = names.filter(|name| !name.is_empty() && *name != "le").collect();
            assert_eq!(found, labels, "{series}");
        }
        assert!(any, "{name}");
        checked += 1;
    }
    assert!(checked > 25, "{checked}");
    daemon.stop();
}

#[test]
fn promtool_understands_rules_and_expressions() {
    output(
        Command::new(program("promtool", "prometheus"))
            .args(["check", "config"])
            .arg(monitoring("prometheus.yml")),
    );
    output(
        Command::new(program("promtool", "prometheus"))
            .args(["check", "rules"])
            .arg(monitoring("alerts.yml")),
    );
    let mut rules = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    for (nth, expression) in dashboard_expressions().iter().enumerate() {
        let expression = expression.replace('\'', "''");
        rules.push_str(&format!("      - record: r{nth}\n        expr: '{expression}'\n"));
    }
    let folder = TempDir::new("rules");
    let file = folder.write("dashboard.yml", rules);
    output(Command::new(program("promtool", "prometheus")).args(["check", "rules"]).arg(file));
}
