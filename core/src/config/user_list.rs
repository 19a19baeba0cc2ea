//! Lists of users and their hashed passwords, as `htpasswd` writes them: `name:hash` (crypt(5)).

use std::collections::BTreeMap;
use std::fmt;

use super::diagnostic::clip;

/// Most microseconds that one password may take to be checked, as estimated.
const MAX_COST: u64 = 4_000_000;
/// Most memory for one password, in KiB.
const MAX_MEMORY: u64 = 1 << 20;
/// Longest name of a user, in bytes.
const MAX_NAME: usize = 256;

/// Users and their hashed passwords. At least one.
#[derive(Clone, PartialEq, Eq)]
pub struct UserList {
    users: BTreeMap<Box<str>, PasswordHash>,
    /// What is hashed for a name that nobody has: as dear as any.
    dearest: PasswordHash,
}

/// A hashed password.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    /// How it was made.
    pub kind: HashKind,
    /// With salt and parameters, in the form of its kind.
    pub text: Box<str>,
    /// About how long it takes to be checked, in microseconds: to compare with others.
    cost: u64,
}

/// How a password was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashKind {
    /// bcrypt: `$2y$`, `$2b$` or `$2a$`.
    Bcrypt,
    /// Argon2id in its version 19 (RFC 9106): `$argon2id$`.
    Argon2id,
    /// SHA-512-crypt: `$6$`.
    Sha512Crypt,
}

impl fmt::Debug for UserList {
    /// Without the hashes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.users.keys()).finish()
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({:?})", self.kind)
    }
}

impl UserList {
    /// From names and hashes: the place in `pairs` and what is wrong, of each that is.
    ///
    /// # Errors
    /// The faults; without any pair there are none, and no list.
    pub(super) fn new<'p>(
        pairs: impl IntoIterator<Item = (&'p str, &'p str)>,
    ) -> Result<Self, Vec<(usize, String)>> {
        let mut users = BTreeMap::new();
        let mut faults = Vec::new();
        let mut dearest: Option<PasswordHash> = None;
        for (at, (name, hash)) in pairs.into_iter().enumerate() {
            match check_name(name).and_then(|()| PasswordHash::new(hash)) {
                Err(why) => faults.push((at, format!("user \"{}\": {why}", clip(name)))),
                Ok(hash) => {
                    if dearest.as_ref().is_none_or(|known| known.cost < hash.cost) {
                        dearest = Some(hash.clone());
                    }
                    if users.insert(name.into(), hash).is_some() {
                        faults.push((at, format!("user \"{}\" is there twice", clip(name))));
                    }
                }
            }
        }
        match dearest {
            Some(dearest) if faults.is_empty() => Ok(Self { users, dearest }),
            _ => Err(faults),
        }
    }

    /// From a file: a user on each line; blank lines and lines that begin with `#` do not count.
    ///
    /// # Errors
    /// What is wrong with each line that is not right, or that there is no user.
    pub fn of_file(content: &[u8]) -> Result<Self, Vec<String>> {
        let content = std::str::from_utf8(content).map_err(|e| {
            let line = content[..e.valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
            vec![format!("line {line}: it is not UTF-8")]
        })?;
        let lines = (1_usize..).zip(content.lines());
        let lines = lines.filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
        let (numbers, pairs): (Vec<_>, Vec<_>) = lines.map(|(n, line)| (n, split(line))).unzip();
        Self::new(pairs).map_err(|faults| {
            if faults.is_empty() {
                return vec!["has no users".into()];
            }
            faults.into_iter().map(|(at, why)| format!("line {}: {why}", numbers[at])).collect()
        })
    }

    /// The hash that a password of this user has to fit, and whether there is such a user: if not, it is one
    /// that takes as long as any, so that time does not tell who is known.
    #[must_use]
    pub fn hash_of(&self, user: &str) -> (&PasswordHash, bool) {
        match self.users.get(user) {
            Some(hash) => (hash, true),
            None => (&self.dearest, false),
        }
    }

    /// A hash that takes as long as any of the list, if this one of it takes less: who checks a password in
    /// vain checks that one too, so that time does not tell whose name is known.
    #[must_use]
    pub fn dearer_than(&self, hash: &PasswordHash) -> Option<&PasswordHash> {
        (hash.cost < self.dearest.cost).then_some(&self.dearest)
    }
}

/// `name:hash`; without a colon, a name without a hash.
pub(super) fn split(text: &str) -> (&str, &str) {
    text.split_once(':').map_or((text, ""), |(name, hash)| (name, hash.trim_end()))
}

fn check_name(name: &str) -> Result<(), String> {
    match name {
        "" => Err("its name is empty".into()),
        // RFC 7617 §2: the colon ends the name.
        _ if name.contains(':') => Err("a name can't have a colon".into()),
        _ if name.chars().any(char::is_control) => Err("a name can't have control characters".into()),
        _ if name.len() > MAX_NAME => Err(format!("a name has at most {MAX_NAME} bytes")),
        _ => Ok(()),
    }
}

impl PasswordHash {
    fn new(text: &str) -> Result<Self, String> {
        let (kind, cost) = match text.split('$').nth(1) {
            Some("2y" | "2b" | "2a") => (HashKind::Bcrypt, bcrypt(text)?),
            Some("argon2id") => (HashKind::Argon2id, argon2id(text)?),
            Some("6") => (HashKind::Sha512Crypt, sha512_crypt(text)?),
            _ => {
                return Err(format!(
                    "{}: use `htpasswd -B`, or bcrypt, argon2id or sha-512-crypt",
                    other(text)
                ));
            }
        };
        if cost > MAX_COST {
            return Err(format!("checking its password would take about {} s", cost / 1_000_000));
        }
        Ok(Self { kind, text: text.into(), cost })
    }
}

/// What else it may be.
fn other(text: &str) -> &'static str {
    let known = [
        ("$apr1$", "its password is hashed by Apache's MD5, which is broken"),
        ("$1$", "its password is hashed by MD5-crypt, which is broken"),
        ("$5$", "its password is hashed by SHA-256-crypt, which is not built in"),
        ("$2x$", "its password is hashed by a bcrypt that had a fault"),
        ("$argon2", "its password is hashed by an Argon2 other than argon2id"),
        ("$y$", "its password is hashed by yescrypt, which is not built in"),
        ("$7$", "its password is hashed by scrypt, which is not built in"),
        ("{", "its password is hashed by SHA-1, or in another form of LDAP"),
    ];
    match known.iter().find(|(start, _)| text.starts_with(start)) {
        Some((_, what)) => what,
        None if text.is_empty() => "it has no password",
        None if text.starts_with('$') => "its password is hashed in an unknown way",
        None => "its password is not hashed, or by the DES of crypt(3)",
    }
}

/// Letters of the base64 of crypt(3).
fn is_crypt64(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'/'))
}

/// A decimal number in its shortest form.
fn number(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

/// `$2y$COST$` and 53 letters: the costs are microseconds on a machine of 2023.
fn bcrypt(text: &str) -> Result<u64, String> {
    const BAD: &str = "its bcrypt hash is not like $2y$10$ and 53 letters, digits, `.` or `/`";
    let parts: Vec<&str> = text.split('$').collect();
    let ["", _, cost, rest] = parts[..] else { return Err(BAD.into()) };
    let cost = cost.parse::<u32>().ok().filter(|n| (4..=31).contains(n) && cost.len() == 2).ok_or(BAD)?;
    if rest.len() != 53 || !is_crypt64(rest) {
        return Err(BAD.into());
    }
    Ok(60 << cost)
}

/// `$6$[rounds=N$]SALT$HASH`
fn sha512_crypt(text: &str) -> Result<u64, String> {
    const BAD: &str = "its hash is not like $6$, a salt, $ and 86 letters, digits, `.` or `/`";
    let parts: Vec<&str> = text.split('$').collect();
    let (rounds, salt, hash) = match parts[..] {
        ["", _, salt, hash] => (5000, salt, hash),
        ["", _, rounds, salt, hash] => {
            let rounds = rounds.strip_prefix("rounds=").and_then(number).ok_or(BAD)?;
            if !(1000..=999_999_999).contains(&rounds) {
                return Err("its hash has fewer than 1000 or more than 999999999 rounds".into());
            }
            (rounds, salt, hash)
        }
        _ => return Err(BAD.into()),
    };
    if salt.len() > 16 || !is_crypt64(salt) || hash.len() != 86 || !is_crypt64(hash) {
        return Err(BAD.into());
    }
    Ok(rounds / 2)
}

/// `$argon2id$v=19$m=M,t=T,p=P$SALT$HASH`
fn argon2id(text: &str) -> Result<u64, String> {
    const BAD: &str = "its hash is not like $argon2id$v=19$m=65536,t=3,p=4$, a salt, $ and the hash";
    let is_base64 = |text: &str, lengths: std::ops::RangeInclusive<usize>| {
        let letters = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'));
        letters && lengths.contains(&text.len()) && text.len() % 4 != 1
    };
    let parts: Vec<&str> = text.split('$').collect();
    let ["", _, "v=19", parameters, salt, hash] = parts[..] else { return Err(BAD.into()) };
    let mut values = parameters.split(',').zip(["m=", "t=", "p="]).map(|(value, key)| {
        value.strip_prefix(key).and_then(number).filter(|n| (1..=u64::from(u32::MAX)).contains(n))
    });
    let mut next = || values.next().flatten().ok_or(BAD);
    let (memory, passes, lanes) = (next()?, next()?, next()?);
    // 8 to 48 bytes of salt, 16 to 64 of hash.
    let sized = is_base64(salt, 11..=64) && is_base64(hash, 22..=86);
    if parameters.split(',').count() != 3 || !sized || lanes > 255 || memory < 8 * lanes {
        return Err(BAD.into());
    }
    if memory > MAX_MEMORY {
        return Err(format!("checking its password would take {} MiB of memory", memory >> 10));
    }
    Ok(memory * passes * 3 / 5)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BCRYPT: &str = "$2y$10$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234";
    const ARGON: &str =
        "$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g";

    fn sha(rounds: &str) -> String {
        format!("$6${rounds}saltsalt${}", "x".repeat(86))
    }

    #[test]
    fn hashes_of_each_kind_and_what_is_none() {
        for (text, kind) in [
            (BCRYPT.to_owned(), HashKind::Bcrypt),
            (BCRYPT.replace("2y", "2b"), HashKind::Bcrypt),
            (ARGON.to_owned(), HashKind::Argon2id),
            (sha(""), HashKind::Sha512Crypt),
            (sha("rounds=10000$"), HashKind::Sha512Crypt),
        ] {
            assert_eq!(PasswordHash::new(&text).map(|hash| hash.kind), Ok(kind), "{text}");
        }
        let table: [(&str, &str); 21] = [
            ("", "it has no password"),
            ("secret", "not hashed"),
            ("$apr1$abc$def", "Apache's MD5"),
            ("$1$abc$def", "MD5-crypt"),
            ("$5$abc$def", "SHA-256-crypt"),
            ("{SHA}abc", "SHA-1"),
            ("$y$j9T$a$b", "yescrypt"),
            ("$argon2i$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aA", "other than argon2id"),
            ("$2x$10$abc", "had a fault"),
            ("$9$abc", "unknown way"),
            (&BCRYPT[..59], "bcrypt hash is not like"),
            (&BCRYPT.replace("$10$", "$1a$"), "bcrypt hash is not like"),
            (&BCRYPT.replace("$10$", "$03$"), "bcrypt hash is not like"),
            (&BCRYPT.replace("$10$", "$20$"), "about 62 s"),
            (&sha("rounds=999$"), "fewer than 1000"),
            (&sha("rounds=900000000$"), "about 450 s"),
            (&sha("")[..40], "not like $6$"),
            (&ARGON.replace("v=19", "v=16"), "not like $argon2id$"),
            (&ARGON.replace("m=65536", "m=4294967295"), "4194303 MiB"),
            (&ARGON.replace("t=3", "t=300"), "about 11 s"),
            (&ARGON.replace(",p=4", ""), "not like $argon2id$"),
        ];
        for (text, why) in table {
            let found = PasswordHash::new(text).expect_err(text);
            assert!(found.contains(why), "{text}: {found}");
        }
    }

    #[test]
    fn files_and_their_faults() {
        let file = format!("# staff\n\nada:{BCRYPT}\r\nbob:{}\n", sha(""));
        let list = UserList::of_file(file.as_bytes()).expect("a good file");
        assert_eq!(format!("{list:?}"), r#"{"ada", "bob"}"#);
        assert_eq!(list.hash_of("ada"), (&list.users["ada"], true));
        assert_eq!(list.hash_of("bob").0.kind, HashKind::Sha512Crypt);
        assert_eq!(list.hash_of("eve"), (&list.users["ada"], false), "the dearest");
        let bad = format!("ada:{BCRYPT}\nada:{BCRYPT}\n:x\nbob\neve:$1$a$b\n");
        let faults = UserList::of_file(bad.as_bytes()).expect_err("faults");
        let starts = ["line 2: user \"ada\" is there twice", "line 3: user \"\"", "line 4: ", "line 5: "];
        assert_eq!(faults.len(), starts.len(), "{faults:?}");
        assert!(faults.iter().zip(starts).all(|(found, start)| found.starts_with(start)), "{faults:?}");
        assert_eq!(UserList::of_file(b"# none\n"), Err(vec!["has no users".to_owned()]));
        assert_eq!(UserList::of_file(b"a:b\n\xff"), Err(vec!["line 2: it is not UTF-8".to_owned()]));
    }
}
