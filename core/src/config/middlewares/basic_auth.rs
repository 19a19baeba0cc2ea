//! `BasicAuth`: users and their hashed passwords.

use toml::de::DeValue;

use super::super::middleware_settings::{Middleware, Users};
use super::super::reader::{self, Section};
use super::super::report::{Report, Span, Value};
use super::super::user_list::{self, UserList};
use super::realm;

pub(super) fn read(value: &Value<'_>, report: &mut Report<'_>) -> Option<Middleware> {
    let section = Section::new(value, "`BasicAuth`", &["users", "users_file", "realm"], report)?;
    let realm = realm::read(&section, report);
    let users = match (section.get("users"), section.get("users_file")) {
        (Some(_), Some(_)) => {
            report.error(section.key_span("users_file"), "`users` and `users_file` are two lists").help =
                Some("keep one of them".into());
            None
        }
        (None, Some(value)) => {
            let path = reader::non_empty_string(value, "`users_file`", report);
            path.map(|path| Users::File(report.file(path, value.span())))
        }
        (Some(value), None) => users(value, report).map(Users::Listed),
        (None, None) => {
            section.required("users_file", "\"users.htpasswd\"", report);
            None
        }
    };
    Some(Middleware::BasicAuth { users: users?, realm: realm? })
}

/// `users`: a table of hashes by name, or a list of `"name:hash"`.
fn users(value: &Value<'_>, report: &mut Report<'_>) -> Option<UserList> {
    let mut found: Vec<(&str, &str, Span)> = Vec::new();
    let mut whole = true;
    match value.get_ref() {
        DeValue::Table(table) => {
            for (name, hash) in table {
                match reader::string(hash, "the hash of a password", report) {
                    Some(text) => found.push((name.get_ref(), text, hash.span())),
                    None => whole = false,
                }
            }
        }
        DeValue::Array(items) => {
            for item in items {
                match reader::string(item, "each of `users`", report) {
                    Some(text) => {
                        let (name, hash) = user_list::split(text);
                        found.push((name, hash, item.span()));
                    }
                    None => whole = false,
                }
            }
        }
        _ => {
            report.mistyped(value, "`users`", "a table of hashed passwords, or a list of \"name:hash\"");
            return None;
        }
    }
    let list = UserList::new(found.iter().map(|(name, hash, _)| (*name, *hash)));
    match list {
        Ok(list) => whole.then_some(list),
        Err(faults) => {
            if faults.is_empty() && whole {
                report.error(value.span(), "`users` has no users");
            }
            for (at, why) in faults {
                report.error(found[at].2.clone(), why);
            }
            None
        }
    }
}
