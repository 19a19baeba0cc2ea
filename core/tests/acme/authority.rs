//! An authority with limits like those of Let's Encrypt, which counts every request and forgets none.

use std::collections::{BTreeMap, BTreeSet};

use ruststrom_core::acme::{
    Authorization, AuthorizationStatus, Challenge, Limits, Order, OrderStatus, Outcome, Problem, ProblemKind,
    RenewalInfo, StoredCertificate,
};
use ruststrom_core::rng::Rng;

pub(crate) const HOUR: u64 = 3600;
pub(crate) const DAY: u64 = 24 * HOUR;

/// Who asks: instance, table and incarnation.
pub(crate) type Asker = (usize, usize, u64);

/// How wrong the authority's answers are, in percent of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lies {
    pub(crate) certificates: u64,
    pub(crate) orders: u64,
    pub(crate) windows: u64,
}

#[derive(Clone, Debug)]
struct Made {
    account: u64,
    names: Vec<Box<str>>,
    status: OrderStatus,
    authorizations: BTreeMap<Box<str>, (AuthorizationStatus, Option<Challenge>)>,
    /// The key that it was finalized with, and when the certificate is there.
    finalized: Option<(u64, u64)>,
    replaces: Option<Box<str>>,
    at: u64,
    /// A lie: its validations never end.
    stuck: bool,
}

/// A validation that is under way.
#[derive(Clone, Debug)]
pub(crate) struct Validation {
    pub(crate) at: u64,
    pub(crate) order: Box<str>,
    pub(crate) name: Box<str>,
    pub(crate) challenge: Challenge,
    pub(crate) asker: Asker,
}

#[derive(Debug)]
pub(crate) struct Authority {
    pub(crate) limits: Limits,
    pub(crate) lifetime: u64,
    /// Whether it has windows for renewals.
    pub(crate) windows: bool,
    pub(crate) lies: Lies,
    orders: BTreeMap<Box<str>, Made>,
    accounts: BTreeSet<u64>,
    pub(crate) validations: Vec<Validation>,
    replaced: BTreeSet<Box<str>>,
    certificates: u64,
    /// Times of what counts against a limit.
    made_accounts: Vec<u64>,
    made_orders: BTreeMap<u64, Vec<u64>>,
    failures: BTreeMap<Box<str>, Vec<u64>>,
    finalized: BTreeMap<String, Vec<u64>>,
    /// Names that are authorized, until then.
    authorized: BTreeMap<Box<str>, u64>,
    pub(crate) broken: Vec<String>,
    pub(crate) issued: u64,
    pub(crate) failed: u64,
    pub(crate) orders_made: u64,
}

fn problem(kind: ProblemKind, text: &str) -> Outcome {
    Outcome::Failed(Problem::new(kind, text))
}

impl Authority {
    pub(crate) fn new(limits: Limits, lifetime: u64, windows: bool) -> Self {
        Self {
            limits,
            lifetime,
            windows,
            lies: Lies::default(),
            orders: BTreeMap::new(),
            accounts: BTreeSet::new(),
            validations: Vec::new(),
            replaced: BTreeSet::new(),
            certificates: 0,
            made_accounts: Vec::new(),
            made_orders: BTreeMap::new(),
            failures: BTreeMap::new(),
            finalized: BTreeMap::new(),
            authorized: BTreeMap::new(),
            broken: Vec::new(),
            issued: 0,
            failed: 0,
            orders_made: 0,
        }
    }

    fn count(
        broken: &mut Vec<String>,
        times: &mut Vec<u64>,
        now: u64,
        limit: usize,
        window: u64,
        what: &str,
    ) {
        times.retain(|&at| now - at < window);
        times.push(now);
        if times.len() > limit {
            broken.push(format!("{what}: {} within {window} seconds, {limit} are allowed", times.len()));
        }
    }

    pub(crate) fn forget_accounts(&mut self) {
        self.accounts.clear();
    }

    pub(crate) fn account(&mut self, key: u64, now: u64) -> Outcome {
        if self.accounts.insert(key) {
            let (broken, times) = (&mut self.broken, &mut self.made_accounts);
            Self::count(broken, times, now, self.limits.accounts, 3 * HOUR, "accounts");
        }
        Outcome::Done
    }

    pub(crate) fn new_order(
        &mut self,
        account: u64,
        names: &[Box<str>],
        replaces: Option<Box<str>>,
        now: u64,
        rng: &mut Rng,
    ) -> Outcome {
        let times = self.made_orders.entry(account).or_default();
        Self::count(&mut self.broken, times, now, self.limits.orders, 3 * HOUR, "new orders");
        if !self.accounts.contains(&account) {
            return problem(ProblemKind::NoAccount, "no such account");
        }
        if replaces.as_ref().is_some_and(|id| self.replaced.contains(id)) {
            return problem(ProblemKind::AlreadyReplaced, "replaced already");
        }
        self.orders_made += 1;
        let url: Box<str> = format!("https://ca.example/order/{}", self.orders_made).into();
        let authorizations = names
            .iter()
            .map(|name| {
                let known = self.authorized.get(name).is_some_and(|&until| now < until);
                let status = if known { AuthorizationStatus::Valid } else { AuthorizationStatus::Pending };
                (name.clone(), (status, None))
            })
            .collect::<BTreeMap<_, _>>();
        let ready = authorizations.values().all(|(status, _)| *status == AuthorizationStatus::Valid);
        let made = Made {
            account,
            names: names.to_vec(),
            status: if ready { OrderStatus::Ready } else { OrderStatus::Pending },
            authorizations,
            finalized: None,
            replaces,
            at: now,
            stuck: rng.below(100) < self.lies.orders,
        };
        self.orders.insert(url.clone(), made);
        self.read(&url, account, now, rng)
    }

    /// The order as it is now.
    pub(crate) fn read(&mut self, url: &str, account: u64, now: u64, rng: &mut Rng) -> Outcome {
        if rng.below(100) < self.lies.orders {
            let all = [OrderStatus::Valid, OrderStatus::Invalid, OrderStatus::Ready, OrderStatus::Processing];
            let status = all[rng.below(4) as usize];
            return Outcome::Order(Order { url: url.into(), status, retry_after: None, problem: None });
        }
        if !self.accounts.contains(&account) {
            return problem(ProblemKind::NoAccount, "no such account");
        }
        let Some(order) = self.orders.get_mut(url).filter(|o| o.account == account && now < o.at + 7 * DAY)
        else {
            return problem(ProblemKind::NoOrder, "no such order");
        };
        if let Some((_, ready_at)) = order.finalized
            && order.status == OrderStatus::Processing
            && ready_at <= now
        {
            order.status = OrderStatus::Valid;
        }
        let retry_after = match order.status {
            OrderStatus::Processing if rng.below(4) == 0 => Some(1 + rng.below(200)),
            OrderStatus::Pending if rng.below(4) == 0 => Some(1 + rng.below(90)),
            _ => None,
        };
        Outcome::Order(Order { url: url.into(), status: order.status, retry_after, problem: None })
    }

    pub(crate) fn authorizations(&mut self, url: &str) -> Outcome {
        let Some(order) = self.orders.get(url) else {
            return problem(ProblemKind::NoOrder, "no such order");
        };
        let list = order.authorizations.iter().map(|(name, (status, failed))| Authorization {
            name: name.clone(),
            status: *status,
            offered: vec![Challenge::Http01, Challenge::TlsAlpn01],
            failed: *failed,
            problem: failed.map(|_| Problem {
                acme_type: "connection".into(),
                ..Problem::new(ProblemKind::Validation, "Connection refused")
            }),
        });
        Outcome::Authorizations(list.collect())
    }

    pub(crate) fn validate(
        &mut self,
        url: &str,
        name: &str,
        challenge: Challenge,
        asker: Asker,
        now: u64,
        rng: &mut Rng,
    ) -> Outcome {
        let Some(order) = self.orders.get(url) else {
            return problem(ProblemKind::NoOrder, "no such order");
        };
        let pending = order.authorizations.get(name).is_some_and(|a| a.0 == AuthorizationStatus::Pending);
        let running = self.validations.iter().any(|v| &*v.order == url && &*v.name == name);
        if pending && !running && !order.stuck {
            let at = now + rng.below(20);
            self.validations.push(Validation { at, order: url.into(), name: name.into(), challenge, asker });
        }
        Outcome::Done
    }

    /// A validation ends; `reached`: the answer was there.
    pub(crate) fn validated(&mut self, validation: &Validation, reached: bool, now: u64) {
        let Some(order) = self.orders.get_mut(&validation.order) else { return };
        if order.status != OrderStatus::Pending {
            return;
        }
        if reached {
            order.authorizations.insert(validation.name.clone(), (AuthorizationStatus::Valid, None));
            if self.lifetime > DAY {
                self.authorized.insert(validation.name.clone(), now + 30 * DAY);
            }
            if order.authorizations.values().all(|(status, _)| *status == AuthorizationStatus::Valid) {
                order.status = OrderStatus::Ready;
            }
            return;
        }
        self.failed += 1;
        let failed = (AuthorizationStatus::Invalid, Some(validation.challenge));
        order.authorizations.insert(validation.name.clone(), failed);
        order.status = OrderStatus::Invalid;
        let times = self.failures.entry(validation.name.clone()).or_default();
        let what = format!("failed validations of {}", validation.name);
        Self::count(&mut self.broken, times, now, self.limits.failed_validations, HOUR, &what);
    }

    pub(crate) fn finalize(&mut self, url: &str, account: u64, key: u64, now: u64, rng: &mut Rng) -> Outcome {
        let Some(order) = self.orders.get_mut(url) else {
            return problem(ProblemKind::NoOrder, "no such order");
        };
        if order.status != OrderStatus::Ready {
            return problem(ProblemKind::Rejected, "orderNotReady");
        }
        order.status = OrderStatus::Processing;
        order.finalized = Some((key, now + rng.below(20)));
        if let Some(replaced) = &order.replaces {
            self.replaced.insert(replaced.clone());
        }
        let set = order.names.join(",");
        let times = self.finalized.entry(set.clone()).or_default();
        let what = format!("certificates for {set}");
        Self::count(&mut self.broken, times, now, self.limits.duplicates, 7 * DAY, &what);
        self.issued += 1;
        self.read(url, account, now, rng)
    }

    /// Whether one more certificate for these names is allowed.
    pub(crate) fn may_issue(&self, names: &[Box<str>], now: u64) -> bool {
        let times = self.finalized.get(&names.join(","));
        times.is_none_or(|times| {
            times.iter().filter(|&&at| now - at < 7 * DAY + HOUR).count() < self.limits.duplicates
        })
    }

    pub(crate) fn download(&mut self, url: &str, key: Option<u64>, now: u64, rng: &mut Rng) -> Outcome {
        let Some(order) = self.orders.get(url).filter(|order| order.status == OrderStatus::Valid) else {
            return problem(ProblemKind::BadAnswer, "there is no certificate");
        };
        let Some(key) = key else { return problem(ProblemKind::NoKey, "there is no key") };
        let lie = rng.below(100) < self.lies.certificates;
        let kind = rng.below(3);
        self.certificates += 1;
        let backdated = if self.lifetime > DAY { HOUR } else { 0 };
        let not_before = now - backdated;
        let certificate = StoredCertificate {
            id: format!("{url}#{}", self.certificates).into(),
            ari_id: self.windows.then(|| url.into()),
            names: if lie && kind == 0 { vec!["other.example".into()] } else { order.names.clone() },
            issuer: "Example CA".into(),
            not_before,
            not_after: if lie && kind == 1 { now } else { not_before + self.lifetime },
        };
        let key_fits = order.finalized.is_some_and(|(used, _)| used == key) && !(lie && kind == 2);
        Outcome::Certificate { certificate, key_fits }
    }

    pub(crate) fn renewal_info(&self, certificate: &StoredCertificate, now: u64, rng: &mut Rng) -> Outcome {
        if !self.windows {
            return Outcome::RenewalInfo(None);
        }
        let part = |percent: u64| certificate.not_before + self.lifetime / 100 * percent;
        let (mut start, mut end) = (part(55), part(60));
        if rng.below(100) < self.lies.windows {
            (start, end) = match rng.below(4) {
                0 => (end, start),
                1 => (0, 1),
                2 => (now, now + 10),
                _ => (u64::MAX - 10, u64::MAX),
            };
        }
        let retry_after = [None, Some(0), Some(6 * HOUR), Some(u64::MAX)][rng.below(4) as usize];
        Outcome::RenewalInfo(Some(RenewalInfo { start, end, retry_after, explanation: None }))
    }
}
