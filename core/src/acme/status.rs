//! The table of `cert status`: every certificate of a configuration, and what is known of it.

use super::action::{Kept, Stored};
use super::advice::date;
use super::certificate::StoredCertificate;
use super::ledger::{Ledger, in_short};
use super::settings::Settings;
use crate::UnixSecs;

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusRow {
    /// The names, the table's own first.
    pub names: Vec<Box<str>>,
    /// Where it comes from: `files`, or the host of the authority.
    pub source: String,
    /// Who signed it; empty: there is none.
    pub issuer: String,
    /// As `YYYY-MM-DD`, with `expired` if it has; empty: there is none.
    pub expiry: String,
    /// As `YYYY-MM-DD`, or `now`; empty: it is not renewed by itself.
    pub next_renewal: String,
    /// The last failure since the last success; empty: none.
    pub last_error: String,
}

impl StatusRow {
    /// Of a certificate in files: what is in them, or why they can't be used.
    #[must_use]
    pub fn of_files(names: Vec<Box<str>>, certificate: Kept<StoredCertificate>, now: UnixSecs) -> Self {
        let mut row = Self::new(names, "files".into());
        row.take(certificate, now);
        row
    }

    /// Of a certificate of an authority, from what the folder has.
    #[must_use]
    pub fn of_authority(settings: &Settings, stored: Stored, now: UnixSecs) -> Self {
        let others = settings.names.iter().filter(|name| **name != settings.primary);
        let names = std::iter::once(&settings.primary).chain(others).cloned().collect();
        let mut row = Self::new(names, settings.authority().to_owned());
        let mut ledger = match stored.ledger {
            Kept::Nothing => Ledger::default(),
            Kept::Whole(ledger) => ledger,
            Kept::Damaged(how) => {
                row.last_error = in_short(&how);
                Ledger::default()
            }
        };
        ledger.settle(now);
        let failure = ledger.last_failure(settings);
        let retry_at = ledger.may_try_at(settings, stored.account, false);
        let due = match &stored.certificate {
            Kept::Whole(certificate) => ledger.renewal_of(settings, certificate).unwrap_or(0),
            Kept::Nothing | Kept::Damaged(_) => 0,
        };
        row.next_renewal = match due.max(retry_at) {
            at if at <= now => "now".into(),
            at => date(at),
        };
        if let Some(failure) = failure {
            let name = failure.name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
            let (at, step, text) = (date(failure.at), &failure.step, &failure.text);
            row.last_error = format!("{at} {step}{name}: {text}");
        }
        row.take(stored.certificate, now);
        row
    }

    fn new(names: Vec<Box<str>>, source: String) -> Self {
        let none = String::new;
        Self { names, source, issuer: none(), expiry: none(), next_renewal: none(), last_error: none() }
    }

    fn take(&mut self, certificate: Kept<StoredCertificate>, now: UnixSecs) {
        match certificate {
            Kept::Whole(certificate) => {
                self.issuer = in_short(&certificate.issuer);
                let expired = if certificate.not_after <= now { " expired" } else { "" };
                self.expiry = date(certificate.not_after) + expired;
            }
            Kept::Damaged(how) => self.last_error = in_short(&how),
            Kept::Nothing => {}
        }
    }
}

/// The table as text: a line for each row below a line of titles, in columns that are as wide as they need to
/// be, with two spaces between them. What there is none of is `-`. The last column is not filled up.
#[must_use]
pub fn status_table(rows: &[StatusRow]) -> String {
    const TITLES: [&str; 6] = ["NAMES", "SOURCE", "ISSUER", "EXPIRY", "NEXT RENEWAL", "LAST ERROR"];
    let mut lines: Vec<[String; 6]> = vec![TITLES.map(str::to_owned)];
    for row in rows {
        let mut cells = [
            row.names.join(","),
            row.source.clone(),
            row.issuer.clone(),
            row.expiry.clone(),
            row.next_renewal.clone(),
            row.last_error.clone(),
        ];
        for cell in &mut cells {
            if cell.is_empty() {
                cell.push('-');
            }
        }
        lines.push(cells);
    }
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut text = String::new();
    for line in &lines {
        for (column, cell) in line.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < line.len() {
                let fill = widths[column] - cell.chars().count() + 2;
                text.extend(std::iter::repeat_n(' ', fill));
            }
        }
        text.push('\n');
    }
    text
}
