//! `user` and `group`: whom the process becomes once all that needs root is open.
//!
//! Accounts are those of `/etc/passwd` and `/etc/group`; numeric ids need no entry there.

use std::fmt;
use std::io;

use rustix::process::{Gid, Uid};
use ruststrom_core::Config;

/// Whom to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    uid: u32,
    gid: u32,
    /// Supplementary groups, sorted, with `gid`.
    groups: Vec<u32>,
    /// The user and the group as the configuration has them.
    name: String,
}

/// The key with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    User,
    Group,
}

/// Why a configured account cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AccountError {
    pub(crate) key: Key,
    message: String,
    pub(crate) help: &'static str,
}

impl fmt::Display for AccountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for AccountError {}

/// Whom a configuration names; `None` if it names nobody.
///
/// # Errors
/// If there is no such account.
pub(crate) fn identity(config: &Config) -> Result<Option<Identity>, AccountError> {
    let (user, group) = (config.user.as_deref(), config.group.as_deref());
    if user.is_none() && group.is_none() {
        return Ok(None);
    }
    let read = |path: &str| std::fs::read(path).unwrap_or_default();
    let (passwd, groups) = (read("/etc/passwd"), read("/etc/group"));
    let accounts =
        Accounts { passwd: &String::from_utf8_lossy(&passwd), group: &String::from_utf8_lossy(&groups) };
    accounts.find(user, group, rustix::process::geteuid().as_raw()).map(Some)
}

/// The texts of `/etc/passwd` and `/etc/group`.
struct Accounts<'a> {
    passwd: &'a str,
    group: &'a str,
}

impl Identity {
    /// User and group.
    pub(crate) fn owner(&self) -> (u32, u32) {
        (self.uid, self.gid)
    }
}

impl Accounts<'_> {
    /// The account of a user, a group or both; `current` is this process's user.
    fn find(&self, user: Option<&str>, group: Option<&str>, current: u32) -> Result<Identity, AccountError> {
        let gid = group.map(|group| self.gid(group)).transpose()?;
        let entry = user.map(|user| self.user(user)).transpose()?;
        let (uid, primary, login) = entry.unwrap_or((current, None, None));
        let Some(gid) = gid.or(primary) else {
            let user = user.unwrap_or_default();
            return Err(AccountError {
                key: Key::User,
                message: format!("user {user} has no entry in /etc/passwd, so its group is not known"),
                help: "set `group` too",
            });
        };
        let mut groups: Vec<u32> = self.group.lines().filter_map(|line| member_of(line, login?)).collect();
        groups.push(gid);
        groups.sort_unstable();
        groups.dedup();
        let words = [user.map(|user| format!("user {user}")), group.map(|group| format!("group {group}"))];
        let name = words.into_iter().flatten().collect::<Vec<_>>().join(", ");
        Ok(Identity { uid, gid, groups, name })
    }

    /// The user's id, primary group and name.
    fn user(&self, wanted: &str) -> Result<(u32, Option<u32>, Option<&str>), AccountError> {
        let entries = || {
            self.passwd.lines().filter_map(|line| {
                let mut fields = line.split(':');
                let name = fields.next()?;
                let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
                Some((name, uid, gid))
            })
        };
        let number = wanted.parse::<u32>().ok();
        let by_name = entries().find(|&(name, ..)| name == wanted);
        match by_name.or_else(|| entries().find(|&(_, uid, _)| Some(uid) == number)) {
            Some((name, uid, gid)) => Ok((uid, Some(gid), Some(name))),
            None => number.map(|uid| (uid, None, None)).ok_or_else(|| AccountError {
                key: Key::User,
                message: format!("there is no user \"{wanted}\" in /etc/passwd"),
                help: "add the user, or give the number of one",
            }),
        }
    }

    fn gid(&self, wanted: &str) -> Result<u32, AccountError> {
        let by_name = self.group.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next()? == wanted).then(|| fields.nth(1)?.parse().ok()).flatten()
        });
        by_name.or_else(|| wanted.parse().ok()).ok_or_else(|| AccountError {
            key: Key::Group,
            message: format!("there is no group \"{wanted}\" in /etc/group"),
            help: "add the group, or give the number of one",
        })
    }
}

/// The id of the group of a line of `/etc/group`, if `user` is one of its members.
fn member_of(line: &str, user: &str) -> Option<u32> {
    let mut fields = line.split(':').skip(2);
    let gid = fields.next()?.parse().ok()?;
    fields.next()?.split(',').any(|member| member == user).then_some(gid)
}

/// Becomes another user for good. Nothing is done if the process runs as that one already.
///
/// # Errors
/// A message if that is not allowed. The process may then have given up a part of its rights.
pub(crate) fn drop_to(identity: &Identity) -> Result<(), String> {
    let Identity { uid, gid, groups, name } = identity;
    let (euid, egid) = (rustix::process::geteuid(), rustix::process::getegid());
    if (euid.as_raw(), egid.as_raw()) == (*uid, *gid) && !euid.is_root() {
        return Ok(());
    }
    // The system calls below change one thread: all others have to be started after them.
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 {
        return Err(format!("cannot become {name}: {threads} threads run already"));
    }
    let groups: Vec<Gid> = groups.iter().map(|&gid| Gid::from_raw(gid)).collect();
    let (uid, gid) = (Uid::from_raw(*uid), Gid::from_raw(*gid));
    let changed = rustix::thread::set_thread_groups(&groups)
        .and_then(|()| rustix::thread::set_thread_res_gid(gid, gid, gid))
        .and_then(|()| rustix::thread::set_thread_res_uid(uid, uid, uid));
    changed.map_err(|e| match e {
        rustix::io::Errno::PERM if !euid.is_root() => {
            format!("cannot become {name}: only root can; start as root, or leave `user` and `group` out")
        }
        e => format!("cannot become {name}: {}", io::Error::from(e)),
    })?;
    // A way back to root would make all of this worthless.
    if !uid.is_root() && rustix::thread::set_thread_uid(Uid::ROOT).is_ok() {
        return Err(format!("cannot become {name}: the rights of root did not go away"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNTS: Accounts<'static> = Accounts {
        passwd: "root:x:0:0:root:/root:/bin/sh\nbroken\nwww:x:33:44:,,,:/var/www:/bin/false\n77:x:5:6::/:\n",
        group: "root:x:0:\nwww:x:44:\nlog:x:50:adm,www\nssl:x:20:www\nother:x:60:wwww\nbad:x:y:www\n",
    };

    #[test]
    fn accounts() {
        let is = |uid, gid, groups: &[u32]| Ok((uid, gid, groups.to_vec()));
        let table = [
            (Some("www"), None, is(33, 44, &[20, 44, 50])),
            (Some("33"), None, is(33, 44, &[20, 44, 50])),
            (Some("www"), Some("log"), is(33, 50, &[20, 50])),
            (Some("www"), Some("1234"), is(33, 1234, &[20, 50, 1234])),
            (Some("root"), None, is(0, 0, &[0])),
            // A name of digits comes before the number.
            (Some("77"), None, is(5, 6, &[6])),
            (Some("1234"), Some("www"), is(1234, 44, &[44])),
            (None, Some("www"), is(7, 44, &[44])),
            (
                Some("1234"),
                None,
                Err("user 1234 has no entry in /etc/passwd, so its group is not known".to_owned()),
            ),
            (Some("nobody"), None, Err("there is no user \"nobody\" in /etc/passwd".to_owned())),
            (Some("www"), Some("ww"), Err("there is no group \"ww\" in /etc/group".to_owned())),
            (Some("www"), Some("bad"), Err("there is no group \"bad\" in /etc/group".to_owned())),
            (Some("-1"), Some("www"), Err("there is no user \"-1\" in /etc/passwd".to_owned())),
        ];
        for (user, group, expected) in table {
            let found = ACCOUNTS.find(user, group, 7);
            let found = found.map(|i| (i.uid, i.gid, i.groups)).map_err(|e| e.to_string());
            assert_eq!(found, expected, "{user:?} {group:?}");
        }
    }
}
