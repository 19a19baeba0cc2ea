//! What no client may do: the proxy has to say so, with the right code, and it must harm nobody else.

use super::StreamsConn;
use crate::coverage::Mark;
use crate::http2::{FieldPairs, RawFrame, code, flag, kind, put_frame};
use crate::net::Net;

/// What a client has done, and what it is to be told.
#[derive(Debug)]
pub(super) struct Violation {
    what: Offence,
    /// Where the bytes of the connection end that it is in.
    end: u64,
    /// The stream that is to be reset; 0: the connection ends.
    stream: u32,
    pub(super) told: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offence {
    DataOnIdleStream,
    EvenStream,
    SettingsSize,
    PingSize,
    BrokenBlock,
    LoneContinuation,
    FrameTooLong,
    NoCredit,
    WindowTooLarge,
    InsideOfBlock,
    OldStream,
    UppercaseName,
    FieldOfConnection,
    NoPath,
    LateField,
}

impl Offence {
    const ALL: [Self; 15] = [
        Self::DataOnIdleStream,
        Self::EvenStream,
        Self::SettingsSize,
        Self::PingSize,
        Self::BrokenBlock,
        Self::LoneContinuation,
        Self::FrameTooLong,
        Self::NoCredit,
        Self::WindowTooLarge,
        Self::InsideOfBlock,
        Self::OldStream,
        Self::UppercaseName,
        Self::FieldOfConnection,
        Self::NoPath,
        Self::LateField,
    ];

    /// Whether it concerns the stream alone (RFC 9113 §5.4, §8.1.1).
    fn is_of_stream(self) -> bool {
        matches!(self, Self::UppercaseName | Self::FieldOfConnection | Self::NoPath | Self::LateField)
    }

    /// The codes that may tell of it.
    fn codes(self) -> &'static [u32] {
        match self {
            Self::SettingsSize | Self::PingSize | Self::FrameTooLong => &[code::FRAME_SIZE_ERROR],
            Self::BrokenBlock => &[code::COMPRESSION_ERROR],
            Self::WindowTooLarge => &[code::FLOW_CONTROL_ERROR],
            Self::OldStream => &[code::PROTOCOL_ERROR, code::STREAM_CLOSED],
            _ => &[code::PROTOCOL_ERROR],
        }
    }
}

impl StreamsConn {
    /// Does something that no client may do, if that was drawn. All else is over.
    pub(super) fn violate(&mut self, net: &mut Net) {
        if !self.draw.invalid || !net.faults_on || self.violation.is_some() || self.is_leaving() {
            return;
        }
        let what = self.rng.pick(&Offence::ALL);
        let stream = self.next_stream;
        match what {
            Offence::DataOnIdleStream => put_frame(&mut self.out, kind::DATA, 0, stream, b"x"),
            Offence::EvenStream => self.malformed(stream + 1, |_| {}),
            Offence::SettingsSize => put_frame(&mut self.out, kind::SETTINGS, 0, 0, &[0; 5]),
            Offence::PingSize => put_frame(&mut self.out, kind::PING, 0, 0, &[0; 9]),
            Offence::BrokenBlock => {
                let flags = flag::END_HEADERS | flag::END_STREAM;
                // An index that no table has.
                put_frame(&mut self.out, kind::HEADERS, flags, stream, &[0xff, 0xff, 0x7f]);
            }
            Offence::LoneContinuation => put_frame(&mut self.out, kind::CONTINUATION, 4, stream, &[]),
            Offence::FrameTooLong => {
                let payload = vec![0; self.max_frame as usize + 1];
                put_frame(&mut self.out, kind::UNKNOWN, 0, 0, &payload);
            }
            Offence::NoCredit => put_frame(&mut self.out, kind::WINDOW_UPDATE, 0, 0, &[0; 4]),
            Offence::WindowTooLarge => {
                put_frame(&mut self.out, kind::WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes());
            }
            Offence::InsideOfBlock => {
                put_frame(&mut self.out, kind::HEADERS, flag::END_STREAM, stream, &[0x82]);
                put_frame(&mut self.out, kind::PING, 0, 0, &[0; 8]);
            }
            Offence::OldStream => {
                match self.streams.iter().rev().find(|(_, s)| s.sent_end && s.got_end && !s.got_reset) {
                    Some((old, _)) => self.malformed(*old, |_| {}),
                    // Nobody has opened it.
                    None => put_frame(&mut self.out, kind::RST_STREAM, 0, stream, &[0; 4]),
                }
            }
            Offence::UppercaseName => self.malformed(stream, |f| f.push(("X-Upper".into(), "1".into()))),
            Offence::FieldOfConnection => {
                self.malformed(stream, |f| f.push(("connection".into(), "close".into())));
            }
            Offence::NoPath => self.malformed(stream, |f| f.retain(|(name, _)| name != ":path")),
            Offence::LateField => self.malformed(stream, |f| f.rotate_left(1)),
        }
        net.mark(Mark::Http2Violation);
        net.trace(26, || format!("a client violates the protocol: {what:?}"));
        let stream = if what.is_of_stream() { stream } else { 0 };
        self.violation = Some(Violation { what, end: self.offset(), stream, told: false });
    }

    /// The head of a request that nobody has entered into the ledger: no backend may get it.
    fn malformed(&mut self, stream: u32, change: impl FnOnce(&mut FieldPairs)) {
        let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "a.test"),
            (":path", "/a/malformed"),
            ("x-of", "1"),
        ];
        let mut fields: FieldPairs = fields.into_iter().map(pair).collect();
        change(&mut fields);
        let mut block = Vec::new();
        self.encoder.encode(&fields, &mut self.rng, &mut block);
        let flags = flag::END_HEADERS | flag::END_STREAM;
        put_frame(&mut self.out, kind::HEADERS, flags, stream, &block);
    }

    /// Whether a frame tells of what this client has done.
    pub(super) fn is_told(&mut self, frame: &RawFrame) -> bool {
        let Some(violation) = &mut self.violation else { return false };
        let of_stream = violation.what.is_of_stream();
        let code = match frame.kind {
            kind::RST_STREAM if of_stream && frame.stream == violation.stream => frame.number(0),
            kind::GOAWAY if !of_stream => frame.number(4),
            // It may have been answered before the rest of it came.
            _ => return of_stream && frame.stream == violation.stream,
        };
        violation.told |= code.is_some_and(|code| violation.what.codes().contains(&code));
        violation.told
    }

    /// The connection has ended: a violation that the proxy has read is one that it has told of.
    pub(super) fn judge_violation(&self, net: &mut Net, socket: usize) {
        let Some(violation) = &self.violation else { return };
        let read = net.sockets[socket].to_proxy.read_total >= violation.end;
        // A stream above the last one is ignored, whatever comes on it.
        if !violation.told && read && self.last_taken.is_none() && !net.drains() {
            self.fail(net, "http2-violation-told", &format!("{:?}", violation.what));
        }
    }
}
