//! LDAP servers that know users and passwords (RFC 4511).

use std::time::Duration;

use super::file_ref::{FileFault, FileRef};
use crate::secret::Secret;

/// An LDAP server, and how it is asked for a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// `ldaps://`: TLS from the first byte.
    pub secure: bool,
    /// TLS is asked for on a connection that begins without (RFC 4511 §4.14). Never with `secure`.
    pub starttls: bool,
    /// A host name in lower case, or an address without brackets.
    pub host: Box<str>,
    /// 1 or more.
    pub port: u16,
    /// The authorities that its certificate must be signed by; `None`: the system's.
    pub ca_file: Option<FileRef>,
    /// The distinguished name below which users are.
    pub user_directory: Box<str>,
    /// The attribute that holds a user's name (RFC 4512 §1.4).
    pub rdn_identifier: Box<str>,
    /// Whether users are looked for in the whole subtree instead of directly below `user_directory`.
    pub recursive: bool,
    /// As whom users are looked for; `None`: as nobody.
    pub bind: Option<DirectoryBind>,
    /// For one request, all of its waiting included: from 1 ms to 15 s.
    pub timeout: Duration,
}

/// As whom a directory is searched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryBind {
    /// The distinguished name; not empty.
    pub dn: Box<str>,
    /// Its password.
    pub password: BindPassword,
}

/// A password of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindPassword {
    /// In the configuration; not empty.
    Given(Secret),
    /// In a file, whose last line break does not count.
    File(FileRef),
}

impl BindPassword {
    /// The password. `None` if a file has none, or is not UTF-8: an empty one would be no bind at all
    /// (RFC 4513 §5.1.2), and succeed.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        let text = match self {
            Self::Given(secret) => &*secret.0,
            Self::File(file) => {
                let text = std::str::from_utf8(&file.content).ok()?;
                let text = text.strip_suffix('\n').unwrap_or(text);
                text.strip_suffix('\r').unwrap_or(text)
            }
        };
        (!text.is_empty()).then_some(text)
    }
}

impl Directory {
    /// Its address as configurations have it.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.secure { "ldaps" } else { "ldap" };
        let (host, port) = (&self.host, self.port);
        if host.contains(':') {
            format!("{scheme}://[{host}]:{port}")
        } else {
            format!("{scheme}://{host}:{port}")
        }
    }

    /// Whether passwords travel over TLS.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.secure || self.starttls
    }

    pub(super) fn files_mut(&mut self) -> impl Iterator<Item = &mut FileRef> {
        let password = match &mut self.bind {
            Some(DirectoryBind { password: BindPassword::File(file), .. }) => Some(file),
            _ => None,
        };
        self.ca_file.iter_mut().chain(password)
    }

    pub(super) fn file_faults(&self) -> Vec<FileFault> {
        match &self.bind {
            Some(DirectoryBind { password: password @ BindPassword::File(file), .. })
                if password.text().is_none() =>
            {
                vec![FileFault::new(file, "has no password: it is empty, or not UTF-8")]
            }
            _ => Vec::new(),
        }
    }
}
