//! Heads at any cut, by both ways of reading them; and what is forwarded is a good head again, with the same
//! meaning.

use ruststrom_core::h1::{
    FieldIndex, ForwardedHeaders, HeadLimits, RequestForward, ResponseForward, Writer, client_framing,
    find_request_end, find_response_end, forward_request, forward_response, parse_request,
    parse_request_prefix, parse_response, parse_response_prefix,
};
use ruststrom_core::http::ip::IpText;
use ruststrom_core::http::{Framing, Method, Version, Violation};

use super::differential::{asked, limits};
use super::input::{Input, cuts};
use super::naive;

pub(super) fn run(data: &[u8]) {
    let mut input = Input(data);
    let (choice, seed) = (input.byte(), input.byte());
    let bytes = input.0;
    let is_request = choice & 4 == 0;
    let find = if is_request { find_request_end } else { find_response_end };
    let whole = find(bytes, 0);
    let pieces = piecewise(bytes, &cuts(seed, bytes.len()), find);
    match (&pieces, &whole) {
        // What was wrong early is wrong with all that follows too, though perhaps only once the head is read.
        (Err(_), Err(_)) | (Err(_), Ok(Some(_))) => {}
        _ => assert_eq!(pieces, whole, "cut and whole"),
    }
    let end = match whole {
        Ok(Some(end)) => end,
        _ => bytes.len(),
    };
    if is_request {
        requests(bytes, end, whole, pieces.is_err(), &limits(choice));
    } else {
        responses(bytes, end, whole, pieces.is_err(), choice);
    }
}

type Find = fn(&[u8], usize) -> Result<Option<usize>, Violation>;

fn piecewise(bytes: &[u8], cuts: &[usize], find: Find) -> Result<Option<usize>, Violation> {
    let mut from = 0;
    for &cut in cuts {
        if let Some(end) = find(&bytes[..cut], from)? {
            return Ok(Some(end));
        }
        from = cut;
    }
    find(bytes, from)
}

fn requests(
    bytes: &[u8],
    end: usize,
    whole: Result<Option<usize>, Violation>,
    early: bool,
    limits: &HeadLimits,
) {
    let (mut store, mut scratch) = (FieldIndex::new(), Vec::new());
    let (mut store_before, mut scratch_before) = (FieldIndex::new(), Vec::new());
    let slow = parse_request(&bytes[..end], &mut store, limits, &mut scratch);
    let fast = parse_request_prefix(bytes, &mut store_before, limits, &mut scratch_before);
    match (&slow, &fast) {
        (Ok(slow), Ok(Some((fast, n)))) => {
            assert_eq!((*n, whole), (end, Ok(Some(end))));
            assert!(!early, "a good head whose beginning was refused");
            assert_eq!(format!("{slow:?}"), format!("{fast:?}"));
        }
        (Ok(slow), _) => panic!("only the slow way reads {slow:?}"),
        (Err(why), Ok(Some((fast, _)))) => panic!("{why:?}, but the fast way reads {fast:?}"),
        (Err(_), Ok(None)) => assert!(!matches!(whole, Ok(Some(_))), "a whole head is waited for"),
        (Err(_), Err(_)) => {}
    }
    let Ok(request) = slow else { return };
    let mut room = vec![0; 2 * bytes.len() + 2048];
    let mut w = Writer::new(&mut room);
    let peer = IpText::new([192, 0, 2, 7].into());
    let forward = RequestForward {
        peer: &peer,
        client: &peer,
        client_certificate: None,
        via: true,
        forwarded_headers: &ForwardedHeaders::new("http", 80, "lb"),
        request_id: b"0123456789abcdef0000000000000001",
        trusted: false,
        keep_expect: false,
        own_body: None,
        default_host: b"backend",
    };
    forward_request(&mut w, &(&request).into(), &forward);
    let n = w.finish().expect("room enough");
    let wide = HeadLimits { head_bytes: usize::MAX, fields: 1000, target_bytes: usize::MAX };
    let sent = naive::request(&room[..n], &wide)
        .unwrap_or_else(|| panic!("forwarded: {}", room[..n].escape_ascii()));
    let has_no_host = request.host.is_empty();
    let (host, version) = (if has_no_host { b"backend" } else { request.host }, 11);
    assert_eq!(
        (&sent.method[..], &sent.path[..], sent.query.as_deref()),
        (request.method.as_str().as_bytes(), request.target.path, request.target.query)
    );
    assert_eq!((&sent.host[..], sent.version), (host, version));
    assert_eq!(
        sent.framing.is_empty(),
        request.framing.is_empty(),
        "{:?} and {:?}",
        sent.framing,
        request.framing
    );
    assert!(request.framing.is_empty() || sent.framing == request.framing);
    // The client's fields arrive as they were and in their order; those that the proxy sets are there once.
    let chunked = sent.framing == Framing::Chunked;
    let counted = matches!(request.method, Method::OPTIONS | Method::TRACE);
    let not_counted =
        |(name, _): &(Vec<u8>, Vec<u8>)| !(counted && name.eq_ignore_ascii_case(b"max-forwards"));
    let said: Vec<_> = request.fields.iter().map(|f| (f.name.to_vec(), f.value.to_vec())).collect();
    let mut expected = naive::passing(&said, true, chunked);
    expected.retain(not_counted);
    let mut arrived = naive::passing(&sent.fields, true, chunked);
    arrived.retain(not_counted);
    let via = arrived.pop().expect("a Via");
    assert!(
        via.0 == b"Via"
            && via.1.starts_with(if request.version == Version::HTTP_10 { b"1.0 " } else { b"1.1 " }),
        "{via:?}"
    );
    assert_eq!(arrived, expected);
    let ours: [(&[u8], &[u8]); 4] = [
        (b"x-forwarded-for", b"192.0.2.7"),
        (b"x-real-ip", b"192.0.2.7"),
        (b"x-forwarded-host", host),
        (b"x-request-id", forward.request_id),
    ];
    for (name, value) in ours {
        let said: Vec<_> =
            sent.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| &v[..]).collect();
        assert_eq!(said, [value], "{}", name.escape_ascii());
    }
}

fn responses(bytes: &[u8], end: usize, whole: Result<Option<usize>, Violation>, early: bool, choice: u8) {
    let (limits, asked) = (limits(choice), asked(choice));
    let (mut store, mut store_before) = (FieldIndex::new(), FieldIndex::new());
    let slow = parse_response(&bytes[..end], &mut store, &limits, asked);
    let fast = parse_response_prefix(bytes, &mut store_before, &limits, asked);
    match (&slow, &fast) {
        (Ok(slow), Ok(Some((fast, n)))) => {
            assert_eq!((*n, whole), (end, Ok(Some(end))));
            assert!(!early, "a good head whose beginning was refused");
            assert_eq!(format!("{slow:?}"), format!("{fast:?}"));
        }
        (Ok(slow), _) => panic!("only the slow way reads {slow:?}"),
        (Err(why), Ok(Some((fast, _)))) => panic!("{why:?}, but the fast way reads {fast:?}"),
        (Err(_), Ok(None)) => assert!(!matches!(whole, Ok(Some(_))), "a whole head is waited for"),
        (Err(_), Err(_)) => {}
    }
    let Ok(response) = slow else { return };
    if response.status.is_informational() {
        return;
    }
    let client_version = if choice & 32 == 0 { Version::HTTP_11 } else { Version::HTTP_10 };
    let framing = client_framing(response.framing, client_version);
    let mut room = vec![0; 2 * bytes.len() + 2048];
    let mut w = Writer::new(&mut room);
    let date = b"Sun, 06 Nov 1994 08:49:37 GMT";
    forward_response(
        &mut w,
        &(&response).into(),
        &ResponseForward { date, client_version, framing, keep_alive: choice & 64 == 0, extra: b"" },
    );
    let n = w.finish().expect("room enough");
    let wide = HeadLimits { head_bytes: usize::MAX, fields: 1000, target_bytes: usize::MAX };
    let sent = naive::response(&room[..n], &wide, asked)
        .unwrap_or_else(|| panic!("forwarded: {}", room[..n].escape_ascii()));
    assert_eq!(sent.status, response.status.as_u16());
    let bodiless = asked.head || matches!(response.status.as_u16(), 204 | 304);
    if !bodiless {
        let same = sent.framing == framing || framing == Framing::None && sent.framing == Framing::Length(0);
        assert!(same, "{:?} goes out as {:?}", framing, sent.framing);
    }
    assert!(
        sent.fields.iter().any(|(name, _)| name.eq_ignore_ascii_case(b"date")),
        "a response without a date"
    );
    let said: Vec<_> = response.fields.iter().map(|f| (f.name.to_vec(), f.value.to_vec())).collect();
    let [expected, arrived] = [&said, &sent.fields].map(|fields| {
        let mut passing = naive::passing(fields, false, framing == Framing::Chunked);
        passing.retain(|(name, _)| !name.eq_ignore_ascii_case(b"date"));
        passing
    });
    assert_eq!(arrived, expected);
}
