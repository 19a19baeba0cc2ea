//! What the service manager is told, as sd_notify(3) has it: ready, reloading, stopping, how things are, and
//! that the workers live.
//!
//! These are datagrams of a few words to a socket whose name is in the environment: the standard library can
//! send those, to abstract names too, and a send that fails or would take long is given up. Nothing that goes
//! wrong here may be felt by anybody who is served.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use rustix::time::{ClockId, clock_gettime};
use ruststrom_core::Shared;
use ruststrom_driver::stop::Stop;
use ruststrom_driver::workers::Workers;

/// The longest wait for a service manager that does not read.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);
/// How often the words about the backends are looked at.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// The service manager, if there is one that wants to be told.
pub(crate) struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// Somebody waits for a sign of life within this time, over and over.
    watchdog: Option<Duration>,
    /// Another process speaks now.
    silent: AtomicBool,
    stopping: AtomicBool,
    /// What it was told last of how things are.
    told: Mutex<String>,
}

impl Notifier {
    /// As the environment has it. What cannot be used is a line for the log.
    pub(crate) fn from_environment() -> (Arc<Self>, Option<String>) {
        let name = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let socket = name.as_deref().map(Self::open).transpose();
        let (socket, problem) = match socket {
            Ok(socket) => (socket, None),
            Err(e) => (None, Some(format!("cannot tell the service manager (NOTIFY_SOCKET) anything: {e}"))),
        };
        let variable = |name| std::env::var(name).ok();
        let ours = variable("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let within = variable("WATCHDOG_USEC").filter(|_| ours).and_then(|usec| usec.parse().ok());
        let watchdog = within.filter(|usec| *usec > 0).map(Duration::from_micros);
        let (silent, stopping) = (AtomicBool::new(false), AtomicBool::new(false));
        let told = Mutex::default();
        (Arc::new(Self { socket, watchdog, silent, stopping, told }), problem)
    }

    fn open(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
        let address = match name.as_bytes().strip_prefix(b"@") {
            #[cfg(target_os = "linux")]
            Some(name) => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name)?,
            #[cfg(not(target_os = "linux"))]
            Some(_) => return Err(io::Error::other("only Linux has abstract names of sockets")),
            None => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        Ok((socket, address))
    }

    fn send(&self, text: &str) {
        let Some((socket, address)) = &self.socket else { return };
        if self.silent.load(Ordering::Acquire) {
            return;
        }
        if let Err(e) = socket.send_to_addr(text.as_bytes(), address) {
            log::debug!("cannot tell the service manager {text:?}: {e}");
        }
    }

    /// A reload begins.
    pub(crate) fn reloading(&self) {
        // What systemd compares with the moment at which it asked.
        let now = clock_gettime(ClockId::Monotonic);
        let usec = now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={usec}"));
    }

    /// Everything is as it is to be: after the first probes, and after a reload, whatever came of it.
    pub(crate) fn ready(&self, shared: &Shared) {
        let now = status(shared);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        self.send(&format!("READY=1\nSTATUS={now}"));
        *told = now;
    }

    /// This process is the one to watch from now on.
    pub(crate) fn main_process(&self, id: u32) {
        self.send(&format!("MAINPID={id}"));
    }

    /// Another process speaks from now on.
    pub(crate) fn silence(&self) {
        self.silent.store(true, Ordering::Release);
    }

    /// Tells from now on what comes by itself: the end of the first probes, the beginning of a stop, changes
    /// of the backends, and that the workers live.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(crate) fn start(
        self: &Arc<Self>,
        stop: &Stop,
        shared: Arc<Shared>,
        workers: Workers,
    ) -> io::Result<()> {
        if self.socket.is_none() {
            return Ok(());
        }
        let notifier = self.clone();
        stop.on_advance(Box::new(move || {
            if !notifier.stopping.swap(true, Ordering::AcqRel) {
                notifier.send("STOPPING=1\nSTATUS=stopping: what runs is finished");
            }
        }));
        let (probed, ready) = mpsc::sync_channel(1);
        stop.on_probed(Box::new(move || _ = probed.try_send(())));
        let notifier = self.clone();
        thread::Builder::new()
            .name("notify".into())
            .spawn(move || notifier.run(&ready, &shared, &workers))?;
        Ok(())
    }

    fn tell_changes(&self, shared: &Shared) {
        let now = status(shared);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != now {
            self.send(&format!("STATUS={now}"));
            *told = now;
        }
    }

    fn run(&self, ready: &mpsc::Receiver<()>, shared: &Shared, workers: &Workers) {
        // Twice within the time that is allowed, and then a worker may be late.
        let pulse = self.watchdog.map(|within| within / 3);
        let every = pulse.map_or(STATUS_INTERVAL, |pulse| pulse.min(STATUS_INTERVAL));
        let (mut is_ready, mut next_pulse) = (false, Instant::now());
        loop {
            match ready.recv_timeout(every) {
                Ok(()) => {
                    is_ready = true;
                    self.ready(shared);
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                // Its sender has been called.
                Err(mpsc::RecvTimeoutError::Disconnected) => thread::sleep(every),
            }
            if is_ready && !self.stopping.load(Ordering::Acquire) {
                self.tell_changes(shared);
            }
            if let Some(pulse) = pulse.filter(|_| Instant::now() >= next_pulse) {
                next_pulse = Instant::now() + pulse;
                if workers.all_turn(pulse) {
                    self.send("WATCHDOG=1");
                } else {
                    log::error!(
                        "a worker has had no turn for {pulse:?}: the watchdog is not told that all is well"
                    );
                }
            }
        }
    }
}

/// How things are, in a few words.
fn status(shared: &Shared) -> String {
    let pools = shared.pools();
    let backends: Vec<_> = pools.iter().flat_map(|pool| pool.backends()).collect();
    let usable = backends.iter().filter(|backend| backend.health().usable()).count();
    let s = |n: usize| if n == 1 { "" } else { "s" };
    format!(
        "serving {} pool{}, {usable} of {} backend{} usable",
        pools.len(),
        s(pools.len()),
        backends.len(),
        s(backends.len())
    )
}
