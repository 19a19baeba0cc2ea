//! Finding the pool of a request: by host, for which there is a table, and by path, where matchers are tried
//! in the order of the file.

use std::fmt::Write as _;
use std::hint::black_box;
use std::net::IpAddr;

use criterion::{BenchmarkId, Criterion};
use ruststrom_core::ListenerId;
use ruststrom_core::config;
use ruststrom_core::route::{FieldLookup, RouteInput, Router};

struct NoFields;

impl FieldLookup for NoFields {
    fn any(&self, _: &[u8], _: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        false
    }
}

fn router(pools: usize, matcher: impl Fn(usize) -> String) -> Router {
    let mut text = "http_address = \"127.0.0.1:80\"\n".to_owned();
    for pool in 0..pools {
        writeln!(text, "[[backend_pools]]\naddresses = [\"127.0.0.1:81\"]\nmatcher = \"{}\"", matcher(pool))
            .expect("memory");
    }
    Router::new(&config::parse(&text).config.expect("a good configuration").pools)
}

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route to the last of");
    for pools in [1, 100, 10_000] {
        let last = pools - 1;
        let (host, path) = (format!("h{last}.example.com:80"), format!("/p{last}/x"));
        let ask = RouteInput {
            https: false,
            listener: ListenerId(0),
            host: host.as_bytes(),
            path: path.as_bytes(),
            query: None,
            method: b"GET",
            client: IpAddr::from([10, 0, 0, 1]),
            fields: &NoFields,
        };
        let tables = [
            ("hosts", router(pools, |i| format!("Host('h{i}.example.com')"))),
            (
                "hosts and paths",
                router(pools, |i| format!("Host('h{i}.example.com') && PathPrefix('/p{i}')")),
            ),
            ("paths", router(pools, |i| format!("PathPrefix('/p{i}')"))),
        ];
        for (name, router) in &tables {
            assert_eq!(router.route(&ask), u16::try_from(last).ok(), "{name}");
            group
                .bench_function(BenchmarkId::new(*name, pools), |b| b.iter(|| router.route(black_box(&ask))));
        }
    }
    group.finish();
}
