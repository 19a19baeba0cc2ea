//! The account with an authority: its key is all that it is known by.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use ruststrom_core::acme::Settings;
use serde::{Deserialize, Serialize};

use super::folder::name_of;

/// An account, as its file has it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AccountFile {
    /// The URL of the authority's directory.
    directory: String,
    email: String,
    /// The identifier of the external account that it was made with (RFC 8555 §7.3.4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    /// The account's own URL; `None` while it is not certain that there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// The private key in PKCS#8, as PEM.
    key: String,
}

/// The file's name for the account that these settings use: the authority and the e-mail address are in it.
pub(super) fn file_name(settings: &Settings) -> String {
    let directory = settings.directory.split_once("://").map_or(&*settings.directory, |(_, rest)| rest);
    name_of(&format!("account-{}-{}", plain(directory), plain(&settings.email)), ".json")
}

/// What can stand in a file's name as it is; every other byte in hexadecimal, so that no two become one.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'@' => plain.push(char::from(byte)),
            b'/' => plain.push('_'),
            other => plain.push_str(&format!("%{other:02x}")),
        }
    }
    plain
}

impl AccountFile {
    /// An account that the authority may not know yet, with this key.
    pub(super) fn new(settings: &Settings, kid: Option<&str>, key: String) -> Self {
        let kid = kid.map(str::to_owned);
        Self {
            directory: settings.directory.to_string(),
            email: settings.email.to_string(),
            kid,
            url: None,
            key,
        }
    }

    /// Of what a file has in it; `None` if there is no account for these settings in it.
    pub(super) fn read(bytes: &[u8], settings: &Settings, kid: Option<&str>) -> Option<Self> {
        let file: Self = serde_json::from_slice(bytes).ok()?;
        let ours = *file.directory == *settings.directory && *file.email == *settings.email;
        (ours && file.kid.as_deref() == kid && file.key().is_some()).then_some(file)
    }

    /// What its file has in it.
    pub(super) fn text(&self) -> Vec<u8> {
        let value = serde_json::json!(self);
        format!("{value:#}\n").into_bytes()
    }

    pub(super) fn key(&self) -> Option<PrivatePkcs8KeyDer<'static>> {
        match PrivateKeyDer::from_pem_slice(self.key.as_bytes()).ok()? {
            PrivateKeyDer::Pkcs8(key) => Some(key),
            _ => None,
        }
    }

    pub(super) fn url(&self) -> Option<&str> {
        self.url.as_deref()
    }

    /// The authority knows it under this URL.
    pub(super) fn known_as(self, url: &str) -> Self {
        Self { url: Some(url.to_owned()), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_accounts_have_names_of_their_own() {
        let table = [
            ("acme-v02.api.letsencrypt.org/directory", "acme-v02.api.letsencrypt.org_directory"),
            ("127.0.0.1:14000/dir", "127.0.0.1%3a14000_dir"),
            ("a/../b", "a_.._b"),
            ("a_b", "a%5fb"),
            ("ä", "%c3%a4"),
        ];
        for (text, expected) in table {
            assert_eq!(plain(text), expected);
        }
    }
}
