//! What a process has found out, for the one that takes its place: the health of backends, and what clients
//! have had of their limits. It is written into memory that has a descriptor (memfd) and is never written
//! again, and goes over with [`handover`](crate::handover). A system without such memory passes nothing.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use ruststrom_core::shared::{Extent, Restore, Restored};
use ruststrom_core::{Instant, Shared};
use ruststrom_driver::clock;

/// As much is written at most, and a little more is read: a million clients that have all used their limit.
const MOST: usize = 128 << 20;
/// Bytes that are written or read at once.
const AT_ONCE: usize = 64 << 10;

/// What is known, and when.
pub(crate) struct Written {
    pub(crate) memory: OwnedFd,
    pub(crate) taken: Instant,
}

/// Writes what is known now; `None`: this system has no such memory. Workers go on meanwhile.
///
/// # Errors
/// If there is not enough of it.
#[cfg(target_os = "linux")]
pub(crate) fn write(shared: &Shared, extent: Extent) -> io::Result<Option<Written>> {
    use std::io::Write as _;

    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

    let mut file = File::from(memfd_create("rust-strom", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    let (taken, common) = (clock::now(), clock::common_ns());
    let mut snapshot = shared.snapshot(extent, taken, common, MOST);
    let (mut bytes, mut room) = (Vec::new(), room());
    loop {
        let more = snapshot.next_part(&mut bytes);
        if !more || bytes.len() >= AT_ONCE {
            // A signal would end the process otherwise.
            room = room.checked_sub(bytes.len() as u64).ok_or(io::ErrorKind::FileTooLarge)?;
            file.write_all(&bytes)?;
            bytes.clear();
        }
        if !more {
            break;
        }
    }
    fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    if !snapshot.is_complete() {
        log::warn!(
            "only {} clients of RateLimiter go along, the others begin anew: there is no room for more",
            snapshot.clients()
        );
    }
    log::debug!(
        "{} bytes go along, with {} clients of RateLimiter, after {:?}",
        file.metadata().map_or(0, |file| file.len()),
        snapshot.clients(),
        clock::now().since(taken)
    );
    Ok(Some(Written { memory: file.into(), taken }))
}

/// How long a file of this process may be.
#[cfg(target_os = "linux")]
fn room() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Fsize).current.unwrap_or(u64::MAX)
}

/// Nothing: this system has no memory that could be passed on.
///
/// # Errors
/// None.
#[cfg(not(target_os = "linux"))]
pub(crate) fn write(_: &Shared, _: Extent) -> io::Result<Option<Written>> {
    Ok(None)
}

/// Takes over what another process has written, and says so in the log. What cannot be used is left out.
pub(crate) fn take_over(from: OwnedFd, shared: &Shared) {
    match read(&File::from(from), shared) {
        Ok(restored) => tell(&restored),
        Err(e) => log::warn!("what the process before this one has found out cannot be used: {e}"),
    }
}

fn read(file: &File, shared: &Shared) -> io::Result<Restored> {
    let about = file.metadata()?;
    if !about.is_file() || about.len() > 2 * MOST as u64 {
        return Err(io::Error::other("it is nothing that one has written"));
    }
    let mut head = [0; Restore::HEAD];
    file.read_exact_at(&mut head, 0)?;
    let common = Restore::head(&head).ok_or_else(|| io::Error::other("it is of another version"))?;
    let taken = clock::at_common(common).ok_or_else(|| io::Error::other("it is of another clock"))?;
    let mut restore = Restore::new(shared, taken, clock::now());
    let (mut bytes, mut at) = (vec![0; AT_ONCE], head.len() as u64);
    while at < about.len() {
        let n = file.read_at(&mut bytes, at)?;
        if n == 0 {
            break;
        }
        restore.take(&bytes[..n]);
        at += n as u64;
    }
    Ok(restore.finish())
}

/// What has come of it, as far as there is anything to say.
fn tell(restored: &Restored) {
    let Restored { backends, unhealthy, clients, no_place, invalid, complete } = *restored;
    let s = |n: usize| if n == 1 { "" } else { "s" };
    if backends > 0 {
        let s = s(backends);
        log::info!(
            "known from the process before: the health of {backends} backend{s}, {unhealthy} unhealthy"
        );
    }
    if clients > 0 {
        let s = s(clients);
        log::info!("known from the process before: what {clients} client{s} of RateLimiter had");
    }
    if no_place > 0 || invalid > 0 || !complete {
        let end = if complete { "" } else { ", and the end is missing" };
        log::warn!(
            "what the process before this one has found out cannot be used as a whole: {no_place} clients \
             without a place, {invalid} records that mean nothing{end}"
        );
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::io::Write as _;
    use std::sync::Arc;

    use rustix::fs::{MemfdFlags, SealFlags, fcntl_get_seals, memfd_create};
    use ruststrom_core::config;
    use ruststrom_core::observe::HealthState;

    use super::*;

    fn process() -> (Shared, Arc<config::Config>) {
        let text = "http_address = \"127.0.0.1:0\"\n[[backend_pools]]\naddresses = [\"10.0.0.1:80\"]\n\
                    [backend_pools.health_config]\ncheck_every = 0\n";
        let config = Arc::new(config::parse(text).config.expect("good"));
        let shared = Shared::new("host", 1);
        drop(shared.prepare(&config));
        (shared, config)
    }

    #[test]
    fn what_is_written_is_sealed_and_read() {
        let (old, new) = (process(), process());
        let state = |process: &(Shared, _)| process.0.pools()[0].backends()[0].health().state();
        (0..3).for_each(|_| _ = old.0.pools()[0].connect_failed(0, clock::now()));
        let memory = write(&old.0, Extent::Everything).expect("written").expect("Linux has it").memory;
        let seals = fcntl_get_seals(&memory).expect("sealed");
        assert!(seals.contains(SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW));
        assert!((&File::from(memory.try_clone().expect("a descriptor"))).write_all(b"x").is_err());
        let restored = read(&File::from(memory), &new.0).expect("read");
        assert_eq!((restored.backends, restored.unhealthy, restored.complete), (1, 1, true));
        assert_eq!(state(&new), HealthState::Unhealthy);
        let due = |(shared, _): &(Shared, _)| {
            let pool = &shared.pools()[0];
            pool.backends()[0].health().half_open_at(pool.rules()).expect("ill")
        };
        let apart = due(&new).since(due(&old)).max(due(&old).since(due(&new)));
        assert!(apart.as_millis() <= 500, "the same moment in both: {apart:?}");
    }

    #[test]
    fn what_somebody_else_has_written_is_refused() {
        let (shared, _config) = process();
        let memory = |bytes: &[u8]| {
            let mut file = File::from(memfd_create("x", MemfdFlags::CLOEXEC).expect("memory"));
            file.write_all(bytes).expect("room");
            file
        };
        let refused = |file: &File| read(file, &shared).expect_err("nothing to use").to_string();
        assert_eq!(refused(&memory(&[7; 100])), "it is of another version");
        refused(&memory(b"short"));
        assert!(refused(&File::open("/dev/null").expect("it is there")).contains("nothing that one has"));
        let large = memory(b"");
        large.set_len(1 << 40).expect("nothing is written");
        assert!(refused(&large).contains("nothing that one has"));
        let good = write(&shared, Extent::Everything).expect("written").expect("Linux has it");
        let good = File::from(good.memory);
        let mut bytes = vec![0; good.metadata().expect("a file").len() as usize];
        good.read_exact_at(&mut bytes, 0).expect("whole");
        bytes[12..20].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(refused(&memory(&bytes)), "it is of another clock");
    }
}
