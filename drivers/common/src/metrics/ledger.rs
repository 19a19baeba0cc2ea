//! The counts of all workers, those that have ended among them: what was counted once stays counted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::counted::{Names, Sheet, Totals, add_up};

/// What has been counted by whom.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Accounts>);

#[derive(Debug, Default)]
struct Accounts {
    last: u64,
    /// By those who have ended.
    ended: Totals,
    /// What each of the others said last.
    open: BTreeMap<u64, Sheet>,
}

impl Ledger {
    /// A number for someone who begins to count.
    pub fn open(&self) -> u64 {
        let mut accounts = self.lock();
        accounts.last += 1;
        let account = accounts.last;
        accounts.open.insert(account, Sheet::default());
        account
    }

    /// What someone has counted up to now. Whoever has ended is not heard any more.
    pub fn report(&self, account: u64, sheet: Sheet) {
        if let Some(known) = self.lock().open.get_mut(&account) {
            *known = sheet;
        }
    }

    /// Someone has ended; that is all that they have counted.
    pub fn close(&self, account: u64, sheet: &Sheet) {
        let mut accounts = self.lock();
        if accounts.open.remove(&account).is_some() {
            add_up(&mut accounts.ended, sheet);
        }
    }

    /// Everything that has been counted.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let accounts = self.lock();
        let mut totals = accounts.ended.clone();
        accounts.open.values().for_each(|sheet| add_up(&mut totals, sheet));
        totals
    }

    /// Forgets what was counted under these names, which are sorted. Those who still count have to be told
    /// so, too.
    pub fn forget(&self, names: &[Arc<Names>]) {
        let mut accounts = self.lock();
        accounts.ended.retain(|known, _| names.binary_search(known).is_err());
        accounts.open.values_mut().for_each(|sheet| sheet.forget(names));
    }

    fn lock(&self) -> MutexGuard<'_, Accounts> {
        // Sums are whole between any two of its methods.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
