//! Names and passwords: what is asked of the driver, what its results become, and what backends are told.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use ruststrom_core::config::{Config, CredentialSource};
use ruststrom_core::middleware::Counter;
use ruststrom_core::{Cause, Fault, LookupResult, Query, Secret, Shared};

use crate::hooks::nothing_left;
use crate::two_wires::{self, PAIRS, Rig, Speaks};

const LDAP: &str = "[backend_pools.middlewares.Authentication]
ldap_address = \"ldap://192.0.2.9\"
user_directory = \"ou=users,dc=example,dc=com\"
rdn_identifier = \"uid\"
recursive = true
";

/// `ada:love`, `ada:hate`, `bob:love`, `é:ü`
const ADA: &str = "Basic YWRhOmxvdmU=";
const ADA_WRONG: &str = "Basic YWRhOmhhdGU=";
const BOB: &str = "Basic Ym9iOmxvdmU=";
const ACCENTS: &str = "Basic w6k6w7w=";

fn list() -> String {
    let hash = format!("$6$salt${}", "x".repeat(86));
    format!("[backend_pools.middlewares.BasicAuth]\nusers = {{ ada = \"{hash}\" }}\nrealm = 'a \"b\" \\c'\n")
}

/// Names and values.
type Fields<'a> = &'a [(&'a str, &'a str)];

/// The one pool of the rig with these middlewares.
fn config(middlewares: &str) -> Config {
    two_wires::config("", middlewares)
}

fn rig(pair: (Speaks, Speaks), middlewares: &str) -> Rig {
    Rig::new(config(middlewares), Arc::new(Shared::new("lb", 1)), pair)
}

/// A GET request with these fields; sends it and gives where its response comes.
fn get(fields: Fields<'_>) -> String {
    let mut head = "GET / HTTP/1.1\r\nHost: a.test\r\n".to_owned();
    for (name, value) in fields {
        write!(head, "{name}: {value}\r\n").expect("a string");
    }
    head + "\r\n"
}

/// What the backend was told, and the status of the response; it answers 200.
fn passed(rig: &mut Rig, fields: Fields<'_>, result: Option<LookupResult>) -> (u16, String, String) {
    let c = rig.client();
    let far = rig.ask(c, &get(fields), true);
    assert_eq!(rig.lookups.len(), usize::from(result.is_some()), "{fields:?}");
    if let Some(result) = result {
        rig.answer_lookup(result);
    }
    let mut told = String::new();
    if let Some(backend) = rig.asked().first().copied() {
        told = rig.message(backend).head;
        rig.respond(backend, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"");
        rig.forget(backend);
    }
    let got = rig.message(far);
    let status = got.head.get(9..12).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("{got:?}"));
    rig.forget(far);
    (status, told, got.head)
}

fn yes() -> Option<LookupResult> {
    Some(LookupResult::Authenticated(true))
}

fn no() -> Option<LookupResult> {
    Some(LookupResult::Authenticated(false))
}

#[test]
fn what_is_no_credentials_is_refused_before_any_lookup() {
    let table: &[(Fields<'_>, u16, usize)] = &[
        (&[], 401, 0),
        (&[("Authorization", "Bearer abc")], 401, 0),
        (&[("Authorization", "Basic")], 401, 0),
        (&[("Authorization", "Basic YWRh")], 401, 0),
        (&[("Authorization", "Basic YWRhOmxvdmU")], 401, 0),
        (&[("Authorization", "Basic OmxvdmU=")], 401, 1),
        (&[("Authorization", "Basic YWRhOg==")], 401, 1),
        (&[("Authorization", ADA), ("Authorization", ADA)], 400, 0),
        (&[("Authorization", ADA), ("X", "y"), ("authorization", "Bearer x")], 400, 0),
        (&[("Proxy-Authorization", ADA)], 401, 0),
        (&[("X-Remote-User", "ada")], 401, 0),
    ];
    for pair in PAIRS {
        for (fields, status, failures) in table {
            let mut rig = rig(pair, LDAP);
            let (found, told, head) = passed(&mut rig, fields, None);
            assert_eq!((found, &*told), (*status, ""), "{fields:?}");
            let asked = "WWW-Authenticate: Basic realm=\"Restricted\", charset=\"UTF-8\"\r\n";
            assert_eq!(head.contains(asked), *status == 401, "{fields:?}: {head}");
            assert_eq!(rig.proxy.observer_mut().counters.len(), *failures, "{fields:?}");
            nothing_left(&mut rig);
        }
    }
}

#[test]
fn results_of_lookups() {
    for pair in PAIRS {
        let mut rig = rig(pair, LDAP);
        let c = rig.client();
        let far = rig.ask(c, &get(&[("Authorization", ADA)]), true);
        let Query::Authenticate { source, user, password, .. } = rig.lookups[0].1.clone() else {
            panic!("{:?}", rig.lookups)
        };
        let CredentialSource::Directory(directory) = &*source else { panic!("{source:?}") };
        assert_eq!(directory.url(), "ldap://192.0.2.9:389");
        assert_eq!((&*user, &password), ("ada", &Secret("love".into())));
        assert!(!format!("{:?}", rig.lookups).contains("love"), "no log shows it");
        rig.answer_lookup(LookupResult::Failed("no".into()));
        let head = rig.message(far).head;
        assert!(head.starts_with("HTTP/1.1 503 ") && !head.contains("WWW-Authenticate"), "{head}");
        assert!(rig.asked().is_empty());
        rig.forget(far);
        let (status, told, head) = passed(&mut rig, &[("Authorization", ADA_WRONG)], no());
        assert_eq!((status, &*told), (401, ""));
        assert!(head.contains("WWW-Authenticate: Basic realm=\"Restricted\""), "{head}");
        let (status, told, _) = passed(&mut rig, &[("Authorization", ADA)], yes());
        assert_eq!(status, 200);
        assert!(told.contains("X-Remote-User: ada\r\n") && !told.contains("Authorization"), "{told}");
        let observed = rig.proxy.observer_mut();
        assert_eq!(observed.records, [(503, Some(Cause::LookupFailed)), (401, None), (200, None)]);
        assert_eq!(observed.users, ["", "", "ada"]);
        assert_eq!(observed.counters, [("api".to_owned(), Counter::AuthFailure)], "wrong ones only");
        nothing_left(&mut rig);
    }
}

#[test]
fn only_we_say_whose_request_it_is() {
    let spoofed = [
        ("X-Remote-User", "root"),
        ("x-remote-user", "root"),
        ("X_Remote_User", "root"),
        ("X-Remote_User", "root"),
        ("x.remote.user", "root"),
        // What a client lists here goes no further, but this is ours.
        ("Connection", "X-Remote-User"),
        ("X-Remote-Users", "other"),
    ];
    for pair in PAIRS {
        let mut rig = rig(pair, LDAP);
        let fields = [&spoofed[..], &[("Authorization", ACCENTS)]].concat();
        let (status, told, _) = passed(&mut rig, &fields, yes());
        assert_eq!(status, 200);
        assert!(!told.contains("root") && told.contains("X-Remote-User: \u{e9}\r\n"), "{told}");
        assert!(told.contains("X-Remote-Users: other\r\n"), "{told}");
    }
}

#[test]
fn authorization_passes_if_it_is_wanted() {
    for pair in PAIRS {
        let mut rig = rig(pair, &format!("{LDAP}forward_authorization = true\n"));
        let (status, told, _) = passed(&mut rig, &[("Authorization", ADA)], yes());
        assert_eq!(status, 200);
        assert!(told.contains(&format!("Authorization: {ADA}\r\n")), "{told}");
    }
}

#[test]
fn successes_are_believed_for_their_time_and_no_longer() {
    let pair = PAIRS[0];
    let cases = [(LDAP.to_owned(), 60), (format!("{LDAP}cache_time = 5\n"), 5), (list(), 60)];
    for (middlewares, secs) in cases {
        let mut rig = rig(pair, &middlewares);
        let ada = [("Authorization", ADA)];
        assert_eq!(passed(&mut rig, &ada, yes()).0, 200);
        for _ in 0..secs - 1 {
            rig.advance(Duration::from_secs(1));
            let (status, told, _) = passed(&mut rig, &ada, None);
            assert!(status == 200 && told.contains("X-Remote-User: ada\r\n"), "{told}");
        }
        // Nobody else profits.
        assert_eq!(passed(&mut rig, &[("Authorization", ADA_WRONG)], no()).0, 401);
        assert_eq!(passed(&mut rig, &[("Authorization", BOB)], no()).0, 401);
        assert_eq!(passed(&mut rig, &ada, None).0, 200);
        rig.advance(Duration::from_secs(1));
        assert_eq!(passed(&mut rig, &ada, no()).0, 401, "use has not prolonged it");
        // A failure is not kept.
        assert_eq!(passed(&mut rig, &ada, yes()).0, 200);
        let expected = usize::from(secs > 0);
        assert!(rig.proxy.observer_mut().users.iter().filter(|u| *u == "ada").count() > expected);
    }
    let mut rig = rig(pair, &format!("{LDAP}cache_time = 0\n"));
    for _ in 0..3 {
        assert_eq!(passed(&mut rig, &[("Authorization", ADA)], yes()).0, 200);
    }
}

#[test]
fn successes_outlive_a_reload_unless_the_settings_change() {
    let mut rig = rig(PAIRS[0], LDAP);
    let ada = [("Authorization", ADA)];
    assert_eq!(passed(&mut rig, &ada, yes()).0, 200);
    rig.reload(config(LDAP));
    assert_eq!(passed(&mut rig, &ada, None).0, 200);
    for changed in [
        LDAP.replace("192.0.2.9", "192.0.2.10"),
        LDAP.replace("ou=users", "ou=staff"),
        format!("{LDAP}cache_time = 61\n"),
        format!("{LDAP}bind_dn = \"cn=a\"\nbind_password = \"b\"\n"),
    ] {
        rig.reload(config(&changed));
        assert_eq!(passed(&mut rig, &ada, yes()).0, 200, "{changed}");
        assert_eq!(passed(&mut rig, &ada, None).0, 200, "{changed}");
    }
}

#[test]
fn shards_share_successes_and_the_source() {
    let shared = Arc::new(Shared::new("lb", 2));
    let mut rigs = [0, 1].map(|shard| Rig::on_shard(shard, config(LDAP), shared.clone(), PAIRS[0]));
    let ada = [("Authorization", ADA)];
    let [one, two] = &mut rigs;
    let sources = [&mut *one, &mut *two].map(|rig| {
        let c = rig.client();
        rig.ask(c, &get(&[("Authorization", BOB)]), true);
        let Query::Authenticate { source, .. } = rig.lookups[0].1.clone() else { panic!("no such lookup") };
        rig.answer_lookup(LookupResult::Authenticated(false));
        source
    });
    assert!(Arc::ptr_eq(&sources[0], &sources[1]));
    assert_eq!(passed(one, &ada, yes()).0, 200);
    assert_eq!(passed(two, &ada, None).0, 200);
}

#[test]
fn nobody_waits_for_the_credentials_of_a_client_that_has_gone() {
    for pair in PAIRS {
        for answered in [false, true] {
            let mut rig = rig(pair, LDAP);
            let c = rig.client();
            rig.ask(c, &get(&[("Authorization", ADA)]), true);
            let Query::Authenticate { wanted, .. } = rig.lookups[0].1.clone() else {
                panic!("no such lookup")
            };
            assert!(wanted.get());
            if answered {
                rig.answer_lookup(LookupResult::Authenticated(false));
            } else {
                rig.proxy.handle_fault(c, Fault::Reset, rig.now);
            }
            assert!(!wanted.get(), "{answered}");
        }
    }
}

#[test]
fn realms_are_quoted() {
    let mut rig = rig(PAIRS[0], &list());
    let (status, _, head) = passed(&mut rig, &[], None);
    assert_eq!(status, 401);
    let asked = r#"WWW-Authenticate: Basic realm="a \"b\" \\c", charset="UTF-8""#;
    assert!(head.contains(asked), "{head}");
}

#[test]
fn a_file_that_is_not_there_lets_nobody_in() {
    let text = "[backend_pools.middlewares.BasicAuth]\nusers_file = \"users\"\n";
    let mut rig = rig(PAIRS[0], text);
    assert_eq!(passed(&mut rig, &[("Authorization", ADA)], None).0, 500);
}
