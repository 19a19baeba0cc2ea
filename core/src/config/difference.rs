//! What a configuration changes of the one before it, in words for the log.

use std::collections::{BTreeMap, BTreeSet};

use super::model::{Config, Listener, Pool};

/// What is different in `after`: one line for each kind of thing, such as
/// `pools: +api, ~web (strategy, 2 backends added), -old`. Nothing if nothing is. What a file that they name
/// has in it is not looked at.
#[must_use]
pub fn difference(before: &Config, after: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = |kind: &str, changes: Vec<String>| {
        if !changes.is_empty() {
            lines.push(format!("{kind}: {}", changes.join(", ")));
        }
    };
    line("settings", settings(before, after));
    line("listeners", listeners(&before.listeners, &after.listeners));
    let certificate = |old, new| if old == new { Vec::new() } else { vec![String::new()] };
    let certificates = (before.certificates.iter(), after.certificates.iter());
    line("certificates", by_name(certificates, |c| &c.name, certificate));
    let pools = (before.pools.iter(), after.pools.iter());
    let mut changed = by_name(pools, |pool| &pool.name, |old, new| pool(before, old, after, new));
    let order = |config: &Config, other: &Config| {
        let others: BTreeSet<Box<str>> = other.pools.iter().map(|pool| pool.name.clone()).collect();
        let names = config.pools.iter().map(|pool| pool.name.clone());
        names.filter(|name| others.contains(name)).collect::<Vec<_>>()
    };
    if order(before, after) != order(after, before) {
        changed.push("another order".into());
    }
    line("pools", changed);
    lines
}

/// The names of settings at the top of the file.
fn settings(before: &Config, after: &Config) -> Vec<String> {
    let all = [
        ("timeouts", before.timeouts != after.timeouts),
        ("limits", before.limits != after.limits),
        ("http2", before.http2 != after.http2),
        ("trusted_proxies", before.trusted_proxies != after.trusted_proxies),
        ("via", before.via != after.via),
        ("access_log", before.access_log != after.access_log),
        ("workers", before.workers != after.workers),
        ("driver", before.driver != after.driver),
        ("user", before.user != after.user),
        ("group", before.group != after.group),
        ("watch", before.watch != after.watch),
    ];
    all.iter().filter(|(_, changed)| *changed).map(|(name, _)| (*name).to_owned()).collect()
}

/// Where is listened from now on, and where no longer.
fn listeners(before: &[Listener], after: &[Listener]) -> Vec<String> {
    let missing = |all: &[Listener], in_others: &[Listener], sign: char| -> Vec<String> {
        let same = |l: &Listener, o: &Listener| (l.address, l.kind) == (o.address, o.kind);
        let missing = all.iter().filter(|l| !in_others.iter().any(|o| same(l, o)));
        missing.map(|l| format!("{sign}{} ({})", l.address, l.kind.name())).collect()
    };
    let mut changes = missing(after, before, '+');
    changes.extend(missing(before, after, '-'));
    changes
}

/// `+new`, `~changed (how)` and `-gone`. An empty word says that something changed, and not how.
fn by_name<'c, T: 'c>(
    (before, after): (impl Iterator<Item = &'c T>, impl Iterator<Item = &'c T>),
    name: impl Fn(&'c T) -> &'c str,
    how: impl Fn(&'c T, &'c T) -> Vec<String>,
) -> Vec<String> {
    let before: Vec<&T> = before.collect();
    let mut old: BTreeMap<&str, &T> = before.iter().map(|one| (name(one), *one)).collect();
    let mut changes = Vec::new();
    for new in after {
        let name = name(new);
        let Some(old) = old.remove(name) else {
            changes.push(format!("+{name}"));
            continue;
        };
        let words = how(old, new);
        if !words.is_empty() {
            let words = words.join(", ");
            changes.push(if words.is_empty() { format!("~{name}") } else { format!("~{name} ({words})") });
        }
    }
    let gone = before.iter().map(|one| name(one)).filter(|name| old.contains_key(name));
    changes.extend(gone.map(|name| format!("-{name}")));
    changes
}

/// What has changed of a pool.
fn pool(before: &Config, old: &Pool, after: &Config, new: &Pool) -> Vec<String> {
    fn taken_from<'c>(config: &'c Config, pool: &Pool) -> Option<Vec<&'c Listener>> {
        let places = pool.listeners.as_ref()?;
        Some(places.iter().filter_map(|place| config.listeners.get(usize::from(*place))).collect())
    }
    let same_listeners = taken_from(before, old) == taken_from(after, new);
    let all = [
        ("listeners", !same_listeners),
        ("schemes", (old.http, old.https) != (new.http, new.https)),
        ("matcher", old.matcher != new.matcher),
        ("strategy", old.strategy != new.strategy),
        ("health", old.health != new.health),
        ("client", old.client != new.client),
        ("timeouts", old.timeouts != new.timeouts),
        ("limits", old.limits != new.limits),
        ("retries", (old.retries, old.retries_on_timeout) != (new.retries, new.retries_on_timeout)),
        ("lenient", old.lenient != new.lenient),
        ("middlewares", old.middlewares != new.middlewares),
    ];
    let mut words: Vec<String> =
        all.iter().filter(|(_, changed)| *changed).map(|(name, _)| (*name).to_owned()).collect();
    let olds: BTreeMap<&str, _> = old.backends.iter().map(|b| (&*b.label, b)).collect();
    let added = new.backends.iter().filter(|b| !olds.contains_key(&*b.label)).count();
    let changed = new.backends.iter().filter(|b| olds.get(&*b.label).is_some_and(|old| old != b)).count();
    let removed = old.backends.len() + added - new.backends.len();
    for (count, what) in [(added, "added"), (changed, "changed"), (removed, "removed")] {
        match count {
            0 => {}
            1 => words.push(format!("1 backend {what}")),
            _ => words.push(format!("{count} backends {what}")),
        }
    }
    words
}
