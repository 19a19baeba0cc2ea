//! Routing allocates nothing, with or without the table of hosts, whatever terms a matcher has.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::IpAddr;

use ruststrom_core::ListenerId;
use ruststrom_core::config::parse;
use ruststrom_core::route::{FieldLookup, RouteInput, Router};

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is passed on unchanged to the system's allocator; the count is a thread-local without a
// destructor, so it never allocates.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|c| c.set(c.get() + 1));
        // SAFETY: the caller keeps the contract of `GlobalAlloc`, which is `System`'s too.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `GlobalAlloc`, which is `System`'s too.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct OneField;

impl FieldLookup for OneField {
    fn any(&self, name: &[u8], test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        name == b"x" && test(b"a value")
    }
}

#[test]
fn no_allocation() {
    let last = "HostRegexp('^(a|b)+\\.c$') && PathRegexp('^/(x|y)*$') && HeaderRegexp('x', 'v[a-z]+') \
                && Header('x', 'a value') \
                && Query('k', 'ä b') && !Method('PUT') && PathPrefix('/x') \
                && (Path('/z') || ClientIP('::/0') || ClientIP('10.0.0.0/8'))";
    for others in [0, 5000] {
        let mut text = "http_address = \"[::]:80\"\n".to_owned();
        for i in 0..others {
            text.push_str(&format!(
                "[[backend_pools]]\naddresses = []\n\
             matcher = \"Host('h{i}') || Host('a.c') && Path('/{i}')\"\n"
            ));
        }
        text.push_str(&format!("[[backend_pools]]\naddresses = []\nmatcher = '''{last}'''\n"));
        let router = Router::new(&parse(&text).config.unwrap().pools);
        let ask = RouteInput {
            https: false,
            listener: ListenerId(0),
            host: b"A.c:80",
            path: b"/xyx",
            query: Some(b"a=1&k=%c3%A4+b"),
            method: b"GET",
            client: IpAddr::from([10, 0, 0, 1]),
            fields: &OneField,
        };
        let ask_x = RouteInput { path: b"/x", ..ask };
        // The first call allocates the caches of the regular expressions.
        assert_eq!((router.route(&ask), router.route(&ask_x)), (None, Some(others)));
        let before = COUNT.with(Cell::get);
        for _ in 0..100 {
            assert_eq!((router.route(&ask), router.route(&ask_x)), (None, Some(others)));
        }
        assert_eq!(COUNT.with(Cell::get) - before, 0, "{others} other pools");
    }
}
