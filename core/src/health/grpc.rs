//! Health checks by gRPC's own protocol, `grpc.health.v1`: what is asked, and how the answer is judged. Its
//! messages are so small that they are written and read here, by the rules of protobuf's encoding.

/// The method, as a request's path.
pub const PATH: &str = "/grpc.health.v1.Health/Check";

/// Longest message of an answer that is looked at, in bytes: one number is expected.
const MAX_MESSAGE_BYTES: usize = 1024;
/// What is before a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// `ServingStatus.SERVING`.
const SERVING: u64 = 1;

/// The content of a check's request; an empty name asks for the server as a whole. At most 65535 bytes.
#[must_use]
pub fn request_content(service: &str) -> Box<[u8]> {
    let mut message = Vec::with_capacity(service.len() + 4);
    // A field with its default value is left out.
    if !service.is_empty() {
        // Field 1, bytes with a length before them.
        message.push(1 << 3 | 2);
        put_varint(service.len() as u64, &mut message);
        message.extend_from_slice(service.as_bytes());
    }
    let mut content = vec![0];
    content.extend_from_slice(&(message.len() as u32).to_be_bytes());
    content.extend(message);
    content.into_boxed_slice()
}

/// What a check has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The service takes calls.
    Serving,
    /// It says that it doesn't, or that it doesn't know.
    NotServing,
    /// The call ended with this `grpc-status`: the server may not know the service.
    Failed(u32),
    /// That is no answer by the protocol.
    Malformed,
}

/// The content of an answer, as it comes.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    bytes: Vec<u8>,
    too_long: bool,
}

impl Answer {
    /// More of the content came.
    pub fn put(&mut self, data: &[u8]) {
        self.too_long |= self.bytes.len() + data.len() > PREFIX_BYTES + MAX_MESSAGE_BYTES;
        if !self.too_long {
            self.bytes.extend_from_slice(data);
        }
    }

    /// The answer is complete. `grpc_status` is the value of that field, in the trailers or, where there is
    /// no content, in the head.
    #[must_use]
    pub fn verdict(&self, http_status: u16, grpc_status: Option<&[u8]>) -> Verdict {
        if http_status != 200 || self.too_long {
            return Verdict::Malformed;
        }
        let status = grpc_status.and_then(|text| std::str::from_utf8(text).ok()?.parse::<u32>().ok());
        match (status, message(&self.bytes).and_then(serving_status)) {
            (Some(0), Some(SERVING)) => Verdict::Serving,
            (Some(0), Some(_)) => Verdict::NotServing,
            (Some(0) | None, _) => Verdict::Malformed,
            (Some(failed), _) => Verdict::Failed(failed),
        }
    }
}

/// The one message of a content. A compressed one was not asked for.
fn message(content: &[u8]) -> Option<&[u8]> {
    let ([0, length @ ..], message) = content.split_first_chunk::<PREFIX_BYTES>()? else { return None };
    (message.len() == u32::from_be_bytes(*length) as usize).then_some(message)
}

/// Field 1 of a `HealthCheckResponse`, which is 0 if it is not there. Fields that nobody knows are skipped.
fn serving_status(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        let key = take_varint(&mut message)?;
        match (key >> 3, key & 7) {
            // The last one counts.
            (1, 0) => status = take_varint(&mut message)?,
            (0 | 1, _) => return None,
            (_, 0) => drop(take_varint(&mut message)?),
            (_, 1) => message = message.get(8..)?,
            (_, 2) => {
                let length = usize::try_from(take_varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            (_, 5) => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

/// Seven bits a byte, the lowest first.
fn put_varint(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut n = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has one bit left.
        if shift == 63 && bits > 1 {
            return None;
        }
        n |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(n);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests() {
        assert_eq!(&*request_content(""), b"\0\0\0\0\0");
        assert_eq!(&*request_content("a.B"), b"\0\0\0\0\x05\x0a\x03a.B");
        let long = request_content(&"x".repeat(300));
        assert_eq!(&long[..8], b"\0\0\0\x01\x2f\x0a\xac\x02");
        assert_eq!(long.len(), 5 + 3 + 300);
    }

    /// Status of HTTP, content, `grpc-status`, and what it comes to.
    type Row = (u16, &'static [u8], Option<&'static [u8]>, Verdict);

    #[test]
    fn answers() {
        let table: [Row; 24] = [
            (200, b"\0\0\0\0\x02\x08\x01", Some(b"0"), Verdict::Serving),
            // Without a field it is UNKNOWN.
            (200, b"\0\0\0\0\0", Some(b"0"), Verdict::NotServing),
            (200, b"\0\0\0\0\x02\x08\0", Some(b"0"), Verdict::NotServing),
            (200, b"\0\0\0\0\x02\x08\x02", Some(b"0"), Verdict::NotServing),
            (200, b"\0\0\0\0\x02\x08\x03", Some(b"0"), Verdict::NotServing),
            // The last of several counts, and so does a long form.
            (200, b"\0\0\0\0\x04\x08\x02\x08\x01", Some(b"0"), Verdict::Serving),
            (200, b"\0\0\0\0\x03\x08\x81\0", Some(b"0"), Verdict::Serving),
            // What is unknown is skipped.
            (200, b"\0\0\0\0\x07\x12\x03abc\x08\x01", Some(b"0"), Verdict::Serving),
            (200, b"\0\0\0\0\x0b\x19abcdefgh\x08\x01", Some(b"0"), Verdict::Serving),
            (200, b"\0\0\0\0\x07\x1dabcd\x08\x01", Some(b"0"), Verdict::Serving),
            (200, b"\0\0\0\0\x05\x10\xff\x01\x08\x01", Some(b"0"), Verdict::Serving),
            // Trailers only: NOT_FOUND is a service that the server does not know.
            (200, b"", Some(b"5"), Verdict::Failed(5)),
            (200, b"\0\0\0\0\x02\x08\x01", Some(b"14"), Verdict::Failed(14)),
            (200, b"", Some(b"0"), Verdict::Malformed),
            (200, b"\0\0\0\0\x02\x08\x01", None, Verdict::Malformed),
            (200, b"\0\0\0\0\x02\x08\x01", Some(b"OK"), Verdict::Malformed),
            (503, b"\0\0\0\0\x02\x08\x01", Some(b"0"), Verdict::Malformed),
            (200, b"\x01\0\0\0\x02\x08\x01", Some(b"0"), Verdict::Malformed),
            (200, b"\0\0\0\0\x03\x08\x01", Some(b"0"), Verdict::Malformed),
            (200, b"\0\0\0\0\x02\x08\x01\0", Some(b"0"), Verdict::Malformed),
            (200, b"\0\0\0\0\x02\x08\x81", Some(b"0"), Verdict::Malformed),
            (200, b"\0\0\0\0\x03\x0a\x01a", Some(b"0"), Verdict::Malformed),
            (200, b"\0\0\0\0\x04\x12\x05ab", Some(b"0"), Verdict::Malformed),
            (200, b"\0\0\0\0\x02\x13\x14", Some(b"0"), Verdict::Malformed),
        ];
        for (http, content, grpc, expected) in table {
            for piece in [1, 3, 100] {
                let mut answer = Answer::default();
                content.chunks(piece).for_each(|data| answer.put(data));
                assert_eq!(answer.verdict(http, grpc), expected, "{http} {}", content.escape_ascii());
            }
        }
    }

    #[test]
    fn an_answer_is_bounded() {
        let mut answer = Answer::default();
        for _ in 0..1000 {
            answer.put(&[0; 100]);
        }
        assert!(answer.bytes.len() <= PREFIX_BYTES + MAX_MESSAGE_BYTES);
        assert_eq!(answer.verdict(200, Some(b"0")), Verdict::Malformed);
    }

    proptest! {
        #[test]
        fn numbers_there_and_back(n in any::<u64>(), rest in prop::collection::vec(any::<u8>(), 0..4)) {
            let mut bytes = Vec::new();
            put_varint(n, &mut bytes);
            bytes.extend_from_slice(&rest);
            let mut left = &bytes[..];
            prop_assert_eq!((take_varint(&mut left), left), (Some(n), &rest[..]));
        }

        #[test]
        fn no_bytes_are_too_much(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut answer = Answer::default();
            answer.put(&bytes);
            let _ = answer.verdict(200, Some(b"0"));
            let _ = serving_status(&bytes);
        }
    }
}
