//! Responses of backends that break rules which others forgive: rewritten to the strict form, and then read
//! as strictly as any other. Only where the pool says so, and only after the strict reading has failed.
//!
//! Forgiven are: empty lines before the status line, lines that end with LF alone, control characters in
//! field values, and `Content-Length` said more than once with one value.

const VERSION: &[u8] = b"HTTP/1.";
/// Empty lines before a status line that are skipped.
const MAX_EMPTY_LINES: usize = 4;

/// Whether a response may begin so: empty lines, and then a status line as far as it has come.
pub(super) fn may_begin(raw: &[u8]) -> bool {
    let line = raw.iter().position(|b| !matches!(b, b'\r' | b'\n')).map_or(&[][..], |at| &raw[at..]);
    let known = line.len().min(VERSION.len());
    line[..known] == VERSION[..known]
}

/// Writes the head at the front of `raw` in its strict form to `out`; `None` if its end has not come. Returns
/// the length of what was received.
pub(super) fn strict_form(raw: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    out.clear();
    let mut at = 0;
    let mut skipped = 0;
    let mut length: Option<Vec<u8>> = None;
    loop {
        let line_end = at + raw[at..].iter().position(|b| *b == b'\n')?;
        let line = &raw[at..line_end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        at = line_end + 1;
        if line.is_empty() && out.is_empty() && skipped < MAX_EMPTY_LINES {
            skipped += 1;
            continue;
        }
        if line.is_empty() {
            out.extend_from_slice(b"\r\n");
            return Some(at);
        }
        if !out.is_empty()
            && let Some(value) = content_length(line)
        {
            match &length {
                Some(said) if *said == value => continue,
                Some(_) => {}
                None => length = Some(value.clone()),
            }
            out.extend_from_slice(b"Content-Length: ");
            out.extend_from_slice(&value);
        } else {
            write_line(line, out);
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// The value of a `Content-Length` line; one that is listed several times counts once.
fn content_length(line: &[u8]) -> Option<Vec<u8>> {
    let colon = line.iter().position(|b| *b == b':')?;
    if !line[..colon].eq_ignore_ascii_case(b"content-length") {
        return None;
    }
    let value = line[colon + 1..].trim_ascii();
    let first = value.split(|b| *b == b',').next().unwrap_or_default().trim_ascii();
    let equal = value.split(|b| *b == b',').all(|other| other.trim_ascii() == first);
    Some(if equal { first.to_vec() } else { value.to_vec() })
}

/// Control characters in a value become blanks; in a name they stay, to be refused.
fn write_line(line: &[u8], out: &mut Vec<u8>) {
    let value = line.iter().position(|b| *b == b':').map_or(line.len(), |colon| colon + 1);
    out.extend_from_slice(&line[..value]);
    out.extend(line[value..].iter().map(|&b| if (b < b' ' && b != b'\t') || b == 0x7f { b' ' } else { b }));
}

#[cfg(test)]
mod tests {
    use super::strict_form;

    #[test]
    fn strict_forms() {
        // What came, and what it is in strict form; `None`: it is not complete.
        let table: [(&str, Option<&str>); 12] = [
            ("HTTP/1.1 200 OK\r\nA: b\r\n\r\nx", Some("HTTP/1.1 200 OK\r\nA: b\r\n\r\n")),
            ("\r\n\nHTTP/1.1 200 OK\r\n\r\n", Some("HTTP/1.1 200 OK\r\n\r\n")),
            ("HTTP/1.1 200 OK\nA: b\n\nx", Some("HTTP/1.1 200 OK\r\nA: b\r\n\r\n")),
            ("HTTP/1.1 200 OK\r\nA: b\n\r\nx", Some("HTTP/1.1 200 OK\r\nA: b\r\n\r\n")),
            (
                "HTTP/1.1 200 OK\r\nSet-Cookie: a\u{1}b\u{7f}c\td\r\n\r\n",
                Some("HTTP/1.1 200 OK\r\nSet-Cookie: a b c\td\r\n\r\n"),
            ),
            ("HTTP/1.1 200 OK\r\nA\u{1}: b\r\n\r\n", Some("HTTP/1.1 200 OK\r\nA\u{1}: b\r\n\r\n")),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nB: c\r\ncontent-length:2\r\n\r\n",
                Some("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nB: c\r\n\r\n"),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\n",
                Some("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",
                Some("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n"),
            ),
            ("HTTP/1.1 200 OK\nA: b\n", None),
            ("\n\n\n", None),
            ("", None),
        ];
        for (raw, expected) in table {
            let mut out = Vec::new();
            let len = strict_form(raw.as_bytes(), &mut out);
            assert_eq!(len.map(|_| String::from_utf8(out).unwrap()), expected.map(str::to_owned), "{raw:?}");
            assert!(len.is_none_or(|len| raw[len..].is_empty() || raw[len..] == *"x"), "{raw:?}");
        }
    }
}
