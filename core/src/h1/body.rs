//! Bodies as they are received: payload is separated from its framing in place.

use super::body_progress::{BodyProgress, Received};
use super::chunked::Decoder;
use crate::http::{Framing, Violation};

/// Reads one message's content.
#[derive(Clone, Copy, Debug)]
pub struct BodyReader(Kind);

#[derive(Clone, Copy, Debug)]
enum Kind {
    Length(u64),
    Chunked(Decoder),
    Close,
}

impl BodyReader {
    /// A reader for content of this framing.
    #[inline]
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        if let Framing::Length(n) = framing {
            return Self(Kind::Length(n));
        }
        Self(match framing {
            Framing::None | Framing::Length(_) => Kind::Length(0),
            Framing::Chunked => Kind::Chunked(Decoder::new(false)),
            Framing::Close => Kind::Close,
        })
    }

    /// A reader for chunked content that takes blanks behind chunk sizes.
    #[must_use]
    pub fn lenient_chunks() -> Self {
        Self(Kind::Chunked(Decoder::new(true)))
    }

    /// Whether a rule was broken and forgiven: only by [`BodyReader::lenient_chunks`].
    #[must_use]
    pub fn has_forgiven(&self) -> bool {
        matches!(self.0, Kind::Chunked(decoder) if decoder.has_forgiven())
    }

    /// How far the body has come.
    #[inline]
    #[must_use]
    pub fn progress(&self) -> BodyProgress {
        match self.0 {
            Kind::Length(0) => BodyProgress::Done,
            Kind::Length(_) | Kind::Close => BodyProgress::More,
            Kind::Chunked(d) => d.progress(),
        }
    }

    /// Bytes of payload still to come; `None` if the length is not known.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        match self.0 {
            Kind::Length(n) => Some(n),
            _ => None,
        }
    }

    /// Whether the content ends with its connection, so that the end of the connection is no truncation.
    #[must_use]
    pub fn ends_at_close(&self) -> bool {
        matches!(self.0, Kind::Close)
    }

    /// Reads bytes as they were received and moves their payload to the front of `buf`.
    ///
    /// # Errors
    /// The rule of the chunked coding that the bytes break.
    pub fn receive(&mut self, buf: &mut [u8]) -> Result<Received, Violation> {
        match &mut self.0 {
            Kind::Length(left) => {
                let payload = usize::try_from(*left).unwrap_or(usize::MAX).min(buf.len());
                *left -= payload as u64;
                Ok(Received { payload, consumed: payload, state: self.progress() })
            }
            Kind::Close => {
                Ok(Received { payload: buf.len(), consumed: buf.len(), state: BodyProgress::More })
            }
            Kind::Chunked(decoder) => decoder.receive(buf),
        }
    }

    /// Content of a declared length, of which at most `available` bytes have been received, is payload as it
    /// is: how many of them are, and whether the content ends with them. `None` for any other framing.
    #[inline]
    pub(super) fn receive_in_place(&mut self, available: usize) -> Option<(usize, bool)> {
        let Kind::Length(left) = &mut self.0 else { return None };
        let payload = usize::try_from(*left).unwrap_or(usize::MAX).min(available);
        *left -= payload as u64;
        Some((payload, *left == 0))
    }

    /// The trailer section has been parsed: the body is complete.
    pub fn trailers_done(&mut self) {
        if let Kind::Chunked(decoder) = &mut self.0 {
            decoder.trailers_done();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BodyProgress, BodyReader, Received};
    use crate::http::Framing;

    #[test]
    fn lengths_and_close() {
        // Framing; for each piece its size, the payload in it, and how far the reader is then.
        type Steps = &'static [(usize, usize, BodyProgress)];
        let table: &[(Framing, Steps)] = &[
            (Framing::None, &[(3, 0, BodyProgress::Done)]),
            (Framing::Length(0), &[(3, 0, BodyProgress::Done)]),
            (
                Framing::Length(5),
                &[
                    (0, 0, BodyProgress::More),
                    (3, 3, BodyProgress::More),
                    (4, 2, BodyProgress::Done),
                    (4, 0, BodyProgress::Done),
                ],
            ),
            (Framing::Length(u64::MAX >> 1), &[(9, 9, BodyProgress::More)]),
            (Framing::Close, &[(3, 3, BodyProgress::More), (0, 0, BodyProgress::More)]),
        ];
        for (framing, steps) in table {
            let mut reader = BodyReader::new(*framing);
            assert_eq!(reader.progress() == BodyProgress::Done, framing.is_empty());
            assert_eq!(reader.ends_at_close(), *framing == Framing::Close);
            for &(size, payload, state) in *steps {
                let before = reader.remaining();
                assert_eq!(
                    reader.receive(&mut vec![0; size]),
                    Ok(Received { payload, consumed: payload, state }),
                    "{framing:?}"
                );
                assert_eq!(reader.remaining(), before.map(|n| n - payload as u64));
            }
        }
    }
}
