//! Passwords and keys that a file has in it: diagnostics show its lines, and go into logs.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::report::Value;

/// Keys whose values nobody but the program is to see.
const KEYS: [&str; 3] = ["bind_password", "hmac_key", "users"];

/// The text with asterisks for its secrets. It has as many bytes, and every line and quote where it was, so
/// that diagnostics of the file are those of this text.
#[must_use]
pub fn without_secrets(text: &str) -> String {
    let mut hidden = Vec::new();
    let (root, _) = DeTable::parse_recoverable(text);
    // A value whose syntax is wrong is there too.
    find(root.get_ref(), &mut hidden);
    hidden.sort_by_key(|span| span.start);
    let mut hidden = hidden.into_iter().peekable();
    let mut shown = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        while hidden.next_if(|span| span.end <= at).is_some() {}
        match c {
            '"' | '\'' | '\n' | '\r' | '[' | ']' => shown.push(c),
            _ if hidden.peek().is_some_and(|span| span.contains(&at)) => {
                shown.extend(std::iter::repeat_n('*', c.len_utf8()))
            }
            _ => shown.push(c),
        }
    }
    shown
}

/// The places of all secrets in a table.
fn find(table: &DeTable<'_>, hidden: &mut Vec<Range<usize>>) {
    for (key, value) in table {
        if KEYS.contains(&key.get_ref().as_ref()) { strings(value, hidden) } else { find_in(value, hidden) }
    }
}

fn find_in(value: &Value<'_>, hidden: &mut Vec<Range<usize>>) {
    match value.get_ref() {
        DeValue::Table(table) => find(table, hidden),
        DeValue::Array(items) => items.iter().for_each(|item| find_in(item, hidden)),
        _ => {}
    }
}

/// The places of all strings in a value.
fn strings(value: &Value<'_>, hidden: &mut Vec<Range<usize>>) {
    match value.get_ref() {
        DeValue::String(_) => hidden.push(value.span()),
        DeValue::Table(table) => table.iter().for_each(|(_, value)| strings(value, hidden)),
        DeValue::Array(items) => items.iter().for_each(|item| strings(item, hidden)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::without_secrets;

    #[test]
    fn nobody_sees_them() {
        for (text, shown) in [
            ("bind_password = \"secret\" # why", "bind_password = \"******\" # why"),
            ("A = { bind_password='se', foo = 1 }", "A = { bind_password='**', foo = 1 }"),
            (
                "users = [\n  \"ada:hunter2\",\n  \"bob:x\"\n]\na = 1",
                "users = [\n  \"***********\",\n  \"*****\"\n]\na = 1",
            ),
            (
                "[a.BasicAuth.users]\nada = \"x\"\n[b]\nc = \"d\"",
                "[a.BasicAuth.users]\nada = \"*\"\n[b]\nc = \"d\"",
            ),
            ("eab = { kid = \"a\", hmac_key = \"é1\" }", "eab = { kid = \"a\", hmac_key = \"***\" }"),
            ("bind_password = \"\"\"a\nb\"\"\"", "bind_password = \"\"\"*\n*\"\"\""),
            // Whatever is wrong with it.
            ("bind_password = \"pa\\ss\"\na = \"b\"", "bind_password = \"*****\"\na = \"b\""),
            ("bind_password = hunter2", "bind_password = *******"),
            ("\"bind_password\" = \"hunter2", "\"bind_password\" = \"*******"),
            ("bind_password_file = \"a\"", "bind_password_file = \"a\""),
            (
                "users_file = \"a\"\naddresses = [\"users:1\"]",
                "users_file = \"a\"\naddresses = [\"users:1\"]",
            ),
        ] {
            let found = without_secrets(text);
            assert_eq!(found, shown);
            assert_eq!(found.len(), text.len());
        }
    }
}
