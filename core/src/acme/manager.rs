//! One certificate: what is done next to have it.

mod backoff;
mod order;

use std::collections::VecDeque;

use super::action::{Action, Kept, LEASE_SECS, Outcome, STEP_SECS, Step, Stored};
use super::advice;
use super::certificate::StoredCertificate;
use super::ledger::Ledger;
use super::problem::{Problem, ProblemKind};
use super::renewal::Plan;
use super::settings::Settings;
use crate::UnixSecs;
use crate::observe::Level;
use crate::rng::Rng;
use order::Job;

/// The folder is looked at so often, in seconds; more often if the certificate is short-lived,
const LOOK_SECS: u64 = 300;
/// and so often if there is none.
const LOOK_FOR_FIRST_SECS: u64 = 30;
/// A lease that another manager has is asked for again after 2 to this many seconds.
const LEASE_RETRY_SECS: u64 = 6;
/// The longest pause after trouble with the folder, in seconds.
const MAX_DISK_SECS: u64 = 3600;

/// One certificate: what is done next to have it. See the [module](super).
#[derive(Debug)]
pub struct Manager {
    settings: Settings,
    rng: Rng,
    ledger: Ledger,
    /// The folder's ledger is of a clock that was ahead: what it has of the future is to be saved as of now.
    unsettled: bool,
    /// What the folder has.
    certificate: Option<StoredCertificate>,
    account: bool,
    /// The [`StoredCertificate::id`] of what is used for handshakes.
    served: Option<Box<str>>,
    /// What is used could not be written to the folder, which has this one (or none) instead.
    unsaved_over: Option<Option<Box<str>>>,
    /// When to renew a certificate that the ledger has no plan for: its id, and the plan.
    own_plan: Option<(Box<str>, Plan)>,
    state: State,
    /// What was handed out, until its outcome is there.
    awaited: Option<Action>,
    /// When the lease runs out, if it is held.
    lease: Option<UnixSecs>,
    job: Job,
    look_at: UnixSecs,
    lease_at: UnixSecs,
    disk_at: UnixSecs,
    disk_failures: u32,
    /// A renewal was asked for by hand.
    renew_asked: bool,
    /// The certificate that the authority takes for replaced by another order (RFC 9773 §7.4).
    replaced: Option<Box<str>>,
    /// The settings have changed since the awaited action was handed out.
    outdated: bool,
    retired: bool,
    notes: VecDeque<Note>,
    /// What was said to be wrong with the files.
    damage: Vec<String>,
}

/// A line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// How loud it is.
    pub level: Level,
    /// The line.
    pub text: String,
}

/// Where a manager is. All but the first one are with the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Decide,
    Account { anew: bool },
    RenewalInfo,
    Begin,
    NewOrder,
    Resume,
    Authorizations,
    Validate,
    Poll,
    Finalize,
    Download,
    Store,
    Serve(Box<State>),
    Save(Box<State>),
    Pause(UnixSecs, Box<State>),
    Release,
}

impl Manager {
    /// For a certificate of the configuration. The certificate of `stored` is in use already. Random times
    /// depend on `seed` alone, which should differ between instances.
    #[must_use]
    pub fn new(settings: Settings, stored: Stored, now: UnixSecs, seed: u64) -> Self {
        let mut manager = Self {
            settings,
            rng: Rng::new(seed),
            ledger: Ledger::default(),
            unsettled: false,
            certificate: None,
            account: false,
            served: None,
            unsaved_over: None,
            own_plan: None,
            state: State::Idle,
            awaited: None,
            lease: None,
            job: Job::default(),
            look_at: 0,
            lease_at: 0,
            disk_at: 0,
            disk_failures: 0,
            renew_asked: false,
            replaced: None,
            outdated: false,
            retired: false,
            notes: VecDeque::new(),
            damage: Vec::new(),
        };
        manager.load(stored, now);
        manager.served = manager.certificate.as_ref().map(|c| c.id.clone());
        manager
    }

    /// What the certificate is ordered with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What [`Action::Save`] writes.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The certificate that the folder has, as far as is known.
    #[must_use]
    pub fn certificate(&self) -> Option<&StoredCertificate> {
        self.certificate.as_ref()
    }

    /// When the certificate could be ordered, were it wanted: after the backoff, and when the authority's
    /// limits and its `Retry-After` allow; in the past: now.
    #[must_use]
    pub fn next_attempt(&self) -> UnixSecs {
        self.ledger.may_try_at(&self.settings, self.account, false).max(self.disk_at)
    }

    /// Whether an order that [`Manager::renew`] asked for is under way, though it may pause for minutes, as
    /// the authority wishes; not if it has failed, or may not begin.
    #[must_use]
    pub fn is_renewing(&self) -> bool {
        let begun = self.state != State::Idle || self.ledger.unfinished(&self.settings).is_some();
        self.renew_asked && begun
    }

    /// When the next order is due, if nothing changes; in the past if it is due but has to wait.
    #[must_use]
    pub fn renews_at(&self) -> UnixSecs {
        self.wanted_at()
    }

    /// The lines for the log since the last call.
    pub fn notes(&mut self) -> impl Iterator<Item = Note> + '_ {
        self.notes.drain(..)
    }

    /// The configuration was read again. An order goes on if what it is made with has not changed; otherwise
    /// it is given up, and what the folder has stays in use until there is a new certificate.
    pub fn reconfigure(&mut self, settings: Settings) {
        if self.settings == settings {
            return;
        }
        let Settings { names, directory, email, key_type, profile, .. } = &self.settings;
        let same_order = (names, directory, email) == (&settings.names, &settings.directory, &settings.email)
            && (key_type, profile) == (&settings.key_type, &settings.profile);
        self.settings = settings;
        if !same_order {
            self.give_up();
        }
    }

    /// Renews the certificate now, without waiting for its time or for the backoff; the authority's limits
    /// and its `Retry-After` are kept.
    pub fn renew(&mut self) {
        self.renew_asked = true;
    }

    /// The lease of the folder has become free: it may be worth asking for it at once.
    pub fn lease_released(&mut self) {
        self.lease_at = 0;
    }

    /// The folder has changed: it is looked at soon, rather than within five minutes.
    pub fn folder_changed(&mut self) {
        self.look_at = 0;
    }

    /// The certificate is not wanted any more, or the process ends: gives the lease back and then waits
    /// for ever.
    pub fn retire(&mut self) {
        self.retired = true;
        self.give_up();
    }

    fn give_up(&mut self) {
        self.job = Job::default();
        self.look_at = 0;
        self.outdated = self.awaited.is_some();
        if self.lease.is_some() && !self.outdated {
            self.state = State::Release;
        }
    }

    /// What to do now.
    pub fn poll(&mut self, now: UnixSecs) -> Action {
        if self.awaited.is_some() {
            return Action::Wait(UnixSecs::MAX);
        }
        if self.lease.is_some_and(|until| until <= now) {
            self.note(Level::Warning, format!("{}: the lease has run out", self.settings.primary));
            self.drop_lease();
        }
        loop {
            if let Some(until) = self.lease
                && self.state != State::Release
                && !(now + LEASE_SECS / 2..=now + LEASE_SECS).contains(&until)
            {
                return self.hand_out(Action::RenewLease);
            }
            let action = match self.state.clone() {
                State::Idle => match self.idle(now) {
                    wait @ Action::Wait(_) => return wait,
                    action => action,
                },
                State::Decide => {
                    self.state = self.decide(now);
                    continue;
                }
                State::Begin => {
                    self.state = self.begin(now);
                    continue;
                }
                State::Pause(until, then) => {
                    // One that is longer was begun by another clock.
                    if now < until && until <= now + order::ORDER_SECS {
                        let renewal = |lease: UnixSecs| (lease - LEASE_SECS / 2).max(now) + 1;
                        return Action::Wait(until.min(self.lease.map_or(until, renewal)));
                    }
                    self.state = *then;
                    continue;
                }
                State::Account { anew } => Action::Step(Step::Account { anew }),
                State::RenewalInfo => match self.certificate.as_ref().and_then(|c| c.ari_id.clone()) {
                    Some(ari_id) => Action::Step(Step::RenewalInfo { ari_id }),
                    None => {
                        self.state = State::Release;
                        continue;
                    }
                },
                State::NewOrder => Action::Step(Step::NewOrder { replaces: self.job.replaces.clone() }),
                State::Resume => Action::Step(Step::Resume { url: self.job.url.clone() }),
                State::Authorizations => Action::Step(Step::Authorizations),
                State::Validate => match self.job.to_validate.front().cloned() {
                    Some((name, challenge)) => Action::Step(Step::Validate { name, challenge }),
                    None => {
                        self.state = State::Poll;
                        continue;
                    }
                },
                State::Poll => Action::Step(Step::Poll),
                State::Finalize => Action::Step(Step::Finalize),
                State::Download => Action::Step(Step::Download),
                State::Store => Action::Store,
                State::Serve(_) => Action::Serve,
                State::Save(_) => Action::Save,
                State::Release => Action::ReleaseLease,
            };
            return self.hand_out(action);
        }
    }

    fn hand_out(&mut self, action: Action) -> Action {
        self.awaited = Some(action.clone());
        action
    }

    /// Takes the outcome of the action that was handed out last.
    pub fn handle(&mut self, now: UnixSecs, outcome: Outcome) {
        let Some(action) = self.awaited.take() else { return };
        if self.lease.is_some_and(|until| until <= now) {
            // What was learnt may be outdated. What the folder has is read again with the next lease.
            self.drop_lease();
            return;
        }
        let outdated = std::mem::take(&mut self.outdated);
        match (action, outcome) {
            (Action::Look, Outcome::Stored(stored)) => {
                self.load(stored, now);
                self.disk_failures = 0;
                if self.serves_another() {
                    self.state = State::Serve(Box::new(State::Idle));
                }
            }
            (Action::Look, Outcome::Done) => self.look_later(now),
            (Action::TakeLease, Outcome::Leased { until, stored }) => {
                self.lease = Some(until);
                self.load(stored, now);
                self.state = if self.retired { State::Release } else { State::Decide };
            }
            (Action::TakeLease, Outcome::LeaseHeld) => {
                self.lease_at = now + 2 + self.rng.below(LEASE_RETRY_SECS - 1);
            }
            (Action::ReleaseLease, _) => {
                self.drop_lease();
            }
            (_, Outcome::Failed(problem)) if problem.kind == ProblemKind::LeaseLost => {
                self.note(
                    Level::Warning,
                    format!("{}: another instance has taken the lease", self.settings.primary),
                );
                self.drop_lease();
            }
            (
                Action::Look | Action::TakeLease | Action::RenewLease | Action::Save,
                Outcome::Failed(problem),
            ) => {
                self.disk_failed(&problem, now);
            }
            (Action::RenewLease, Outcome::Renewed { until }) => {
                self.lease = Some(until);
                if outdated {
                    self.state = State::Release;
                }
            }
            // The settings it was done with are not those of now.
            (_, _) if outdated && self.lease.is_some() => self.state = State::Release,
            (Action::Save, Outcome::Done) => {
                self.disk_failures = 0;
                if let State::Save(then) = &self.state {
                    self.state = (**then).clone();
                }
            }
            (Action::Serve, outcome) => self.was_served(&outcome),
            (action, outcome) => self.state = self.advance(&action, outcome, now),
        }
    }

    /// Takes in what the folder has.
    fn load(&mut self, stored: Stored, now: UnixSecs) {
        self.account = stored.account;
        if matches!((&stored.ledger, &stored.certificate), (Kept::Whole(_), Kept::Whole(_))) {
            self.damage.clear();
        }
        self.ledger = match stored.ledger {
            Kept::Nothing => Ledger::default(),
            Kept::Whole(ledger) => ledger,
            Kept::Damaged(how) => {
                self.say_damage(advice::damaged_ledger(&how));
                Ledger::after_damage(&self.settings, now)
            }
        };
        self.unsettled = self.ledger.settle(now);
        self.certificate = match stored.certificate {
            Kept::Nothing => None,
            Kept::Whole(certificate) => Some(certificate),
            Kept::Damaged(how) => {
                self.say_damage(advice::damaged_certificate(&self.settings, &how));
                None
            }
        };
        if let Some(certificate) = &self.certificate
            && self.ledger.plan(&self.settings, &certificate.id).is_none()
            && self.own_plan.as_ref().is_none_or(|(id, _)| *id != certificate.id)
        {
            self.own_plan = Some((certificate.id.clone(), Plan::of(certificate, now, &mut self.rng)));
        }
        self.look_later(now);
    }

    fn look_later(&mut self, now: UnixSecs) {
        let pause = match &self.certificate {
            Some(certificate) if certificate.not_after > now => {
                LOOK_SECS.min(certificate.not_after.saturating_sub(certificate.not_before) / 20).max(1)
            }
            _ => LOOK_FOR_FIRST_SECS,
        };
        self.look_at = now + pause;
    }

    /// When the certificate that the folder has is renewed.
    fn plan(&self) -> Option<&Plan> {
        let id = &self.certificate.as_ref()?.id;
        let own = || self.own_plan.as_ref().filter(|(of, _)| of == id).map(|(_, plan)| plan);
        self.ledger.plan(&self.settings, id).or_else(own)
    }

    /// When another certificate is wanted; 0: now.
    fn wanted_at(&self) -> UnixSecs {
        let Some(certificate) = self.certificate.as_ref().filter(|_| !self.renew_asked) else { return 0 };
        let own = || self.plan().map(|plan| plan.renew_at);
        self.ledger.renewal_of(&self.settings, certificate).or_else(own).unwrap_or(0)
    }

    /// When an order can be made or gone on with, as far as is known now.
    fn order_at(&self, now: UnixSecs) -> UnixSecs {
        let wanted = self.wanted_at();
        if wanted > now {
            return wanted;
        }
        let allowed = self.ledger.may_try_at(&self.settings, self.account, self.renew_asked);
        allowed.max(self.disk_at)
    }

    /// When the authority is asked for its window.
    fn ask_at(&self) -> UnixSecs {
        let ask_at = self.plan().and_then(|plan| plan.ask_at).filter(|_| self.account);
        let from = self.certificate.as_ref().and_then(|c| self.ledger.directory_of(&self.settings, &c.id));
        if from.is_some_and(|from| from != &*self.settings.directory) {
            return UnixSecs::MAX;
        }
        ask_at.map_or(UnixSecs::MAX, |at| at.max(self.ledger.may_ask_at(&self.settings)).max(self.disk_at))
    }

    fn idle(&mut self, now: UnixSecs) -> Action {
        if self.retired {
            return Action::Wait(UnixSecs::MAX);
        }
        // Those that are too far away are of a clock that was set back.
        self.look_at = self.look_at.min(now + LOOK_SECS);
        self.lease_at = self.lease_at.min(now + LEASE_RETRY_SECS);
        self.disk_at = self.disk_at.min(now + MAX_DISK_SECS);
        let settle_at = if self.unsettled { self.disk_at } else { UnixSecs::MAX };
        let lease_at = self.order_at(now).min(self.ask_at()).min(settle_at).max(self.lease_at);
        if lease_at <= now {
            Action::TakeLease
        } else if self.look_at <= now {
            Action::Look
        } else {
            Action::Wait(lease_at.min(self.look_at))
        }
    }

    /// With the lease and what the folder has: what there is to do.
    fn decide(&mut self, now: UnixSecs) -> State {
        let save = |then| State::Save(Box::new(then));
        if self.serves_another() {
            return State::Serve(Box::new(State::Decide));
        }
        if std::mem::take(&mut self.unsettled) {
            return save(State::Decide);
        }
        if let Some(certificate) = &self.certificate
            && self.ledger.plan(&self.settings, &certificate.id).is_none()
            && let Some((_, plan)) = self.own_plan.clone()
        {
            self.ledger.plan_renewal(&self.settings, &certificate.id, plan);
            return save(State::Decide);
        }
        if self.wanted_at() > now && self.ledger.order_ended(&self.settings) {
            return save(State::Decide);
        }
        self.job = Job::begun(now);
        if self.order_at(now) <= now {
            self.note(Level::Info, advice::ordering(&self.settings, self.certificate.as_ref(), now));
            return self.account(false, now);
        }
        if self.ask_at() <= now {
            self.job.asks_only = true;
            return State::Account { anew: false };
        }
        State::Release
    }

    /// Whether the folder has another certificate than the one that is used.
    fn serves_another(&self) -> bool {
        let Some(certificate) = &self.certificate else { return false };
        self.served.as_ref() != Some(&certificate.id)
            && self.unsaved_over.as_ref().is_none_or(|over| over.as_ref() != Some(&certificate.id))
    }

    fn was_served(&mut self, outcome: &Outcome) {
        let State::Serve(then) = self.state.clone() else { return };
        self.state = *then;
        if let Outcome::Failed(problem) = outcome {
            // It is tried again when the folder has another one: this one can't be used.
            let text = advice::not_served(&self.settings, problem);
            self.note(Level::Error, text);
        }
        match &self.job.downloaded {
            Some(certificate) => {
                self.served = Some(certificate.id.clone());
                self.unsaved_over = Some(self.certificate.as_ref().map(|c| c.id.clone()))
                    .filter(|over| over.as_ref() != Some(&certificate.id));
            }
            None => {
                self.served = self.certificate.as_ref().map(|c| c.id.clone());
                self.unsaved_over = None;
            }
        }
    }

    fn drop_lease(&mut self) {
        self.lease = None;
        self.state = State::Idle;
        self.job = Job::default();
        self.outdated = false;
    }

    /// The folder can't be used: nothing is asked of the authority that could not be noted.
    fn disk_failed(&mut self, problem: &Problem, now: UnixSecs) {
        self.disk_failures = self.disk_failures.saturating_add(1);
        let wait = backoff::after(self.disk_failures, MAX_DISK_SECS, &mut self.rng);
        self.disk_at = now + wait;
        self.look_at = self.look_at.max(now + LOOK_SECS);
        self.note(Level::Error, advice::disk(&self.settings, problem, wait));
        self.job = Job::default();
        self.state = if self.lease.is_some() { State::Release } else { State::Idle };
    }

    /// Says once what is wrong with a file, however often it is read.
    fn say_damage(&mut self, text: String) {
        if !self.damage.contains(&text) {
            self.note(Level::Warning, text.clone());
            self.damage.push(text);
        }
    }

    fn note(&mut self, level: Level, text: String) {
        /// More are not kept if nobody reads them.
        const MAX: usize = 100;
        if self.notes.len() == MAX {
            self.notes.pop_front();
        }
        self.notes.push_back(Note { level, text });
    }
}

const _: () = assert!(STEP_SECS < LEASE_SECS / 2);
