//! Listening sockets that a service manager has opened (sd_listen_fds(3)): they are ours if `LISTEN_PID` says
//! so.

use std::os::fd::OwnedFd;

use listenfd::ListenFd;
use ruststrom_driver::inherited::Inherited;

/// More sockets than anybody would pass.
const MAX_SOCKETS: usize = 4096;

/// The sockets, and a line for the log for each that cannot be used. They are not passed on to other
/// processes, nor are the variables that tell of them. To be called once, before there are other threads.
pub(crate) fn sockets() -> (Vec<Inherited>, Vec<String>) {
    let (mut sockets, mut problems) = (Vec::new(), Vec::new());
    let variable = |name| std::env::var(name).unwrap_or_default();
    let ours = variable("LISTEN_PID").parse() == Ok(std::process::id());
    let (count, names) = (variable("LISTEN_FDS"), variable("LISTEN_FDNAMES"));
    if !ours || count.is_empty() {
        return (sockets, problems);
    }
    if !count.parse::<usize>().is_ok_and(|count| count <= MAX_SOCKETS) {
        problems.push(format!("LISTEN_FDS is {count:?}, which is no number of sockets: none is used"));
        return (sockets, problems);
    }
    let mut names = names.split(':');
    let mut passed = ListenFd::from_env();
    for nth in 0..passed.len() {
        let name = names.next().filter(|name| !name.is_empty()).map(|name| format!(" ({name})"));
        let socket = match passed.take_tcp_listener(nth) {
            Ok(Some(socket)) => Inherited::new(None, OwnedFd::from(socket)),
            Ok(None) => continue,
            Err(e) => {
                // It is closed if it is any socket.
                let _ = passed.take_udp_socket(nth);
                let _ = passed.take_unix_listener(nth);
                let _ = passed.take_unix_datagram(nth);
                Err(e)
            }
        };
        match socket {
            Ok(socket) => sockets.push(socket),
            Err(e) => {
                let name = name.unwrap_or_default();
                problems.push(format!("cannot use socket {}{name} of LISTEN_FDS: {e}", nth + 3));
            }
        }
    }
    (sockets, problems)
}
