//! The source of an event as one number: a connection's id, or a slot that no connection ever has.

use mio::Token;
use ruststrom_core::ConnId;

const _: () = assert!(size_of::<usize>() == 8, "a token holds a whole connection id");

/// Slots from here on are no connections: the table of connections would need more memory than there is.
const RESERVED: u32 = u32::MAX - 0xffff;

/// The source of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventSource {
    Conn(ConnId),
    /// By its place among this worker's listeners, from 0.
    Listener(usize),
    Mailbox,
}

impl EventSource {
    pub(crate) fn token(self) -> Token {
        let id = match self {
            Self::Conn(c) => c,
            Self::Listener(place) => ConnId { slot: RESERVED + place as u32, epoch: u32::MAX },
            Self::Mailbox => ConnId { slot: u32::MAX, epoch: u32::MAX },
        };
        Token(id.to_bits() as usize)
    }

    #[inline]
    pub(crate) fn from_token(token: Token) -> Self {
        let id = ConnId::from_bits(token.0 as u64);
        match id.slot {
            u32::MAX => Self::Mailbox,
            RESERVED.. => Self::Listener((id.slot - RESERVED) as usize),
            _ => Self::Conn(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_name_their_source() {
        let conn = |slot, epoch| EventSource::Conn(ConnId { slot, epoch });
        for source in [
            conn(0, 0),
            conn(5, u32::MAX),
            conn(RESERVED - 1, 7),
            EventSource::Listener(0),
            EventSource::Listener(65_000),
            EventSource::Mailbox,
        ] {
            assert_eq!(EventSource::from_token(source.token()), source);
        }
    }
}
