//! What no backend may do: of a stream, it ends that alone; of the connection, the proxy says so and ends it.

use super::StreamsConn;
use super::head::pair;
use super::piece::Piece;
use crate::coverage::Mark;
use crate::http2::{FieldPairs, RawFrame, code, flag, kind, put_frame, setting, settings_payload};
use crate::net::Net;
use crate::random::SplitMix64;

/// What it does to the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offence {
    DataOnIdleStream,
    HeadOnIdleStream,
    PushedStream,
    SettingsSize,
    SettingsPush,
    PingSize,
    BrokenBlock,
    LoneContinuation,
    FrameTooLong,
    NoCredit,
    WindowTooLarge,
    InsideOfBlock,
    Http1,
    Noise,
}

impl Offence {
    const ALL: [Self; 14] = [
        Self::DataOnIdleStream,
        Self::HeadOnIdleStream,
        Self::PushedStream,
        Self::SettingsSize,
        Self::SettingsPush,
        Self::PingSize,
        Self::BrokenBlock,
        Self::LoneContinuation,
        Self::FrameTooLong,
        Self::NoCredit,
        Self::WindowTooLarge,
        Self::InsideOfBlock,
        Self::Http1,
        Self::Noise,
    ];

    /// The codes that may tell of it.
    fn codes(self) -> &'static [u32] {
        match self {
            Self::SettingsSize | Self::PingSize | Self::FrameTooLong => &[code::FRAME_SIZE_ERROR],
            Self::BrokenBlock => &[code::COMPRESSION_ERROR],
            Self::WindowTooLarge => &[code::FLOW_CONTROL_ERROR],
            Self::Http1 | Self::Noise => {
                &[code::PROTOCOL_ERROR, code::FRAME_SIZE_ERROR, code::COMPRESSION_ERROR]
            }
            _ => &[code::PROTOCOL_ERROR],
        }
    }
}

impl StreamsConn {
    /// Does what no backend may do. Nothing follows it.
    pub(super) fn offend(&mut self, net: &mut Net, socket: usize) {
        let what = self.rng.pick(&Offence::ALL);
        net.mark(Mark::Http2Offence);
        net.trace(52, || format!("the backend of {socket} breaks a rule: {what:?}"));
        net.violates(socket);
        self.offence = Some(what);
        // Streams that the proxy has opened may be on their way.
        let idle = self.last_stream + 2_000;
        let out = &mut self.out;
        match what {
            Offence::DataOnIdleStream => put_frame(out, kind::DATA, 0, idle, b"x"),
            Offence::HeadOnIdleStream => put_frame(out, kind::HEADERS, flag::END_HEADERS, idle, &[0x88]),
            Offence::PushedStream => put_frame(out, kind::HEADERS, flag::END_HEADERS, 2, &[0x88]),
            Offence::SettingsSize => put_frame(out, kind::SETTINGS, 0, 0, &[0; 5]),
            Offence::SettingsPush => {
                put_frame(out, kind::SETTINGS, 0, 0, &settings_payload(&[(setting::ENABLE_PUSH, 1)]));
            }
            Offence::PingSize => put_frame(out, kind::PING, 0, 0, &[0; 9]),
            Offence::BrokenBlock => {
                // An index that no table has.
                put_frame(out, kind::HEADERS, flag::END_HEADERS, self.last_stream, &[0xff, 0xff, 0x7f]);
            }
            Offence::LoneContinuation => put_frame(out, kind::CONTINUATION, 4, self.last_stream, &[]),
            Offence::FrameTooLong => put_frame(out, kind::UNKNOWN, 0, 0, &[0; 16_385]),
            Offence::NoCredit => put_frame(out, kind::WINDOW_UPDATE, 0, 0, &[0; 4]),
            Offence::WindowTooLarge => {
                put_frame(out, kind::WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes());
            }
            Offence::InsideOfBlock => {
                put_frame(out, kind::HEADERS, 0, self.last_stream, &[0x88]);
                put_frame(out, kind::PING, 0, 0, &[0; 8]);
            }
            Offence::Http1 => out.extend_from_slice(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
            // A frame whose length is more than any that is allowed.
            Offence::Noise => {
                let noise: Vec<u8> = (0..40).map(|_| self.rng.below(256) as u8 | 0x80).collect();
                out.extend_from_slice(&noise);
            }
        }
    }

    /// A frame has come behind an offence: if it tells of that, with the right code.
    pub(super) fn told(&self, net: &mut Net, frame: &RawFrame) -> Result<(), (&'static str, String)> {
        let Some(what) = self.offence.filter(|_| frame.kind == kind::GOAWAY) else { return Ok(()) };
        let code = frame.number(4).unwrap_or(u32::MAX);
        if !what.codes().contains(&code) {
            return Err(("http2-offence-told", format!("{what:?}: code {code}")));
        }
        net.mark(Mark::Http2OffenceTold);
        Ok(())
    }
}

/// What is no response to a request whose response has these fields and so many bytes of content. `to_head`:
/// it is a HEAD.
pub(super) fn malformed(rng: &mut SplitMix64, fields: &FieldPairs, len: usize, to_head: bool) -> Vec<Piece> {
    let mut fields = fields.clone();
    let head = |fields: FieldPairs| Piece::Head { fields, good: false };
    // A response to HEAD may announce whatever it likes.
    match rng.below(if to_head { 13 } else { 14 }) {
        0 => fields.push(("X-Upper".into(), "1".into())),
        1 => fields.push(pair("connection", "close")),
        2 => fields.push(pair("transfer-encoding", "chunked")),
        3 => fields.retain(|(name, _)| name != ":status"),
        4 => fields.insert(1, pair(":status", "200")),
        5 => fields.push(pair(":path", "/")),
        6 => fields[0].1 = "101".into(),
        7 => fields[0].1 = "20".into(),
        8 => fields.push(pair("x-lines", "a\r\nb: c")),
        9 => fields.push(pair("", "no name")),
        // Content before there is a head.
        10 => return vec![Piece::Data(len), Piece::End],
        // An end before there is a head.
        11 => return vec![Piece::End],
        12 => {
            // A second head that does not end the stream.
            let second = fields.clone();
            let first = Piece::Head { fields, good: true };
            return vec![first, head(second), Piece::Data(len), Piece::End];
        }
        // It announces more than comes.
        _ if len > 0 && fields.iter().any(|(name, _)| name == "content-length") => {
            return vec![Piece::Head { fields, good: true }, Piece::Data(len - 1), Piece::End];
        }
        _ => return vec![Piece::End],
    }
    vec![head(fields), Piece::Data(len), Piece::End]
}
