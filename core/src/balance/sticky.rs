//! The cookie that names a backend without revealing its address.

use std::sync::Arc;

use super::backend::BackendState;
use crate::config::{SameSite, StickyCookie};

/// Characters of a cookie's value.
const DIGITS: usize = 16;

/// Reads and writes the cookies of one pool. Values are keyed hashes of pool name and backend label: the same
/// in every instance and after every restart, and unlike each other within a pool.
#[derive(Debug)]
pub struct Sticky {
    name: Box<[u8]>,
    /// Each value with its backend, sorted by value.
    values: Box<[(u64, u16)]>,
    /// The whole `Set-Cookie` line of each backend.
    lines: Box<[Box<[u8]>]>,
}

impl Sticky {
    pub(super) fn new(cookie: &StickyCookie, backends: &[Arc<BackendState>]) -> Self {
        let mut by_label: Vec<_> =
            backends.iter().enumerate().map(|(index, backend)| (backend, index as u16)).collect();
        by_label.sort_by_key(|(backend, index)| (backend.label(), *index));
        let mut values: Vec<(u64, u16)> = Vec::with_capacity(by_label.len());
        let mut lines = vec![Box::default(); by_label.len()];
        for (backend, index) in by_label {
            let mut value = backend.stable_hash().rotate_left(32) ^ 0x7374_6963_6b79_2121;
            let place = loop {
                match values.binary_search_by_key(&value, |&(value, _)| value) {
                    Ok(_) => value = value.wrapping_add(1),
                    Err(place) => break place,
                }
            };
            values.insert(place, (value, index));
            lines[usize::from(index)] = line(cookie, value);
        }
        Self { name: cookie.cookie_name.as_bytes().into(), values: values.into(), lines: lines.into() }
    }

    /// The backend that the value of a `Cookie` field names (RFC 6265 §4.2.1): that of the first cookie with
    /// this name whose value is one of this pool's.
    #[must_use]
    pub fn find(&self, field_value: &[u8]) -> Option<u16> {
        field_value.split(|&byte| byte == b';').find_map(|pair| {
            let equals = memchr::memchr(b'=', pair)?;
            let (name, value) = (pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii());
            if name != &*self.name {
                return None;
            }
            let quoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
            let value = parse(quoted.unwrap_or(value))?;
            let place = self.values.binary_search_by_key(&value, |&(value, _)| value).ok()?;
            Some(self.values[place].1)
        })
    }

    /// The whole `Set-Cookie` line for a backend, its end included; empty if there is no such backend.
    #[must_use]
    pub fn set_cookie(&self, backend: u16) -> &[u8] {
        self.lines.get(usize::from(backend)).map_or(&[], |line| line)
    }
}

fn line(cookie: &StickyCookie, value: u64) -> Box<[u8]> {
    let same_site = match cookie.same_site {
        SameSite::Strict => "Strict",
        SameSite::Lax => "Lax",
        SameSite::None => "None",
    };
    let http_only = if cookie.http_only { "; HttpOnly" } else { "" };
    let secure = if cookie.secure { "; Secure" } else { "" };
    let line = format!(
        "Set-Cookie: {}={value:0DIGITS$x}; Path=/{http_only}{secure}; SameSite={same_site}\r\n",
        cookie.cookie_name
    );
    line.into_bytes().into()
}

/// A cookie's value: exactly sixteen lower-case hexadecimal digits.
fn parse(value: &[u8]) -> Option<u64> {
    let digits: &[u8; DIGITS] = value.try_into().ok()?;
    digits.iter().try_fold(0, |number: u64, &digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(digit))
    })
}
