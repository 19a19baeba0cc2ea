//! What the two processes of an upgrade say to each other, over a stream socket that the new one has as its
//! standard input: nothing of it can be mistaken for something of anybody else, and it ends when either does.
//!
//! The old one tells what it has and passes the sockets (SCM_RIGHTS). The new one says `ready` after its
//! first probes, or why it cannot be. Until the old one says `go` it accepts nobody, so that nothing is lost
//! whatever becomes of it; then it says `serving`.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

/// The variable that tells a new process that its standard input is such a socket.
pub(crate) const VARIABLE: &str = "RUST_STROM_UPGRADE";
/// What is said is short.
const MAX_BYTES: u32 = 1 << 20;
/// Descriptors in one message; kernels pass 253 at most.
const AT_ONCE: usize = 64;

/// What the old process has.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Estate {
    /// What arrives at each of the sockets that follow.
    pub(crate) listeners: Vec<String>,
    /// The file of the access log, whose descriptor follows the sockets.
    pub(crate) access_log: Option<std::path::PathBuf>,
}

/// What one says to the other.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Word {
    Ready,
    Failed(String),
    Go,
    Serving,
}

/// Says something.
///
/// # Errors
/// If the other has ended.
pub(crate) fn say(mut to: &UnixStream, what: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(what)?;
    let length = u32::try_from(text.len()).map_err(io::Error::other)?;
    to.write_all(&[&length.to_be_bytes()[..], &text].concat())
}

/// Waits for what the other says, until `until` if that is given.
///
/// # Errors
/// If it says nothing in time, or has ended (`UnexpectedEof`).
pub(crate) fn hear<T: for<'de> Deserialize<'de>>(from: &UnixStream, until: Option<Instant>) -> io::Result<T> {
    let mut length = [0; 4];
    read(from, &mut length, until)?;
    let length = u32::from_be_bytes(length);
    if length > MAX_BYTES {
        return Err(io::Error::other("it says something else"));
    }
    let mut text = vec![0; length as usize];
    read(from, &mut text, until)?;
    serde_json::from_slice(&text).map_err(io::Error::other)
}

fn read(mut from: &UnixStream, into: &mut [u8], until: Option<Instant>) -> io::Result<()> {
    let mut done = 0;
    while done < into.len() {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        from.set_read_timeout(left)?;
        match from.read(&mut into[done..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => done += n,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Passes descriptors on.
///
/// # Errors
/// If the other has ended.
pub(crate) fn pass(to: &UnixStream, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    for some in descriptors.chunks(AT_ONCE) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(some)) {
            return Err(io::Error::other("too many descriptors"));
        }
        // They come along with a byte.
        sendmsg(to.as_fd(), &[IoSlice::new(b".")], &mut control, SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

/// Takes descriptors that are passed on.
///
/// # Errors
/// If there are fewer.
pub(crate) fn take(from: &UnixStream, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut taken: Vec<OwnedFd> = Vec::with_capacity(count);
    while taken.len() < count {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let message = recvmsg(from.as_fd(), &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
        let before = taken.len();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(some) = message {
                taken.extend(some);
            }
        }
        if message.bytes == 0 || taken.len() == before {
            return Err(io::Error::other(
                "not all descriptors came; raise the limit of open files (ulimit -n)",
            ));
        }
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn words_and_descriptors() {
        let (one, other) = UnixStream::pair().expect("sockets");
        let null = std::fs::File::open("/dev/null").expect("it is there");
        let estate = Estate { listeners: vec!["http".into(); 150], access_log: None };
        say(&one, &estate).expect("said");
        pass(&one, &vec![null.as_fd(); 150]).expect("passed");
        say(&one, &Word::Failed("no \"x\"\n".into())).expect("said");
        let heard: Estate = hear(&other, None).expect("heard");
        assert_eq!(heard.listeners.len(), 150);
        let taken = take(&other, 150).expect("taken");
        let mut numbers: Vec<_> = taken.iter().map(AsRawFd::as_raw_fd).collect();
        numbers.dedup();
        assert_eq!(numbers.len(), 150);
        let soon = || Some(Instant::now() + Duration::from_secs(5));
        assert_eq!(hear::<Word>(&other, soon()).expect("heard"), Word::Failed("no \"x\"\n".into()));
        let late = hear::<Word>(&other, Some(Instant::now() + Duration::from_millis(20)));
        assert_eq!(late.expect_err("nothing is said").kind(), io::ErrorKind::TimedOut);
        drop(one);
        assert_eq!(hear::<Word>(&other, soon()).expect_err("gone").kind(), io::ErrorKind::UnexpectedEof);
    }
}
