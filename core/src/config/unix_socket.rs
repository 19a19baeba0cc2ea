//! The address of a Unix socket: `unix:/run/app.sock`.

use super::address::AddressError;
use super::diagnostic::clip;
use super::suggest;

/// Longest path in bytes: what a `sockaddr_un` has room for with a NUL behind it (unix(7)).
const MAX_PATH_BYTES: usize = 107;

/// The path in an address of a Unix socket, or in what was probably meant as one. `None`: it is another kind
/// of address.
pub(super) fn path(text: &str) -> Option<Result<&str, AddressError>> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Some(check(path).map(|()| path));
    }
    let error = |reason: &str, path: &str| Some(Err(AddressError::new(reason).or(format!("unix:{path}"))));
    let bare = text.trim_start();
    if bare.starts_with('/') {
        let error = AddressError::new("a path alone is no address");
        return Some(Err(error.or_if(format!("unix:{}", bare.trim_end()), "for a Unix socket")));
    }
    let (scheme, rest) = bare.split_once("://").unwrap_or(("", bare));
    // As of nginx, HAProxy and Caddy.
    let (word, path) = rest.split_at_checked("unix".len())?;
    match path.strip_prefix([':', '@']).or(path.strip_prefix('/').filter(|path| path.starts_with('/'))) {
        _ if !word.eq_ignore_ascii_case("unix") => None,
        None => None,
        Some(path) if !scheme.is_empty() => error("a Unix socket has no scheme, it speaks plain HTTP", path),
        Some(path) if bare != text => error("there are blanks around it", path),
        Some(path) => error("a Unix socket begins with `unix:`", path),
    }
}

/// A path without what does not tell files apart, `//` and `/./`: equal for equal files, unless there are
/// links.
pub(super) fn identity(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    format!("unix:/{}", parts.join("/"))
}

fn check(path: &str) -> Result<(), AddressError> {
    let error = |reason: &str, meant: &str| Err(AddressError::new(reason).or(format!("unix:{meant}")));
    if suggest::is_variable(path) {
        return Err(AddressError::variables());
    }
    if path.trim() != path {
        return error("there are blanks around it", path.trim());
    }
    if path.trim_matches('/').is_empty() {
        return Err(AddressError::new("the path of the socket is missing"));
    }
    if path.starts_with(['@', '\0']) {
        return Err(AddressError::new("abstract sockets, which have no path, are not supported")
            .with_help("let the backend listen on a path"));
    }
    if path.contains(char::is_control) {
        return Err(AddressError::new("a control character can't be part of the path"));
    }
    if let Some((before, rest)) = path.split_once(char::is_whitespace) {
        return match rest.contains('=') || rest.trim() == "backup" {
            true => error(
                "settings of a backend are keys of a table like { address = \"unix:/a\", weight = 2 }",
                before,
            ),
            false => Err(AddressError::new("the path of a socket has no blanks here")),
        };
    }
    // `unix:/run/app.sock:/path` of nginx, `unix:/run/app.sock|http://localhost` of Apache.
    if let Some(end) = path.find('|').or(path.find(":/")).or(path.len().checked_sub(1))
        && path[end..].starts_with(['|', ':'])
    {
        return error("nothing follows the path of a socket", &path[..end]);
    }
    if path.ends_with('/') {
        return error("a socket is no folder", path.trim_end_matches('/'));
    }
    if path.starts_with("//") {
        return error("its path begins with one `/`", &format!("/{}", path.trim_start_matches('/')));
    }
    if !path.starts_with('/') {
        let error = AddressError::new(format!("its path \"{}\" does not begin at `/`", clip(path)));
        return Err(match path.contains('/') {
            _ if path.starts_with('.') => {
                error.with_help("a path that depends on a folder is not taken: it begins at `/`")
            }
            true => error.or(format!("unix:/{path}")),
            false => error.or_if(format!("unix:/run/{path}"), "if it is in /run"),
        });
    }
    if path.len() > MAX_PATH_BYTES {
        let reason = format!("its path has {} bytes, and a socket's at most {MAX_PATH_BYTES}", path.len());
        return Err(AddressError::new(reason).with_help("a symbolic link to its folder makes it shorter"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let longest = format!("unix:/{}", "a".repeat(106));
        for text in ["unix:/run/app.sock", "unix:/a", "unix:/run/a:b.sock", "unix:/tmp/jörg", &longest] {
            assert_eq!(path(text), Some(Ok(&text[5..])), "{text}");
        }
        for text in ["app:80", "127.0.0.1:80", "unix", "unixhost:80", "http://app:80", "äunix:/a", ""] {
            assert_eq!(path(text), None, "{text}");
        }
        let too_long = format!("unix:/{}", "a".repeat(107));
        let bad: &[(&str, &str, &[&str])] = &[
            ("unix:", "the path of the socket is missing", &[]),
            ("unix:/", "the path of the socket is missing", &[]),
            ("unix://", "the path of the socket is missing", &[]),
            ("unix:///run/a", "its path begins with one `/`", &["unix:/run/a"]),
            ("unix://run/a", "its path begins with one `/`", &["unix:/run/a"]),
            ("unix:run/a", "its path \"run/a\" does not begin at `/`", &["unix:/run/a"]),
            ("unix:a.sock", "its path \"a.sock\" does not begin at `/`", &["unix:/run/a.sock"]),
            ("unix:./a.sock", "its path \"./a.sock\" does not begin at `/`", &[]),
            ("unix:/run/", "a socket is no folder", &["unix:/run"]),
            ("unix:@app", "abstract sockets, which have no path, are not supported", &[]),
            ("unix:\0app", "abstract sockets, which have no path, are not supported", &[]),
            ("unix:/run/\0app", "a control character can't be part of the path", &[]),
            ("unix:/run/a\u{7f}", "a control character can't be part of the path", &[]),
            ("unix:/run/a b", "the path of a socket has no blanks here", &[]),
            (
                "unix:/run/a weight=2",
                "settings of a backend are keys of a table like { address = \"unix:/a\", weight = 2 }",
                &["unix:/run/a"],
            ),
            (" unix:/run/a", "there are blanks around it", &["unix:/run/a"]),
            ("unix: /run/a ", "there are blanks around it", &["unix:/run/a"]),
            ("unix:/run/a:", "nothing follows the path of a socket", &["unix:/run/a"]),
            ("unix:/run/a:/x", "nothing follows the path of a socket", &["unix:/run/a"]),
            ("unix:/run/a|http://localhost", "nothing follows the path of a socket", &["unix:/run/a"]),
            ("http://unix:/run/a:/", "a Unix socket has no scheme, it speaks plain HTTP", &["unix:/run/a"]),
            ("https://unix:/run/a", "a Unix socket has no scheme, it speaks plain HTTP", &["unix:/run/a"]),
            ("UNIX:/run/a", "a Unix socket begins with `unix:`", &["unix:/run/a"]),
            ("unix@/run/a", "a Unix socket begins with `unix:`", &["unix:/run/a"]),
            ("unix//run/a", "a Unix socket begins with `unix:`", &["unix:/run/a"]),
            ("/run/a", "a path alone is no address", &["unix:/run/a"]),
            ("unix:$SOCKET", "variables are not written so", &[]),
            (&too_long, "its path has 108 bytes, and a socket's at most 107", &[]),
        ];
        let error_of = |text: &str| path(text).and_then(Result::err);
        for (text, reason, suggested) in bad {
            let error = error_of(text).expect(text);
            assert_eq!(error.reason, *reason, "{text}");
            let error = error.settle(&|text| error_of(text));
            let found: Vec<&str> = error.suggested().collect();
            assert_eq!(found, *suggested, "{text}");
            assert!(found.iter().all(|text| matches!(path(text), Some(Ok(_)))), "{text}");
        }
    }

    #[test]
    fn identities() {
        for same in ["/run/a", "/run//a", "/run/./a", "/./run/a"] {
            assert_eq!(identity(same), "unix:/run/a", "{same}");
        }
        assert_ne!(identity("/run/a"), identity("/run/b"));
    }
}
