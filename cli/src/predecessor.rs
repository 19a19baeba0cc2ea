//! The process that this one takes the place of, if it was started for an upgrade.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ruststrom_core::config::ListenerKind;
use ruststrom_driver::inherited::Inherited;
use ruststrom_driver::stop::{Stage, Stop};

use crate::handover::{self, Estate, VARIABLE, Word};

/// The longest wait for what it has to say at once.
const SOON: Duration = Duration::from_secs(20);

/// The process that serves until this one is ready.
pub(crate) struct Predecessor {
    link: UnixStream,
    sockets: Vec<Inherited>,
    access_log: Option<(PathBuf, File)>,
    /// What it had found out when this process was started.
    state: Option<OwnedFd>,
}

/// What this process is to do when it is ready.
pub(crate) enum Turn {
    /// To serve; what the process before it has found out meanwhile, if that goes along.
    Serve(Option<OwnedFd>),
    /// To stop.
    Stop,
}

impl Predecessor {
    /// The one that has started this process, with its sockets; `None` if it was none.
    ///
    /// # Errors
    /// A message if it does not say what it should.
    pub(crate) fn from_environment() -> Result<Option<Self>, String> {
        if std::env::var_os(VARIABLE).is_none() {
            return Ok(None);
        }
        let done = Self::hear().map_err(|e| {
            format!(
                "{VARIABLE} is set, but standard input is no process that is to be replaced: {e}; unset it"
            )
        });
        done.map(Some)
    }

    fn hear() -> io::Result<Self> {
        let stdin = io::stdin().as_fd().try_clone_to_owned()?;
        rustix::net::sockopt::socket_type(&stdin)?;
        let link = UnixStream::from(stdin);
        // Nobody else is to have it.
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        let (estate, state): (Estate, _) = handover::hear_with(&link, Some(Instant::now() + SOON))?;
        let count = estate.listeners.len() + usize::from(estate.access_log.is_some());
        link.set_read_timeout(Some(SOON))?;
        let mut passed = handover::take(&link, count)?;
        let access_log = estate.access_log.zip(passed.split_off(estate.listeners.len()).pop());
        let access_log = access_log.map(|(path, file)| (path, File::from(file)));
        let mut sockets = Vec::with_capacity(passed.len());
        for (kind, socket) in estate.listeners.iter().zip(passed) {
            sockets.push(inherited(kind, socket)?);
        }
        Ok(Self { link, sockets, access_log, state })
    }

    /// Its sockets, once.
    pub(crate) fn take_sockets(&mut self) -> Vec<Inherited> {
        std::mem::take(&mut self.sockets)
    }

    /// The access log that it has open, if that is at this path: this process may not be allowed to open it.
    pub(crate) fn take_access_log(&mut self, path: &Path) -> Option<File> {
        self.access_log.take().filter(|(known, _)| known == path).map(|(_, file)| file)
    }

    /// What it had found out when this process was started ([`crate::state_transfer`]), once.
    pub(crate) fn take_state(&mut self) -> Option<OwnedFd> {
        self.state.take()
    }

    /// Tells why this process cannot serve.
    pub(crate) fn refuse(&self, why: &str) {
        let _ = handover::say(&self.link, &Word::Failed(why.to_owned()));
    }

    /// Tells it when this process is ready, and waits until it gives way, or a stop comes.
    ///
    /// # Errors
    /// A message if it ends, or has given this process up.
    pub(crate) fn wait(&self, stop: &Stop) -> Result<Turn, String> {
        let lost = |e: io::Error| format!("the process that was to be replaced does not wait any more: {e}");
        let link = self.link.try_clone().map_err(lost)?;
        stop.on_probed(Box::new(move || _ = handover::say(&link, &Word::Ready)));
        let link = self.link.try_clone().map_err(lost)?;
        stop.on_advance(Box::new(move || _ = link.shutdown(std::net::Shutdown::Both)));
        match handover::hear_with(&self.link, None) {
            _ if stop.stage() != Stage::Run => Ok(Turn::Stop),
            Ok((Word::Go, new)) => Ok(Turn::Serve(new)),
            Ok(_) => Err(lost(io::Error::other("it says something else"))),
            Err(e) => Err(lost(e)),
        }
    }

    /// Tells it that this process accepts whoever comes.
    pub(crate) fn serving(&self) {
        let _ = handover::say(&self.link, &Word::Serving);
    }
}

fn inherited(kind: &str, socket: OwnedFd) -> io::Result<Inherited> {
    let known = [ListenerKind::Http, ListenerKind::Https, ListenerKind::Admin];
    let known = known.into_iter().find(|known| known.name() == kind);
    Inherited::new(Some(known.ok_or_else(|| io::Error::other("it has listeners of another kind"))?), socket)
}
