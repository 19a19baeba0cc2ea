//! Handling of signals, on a thread of their own.

use std::ffi::c_int;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ruststrom_driver::access_target::SharedAccessTarget;
use ruststrom_driver::log_writer::LogWriter;
use ruststrom_driver::stop::{Stage, Stop};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::FORCED;
use crate::reload::Ask;
use crate::upgrade;

/// The longest wait for a slow log before the process is ended at once.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(200);

/// The workers have this long to cut what runs and to log it.
const CUT_TIMEOUT: Duration = Duration::from_secs(2);

/// Ends the process at once.
fn end(log: &LogWriter) -> ! {
    log.flush(FLUSH_TIMEOUT);
    std::process::exit(i32::from(FORCED));
}

/// Ends the process if it does not end by itself: a worker may hang.
fn end_later(log: LogWriter) {
    let spawned = std::thread::Builder::new().name("end".into()).spawn({
        let log = log.clone();
        move || {
            std::thread::sleep(CUT_TIMEOUT);
            end(&log)
        }
    });
    if spawned.is_err() {
        end(&log);
    }
}

/// Those of a daemon whose default action would end a process that only starts: from now on they wait for
/// [`listen`].
///
/// # Errors
/// A message, if the handlers cannot be installed.
pub(crate) fn hold() -> Result<Signals, String> {
    Signals::new([SIGHUP, SIGUSR1, SIGUSR2]).map_err(|e| format!("cannot handle signals: {e}"))
}

/// Handles signals from now on; those that were `held` have been handled when it returns. TERM, QUIT and
/// the first INT stop gracefully; an INT while that goes on cuts what runs, another one ends the process.
/// `log` is flushed before that. USR1 opens the file of the `access` log anew, HUP asks for a reload, USR2
/// for an upgrade.
///
/// # Errors
/// If the handlers or the thread cannot be installed.
pub(crate) fn listen(
    mut held: Signals,
    stop: Arc<Stop>,
    log: LogWriter,
    access: SharedAccessTarget,
    asks: Option<(Ask, upgrade::Ask)>,
) -> io::Result<()> {
    for signal in [SIGINT, SIGQUIT, SIGTERM] {
        held.add_signal(signal)?;
    }
    let handler = Handler { stop, log, access, asks };
    // Now, while the start is still under way, as it was when they came.
    held.pending().for_each(|signal| handler.handle(signal));
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || held.forever().for_each(|signal| handler.handle(signal)))?;
    Ok(())
}

/// What signals are about.
struct Handler {
    stop: Arc<Stop>,
    log: LogWriter,
    access: SharedAccessTarget,
    asks: Option<(Ask, upgrade::Ask)>,
}

impl Handler {
    fn handle(&self, signal: c_int) {
        match signal {
            SIGINT if self.stop.stage() == Stage::Now => end(&self.log),
            SIGINT if self.stop.stage() != Stage::Run => {
                log::warn!("INT again: everything that still runs is cut now");
                self.stop.advance(Stage::Now);
                end_later(self.log.clone());
            }
            // The workers go on to the drain by themselves, after a delay if there is to be one.
            SIGINT | SIGQUIT | SIGTERM if self.stop.stage() == Stage::Run => {
                log::info!(
                    "stopping: after timeouts.shutdown_delay nothing new is taken, what runs is finished"
                );
                self.stop.advance(Stage::Notice);
            }
            SIGINT | SIGQUIT | SIGTERM => log::warn!(
                "{} again: stopping already, what runs has until timeouts.drain; INT would cut it now",
                if signal == SIGQUIT { "QUIT" } else { "TERM" }
            ),
            // Their default action would end the process.
            SIGHUP => match &self.asks {
                Some((_, upgrade)) if upgrade.defers_reload() => log::info!(
                    "HUP: the file is read again after the upgrade, or the start, that is under way"
                ),
                // One that waits already will see what is in the file now.
                Some((reload, _)) => reload.always(),
                None => log::info!("HUP: there is no file to reload"),
            },
            SIGUSR1 => {
                if !self.access.reopen() {
                    log::info!("USR1: no log goes to a file, so there is none to open anew");
                }
            }
            _ if self.stop.stage() != Stage::Run => {
                log::warn!("USR2: stopping already, nothing is upgraded");
            }
            _ => match &self.asks {
                Some((_, upgrade)) => upgrade.upgrade(),
                None => log::info!("USR2: there is no file that another process could serve by"),
            },
        }
    }
}
