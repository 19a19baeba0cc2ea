//! Configuration files: from a path to a checked configuration, or to everything that is wrong with it as
//! text.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use ruststrom_core::Config;
use ruststrom_core::config::{self, Diagnostic, Severity};

/// A larger file is none of ours: no more than this is read of it.
const MOST_BYTES: u64 = 16 << 20;

/// A configuration that can be served.
pub(crate) struct Loaded {
    pub(crate) config: Config,
    /// One line each.
    pub(crate) warnings: Vec<String>,
}

/// What a check says.
pub(crate) struct Verdict {
    /// Everything, rendered.
    pub(crate) report: String,
    /// A start would not be refused for it.
    pub(crate) good: bool,
}

/// The text of a file.
pub(crate) fn read(path: &Path) -> Result<String, String> {
    let name = path.display();
    let what = std::fs::metadata(path)
        .map_err(|e| format!("cannot read {name}: {e}; give the path of a configuration file"))?;
    if what.is_dir() {
        return Err(format!("cannot read {name}: it is a folder; give the path of a configuration file"));
    }
    // Its size is not asked for: a pipe or a device has none and may never end.
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|e| format!("cannot read {name}: {e}"))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(format!(
            "cannot read {name}: it has more than {MOST_BYTES} bytes; no configuration is that long"
        ));
    }
    String::from_utf8(bytes).map_err(|e| {
        let good = e.utf8_error().valid_up_to();
        let line = e.as_bytes()[..good].iter().filter(|b| **b == b'\n').count() + 1;
        format!("cannot read {name}: line {line} is not UTF-8; save it as UTF-8")
    })
}

/// Everything there is to say about a text.
pub(crate) fn check(name: &str, text: &str) -> Verdict {
    let (_, said) = parse(text);
    let good = !said.iter().any(|d| d.severity == Severity::Error);
    Verdict { report: config::render(&said, name, text), good }
}

/// A configuration to serve, or the rendered errors.
pub(crate) fn load(name: &str, text: &str) -> Result<Loaded, String> {
    let (config, said) = parse(text);
    let (errors, warnings): (Vec<_>, Vec<_>) = said.into_iter().partition(|d| d.severity == Severity::Error);
    match config {
        Some(config) if errors.is_empty() => {
            let line = |d: &Diagnostic| {
                let help = d.help.as_ref().map(|h| format!("; {h}")).unwrap_or_default();
                format!("{name}:{}:{}: {}{help}", d.line, d.column, d.message)
            };
            Ok(Loaded { config, warnings: warnings.iter().map(line).collect() })
        }
        _ => Err(format!("{name} cannot be used\n{}", config::render(&errors, name, text))),
    }
}

/// The seam to the core's parser. What is rightly asked for and not built yet counts as an error, in the
/// order of the file.
fn parse(text: &str) -> (Option<Config>, Vec<Diagnostic>) {
    let mut parsed = config::parse(text);
    let mut said = parsed.diagnostics;
    said.append(&mut parsed.not_built);
    said.sort_by_key(|d| (d.span.start, d.span.end));
    (parsed.config, said)
}
