//! Who knows users and passwords.

use super::directory::Directory;
use super::user_list::UserList;

/// Who knows users and passwords.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialSource {
    /// An LDAP server.
    Directory(Directory),
    /// A list of hashed passwords.
    Users(UserList),
}
