//! `[middlewares.NAME]`: middlewares that are written once and used by name in the pools.

use std::collections::{BTreeMap, BTreeSet};

use toml::de::DeValue;

use super::super::diagnostic::clip;
use super::super::literal::quote;
use super::super::middleware_settings::Middleware;
use super::super::reader::{self, Section};
use super::super::report::{Report, Span, Value};
use super::super::suggest;
use super::{MAX_MIDDLEWARES, is_kind, read};

/// The tables of `[middlewares]`, in the order of the file.
#[derive(Default)]
pub(crate) struct Named {
    chains: Vec<NamedChain>,
    /// The place of each name among them.
    places: BTreeMap<Box<str>, usize>,
}

/// Names that one that is not known is compared with.
const MAX_COMPARED: usize = 1000;

struct NamedChain {
    name: Box<str>,
    /// Where the name is written.
    span: Span,
    chain: Vec<Middleware>,
    used: bool,
}

impl Named {
    /// Reads `[middlewares]` of the file.
    pub(crate) fn read(file: &Section<'_>, report: &mut Report<'_>) -> Self {
        let section = file
            .get("middlewares")
            .and_then(|value| Section::with_any_keys(value, "`middlewares` of the file", report));
        let Some(section) = section else { return Self::default() };
        let mut found = Self::default();
        for (key, value) in section.entries() {
            let name: &str = key.get_ref();
            found.places.insert(name.into(), found.chains.len());
            if is_kind(name) && !has_kinds_only(value) {
                let message = format!("\"{name}\" is a kind of middleware: it needs a name here");
                report.error(key.span(), message).help = Some(format!(
                    "write [middlewares.NAME.{name}], or [backend_pools.middlewares.{name}] in a pool"
                ));
                // It is not said to be unused as well.
                let (chain, used) = (Vec::new(), true);
                found.chains.push(NamedChain { name: name.into(), span: key.span(), chain, used });
                continue;
            }
            let chain: Vec<Middleware> = read(value, report).into_iter().map(|(m, _)| m).collect();
            if chain.len() > MAX_MIDDLEWARES {
                too_many(key.span(), report);
            }
            if value.get_ref().as_table().is_some_and(|table| table.is_empty()) {
                report.warning(key.span(), format!("there are no middlewares in \"{}\"", clip(name)));
            }
            found.chains.push(NamedChain { name: name.into(), span: key.span(), chain, used: false });
        }
        found
    }

    /// The list `middlewares = ["NAME", …]` of a pool: the middlewares of each name in turn, each with the
    /// span of that name.
    pub(super) fn list(&mut self, items: &[Value<'_>], report: &mut Report<'_>) -> Vec<(Middleware, Span)> {
        let mut found = Vec::new();
        let mut listed = BTreeSet::new();
        for item in items {
            let Some(name) = reader::string(item, "each of `middlewares`", report) else { continue };
            if !listed.insert(name) {
                let message = format!("\"{}\" stands in this list already", clip(name));
                report.error(item.span(), message).help = Some("remove it".into());
                continue;
            }
            match self.known(name) {
                Some(known) => {
                    known.used = true;
                    found.extend(known.chain.iter().map(|middleware| (middleware.clone(), item.span())));
                }
                None => self.unknown(name, item.span(), report),
            }
            if found.len() > MAX_MIDDLEWARES {
                too_many(item.span(), report);
                break;
            }
        }
        found
    }

    fn known(&mut self, name: &str) -> Option<&mut NamedChain> {
        self.places.get(name).map(|&place| &mut self.chains[place])
    }

    fn unknown(&mut self, name: &str, span: Span, report: &mut Report<'_>) {
        let message = format!("there are no middlewares named \"{}\"", clip(name));
        let error = report.error(span.clone(), message);
        if is_kind(name) {
            let help = "it is a kind of middleware: write";
            error.help = Some(format!("{help} [backend_pools.middlewares.{name}] instead of the list"));
            return;
        }
        let names: Vec<&str> = self.chains.iter().map(|known| &*known.name).take(MAX_COMPARED).collect();
        if names.is_empty() {
            error.help = Some("they are in tables of the file: [middlewares.NAME.Compression]".into());
            return;
        }
        let near = suggest::nearest(name, &names).map(str::to_owned);
        match near {
            Some(near) => {
                error.suggest(format!("did you mean {}?", quote(&near)), span, quote(&near));
                // The one that was meant is not unused.
                if let Some(meant) = self.known(&near) {
                    meant.used = true;
                }
            }
            None => error.help = Some(format!("there are {}", names.join(", "))),
        }
    }

    /// The value `"NAME"` in the place of a list.
    pub(super) fn one(&mut self, value: &Value<'_>, name: &str, report: &mut Report<'_>) {
        let expected = "a table, or a list of names";
        let known = self.known(name);
        let error = report.mistyped(value, "`middlewares`", expected);
        if let Some(known) = known {
            known.used = true;
            error.write(format!("[{}]", quote(name)));
        }
    }

    /// Warns of names that no pool uses.
    pub(crate) fn report_unused(&self, report: &mut Report<'_>) {
        for unused in self.chains.iter().filter(|known| !known.used) {
            let message = format!("no pool uses the middlewares \"{}\"", clip(&unused.name));
            report.warning(unused.span.clone(), message).help =
                Some(format!("write `middlewares = [{}]` in a pool", quote(&unused.name)));
        }
    }
}

/// Whether a value is a table, and each of its keys is a kind of middleware.
fn has_kinds_only(value: &Value<'_>) -> bool {
    match value.get_ref() {
        DeValue::Table(table) => !table.is_empty() && table.keys().all(|key| is_kind(key.get_ref())),
        _ => false,
    }
}

fn too_many(span: Span, report: &mut Report<'_>) {
    report.error(span, format!("a pool has at most {MAX_MIDDLEWARES} middlewares"));
}
