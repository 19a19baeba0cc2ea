//! A manager with a folder that always works and an authority that does what a test says.

use ruststrom_core::acme::{
    Action, Authorization, AuthorizationStatus, Challenge, Kept, LEASE_SECS, Ledger, Limits, Manager, Order,
    OrderStatus, Outcome, Problem, ProblemKind, Settings, Step, Stored, StoredCertificate,
};
use ruststrom_core::config::AcmeKeyType;

pub(crate) const HOUR: u64 = 3600;
pub(crate) const DAY: u64 = 24 * HOUR;
pub(crate) const START: u64 = 1_800_000_000;

pub(crate) fn settings(names: &[&str]) -> Settings {
    let mut sorted: Vec<Box<str>> = names.iter().map(|&name| name.into()).collect();
    sorted.sort_unstable();
    Settings {
        primary: names[0].into(),
        names: sorted,
        directory: "https://ca.example/directory".into(),
        email: "admin@example.com".into(),
        key_type: AcmeKeyType::P256,
        profile: None,
        challenges: vec![Challenge::Http01, Challenge::TlsAlpn01],
        limits: Limits::LETS_ENCRYPT,
    }
}

/// A certificate for 90 days.
pub(crate) fn certificate(id: &str, names: &[&str], not_before: u64) -> StoredCertificate {
    StoredCertificate {
        id: id.into(),
        ari_id: None,
        names: names.iter().map(|&name| name.into()).collect(),
        issuer: "Example CA".into(),
        not_before,
        not_after: not_before + 90 * DAY,
    }
}

pub(crate) fn order(status: OrderStatus) -> Outcome {
    Outcome::Order(Order {
        url: "https://ca.example/order/1".into(),
        status,
        retry_after: None,
        problem: None,
    })
}

pub(crate) fn failed(kind: ProblemKind, retry_after: Option<u64>) -> Outcome {
    Outcome::Failed(Problem { retry_after, ..Problem::new(kind, "no luck") })
}

pub(crate) fn authorization(name: &str, status: AuthorizationStatus) -> Authorization {
    Authorization {
        name: name.into(),
        status,
        offered: vec![Challenge::TlsAlpn01, Challenge::Http01],
        failed: None,
        problem: None,
    }
}

/// An authorization whose challenge has failed.
pub(crate) fn refused(name: &str, challenge: Challenge, acme_type: &str) -> Authorization {
    let problem = Problem {
        acme_type: acme_type.into(),
        ..Problem::new(ProblemKind::Validation, "Connection refused")
    };
    Authorization {
        failed: Some(challenge),
        problem: Some(problem),
        ..authorization(name, AuthorizationStatus::Invalid)
    }
}

/// What an action is answered; `None`: it goes well.
pub(crate) type Answer = Box<dyn FnMut(&Action, u64) -> Option<Outcome>>;

pub(crate) struct Bench {
    pub(crate) manager: Manager,
    pub(crate) now: u64,
    pub(crate) folder: Stored,
    /// Every action but looks, with its time.
    pub(crate) log: Vec<(u64, String)>,
    /// What differs from an authority and a folder with which all goes well.
    pub(crate) answer: Answer,
    status: OrderStatus,
    issued: u32,
    downloaded: Option<StoredCertificate>,
    pub(crate) served: Option<StoredCertificate>,
}

impl Bench {
    pub(crate) fn new(settings: Settings, folder: Stored) -> Self {
        let read = folder.certificate.clone().whole();
        Self {
            manager: Manager::new(settings, folder.clone(), START, 7),
            now: START,
            folder,
            log: Vec::new(),
            answer: Box::new(|_, _| None),
            status: OrderStatus::Pending,
            issued: 0,
            downloaded: read.clone(),
            served: read,
        }
    }

    /// A new process, with what the folder has.
    pub(crate) fn restart(&mut self) {
        let settings = self.manager.settings().clone();
        self.manager = Manager::new(settings, self.folder.clone(), self.now, 8);
        self.served = self.folder.certificate.clone().whole();
    }

    /// Does one action, or lets the time pass until the next one but not beyond `end`. Returns whether there
    /// was one.
    pub(crate) fn step(&mut self, end: u64) -> bool {
        let action = self.manager.poll(self.now);
        if let Action::Wait(until) = action {
            assert!(until > self.now, "it does not rest");
            self.now = until.min(end);
            return false;
        }
        if action != Action::Look {
            let label = match &action {
                Action::Step(Step::NewOrder { replaces: Some(id) }) => format!("new order for {id}"),
                Action::Step(Step::Validate { name, challenge }) => {
                    format!("{} {name}", challenge.label())
                }
                Action::Step(step) => step.label().into(),
                other => format!("{other:?}"),
            };
            self.log.push((self.now, label));
        }
        let outcome = (self.answer)(&action, self.now).unwrap_or_else(|| self.good(&action));
        if let Outcome::Certificate { certificate, .. } = &outcome {
            self.downloaded = Some(certificate.clone());
        }
        if let Outcome::Order(order) = &outcome {
            self.status = order.status;
        }
        self.manager.handle(self.now, outcome);
        true
    }

    /// How it goes if all goes well.
    fn good(&mut self, action: &Action) -> Outcome {
        match action {
            Action::Look | Action::TakeLease => {
                self.downloaded = self.folder.certificate.clone().whole();
                let stored = self.folder.clone();
                match action {
                    Action::Look => Outcome::Stored(stored),
                    _ => Outcome::Leased { until: self.now + LEASE_SECS, stored },
                }
            }
            Action::RenewLease => Outcome::Renewed { until: self.now + LEASE_SECS },
            Action::Save => {
                let text = serde_json::to_string(self.manager.ledger()).expect("JSON");
                self.folder.ledger = Kept::Whole(serde_json::from_str(&text).expect("its own JSON"));
                Outcome::Done
            }
            Action::Store => {
                self.folder.certificate = Kept::Whole(self.downloaded.clone().expect("it was downloaded"));
                Outcome::Done
            }
            Action::Serve => {
                self.served = self.downloaded.clone();
                Outcome::Done
            }
            Action::Step(step) => self.good_step(step),
            Action::ReleaseLease | Action::Wait(_) => Outcome::Done,
        }
    }

    fn good_step(&mut self, step: &Step) -> Outcome {
        let names: Vec<String> = self.manager.settings().names.iter().map(|name| name.to_string()).collect();
        match step {
            Step::Account { .. } => {
                self.folder.account = true;
                Outcome::Done
            }
            Step::RenewalInfo { .. } => Outcome::RenewalInfo(None),
            Step::NewOrder { .. } => order(OrderStatus::Pending),
            Step::Resume { .. } => order(self.status),
            Step::Authorizations => {
                let pending = |name: &String| authorization(name, AuthorizationStatus::Pending);
                Outcome::Authorizations(names.iter().map(pending).collect())
            }
            Step::Validate { .. } => {
                self.status = OrderStatus::Ready;
                Outcome::Done
            }
            Step::Poll => order(self.status),
            Step::Finalize => order(OrderStatus::Valid),
            Step::Download => {
                self.issued += 1;
                let names: Vec<&str> = names.iter().map(|name| &**name).collect();
                let id = format!("issued-{}", self.issued);
                Outcome::Certificate { certificate: certificate(&id, &names, self.now), key_fits: true }
            }
        }
    }

    /// Lets `secs` pass.
    pub(crate) fn run(&mut self, secs: u64) {
        let end = self.now + secs;
        for _ in 0..1_000_000 {
            if !self.step(end) && self.now >= end {
                return;
            }
        }
        panic!("it does not rest: {:?}", &self.log[self.log.len() - 30..]);
    }

    /// Runs until an action with this label is about to be done, and says when.
    pub(crate) fn until(&mut self, label: &str) -> u64 {
        let from = self.log.len();
        for _ in 0..1_000_000 {
            self.step(u64::MAX);
            if let Some((at, _)) = self.log[from..].iter().find(|(_, done)| done.starts_with(label)) {
                return *at;
            }
        }
        panic!("never: {label}");
    }

    /// The labels from the `from`th on, in one line.
    pub(crate) fn done(&self, from: usize) -> String {
        self.log[from..].iter().map(|(_, label)| &**label).collect::<Vec<_>>().join(", ")
    }

    /// How often something was done.
    pub(crate) fn count(&self, label: &str) -> usize {
        self.log.iter().filter(|(_, done)| done.starts_with(label)).count()
    }

    pub(crate) fn notes(&mut self) -> Vec<String> {
        self.manager.notes().map(|note| note.text).collect()
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        self.manager.ledger()
    }
}
