//! What a response's head says of its content, and what becomes of that when the content is compressed.

use crate::http::{Fields, HeaderKind, ResponseHead};

/// Fields that speak of the content as it was, and so would be wrong: digests (RFC 9530, RFC 3230, RFC 1864),
/// and that parts of it can be asked for, which would be parts of other bytes.
const OF_THE_CONTENT: &[&[u8]] =
    &[b"Accept-Ranges", b"Content-Digest", b"Repr-Digest", b"Digest", b"Content-MD5"];

/// What is looked for in a head, found in one pass.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Described {
    /// `Vary` names `Accept-Encoding`, or everything.
    pub(super) varies: bool,
    /// There is a `Content-Range`: the content is a part of something.
    pub(super) is_part: bool,
    has_etag: bool,
    has_content_fields: bool,
}

impl Described {
    pub(super) fn by(head: &ResponseHead) -> Self {
        let mut found = Self::default();
        for field in head.fields().iter().filter(|field| field.kind == HeaderKind::Other) {
            match field.name.len() {
                4 if field.name.eq_ignore_ascii_case(b"Vary") => {
                    found.varies |= elements(field.value)
                        .any(|name| name == b"*" || name.eq_ignore_ascii_case(b"Accept-Encoding"));
                }
                4 if field.name.eq_ignore_ascii_case(b"ETag") => found.has_etag = true,
                13 if field.name.eq_ignore_ascii_case(b"Content-Range") => found.is_part = true,
                _ => {
                    found.has_content_fields |=
                        OF_THE_CONTENT.iter().any(|name| field.name.eq_ignore_ascii_case(name));
                }
            }
        }
        found
    }
}

/// The elements of a field that is a list.
fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii)
}

/// The entity tags of a field that is a list of them (RFC 9110 §8.8.3): in their quotes a comma is a
/// character like others.
fn entity_tags(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    value
        .split(move |b| {
            quoted ^= *b == b'"';
            *b == b',' && !quoted
        })
        .map(<[u8]>::trim_ascii)
}

/// Whether a `Cache-Control` field says `no-transform` (RFC 9111 §5.2.1.6, §5.2.2.6).
pub(super) fn forbids_transform(fields: Fields<'_>) -> bool {
    fields.has(HeaderKind::CacheControl)
        && fields
            .iter()
            .filter(|field| field.kind == HeaderKind::CacheControl)
            .flat_map(|field| elements(field.value))
            .any(|directive| directive.eq_ignore_ascii_case(b"no-transform"))
}

/// The content will be compressed: what was said of the other bytes is changed or goes. A strong entity tag
/// becomes weak (RFC 9110 §8.8.3): the representation is another one that means the same.
pub(super) fn describe_compressed(head: &mut ResponseHead, described: &Described) {
    if described.has_content_fields {
        for name in OF_THE_CONTENT {
            head.remove_field(name);
        }
    }
    if described.has_etag && !crate::planted::planted!(150) {
        weaken_etag(head);
    }
}

/// What is no entity tag goes.
fn weaken_etag(head: &mut ResponseHead) {
    let tag = head.fields().named(b"ETag").next().unwrap_or_default();
    if tag.starts_with(b"W/\"") {
        return;
    }
    let weak = tag.starts_with(b"\"").then(|| [b"W/", tag].concat());
    head.remove_field(b"ETag");
    if let Some(weak) = weak {
        // There was room for almost as much just now: without a tag it is cached less well, but not wrongly.
        let _ = head.add_field(b"ETag", &weak);
    }
}

/// A 304 says what the response would say that the client has stored (RFC 9110 §15.4.5). If the client has
/// asked by the weak form of a tag that is strong here, what it has stored was compressed.
pub(super) fn revalidate(head: &mut ResponseHead, described: &Described, request: Fields<'_>) {
    if !described.has_etag {
        return;
    }
    let tag = head.fields().named(b"ETag").next().unwrap_or_default();
    let weak = |known: &[u8]| known.strip_prefix(b"W/").is_some_and(|known| known == tag);
    if !request.named(b"If-None-Match").flat_map(entity_tags).any(weak) {
        return;
    }
    if described.varies || head.add_field(b"Vary", b"Accept-Encoding").is_ok() {
        weaken_etag(head);
    }
}
