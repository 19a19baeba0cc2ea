//! Answers to challenges: shown by every process that shares the folder, because an authority may ask any of
//! the machines behind a name.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;
use ruststrom_core::acme::Challenge;
use ruststrom_core::shared::HttpChallenge;
use ruststrom_core::{Shared, UnixSecs};
use serde::{Deserialize, Serialize};

use super::digest::sha256;
use super::folder::{Folder, Locked};
use crate::tls::provider::provider;
use crate::tls::server;
use crate::tls::shared_server::SharedServer;

/// The file of the answers.
pub(super) const FILE: &str = "challenges.json";

/// What an authority is answered that asks for a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) name: Box<str>,
    pub(super) challenge: Challenge,
    pub(super) token: Box<str>,
    /// RFC 8555 §8.1
    pub(super) key_authorization: Box<str>,
}

/// What is in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Answers {
    /// They are not shown for longer, in case that nobody takes them away.
    until: UnixSecs,
    answers: Vec<Answer>,
}

/// Puts the answers into the folder, for all who share it.
///
/// # Errors
/// If they cannot be written.
pub(super) fn write(folder: &Locked<'_>, answers: &[Answer], until: UnixSecs) -> io::Result<()> {
    folder.write(FILE, &serde_json::to_vec_pretty(&Answers { until, answers: answers.to_vec() })?)
}

/// The answers that are in the folder.
pub(super) fn read(folder: &Folder, now: UnixSecs) -> Vec<Answer> {
    let read = folder.read(FILE).ok().flatten();
    let answers: Answers = read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    if answers.until > now { answers.answers } else { Vec::new() }
}

/// The answers that this process shows.
pub(super) struct Board {
    shared: Arc<Shared>,
    server: SharedServer,
    shown: Mutex<HashMap<Folder, Vec<Answer>>>,
}

impl Board {
    pub(super) fn new(shared: Arc<Shared>, server: SharedServer) -> Self {
        Self { shared, server, shown: Mutex::default() }
    }

    /// Shows these in the place of those that the folder had before.
    ///
    /// # Errors
    /// If a certificate cannot be made for one: then it is not shown.
    pub(super) fn show(&self, folder: &Folder, answers: Vec<Answer>) -> Result<(), String> {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.get(folder).map_or(&[][..], Vec::as_slice) == answers {
            return Ok(());
        }
        shown.insert(folder.clone(), answers);
        let all = || shown.values().flatten();
        let http = all().filter(|a| a.challenge == Challenge::Http01).map(|answer| HttpChallenge {
            token: answer.token.clone(),
            answer: answer.key_authorization.as_bytes().into(),
        });
        self.shared.set_http_challenges(http.collect());
        let (mut tls, mut failed) = (Vec::new(), None);
        for answer in all().filter(|a| a.challenge == Challenge::TlsAlpn01) {
            match proof(answer) {
                Ok(key) => tls.push(server::Challenge { name: answer.name.clone(), key }),
                Err(e) => failed = Some(e),
            }
        }
        self.server.change(|server| match server.with_challenges(&tls) {
            Ok(changed) => changed,
            Err(e) => {
                log::error!(target: "acme", "challenges over TLS cannot be answered: {e}");
                server.clone()
            }
        });
        failed.map_or(Ok(()), |e| Err(format!("no certificate can be made for a challenge: {e}")))
    }
}

/// The certificate for TLS-ALPN-01 (RFC 8737 §3).
fn proof(answer: &Answer) -> Result<Arc<CertifiedKey>, String> {
    let text = |e: rcgen::Error| e.to_string();
    let mut params = CertificateParams::new(vec![answer.name.to_string()]).map_err(text)?;
    params.distinguished_name = DistinguishedName::new();
    let digest = sha256(answer.key_authorization.as_bytes());
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(&digest)];
    let key = KeyPair::generate().map_err(text)?;
    let certificate = params.self_signed(&key).map_err(text)?;
    let key = PrivateKeyDer::try_from(key.serialize_der())?;
    let key = provider().key_provider.load_private_key(key).map_err(|e| e.to_string())?;
    // Its one critical extension is for the authority to understand: whether the key fits is not looked up.
    Ok(Arc::new(CertifiedKey::new(vec![certificate.der().clone()], key)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acme::test_folder::TestFolder;
    use crate::tls::server::ServerTls;

    fn answer(challenge: Challenge, token: &str) -> Answer {
        let key_authorization = format!("{token}.print").into();
        Answer { name: "a.example".into(), challenge, token: token.into(), key_authorization }
    }

    #[test]
    fn answers_are_shown_until_they_go_or_end() {
        let test = TestFolder::new();
        let folder = Folder::at(test.path().to_owned());
        let answers = [answer(Challenge::Http01, "one"), answer(Challenge::TlsAlpn01, "two")];
        write(&folder.lock().expect("a lock"), &answers, 1000).expect("written");
        assert_eq!(read(&folder, 999), answers);
        assert_eq!(read(&folder, 1000), []);
        folder.lock().expect("a lock").write(FILE, b"[1").expect("written");
        assert_eq!(read(&folder, 999), []);
    }

    #[test]
    fn folders_do_not_take_away_each_others_answers() {
        let server = SharedServer::new(ServerTls::default());
        let board = Board::new(Arc::new(Shared::new("lb", 1)), server.clone());
        let (a, b) = (Folder::at("a".into()), Folder::at("b".into()));
        let tls = |name: &str| Answer { name: name.into(), ..answer(Challenge::TlsAlpn01, "t") };
        board.show(&a, vec![tls("a.example")]).expect("shown");
        board.show(&b, vec![tls("b.example")]).expect("shown");
        let shown = |name| server.get().challenge(name).is_some();
        assert!(shown("a.example") && shown("B.example."));
        board.show(&a, Vec::new()).expect("shown");
        assert!(!shown("a.example") && shown("b.example"));
    }

    #[test]
    fn the_proof_is_what_rfc_8737_wants() {
        let key = proof(&answer(Challenge::TlsAlpn01, "t")).expect("a certificate");
        let (_, parsed) = x509_parser::parse_x509_certificate(&key.cert[0]).expect("X.509");
        let san = parsed.subject_alternative_name().expect("one").expect("one");
        assert_eq!(format!("{:?}", san.value.general_names), "[DNSName(\"a.example\")]");
        let extension = parsed.iter_extensions().find(|e| e.oid.to_id_string() == "1.3.6.1.5.5.7.1.31");
        let extension = extension.expect("the identifier of ACME");
        assert!(extension.critical);
        let mut expected = vec![4, 32];
        expected.extend(sha256(b"t.print"));
        assert_eq!(extension.value, expected, "an octet string with the digest");
    }
}
