//! How a backend leaves a connection (RFC 9113 §6.8): it says which was the last stream that it has taken, at
//! once or in two steps, and what is above that has not been processed.

use super::StreamsConn;
use crate::coverage::Mark;
use crate::http2::{code, kind, put_frame};
use crate::net::Net;
use crate::scenario::{Leaving, MS};

/// How far it is with that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Departure {
    No,
    /// It has said that it will tell, and tells then.
    Announced(u64),
    /// Streams above this one are ignored.
    Last(u32),
}

impl Departure {
    /// Whether a stream is above the last one.
    pub(super) fn ignores(self, stream: u32) -> bool {
        matches!(self, Self::Last(last) if stream > last)
    }
}

/// More than any stream.
const MAX_STREAM: u32 = 0x7fff_ffff;

impl StreamsConn {
    /// A stream has just been opened, and it is time to leave. True if that one is not taken any more.
    pub(super) fn leave(&mut self, net: &mut Net, socket: usize, opened: u32, how: Leaving) -> bool {
        self.draw.leaves = None;
        match how {
            Leaving::Gracefully => {
                net.mark(Mark::Http2LeavesGracefully);
                let at = net.now + self.rng.between(MS, 300 * MS);
                self.departure = Departure::Announced(at);
                self.go_away(net, socket, MAX_STREAM, code::NO_ERROR);
                net.wake_peer(socket, at);
                false
            }
            Leaving::AtOnce => {
                net.mark(Mark::Http2LeavesAtOnce);
                // Those before it that nobody has looked at either may be above the last one, too.
                let mut first = opened;
                for (number, stream) in self.streams.range(..opened).rev() {
                    let untouched = !(stream.answered || stream.got_end) && stream.pieces.is_empty();
                    if !stream.is_over() && (!untouched || self.draw.seed & 2 == 0) {
                        break;
                    }
                    if !stream.is_over() {
                        first = *number;
                    }
                }
                let below = self.streams.range(..first).next_back().map_or(0, |(number, _)| *number);
                // It need not be one that there is.
                let there = self.rng.below(3) > 0;
                let most = u64::from(if there { below } else { first - 1 });
                let last = self.rng.between(u64::from(below), most) as u32;
                let code = self.rng.pick(&[code::NO_ERROR, code::ENHANCE_YOUR_CALM, code::INTERNAL_ERROR]);
                self.tell_last(net, socket, last, code);
                true
            }
        }
    }

    /// Tells the last stream.
    fn tell_last(&mut self, net: &mut Net, socket: usize, last: u32, code: u32) {
        self.departure = Departure::Last(last);
        self.go_away(net, socket, last, code);
        for (number, stream) in self.streams.range_mut(last + 1..) {
            if !stream.is_over() {
                stream.ignored = true;
                stream.pieces.clear();
                self.up.windows.close(*number);
                self.down.close(*number);
                net.mark(Mark::Http2AboveLast);
            }
        }
    }

    fn go_away(&mut self, net: &mut Net, socket: usize, last: u32, code: u32) {
        let payload = [last.to_be_bytes(), code.to_be_bytes()].concat();
        put_frame(&mut self.out, kind::GOAWAY, 0, 0, &payload);
        let end = self.offset();
        net.trace(51, || format!("a backend leaves {socket}, {last} is the last stream: {code}"));
        if let Some(log) = &mut net.sockets[socket].streams {
            log.goaways.push((end, last));
        }
    }

    /// Tells the last stream, if it is time for that.
    pub(super) fn go_on_leaving(&mut self, net: &mut Net, socket: usize) {
        let Departure::Announced(at) = self.departure else { return };
        if at > net.now {
            return net.wake_peer(socket, at);
        }
        let last = self.last_stream;
        self.tell_last(net, socket, last, code::NO_ERROR);
    }

    /// It takes no further streams.
    pub(super) fn has_said_to_leave(&self) -> bool {
        self.departure != Departure::No
    }

    /// It has said which stream was the last, and all of them are over.
    pub(super) fn has_left(&self) -> bool {
        let over = self.open_streams().next().is_none() && self.out.is_empty();
        over && matches!(self.departure, Departure::Last(_)) && self.offence.is_none()
    }
}
