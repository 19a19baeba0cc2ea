//! Our head parser against the same rules written a second time.

use ruststrom_core::h1::{
    FieldIndex, HeadLimits, ResponseContext, find_request_end, find_response_end, parse_request,
    parse_response,
};

use ruststrom_core::http::Version;

use super::input::Input;
use super::naive;

pub(super) fn limits(choice: u8) -> HeadLimits {
    match choice & 3 {
        0 => HeadLimits { head_bytes: 16_384, fields: 100, target_bytes: 8192 },
        1 => HeadLimits { head_bytes: 1024, fields: 8, target_bytes: 64 },
        _ => HeadLimits { head_bytes: 4096, fields: 256, target_bytes: 512 },
    }
}

pub(super) fn asked(choice: u8) -> ResponseContext {
    ResponseContext { head: choice & 8 != 0, upgrade: choice & 16 != 0 }
}

pub(super) fn run(data: &[u8]) {
    let mut input = Input(data);
    let choice = input.byte();
    let limits = limits(choice);
    if choice & 4 == 0 {
        requests(input.0, &limits);
    } else {
        responses(input.0, &limits, asked(choice));
    }
}

/// 10 or 11, as the naive parser has it.
fn version_number(version: Version) -> u8 {
    if version == Version::HTTP_11 { 11 } else { 10 }
}

fn requests(bytes: &[u8], limits: &HeadLimits) {
    let found = find_request_end(bytes, 0);
    let expected = naive::end(bytes);
    if let Ok(found) = found {
        assert_eq!(found, expected, "where the head ends");
    }
    let head = &bytes[..expected.unwrap_or(bytes.len())];
    let expected = naive::request(head, limits);
    let (mut store, mut scratch) = (FieldIndex::new(), Vec::new());
    match (parse_request(head, &mut store, limits, &mut scratch), expected) {
        (Ok(ours), Some(theirs)) => {
            assert!(found.is_ok(), "no end was found, yet the head is good");
            let fields = ours.fields.iter().map(|f| (f.name.to_vec(), f.value.to_vec())).collect();
            let ours = naive::Request {
                method: ours.method.as_str().into(),
                path: ours.target.path.to_vec(),
                query: ours.target.query.map(<[u8]>::to_vec),
                host: ours.host.to_vec(),
                version: version_number(ours.version),
                fields,
                framing: ours.framing,
                keep_alive: ours.keep_alive,
                expect: ours.expect_continue,
                upgrade: ours.upgrade.map(<[u8]>::to_vec),
            };
            assert_eq!(ours, theirs);
        }
        (Err(_), None) => {}
        (Ok(ours), None) => panic!("accepted against the rules: {ours:?}"),
        (Err(why), Some(theirs)) => panic!("{why:?} although {theirs:?}"),
    }
}

fn responses(bytes: &[u8], limits: &HeadLimits, asked: ResponseContext) {
    let found = find_response_end(bytes, 0);
    let expected = if bytes.starts_with(b"HTTP/1.") { naive::end(bytes) } else { None };
    if let Ok(found) = found {
        assert_eq!(found, expected, "where the head ends");
    }
    let head = &bytes[..expected.unwrap_or(bytes.len())];
    let expected = naive::response(head, limits, asked);
    let mut store = FieldIndex::new();
    match (parse_response(head, &mut store, limits, asked), expected) {
        (Ok(ours), Some(theirs)) => {
            let fields = ours.fields.iter().map(|f| (f.name.to_vec(), f.value.to_vec())).collect();
            let ours = naive::Response {
                status: ours.status.as_u16(),
                reason: ours.reason.to_vec(),
                version: version_number(ours.version),
                fields,
                framing: ours.framing,
                keep_alive: ours.keep_alive,
                upgrade: ours.upgrade.map(<[u8]>::to_vec),
            };
            assert_eq!(ours, theirs);
        }
        (Err(_), None) => {}
        (Ok(ours), None) => panic!("accepted against the rules: {ours:?}"),
        (Err(why), Some(theirs)) => panic!("{why:?} although {theirs:?}"),
    }
}
