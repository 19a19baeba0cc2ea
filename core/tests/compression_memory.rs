//! Encoders use no more memory than is counted for each. zstd, whose memory is not Rust's, has a test of its
//! own beside its encoder.

mod toy_wire;
mod two_wires;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use ruststrom_core::Shared;
use two_wires::{Rig, Speaks};

struct Measuring;

thread_local! {
    static BYTES: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

fn changed(by: i64) {
    let bytes = BYTES.get() + by;
    BYTES.set(bytes);
    PEAK.set(PEAK.get().max(bytes));
}

// SAFETY: every call is passed on unchanged to the system's allocator; the counts are thread-locals without a
// destructor, so they never allocate.
unsafe impl GlobalAlloc for Measuring {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        changed(layout.size() as i64);
        // SAFETY: the caller keeps the contract of `GlobalAlloc`, which is `System`'s too.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        changed(-(layout.size() as i64));
        // SAFETY: the caller keeps the contract of `GlobalAlloc`, which is `System`'s too.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Measuring = Measuring;

/// Text without an end: some of it repeats, some of it does not.
fn text(len: usize) -> Vec<u8> {
    let mut state = 7_u32;
    let line = |i: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        format!("{i} item {} {:x}\n", state >> 8, state.wrapping_mul(i as u32 | 1))
    };
    (0..).map(line).flat_map(String::into_bytes).take(len).collect()
}

/// The most that one response takes, in bytes. `full`: each read fills the room that it has, so that nothing
/// is flushed.
fn peak(coding: &str, level: u8, body: &[u8], announced: bool, full: bool) -> i64 {
    let pool = format!("retries = 0\n[backend_pools.middlewares.Compression]\nlevel = {level}");
    let pair = (Speaks::Http1, Speaks::Http1);
    let mut rig = Rig::new(two_wires::config("", &pool), Shared::new("lb", 1).into(), pair);
    let c = rig.client();
    let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\nAccept-Encoding: {coding}\r\n\r\n");
    let far = rig.ask(c, &request, true);
    let backend = rig.asked()[0];
    let framing =
        if announced { format!("Content-Length: {}", body.len()) } else { "Connection: close".to_owned() };
    let mut most = 0;
    // What the far end keeps of what it has received is no memory of the proxy.
    let mut step = |rig: &mut Rig, before: i64| {
        most = most.max(PEAK.get() - before);
        if rig.received(far.0).len() > 8192 {
            rig.forget(far);
        }
    };
    let before = BYTES.get();
    PEAK.set(before);
    rig.respond_head(backend, &format!("HTTP/1.1 200 OK\r\n{framing}\r\nContent-Type: text/plain\r\n\r\n"));
    let mut rest = body;
    while !rest.is_empty() {
        let room = if full { rig.proxy.recv_buf(backend.0).len() } else { 8192 };
        let (piece, behind) = rest.split_at(room.min(rest.len()));
        rig.send_all(backend, piece);
        step(&mut rig, before);
        rest = behind;
    }
    most
}

#[test]
fn what_is_counted_for_an_encoder_is_enough_for_it() {
    /// Pages of the proxy, and what the far end has received.
    const OTHER_BYTES: i64 = 300 * 1024;
    let body = text(3 << 19);
    // As `Kind::bytes` has it, in KiB.
    let table = [
        ("gzip", 2, 384),
        ("gzip", 9, 384),
        ("deflate", 6, 384),
        ("br", 1, 1300),
        ("br", 2, 1300),
        ("br", 3, 1300),
        ("br", 4, 4700),
        ("br", 5, 8600),
        ("br", 6, 8600),
        ("br", 7, 13_300),
        ("br", 8, 21_500),
        ("br", 9, 40_000),
    ];
    let mut failed = Vec::new();
    for (coding, level, kib) in table {
        for len in [60_000, body.len()] {
            for (announced, full) in [(false, false), (false, true), (true, false), (true, true)] {
                let used = peak(coding, level, &body[..len], announced, full);
                if used > kib * 1024 + OTHER_BYTES {
                    failed.push(format!("{coding} {level} {len}: {} KiB", used / 1024));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
