//! Middlewares that give requests other paths, send clients elsewhere, or respond themselves.

use std::fmt::Write as _;

use crate::random::SplitMix64;

/// Another path for the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathRewrite {
    Strip,
    Add,
    Replace,
    /// `/r` and a number at the end become another end.
    Number,
    /// The first slash becomes something longer.
    Slash,
}

/// Which requests are sent elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    /// Those of a directory, to another host.
    Directory,
    /// Those with an even number at the end of their path, to another path.
    Even,
}

/// What is taken away: the longest of these that is there.
const PREFIXES: &[&str] = &["/a", "/v1/a", "/v1", "/none"];

const REWRITES: &[PathRewrite] = &[
    PathRewrite::Strip,
    PathRewrite::Strip,
    PathRewrite::Add,
    PathRewrite::Replace,
    PathRewrite::Number,
    PathRewrite::Slash,
];

impl PathRewrite {
    pub(super) fn draw(rng: &mut SplitMix64) -> Self {
        rng.pick(REWRITES)
    }

    /// Its kind in the configuration file, and its keys.
    pub(super) fn table(self) -> (&'static str, String) {
        match self {
            Self::Strip => ("StripPrefix", format!("prefixes = {PREFIXES:?}\n")),
            Self::Add => ("AddPrefix", "prefix = \"/v1/\"\n".to_owned()),
            Self::Replace => ("ReplacePath", "path = \"/one/page\"\n".to_owned()),
            Self::Number => {
                ("ReplacePathRegex", "regex = '/r([0-9]+)$'\nreplacement = '/id/${1}/x'\n".to_owned())
            }
            Self::Slash => ("ReplacePathRegex", "regex = '^/'\nreplacement = '/v2/$$/'\n".to_owned()),
        }
    }

    /// What becomes of a path; with what was taken away of it.
    pub(crate) fn apply(self, path: &str) -> (String, Option<&'static str>) {
        match self {
            Self::Strip => {
                let fits = |prefix: &&&str| {
                    path.strip_prefix(**prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                };
                let Some(prefix) = PREFIXES.iter().filter(fits).max_by_key(|prefix| prefix.len()) else {
                    return (path.to_owned(), None);
                };
                let rest = &path[prefix.len()..];
                (if rest.is_empty() { "/" } else { rest }.to_owned(), Some(prefix))
            }
            Self::Add => (format!("/v1{path}"), None),
            Self::Replace => ("/one/page".to_owned(), None),
            Self::Number => (
                numbered(path).map_or(path.to_owned(), |(before, number)| format!("{before}/id/{number}/x")),
                None,
            ),
            Self::Slash => (format!("/v2/$/{}", &path[1..]), None),
        }
    }
}

impl Moved {
    pub(super) fn write(self, status: u16, text: &mut String) {
        let (regex, replacement) = match self {
            Self::Directory => ("^(https?)://[^/]*/a/", "$1://new.test/b/"),
            Self::Even => ("/r([0-9]*[02468])([?].*)?$", "/even/$1"),
        };
        writeln!(text, "regex = '{regex}'\nreplacement = '{replacement}'\nstatus = {status}")
            .expect("memory");
    }

    /// Where a URL has moved to, if it has: that of `path` behind `scheme` and `host`, and of `query`, which
    /// begins with a question mark if there is one.
    pub(crate) fn location(self, scheme: &str, host: &str, path: &str, query: &str) -> Option<String> {
        match self {
            Self::Directory => Some(format!("{scheme}://new.test/b/{}{query}", path.strip_prefix("/a/")?)),
            Self::Even => {
                let (before, number) = numbered(path).filter(|(_, number)| number.is_multiple_of(2))?;
                Some(format!("{scheme}://{host}{before}/even/{number}"))
            }
        }
    }
}

/// A path that ends with `/r` and a number: what is before that, and the number.
fn numbered(path: &str) -> Option<(&str, u64)> {
    let (before, number) = path.rsplit_once("/r")?;
    Some((before, number.parse().ok()?))
}
