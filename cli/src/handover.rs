//! What the two processes of an upgrade say to each other, over a stream socket that the new one has as its
//! standard input: nothing of it can be mistaken for something of anybody else, and it ends when either does.
//!
//! The old one tells what it has and passes the sockets (SCM_RIGHTS). The new one says `ready` after its
//! first probes, or why it cannot be. Until the old one says `go` it accepts nobody, so that nothing is lost
//! whatever becomes of it; then it says `serving`, or why it cannot.
//!
//! What the old one has found out ([`crate::state_transfer`]) comes as a descriptor with the bytes of what it
//! says first, and with those of `go`: a program that does not know of it reads bytes, and the kernel closes
//! what came with them; one that does goes without it where nothing comes.

use std::io::{self, IoSlice, IoSliceMut, Write};
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
pub(crate) fn say(to: &UnixStream, what: &impl Serialize) -> io::Result<()> {
    say_with(to, what, None)
}

/// Says something, with a descriptor that the other need not take.
///
/// # Errors
/// If the other has ended.
pub(crate) fn say_with(
    mut to: &UnixStream,
    what: &impl Serialize,
    with: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let text = serde_json::to_vec(what)?;
    let length = u32::try_from(text.len()).map_err(io::Error::other)?;
    let bytes = [&length.to_be_bytes()[..], &text].concat();
    let sent = match &with {
        None => 0,
        Some(with) => send(to, &bytes, std::slice::from_ref(with))?,
    };
    to.write_all(&bytes[sent..])
}

/// Sends some of these bytes, and descriptors with them.
fn send(to: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors"));
    }
    Ok(sendmsg(to.as_fd(), &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

/// Waits for what the other says, until `until` if that is given.
///
/// # Errors
/// If it says nothing in time, or has ended (`UnexpectedEof`).
pub(crate) fn hear<T: for<'de> Deserialize<'de>>(from: &UnixStream, until: Option<Instant>) -> io::Result<T> {
    hear_with(from, until).map(|(what, _)| what)
}

/// Waits for what the other says, and for the descriptor that comes with it, if one does.
///
/// # Errors
/// As [`hear`].
pub(crate) fn hear_with<T: for<'de> Deserialize<'de>>(
    from: &UnixStream,
    until: Option<Instant>,
) -> io::Result<(T, Option<OwnedFd>)> {
    let (mut length, mut with) = ([0; 4], Vec::new());
    read(from, &mut length, until, &mut with)?;
    let length = u32::from_be_bytes(length);
    if length > MAX_BYTES {
        return Err(io::Error::other("it says something else"));
    }
    let mut text = vec![0; length as usize];
    read(from, &mut text, until, &mut with)?;
    Ok((serde_json::from_slice(&text).map_err(io::Error::other)?, with.pop()))
}

fn read(
    from: &UnixStream,
    into: &mut [u8],
    until: Option<Instant>,
    with: &mut Vec<OwnedFd>,
) -> io::Result<()> {
    let mut done = 0;
    while done < into.len() {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        from.set_read_timeout(left)?;
        match receive(from, &mut into[done..], with) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => done += n,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Receives some bytes, and the descriptors that come with them.
fn receive(from: &UnixStream, into: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let message = recvmsg(from.as_fd(), &mut [IoSliceMut::new(into)], &mut control, flags)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            descriptors.extend(some);
        }
    }
    Ok(message.bytes)
}

/// Passes descriptors on.
///
/// # Errors
/// If the other has ended.
pub(crate) fn pass(to: &UnixStream, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    // They come along with a byte.
    descriptors.chunks(AT_ONCE).try_for_each(|some| send(to, b".", some).map(drop))
}

/// Takes descriptors that are passed on.
///
/// # Errors
/// If there are fewer.
pub(crate) fn take(from: &UnixStream, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut taken: Vec<OwnedFd> = Vec::with_capacity(count);
    while taken.len() < count {
        let before = taken.len();
        if receive(from, &mut [0], &mut taken)? == 0 || taken.len() == before {
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
    use std::io::Read;
    use std::os::fd::AsRawFd;

    /// Whoever does not take a descriptor hears the same; whoever does goes without one.
    #[test]
    fn a_descriptor_need_be_neither_passed_nor_taken() {
        let (one, other) = UnixStream::pair().expect("sockets");
        let null = std::fs::File::open("/dev/null").expect("it is there");
        let until = || Some(Instant::now() + Duration::from_secs(5));
        for (passed, taken) in [(true, true), (true, false), (false, true), (false, false)] {
            say_with(&one, &Word::Ready, passed.then(|| null.as_fd())).expect("said");
            say(&one, &Word::Go).expect("said");
            if taken {
                let (word, with): (Word, _) = hear_with(&other, until()).expect("heard");
                assert_eq!((word, with.is_some()), (Word::Ready, passed));
            } else {
                // As it is done by a program that knows nothing of descriptors.
                let mut bytes = [0; 4 + 7];
                (&other).read_exact(&mut bytes).expect("heard");
                assert_eq!(&bytes, b"\0\0\0\x07\"Ready\"");
            }
            assert_eq!(hear::<Word>(&other, until()).expect("heard"), Word::Go, "{passed} {taken}");
        }
    }

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
