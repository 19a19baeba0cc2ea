//! What is explained of a request: which pool and why, what its middlewares do, which backend, and what is
//! wrong with a bad one.

use ruststrom_core::Wall;
use ruststrom_core::config::{Config, parse, render};
use ruststrom_core::explain::{Asked, Explanation, How, Problem, explain};
use ruststrom_core::route::TermVerdict;

const TOP: &str = "http_address = \"127.0.0.1:8000\"\nmetrics_address = \"127.0.0.1:9090\"\n\
    trusted_proxies = [\"10.0.0.0/8\"]\n[[listeners]]\nname = \"internal\"\naddress = \"127.0.0.1:8001\"\n";

/// To stand before [`TOP`].
const SECURE: &str = "https_address = \"127.0.0.1:8443\"\ncertificates = { \"example.com\" = \
    { Local = { certificate_path = \"c.pem\", private_key_path = \"k.pem\" } } }\n";

fn config(text: &str) -> Config {
    let parsed = parse(text);
    parsed.config.unwrap_or_else(|| panic!("{}", render(&parsed.diagnostics, "f", text)))
}

/// Asks about `METHOD URL`, by a client at `from`.
fn try_ask(
    config: &Config,
    request: &str,
    fields: &[&str],
    from: &str,
    listener: Option<&str>,
) -> Result<Explanation, Problem> {
    let (method, url) = request.split_once(' ').expect("two words");
    let fields: Vec<String> = fields.iter().map(|line| (*line).to_owned()).collect();
    let asked = Asked {
        method,
        url,
        fields: &fields,
        peer: from.parse().expect("an address"),
        listener,
        wall: Wall { unix_secs: 784_111_777, ..Wall::default() },
        hostname: "lb.test",
        certificate: &|name| (name == Some("example.com")).then_some(0),
    };
    explain(config, &asked)
}

fn ask(config: &Config, request: &str, fields: &[&str]) -> Explanation {
    try_ask(config, request, fields, "203.0.113.7", None).expect("it can be sent")
}

/// A configuration of one pool.
fn pool(keys: &str) -> Config {
    config(&format!("{TOP}[[backend_pools]]\nname = \"p\"\n{keys}\n"))
}

const TWO: &str = "addresses = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\n";

fn terms(term: &TermVerdict, found: &mut Vec<(String, bool, String)>) {
    if term.operator.is_none() {
        found.push((term.text.clone(), term.holds, term.saw.clone().expect("what it saw")));
    }
    term.parts.iter().for_each(|part| terms(part, found));
}

/// Every kind of term: whether it holds, and what it was compared with.
#[test]
fn each_term_says_what_it_saw() {
    let cases = [
        ("Host('example.com')", true, "host \"example.com\""),
        ("Host('other.com')", false, "host \"example.com\""),
        ("HostRegexp('^ex')", true, "host \"example.com\""),
        ("Path('/a/b')", true, "path \"/a/b\""),
        ("PathPrefix('/b')", false, "path \"/a/b\""),
        ("PathRegexp('b$')", true, "path \"/a/b\""),
        ("Method('POST')", false, "method \"GET\""),
        ("Header('X-Key', 'two')", true, "x-key: \"one\" and \"two\""),
        ("Header('X-None', '1')", false, "no field x-none"),
        ("HeaderRegexp('X-Key', '^t')", true, "x-key: \"one\" and \"two\""),
        ("Query('k', 'v')", true, "query \"k=v&l\""),
        ("ClientIP('203.0.113.0/24')", true, "client 203.0.113.7"),
    ];
    for (matcher, holds, saw) in cases {
        for (text, holds) in [(matcher.to_owned(), holds), (format!("!{matcher}"), !holds)] {
            let config = pool(&format!("{TWO}matcher = '''{text}'''"));
            let told = ask(&config, "GET http://example.com/x/../a/b?k=v&l", &["X-Key: one", "X-Key: two"]);
            assert_eq!(told.pools[0].takes, holds, "{text}");
            let mut found = Vec::new();
            terms(told.pools[0].verdict.matcher.as_ref().expect("a matcher"), &mut found);
            assert!(found[0].0.eq_ignore_ascii_case(matcher), "{found:?}");
            assert_eq!((found.len(), &*found[0].2), (1, saw), "{text}");
            assert_eq!(told.pool.is_some(), holds);
        }
    }
}

/// All pools up to the one that takes it, by scheme, listener and matcher.
#[test]
fn pools_that_do_not_take_it() {
    let pools = "[[backend_pools]]\nname = \"secure\"\nschemes = [\"HTTPS\"]\naddresses = [\"10.0.0.1:80\"]\n\
        [[backend_pools]]\nname = \"inside\"\nlisteners = [\"internal\"]\naddresses = [\"10.0.0.2:80\"]\n\
        [[backend_pools]]\nname = \"api\"\nmatcher = \"PathPrefix('/api') && (Method('PUT') || Method('POST'))\"\n\
        addresses = [\"10.0.0.3:80\"]\n\
        [[backend_pools]]\nname = \"rest\"\naddresses = [\"10.0.0.4:80\"]\n\
        [[backend_pools]]\nname = \"after\"\nmatcher = \"Path('/x')\"\naddresses = [\"10.0.0.5:80\"]\n";
    let config = config(&format!("{SECURE}{TOP}{pools}"));
    let names = |told: &Explanation| told.pools.iter().map(|pool| pool.name.clone()).collect::<Vec<_>>();
    let told = ask(&config, "GET http://example.com/api", &[]);
    assert_eq!(names(&told), ["secure", "inside", "api", "rest"]);
    let fits: Vec<_> = told.pools.iter().map(|p| (p.verdict.scheme, p.verdict.listener, p.takes)).collect();
    assert_eq!(fits, [(false, true, false), (true, false, false), (true, true, false), (true, true, true)]);
    let matcher = told.pools[2].verdict.matcher.as_ref().expect("a matcher");
    assert_eq!((matcher.operator, matcher.holds), (Some("&&"), false));
    assert_eq!(matcher.parts.iter().map(|part| part.holds).collect::<Vec<_>>(), [true, false]);
    assert_eq!(
        matcher.parts[1].parts.iter().map(|part| &*part.text).collect::<Vec<_>>(),
        ["Method('PUT')", "Method('POST')"]
    );
    assert_eq!(told.choice.expect("a backend").backend.as_deref(), Some("10.0.0.4:80"));

    let told = ask(&config, "GET https://example.com/api", &[]);
    assert_eq!((names(&told), told.request.scheme), (vec!["secure".into()], "https"));
    let told = try_ask(&config, "GET http://a/", &[], "::1", Some("internal")).expect("sent");
    assert_eq!(
        (names(&told), told.pool.as_deref()),
        (vec!["secure".into(), "inside".into()], Some("inside"))
    );
    // The port of the URL names a listener too.
    let told = ask(&config, "GET http://a:8001/", &[]);
    assert_eq!((&*told.request.listener, told.pool.as_deref()), ("internal", Some("inside")));
}

/// Requests that come to no pool: what they broke, in words.
#[test]
fn bad_requests_say_what_is_wrong() {
    let config = config(&format!("{SECURE}{TOP}[[backend_pools]]\nmatcher = \"Path('/')\"\n{TWO}"));
    let cases: [(&str, &[&str], u16, Option<&str>); 13] = [
        ("GET http://a/%zz", &[], 400, Some("bad_target_escape")),
        ("GET http://a/..", &[], 400, Some("target_climbs")),
        ("GET http://a/b c", &[], 400, Some("bad_start_line")),
        ("GET /", &[], 400, Some("missing_host")),
        ("GET http://a b/", &[], 400, Some("bad_host")),
        ("GET http://a/", &["Host: a", "Host: b"], 400, Some("duplicate_host")),
        ("GET http://a/", &["X Y: 1"], 400, Some("bad_field_name")),
        ("POST http://a/", &["Content-Length: x"], 400, Some("bad_length")),
        ("CONNECT http://a/", &[], 501, Some("connect_method")),
        ("GET http://a/x", &[], 404, Some("no_route")),
        ("GET https://example.com/", &["Host: other.com"], 421, Some("misdirected_request")),
        ("GET https://other.com/", &[], 0, None),
        ("OPTIONS http://a/", &["Max-Forwards: 0"], 200, None),
    ];
    for (request, fields, status, cause) in cases {
        let told = ask(&config, request, fields);
        let answer = told.local_reply.as_ref().unwrap_or_else(|| panic!("{request}: {told}"));
        assert_eq!((answer.status, answer.cause), (status, cause), "{request} {fields:?}: {told}");
        assert!(answer.why.ends_with('.'), "{}", answer.why);
        assert!(told.choice.is_none() && told.to_backend.is_empty(), "{told}");
        let first = told.to_client.first().map(|line| line[9..12].to_owned());
        assert_eq!(first, (status > 0).then(|| status.to_string()), "{told}");
    }
    let long = format!("GET http://a/{}", "x".repeat(9000));
    assert_eq!(ask(&config, &long, &[]).local_reply.expect("refused").cause, Some("target_too_long"));
    let fields: Vec<String> = (0..101).map(|n| format!("X-{n}: 1")).collect();
    let fields: Vec<&str> = fields.iter().map(|line| &**line).collect();
    let told = ask(&config, "GET http://a/", &fields);
    assert_eq!(told.local_reply.expect("refused").status, 431);
}

/// What cannot be sent at all.
#[test]
fn what_cannot_be_sent() {
    let config = pool(TWO);
    let cases = [
        ("GET example.com", None, "\"example.com\" is no URL; write http://…, https://… or /path"),
        ("GET ftp://a/", None, "\"ftp://a/\" is no URL; write http://…, https://… or /path"),
        ("GET https://a/", None, "no listener serves https; it needs an address and a certificate"),
        ("GET http://a/", Some("none"), "there is no listener \"none\"; there are: http, internal, admin"),
        ("GET http://a/", Some("admin"), "the admin listener serves no pools"),
        ("GET https://a/", Some("http"), "the listener \"http\" does not serve https"),
        (
            "GET http://a/\r\nX: y",
            None,
            "\"http://a/\\r\\nX: y\" is no URL; write http://…, https://… or /path",
        ),
    ];
    for (request, listener, expected) in cases {
        let problem = try_ask(&config, request, &[], "::1", listener).map(|told| told.to_string());
        assert_eq!(problem.map_err(|problem| problem.to_string()), Err(expected.into()));
    }
    for field in ["X", "X: a\nY: b"] {
        assert!(matches!(try_ask(&config, "GET /", &[field], "::1", None), Err(Problem::Field(_))));
    }
}

/// The client behind trusted proxies, and who is not believed.
#[test]
fn who_the_client_is() {
    let config = pool(&format!("{TWO}matcher = \"ClientIP('192.0.2.0/24')\""));
    for (peer, told_by, client) in [
        ("10.0.0.9", "192.0.2.5", "192.0.2.5"),
        ("10.0.0.9", "192.0.2.5, 10.0.0.1", "192.0.2.5"),
        ("10.0.0.9", "192.0.2.5, 203.0.113.1", "203.0.113.1"),
        ("203.0.113.7", "192.0.2.5", "203.0.113.7"),
        ("::ffff:192.0.2.8", "", "192.0.2.8"),
    ] {
        let field = format!("X-Forwarded-For: {told_by}");
        let told = try_ask(&config, "GET http://a/", &[&field], peer, None).expect("sent");
        assert_eq!(told.request.client.to_string(), client, "{peer} {told_by}");
        assert_eq!(told.request.peer_is_trusted, peer.starts_with("10."));
        assert_eq!(told.pool.is_some(), client.starts_with("192.0.2."));
    }
}

/// One line of what a middleware does to the request, for each kind.
#[test]
fn what_middlewares_do() {
    let hashed = "$2y$04$abcdefghijklmnopqrstuuK1jxFZsTjTOoHYkMIIGr/dbkdqGyyG2";
    let users = format!("BasicAuth]\nusers = {{ anna = \"{hashed}\" }}");
    let ldap = "Authentication]\nldap_address = \"ldap://dir.test\"\nrecursive = true\nuser_directory = \"ou=people,dc=test\"\n\
                rdn_identifier = \"uid\"";
    let cases: [(&str, &str, &[&str], &str); 20] = [
        ("IpAllow]\nranges = [\"203.0.113.0/24\"]", "GET http://a/", &[], "lets it pass"),
        ("IpAllow]\nranges = [\"192.0.2.0/24\"]", "GET http://a/", &[], "responds 403"),
        ("IpDeny]\nranges = [\"203.0.113.7\"]", "GET http://a/", &[], "responds 403"),
        ("RateLimiter]\nlimit = 100\nwindow_sec = 60", "GET http://a/", &[], "lets it pass"),
        (
            "MaxBodySize]\nlimit = 10",
            "POST http://a/",
            &["Content-Length: 11"],
            "responds 413 (content_too_large)",
        ),
        ("MaxBodySize]\nlimit = 10", "GET http://a/", &[], "lets it pass"),
        (
            "MaxBodySize]\nlimit = 10",
            "POST http://a/",
            &["Transfer-Encoding: chunked"],
            "limits the content to 10 bytes",
        ),
        (
            "HttpsRedirector]",
            "GET http://example.com/a?b=%41",
            &[],
            "responds 301, Location: https://example.com:8443/a?b=%41",
        ),
        ("HttpsRedirector]", "GET https://example.com/", &[], "lets it pass"),
        ("StripPrefix]\nprefixes = [\"/api\"]", "GET http://a/api/x?y", &[], "/api/x?y becomes /x?y"),
        ("AddPrefix]\nprefix = \"/v1\"", "GET http://a/x", &[], "/x becomes /v1/x"),
        ("ReplacePath]\npath = \"/one\"", "GET http://a/x", &[], "/x becomes /one"),
        (
            "ReplacePathRegex]\nregex = \"^/u/(.*)\"\nreplacement = \"/user/$1\"",
            "GET http://a/u/7",
            &[],
            "/u/7 becomes /user/7",
        ),
        (
            "Redirect]\nregex = \"^http://a/old\"\nreplacement = \"https://b/new\"\nstatus = 308",
            "GET http://a/old",
            &[],
            "responds 308, Location: https://b/new",
        ),
        (
            "Respond]\nstatus = 410\nbody = \"gone\"",
            "GET http://a/",
            &[],
            "responds 410, Content-Type: text/plain; charset=utf-8, 4 bytes of content",
        ),
        (
            "Headers]\nrequest = { set = { X-Client = \"{client_ip}\" } }",
            "GET http://a/",
            &[],
            "sets X-Client: 203.0.113.7",
        ),
        (
            "Headers]\nrequest = { remove = [\"X-Secret\"] }",
            "GET http://a/",
            &["X-Secret: 1"],
            "removes X-Secret",
        ),
        (ldap, "GET http://a/", &[], "responds 401"),
        (
            ldap,
            "GET http://a/",
            &["Authorization: Basic YW5uYTpwdw=="],
            "would ask the directory ldap://dir.test:389 whether the password of anna is right: here it is taken to be",
        ),
        (
            &users,
            "GET http://a/",
            &["Authorization: Basic YW5uYTpwdw=="],
            "would look at its list of users whether the password of anna is right: here it is taken to be",
        ),
    ];
    for (middleware, request, fields, does) in cases {
        let text = format!(
            "{SECURE}{TOP}[[backend_pools]]\nname = \"p\"\n{TWO}[backend_pools.middlewares.{middleware}\n"
        );
        let told = ask(&config(&text), request, fields);
        assert!(told.middlewares[0].reached);
        assert!(told.middlewares[0].does[0].starts_with(does), "{middleware}: {:?}", told.middlewares[0]);
        // A password is in nothing that is printed.
        let json = serde_json::to_string(&told).expect("JSON");
        assert!(!format!("{told}{json}").contains("YW5uYTpwdw"), "{told}");
        let responds = told.middlewares[0].does.iter().any(|deed| deed.starts_with("responds"));
        assert_eq!((told.local_reply.is_some(), told.choice.is_none()), (responds, responds), "{told}");
    }
}

/// They come in file order, and back in reverse; those behind one that answers are not reached.
#[test]
fn the_order_of_middlewares() {
    let chain = "[backend_pools.middlewares.Headers]\nsecurity = true\n[backend_pools.middlewares.IpAllow]\n\
                 ranges = [\"192.0.2.0/24\"]\n[backend_pools.middlewares.Compression]\n";
    let config = pool(&format!("{TWO}{chain}"));
    let reached = |told: &Explanation| {
        told.middlewares.iter().map(|middleware| (middleware.name, middleware.reached)).collect::<Vec<_>>()
    };
    let back = |told: &Explanation| {
        told.response_middlewares.iter().map(|middleware| middleware.name).collect::<Vec<_>>()
    };
    let fields = &["Accept-Encoding: gzip;q=0.5, br"];
    let told = try_ask(&config, "GET http://a/", fields, "192.0.2.1", None).expect("sent");
    assert_eq!(reached(&told), [("Headers", true), ("IpAllow", true), ("Compression", true)]);
    assert_eq!(back(&told), ["Compression", "Headers"]);
    let does = &told.response_middlewares[0].does;
    assert!(does.contains(&"sets Content-Encoding: br".to_owned()), "{does:?}");
    assert!(told.to_client.contains(&"Content-Encoding: br".to_owned()), "{told}");
    assert!(told.to_client.contains(&"Date: Sun, 06 Nov 1994 08:49:37 GMT".to_owned()), "{told}");

    let told = ask(&config, "GET http://a/", fields);
    assert_eq!(reached(&told), [("Headers", true), ("IpAllow", true), ("Compression", false)]);
    assert_eq!((back(&told), told.choice.is_none()), (vec!["Headers"], true));
    assert_eq!(told.local_reply.expect("refused").why, "IpAllow responds.");
    assert_eq!(told.to_client[0], "HTTP/1.1 403 Forbidden");
}

/// Each strategy's choice, and how far it can be relied on.
#[test]
fn which_backend_and_why() {
    const WEIGHTED: &str = "addresses = [\"10.0.0.1:80\", { address = \"10.0.0.2:80\", weight = 2 }, \
                            { address = \"10.0.0.3:80\", backup = true }]\n";
    let first = "10.0.0.1:80";
    let table = [
        (TWO, "\"RoundRobin\"", How::AtFirst, "the turns after a start are 10.0.0.1:80, 10.0.0.2:80"),
        (
            WEIGHTED,
            "\"RoundRobin\"",
            How::AtFirst,
            "the turns after a start are 10.0.0.2:80, 10.0.0.1:80, 10.0.0.2:80",
        ),
        (TWO, "\"Random\"", How::ByChance, "drawn by chance: 10.0.0.1:80 50.0 %, 10.0.0.2:80 50.0 %"),
        (WEIGHTED, "\"Random\"", How::ByChance, "drawn by chance: 10.0.0.1:80 33.3 %, 10.0.0.2:80 66.7 %"),
        (TWO, "\"IPHash\"", How::Always, "the hash of 203.0.113.7 leads there, in every process"),
        (
            TWO,
            "\"LeastConnection\"",
            How::AtFirst,
            "nothing is in flight after a start, and equals take turns",
        ),
        (
            "addresses = [\"10.0.0.1:80\"]\n",
            "\"Random\"",
            How::Always,
            "it is the only one that may be chosen",
        ),
    ];
    for (backends, strategy, how, why) in table {
        let told = ask(&pool(&format!("{backends}strategy = {strategy}")), "GET http://a/", &[]);
        let choice = told.choice.expect("a backend");
        assert_eq!((choice.how, &*choice.why), (how, why), "{strategy}");
        let backend = choice.backend.expect("a backend");
        assert!(choice.candidates.iter().any(|one| one.backend == backend && one.usable));
        assert!(!choice.candidates.iter().any(|one| one.backup && one.usable));
        if how == How::AtFirst {
            assert!(why.starts_with(&format!("the turns after a start are {backend}")) || backend == first);
        }
        let others: Vec<_> = choice.others.iter().map(|other| other.strategy).collect();
        assert_eq!(others.len(), if choice.candidates.len() > 1 { 3 } else { 0 }, "{others:?}");
    }
    let none = ask(&pool("addresses = []"), "GET http://a/", &[]);
    let choice = none.choice.expect("asked for");
    assert_eq!((choice.backend, &*choice.why), (None, "no backend can be chosen"));
    assert_eq!(none.local_reply.expect("refused").cause, Some("no_backend"));
    // A name is taken to resolve.
    let named = ask(&pool("addresses = [\"app.test:80\"]"), "GET http://a/", &[]);
    assert_eq!(named.choice.expect("a backend").backend.as_deref(), Some("app.test:80"));
}

/// The cookie that the client is told to send names its backend.
#[test]
fn the_cookie_names_the_backend() {
    let config =
        pool(&format!("{TWO}strategy = {{ StickyCookie = {{ cookie_name = \"S\", inner = \"IPHash\" }} }}"));
    let without = ask(&config, "GET http://a/", &[]);
    let chosen = without.choice.expect("a backend").backend.expect("a backend");
    let set = without.to_client.iter().find_map(|line| line.strip_prefix("Set-Cookie: "));
    let pair = set.and_then(|set| set.split(';').next()).expect("a cookie");
    // From where the hash leads elsewhere.
    let elsewhere = (1..255).find_map(|n| {
        let told = try_ask(&config, "GET http://a/", &[], &format!("192.0.2.{n}"), None).expect("sent");
        let choice = told.choice.expect("a backend");
        assert_eq!(choice.how, How::Always);
        (choice.backend.as_ref() != Some(&chosen)).then(|| format!("192.0.2.{n}"))
    });
    let from = elsewhere.expect("one of many clients");
    let cookie = format!("Cookie: other=1; {pair}");
    let with = try_ask(&config, "GET http://a/", &[&cookie], &from, None).expect("sent");
    let choice = with.choice.expect("a backend");
    assert_eq!((choice.backend, &*choice.why), (Some(chosen), "the cookie S names it"));
}

/// What is spoken to a backend does not matter: heads are shown as those of HTTP/1.1.
#[test]
fn backends_of_http2_are_explained_like_others() {
    for (addresses, tls) in [
        ("h2c://10.0.0.1:80", ""),
        ("https://10.0.0.1:443", ""),
        ("https://10.0.0.1:443", "[backend_pools.tls]\nalpn = [\"h2\"]\n"),
    ] {
        let config = pool(&format!("addresses = [\"{addresses}\"]\n{tls}"));
        let told = ask(&config, "GET http://example.com/x", &[]);
        assert!(told.local_reply.is_none(), "{addresses} {tls}: {told}");
        assert!(
            told.to_string().contains("the backend gets\n  GET /x HTTP/1.1\n"),
            "{addresses} {tls}: {told}"
        );
    }
}

/// The whole text, once.
#[test]
fn the_text() {
    let config = config(&format!(
        "{TOP}[[backend_pools]]\nname = \"admin\"\nmatcher = \"Host('admin.test') || !Method('GET')\"\n\
         addresses = [\"10.0.0.9:80\"]\n[[backend_pools]]\nname = \"api\"\nmatcher = \"PathPrefix('/api')\"\n{TWO}\
         [backend_pools.middlewares.RateLimiter]\nlimit = 100\nwindow_sec = 60\n\
         [backend_pools.middlewares.StripPrefix]\nprefixes = [\"/api\"]\n"
    ));
    let told = try_ask(
        &config,
        "GET http://example.com/x/../api/u",
        &["X-Forwarded-For: 198.51.100.4", "X-Request-ID: 7"],
        "10.0.0.1",
        None,
    );
    let expected = include_str!("explain/whole.txt");
    assert_eq!(told.expect("sent").to_string(), expected);
}

/// It is the same however often it is asked: nothing is kept from one to the next.
#[test]
fn it_is_the_same_each_time() {
    let config = pool(&format!("{TWO}[backend_pools.middlewares.RateLimiter]\nlimit = 1\nwindow_sec = 60\n"));
    let texts: Vec<String> = (0..3).map(|_| ask(&config, "GET http://a/", &[]).to_string()).collect();
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:#?}");
}
