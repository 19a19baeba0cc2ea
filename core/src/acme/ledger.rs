//! What has been asked of authorities and what went wrong: the state of the orders of one folder, which is
//! all that limits and backoff rest on. It is written before each request that counts, so that a kill never
//! makes more of them than are allowed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::certificate::StoredCertificate;
use super::challenge::Challenge;
use super::problem::{Problem, ProblemKind};
use super::renewal::Plan;
use super::settings::{Limits, Settings};
use crate::UnixSecs;

/// Windows of limits are longer by so many seconds, for the clocks of several machines.
const MARGIN: u64 = 60;
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
const FAILED_VALIDATIONS_WINDOW: u64 = HOUR + MARGIN;
const ORDERS_WINDOW: u64 = 3 * HOUR + MARGIN;
const DUPLICATES_WINDOW: u64 = 7 * DAY + MARGIN;
/// An unfinished order is forgotten so long after it was made: authorities keep them for a week, but keys
/// should be fresh.
const UNFINISHED: u64 = 3 * DAY;
/// The longest `Retry-After` that is believed.
pub(super) const MAX_RETRY_AFTER: u64 = 7 * DAY;
/// Failures of sets of names that have not changed for so long are dropped,
const FORGOTTEN: u64 = 30 * DAY;
/// and what challenge worked for them.
const LONG_FORGOTTEN: u64 = 400 * DAY;
/// Failures that are kept for each set of names.
const FAILURES: usize = 10;
/// Bytes that are kept of a problem's text.
const TEXT_BYTES: usize = 300;

/// The state of the orders of one folder; what is on disk is this, in JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ledger {
    /// By the URL of the authority's directory.
    authorities: BTreeMap<String, Authority>,
    /// The certificates in the folder, by the name of the table.
    certificates: BTreeMap<String, CertificateRecord>,
}

/// What has been asked of one authority.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Authority {
    /// It has said when to come back.
    not_before: UnixSecs,
    /// When accounts were asked for.
    accounts: Vec<UnixSecs>,
    /// When orders were made, by the e-mail address of the account.
    orders: BTreeMap<String, Vec<UnixSecs>>,
    /// When validations were asked for that failed, or whose end is not known, by name.
    validations: BTreeMap<String, Vec<UnixSecs>>,
    /// By set of names: [`Settings::name_set`].
    sets: BTreeMap<String, NameSet>,
}

/// The orders for one set of names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct NameSet {
    /// The last ones, oldest first.
    failures: Vec<Failure>,
    /// Failures since the last success.
    in_a_row: u32,
    /// The challenge to try; `None`: the preferred one.
    challenge: Option<Challenge>,
    /// Whether the next attempt is the one with the other challenge, which does not wait for the backoff.
    other_is_next: bool,
    /// The authority has said when to come back with these.
    not_before: UnixSecs,
    /// When certificates were asked for.
    issued: Vec<UnixSecs>,
    /// The order that has not ended.
    order: Option<Unfinished>,
    /// When the last certificate came.
    succeeded: Option<UnixSecs>,
}

/// An order that can be gone on with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unfinished {
    pub(super) url: Box<str>,
    /// The account that made it: its e-mail address.
    email: Box<str>,
    /// [`Settings::kind`].
    certificate: Box<str>,
    at: UnixSecs,
    /// Whether the certificate was asked for: its key is in the folder.
    pub(super) finalized: bool,
    /// The names whose validation was asked for, and when: each fails once at most.
    asked: BTreeMap<String, UnixSecs>,
}

/// A failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// When.
    pub at: UnixSecs,
    /// At which step: [`Step::label`](super::Step::label), `store` or `certificate`.
    pub step: Box<str>,
    /// What it means.
    pub kind: ProblemKind,
    /// The name that is to blame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Box<str>>,
    /// The challenge that has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<Challenge>,
    /// The problem in short, up to 300 bytes on one line.
    pub text: Box<str>,
    /// Seconds after `at` in which nothing is tried.
    pub wait: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct CertificateRecord {
    /// [`StoredCertificate::id`].
    id: Box<str>,
    /// The directory of the authority that it is from.
    directory: Box<str>,
    plan: Plan,
}

impl Ledger {
    /// In place of a damaged one: nothing is known of what was asked, so that each limit has room for one
    /// more attempt only.
    #[must_use]
    pub fn after_damage(settings: &Settings, now: UnixSecs) -> Self {
        let all_but_one = |limit: usize| vec![now; limit.saturating_sub(1).min(Limits::OTHERS.orders)];
        let mut ledger = Self::default();
        let authority = ledger.authority_mut(settings);
        authority.accounts = all_but_one(settings.limits.accounts);
        authority.orders.insert(settings.email.to_string(), all_but_one(settings.limits.orders));
        for name in &settings.names {
            let attempts = all_but_one(settings.limits.failed_validations);
            authority.validations.insert(name.to_string(), attempts);
        }
        if settings.limits.duplicates != usize::MAX {
            ledger.set_mut(settings).issued = all_but_one(settings.limits.duplicates);
        }
        ledger
    }

    /// Puts what a wrong clock has put into the future at `now`, and drops what counts no longer. Returns
    /// whether there was something in the future: unless the ledger is saved then, that never grows old.
    pub fn settle(&mut self, now: UnixSecs) -> bool {
        let future = std::cell::Cell::new(false);
        let past = |at: &mut UnixSecs| {
            if *at > now {
                // The clock of another machine may be a little fast.
                future.set(future.get() || *at > now + MARGIN);
                *at = now;
            }
        };
        let not_too_far = |at: &mut UnixSecs| {
            if *at > now + MAX_RETRY_AFTER {
                future.set(future.get() || *at > now + MAX_RETRY_AFTER + MARGIN);
                *at = now + MAX_RETRY_AFTER;
            }
        };
        let recent = |times: &mut Vec<UnixSecs>, window: u64| {
            times.iter_mut().for_each(past);
            times.retain(|at| now - at < window);
            times.sort_unstable();
        };
        for authority in self.authorities.values_mut() {
            not_too_far(&mut authority.not_before);
            recent(&mut authority.accounts, ORDERS_WINDOW);
            authority.orders.values_mut().for_each(|times| recent(times, ORDERS_WINDOW));
            authority.orders.retain(|_, times| !times.is_empty());
            authority.validations.values_mut().for_each(|times| recent(times, FAILED_VALIDATIONS_WINDOW));
            authority.validations.retain(|_, times| !times.is_empty());
            for set in authority.sets.values_mut() {
                recent(&mut set.issued, DUPLICATES_WINDOW);
                not_too_far(&mut set.not_before);
                for failure in &mut set.failures {
                    past(&mut failure.at);
                    failure.wait = failure.wait.min(MAX_RETRY_AFTER);
                }
                let excess = set.failures.len().saturating_sub(FAILURES);
                set.failures.drain(..excess);
                if let Some(order) = &mut set.order {
                    past(&mut order.at);
                    order.asked.values_mut().for_each(past);
                }
                set.order.take_if(|order| now - order.at >= UNFINISHED);
                set.succeeded.iter_mut().for_each(past);
            }
            authority.sets.retain(|_, set| {
                let age = now - set.touched();
                if age >= FORGOTTEN {
                    set.failures.clear();
                }
                age < if set.succeeded.is_some() { LONG_FORGOTTEN } else { FORGOTTEN }
            });
        }
        self.authorities
            .retain(|_, a| *a != Authority { not_before: a.not_before.min(now), ..Authority::default() });
        self.certificates.retain(|_, c| now < c.plan.not_after.saturating_add(FORGOTTEN));
        future.get()
    }

    /// Notes that an account is asked for.
    pub(super) fn account_asked(&mut self, settings: &Settings, now: UnixSecs) {
        self.authority_mut(settings).accounts.push(now);
    }

    /// Notes that an order is asked for.
    pub(super) fn order_asked(&mut self, settings: &Settings, now: UnixSecs) {
        self.authority_mut(settings).orders.entry(settings.email.to_string()).or_default().push(now);
    }

    /// Notes the order that was made.
    pub(super) fn order_made(&mut self, settings: &Settings, url: &str, now: UnixSecs) {
        self.set_mut(settings).order = Some(Unfinished {
            url: url.into(),
            email: settings.email.clone(),
            certificate: settings.kind().into(),
            at: now,
            finalized: false,
            asked: BTreeMap::new(),
        });
    }

    /// The order that has not ended.
    pub(super) fn unfinished(&self, settings: &Settings) -> Option<&Unfinished> {
        self.set(settings)?
            .order
            .as_ref()
            .filter(|order| order.email == settings.email && *order.certificate == *settings.kind())
    }

    /// Forgets the order that has not ended. Returns whether there was one.
    pub(super) fn order_ended(&mut self, settings: &Settings) -> bool {
        self.set(settings).is_some_and(|set| set.order.is_some())
            && self.set_mut(settings).order.take().is_some()
    }

    /// Notes that the validation of a name is asked for, unless it was already asked for in this order: until
    /// it has succeeded it counts as failed. Returns whether it is new.
    pub(super) fn validation_asked(&mut self, settings: &Settings, name: &str, now: UnixSecs) -> bool {
        if let Some(order) = &mut self.set_mut(settings).order {
            if order.asked.contains_key(name) {
                return false;
            }
            order.asked.insert(name.into(), now);
        }
        self.authority_mut(settings).validations.entry(name.into()).or_default().push(now);
        true
    }

    /// Whether the validation of a name was asked for in this order.
    pub(super) fn is_validation_asked(&self, settings: &Settings, name: &str) -> bool {
        self.unfinished(settings).is_some_and(|order| order.asked.contains_key(name))
    }

    /// Notes that the validation of a name has succeeded.
    pub(super) fn validated(&mut self, settings: &Settings, name: &str) {
        let Some(order) = &mut self.set_mut(settings).order else { return };
        let Some(at) = order.asked.remove(name) else { return };
        if let Some(times) = self.authority_mut(settings).validations.get_mut(name)
            && let Some(place) = times.iter().rposition(|&asked| asked == at)
        {
            times.remove(place);
        }
    }

    /// Notes that a certificate is asked for: one for each order. Returns whether it is the first time.
    pub(super) fn certificate_asked(&mut self, settings: &Settings, now: UnixSecs) -> bool {
        let limited = settings.limits.duplicates != usize::MAX;
        let set = self.set_mut(settings);
        let asked = set.order.as_mut().is_some_and(|order| std::mem::replace(&mut order.finalized, true));
        if limited && !asked {
            set.issued.push(now);
        }
        !asked
    }

    /// Notes that the certificate that was asked for last has been refused.
    pub(super) fn certificate_refused(&mut self, settings: &Settings) {
        self.set_mut(settings).issued.pop();
    }

    /// Notes that a certificate has come, and when it will be renewed.
    pub(super) fn succeeded(&mut self, settings: &Settings, id: &str, plan: Plan, now: UnixSecs) {
        let set = self.set_mut(settings);
        set.in_a_row = 0;
        set.other_is_next = false;
        set.not_before = 0;
        set.order = None;
        set.succeeded = Some(now);
        self.plan_renewal(settings, id, plan);
    }

    /// Notes when a certificate will be renewed.
    pub(super) fn plan_renewal(&mut self, settings: &Settings, id: &str, plan: Plan) {
        let record = CertificateRecord { id: id.into(), directory: settings.directory.clone(), plan };
        self.certificates.insert(settings.primary.to_string(), record);
    }

    /// When a certificate will be renewed; `None` if nothing is known of it.
    pub(super) fn plan(&self, settings: &Settings, id: &str) -> Option<&Plan> {
        self.certificates.get(&*settings.primary).filter(|c| &*c.id == id).map(|c| &c.plan)
    }

    /// When this certificate will be renewed; `None` if that is not known.
    pub(super) fn renewal_of(
        &self,
        settings: &Settings,
        certificate: &StoredCertificate,
    ) -> Option<UnixSecs> {
        let covers = settings.names.iter().all(|name| certificate.names.contains(name));
        let from = self.directory_of(settings, &certificate.id);
        if !covers || from.is_some_and(|from| from != &*settings.directory) {
            return Some(0);
        }
        self.plan(settings, &certificate.id).map(|plan| plan.renew_at)
    }

    /// The directory of the authority that a certificate is from; `None` if that is not known.
    pub(super) fn directory_of(&self, settings: &Settings, id: &str) -> Option<&str> {
        self.certificates.get(&*settings.primary).filter(|c| &*c.id == id).map(|c| &*c.directory)
    }

    /// Notes a failure.
    pub(super) fn failed(&mut self, settings: &Settings, failure: Failed<'_>, wait: u64, now: UnixSecs) {
        let Failed { step, problem, challenge, try_other } = failure;
        let name_only = if problem.acme_type.is_empty() { "" } else { ": " };
        let text = format!("{}{name_only}{}", problem.acme_type, problem.text);
        let until = problem.retry_after.map_or(0, |secs| now + secs.min(MAX_RETRY_AFTER));
        if (problem.kind == ProblemKind::Busy && step != "poll") || step == "account" {
            let authority = self.authority_mut(settings);
            authority.not_before = authority.not_before.max(until);
        }
        let set = self.set_mut(settings);
        set.not_before = set.not_before.max(until);
        if !try_other {
            set.in_a_row = set.in_a_row.saturating_add(1);
        }
        set.other_is_next = try_other;
        if let Some(challenge) = challenge.filter(|_| settings.challenges.len() > 1) {
            set.challenge = Some(challenge.other());
        }
        set.failures.push(Failure {
            at: now,
            step: step.into(),
            kind: problem.kind,
            name: problem.name.clone(),
            challenge,
            text: in_short(&text).into(),
            wait,
        });
        let excess = set.failures.len().saturating_sub(FAILURES);
        set.failures.drain(..excess);
    }

    /// Failures of the set of names since its last success.
    pub(super) fn in_a_row(&self, settings: &Settings) -> u32 {
        self.set(settings).map_or(0, |set| set.in_a_row)
    }

    /// Whether the attempt under way is the one with the other challenge.
    pub(super) fn other_is_tried(&self, settings: &Settings) -> bool {
        self.set(settings).is_some_and(|set| set.other_is_next)
    }

    /// Keeps `Retry-After` of an order that is under way.
    pub(super) fn wait_for_order(&mut self, settings: &Settings, until: UnixSecs) {
        self.set_mut(settings).not_before = until;
    }

    /// The challenge to try for a name.
    pub(super) fn challenge(&self, settings: &Settings, offered: &[Challenge]) -> Option<Challenge> {
        let fits = |c: &Challenge| settings.challenges.contains(c) && offered.contains(c);
        let wanted = self.set(settings).and_then(|set| set.challenge).filter(|c| fits(c));
        wanted.or_else(|| settings.challenges.iter().copied().find(|c| fits(c)))
    }

    /// The last failure of the set of names, if there was no success since then.
    #[must_use]
    pub fn last_failure(&self, settings: &Settings) -> Option<&Failure> {
        let set = self.set(settings)?;
        let since = |failure: &&Failure| set.succeeded.is_none_or(|at| failure.at >= at);
        set.failures.last().filter(|_| set.in_a_row > 0 || set.other_is_next).filter(since)
    }

    /// When the set of names may be tried again: after the backoff (unless `at_once`), and when the authority
    /// has said and when its limits allow. 0: now.
    pub(super) fn may_try_at(&self, settings: &Settings, account: bool, at_once: bool) -> UnixSecs {
        let Some(authority) = self.authorities.get(&*settings.directory) else { return 0 };
        let limits = &settings.limits;
        let mut at = authority.not_before;
        if !account {
            at = at.max(free_at(&authority.accounts, limits.accounts, ORDERS_WINDOW));
        }
        for name in &settings.names {
            if let Some(times) = authority.validations.get(&**name) {
                at = at.max(free_at(times, limits.failed_validations, FAILED_VALIDATIONS_WINDOW));
            }
        }
        let unfinished = self.unfinished(settings);
        if unfinished.is_none()
            && let Some(times) = authority.orders.get(&*settings.email)
        {
            at = at.max(free_at(times, limits.orders, ORDERS_WINDOW));
        }
        let Some(set) = self.set(settings) else { return at };
        if !unfinished.is_some_and(|order| order.finalized) {
            at = at.max(free_at(&set.issued, limits.duplicates, DUPLICATES_WINDOW));
        }
        let backoff = set.failures.last().filter(|_| set.in_a_row > 0 || set.other_is_next);
        if let Some(failure) = backoff.filter(|_| !at_once) {
            at = at.max(failure.at.saturating_add(failure.wait));
        }
        at.max(set.not_before)
    }

    /// Whether one more account may be asked for.
    pub(super) fn may_make_account(&self, settings: &Settings, now: UnixSecs) -> bool {
        let Some(authority) = self.authorities.get(&*settings.directory) else { return true };
        free_at(&authority.accounts, settings.limits.accounts, ORDERS_WINDOW) <= now
    }

    /// Whether one more order may be asked for.
    pub(super) fn may_order(&self, settings: &Settings, now: UnixSecs) -> bool {
        let times = self.authorities.get(&*settings.directory).and_then(|a| a.orders.get(&*settings.email));
        times.is_none_or(|times| free_at(times, settings.limits.orders, ORDERS_WINDOW) <= now)
    }

    /// Whether a validation of this name may be asked for.
    pub(super) fn may_validate(&self, settings: &Settings, name: &str, now: UnixSecs) -> bool {
        let times = self.authorities.get(&*settings.directory).and_then(|a| a.validations.get(name));
        let limit = settings.limits.failed_validations;
        times.is_none_or(|times| free_at(times, limit, FAILED_VALIDATIONS_WINDOW) <= now)
    }

    /// Whether one more certificate for the very same names may be asked for.
    pub(super) fn may_finalize(&self, settings: &Settings, now: UnixSecs) -> bool {
        let limit = settings.limits.duplicates;
        self.set(settings).is_none_or(|set| free_at(&set.issued, limit, DUPLICATES_WINDOW) <= now)
    }

    /// When the authority may be asked anything.
    pub(super) fn may_ask_at(&self, settings: &Settings) -> UnixSecs {
        self.authorities.get(&*settings.directory).map_or(0, |authority| authority.not_before)
    }

    fn authority_mut(&mut self, settings: &Settings) -> &mut Authority {
        self.authorities.entry(settings.directory.to_string()).or_default()
    }

    fn set(&self, settings: &Settings) -> Option<&NameSet> {
        self.authorities.get(&*settings.directory)?.sets.get(&settings.name_set())
    }

    fn set_mut(&mut self, settings: &Settings) -> &mut NameSet {
        self.authority_mut(settings).sets.entry(settings.name_set()).or_default()
    }
}

/// A failure to be noted.
pub(super) struct Failed<'a> {
    pub(super) step: &'static str,
    pub(super) problem: &'a Problem,
    pub(super) challenge: Option<Challenge>,
    /// Whether the other challenge is tried next, at once.
    pub(super) try_other: bool,
}

impl NameSet {
    /// When it was last changed.
    fn touched(&self) -> UnixSecs {
        let failed = self.failures.last().map(|failure| failure.at);
        let issued = self.issued.last().copied();
        let ordered = self.order.as_ref().map(|order| order.at);
        [failed, issued, ordered, self.succeeded].into_iter().flatten().max().unwrap_or(0)
    }
}

/// When one more is allowed, if `times` are sorted and at most `limit` are allowed within `window` seconds;
/// 0: now.
fn free_at(times: &[UnixSecs], limit: usize, window: u64) -> UnixSecs {
    match times.len().checked_sub(limit) {
        Some(place) => times.get(place).map_or(UnixSecs::MAX, |at| at.saturating_add(window)),
        None => 0,
    }
}

/// On one line, and not too long.
pub(super) fn in_short(text: &str) -> String {
    let mut short = String::new();
    for c in text.chars() {
        let c = if c.is_control() { ' ' } else { c };
        if short.len() + c.len_utf8() > TEXT_BYTES - 3 {
            short.push('…');
            break;
        }
        short.push(c);
    }
    short
}
