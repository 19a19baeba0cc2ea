//! Passwords against their hashes.

use argon2::Argon2;
use argon2::password_hash::PasswordVerifier;
use ruststrom_core::LookupResult;
use ruststrom_core::config::{CredentialSource, HashKind, PasswordHash};
use sha_crypt::ShaCrypt;

use super::job_queue::Job;

/// Whether a list has this user with this password. Who is not in it costs as much as who is.
pub(super) fn check(job: &Job) -> LookupResult {
    let CredentialSource::Users(list) = &*job.source else {
        return LookupResult::Failed("there is no list of users".into());
    };
    let (hash, known) = list.hash_of(&job.user);
    let password = job.password.0.as_bytes();
    let fits = fits(hash, password).inspect(|fits| {
        if !fits && let Some(dearer) = list.dearer_than(hash) {
            // What comes of it is of no interest.
            let _ = self::fits(dearer, password);
        }
    });
    match fits {
        Ok(fits) => LookupResult::Authenticated(fits && known),
        Err(why) => {
            log::error!("the hash of a password cannot be used: {why}");
            LookupResult::Failed(why.into())
        }
    }
}

/// Whether a password has this hash. The comparison takes the same time whatever the result.
fn fits(hash: &PasswordHash, password: &[u8]) -> Result<bool, String> {
    let text = &*hash.text;
    let verified = match hash.kind {
        HashKind::Bcrypt => return bcrypt::verify(password, text).map_err(|e| e.to_string()),
        HashKind::Argon2id => Argon2::default().verify_password(password, text),
        HashKind::Sha512Crypt => ShaCrypt::SHA512.verify_password(password, text),
    };
    match verified {
        Ok(()) => Ok(true),
        Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
        Err(e) => Err(e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    use ruststrom_core::config::UserList;
    use ruststrom_core::{Secret, Waiting};

    use super::super::Authenticators;
    use super::*;

    /// `htpasswd -B`, `argon2 -id` and `openssl passwd -6` of the password "love".
    const FILE: &str = include_str!("password_hash/users.htpasswd");

    #[test]
    fn each_kind_of_hash() {
        let list = UserList::of_file(FILE.as_bytes()).expect("a good file");
        let source = Arc::new(CredentialSource::Users(list));
        let authenticators = Authenticators::default();
        let (to, from) = mpsc::channel();
        let (_waiting, wanted) = Waiting::new();
        let ask = |user: &str, password: &str| {
            let to = to.clone();
            authenticators.ask(
                source.clone(),
                user.into(),
                Secret(password.into()),
                wanted.clone(),
                Box::new(move |result| to.send(result).expect("the test listens")),
            );
            from.recv_timeout(Duration::from_secs(20)).expect("a result")
        };
        for user in ["bcrypt", "argon2id", "sha512crypt", "rounds"] {
            for (password, good) in [("love", true), ("Love", false), ("love ", false), ("lov", false)] {
                assert_eq!(ask(user, password), LookupResult::Authenticated(good), "{user} {password}");
            }
        }
        assert_eq!(ask("nobody", "love"), LookupResult::Authenticated(false));
    }
}
