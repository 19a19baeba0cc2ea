//! What is seen of a request on its way: by an observer, and by a witness around each middleware.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::cause::Cause;
use crate::config::{self, CredentialSource};
use crate::event::{LookupResult, Query};
use crate::http::{Fields, HeaderKind, ResponseHead};
use crate::id::ConnId;
use crate::local_reply::LocalReply;
use crate::middleware::factory::{BuiltIn, MiddlewareFactory, Place};
use crate::middleware::{Action, Ctx, Middleware};
use crate::observe::{HealthChange, Level, Observer, Record, Step};
use crate::route::{PoolVerdict, Router};

/// What a middleware did.
#[derive(Clone, Debug)]
pub(super) struct Deed {
    /// Its place in the chain.
    pub(super) stage: usize,
    /// To the response, not to the request.
    pub(super) on_response: bool,
    pub(super) does: Vec<String>,
    /// It has responded.
    pub(super) responds: bool,
}

/// What all middlewares did, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Deeds(Arc<Mutex<Vec<Deed>>>);

impl Deeds {
    fn add(&self, deed: Deed) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(deed);
    }

    pub(super) fn all(&self) -> Vec<Deed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Makes the built-in middlewares, each with a witness.
#[derive(Debug)]
pub(super) struct Witnessed(pub(super) Deeds);

impl MiddlewareFactory for Witnessed {
    fn make(&self, configured: &config::Middleware, place: &Place<'_>) -> Option<Box<dyn Middleware>> {
        let inner = BuiltIn.make(configured, place)?;
        Some(Box::new(Witness { inner, deeds: self.0.clone() }))
    }
}

#[derive(Debug)]
struct Witness {
    inner: Box<dyn Middleware>,
    deeds: Deeds,
}

impl Witness {
    /// Lets the middleware act on a request, and notes what it did.
    fn watch(&self, ctx: &mut Ctx<'_>, act: impl FnOnce(&mut Ctx<'_>) -> Action) -> Action {
        let (before, limit) = (ctx.request.clone(), *ctx.body_limit);
        let action = act(ctx);
        let mut does = changes(before.fields(), ctx.request.fields());
        if before.target() != ctx.request.target() {
            does.insert(0, format!("{} becomes {}", shown(before.target()), shown(ctx.request.target())));
        }
        if *ctx.body_limit != limit {
            does.push(format!("limits the content to {} bytes", ctx.body_limit));
        }
        if ctx.put.as_ref().is_some_and(|put| put.transform.is_some()) {
            does.push("changes the content as it passes".into());
        }
        if let Some(user) = &ctx.user {
            does.push(format!("the user is {}", user.escape_debug()));
        }
        match &action {
            Action::Continue if does.is_empty() => does.push("lets it pass".into()),
            Action::Continue => {}
            Action::Respond(reply) => does.push(response(reply)),
            Action::Lookup(query) => does.push(lookup(query)),
        }
        let responds = matches!(action, Action::Respond(_));
        self.deeds.add(Deed { stage: ctx.stage, on_response: false, does, responds });
        action
    }
}

impl Middleware for Witness {
    fn on_request(&self, ctx: &mut Ctx<'_>) -> Action {
        self.watch(ctx, |ctx| self.inner.on_request(ctx))
    }

    fn on_lookup(&self, ctx: &mut Ctx<'_>, result: &LookupResult) -> Action {
        self.watch(ctx, |ctx| self.inner.on_lookup(ctx, result))
    }

    fn on_response(&self, ctx: &mut Ctx<'_>, head: &mut ResponseHead) {
        let (status, before) = (head.status(), head.clone());
        self.inner.on_response(ctx, head);
        let mut does = changes(before.fields(), head.fields());
        if head.status() != status {
            does.insert(0, format!("{} becomes {}", status.as_u16(), head.status().as_u16()));
        }
        if ctx.put.as_ref().is_some_and(|put| put.content.is_some()) {
            does.push("puts other content in its place".into());
        }
        if ctx.put.as_ref().is_some_and(|put| put.transform.is_some()) {
            does.push("changes the content as it passes".into());
        }
        if does.is_empty() {
            does.push("leaves it as it is".into());
        }
        self.deeds.add(Deed { stage: ctx.stage, on_response: true, does, responds: false });
    }

    fn sees_responses(&self) -> bool {
        self.inner.sees_responses()
    }
}

/// What is different between two heads' fields.
fn changes(before: Fields<'_>, after: Fields<'_>) -> Vec<String> {
    let lines = |fields: Fields<'_>| {
        fields.iter().map(|f| (shown(f.name), value(f.kind, f.value))).collect::<Vec<(String, String)>>()
    };
    let (before, mut came) = (lines(before), lines(after));
    let mut went = Vec::new();
    for line in before {
        match came.iter().position(|kept| *kept == line) {
            Some(at) => drop(came.remove(at)),
            None => went.push(line),
        }
    }
    let mut found = Vec::new();
    for (name, old) in went {
        let same = came.iter().position(|(other, _)| other.eq_ignore_ascii_case(&name));
        found.push(match same.map(|at| came.remove(at).1) {
            Some(new) => format!("{name}: {old} becomes {new}"),
            None => format!("removes {name}"),
        });
    }
    found.extend(came.into_iter().map(|(name, value)| format!("sets {name}: {value}")));
    found
}

/// A field's value, unless it is a password.
pub(super) fn value(kind: HeaderKind, value: &[u8]) -> String {
    match kind {
        HeaderKind::Authorization | HeaderKind::ProxyAuthorization => {
            format!("{} (not shown)", shown(value.split(|b| *b == b' ').next().unwrap_or_default()))
        }
        _ => shown(value),
    }
}

/// Bytes as text, those that cannot be shown escaped.
pub(super) fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(char::is_control) => text.into(),
        _ => bytes.escape_ascii().to_string(),
    }
}

/// A response of a middleware.
fn response(reply: &LocalReply) -> String {
    let mut text = format!("responds {}", reply.status.as_u16());
    if let Some(cause) = reply.cause {
        text.push_str(&format!(" ({})", cause.name()));
    }
    for (name, value) in &reply.fields {
        text.push_str(&format!(", {name}: {value}"));
    }
    match reply.body.bytes().len() {
        0 => {}
        bytes => text.push_str(&format!(", {bytes} bytes of content")),
    }
    text
}

/// What is asked of others.
fn lookup(query: &Query) -> String {
    match query {
        Query::Authenticate { source, user, .. } => {
            let whom = match &**source {
                CredentialSource::Directory(directory) => {
                    let scheme = if directory.secure { "ldaps" } else { "ldap" };
                    format!("would ask the directory {scheme}://{}:{}", directory.host, directory.port)
                }
                CredentialSource::Users(_) => "would look at its list of users".into(),
            };
            format!("{whom} whether the password of {} is right: here it is taken to be", user.escape_debug())
        }
        Query::Resolve { host, .. } => format!("would look up {host}"),
        Query::Metrics { .. } | Query::Status => "would make a page of the admin listener".into(),
    }
}

/// What an observer hears of the one exchange.
pub(super) struct Witnesses {
    router: Router,
    pub(super) verdicts: Option<Vec<PoolVerdict>>,
    pub(super) pool: Option<usize>,
    pub(super) target: Option<String>,
    pub(super) client: Option<IpAddr>,
    pub(super) chosen: Option<Chosen>,
    pub(super) ended: Option<(u16, Option<Cause>)>,
}

/// What came of choosing a backend.
pub(super) enum Chosen {
    /// A backend, by its label.
    Backend(String),
    /// None.
    Nobody,
}

impl Witnesses {
    pub(super) fn new(router: Router) -> Self {
        Self { router, verdicts: None, pool: None, target: None, client: None, chosen: None, ended: None }
    }
}

impl fmt::Debug for Witnesses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Witnesses").finish_non_exhaustive()
    }
}

impl Observer for Witnesses {
    fn wants_steps(&self) -> bool {
        true
    }

    fn step(&mut self, _: ConnId, step: &Step<'_>) {
        match *step {
            Step::Routed { asked, target, pool, passed } => {
                self.verdicts = Some(self.router.verdicts(asked));
                self.pool = pool.map(|_| passed);
                self.target = Some(shown(target));
                self.client = Some(asked.client);
            }
            Step::Chosen { backend, .. } => self.chosen = Some(Chosen::Backend(backend.into())),
            Step::NoneLeft { .. } | Step::Full => self.chosen = Some(Chosen::Nobody),
            _ => {}
        }
    }

    fn exchange(&mut self, record: &Record<'_>) {
        self.ended = Some((record.status, record.cause));
    }

    fn health(&mut self, _: &HealthChange<'_>) {}

    fn note(&mut self, _: Level, _: &str) {}
}

/// The lines of a head, the first one included.
pub(super) fn head_lines(bytes: &[u8]) -> Vec<String> {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n").unwrap_or(bytes.len());
    let mut lines = bytes[..end].split(|b| *b == b'\n').map(|line| line.trim_ascii_end());
    let first = lines.next().map(shown).into_iter();
    let field = |line: &[u8]| match memchr::memchr(b':', line) {
        Some(colon) => {
            let name = &line[..colon];
            let value = value(HeaderKind::of(name), line[colon + 1..].trim_ascii());
            format!("{}: {value}", shown(name))
        }
        None => shown(line),
    };
    first.chain(lines.map(field)).collect()
}
