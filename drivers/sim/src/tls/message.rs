//! The messages of a handshake, as bytes: type, three bytes of length, content.

use ruststrom_core::TlsFault;

/// Alerts (RFC 8446 §6).
pub(crate) mod alert {
    pub(crate) const CLOSE_NOTIFY: u8 = 0;
    pub(crate) const UNEXPECTED_MESSAGE: u8 = 10;
    pub(crate) const HANDSHAKE_FAILURE: u8 = 40;
    pub(crate) const BAD_CERTIFICATE: u8 = 42;
    pub(crate) const UNRECOGNIZED_NAME: u8 = 112;
    pub(crate) const CERTIFICATE_REQUIRED: u8 = 116;
    pub(crate) const NO_APPLICATION_PROTOCOL: u8 = 120;
}

/// Bytes of a message at most, as nobody needs more.
pub(crate) const MAX_MESSAGE: usize = 40_000;

/// Which protocols a client offers (RFC 7301).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Alpn {
    /// It does not know of the extension.
    #[default]
    None,
    /// `http/1.1`, perhaps beside others, but not `h2`.
    Http1,
    /// Only others.
    Others,
    /// `h2`, before `http/1.1`.
    Http2,
}

impl Alpn {
    const ALL: [Self; 4] = [Self::None, Self::Http1, Self::Others, Self::Http2];

    /// The protocol that is spoken where this was chosen.
    pub(crate) fn protocol(self) -> Option<&'static [u8]> {
        match self {
            Self::Http1 => Some(b"http/1.1"),
            Self::Http2 => Some(b"h2"),
            Self::None | Self::Others => None,
        }
    }
}

/// The first message of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClientHello {
    pub(crate) random: u64,
    /// TLS 1.3 instead of 1.2.
    pub(crate) newest: bool,
    /// It brings a ticket that is good.
    pub(crate) resumes: bool,
    pub(crate) alpn: Alpn,
    pub(crate) name: Option<String>,
    /// Bytes of extensions that nobody knows.
    pub(crate) padding: usize,
}

/// What is wrong with a server's certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CertificateKind {
    #[default]
    Good,
    UnknownCa,
    Expired,
    NotYetValid,
    BadCertificate,
}

impl CertificateKind {
    const ALL: [Self; 5] =
        [Self::Good, Self::UnknownCa, Self::Expired, Self::NotYetValid, Self::BadCertificate];

    /// What a client makes of it.
    pub(crate) fn fault(self) -> Option<TlsFault> {
        match self {
            Self::Good => None,
            Self::UnknownCa => Some(TlsFault::UnknownCa),
            Self::Expired => Some(TlsFault::Expired),
            Self::NotYetValid => Some(TlsFault::NotYetValid),
            Self::BadCertificate => Some(TlsFault::BadCertificate),
        }
    }
}

/// The answer of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServerHello {
    pub(crate) random: u64,
    pub(crate) alpn: Alpn,
    /// It asks for a certificate of the client.
    pub(crate) asks: bool,
    pub(crate) certificate: CertificateKind,
    /// Whom the certificate is for.
    pub(crate) names: Vec<String>,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    ClientHello(ClientHello),
    ServerHello(ServerHello),
    /// Whom the client's certificate is for.
    ClientCertificate(String),
    Finished,
    NewTicket,
    /// The sender uses a new key from here on. `wanted`: the receiver has to do so too.
    KeyUpdate {
        wanted: bool,
    },
}

impl Message {
    /// Its bytes.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut content = Vec::new();
        let kind = match self {
            Self::ClientHello(hello) => {
                content.extend(hello.random.to_be_bytes());
                content.extend([u8::from(hello.newest), u8::from(hello.resumes), hello.alpn as u8]);
                put(&mut content, hello.name.as_deref().unwrap_or_default());
                content.resize(content.len() + hello.padding, 0xa5);
                1
            }
            Self::ServerHello(hello) => {
                content.extend(hello.random.to_be_bytes());
                content.extend([hello.alpn as u8, u8::from(hello.asks), hello.certificate as u8]);
                hello.names.iter().for_each(|name| put(&mut content, name));
                2
            }
            Self::ClientCertificate(subject) => {
                put(&mut content, subject);
                11
            }
            Self::Finished => 20,
            Self::NewTicket => 4,
            Self::KeyUpdate { wanted } => {
                content.push(u8::from(*wanted));
                24
            }
        };
        let length = (content.len() as u32).to_be_bytes();
        [&[kind, length[1], length[2], length[3]], &content[..]].concat()
    }

    /// The message at the beginning of `bytes` and how long it is; `None` if it is not complete. `Err`: it is
    /// none.
    pub(super) fn read(bytes: &[u8]) -> Result<Option<(Self, usize)>, ()> {
        let [kind, a, b, c, rest @ ..] = bytes else { return Ok(None) };
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        if length > MAX_MESSAGE {
            return Err(());
        }
        let Some(content) = rest.get(..length) else { return Ok(None) };
        let message = Self::parse(*kind, content).ok_or(())?;
        Ok(Some((message, 4 + length)))
    }

    fn parse(kind: u8, mut content: &[u8]) -> Option<Self> {
        Some(match kind {
            1 => {
                let random = u64::from_be_bytes(take(&mut content, 8)?.try_into().ok()?);
                let [newest, resumes, alpn] = take(&mut content, 3)?.try_into().ok()?;
                let name = text(&mut content)?;
                Self::ClientHello(ClientHello {
                    random,
                    newest: newest == 1,
                    resumes: resumes == 1,
                    alpn: *Alpn::ALL.get(usize::from(alpn))?,
                    name: (!name.is_empty()).then_some(name),
                    padding: content.len(),
                })
            }
            2 => {
                let random = u64::from_be_bytes(take(&mut content, 8)?.try_into().ok()?);
                let [alpn, asks, certificate] = take(&mut content, 3)?.try_into().ok()?;
                let certificate = *CertificateKind::ALL.get(usize::from(certificate))?;
                let mut names = Vec::new();
                while !content.is_empty() {
                    names.push(text(&mut content)?);
                }
                Self::ServerHello(ServerHello {
                    random,
                    alpn: *Alpn::ALL.get(usize::from(alpn))?,
                    asks: asks == 1,
                    certificate,
                    names,
                })
            }
            11 => Self::ClientCertificate(text(&mut content)?),
            20 => Self::Finished,
            4 => Self::NewTicket,
            24 => Self::KeyUpdate { wanted: content == [1] },
            _ => return None,
        })
    }
}

fn put(out: &mut Vec<u8>, text: &str) {
    out.push(text.len() as u8);
    out.extend(text.bytes());
}

fn take<'a>(from: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (taken, rest) = from.split_at_checked(n)?;
    *from = rest;
    Some(taken)
}

fn text(from: &mut &[u8]) -> Option<String> {
    let n = usize::from(take(from, 1)?[0]);
    String::from_utf8(take(from, n)?.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_as_they_went_in() {
        let client = ClientHello {
            random: 9,
            newest: true,
            resumes: false,
            alpn: Alpn::Others,
            name: Some("a.test".into()),
            padding: 700,
        };
        let names = vec!["a".to_owned(), String::new()];
        let server = ServerHello {
            random: 1,
            alpn: Alpn::Http2,
            asks: false,
            certificate: CertificateKind::Expired,
            names,
        };
        let all = [
            Message::ClientHello(client),
            Message::ServerHello(server),
            Message::ClientCertificate("CN=x".into()),
            Message::Finished,
            Message::NewTicket,
            Message::KeyUpdate { wanted: true },
        ];
        for message in all {
            let bytes = message.bytes();
            assert_eq!(Message::read(&bytes), Ok(Some((message, bytes.len()))));
            assert_eq!(Message::read(&bytes[..bytes.len() - 1]), Ok(None));
        }
        assert_eq!(Message::read(&[99, 0, 0, 0]), Err(()));
        assert_eq!(Message::read(&[1, 255, 0, 0]), Err(()));
    }
}
