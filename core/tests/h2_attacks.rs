//! Attacks on HTTP/2 (`ANCHORS`): each ends the connection after a bounded number of frames, or costs it no
//! more than a bounded amount of memory; whoever does the same now and then goes on.

use std::time::Duration;

use ruststrom_core::Instant;
use ruststrom_core::h2::frame::{FrameHeader, PREFACE, flag, kind};
use ruststrom_core::h2::{Conn, Event, Limits, Reason, Received, Role, write};

/// A server with a client that has greeted it.
struct Server {
    conn: Conn,
    received: Received,
    now: Instant,
    events: Vec<Event>,
    /// The client reads nothing.
    deaf: bool,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader { len: payload.len() as u32, kind, flags, stream };
    [&header.bytes(), payload].concat()
}

fn get(stream: u32, end: bool) -> Vec<u8> {
    let flags = flag::END_HEADERS | if end { flag::END_STREAM } else { 0 };
    frame(kind::HEADERS, flags, stream, b"\x82\x84\x86\x01\x06a.test")
}

impl Server {
    fn new() -> Self {
        let now = Instant::ZERO;
        let conn = Conn::new(Role::Server, Limits::default(), now);
        let mut server = Self { conn, received: Received::default(), now, events: vec![], deaf: false };
        server.feed(
            &[&PREFACE[..], &frame(kind::SETTINGS, 0, 0, b""), &frame(kind::SETTINGS, 1, 0, b"")].concat(),
        );
        server
    }

    /// Feeds bytes; false if the server does not want them all.
    fn feed(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let room = self.conn.recv_buf();
            let n = room.len().min(bytes.len());
            if n == 0 {
                return false;
            }
            room[..n].copy_from_slice(&bytes[..n]);
            self.conn.handle_recv(n);
            bytes = &bytes[n..];
            while let Some(event) = self.conn.poll_event(&mut self.received, self.now) {
                if let Event::Data { stream } = event {
                    let len = self.conn.data().len() as u32;
                    self.conn.release(stream, len);
                }
                self.events.push(event);
            }
            self.conn.check();
            if !self.deaf {
                self.conn.handle_sent(self.conn.transmit().len());
            }
        }
        true
    }

    fn broken(&self) -> Option<Reason> {
        self.events.iter().find_map(|event| match event {
            Event::Broken(reason) => Some(*reason),
            _ => None,
        })
    }
}

/// A stream whose data may not be handed out yet holds up no other, whichever was released first.
#[test]
fn held_data_of_one_stream_does_not_wait_for_another() {
    for order in [[1, 3], [3, 1]] {
        let (mut conn, mut received) =
            (Conn::new(Role::Server, Limits::default(), Instant::ZERO), Received::default());
        let mut bytes = [&PREFACE[..], &frame(kind::SETTINGS, 0, 0, b"")].concat();
        for stream in [1, 3] {
            // Its settings are not known yet: more comes than is handed out at once.
            let data = frame(kind::DATA, 0, stream, &[b'x'; 10_000]);
            bytes.extend([get(stream, false), data.clone(), data].concat());
        }
        for part in bytes.chunks(4096) {
            conn.recv_buf()[..part.len()].copy_from_slice(part);
            conn.handle_recv(part.len());
            while conn.poll_event(&mut received, Instant::ZERO).is_some() {}
        }
        for stream in order {
            conn.release(stream, if stream == 1 { 5_000 } else { 0 });
        }
        assert_eq!(conn.poll_event(&mut received, Instant::ZERO), Some(Event::Data { stream: 1 }));
        assert_eq!(conn.data().len(), 3_616);
        assert_eq!(conn.poll_event(&mut received, Instant::ZERO), None);
    }
}

/// How many steps a client comes through at full speed, up to a hundred thousand, and at so many in a second.
fn steps(per_second: u32, mut step: impl FnMut(u32) -> Vec<u8>) -> (u32, u32) {
    let mut counted = [0, 0];
    for (slowly, count) in counted.iter_mut().enumerate() {
        let mut server = Server::new();
        while *count < 100_000 && server.broken().is_none() {
            if slowly == 1 {
                server.now = server.now + Duration::from_secs(1) / per_second;
                if *count == 5_000 {
                    break;
                }
            }
            server.feed(&step(*count));
            *count += 1;
        }
        if slowly == 0 {
            assert_eq!(server.broken(), Some(Reason::ENHANCE_YOUR_CALM));
        }
        assert!(server.conn.open_streams() <= 100);
    }
    (counted[0], counted[1])
}

/// Ends after `most` steps at the latest, and never at `per_second`.
fn flood(what: &str, most: u32, per_second: u32, step: impl FnMut(u32) -> Vec<u8>) {
    let (fast, slow) = steps(per_second, step);
    assert!(fast <= most, "{what}: {fast} steps");
    assert_eq!(slow, 5_000, "{what}: {per_second} in a second are no attack");
}

#[test]
fn floods_end_the_connection() {
    let reset = |stream| frame(kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes());
    // CVE-2023-44487.
    flood("rapid reset", 250, 40, |n| [get(2 * n + 1, true), reset(2 * n + 1)].concat());
    // CVE-2025-8671: frames that make us reset, by a window update of nothing or one that is too large, DATA
    // behind the end, a priority on itself, a length that is wrong.
    let windows = |n: u32, increment: u32| {
        let update = frame(kind::WINDOW_UPDATE, 0, 2 * n + 1, &increment.to_be_bytes());
        [get(2 * n + 1, true), update].concat()
    };
    flood("made you reset: no window", 150, 15, |n| windows(n, 0));
    flood("made you reset: large window", 150, 15, |n| windows(n, u32::MAX >> 1));
    flood("made you reset: data", 150, 15, |n| {
        [get(2 * n + 1, true), frame(kind::DATA, 0, 2 * n + 1, b"x")].concat()
    });
    let on_itself = |stream: u32| [&stream.to_be_bytes()[..], &[16]].concat();
    flood("made you reset: priority", 150, 15, |n| {
        [get(2 * n + 1, true), frame(kind::PRIORITY, 0, 2 * n + 1, &on_itself(2 * n + 1))].concat()
    });
    flood("malformed requests", 150, 15, |n| frame(kind::HEADERS, 5, 2 * n + 1, b"\x82"));
    flood("pings", 1_050, 90, |_| frame(kind::PING, 0, 0, b"12345678"));
    for payload in [b"12345678", b"draining", b"are you?"] {
        flood("answers to no ping", 550, 40, |_| frame(kind::PING, flag::ACK, 0, payload));
    }
    flood("settings", 60, 4, |_| frame(kind::SETTINGS, 0, 0, b""));
    flood("empty data", 250, 150, |n| {
        if n == 0 {
            [get(1, false), frame(kind::DATA, 0, 1, b"")].concat()
        } else {
            frame(kind::DATA, 0, 1, b"")
        }
    });
    flood("padding alone", 250, 150, |n| {
        let data = frame(kind::DATA, flag::PADDED, 1, &[&[99][..], &[0; 99]].concat());
        if n == 0 { [get(1, false), data].concat() } else { data }
    });
    flood("small data", 20_100, 10_000, |n| {
        let data = frame(kind::DATA, 0, 1, b"x");
        if n == 0 { [get(1, false), data].concat() } else { data }
    });
    flood("window updates", 2_050, 900, |_| frame(kind::WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()));
    flood("priorities", 550, 40, |_| frame(kind::PRIORITY, 0, 5, b"\0\0\0\0\x10"));
    flood("priority updates", 550, 40, |_| frame(kind::PRIORITY_UPDATE, 0, 0, b"\0\0\0\x05u=1"));
    flood("unknown frames", 550, 40, |_| frame(0xfa, 0, 0, b"whatever"));
    flood("frames of closed streams", 550, 40, |n| {
        let one = if n == 0 { [get(1, true), reset(1)].concat() } else { vec![] };
        [one, reset(1)].concat()
    });
}

// CVE-2024-27316 and others: CONTINUATION without an end.
#[test]
fn a_field_block_without_end() {
    for part in [0, 1, 100, 16_384] {
        let mut server = Server::new();
        server.feed(&frame(kind::HEADERS, flag::END_STREAM, 1, b"\x82\x84\x86"));
        let mut parts = 0;
        while server.broken().is_none() {
            // Literals of a field that nobody needs.
            let mut block = vec![0; part];
            if part > 100 {
                block[..8].copy_from_slice(b"\0\x01a\x7f\x81\x7f\0\0");
            }
            server.feed(&frame(kind::CONTINUATION, 0, 1, &block));
            parts += 1;
        }
        assert_eq!(server.broken(), Some(Reason::ENHANCE_YOUR_CALM));
        assert!(parts <= 32 && server.events.len() == 1, "{part}: {parts} parts");
    }
}

// A block of 16 KiB that stands for 64 MiB: it is rejected, or ends the connection, and nothing of it is
// kept.
#[test]
fn header_bombs() {
    let bomb = |repeats: usize| {
        let mut block = b"\x82\x84\x86\x01\x06a.test\x40\x01a\x7f\xa0\x1e".to_vec();
        block.extend(vec![b'x'; 127 + 0xf20]);
        block.extend(vec![0xbe; repeats]);
        block
    };
    let mut server = Server::new();
    server.feed(&frame(kind::HEADERS, 5, 1, &bomb(50)));
    assert!(matches!(server.events[..], [Event::Rejected { stream: 1, .. }]), "{:?}", server.events);
    server.feed(&get(3, true));
    assert!(matches!(server.events[1..], [Event::Request { stream: 3, .. }]), "the connection goes on");
    server.feed(&frame(kind::HEADERS, 5, 5, &bomb(12_000)));
    assert_eq!(server.broken(), Some(Reason::ENHANCE_YOUR_CALM));
    // Crumbs of a cookie, one byte each, count as fields.
    let mut server = Server::new();
    let crumbs = [&b"\x82\x84\x86\x01\x06a.test\x60\x01a"[..], &[0xbe; 200]].concat();
    server.feed(&frame(kind::HEADERS, 5, 1, &crumbs));
    assert!(matches!(server.events[..], [Event::Rejected { stream: 1, .. }]), "{:?}", server.events);
}

// A client that reads nothing makes us answer: what waits to be sent is bounded, because nothing more is
// read.
#[test]
fn a_deaf_client_is_not_listened_to() {
    let mut server = Server::new();
    server.deaf = true;
    let (mut fed, ping) = (0, frame(kind::PING, 0, 0, b"12345678"));
    while fed < 1_000_000 && server.broken().is_none() {
        // As slowly as is allowed.
        server.now = server.now + Duration::from_millis(10);
        if !server.feed(&ping) {
            break;
        }
        fed += 1;
    }
    assert!(fed < 10_000 && server.broken().is_none(), "{fed} pings were read");
    assert!(server.conn.transmit().len() < 100_000 && !server.conn.has_room());
    server.conn.handle_sent(server.conn.transmit().len());
    assert!(server.conn.has_room(), "it is listened to again");
    // Data, too, waits with its source.
    server.deaf = false;
    server.feed(&[frame(kind::WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes()), get(1, true)].concat());
    server.feed(&frame(kind::WINDOW_UPDATE, 0, 1, &(1_u32 << 30).to_be_bytes()));
    server.conn.send_head(1, false, false, |w| {
        w.field(b":status", b"200", ruststrom_core::http::HeaderKind::Other, false)
    });
    let taken: usize = (0..1_000).map(|_| server.conn.send_data(1, &[0; 50_000])).sum();
    assert!((60_000..70_000).contains(&taken), "{taken} bytes wait to be sent");
    assert!(!server.conn.can_send(1));
}

// Windows of a byte, given byte by byte: each lets one byte go, and the drip ends the connection.
#[test]
fn a_window_that_drips() {
    let mut server = Server::new();
    let mut settings = Vec::new();
    write::settings(&mut settings, &[(4, 0)]);
    server.feed(&[settings, get(1, true)].concat());
    server.conn.send_head(1, false, false, |w| {
        w.field(b":status", b"200", ruststrom_core::http::HeaderKind::Other, false)
    });
    let mut sent = 0;
    while server.broken().is_none() && sent < 100_000 {
        // Nothing is taken: the window is not used.
        server.feed(&frame(kind::WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes()));
        sent += 1;
    }
    assert!(sent < 2_100, "{sent} updates");
}

// More streams than are allowed, and requests on all of them at once.
#[test]
fn streams_are_bounded() {
    let mut server = Server::new();
    for n in 0..150 {
        server.feed(&get(2 * n + 1, true));
    }
    let requests = server.events.iter().filter(|event| matches!(event, Event::Request { .. })).count();
    assert_eq!((requests, server.conn.open_streams(), server.broken()), (100, 100, None));
    for n in 150..300 {
        server.feed(&get(2 * n + 1, true));
    }
    assert_eq!(server.broken(), Some(Reason::ENHANCE_YOUR_CALM), "that is no mistake any more");
}

/// A stream that is reset in the middle of a DATA frame gives back all of it, whenever the rest comes.
#[test]
fn credit_comes_back_when_a_stream_is_reset_in_the_middle_of_a_frame() {
    let mut server = Server::new();
    for n in 0..300 {
        let stream = 2 * n + 1;
        assert!(server.feed(&get(stream, false)));
        let data = frame(kind::DATA, 0, stream, &[b'x'; 16_384]);
        let (before, behind) = data.split_at(5_000);
        assert!(server.feed(before));
        server.conn.reset(stream, Reason::NO_ERROR);
        assert!(server.feed(behind));
        assert_eq!((server.broken(), server.conn.open_streams()), (None, 0), "stream {stream}");
    }
}

/// What a backend sends before it knows that streams were reset harms no other stream, however much it is and
/// however many streams have ended meanwhile: else whoever cancels requests would end those of others.
#[test]
fn what_crosses_our_resets_harms_no_other_stream() {
    let mut client = Server::new();
    client.conn = Conn::new(Role::Client, Limits::default(), client.now);
    let greeting = frame(kind::SETTINGS, 0, 0, &[&[0, 3][..], &1_000_u32.to_be_bytes()].concat());
    client.feed(&[greeting, frame(kind::SETTINGS, 1, 0, b"")].concat());
    let open = |client: &mut Server| {
        let stream = client.conn.open().expect("a stream");
        assert!(client.conn.send_head(stream, true, false, |w| w.pseudo(b":method", b"GET")));
        stream
    };
    let kept = open(&mut client);
    for _ in 0..20 {
        let streams: Vec<u32> = (0..99).map(|_| open(&mut client)).collect();
        for stream in &streams {
            client.conn.reset(*stream, Reason::CANCEL);
        }
        for stream in streams {
            client.feed(&frame(kind::HEADERS, flag::END_HEADERS, stream, b"\x88"));
            for _ in 0..40 {
                client.feed(&frame(kind::DATA, 0, stream, &[b'x'; 400]));
            }
            client.feed(&frame(kind::DATA, flag::END_STREAM, stream, b"x"));
            // Servers of gRPC send a status behind a reset of their own.
            client.feed(&frame(kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
            client.feed(&frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, stream, b"\x88"));
        }
        assert_eq!(client.broken(), None);
    }
    client.feed(&frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, kept, b"\x88"));
    assert!(matches!(client.events[..], [Event::Response { stream: 1, ended: true }]), "{:?}", client.events);
}

/// Nor does it matter how small the messages of a backend are, or that a client gives credit to a stream
/// whose end is under way to it.
#[test]
fn small_messages_of_backends_and_late_credit_are_no_attack() {
    let mut client = Server::new();
    client.conn = Conn::new(Role::Client, Limits::default(), client.now);
    client.feed(&[frame(kind::SETTINGS, 0, 0, b""), frame(kind::SETTINGS, 1, 0, b"")].concat());
    let stream = client.conn.open().expect("a stream");
    client.conn.send_head(stream, true, false, |w| w.pseudo(b":method", b"GET"));
    client.feed(&frame(kind::HEADERS, flag::END_HEADERS, stream, b"\x88"));
    for _ in 0..50_000 {
        client.feed(&frame(kind::DATA, 0, stream, b"message"));
    }
    assert_eq!(client.broken(), None);
    let mut server = Server::new();
    server.feed(&frame(kind::WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes()));
    for n in 0..5_000 {
        let stream = 2 * n + 1;
        server.feed(&get(stream, true));
        server.conn.send_head(stream, false, false, |w| w.pseudo(b":status", b"200"));
        assert_eq!(server.conn.send_data(stream, &[b'x'; 10_000]), 10_000);
        server.conn.send_end(stream);
        server.feed(&frame(kind::WINDOW_UPDATE, 0, stream, &10_000_u32.to_be_bytes()));
    }
    assert_eq!(server.broken(), None);
}
