//! One end of a simulated TLS connection, of the proxy or of one of its peers: takes bytes, gives bytes, and
//! knows nothing of sockets. It does what is right; what peers do wrong is done by who drives it.

use std::collections::VecDeque;
use std::rc::Rc;

use ruststrom_core::TlsFault;

use super::message::{Alpn, ClientHello, MAX_MESSAGE, Message, ServerHello, alert};
use super::record::{BadRecord, ContentType, Key, MAX_CONTENT, RecordReader};
use crate::random::mix;

/// Why an end gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The peer has sent this alert.
    Alert(u8),
    /// The peer is not believed, or has broken the rules.
    Fault(TlsFault),
    /// There is no certificate for the name that a client asks for.
    UnrecognizedName,
    /// A client speaks HTTP.
    PlainHttp,
}

/// A certificate that a server has for a name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Served {
    /// Exact, or with `*.`.
    pub(crate) name: String,
    pub(crate) default: bool,
    /// Clients are asked for a certificate.
    pub(crate) asks: bool,
    /// They need one.
    pub(crate) requires: bool,
}

/// What one end does as a client.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientSide {
    pub(crate) hello: ClientHello,
    /// Whom the server's certificate has to be for; `None`: nothing of it is verified.
    pub(crate) expects: Option<String>,
    /// Whom the certificate is for that it shows to a server that asks for one.
    pub(crate) subject: Option<String>,
    /// It answers the server by this alert.
    pub(crate) refuses: Option<u8>,
}

/// What one end does as a server.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServerSide {
    /// The certificates to choose from; the proxy has them.
    pub(crate) served: Option<Rc<[Served]>>,
    /// What every client gets if there are none.
    pub(crate) hello: ServerHello,
    pub(crate) requires: bool,
    /// It answers the client by this alert.
    pub(crate) refuses: Option<u8>,
    /// A client without a certificate is refused behind the handshake.
    pub(crate) refuses_late: bool,
    /// How many tickets follow the handshake.
    pub(crate) tickets: u64,
    /// It chooses HTTP/1.1 where it is offered HTTP/2 too.
    pub(crate) http1_only: bool,
}

#[derive(Clone, Debug)]
enum Role {
    Client(ClientSide),
    Server(ServerSide),
}

/// What comes next in the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Hello,
    Finished,
    Done,
}

/// What a handshake has agreed on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Agreed {
    pub(crate) newest: bool,
    pub(crate) resumed: bool,
    pub(crate) name: Option<String>,
    pub(crate) alpn: Alpn,
    /// Place of the certificate.
    pub(crate) certificate: Option<u16>,
    /// Of the client's certificate.
    pub(crate) subject: Option<String>,
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Endpoint {
    role: Role,
    state: State,
    agreed: Agreed,
    read_key: Key,
    write_key: Key,
    records: RecordReader,
    /// Bytes of messages of the handshake that are not complete.
    messages: Vec<u8>,
    plaintext: VecDeque<u8>,
    output: VecDeque<u8>,
    /// The peer sends nothing more.
    ended: bool,
    sent_end: bool,
    failure: Option<Failure>,
    /// Records of the handshake have so many bytes at most, and those of data.
    pub(crate) fragment: usize,
    pub(crate) record: usize,
    /// The record behind so many is damaged.
    pub(crate) corrupt_after: Option<u32>,
    corrupted: bool,
    /// Answers to key updates that are still to come.
    pub(crate) updates_due: u32,
    /// The answer to the peer's has not gone yet.
    answer_waits: bool,
}

const CLIENT_KEY: u64 = 0xc1;
const SERVER_KEY: u64 = 0x5e;

impl Endpoint {
    fn new(role: Role, write: u64, read: u64) -> Self {
        Self {
            role,
            state: State::Hello,
            agreed: Agreed::default(),
            read_key: Key::new(read),
            write_key: Key::new(write),
            records: RecordReader::default(),
            messages: Vec::new(),
            plaintext: VecDeque::new(),
            output: VecDeque::new(),
            ended: false,
            sent_end: false,
            failure: None,
            fragment: MAX_CONTENT,
            record: MAX_CONTENT,
            corrupt_after: None,
            corrupted: false,
            updates_due: 0,
            answer_waits: false,
        }
    }

    /// A client, which still has to be [started](Endpoint::start).
    pub(crate) fn client(side: ClientSide) -> Self {
        Self::new(Role::Client(side), CLIENT_KEY, SERVER_KEY)
    }

    /// A server.
    pub(crate) fn server(side: ServerSide) -> Self {
        Self::new(Role::Server(side), SERVER_KEY, CLIENT_KEY)
    }

    /// A client says its first message.
    pub(crate) fn start(&mut self) {
        if let Role::Client(side) = &self.role {
            let hello = side.hello.clone();
            self.agreed.newest = hello.newest;
            self.agreed.resumed = hello.resumes;
            self.agreed.name = hello.name.clone();
            self.say(&Message::ClientHello(hello));
        }
    }

    /// The handshake is over.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    pub(crate) fn agreed(&self) -> &Agreed {
        &self.agreed
    }

    pub(crate) fn failure(&self) -> Option<Failure> {
        self.failure
    }

    /// The peer has said that it sends nothing more.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Nothing has come yet, or a part of the first record.
    pub(crate) fn held(&self) -> usize {
        self.records.held() + self.messages.len()
    }

    pub(crate) fn plaintext(&mut self) -> &mut VecDeque<u8> {
        &mut self.plaintext
    }

    pub(crate) fn plaintext_len(&self) -> usize {
        self.plaintext.len()
    }

    pub(crate) fn output(&mut self) -> &mut VecDeque<u8> {
        &mut self.output
    }

    pub(crate) fn output_len(&self) -> usize {
        self.output.len()
    }

    /// Takes bytes up to the end of one record; returns how many. The first failure is the last one.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Result<usize, Failure> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        self.answer_waits &= !self.output.is_empty();
        if self.ended {
            // Nothing behind the end counts.
            return Ok(bytes.len());
        }
        let first = self.state == State::Hello && self.records.held() + self.messages.len() == 0;
        if first && matches!(self.role, Role::Server(_)) && bytes.first().is_some_and(u8::is_ascii_uppercase)
        {
            return Err(self.fail(Failure::PlainHttp, None));
        }
        let taken = self.records.take(bytes).and_then(|n| Ok((n, self.records.record(&mut self.read_key)?)));
        let (n, record) = taken.map_err(|bad| match bad {
            BadRecord::NotTls if self.state == State::Hello => {
                self.fail(Failure::Fault(TlsFault::NotTls), Some(alert::UNEXPECTED_MESSAGE))
            }
            BadRecord::NotTls | BadRecord::Broken => self.broken(),
        })?;
        if let Some((kind, content)) = record {
            self.content(kind, &content)?;
        }
        Ok(n)
    }

    fn content(&mut self, kind: ContentType, content: &[u8]) -> Result<(), Failure> {
        match kind {
            ContentType::Data if self.state == State::Done => self.plaintext.extend(content),
            ContentType::Data => return Err(self.broken()),
            ContentType::Alert => match content {
                [_, alert::CLOSE_NOTIFY] if self.state == State::Done => self.ended = true,
                [_, code] => {
                    self.failure = Some(Failure::Alert(*code));
                    return Err(Failure::Alert(*code));
                }
                _ => return Err(self.broken()),
            },
            ContentType::Handshake => {
                self.messages.extend_from_slice(content);
                while let Some((message, n)) = Message::read(&self.messages).map_err(|()| self.broken())? {
                    self.messages.drain(..n);
                    self.message(message)?;
                }
                if self.messages.len() > MAX_MESSAGE {
                    return Err(self.broken());
                }
            }
        }
        Ok(())
    }

    fn message(&mut self, message: Message) -> Result<(), Failure> {
        match (message, self.state) {
            (Message::ClientHello(hello), State::Hello) => self.client_hello(&hello),
            (Message::ServerHello(hello), State::Hello) => self.server_hello(&hello),
            (Message::ClientCertificate(subject), State::Finished) if self.is_server() => {
                self.agreed.subject = Some(subject);
                Ok(())
            }
            (Message::Finished, State::Finished) => self.finished(),
            (Message::NewTicket, State::Done) if !self.is_server() => Ok(()),
            (Message::KeyUpdate { wanted }, State::Done) => {
                self.read_key = self.read_key.next();
                // One answer that is still to be sent is enough for several of them (RFC 8446 §4.6.3).
                if !wanted {
                    self.updates_due = 0;
                } else if !std::mem::replace(&mut self.answer_waits, true) {
                    self.update_key(false);
                }
                Ok(())
            }
            _ => Err(self.broken()),
        }
    }

    fn is_server(&self) -> bool {
        matches!(self.role, Role::Server(_))
    }

    fn client_hello(&mut self, hello: &ClientHello) -> Result<(), Failure> {
        let Role::Server(side) = &mut self.role else { return Err(self.broken()) };
        if let Some(code) = side.refuses {
            return Err(self.fail(Failure::Fault(TlsFault::Protocol), Some(code)));
        }
        let mut answer = side.hello.clone();
        if let Some(served) = &side.served {
            let Some(place) = choose(served, hello.name.as_deref()) else {
                return Err(self.fail(Failure::UnrecognizedName, Some(alert::UNRECOGNIZED_NAME)));
            };
            let certificate = &served[place];
            answer.names = vec![certificate.name.clone()];
            (answer.asks, side.requires) = (certificate.asks, certificate.requires);
            self.agreed.certificate = Some(place as u16);
        }
        if hello.alpn == Alpn::Others {
            let failure = Failure::Fault(TlsFault::Protocol);
            return Err(self.fail(failure, Some(alert::NO_APPLICATION_PROTOCOL)));
        }
        answer.alpn = match hello.alpn {
            Alpn::Http2 if side.http1_only => Alpn::Http1,
            offered => offered,
        };
        self.agreed.newest = hello.newest;
        self.agreed.resumed = hello.resumes;
        self.agreed.name = hello.name.clone();
        self.agreed.alpn = answer.alpn;
        let random = answer.random;
        self.say(&Message::ServerHello(answer));
        self.new_keys(hello.random, random);
        if hello.newest {
            self.say(&Message::Finished);
        }
        self.state = State::Finished;
        Ok(())
    }

    fn server_hello(&mut self, hello: &ServerHello) -> Result<(), Failure> {
        let Role::Client(side) = &self.role else { return Err(self.broken()) };
        let (random, refuses) = (side.hello.random, side.refuses);
        let wrong = side.expects.as_ref().and_then(|name| {
            let covered = hello.names.iter().any(|n| covers(n, name));
            hello.certificate.fault().or((!covered).then_some(TlsFault::WrongName))
        });
        self.new_keys(random, hello.random);
        self.agreed.alpn = hello.alpn;
        if let Some(fault) = wrong {
            return Err(self.fail(Failure::Fault(fault), Some(alert::BAD_CERTIFICATE)));
        }
        if let Some(code) = refuses {
            return Err(self.fail(Failure::Alert(code), Some(code)));
        }
        if let Role::Client(side) = &mut self.role
            && !hello.asks
        {
            side.subject = None;
        }
        self.state = State::Finished;
        if !self.agreed.newest {
            self.finish();
        }
        Ok(())
    }

    /// A client's part behind the server's first message.
    fn finish(&mut self) {
        let Role::Client(side) = &self.role else { return };
        if let Some(subject) = side.subject.clone() {
            self.say(&Message::ClientCertificate(subject));
        }
        self.say(&Message::Finished);
    }

    fn finished(&mut self) -> Result<(), Failure> {
        let (refused, late, tickets) = match &self.role {
            Role::Client(_) => {
                if self.agreed.newest {
                    self.finish();
                }
                self.state = State::Done;
                return Ok(());
            }
            Role::Server(side) => {
                let without = self.agreed.subject.is_none();
                (side.requires && without, side.refuses_late && without, side.tickets)
            }
        };
        if refused {
            let failure = Failure::Fault(TlsFault::ClientCertificate);
            return Err(self.fail(failure, Some(alert::CERTIFICATE_REQUIRED)));
        }
        self.state = State::Done;
        if !self.agreed.newest {
            self.say(&Message::Finished);
        }
        if late {
            let failure = Failure::Fault(TlsFault::ClientCertificate);
            return Err(self.fail(failure, Some(alert::CERTIFICATE_REQUIRED)));
        }
        for _ in 0..tickets {
            self.say(&Message::NewTicket);
        }
        Ok(())
    }

    /// From here on both directions have keys of this connection.
    fn new_keys(&mut self, client: u64, server: u64) {
        let secret = mix(client ^ mix(server));
        let [of_client, of_server] = [CLIENT_KEY, SERVER_KEY].map(|side| Key::new(secret ^ side));
        (self.write_key, self.read_key) =
            if self.is_server() { (of_server, of_client) } else { (of_client, of_server) };
    }

    fn say(&mut self, message: &Message) {
        let bytes = message.bytes();
        for piece in bytes.chunks(self.fragment.max(1)) {
            self.seal(ContentType::Handshake, piece);
        }
    }

    fn seal(&mut self, kind: ContentType, content: &[u8]) {
        if self.corrupt_after == Some(0) {
            Key::new(0xbad).seal(kind, content, &mut self.output);
            self.corrupted = true;
        } else {
            self.write_key.seal(kind, content, &mut self.output);
        }
        self.corrupt_after = self.corrupt_after.and_then(|n| n.checked_sub(1));
    }

    /// It has sent a damaged record.
    pub(crate) fn has_corrupted(&self) -> bool {
        self.corrupted
    }

    /// It is a server that does not take every client.
    pub(crate) fn refuses_clients(&self) -> bool {
        matches!(&self.role, Role::Server(side)
            if side.refuses.is_some() || side.requires || side.refuses_late)
    }

    fn broken(&mut self) -> Failure {
        self.fail(Failure::Fault(TlsFault::Protocol), Some(alert::UNEXPECTED_MESSAGE))
    }

    fn fail(&mut self, failure: Failure, code: Option<u8>) -> Failure {
        self.failure = Some(failure);
        if let Some(code) = code {
            self.alert(code);
        }
        failure
    }

    /// Sends a fatal alert.
    pub(crate) fn alert(&mut self, code: u8) {
        self.seal(ContentType::Alert, &[2, code]);
    }

    /// Uses a new key from here on. `wanted`: the peer has to do so too.
    pub(crate) fn update_key(&mut self, wanted: bool) {
        self.say(&Message::KeyUpdate { wanted });
        self.write_key = self.write_key.next();
        self.updates_due += u32::from(wanted);
    }

    /// Secures data.
    pub(crate) fn write(&mut self, data: &[u8]) {
        for piece in data.chunks(self.record.clamp(1, MAX_CONTENT)) {
            self.seal(ContentType::Data, piece);
        }
    }

    /// Says that nothing more will be sent, once; not after a fatal alert.
    pub(crate) fn end(&mut self) {
        if !self.sent_end && self.failure.is_none() {
            self.sent_end = true;
            self.seal(ContentType::Alert, &[1, alert::CLOSE_NOTIFY]);
        }
    }
}

/// The place of the certificate for the name that a client asks for.
fn choose(served: &[Served], name: Option<&str>) -> Option<usize> {
    let default = || match served {
        [_] => Some(0),
        _ => served.iter().position(|c| c.default),
    };
    let Some(name) = name else { return default() };
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let parent = name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
    let of = |name: &str| served.iter().position(|c| c.name == name);
    of(&name).or_else(|| of(&parent?)).or_else(|| served.iter().position(|c| c.default))
}

/// Whether a certificate for `of` is good for `name`.
fn covers(of: &str, name: &str) -> bool {
    of == name
        || of.strip_prefix("*.").is_some_and(|rest| name.split_once('.').is_some_and(|(_, p)| p == rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served() -> Rc<[Served]> {
        let of =
            |name: &str, default, requires| Served { name: name.into(), default, asks: requires, requires };
        [of("a.test", false, false), of("*.w.test", false, false), of("c.test", false, true)].into()
    }

    fn server() -> Endpoint {
        let side = ServerSide { served: Some(served()), tickets: 2, ..ServerSide::default() };
        Endpoint::server(side)
    }

    fn client(name: &str, newest: bool) -> ClientSide {
        let hello = ClientHello { newest, name: Some(name.into()), random: 5, ..ClientHello::default() };
        ClientSide { hello, expects: Some(name.to_ascii_lowercase()), ..ClientSide::default() }
    }

    /// Carries bytes until both are silent; the first failure of each.
    fn talk(a: &mut Endpoint, b: &mut Endpoint, piece: usize) -> [Option<Failure>; 2] {
        let pass = |from: &mut Endpoint, to: &mut Endpoint| {
            let bytes: Vec<u8> = from.output().drain(..).collect();
            for mut piece in bytes.chunks(piece) {
                while !piece.is_empty() {
                    match to.receive(piece) {
                        Ok(n) => piece = &piece[n..],
                        Err(_) => break,
                    }
                }
            }
        };
        while a.output_len() + b.output_len() > 0 {
            pass(a, b);
            pass(b, a);
        }
        [a.failure(), b.failure()]
    }

    #[test]
    fn both_versions_shake_hands_in_any_pieces() {
        for (newest, piece, fragment) in [(true, 1, 3), (true, 4000, 4000), (false, 1, 2), (false, 700, 9)] {
            let mut a = Endpoint::client(client("A.Test", newest));
            let mut b = server();
            (a.fragment, b.fragment) = (fragment, fragment);
            a.start();
            assert_eq!(talk(&mut a, &mut b, piece), [None, None]);
            assert!(a.is_done() && b.is_done());
            assert_eq!((b.agreed().certificate, b.agreed().name.as_deref()), (Some(0), Some("A.Test")));
            a.write(b"question");
            a.update_key(true);
            a.write(b"!");
            a.end();
            b.record = 2;
            b.write(b"answer");
            assert_eq!(talk(&mut a, &mut b, piece), [None, None]);
            assert_eq!(b.plaintext().make_contiguous(), b"question!");
            assert_eq!(a.plaintext().make_contiguous(), b"answer");
            assert!(b.is_ended() && !a.is_ended());
            assert_eq!(a.updates_due, 0);
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        let fault = |fault| Some(Failure::Fault(fault));
        let sent = |code| Some(Failure::Alert(code));
        let run = |side: ClientSide, mut b: Endpoint| {
            let mut a = Endpoint::client(side);
            a.start();
            talk(&mut a, &mut b, 50)
        };
        let unknown = run(client("b.test", true), server());
        assert_eq!(unknown, [sent(alert::UNRECOGNIZED_NAME), Some(Failure::UnrecognizedName)]);
        assert_eq!(run(client("x.w.test", false), server()), [None, None]);
        for newest in [true, false] {
            let missing = run(client("c.test", newest), server());
            assert_eq!(missing, [sent(alert::CERTIFICATE_REQUIRED), fault(TlsFault::ClientCertificate)]);
            let shown = ClientSide { subject: Some("CN=x".into()), ..client("c.test", newest) };
            assert_eq!(run(shown, server()), [None, None]);
        }
        let mut others = client("a.test", true);
        others.hello.alpn = Alpn::Others;
        assert_eq!(run(others, server())[0], sent(alert::NO_APPLICATION_PROTOCOL));
        let mut expired = ServerSide::default();
        expired.hello.certificate = super::super::CertificateKind::Expired;
        expired.hello.names = vec!["a.test".into()];
        let refused = run(client("a.test", true), Endpoint::server(expired.clone()));
        assert_eq!(refused, [fault(TlsFault::Expired), sent(alert::BAD_CERTIFICATE)]);
        expired.hello = ServerHello { names: vec!["b.test".into()], ..ServerHello::default() };
        assert_eq!(run(client("a.test", true), Endpoint::server(expired))[0], fault(TlsFault::WrongName));
        let mut plain = server();
        assert_eq!(plain.receive(b"GET / HTTP/1.1\r\n\r\n"), Err(Failure::PlainHttp));
        let mut garbage = server();
        assert_eq!(garbage.receive(b"\x99"), Err(Failure::Fault(TlsFault::NotTls)));
    }
}
