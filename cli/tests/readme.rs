//! The README is true: its configurations are good, its tables name every key, cause and matcher there is,
//! and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ruststrom_core::Cause;
use ruststrom_core::config::Matcher;
use ruststrom_core::http::Violation;

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(top().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Blocks of code: what follows the fence, and the text.
fn blocks(readme: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut lines = readme.lines();
    while let Some(line) = lines.next() {
        if let Some(info) = line.strip_prefix("```") {
            let text = lines.by_ref().take_while(|l| *l != "```").map(|l| format!("{l}\n")).collect();
            found.push((info.to_owned(), text));
        }
    }
    found
}

/// A table: its header and its rows, as cells.
struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// The cells of the column with this header.
    fn column<'t>(&'t self, name: &str) -> Option<impl Iterator<Item = (&'t [String], &'t str)> + use<'t>> {
        let at = self.header.iter().position(|h| h == name)?;
        Some(self.rows.iter().map(move |row| (row.as_slice(), row[at].as_str())))
    }
}

fn tables(readme: &str) -> Vec<Table> {
    // A bar between backquotes is no border.
    let cells = |line: &str| -> Vec<String> {
        let (mut cells, mut cell, mut code) = (Vec::new(), String::new(), false);
        for c in line.trim_matches('|').chars() {
            code ^= c == '`';
            if c == '|' && !code {
                cells.push(std::mem::take(&mut cell).trim().to_owned());
            } else {
                cell.push(c);
            }
        }
        cells.push(cell.trim().to_owned());
        cells
    };
    let mut found: Vec<Table> = Vec::new();
    let mut inside = false;
    for line in readme.lines() {
        match line.starts_with('|') {
            true if !inside => found.push(Table { header: cells(line), rows: Vec::new() }),
            true if line.starts_with("|---") => {}
            true => {
                let table = found.last_mut().expect("a header comes first");
                let row = cells(line);
                assert_eq!(row.len(), table.header.len(), "{line}");
                table.rows.push(row);
            }
            false => {}
        }
        inside = line.starts_with('|');
    }
    found
}

/// What stands between backquotes.
fn code(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// A file of this test's own; removed at the end.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("rust-strom-readme-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).expect("a temporary file");
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn check(name: &str, text: &str) -> (Output, String) {
    let file = File::new(name, text);
    let out = Command::new(env!("CARGO_BIN_EXE_rust-strom"))
        .arg("--config")
        .arg(&file.0)
        .arg("--check")
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    (out, said)
}

#[test]
fn configurations_are_good() {
    let readme = read("README.md");
    let (mut good, mut refused) = (0, 0);
    for (number, (info, text)) in blocks(&readme).into_iter().enumerate() {
        let whole = match info.as_str() {
            "toml" | "toml not-built" => text,
            "toml pool" => format!(
                "http_address = \"127.0.0.1:8000\"\n[[backend_pools]]\naddresses = [\"127.0.0.1:8080\"]\n{text}"
            ),
            _ => {
                assert!(!info.starts_with("toml"), "what is {info}?");
                continue;
            }
        };
        let (out, said) = check(&number.to_string(), &whole);
        if info == "toml not-built" {
            refused += 1;
            assert_eq!(out.status.code(), Some(1), "{whole}\n{said}");
            let errors = said.lines().filter(|l| l.contains(": error: ")).collect::<Vec<_>>();
            assert!(!errors.is_empty() && errors.iter().all(|l| l.contains("not built yet")), "{said}");
        } else {
            good += 1;
            assert_eq!(out.status.code(), Some(0), "{whole}\n{said}");
            assert!(
                said.ends_with(": good\n") && said.lines().count() == 1,
                "warnings too would be unkind: {said}"
            );
        }
    }
    assert!(good >= 4 && refused >= 1, "{good} and {refused} were found");
}

#[test]
fn the_error_shown_is_the_error_given() {
    let readme = read("README.md");
    let (_, shown) = blocks(&readme)
        .into_iter()
        .find(|(_, text)| text.contains("strateggy"))
        .expect("an example of an error");
    let rest = shown.split_once(": error: ").expect("an error").1;
    let text = "http_address = \"127.0.0.1:8000\"\n\n[[backend_pools]]\naddresses = [\"127.0.0.1:8080\"]\n\nstrateggy = \"RoundRobin\"\n";
    let (_, said) = check("shown", text);
    assert!(said.contains(rest), "{said}");
}

/// `[a.b]`, `[[a.b]]` and `top level` to what both files call it.
fn section(title: &str) -> String {
    let title = title.trim_matches(['[', ']']);
    if title.starts_with("certificates") { "certificates".into() } else { title.into() }
}

/// The reference: of each table the keys with their defaults, if they have one, and all its text.
struct Reference {
    keys: BTreeMap<(String, String), Option<String>>,
    text: BTreeMap<String, String>,
}

fn reference() -> Reference {
    let (mut keys, mut text) = (BTreeMap::new(), BTreeMap::<String, String>::new());
    let mut current = "top level".to_owned();
    for whole in read("testdata/configs/reference.toml").lines() {
        let line = whole.trim_start_matches(['#', ' ']);
        if line.starts_with('[') && line.ends_with(']') {
            current = section(line);
        }
        *text.entry(current.clone()).or_default() += &format!("{line}\n");
        // A key is a word before ` = `, in a comment and in an inline table too.
        for (at, _) in line.match_indices(" = ") {
            let key = line[..at].rsplit([' ', '{', '(', '`', ',']).next().unwrap_or_default();
            // Names of strategies are no keys of their own, and what prose says of a key may stand before its
            // table.
            if matches!(key, "RoundRobin" | "StickyCookie") || line[..at - key.len()].ends_with('`') {
                continue;
            }
            let default = (at == key.len() && whole.starts_with(key)).then(|| line[at + 3..].to_owned());
            let known: &mut Option<String> = keys.entry((current.clone(), key.to_owned())).or_default();
            *known = known.take().or(default);
        }
    }
    Reference { keys, text }
}

#[test]
fn every_key_is_explained_and_no_other() {
    let readme = read("README.md");
    let Reference { keys, text } = reference();
    let mut explained = BTreeMap::new();
    for table in tables(&readme) {
        let titles = code(&table.header[0]);
        let Some(title) = titles.first().filter(|t| t.starts_with('[') || **t == "top level") else {
            continue;
        };
        let section = section(title);
        let default = table.header.iter().position(|h| h == "default");
        let of_a_pool = table.header.iter().position(|h| h == "of a pool too");
        for row in &table.rows {
            for (n, key) in code(&row[0]).into_iter().enumerate() {
                let default =
                    default.filter(|_| n == 0).and_then(|at| code(&row[at]).first().map(|d| (*d).to_owned()));
                explained.insert((section.clone(), key.to_owned()), default.clone());
                if of_a_pool.is_some_and(|at| row[at] == "yes") {
                    explained.insert((format!("backend_pools.{section}"), key.to_owned()), default);
                }
            }
        }
    }
    let missing: Vec<_> = keys.keys().filter(|k| !explained.contains_key(*k)).collect();
    assert!(missing.is_empty(), "in the reference and not in the README: {missing:?}");
    let is_word_of = |key: &str, text: &str| {
        text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '"').any(|w| w == key)
    };
    let unknown: Vec<_> =
        explained.keys().filter(|(s, k)| !text.get(s).is_some_and(|text| is_word_of(k, text))).collect();
    assert!(unknown.is_empty(), "in the README and not in the reference: {unknown:?}");
    let mut compared = 0;
    for (key, default) in &keys {
        // What the reference has to say somehow, though it has no default.
        let (Some(default), false) =
            (default, matches!(key.1.as_str(), "http_address" | "name" | "addresses"))
        else {
            continue;
        };
        assert_eq!(explained[key].as_ref(), Some(default), "{key:?}");
        compared += 1;
    }
    assert!(compared > 45, "only {compared} defaults were compared");
}

/// Every cause but the violations. A new one does not compile until it stands here.
const CAUSES: &[Cause] = &[
    Cause::NoRoute,
    Cause::NoBackend,
    Cause::QueueFull,
    Cause::QueueTimeout,
    Cause::LookupFailed,
    Cause::NoPages,
    Cause::ConnectRefused,
    Cause::ConnectUnreachable,
    Cause::ConnectTimeout,
    Cause::ConnectFailed,
    Cause::BackendClosed,
    Cause::BackendReset,
    Cause::BackendTimeout,
    Cause::ResponseTruncated,
    Cause::BackendStalled,
    Cause::HeadTimeout,
    Cause::ClientStalled,
    Cause::ClientGone,
    Cause::TunnelTimeout,
    Cause::Drained,
];

const fn is_in_the_list(cause: Cause) -> bool {
    match cause {
        Cause::BadRequest(_) | Cause::BadResponse(_) => false,
        Cause::NoRoute
        | Cause::NoBackend
        | Cause::QueueFull
        | Cause::QueueTimeout
        | Cause::LookupFailed
        | Cause::NoPages
        | Cause::ConnectRefused
        | Cause::ConnectUnreachable
        | Cause::ConnectTimeout
        | Cause::ConnectFailed
        | Cause::BackendClosed
        | Cause::BackendReset
        | Cause::BackendTimeout
        | Cause::ResponseTruncated
        | Cause::BackendStalled
        | Cause::HeadTimeout
        | Cause::ClientStalled
        | Cause::ClientGone
        | Cause::TunnelTimeout
        | Cause::Drained => true,
    }
}

#[test]
fn every_cause_is_explained_with_its_status_and_no_other() {
    let readme = read("README.md");
    let explained = |column: &str| -> BTreeMap<String, u16> {
        let tables = tables(&readme);
        let table = tables.iter().find(|t| t.header[0] == column).expect("a table");
        let statuses = table.column("status").expect("statuses");
        statuses
            .map(|(row, status)| (code(&row[0])[0].to_owned(), status.parse().expect("a status")))
            .collect()
    };
    assert!(CAUSES.iter().all(|c| is_in_the_list(*c)));
    let causes = CAUSES.iter().map(|c| (c.name().to_owned(), c.status())).collect::<BTreeMap<_, _>>();
    assert_eq!(causes.len(), CAUSES.len());
    assert_eq!(explained("cause"), causes);
    assert_eq!(
        explained("violation"),
        Violation::ALL.iter().map(|v| (v.name().to_owned(), v.status().as_u16())).collect()
    );
}

#[test]
fn matchers_and_strategies_shown_are_good_and_all() {
    let readme = read("README.md");
    let first = |column: &str| -> Vec<String> {
        let tables = tables(&readme);
        let table = tables.iter().find(|t| t.header[0] == column).expect("a table");
        table.rows.iter().map(|row| code(&row[0])[0].to_owned()).collect()
    };
    for text in first("matcher") {
        assert!(Matcher::parse(&text).is_ok(), "{text}: {:?}", Matcher::parse(&text));
    }
    let shown = first("matcher")
        .iter()
        .map(|m| m.split('(').next().unwrap_or_default().to_owned())
        .collect::<BTreeSet<_>>();
    // An unknown one is answered with the names of all.
    let unknown = Matcher::parse("Xyzzyquux('')").expect_err("no such matcher");
    let help = unknown[0].help.as_deref().and_then(|h| h.strip_prefix("there are ")).expect("a list");
    assert_eq!(shown, help.split(", ").map(str::to_owned).collect());

    let text =
        "http_address = \"127.0.0.1:8000\"\n[[backend_pools]]\naddresses = []\nstrategy = \"Xyzzyquux\"\n";
    let (_, said) = check("strategy", text);
    let all = said.lines().find_map(|l| l.split_once("use one of ")).expect("a list").1;
    assert_eq!(first("strategy"), all.split(", ").map(str::to_owned).collect::<Vec<_>>());
}
