//! Records: five bytes of header as in TLS (type, version, length), then content that is masked, then its
//! tag.

use std::collections::VecDeque;

use crate::random::mix;

/// Bytes of a record's header (RFC 8446 §5.1).
pub(super) const HEADER: usize = 5;
/// Content of one record at most.
pub(crate) const MAX_CONTENT: usize = 16 * 1024;
/// Bytes of the tag behind the content.
const TAG: usize = 8;

/// What a record carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContentType {
    Alert = 21,
    Handshake = 22,
    Data = 23,
}

impl ContentType {
    fn of(byte: u8) -> Option<Self> {
        [Self::Alert, Self::Handshake, Self::Data].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// What one direction of a connection is secured with.
#[derive(Clone, Debug)]
pub(super) struct Key {
    secret: u64,
    records: u64,
}

impl Key {
    pub(super) fn new(secret: u64) -> Self {
        Self { secret: mix(secret), records: 0 }
    }

    /// The key that follows this one.
    pub(super) fn next(&self) -> Self {
        Self::new(self.secret ^ 0x6e65_7874)
    }

    /// Appends one record with `content` to `out`.
    pub(super) fn seal(&mut self, kind: ContentType, content: &[u8], out: &mut VecDeque<u8>) {
        debug_assert!(content.len() <= MAX_CONTENT);
        let length = (content.len() + TAG) as u16;
        out.extend([kind as u8, 3, 3]);
        out.extend(length.to_be_bytes());
        let tag = self.tag(kind, content);
        let mut masked = [0; 512];
        let mut stream = self.stream();
        for piece in content.chunks(masked.len()) {
            let masked = &mut masked[..piece.len()];
            masked.copy_from_slice(piece);
            mask(masked, &mut stream);
            out.extend(&*masked);
        }
        out.extend(tag.to_be_bytes());
        self.records += 1;
    }

    /// Opens a record in place: its content, or `None` if it is not what the peer has sealed next.
    fn open<'a>(&mut self, kind: ContentType, payload: &'a mut [u8]) -> Option<&'a [u8]> {
        let (content, tag) = payload.split_last_chunk_mut::<TAG>()?;
        let mut stream = self.stream();
        content.chunks_mut(512).for_each(|piece| mask(piece, &mut stream));
        let good = self.tag(kind, content).to_be_bytes() == *tag;
        self.records += 1;
        good.then_some(&*content)
    }

    fn stream(&self) -> u64 {
        mix(self.secret.wrapping_add(self.records))
    }

    fn tag(&self, kind: ContentType, content: &[u8]) -> u64 {
        let start = mix(self.stream() ^ (content.len() as u64) << 8 ^ kind as u64);
        content.chunks(8).fold(start, |sum, piece| {
            let mut word = [0; 8];
            word[..piece.len()].copy_from_slice(piece);
            (sum ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
        })
    }
}

/// Masks bytes, or takes the mask off.
fn mask(bytes: &mut [u8], stream: &mut u64) {
    for piece in bytes.chunks_mut(8) {
        *stream = stream.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let pad = (*stream ^ *stream >> 31).to_le_bytes();
        piece.iter_mut().zip(pad).for_each(|(byte, pad)| *byte ^= pad);
    }
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadRecord {
    /// No type or version of a record.
    NotTls,
    /// It is too long, or its tag is wrong.
    Broken,
}

/// Collects the bytes of one record after the other.
#[derive(Debug, Default)]
pub(super) struct RecordReader {
    bytes: Vec<u8>,
}

impl RecordReader {
    /// Takes bytes up to the end of a record; returns how many.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<usize, BadRecord> {
        let mut taken = 0;
        loop {
            let need = self.need()?;
            let n = need.min(bytes.len() - taken);
            if n == 0 {
                return Ok(taken);
            }
            self.bytes.extend_from_slice(&bytes[taken..taken + n]);
            taken += n;
        }
    }

    /// How many bytes are missing up to the end of the header, or of the record.
    fn need(&self) -> Result<usize, BadRecord> {
        let have = self.bytes.len();
        let version = &self.bytes[have.min(1)..have.min(3)];
        if have > 0 && ContentType::of(self.bytes[0]).is_none() || version.iter().any(|b| *b != 3) {
            return Err(BadRecord::NotTls);
        }
        if have < HEADER {
            return Ok(HEADER - have);
        }
        let length = usize::from(u16::from_be_bytes([self.bytes[3], self.bytes[4]]));
        if length > MAX_CONTENT + TAG {
            return Err(BadRecord::Broken);
        }
        Ok(HEADER + length - have)
    }

    /// The record that is complete, if one is: its type and content.
    pub(super) fn record(&mut self, key: &mut Key) -> Result<Option<(ContentType, Vec<u8>)>, BadRecord> {
        if self.bytes.len() < HEADER || self.need()? > 0 {
            return Ok(None);
        }
        let kind = ContentType::of(self.bytes[0]).ok_or(BadRecord::NotTls)?;
        let mut bytes = std::mem::take(&mut self.bytes);
        match key.open(kind, &mut bytes[HEADER..]).map(<[u8]>::len) {
            Some(len) => {
                bytes.drain(..HEADER);
                bytes.truncate(len);
                Ok(Some((kind, bytes)))
            }
            None => Err(BadRecord::Broken),
        }
    }

    /// Bytes of a record that is not complete.
    pub(super) fn held(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(key: &mut Key, contents: &[&[u8]]) -> Vec<u8> {
        let mut out = VecDeque::new();
        contents.iter().for_each(|content| key.seal(ContentType::Data, content, &mut out));
        out.into()
    }

    fn opened(bytes: &[u8], piece: usize) -> Result<Vec<Vec<u8>>, BadRecord> {
        let (mut reader, mut key, mut all) = (RecordReader::default(), Key::new(7), Vec::new());
        for mut bytes in bytes.chunks(piece) {
            while !bytes.is_empty() {
                let n = reader.take(bytes)?;
                bytes = &bytes[n..];
                if let Some((kind, content)) = reader.record(&mut key)? {
                    assert_eq!(kind, ContentType::Data);
                    all.push(content);
                }
            }
        }
        Ok(all)
    }

    #[test]
    fn records_come_out_as_they_went_in_wherever_they_are_cut() {
        let long = vec![9; 1000];
        let contents: [&[u8]; 4] = [b"GET / HTTP/1.1", b"", &long, b"x"];
        let bytes = sealed(&mut Key::new(7), &contents);
        assert!(!bytes.windows(4).any(|w| w == b"HTTP" || w == [9; 4]), "content is masked");
        for piece in 1..bytes.len() {
            assert_eq!(opened(&bytes, piece).expect("good records"), contents, "{piece}");
        }
    }

    #[test]
    fn whatever_is_changed_is_noticed() {
        let bytes = sealed(&mut Key::new(7), &[b"first", b"second"]);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 4;
            let all = opened(&changed, 3);
            assert!(all.as_ref().map_or(true, |all| all.len() < 2), "{at}: {all:?}");
        }
        // Lost, repeated, and of another connection.
        let record = HEADER + 5 + TAG;
        assert!(opened(&bytes[record..], 9).is_err());
        assert!(opened(&[&bytes[..record], &bytes[..record]].concat(), 9).is_err());
        assert!(opened(&sealed(&mut Key::new(8), &[b"x"]), 9).is_err());
        assert_eq!(opened(b"GET / HTTP/1.1\r\n\r\n", 9), Err(BadRecord::NotTls));
    }
}
