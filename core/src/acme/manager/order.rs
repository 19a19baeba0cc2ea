//! An order, from the account to the certificate that is used.

use std::collections::VecDeque;

use super::{Manager, State, backoff};
use crate::UnixSecs;
use crate::acme::action::{
    Action, Authorization, AuthorizationStatus, LEASE_SECS, Order, OrderStatus, Outcome, Step,
};
use crate::acme::advice;
use crate::acme::certificate::StoredCertificate;
use crate::acme::challenge::Challenge;
use crate::acme::ledger::{Failed, MAX_RETRY_AFTER, in_short};
use crate::acme::problem::{Problem, ProblemKind};
use crate::acme::renewal::Plan;
use crate::observe::Level;

/// An order is given so many seconds at a time, in which other certificates of the folder have to wait.
pub(super) const ORDER_SECS: u64 = 300;
/// A step is repeated so often at once if the authority does not answer,
const REPEATS: u32 = 3;
/// and so often after `badNonce`.
const BAD_NONCES: u32 = 6;
/// The longest `Retry-After`, in seconds, that is waited for with the lease held.
const SHORT_PAUSE: u64 = LEASE_SECS / 2;
/// The pause before the other challenge is tried.
const OTHER_CHALLENGE_SECS: u64 = 5;
/// An order that has failed so often in a row is not gone on with.
const ATTEMPTS_WITH_AN_ORDER: u32 = 4;
const DAY: u64 = 86_400;
const HOUR: u64 = 3600;

/// What is under way while the lease is held.
#[derive(Debug, Default)]
pub(super) struct Job {
    started: UnixSecs,
    /// The authority is asked for its window, not for a certificate.
    pub(super) asks_only: bool,
    pub(super) url: Box<str>,
    pub(super) replaces: Option<Box<str>>,
    pub(super) to_validate: VecDeque<(Box<str>, Challenge)>,
    pub(super) downloaded: Option<StoredCertificate>,
    /// Challenges have been answered.
    answered: bool,
    /// Why the authority calls the order invalid.
    invalid: Option<Problem>,
    /// The account was forgotten, or the order.
    account_made: bool,
    order_made: bool,
    /// The certificate is asked for the first time: if that is refused, it was not made.
    first_finalize: bool,
    /// How often the step under way was repeated.
    repeats: u32,
    /// How often the order was read since it last changed.
    reads: u32,
    /// The order is not to be read before: the authority's last `Retry-After`.
    read_at: UnixSecs,
}

impl Job {
    pub(super) fn begun(now: UnixSecs) -> Self {
        Self { started: now, ..Self::default() }
    }

    /// The seconds that are left of the authority's last `Retry-After`; none after the clock was set back.
    fn retry_after(&self, now: UnixSecs) -> Option<u64> {
        Some(self.read_at.saturating_sub(now)).filter(|left| *left > 0 && now >= self.started)
    }
}

impl Manager {
    /// The account first; one that has to be made counts.
    pub(super) fn account(&mut self, anew: bool, now: UnixSecs) -> State {
        let state = State::Account { anew };
        if self.account && !anew {
            return state;
        }
        self.ledger.account_asked(&self.settings, now);
        State::Save(Box::new(state))
    }

    /// The order of an earlier run, or a new one, which counts.
    pub(super) fn begin(&mut self, now: UnixSecs) -> State {
        if let Some(order) = self.ledger.unfinished(&self.settings) {
            self.job.url = order.url.clone();
            return State::Resume;
        }
        if !self.ledger.may_order(&self.settings, now) {
            return State::Save(Box::new(State::Release));
        }
        // Only an authority that has named a window knows the field (RFC 9773 §5).
        let knows = self.plan().is_some_and(|plan| plan.window.is_some());
        let from = self.certificate.as_ref().filter(|c| {
            knows && self.ledger.directory_of(&self.settings, &c.id) == Some(&*self.settings.directory)
        });
        let ari_id = from.and_then(|certificate| certificate.ari_id.clone());
        self.job.replaces = ari_id.filter(|id| self.replaced.as_ref() != Some(id));
        self.ledger.order_asked(&self.settings, now);
        State::Save(Box::new(State::NewOrder))
    }

    /// What follows an outcome.
    pub(super) fn advance(&mut self, action: &Action, outcome: Outcome, now: UnixSecs) -> State {
        let save = |then| State::Save(Box::new(then));
        let step = match action {
            Action::Step(step) => step.label(),
            _ => "store",
        };
        if !matches!(outcome, Outcome::Failed(_)) {
            self.job.repeats = 0;
        }
        match (action, outcome) {
            (Action::Step(asked), Outcome::Failed(problem)) => self.step_failed(asked, problem, now),
            (Action::Step(Step::Account { .. }), Outcome::Done) => {
                self.account = true;
                if self.job.asks_only { State::RenewalInfo } else { State::Begin }
            }
            (Action::Step(Step::RenewalInfo { .. }), Outcome::RenewalInfo(info)) => {
                if let (Some(certificate), Some(mut plan)) = (self.certificate.clone(), self.plan().cloned())
                {
                    match info {
                        Some(info) => {
                            plan.follow(&certificate, &info, now, &mut self.rng);
                            if let Some(page) = &info.explanation {
                                let text = format!(
                                    "{}: {} has something to say about the renewal: {}",
                                    self.settings.primary,
                                    self.settings.authority(),
                                    in_short(page)
                                );
                                self.note(Level::Info, text);
                            }
                        }
                        None => plan.ask_later(&certificate, Some(DAY), now),
                    }
                    self.ledger.plan_renewal(&self.settings, &certificate.id, plan);
                }
                save(State::Decide)
            }
            (Action::Step(Step::NewOrder { .. }), Outcome::Order(order)) => {
                self.ledger.order_made(&self.settings, &order.url, now);
                self.job.url = order.url.clone();
                save(self.follow(order, now))
            }
            (Action::Step(Step::Resume { .. } | Step::Poll | Step::Finalize), Outcome::Order(order)) => {
                self.follow(order, now)
            }
            (Action::Step(Step::Authorizations), Outcome::Authorizations(list)) => self.authorize(&list, now),
            (Action::Step(Step::Validate { .. }), Outcome::Done) => {
                self.job.to_validate.pop_front();
                self.job.answered = true;
                match self.job.to_validate.is_empty() {
                    true => match self.job.retry_after(now) {
                        None => State::Pause(now + 1, Box::new(State::Poll)),
                        retry_after => self.read_later(retry_after, true, now),
                    },
                    false => State::Validate,
                }
            }
            (Action::Step(Step::Download), Outcome::Certificate { certificate, key_fits }) => {
                match self.judge(&certificate, key_fits, now) {
                    Some(text) => self.failed(step, Problem::new(ProblemKind::BadAnswer, text), None, now),
                    None => {
                        self.job.downloaded = Some(certificate);
                        State::Store
                    }
                }
            }
            (Action::Store, Outcome::Done) => {
                let Some(certificate) = self.job.downloaded.clone() else { return State::Release };
                let plan = Plan::of(&certificate, now, &mut self.rng);
                self.note(Level::Info, advice::obtained(&self.settings, &certificate, &plan));
                self.ledger.succeeded(&self.settings, &certificate.id, plan, now);
                self.certificate = Some(certificate);
                self.renew_asked = false;
                State::Serve(Box::new(save(State::Release)))
            }
            (Action::Store, Outcome::Failed(problem)) => {
                // It is good all the same. The order can be read again, with its key from the folder.
                let certificate = self.job.downloaded.take();
                self.disk_failed(&problem, now);
                self.job.downloaded = certificate;
                State::Serve(Box::new(State::Release))
            }
            (_, outcome) => {
                let text = format!("an outcome that does not belong to it: {outcome:?}");
                self.failed(step, Problem::new(ProblemKind::BadAnswer, text), None, now)
            }
        }
    }

    /// What an order is in need of.
    fn follow(&mut self, order: Order, now: UnixSecs) -> State {
        self.job.read_at = now.saturating_add(order.retry_after.unwrap_or(0));
        match order.status {
            OrderStatus::Pending if self.job.answered => self.read_later(order.retry_after, true, now),
            OrderStatus::Pending => State::Authorizations,
            OrderStatus::Ready => {
                for name in self.settings.names.clone() {
                    self.ledger.validated(&self.settings, &name);
                }
                let asked = self.ledger.unfinished(&self.settings).is_some_and(|order| order.finalized);
                if !asked && !self.ledger.may_finalize(&self.settings, now) {
                    return State::Save(Box::new(State::Release));
                }
                self.job.reads = 0;
                self.job.first_finalize = self.ledger.certificate_asked(&self.settings, now);
                State::Save(Box::new(State::Finalize))
            }
            OrderStatus::Processing => self.read_later(order.retry_after, false, now),
            OrderStatus::Valid => State::Download,
            OrderStatus::Invalid => {
                let unknown = || Problem::new(ProblemKind::Rejected, "the order is invalid");
                self.job.invalid = Some(order.problem.unwrap_or_else(unknown));
                State::Authorizations
            }
        }
    }

    /// Reads the order again, after a second and then less and less often, or when the authority has said.
    /// `answers`: it is about answers to challenges, which are there only while the lease is held.
    fn read_later(&mut self, retry_after: Option<u64>, answers: bool, now: UnixSecs) -> State {
        let pause = retry_after.unwrap_or_else(|| u64::from(self.job.reads + 1).min(10)).max(1);
        let left = (self.job.started + ORDER_SECS).saturating_sub(now);
        if left == 0 || (answers && left < pause && pause <= ORDER_SECS) || now < self.job.started {
            let text = format!("the authority has not decided within {ORDER_SECS} seconds");
            let problem = Problem { retry_after, ..Problem::new(ProblemKind::Busy, text) };
            return self.failed("poll", problem, None, now);
        }
        self.job.reads += 1;
        if pause > if answers { ORDER_SECS } else { SHORT_PAUSE } {
            self.ledger.wait_for_order(&self.settings, now.saturating_add(pause.min(MAX_RETRY_AFTER)));
            return State::Save(Box::new(State::Release));
        }
        State::Pause(now + pause, Box::new(State::Poll))
    }

    /// Answers the challenges of names that are not yet authorized.
    fn authorize(&mut self, list: &[Authorization], now: UnixSecs) -> State {
        let failed = list.iter().find(|a| a.status == AuthorizationStatus::Invalid);
        if failed.is_some() || self.job.invalid.is_some() {
            return self.invalid(failed, list, now);
        }
        let mut changed = false;
        for authorization in list {
            let name = &authorization.name;
            if authorization.status == AuthorizationStatus::Valid {
                self.ledger.validated(&self.settings, name);
                continue;
            }
            let Some(challenge) = self.ledger.challenge(&self.settings, &authorization.offered) else {
                let text = advice::no_challenge(&self.settings, &authorization.offered);
                let problem =
                    Problem { name: Some(name.clone()), ..Problem::new(ProblemKind::Rejected, text) };
                return self.failed("authorizations", problem, None, now);
            };
            self.job.to_validate.push_back((name.clone(), challenge));
        }
        for (name, _) in self.job.to_validate.clone() {
            if self.ledger.is_validation_asked(&self.settings, &name) {
                continue;
            }
            if !self.ledger.may_validate(&self.settings, &name, now) {
                self.job.to_validate.clear();
                return State::Save(Box::new(State::Release));
            }
            changed |= self.ledger.validation_asked(&self.settings, &name, now);
        }
        self.job.answered = true;
        if self.job.to_validate.is_empty() {
            return self.read_later(self.job.retry_after(now), true, now);
        }
        if changed { State::Save(Box::new(State::Validate)) } else { State::Validate }
    }

    /// A name was not authorized, or the order is invalid for another reason.
    fn invalid(&mut self, failed: Option<&Authorization>, list: &[Authorization], now: UnixSecs) -> State {
        for valid in list.iter().filter(|a| a.status == AuthorizationStatus::Valid) {
            self.ledger.validated(&self.settings, &valid.name);
        }
        let order = self.job.invalid.take();
        let Some(failed) = failed else {
            let unknown = || Problem::new(ProblemKind::Rejected, "the order is invalid");
            return self.failed("poll", order.unwrap_or_else(unknown), None, now);
        };
        let unknown = || Problem::new(ProblemKind::Validation, "the authorization is invalid");
        let mut problem = failed.problem.clone().or(order).unwrap_or_else(unknown);
        problem.kind = ProblemKind::Validation;
        problem.name = Some(failed.name.clone());
        let tried = || self.ledger.challenge(&self.settings, &failed.offered);
        let challenge = failed.failed.or_else(tried);
        self.failed("validate", problem, challenge, now)
    }

    /// What is wrong with a certificate that has come; `None`: nothing.
    fn judge(&self, certificate: &StoredCertificate, key_fits: bool, now: UnixSecs) -> Option<String> {
        let missing = self.settings.names.iter().find(|name| !certificate.names.contains(name));
        if !key_fits {
            Some("the certificate is for another key".into())
        } else if let Some(name) = missing {
            Some(format!("the certificate is not for {name}"))
        } else if certificate.not_after <= now {
            Some("the certificate has expired already; is the clock of this machine right?".into())
        } else if certificate.not_before > now + DAY {
            Some("the certificate is not valid before tomorrow; is the clock of this machine right?".into())
        } else {
            None
        }
    }

    /// A step has failed: it is repeated, gone around, or ends the attempt.
    fn step_failed(&mut self, step: &Step, problem: Problem, now: UnixSecs) -> State {
        use ProblemKind as Kind;
        if let Step::RenewalInfo { .. } = step {
            if let (Some(certificate), Some(mut plan)) = (self.certificate.clone(), self.plan().cloned()) {
                plan.ask_later(&certificate, problem.retry_after, now);
                self.ledger.plan_renewal(&self.settings, &certificate.id, plan);
                self.note(Level::Warning, advice::no_renewal_info(&self.settings, &problem));
            }
            return State::Save(Box::new(State::Decide));
        }
        if let Step::Finalize = step
            && problem.kind != Kind::BadNonce
            && std::mem::take(&mut self.job.first_finalize)
            && matches!(problem.kind, Kind::Rejected | Kind::RateLimited)
        {
            self.ledger.certificate_refused(&self.settings);
        }
        // A new order may have been made though there was no answer.
        let repeatable = match problem.kind {
            Kind::BadNonce => self.job.repeats < BAD_NONCES,
            Kind::Unreachable | Kind::Busy => {
                self.job.repeats < REPEATS && !matches!(step, Step::NewOrder { .. })
            }
            _ => false,
        };
        let pause = problem.retry_after.unwrap_or(1 << self.job.repeats.min(5)).max(1);
        if repeatable && pause <= SHORT_PAUSE {
            self.job.repeats += 1;
            let again = match step {
                // It may have arrived.
                Step::Finalize if problem.kind != Kind::BadNonce => State::Poll,
                _ => self.state.clone(),
            };
            return State::Pause(now + pause, Box::new(again));
        }
        match problem.kind {
            Kind::NoAccount
                if self.ledger.may_make_account(&self.settings, now)
                    && !std::mem::replace(&mut self.job.account_made, true) =>
            {
                self.ledger.order_ended(&self.settings);
                self.note(Level::Warning, advice::no_account(&self.settings));
                self.account(true, now)
            }
            Kind::NoOrder if !std::mem::replace(&mut self.job.order_made, true) => {
                self.ledger.order_ended(&self.settings);
                self.job.answered = false;
                State::Begin
            }
            Kind::AlreadyReplaced if self.job.replaces.is_some() => {
                self.replaced = self.job.replaces.take();
                State::Begin
            }
            Kind::Disk => {
                self.disk_failed(&problem, now);
                State::Release
            }
            _ => {
                let challenge = match step {
                    Step::Validate { challenge, .. } => Some(*challenge),
                    _ => None,
                };
                self.failed(step.label(), problem, challenge, now)
            }
        }
    }

    /// Ends the attempt and notes why.
    fn failed(
        &mut self,
        step: &'static str,
        problem: Problem,
        challenge: Option<Challenge>,
        now: UnixSecs,
    ) -> State {
        use ProblemKind as Kind;
        let settings = &self.settings;
        let in_a_row = self.ledger.in_a_row(settings) + 1;
        let passing = matches!(problem.kind, Kind::Unreachable | Kind::Busy | Kind::BadNonce);
        let try_other = problem.kind == Kind::Validation
            && settings.challenges.len() > 1
            && !self.ledger.other_is_tried(settings);
        let mut wait = if try_other {
            OTHER_CHALLENGE_SECS
        } else {
            backoff::after(in_a_row, if passing { HOUR } else { DAY }, &mut self.rng)
        };
        // The nearer its end, the more often.
        if let Some(left) = self.certificate.as_ref().and_then(|c| c.not_after.checked_sub(now)) {
            wait = wait.min((left / 4).max(60));
        }
        if !passing || in_a_row.is_multiple_of(ATTEMPTS_WITH_AN_ORDER) {
            self.ledger.order_ended(settings);
        }
        let failure = Failed { step, problem: &problem, challenge, try_other };
        self.ledger.failed(settings, failure, wait, now);
        let at = self.ledger.may_try_at(settings, self.account, false).max(now);
        let text = advice::failed(settings, step, &problem, challenge, self.certificate.as_ref(), at - now);
        self.note(if try_other { Level::Warning } else { Level::Error }, text);
        self.renew_asked = false;
        State::Save(Box::new(State::Release))
    }
}
