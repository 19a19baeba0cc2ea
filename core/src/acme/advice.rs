//! Lines for the log that say what was asked, what came, and what to do about it.

use super::certificate::StoredCertificate;
use super::challenge::Challenge;
use super::ledger::in_short;
use super::problem::{Problem, ProblemKind};
use super::renewal::Plan;
use super::settings::Settings;
use crate::UnixSecs;
use crate::http::date::civil_date;

/// `2026-11-26`
pub(super) fn date(at: UnixSecs) -> String {
    let (year, month, day) = civil_date(at / 86_400);
    format!("{year:04}-{month:02}-{day:02}")
}

/// `90 seconds`, `5 minutes`, `3 hours` or `2 days`: rounded up.
pub(super) fn duration(secs: u64) -> String {
    let (unit, n) = match secs {
        0..120 => ("second", secs),
        120..7_200 => ("minute", secs.div_ceil(60)),
        7_200..172_800 => ("hour", secs.div_ceil(3600)),
        _ => ("day", secs.div_ceil(86_400)),
    };
    format!("{n} {unit}{}", if n == 1 { "" } else { "s" })
}

pub(super) fn ordering(
    settings: &Settings,
    certificate: Option<&StoredCertificate>,
    now: UnixSecs,
) -> String {
    let names = settings.names.join(", ");
    let authority = settings.authority();
    match certificate {
        None => format!("{names}: a certificate is ordered from {authority}"),
        Some(old) if old.not_after <= now => {
            format!("{names}: the certificate has expired; another is ordered from {authority}")
        }
        Some(old) => format!(
            "{names}: another certificate is ordered from {authority}; the one in use is valid until {}",
            date(old.not_after)
        ),
    }
}

pub(super) fn obtained(settings: &Settings, certificate: &StoredCertificate, plan: &Plan) -> String {
    format!(
        "{}: a certificate of \"{}\" has come; it is valid until {} and will be renewed on {}",
        settings.names.join(", "),
        in_short(&certificate.issuer),
        date(certificate.not_after),
        date(plan.renew_at)
    )
}

pub(super) fn failed(
    settings: &Settings,
    step: &str,
    problem: &Problem,
    challenge: Option<Challenge>,
    certificate: Option<&StoredCertificate>,
    wait: u64,
) -> String {
    let name = problem.name.as_ref().unwrap_or(&settings.primary);
    let detail = in_short(&problem.text);
    let what = what(settings, name, step, problem, challenge);
    let until = match certificate {
        Some(old) => format!("the certificate in use is valid until {}", date(old.not_after)),
        None => "there is no certificate yet".into(),
    };
    format!("{}: {what}: {detail}; next attempt in {}; {until}", settings.primary, duration(wait))
}

/// What has gone wrong, and what can be done about it.
fn what(
    settings: &Settings,
    name: &str,
    step: &str,
    problem: &Problem,
    challenge: Option<Challenge>,
) -> String {
    let authority = settings.authority();
    match (problem.kind, &*problem.acme_type, challenge) {
        (ProblemKind::Validation, "dns", _) => {
            format!("{authority} found no address of {name}: its A or AAAA record has to lead here")
        }
        (ProblemKind::Validation | ProblemKind::Rejected, "caa", _) => {
            format!("the CAA record of {name} does not allow certificates of {authority}")
        }
        (ProblemKind::Validation, "connection", Some(challenge)) => {
            format!("port {} of {name} was not reached from {authority}", challenge.port())
        }
        (ProblemKind::Validation, "tls", Some(Challenge::TlsAlpn01)) => {
            format!("port 443 of {name} is reached, but something else than this server ends TLS there")
        }
        (ProblemKind::Validation, "unauthorized" | "incorrectResponse", Some(challenge)) => format!(
            "{authority} got something else than the answer to its challenge from port {} of {name}: does \
             each of the name's addresses lead here?",
            challenge.port()
        ),
        (ProblemKind::Validation, _, Some(challenge)) => {
            format!("the {} challenge of {name} has failed", challenge.label())
        }
        (ProblemKind::Validation, _, None) => format!("{name} was not validated"),
        (ProblemKind::Unreachable, ..) => format!("{authority} does not answer ({step})"),
        (ProblemKind::Busy, ..) => format!("{authority} has trouble of its own ({step})"),
        (ProblemKind::BadNonce, ..) => format!("{authority} takes none of its own nonces ({step})"),
        (ProblemKind::RateLimited, ..) => format!("{authority} has a limit that is reached ({step})"),
        (ProblemKind::Rejected, "externalAccountRequired", _) => {
            format!("{authority} makes accounts for its customers only: set `eab`")
        }
        (ProblemKind::Rejected, "rejectedIdentifier" | "unsupportedIdentifier", _) => {
            format!("{authority} makes no certificates for {name}")
        }
        (ProblemKind::Rejected, "userActionRequired", _) => {
            format!("{authority} wants something to be done by hand")
        }
        (ProblemKind::Rejected | ProblemKind::NoAccount, ..) => format!("{authority} has refused ({step})"),
        (ProblemKind::NoOrder | ProblemKind::AlreadyReplaced, ..) => {
            format!("{authority} has not kept the order ({step})")
        }
        (ProblemKind::BadAnswer, ..) => format!("{authority} has sent nonsense ({step})"),
        (ProblemKind::NoKey, ..) => "the key of the order is not in the folder any more".into(),
        (ProblemKind::Disk | ProblemKind::LeaseLost, ..) => format!("the folder can't be used ({step})"),
    }
}

pub(super) fn no_challenge(settings: &Settings, offered: &[Challenge]) -> String {
    let labels = |list: &[Challenge]| match list {
        [] => "none".to_owned(),
        list => list.iter().map(|c| c.label()).collect::<Vec<_>>().join(", "),
    };
    format!(
        "no challenge can be answered: {} can be answered by this server's listeners, and of these {} is \
         offered",
        labels(&settings.challenges),
        labels(offered)
    )
}

pub(super) fn no_account(settings: &Settings) -> String {
    format!("{}: {} does not know the account: another is made", settings.primary, settings.authority())
}

pub(super) fn no_renewal_info(settings: &Settings, problem: &Problem) -> String {
    format!(
        "{}: {} has not said when to renew: {}",
        settings.primary,
        settings.authority(),
        in_short(&problem.text)
    )
}

pub(super) fn not_served(settings: &Settings, problem: &Problem) -> String {
    format!("{}: the new certificate can't be used: {}", settings.primary, in_short(&problem.text))
}

pub(super) fn damaged_certificate(settings: &Settings, how: &str) -> String {
    format!("{}: {}; the certificate is ordered anew", settings.primary, in_short(how))
}

pub(super) fn damaged_ledger(how: &str) -> String {
    format!("{}; a new one is begun, with one attempt until the authority's limits are free", in_short(how))
}

pub(super) fn disk(settings: &Settings, problem: &Problem, wait: u64) -> String {
    format!(
        "{}: {}; nothing is ordered before that can be written; next attempt in {}",
        settings.primary,
        in_short(&problem.text),
        duration(wait)
    )
}
