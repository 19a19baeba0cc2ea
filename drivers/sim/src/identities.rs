//! NTLM and Negotiate, which authenticate a connection and not a request: what clients send and backends ask
//! for. All follows from the id of the exchange, so that both ends know it.

use crate::fields::{self, Fate, Field};
use crate::random::{SplitMix64, mix};

/// What part an exchange has in authenticating its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Authentication {
    None,
    /// The request has credentials.
    Credentials,
    /// Its backend asks for them, with 401 or 407.
    Challenge,
}

impl Authentication {
    /// Draws it for a request of a client that authenticates itself so.
    pub(crate) fn draw(rng: &mut SplitMix64, upgrade: bool) -> Self {
        match rng.below(4) {
            0 => Self::None,
            // Whoever asks for credentials does not switch protocols.
            1 if !upgrade => Self::Challenge,
            _ => Self::Credentials,
        }
    }
}

fn field(name: &'static str, value: String) -> Field {
    Field { name, value, fate: Fate::Passes }
}

/// The credentials of a request: in `Authorization`, unless it has others there.
pub(crate) fn of_request(id: u64, authentication: Authentication) -> Option<Field> {
    if authentication != Authentication::Credentials {
        return None;
    }
    let has_others = fields::of_request(id, 11).iter().any(|f| f.name == "Authorization");
    let name = if has_others { "Proxy-Authorization" } else { "Authorization" };
    let schemes = ["NTLM", "Negotiate", "ntlm", "NEGOTIATE"];
    let scheme = schemes[mix(id ^ 0x417) as usize % schemes.len()];
    Some(field(name, format!("{scheme} TlRMTVNTUAAB{id}")))
}

/// The status of a backend that asks for credentials.
pub(crate) fn challenge_status(id: u64) -> u16 {
    if mix(id ^ 0x401) & 3 == 0 { 407 } else { 401 }
}

/// The challenge of a response: alone, or in a list.
pub(crate) fn of_response(id: u64, authentication: Authentication, status: u16) -> Option<Field> {
    if authentication != Authentication::Challenge {
        return None;
    }
    let name = if status == 407 { "Proxy-Authenticate" } else { "WWW-Authenticate" };
    let challenges =
        ["NTLM", "Negotiate", "Basic realm=\"a\", Negotiate", "Negotiate,NTLM", "negotiate TlRMTVNTUAAC"];
    let at = mix(id ^ 0x4a11) as usize % challenges.len();
    Some(field(name, challenges[at].to_owned()))
}
