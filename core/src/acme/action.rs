//! What a [`Manager`](super::Manager) wants done, and what came of it.

use super::certificate::{RenewalInfo, StoredCertificate};
use super::challenge::Challenge;
use super::ledger::Ledger;
use super::problem::Problem;
use crate::UnixSecs;

/// A lease of the folder lasts so long from when it is taken or renewed, in seconds.
pub const LEASE_SECS: u64 = 120;

/// A lease that has run out may be taken over so many seconds later, by the clock of whoever takes it: clocks
/// of machines differ.
pub const LEASE_GRACE_SECS: u64 = 30;

/// A step has to end within so many seconds, all its requests together: otherwise
/// [`Unreachable`](super::ProblemKind::Unreachable) is its outcome. It is less than half of [`LEASE_SECS`],
/// so that a lease never ends during a step.
pub const STEP_SECS: u64 = 40;

/// What to do next. Each but [`Action::Wait`] is done once, and its [`Outcome`] handed to
/// [`Manager::handle`](super::Manager::handle) before the next one is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing before then; [`UnixSecs::MAX`] while an outcome is awaited. Asking earlier does no harm.
    Wait(UnixSecs),
    /// Read what the folder has. Outcome: [`Outcome::Stored`], or [`Outcome::Done`] if that is what was read
    /// or written last.
    Look,
    /// Take the folder's lease for [`LEASE_SECS`], and then read what the folder has. Outcome:
    /// [`Outcome::Leased`] or [`Outcome::LeaseHeld`]. The lease is for one manager at a time, of this process
    /// or another one; that of another one is free when it was given back, when it has run out
    /// [`LEASE_GRACE_SECS`] ago, or when whoever took it is known to be gone.
    TakeLease,
    /// Lengthen the lease to [`LEASE_SECS`] from now. Outcome: [`Outcome::Renewed`], or
    /// [`LeaseLost`](super::ProblemKind::LeaseLost) if another one has it.
    RenewLease,
    /// Write [`Manager::ledger`](super::Manager::ledger) into the folder, durably: what follows relies on it
    /// after a power cut. Refused with [`LeaseLost`](super::ProblemKind::LeaseLost) if another one has the
    /// lease. Outcome: [`Outcome::Done`].
    Save,
    /// Ask the authority. Outcome: see [`Step`].
    Step(Step),
    /// Write the certificate of [`Step::Download`] and its key in place of what the folder has, durably, both
    /// or none. Refused with [`LeaseLost`](super::ProblemKind::LeaseLost) if another one has the lease.
    /// Outcome: [`Outcome::Done`].
    Store,
    /// Use the certificate that was read or downloaded last for new handshakes. Outcome: [`Outcome::Done`].
    Serve,
    /// Take down the answers to challenges and give the lease back. Outcome: [`Outcome::Done`].
    ReleaseLease,
}

/// One exchange with the authority. What goes into it besides is in
/// [`Manager::settings`](super::Manager::settings). Each has to end within [`STEP_SECS`]; its outcome may
/// always be [`Outcome::Failed`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Use the account that the folder has, or make one (RFC 8555 §7.3): its key is written to the folder
    /// first, so that the same account is found after a kill. Outcome: [`Outcome::Done`].
    Account {
        /// Forget the account that the folder has: the authority does not know it.
        anew: bool,
    },
    /// When the certificate should be renewed (RFC 9773 §4). Outcome: [`Outcome::RenewalInfo`].
    RenewalInfo {
        /// The certificate's identifier: [`StoredCertificate::ari_id`].
        ari_id: Box<str>,
    },
    /// Order a certificate for the names (RFC 8555 §7.4). Outcome: [`Outcome::Order`].
    NewOrder {
        /// The [`StoredCertificate::ari_id`] of the certificate that is renewed (RFC 9773 §5).
        replaces: Option<Box<str>>,
    },
    /// Look for an order of an earlier run. Outcome: [`Outcome::Order`], or
    /// [`NoOrder`](super::ProblemKind::NoOrder) if it has gone.
    Resume {
        /// Its URL.
        url: Box<str>,
    },
    /// Read the order's authorizations (RFC 8555 §7.5). Outcome: [`Outcome::Authorizations`].
    Authorizations,
    /// Answer a challenge, on every instance that shares the folder, and then tell the authority to look
    /// (RFC 8555 §7.5.1). Outcome: [`Outcome::Done`].
    Validate {
        /// Whose authorization.
        name: Box<str>,
        /// Which of its challenges.
        challenge: Challenge,
    },
    /// Read the order. Outcome: [`Outcome::Order`].
    Poll,
    /// Make a key, write it to the folder as that of this order, and send the signing request (RFC 8555
    /// §7.4). If the folder has a key of this order already, that one is used: an earlier request may have
    /// arrived. Outcome: [`Outcome::Order`].
    Finalize,
    /// Read the chain (RFC 8555 §7.4.2); the folder is left as it is. Outcome: [`Outcome::Certificate`], or
    /// [`NoKey`](super::ProblemKind::NoKey) if the key of the order has gone.
    Download,
}

impl Step {
    /// The step as the ledger and the log name it.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Account { .. } => "account",
            Self::RenewalInfo { .. } => "renewal info",
            Self::NewOrder { .. } => "new order",
            Self::Resume { .. } => "resume",
            Self::Authorizations => "authorizations",
            Self::Validate { .. } => "validate",
            Self::Poll => "poll",
            Self::Finalize => "finalize",
            Self::Download => "download",
        }
    }
}

/// What came of an [`Action`].
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// Of [`Action::Look`].
    Stored(Stored),
    /// Of [`Action::TakeLease`]: it was free, or had run out.
    Leased {
        /// When it runs out.
        until: UnixSecs,
        /// What the folder has, read after the lease was taken.
        stored: Stored,
    },
    /// Of [`Action::TakeLease`]: another manager has it.
    LeaseHeld,
    /// Of [`Action::RenewLease`].
    Renewed {
        /// When it runs out.
        until: UnixSecs,
    },
    /// Of [`Step::RenewalInfo`]; `None`: the authority has no such service.
    RenewalInfo(Option<RenewalInfo>),
    /// Of the steps that read an order.
    Order(Order),
    /// Of [`Step::Authorizations`].
    Authorizations(Vec<Authorization>),
    /// Of [`Step::Download`].
    Certificate {
        /// The certificate.
        certificate: StoredCertificate,
        /// Whether it is for the key of the order.
        key_fits: bool,
    },
    /// It was not done.
    Failed(Problem),
}

/// What a folder has for one certificate.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stored {
    /// The certificate, with its key.
    pub certificate: Kept<StoredCertificate>,
    /// The ledger of the whole folder.
    pub ledger: Kept<Ledger>,
    /// Whether the key of the account is there.
    pub account: bool,
}

/// A file that may be missing or damaged.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Kept<T> {
    /// There is none.
    #[default]
    Nothing,
    /// It is not what it should be, in words: "acme-cache/example.com.pem: the key is of another
    /// certificate".
    Damaged(String),
    /// It is whole.
    Whole(T),
}

impl<T> Kept<T> {
    /// What is whole.
    #[must_use]
    pub fn whole(self) -> Option<T> {
        match self {
            Self::Whole(value) => Some(value),
            Self::Nothing | Self::Damaged(_) => None,
        }
    }
}

/// An order as the authority sees it (RFC 8555 §7.1.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Where it is.
    pub url: Box<str>,
    /// How far it is.
    pub status: OrderStatus,
    /// Seconds after which it may be read again.
    pub retry_after: Option<u64>,
    /// Why it is invalid.
    pub problem: Option<Problem>,
}

/// How far an order is (RFC 8555 §7.1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderStatus {
    /// Authorizations are missing.
    Pending,
    /// It can be finalized.
    Ready,
    /// The certificate is being made.
    Processing,
    /// The certificate is there.
    Valid,
    /// It has failed.
    Invalid,
}

/// Whether a name may be in the certificate (RFC 8555 §7.1.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    /// The name.
    pub name: Box<str>,
    /// How far it is.
    pub status: AuthorizationStatus,
    /// The challenges that the authority offers, as far as they can be answered.
    pub offered: Vec<Challenge>,
    /// The challenge that has failed.
    pub failed: Option<Challenge>,
    /// Why it has failed.
    pub problem: Option<Problem>,
}

/// How far an authorization is (RFC 8555 §7.1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorizationStatus {
    /// A challenge is to be answered, or is being looked at.
    Pending,
    /// It may.
    Valid,
    /// It has failed, was revoked or deactivated, or has expired.
    Invalid,
}
