//! Who may ask the authority and write to a folder: one manager at a time, of one of the processes that share
//! it.
//!
//! A lease ends by itself, for machines that are lost. That of a process which has died on this machine ends
//! at once.

use std::io;

use ruststrom_core::UnixSecs;
use ruststrom_core::acme::LEASE_SECS;
use serde::{Deserialize, Serialize};

use super::folder::{Folder, Locked};
use crate::clock;

/// A lease that has run out is taken over so many seconds later: clocks of machines differ by as much.
const GRACE_SECS: u64 = 30;

/// The file of the lease.
pub(super) const FILE: &str = "lease.json";

/// What is in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// Different for every manager that ever was.
    holder: String,
    /// The certificate that is ordered, for people.
    certificate: String,
    /// The machine's name, for people.
    host: String,
    until: UnixSecs,
    process: Process,
}

/// A process, so that others on the same machine can tell whether it lives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Process {
    /// Different for every start of every machine.
    boot: String,
    /// The namespace that the id is of.
    namespace: String,
    id: u32,
    /// When it started, in clock ticks since the machine did: ids are used again.
    started: u64,
}

/// The lease of a folder as one manager sees it.
#[derive(Debug)]
pub(super) struct Lease {
    record: Record,
}

/// Somebody else has the lease.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Held;

impl Lease {
    /// For the manager of this certificate.
    pub(super) fn new(certificate: &str) -> Self {
        let process = Process::this();
        let holder = format!("{:016x}{:016x}", clock::entropy(), clock::entropy());
        let (certificate, host) = (certificate.to_owned(), clock::hostname());
        Self { record: Record { holder, certificate, host, until: 0, process } }
    }

    /// Takes the lease, if it is free or ours already; until when.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub(super) fn take(&mut self, folder: &Locked<'_>, now: UnixSecs) -> io::Result<Result<UnixSecs, Held>> {
        if let Some(other) = read(folder.folder())?.filter(|other| other.holder != self.record.holder)
            && other.holds(now)
        {
            return Ok(Err(Held));
        }
        self.record.until = now + LEASE_SECS;
        let text = serde_json::to_vec_pretty(&self.record)?;
        folder.write(FILE, &text)?;
        Ok(Ok(self.record.until))
    }

    /// Lengthens the lease; until when.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub(super) fn renew(&mut self, folder: &Locked<'_>, now: UnixSecs) -> io::Result<Result<UnixSecs, Held>> {
        if self.is_ours(folder.folder())? { self.take(folder, now) } else { Ok(Err(Held)) }
    }

    /// Whether nobody else has taken it.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub(super) fn is_ours(&self, folder: &Folder) -> io::Result<bool> {
        Ok(read(folder)?.is_some_and(|record| record.holder == self.record.holder))
    }

    /// Gives it back, if it is ours.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub(super) fn release(&mut self, folder: &Locked<'_>) -> io::Result<()> {
        if self.is_ours(folder.folder())? { folder.remove(FILE) } else { Ok(()) }
    }
}

impl Record {
    fn holds(&self, now: UnixSecs) -> bool {
        // One that ends later than any could was written by a clock that was wrong.
        let ends = self.until.saturating_add(GRACE_SECS);
        now < ends && ends <= now + LEASE_SECS + 2 * GRACE_SECS && !self.process.is_dead()
    }
}

impl Process {
    /// This one.
    fn this() -> Self {
        let namespace = std::fs::read_link("/proc/self/ns/pid");
        Self {
            boot: std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
                .map(|id| id.trim().to_owned())
                .unwrap_or_default(),
            namespace: namespace.map(|link| link.to_string_lossy().into_owned()).unwrap_or_default(),
            id: std::process::id(),
            started: started(std::process::id()).unwrap_or(0),
        }
    }

    /// It ran on this machine, and does not any more. False whenever that is not certain.
    fn is_dead(&self) -> bool {
        let this = Self::this();
        let known = !this.boot.is_empty() && !this.namespace.is_empty() && this.started != 0;
        known
            && self.namespace == this.namespace
            && self.boot == this.boot
            && self.started != 0
            && started(self.id) != Some(self.started)
    }
}

/// When a process started; `None` if there is none of this id, or it has ended.
fn started(id: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name in parentheses may have anything in it (proc_pid_stat(5)).
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// What is in the file; `None` without one, or if it says nothing that could be kept.
fn read(folder: &Folder) -> io::Result<Option<Record>> {
    Ok(folder.read(FILE)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acme::test_folder::TestFolder;

    const NOW: UnixSecs = 1_700_000_000;

    fn change(folder: &Folder, change: impl FnOnce(&mut Record)) {
        let mut record = read(folder).expect("readable").expect("there");
        change(&mut record);
        let text = serde_json::to_vec(&record).expect("JSON");
        folder.lock().expect("a lock").write(FILE, &text).expect("written");
    }

    #[test]
    fn one_has_it_until_it_ends() {
        let test = TestFolder::new();
        let folder = Folder::at(test.path().to_owned());
        let (mut a, mut b) = (Lease::new("a.example"), Lease::new("a.example"));
        let locked = folder.lock().expect("a lock");
        assert_eq!(a.take(&locked, NOW).expect("written"), Ok(NOW + LEASE_SECS));
        assert_eq!(b.take(&locked, NOW + 1).expect("read"), Err(Held));
        assert_eq!(b.renew(&locked, NOW + 1).expect("read"), Err(Held));
        assert_eq!(a.renew(&locked, NOW + 2).expect("written"), Ok(NOW + 2 + LEASE_SECS));
        b.release(&locked).expect("not its own");
        assert!(a.is_ours(&folder).expect("read") && !b.is_ours(&folder).expect("read"));
        // It ends by itself, and the other may have it.
        let ended = NOW + 2 + LEASE_SECS;
        assert_eq!(b.take(&locked, ended + GRACE_SECS - 1).expect("read"), Err(Held));
        let later = ended + GRACE_SECS;
        assert_eq!(b.take(&locked, later).expect("written"), Ok(later + LEASE_SECS));
        assert_eq!(a.renew(&locked, later).expect("read"), Err(Held));
        b.release(&locked).expect("removed");
        assert_eq!(a.take(&locked, later).expect("written"), Ok(later + LEASE_SECS));
    }

    #[test]
    fn a_dead_process_and_a_wrong_clock_hold_nothing() {
        let test = TestFolder::new();
        let folder = Folder::at(test.path().to_owned());
        let take = |lease: &mut Lease| lease.take(&folder.lock().expect("a lock"), NOW).expect("written");
        let (mut a, mut b) = (Lease::new("a.example"), Lease::new("a.example"));
        assert!(take(&mut a).is_ok());
        // Another one had the id of this process before.
        change(&folder, |record| record.process.started += 1);
        assert!(take(&mut b).is_ok(), "its process has ended");
        change(&folder, |record| record.process.id = u32::MAX);
        assert!(take(&mut a).is_ok(), "there is no such process");
        change(&folder, |record| record.until = NOW + LEASE_SECS + GRACE_SECS);
        assert_eq!(take(&mut b), Err(Held), "by another clock");
        change(&folder, |record| record.until += 1);
        assert!(take(&mut b).is_ok(), "no lease is that long");
        // On another machine, or in another container, a process of any id may live.
        change(&folder, |record| (record.process.id, record.process.boot) = (u32::MAX, "other".into()));
        assert_eq!(take(&mut a), Err(Held));
        change(&folder, |record| record.process = Process { namespace: "x".into(), ..Process::this() });
        assert_eq!(take(&mut a), Err(Held));
        change(&folder, |record| record.process = Process::default());
        assert_eq!(take(&mut a), Err(Held));
        folder.lock().expect("a lock").write(FILE, b"{").expect("written");
        assert!(take(&mut a).is_ok(), "what says nothing holds nothing");
    }
}
