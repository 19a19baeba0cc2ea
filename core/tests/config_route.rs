//! Which pool takes a request, by its matcher and by the table of hosts; and that the table never changes the
//! result.

use std::sync::Arc;

use std::cell::Cell;
use std::net::IpAddr;

use proptest::prelude::*;
use ruststrom_core::ListenerId;
use ruststrom_core::config::{Pool, parse, render};
use ruststrom_core::route::{FieldLookup, PoolVerdict, RouteInput, Router};

struct List<'a>(&'a [(&'a str, &'a str)]);

impl FieldLookup for List<'_> {
    fn any(&self, name: &[u8], test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.0.iter().any(|(n, v)| n.as_bytes().eq_ignore_ascii_case(name) && test(v.as_bytes()))
    }
}

fn pools(text: &str) -> Vec<Arc<Pool>> {
    let text = format!("http_address = \"[::]:80\"\n{text}");
    let parsed = parse(&text);
    parsed.config.unwrap_or_else(|| panic!("{}", render(&parsed.diagnostics, "f", &text))).pools
}

fn with_matchers<S: AsRef<str>>(matchers: &[S]) -> Vec<Arc<Pool>> {
    pools(
        &matchers
            .iter()
            .map(|m| format!("[[backend_pools]]\naddresses = [\"a:1\"]\nmatcher = '''{}'''\n", m.as_ref()))
            .collect::<String>(),
    )
}

const FIELDS: List<'_> =
    List(&[("Host", "example.com"), ("X-Key", "one"), ("x-key", "two"), ("User-Agent", "Some Bot/1.0")]);

fn input<'a>(host: &'a str, target: &'a str) -> RouteInput<'a> {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query.as_bytes())),
        None => (target, None),
    };
    RouteInput {
        https: false,
        listener: ListenerId(0),
        host: host.as_bytes(),
        path: path.as_bytes(),
        query,
        method: b"GET",
        client: IpAddr::from([10, 1, 2, 3]),
        fields: &FIELDS,
    }
}

#[test]
fn matchers() {
    // (matcher, host, target, whether it takes it); the client is 10.1.2.3, the method GET
    let cases = [
        ("Host('example.com')", "example.com", "/", true),
        ("Host('example.com')", "EXAMPLE.com:8080", "/", true),
        ("Host('Example.Com')", "example.com.", "/", true),
        ("Host('example.com')", "www.example.com", "/", false),
        ("Host('example.com')", "example.com.evil.org", "/", false),
        ("Host('example.com')", "", "/", false),
        ("Host('::1')", "[::1]:80", "/", true),
        ("Host('127.0.0.1')", "127.0.0.1:80", "/", true),
        ("HostRegexp('^[a-z]+\\.example\\.com$')", "API.example.com:80", "/", true),
        ("HostRegexp('^[a-z]+\\.example\\.com$')", "api.example.com.evil.org", "/", false),
        ("HostRegexp('example')", "an.example.org", "/", true),
        ("Path('/api')", "a", "/api", true),
        ("Path('/api')", "a", "/api?x=1", true),
        ("Path('/api')", "a", "/api/", false),
        ("Path('/api')", "a", "/API", false),
        ("Path('/%7ea')", "a", "/~a", true),
        ("PathPrefix('/api')", "a", "/api/x", true),
        ("PathPrefix('/api')", "a", "/apix", false),
        ("PathPrefix('/')", "a", "*", true),
        ("PathRegexp('^/v[0-9]+/')", "a", "/v12/x", true),
        ("PathRegexp('^/v[0-9]+/')", "a", "/a/v12/x", false),
        ("Method('GET')", "a", "/", true),
        ("Method('get')", "a", "/", false),
        ("Header('X-KEY', 'two')", "a", "/", true),
        ("Header('X-Key', 'Two')", "a", "/", false),
        ("Header('X-Other', '')", "a", "/", false),
        ("HeaderRegexp('User-Agent', 'Bot')", "a", "/", true),
        ("HeaderRegexp('User-Agent', '^Bot')", "a", "/", false),
        ("Query('a', 'b c')", "a", "/?x=y&a=b%20c", true),
        ("Query('a', 'b')", "a", "/?a=c&a=b", true),
        ("Query('a', 'b')", "a", "/", false),
        ("ClientIP('10.0.0.0/8')", "a", "/", true),
        ("ClientIP('10.1.2.4')", "a", "/", false),
        ("ClientIP('::/0')", "a", "/", false),
        ("!Path('/x') && (Host('a') || Host('b'))", "b", "/y", true),
        ("!Path('/x') && (Host('a') || Host('b'))", "b", "/x", false),
        ("Path('/x') || Host('a') && Path('/y')", "b", "/x", true),
        ("(Path('/x') || Host('a')) && Path('/y')", "b", "/x", false),
    ];
    for (matcher, host, target, wanted) in cases {
        let router = Router::new(&with_matchers(&[matcher]));
        assert_eq!(router.route(&input(host, target)), wanted.then_some(0), "{matcher} {host} {target}");
    }
    // An IPv4 client of an IPv6 socket is matched as an IPv4 client.
    let mapped: IpAddr = "::ffff:10.1.2.3".parse().unwrap();
    let router = Router::new(&with_matchers(&["ClientIP('10.0.0.0/8')"]));
    assert_eq!(router.route(&RouteInput { client: mapped, ..input("a", "/") }), Some(0));
}

#[test]
fn the_first_in_the_file_with_the_right_scheme() {
    let router = Router::new(&pools(
        "[[backend_pools]]\naddresses = []\nschemes = [\"HTTPS\"]\n\
         [[backend_pools]]\naddresses = []\nmatcher = \"Host('a') && Path('/x')\"\n\
         [[backend_pools]]\naddresses = []\nmatcher = \"Host('a')\"\nschemes = [\"HTTP\"]\n",
    ));
    let cases = [
        (false, "a", "/x", Some(1)),
        (false, "a", "/y", Some(2)),
        (false, "b", "/x", None),
        (true, "a", "/x", Some(0)),
        (true, "b", "/y", Some(0)),
    ];
    for (https, host, path, wanted) in cases {
        assert_eq!(router.route(&RouteInput { https, ..input(host, path) }), wanted, "{https} {host} {path}");
    }
    assert_eq!(Router::new::<Pool>(&[]).route(&input("a", "/")), None);
}

#[test]
fn ten_thousand_hosts_are_not_walked() {
    // Each pool looks at a field too, so the number of look-ups shows how many pools were tried.
    struct Counting(Cell<u32>);
    impl FieldLookup for Counting {
        fn any(&self, _: &[u8], test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
            self.0.set(self.0.get() + 1);
            test(b"v")
        }
    }
    let mut matchers: Vec<String> =
        (0..10_000).map(|i| format!("Header('k', 'v') && Host('app-{i}.example.com')")).collect();
    matchers.insert(5_000, "Header('k', 'x')".into());
    let router = Router::new(&with_matchers(&matchers));
    for (host, wanted, queries) in [
        ("app-0.example.com", Some(0), 1),
        ("APP-4999.example.com:80", Some(4_999), 1),
        ("app-9999.example.com", Some(10_000), 2),
        ("app-10000.example.com", None, 1),
    ] {
        let fields = Counting(Cell::new(0));
        assert_eq!(router.route(&RouteInput { fields: &fields, ..input(host, "/") }), wanted, "{host}");
        assert_eq!(fields.0.get(), queries, "{host}");
    }
}

fn matcher() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        4 => "[a-d]".prop_map(|h| format!("Host('{h}.x')")),
        1 => "[a-d]".prop_map(|h| format!("HostRegexp('^{h}')")),
        2 => "[a-c]".prop_map(|p| format!("PathPrefix('/{p}')")),
        1 => Just("Method('POST')".to_owned()),
        1 => Just("Header('x-key', 'one')".to_owned()),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|m| format!("!({m})")),
            proptest::collection::vec(inner.clone(), 2..4).prop_map(|m| format!("({})", m.join(" && "))),
            proptest::collection::vec(inner, 2..4).prop_map(|m| format!("({})", m.join(" || "))),
        ]
    })
}

proptest! {
    #[test]
    fn the_table_changes_nothing(
        matchers in proptest::collection::vec(matcher(), 0..40),
        host in "[a-eA-E]\\.[xX](:80)?",
        path in "/[a-d]",
    ) {
        let pools = with_matchers(&matchers);
        let input = input(&host, &path);
        // A router of one pool has no table.
        let takes_it = |pool: &Arc<Pool>| Router::new(std::slice::from_ref(pool)).route(&input).is_some();
        let one_by_one = pools.iter().position(takes_it);
        let router = Router::new(&pools);
        prop_assert_eq!(router.route(&input).map(usize::from), one_by_one);
        // What is said of each pool, and why, agrees.
        prop_assert_eq!(router.verdicts(&input).iter().position(PoolVerdict::fits), one_by_one);
    }
}

#[test]
fn pools_of_some_listeners() {
    let text = "http_address = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n\
        [[listeners]]\nname = \"internal\"\naddress = \"127.0.0.1:3\"\n\
        [[listeners]]\nname = \"both\"\naddress = [\"127.0.0.1:4\", \"127.0.0.1:5\"]\n\
        [[backend_pools]]\nname = \"one\"\nlisteners = [\"internal\"]\naddresses = [\"a:1\"]\nmatcher = \"Host('a')\"\n\
        [[backend_pools]]\nname = \"two\"\nlisteners = [\"both\", \"internal\"]\naddresses = [\"a:2\"]\n\
        [[backend_pools]]\nname = \"three\"\nlisteners = \"http\"\naddresses = [\"a:3\"]\n";
    let parsed = parse(text);
    assert!(parsed.diagnostics.is_empty(), "{}", render(&parsed.diagnostics, "f", text));
    let config = parsed.config.unwrap();
    let names: Vec<&str> = config.listeners.iter().map(|l| &*l.name).collect();
    assert_eq!(names, ["http", "http", "internal", "both", "both", "admin"]);
    let of_pools: Vec<_> = config.pools.iter().map(|p| p.listeners.as_deref().unwrap()).collect();
    assert_eq!(of_pools, [&[2][..], &[2, 3, 4], &[0, 1]]);
    // (listener, host, pool)
    let cases = [
        (0, "a", Some(2)),
        (1, "b", Some(2)),
        (2, "a", Some(0)),
        (2, "b", Some(1)),
        (3, "a", Some(1)),
        (4, "b", Some(1)),
        (7, "a", None),
    ];
    // With more pools the hosts are looked up in a table.
    for more in [0, 100] {
        let mut pools = config.pools.clone();
        pools.extend(with_matchers(&vec!["Host('unused')"; more]));
        let router = Router::new(&pools);
        for (listener, host, wanted) in cases {
            let asked = RouteInput { listener: ListenerId(listener), ..input(host, "/") };
            assert_eq!(router.route(&asked), wanted, "{listener} {host}");
        }
        // After a reload the ids of listeners are no longer their places.
        let moved = Router::with_listeners(&pools, &|place| ListenerId(place + 10));
        let asked = RouteInput { listener: ListenerId(12), ..input("a", "/") };
        assert_eq!(moved.route(&asked), Some(0));
        assert_eq!(moved.route(&RouteInput { listener: ListenerId(2), ..asked }), None);
    }
}
