//! USR2: another process of the same program, as its file is now, takes the place of this one. It gets the
//! listening sockets; until it says that it is ready nothing changes here, and if it never does this process
//! serves on.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{env, io, thread};

use rustix::process::{Pid, Signal, kill_process};
use ruststrom_core::Shared;
use ruststrom_core::shared::Extent;
use ruststrom_driver::access_target::SharedAccessTarget;
use ruststrom_driver::stop::{Stage, Stop};
use ruststrom_driver::workers::Workers;

use crate::handover::{self, Estate, Word};
use crate::notify::Notifier;
use crate::pid_file;
use crate::state_transfer::{self, Written};

/// A new process is ready within this time, probes and lookups of names included, or is given up.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// For what takes no time: a turn of each worker.
const SOON: Duration = Duration::from_secs(10);
/// It has read what this process has found out within this time, and serves, or is given up.
const SERVING_WITHIN: Duration = Duration::from_secs(60);

/// What is being done, as signals see it.
#[derive(Debug, Default)]
struct State {
    /// This process is being replaced, or has not yet taken the place of another one.
    under_way: AtomicBool,
    /// A reload was asked for meanwhile.
    reload: AtomicBool,
}

/// Asks for an upgrade.
#[derive(Clone)]
pub(crate) struct Ask {
    to: SyncSender<()>,
    state: Arc<State>,
}

/// Upgrades that are asked for.
pub(crate) struct Requests {
    from: Receiver<()>,
    state: Arc<State>,
}

/// Where requests for upgrades go, and where they come from. They are refused until the start is over.
pub(crate) fn requests() -> (Ask, Requests) {
    let (to, from) = mpsc::sync_channel(1);
    let state = Arc::new(State { under_way: AtomicBool::new(true), ..State::default() });
    (Ask { to, state: state.clone() }, Requests { from, state })
}

impl Ask {
    /// Asks for one, unless another is under way.
    pub(crate) fn upgrade(&self) {
        if self.state.under_way.swap(true, Ordering::AcqRel) {
            log::warn!("USR2: an upgrade, or the start, is under way already");
        } else {
            let _ = self.to.try_send(());
        }
    }

    /// Whether a reload has to wait for the end of an upgrade, after which it comes by itself.
    pub(crate) fn defers_reload(&self) -> bool {
        if !self.state.under_way.load(Ordering::Acquire) {
            return false;
        }
        self.state.reload.store(true, Ordering::Release);
        // It may have ended meanwhile.
        self.state.under_way.load(Ordering::Acquire) || !self.state.reload.swap(false, Ordering::AcqRel)
    }
}

/// How this process was started.
pub(crate) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// To be called early: a program whose file is replaced is not found any more by what the kernel knows of
    /// it.
    ///
    /// # Errors
    /// If nobody knows where the file is.
    pub(crate) fn of_this_process() -> io::Result<Self> {
        let mut arguments = env::args_os();
        let called = arguments.next().map(PathBuf::from);
        // The way that it was called by comes first: it may be a link, which an upgrade changes.
        let path = match called {
            Some(called) if called.components().count() > 1 || called.is_absolute() => {
                Some(env::current_dir()?.join(called))
            }
            Some(called) => env::split_paths(&env::var_os("PATH").unwrap_or_default())
                .map(|folder| folder.join(&called))
                .find(|path| is_program(path)),
            None => None,
        };
        let path = path.filter(|path| is_program(path)).map_or_else(env::current_exe, Ok)?;
        Ok(Self { path, arguments: arguments.collect() })
    }

    /// Starts it with `link` as its standard input.
    fn spawn(&self, link: UnixStream) -> io::Result<Child> {
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).stdin(Stdio::from(OwnedFd::from(link)));
        command.env(handover::VARIABLE, "stdin");
        // They name this process, or sockets that the new one gets otherwise.
        for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"] {
            command.env_remove(name);
        }
        command.spawn()
    }
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// The new process, while it is not known what becomes of it, and whether it may have clients.
#[derive(Clone, Default)]
pub(crate) struct Successor(Arc<Mutex<(Option<Child>, bool)>>);

impl Successor {
    fn lock(&self) -> MutexGuard<'_, (Option<Child>, bool)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is this one now; the one before.
    fn set(&self, child: Option<Child>) -> Option<Child> {
        std::mem::replace(&mut *self.lock(), (child, false)).0
    }

    /// It may have clients.
    fn keep(&self) {
        self.lock().1 = true;
    }

    /// Ends it, unless it may have clients.
    pub(crate) fn give_up(&self) {
        if let (Some(child), false) = &mut *self.lock() {
            let _ = child.kill();
        }
    }

    /// It is of no use: waits for it to end by itself, but not for long; `None` if it had to be ended. One
    /// that was told to begin and has said nothing since may have clients; nobody knows what becomes of them.
    fn end(&self) -> Option<ExitStatus> {
        self.lock().1 = false;
        let ended = self.wait_a_second();
        let mut child = self.set(None)?;
        if ended.is_none() && child.kill().is_ok() {
            // A process that the kernel holds up takes long even then.
            let _ = thread::Builder::new().name("reaper".into()).spawn(move || child.wait());
        }
        ended
    }

    /// It stays what is given up if this process stops meanwhile.
    fn wait_a_second(&self) -> Option<ExitStatus> {
        let until = Instant::now() + Duration::from_secs(1);
        while Instant::now() < until {
            if let Some(child) = &mut self.lock().0
                && let Ok(Some(status)) = child.try_wait()
            {
                return Some(status);
            }
            thread::sleep(Duration::from_millis(5));
        }
        None
    }
}

/// What an upgrade needs of a daemon that serves.
pub(crate) struct Upgrade {
    pub(crate) program: io::Result<Program>,
    /// It names the new process from when that begins.
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) stop: Arc<Stop>,
    pub(crate) workers: Workers,
    /// What goes along of what it knows.
    pub(crate) shared: Arc<Shared>,
    pub(crate) notifier: Arc<Notifier>,
    /// Its file goes along.
    pub(crate) access: SharedAccessTarget,
    /// Asks for a reload.
    pub(crate) reload: Box<dyn Fn() + Send>,
}

impl Upgrade {
    /// Upgrades whenever that is asked for, on a thread of its own. The process that it starts is to be given
    /// up before this one ends.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(crate) fn listen(self, requests: Requests) -> io::Result<Successor> {
        let successor = Successor::default();
        let (stopped, started) = (successor.clone(), successor.clone());
        // Nobody waits for the new process then.
        self.stop.on_advance(Box::new(move || stopped.give_up()));
        let Requests { from, state } = requests;
        let run = move || {
            self.open(&state);
            while from.recv().is_ok() {
                match self.upgrade(&successor) {
                    Ok(id) => return self.give_way(id, &state),
                    Err(why) => log::error!("not upgraded, this process serves on: {why}"),
                }
                self.open(&state);
            }
        };
        thread::Builder::new().name("upgrade".into()).spawn(run)?;
        Ok(started)
    }

    /// Upgrades may be asked for, and reloads go on.
    fn open(&self, state: &State) {
        state.under_way.store(false, Ordering::Release);
        if state.reload.swap(false, Ordering::AcqRel) {
            (self.reload)();
        }
    }

    /// The new process serves.
    fn give_way(&self, id: u32, state: &State) {
        self.notifier.silence();
        log::info!("upgraded: process {id} serves now; what runs here is finished");
        if state.reload.load(Ordering::Acquire)
            && let Some(id) = i32::try_from(id).ok().and_then(Pid::from_raw)
        {
            // It may have read the files before they were changed.
            let _ = kill_process(id, Signal::HUP);
        }
        // Whoever asks is not told of a stop: there is somebody who is ready.
        self.stop.advance(Stage::Drain);
    }

    /// Starts another process and makes room for it; its id.
    fn upgrade(&self, successor: &Successor) -> Result<u32, String> {
        if self.stop.stage() != Stage::Run {
            return Err("stopping already".into());
        }
        if std::process::id() == 1 {
            // The kernel ends all processes of a namespace with its first one.
            return Err("it is the first process of its container, which ends with it; start another \
                        container instead"
                .into());
        }
        let until = Instant::now() + READY_WITHIN;
        let program =
            self.program.as_ref().map_err(|e| format!("cannot find the file of this program: {e}"))?;
        let name = program.path.display();
        let cannot = |e: io::Error| format!("cannot start {name}: {e}");
        let (ours, theirs) = UnixStream::pair().map_err(cannot)?;
        let child = program.spawn(theirs).map_err(cannot)?;
        let id = child.id();
        successor.set(Some(child));
        log::info!("upgrading: process {id} starts, {name}");
        if self.stop.stage() != Stage::Run {
            successor.give_up();
        }
        let done = self.hand_over(&ours, id, until, successor);
        let Err(why) = done else {
            successor.set(None);
            return Ok(id);
        };
        drop(ours);
        self.notifier.main_process(std::process::id());
        let status = successor.end().map_or_else(|| "and was ended".into(), |status| format!("{status}"));
        if let Some(Err(e)) = self.pid_file.as_deref().map(pid_file::take_back) {
            log::error!("{e}");
        }
        Err(format!("the new process {id} {why} ({status})"))
    }

    /// Tells the new process what there is, and lets it begin once it can; what it did else, as words.
    fn hand_over(
        &self,
        to: &UnixStream,
        id: u32,
        until: Instant,
        successor: &Successor,
    ) -> Result<(), String> {
        let lent = self.workers.lend(SOON).map_err(|e| format!("cannot be given the sockets: {e}"))?;
        let log =
            self.access.get().filter(|target| target.own_file).and_then(|target| target.writer.file(SOON));
        let estate = Estate {
            listeners: lent.iter().map(|lent| lent.kind.name().to_owned()).collect(),
            access_log: log.as_ref().map(|(path, _)| path.clone()),
        };
        let mut descriptors: Vec<_> = lent.iter().map(|lent| lent.socket.as_fd()).collect();
        descriptors.extend(log.as_ref().map(|(_, file)| file.as_fd()));
        // Its probes go on from there, and it has time to read what clients had.
        let before = self.write_state(Extent::Everything);
        let given = handover::say_with(to, &estate, before.as_ref().map(|known| known.memory.as_fd()));
        let given = given.and_then(|()| handover::pass(to, &descriptors));
        given.map_err(|e| format!("does not take the sockets: {e}"))?;
        let since = before.map_or(Extent::Everything, |known| Extent::Since(known.taken));
        drop(descriptors);
        drop((lent, log));
        match handover::hear(to, Some(until)) {
            Ok(Word::Ready) => {}
            Ok(Word::Failed(why)) => return Err(format!("cannot serve: {why}")),
            Ok(_) => return Err("says something else".into()),
            Err(e) => return Err(silence(&e, READY_WITHIN)),
        }
        // As late as can be: what is counted here from now on the new process does not know of.
        let new = self.write_state(since);
        // From here on it may have clients.
        successor.keep();
        self.notifier.main_process(id);
        let gone = handover::say_with(to, &Word::Go, new.as_ref().map(|known| known.memory.as_fd()));
        gone.map_err(|e| silence(&e, SOON))?;
        drop(new);
        match handover::hear(to, Some(Instant::now() + SERVING_WITHIN)) {
            Ok(Word::Serving) => Ok(()),
            Ok(Word::Failed(why)) => Err(format!("cannot serve: {why}")),
            Ok(_) => Err("says something else".into()),
            Err(e) => Err(silence(&e, SERVING_WITHIN)),
        }
    }

    /// What this process has found out; the new one can do without it.
    fn write_state(&self, extent: Extent) -> Option<Written> {
        state_transfer::write(&self.shared, extent).unwrap_or_else(|e| {
            log::warn!("what this process has found out does not go along: {e}");
            None
        })
    }
}

/// Why nothing was heard.
fn silence(e: &io::Error, within: Duration) -> String {
    match e.kind() {
        io::ErrorKind::TimedOut => format!("was not ready within {within:?}"),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
            "has ended".into()
        }
        _ => format!("cannot be heard: {e}"),
    }
}
