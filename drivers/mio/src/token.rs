//! What an event is about, in one word: a connection's id, or one of the places that no connection ever has.

use mio::Token;
use ruststrom_core::ConnId;

const _: () = assert!(size_of::<usize>() == 8, "a token holds a whole connection id");

/// Slots from here on are no connections: the table of connections would need more memory than there is.
const RESERVED: u32 = u32::MAX - 0xffff;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    Conn(ConnId),
    /// By its place among this worker's listeners.
    Listener(usize),
    Inbox,
}

impl About {
    pub(crate) fn token(self) -> Token {
        let id = match self {
            Self::Conn(c) => c,
            Self::Listener(place) => ConnId { slot: RESERVED + place as u32, epoch: u32::MAX },
            Self::Inbox => ConnId { slot: u32::MAX, epoch: u32::MAX },
        };
        Token(id.to_bits() as usize)
    }

    #[inline]
    pub(crate) fn of(token: Token) -> Self {
        let id = ConnId::from_bits(token.0 as u64);
        match id.slot {
            u32::MAX => Self::Inbox,
            RESERVED.. => Self::Listener((id.slot - RESERVED) as usize),
            _ => Self::Conn(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let conn = |slot, epoch| About::Conn(ConnId { slot, epoch });
        for about in [
            conn(0, 0),
            conn(5, u32::MAX),
            conn(RESERVED - 1, 7),
            About::Listener(0),
            About::Listener(65_000),
            About::Inbox,
        ] {
            assert_eq!(About::of(about.token()), about);
        }
    }
}
