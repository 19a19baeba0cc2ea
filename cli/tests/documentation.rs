//! README.md and cli/docs match the program: their configurations are valid, their tables name every key,
//! cause, matcher and strategy there is and no other, and their links lead somewhere.

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

/// A page of the documentation: its path below the workspace, and its text.
type Page = (String, String);

/// README.md and every page of cli/docs.
fn pages() -> Vec<Page> {
    let directory = std::fs::read_dir(top().join("cli/docs")).expect("cli/docs");
    let names = directory.map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8"));
    let mut paths: Vec<String> = names.map(|name| format!("cli/docs/{name}")).collect();
    paths.push("README.md".into());
    paths.sort();
    assert!(paths.iter().all(|p| p.ends_with(".md")) && paths.len() > 5, "{paths:?}");
    paths.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

/// The text of all pages.
fn documentation() -> String {
    pages().into_iter().map(|(_, text)| text + "\n").collect()
}

/// Blocks of code: what follows the opening fence, and the text.
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut lines = page.lines();
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

fn tables(page: &str) -> Vec<Table> {
    // A bar between backquotes does not separate cells.
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
    for line in page.lines() {
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

/// The texts between backquotes.
fn code(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// A temporary file, removed when dropped.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("rust-strom-documentation-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).expect("a temporary file");
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Runs `--check` on a text; its exit status and standard output.
fn check(name: &str, text: &str) -> (Output, String) {
    check_file(&File::new(name, text).0)
}

/// Runs `--check` on a file.
fn check_file(file: &Path) -> (Output, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_rust-strom"))
        .arg("--config")
        .arg(file)
        .arg("--check")
        .output()
        .expect("it starts");
    let stdout = String::from_utf8_lossy(&out.stdout).into_owned();
    (out, stdout)
}

/// A folder with the files that the commands of cli/docs/tls.md make, a list of users, and some pages;
/// removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn with_files() -> Self {
        let path = std::env::temp_dir().join(format!("rust-strom-documentation-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        let commands = blocks(&read("cli/docs/tls.md")).into_iter();
        let mut run = 0;
        for (_, text) in commands.filter(|(info, text)| info == "sh" && text.starts_with("openssl req ")) {
            let out = Command::new("sh").args(["-e", "-c", &text]).current_dir(&path).output();
            let out = out.expect("it starts");
            assert!(out.status.success(), "{text}\n{}", String::from_utf8_lossy(&out.stderr));
            run += 1;
        }
        assert_eq!(run, 3, "a certificate, a client's, and a backend's");
        std::fs::create_dir(path.join("pages")).expect("a folder");
        let hash = format!("ada:$6$salt${}\n", "x".repeat(86));
        std::fs::write(path.join("users.htpasswd"), hash).expect("a list of users");
        for page in ["404.html", "500.html"] {
            std::fs::write(path.join("pages").join(page), "<h1>Sorry</h1>\n").expect("a page");
        }
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn configurations_are_valid() {
    let mut good = 0;
    let folder = Folder::with_files();
    let all = pages()
        .into_iter()
        .flat_map(|(path, text)| blocks(&text).into_iter().map(move |b| (path.clone(), b)));
    for (number, (path, (info, text))) in all.enumerate() {
        let whole = match info.as_str() {
            "toml" => text,
            "toml pool" => format!(
                "http_address = \"127.0.0.1:8000\"\n[[backend_pools]]\naddresses = [\"127.0.0.1:8080\"]\n{text}"
            ),
            _ => {
                assert!(!info.starts_with("toml"), "{path}: unknown kind of block: {info}");
                continue;
            }
        };
        let file = folder.0.join(format!("{number}.toml"));
        std::fs::write(&file, &whole).expect("a file");
        let (out, stdout) = check_file(&file);
        good += 1;
        assert_eq!(out.status.code(), Some(0), "{path}: {whole}\n{stdout}");
        assert!(
            stdout.ends_with(": good\n") && stdout.lines().count() == 1,
            "{path}: an example has warnings: {stdout}"
        );
    }
    assert!(good >= 4, "only {good} examples were found");
}

#[test]
fn the_example_of_an_error_is_what_check_prints() {
    let (_, shown) = blocks(&documentation())
        .into_iter()
        .find(|(_, text)| text.contains("strateggy"))
        .expect("an example of an error");
    let rest = shown.split_once(": error: ").expect("an error").1;
    let text = "http_address = \"127.0.0.1:8000\"\n\n[[backend_pools]]\naddresses = [\"127.0.0.1:8080\"]\n\nstrateggy = \"RoundRobin\"\n";
    let (_, stdout) = check("shown", text);
    assert!(stdout.contains(rest), "{stdout}");
}

/// `[a.b]`, `[[a.b]]` and `top level` to a name that documentation and reference.toml share.
fn section(title: &str) -> String {
    let title = title.trim_matches(['[', ']']);
    if title.starts_with("certificates") { "certificates".into() } else { title.into() }
}

/// What reference.toml says: the keys of each table with their default if they have one, and the table's
/// text.
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
            // Names of strategies are not keys, and a comment may mention a key before its table begins.
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
fn every_key_is_documented_and_no_other() {
    let documentation = documentation();
    let Reference { keys, text } = reference();
    let mut documented = BTreeMap::new();
    for table in tables(&documentation) {
        let titles = code(&table.header[0]);
        let Some(title) = titles.first().filter(|t| t.starts_with('[') || **t == "top level") else {
            continue;
        };
        let section = section(title);
        let default = table.header.iter().position(|h| h == "default");
        let per_pool = table.header.iter().position(|h| h == "per pool");
        for row in &table.rows {
            for (n, key) in code(&row[0]).into_iter().enumerate() {
                let default =
                    default.filter(|_| n == 0).and_then(|at| code(&row[at]).first().map(|d| (*d).to_owned()));
                documented.insert((section.clone(), key.to_owned()), default.clone());
                if per_pool.is_some_and(|at| row[at] == "yes") {
                    documented.insert((format!("backend_pools.{section}"), key.to_owned()), default);
                }
            }
        }
    }
    let missing: Vec<_> = keys.keys().filter(|k| !documented.contains_key(*k)).collect();
    assert!(missing.is_empty(), "in reference.toml and not in the documentation: {missing:?}");
    let is_word_of = |key: &str, text: &str| {
        text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '"').any(|w| w == key)
    };
    let unknown: Vec<_> =
        documented.keys().filter(|(s, k)| !text.get(s).is_some_and(|text| is_word_of(k, text))).collect();
    assert!(unknown.is_empty(), "in the documentation and not in reference.toml: {unknown:?}");
    let mut compared = 0;
    for (key, default) in &keys {
        // These have a value in reference.toml because a file needs one, but no default.
        let (Some(default), false) =
            (default, matches!(key.1.as_str(), "http_address" | "name" | "addresses"))
        else {
            continue;
        };
        assert_eq!(documented[key].as_ref(), Some(default), "{key:?}");
        compared += 1;
    }
    assert!(compared > 45, "only {compared} defaults were compared");
}

#[test]
fn every_cause_is_documented_with_its_status_and_no_other() {
    let documentation = documentation();
    let documented = |column: &str| -> BTreeMap<String, u16> {
        let tables = tables(&documentation);
        let table = tables.iter().find(|t| t.header[0] == column).expect("a table");
        let statuses = table.column("status").expect("statuses");
        statuses
            .map(|(row, status)| (code(&row[0])[0].to_owned(), status.parse().expect("a status")))
            .collect()
    };
    let causes = Cause::WITHOUT_VIOLATIONS
        .iter()
        .map(|c| (c.name().to_owned(), c.status()))
        .collect::<BTreeMap<_, _>>();
    assert_eq!(causes.len(), Cause::WITHOUT_VIOLATIONS.len());
    assert_eq!(documented("cause"), causes);
    assert_eq!(
        documented("violation"),
        Violation::ALL.iter().map(|v| (v.name().to_owned(), v.status().as_u16())).collect()
    );
}

#[test]
fn every_matcher_and_strategy_is_documented_and_no_other() {
    let documentation = documentation();
    let first = |column: &str| -> Vec<String> {
        let tables = tables(&documentation);
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
    // The error for an unknown matcher lists all names.
    let unknown = Matcher::parse("Xyzzyquux('')").expect_err("no such matcher");
    let help = unknown[0].help.as_deref().and_then(|h| h.strip_prefix("there are ")).expect("a list");
    assert_eq!(shown, help.split(", ").map(str::to_owned).collect());

    let text = "http_address = \"127.0.0.1:8000\"\n[[backend_pools]]\naddresses = []\nstrategy = { Xyzzyquux = {} }\n";
    let (_, stdout) = check("strategy", text);
    let all = stdout.lines().find_map(|l| l.split_once("help: there are ")).expect("a list").1;
    assert_eq!(first("strategy"), all.split(", ").map(str::to_owned).collect::<Vec<_>>());
}

/// The anchor of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
}

/// The anchors of a page's headings.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|l| l.starts_with('#'));
    headings.map(|l| anchor(l.trim_start_matches('#').trim())).collect()
}

/// The targets of a page's links, without those in blocks of code.
fn links(page: &str) -> Vec<&str> {
    let mut in_block = false;
    let mut found = Vec::new();
    for line in page.lines() {
        in_block ^= line.starts_with("```");
        if !in_block {
            found.extend(line.split("](").skip(1).filter_map(|rest| rest.split(')').next()));
        }
    }
    found
}

#[test]
fn links_lead_to_files_and_headings() {
    let (mut checked, mut linked) = (0, BTreeSet::new());
    let pages = pages();
    for (path, text) in &pages {
        for link in links(text).into_iter().filter(|l| !l.contains("://")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let directory = Path::new(path).parent().expect("a file");
            let target = if file.is_empty() { top().join(path) } else { top().join(directory).join(file) };
            let target = target.canonicalize().unwrap_or_else(|e| panic!("{path}: {link}: {e}"));
            let heading_exists = heading.is_empty()
                || anchors(&std::fs::read_to_string(&target).expect("UTF-8")).contains(heading);
            assert!(heading_exists, "{path}: {link}: there is no such heading");
            linked.extend((path == "README.md").then_some(target));
            checked += 1;
        }
    }
    assert!(checked > 20, "only {checked} links were found");
    for (path, _) in pages.iter().filter(|(path, _)| path != "README.md") {
        let page = top().join(path).canonicalize().expect("a page");
        assert!(linked.contains(&page), "README.md has no link to {path}");
    }
}
