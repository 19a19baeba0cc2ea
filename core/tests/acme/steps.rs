//! What follows each outcome.

use std::cell::RefCell;
use std::rc::Rc;

use ruststrom_core::acme::{
    Action, AuthorizationStatus, Challenge, Kept, LETS_ENCRYPT, LETS_ENCRYPT_STAGING, Limits, Order,
    OrderStatus, Outcome, Problem, ProblemKind, RenewalInfo, Settings, Step, Stored,
};
use ruststrom_core::config;

use super::bench::{
    Answer, Bench, DAY, HOUR, START, authorization, certificate, failed, order, refused, settings,
};

const GOOD: &str = "TakeLease, Save, account, Save, new order, Save, authorizations, Save, http-01 a.example, \
                    poll, Save, finalize, download, Store, Serve, Save, ReleaseLease";

fn empty() -> Bench {
    Bench::new(settings(&["a.example"]), Stored::default())
}

fn with(stored: ruststrom_core::acme::StoredCertificate) -> Stored {
    Stored { certificate: Kept::Whole(stored), account: true, ..Stored::default() }
}

/// Only the first `times` times that an action has this label, `outcome` is its outcome.
fn first(times: usize, wanted: &'static str, outcome: Outcome) -> Answer {
    let mut left = times;
    Box::new(move |action, _| {
        let label = match action {
            Action::Step(step) => step.label().to_owned(),
            other => format!("{other:?}"),
        };
        (label == wanted && left > 0).then(|| {
            left -= 1;
            outcome.clone()
        })
    })
}

#[test]
fn all_goes_well() {
    let mut bench = empty();
    bench.run(60);
    assert_eq!(bench.done(0), GOOD);
    assert_eq!(bench.notes().len(), 2);
    assert!(bench.log.last().unwrap().0 <= START + 3, "within seconds");
    bench.log.clear();
    bench.run(50 * DAY);
    assert_eq!(bench.done(0), "", "then it only looks into the folder");
    bench.run(15 * DAY);
    assert_eq!(bench.done(0), GOOD.replace("Save, account, Save", "account, Save"));
    assert_eq!(bench.served.as_ref().unwrap().not_before, bench.log[0].0 + 1);
}

#[test]
fn a_step_that_fails_for_a_moment_is_repeated() {
    use ProblemKind::{BadNonce, Busy, Unreachable};
    // (step, problem, how often, is it repeated at once)
    for (step, kind, times, repeated) in [
        ("account", BadNonce, 6, true),
        ("new order", BadNonce, 6, true),
        ("new order", BadNonce, 7, false),
        ("finalize", BadNonce, 6, true),
        ("account", Unreachable, 3, true),
        ("account", Unreachable, 4, false),
        ("authorizations", Busy, 3, true),
        ("validate", Unreachable, 3, true),
        ("poll", Unreachable, 3, true),
        ("download", Busy, 3, true),
        ("download", Busy, 4, false),
        // It may have been made.
        ("new order", Unreachable, 1, false),
        ("new order", Busy, 1, false),
    ] {
        let mut bench = empty();
        bench.answer = first(times, step, failed(kind, None));
        let done = bench.until(if repeated { "Store" } else { "ReleaseLease" });
        assert!(done < START + 300, "{step} {kind:?} {times}");
        assert_eq!(bench.count("Store"), usize::from(repeated), "{step} {kind:?} {times}");
        let orders = 1 + if step == "new order" { times - usize::from(!repeated) } else { 0 };
        assert_eq!(bench.count("new order"), if step == "account" && !repeated { 0 } else { orders });
        bench.run(HOUR);
        assert_eq!(bench.count("Store"), 1, "{step} {kind:?} {times}: a minute later it goes well");
    }
}

#[test]
fn a_finalized_order_is_read_before_it_is_finalized_again() {
    let mut bench = empty();
    let finalized = Rc::new(RefCell::new(false));
    let seen = finalized.clone();
    bench.answer = Box::new(move |action, _| match action {
        Action::Step(Step::Finalize) => {
            *seen.borrow_mut() = true;
            Some(failed(ProblemKind::Unreachable, None))
        }
        // It had arrived.
        Action::Step(Step::Poll) if *seen.borrow() => Some(order(OrderStatus::Valid)),
        _ => None,
    });
    bench.until("Store");
    assert_eq!((bench.count("finalize"), bench.count("poll")), (1, 2));
}

#[test]
fn how_long_it_waits() {
    use ProblemKind::{BadAnswer, Busy, RateLimited, Rejected, Unreachable};
    // (step, problem, `Retry-After`, seconds until the next attempt: from, to)
    for (step, kind, retry_after, from, to) in [
        ("account", Rejected, None, 60, 70),
        ("account", RateLimited, Some(3 * HOUR), 3 * HOUR, 3 * HOUR + 10),
        ("new order", RateLimited, Some(2 * DAY), 2 * DAY, 2 * DAY + 10),
        ("new order", RateLimited, Some(u64::MAX), 7 * DAY, 7 * DAY + 10),
        ("new order", RateLimited, Some(1), 60, 70),
        ("new order", Unreachable, None, 60, 70),
        ("finalize", Busy, Some(HOUR), HOUR, HOUR + 10),
        ("download", BadAnswer, None, 60, 70),
    ] {
        let mut bench = empty();
        bench.answer = first(1, step, failed(kind, retry_after));
        let failed_at = bench.until("ReleaseLease");
        // A restart changes nothing.
        bench.restart();
        let next = bench.until("TakeLease") - failed_at;
        assert!((from..=to).contains(&next), "{step} {kind:?} {retry_after:?}: {next}");
        bench.run(HOUR);
        assert_eq!(bench.count("Store"), 1, "{step} {kind:?}");
    }
}

#[test]
fn waits_grow_up_to_a_day_and_to_an_hour_if_nobody_answers() {
    for (kind, most) in [(ProblemKind::Rejected, DAY), (ProblemKind::Unreachable, HOUR)] {
        let mut bench = empty();
        bench.answer = first(usize::MAX, "account", failed(kind, None));
        let mut last = bench.until("ReleaseLease");
        let mut expected = 60;
        for n in 0..14 {
            let next = bench.until("TakeLease");
            let wait = next - last;
            let fits = (expected * 9 / 10..=expected * 11 / 10 + 2).contains(&wait);
            assert!(fits && wait >= 60 && wait <= most, "{kind:?} {n}: {wait}, not about {expected}");
            last = bench.until("ReleaseLease");
            expected = (expected * 2).min(most);
            if n == 5 {
                bench.restart();
            }
        }
        let text = serde_json::to_string(bench.ledger()).unwrap();
        assert!(text.len() < 5_000, "it is bounded: {text}");
    }
}

#[test]
fn near_its_end_a_certificate_is_tried_for_more_often() {
    // It has 20 hours left.
    let mut bench = Bench::new(
        settings(&["a.example"]),
        with(certificate("old", &["a.example"], START + 20 * HOUR - 90 * DAY)),
    );
    bench.answer = first(usize::MAX, "account", failed(ProblemKind::Rejected, None));
    let mut attempts = Vec::new();
    while bench.now < START + 20 * HOUR {
        attempts.push(bench.until("account"));
    }
    let longest = attempts.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(longest <= 5 * HOUR && attempts.len() > 12, "{longest}, {} attempts", attempts.len());
    let last = attempts.iter().rev().find(|&&at| at < START + 20 * HOUR).unwrap();
    assert!(START + 20 * HOUR - last < HOUR, "one is shortly before the end");
}

#[test]
fn validations_that_fail() {
    let mut bench = empty();
    // Read from the order afterwards: what has failed is what was tried.
    let tried = Rc::new(RefCell::new(None));
    let (validated, asked) = (tried.clone(), tried);
    bench.answer = Box::new(move |action, _| match action {
        Action::Step(Step::Validate { challenge, .. }) => {
            *validated.borrow_mut() = Some(*challenge);
            None
        }
        Action::Step(Step::Poll) => Some(order(OrderStatus::Invalid)),
        Action::Step(Step::NewOrder { .. }) => {
            *asked.borrow_mut() = None;
            None
        }
        Action::Step(Step::Authorizations) => {
            let challenge = (*asked.borrow())?;
            Some(Outcome::Authorizations(vec![refused("a.example", challenge, "connection")]))
        }
        _ => None,
    });
    let mut attempts = Vec::new();
    for _ in 0..12 {
        let at = bench.until("new order");
        bench.until("ReleaseLease");
        attempts.push((at, bench.log.iter().rfind(|(_, l)| l.contains("-01")).unwrap().1.clone()));
    }
    let kinds: Vec<&str> = attempts.iter().map(|(_, label)| label.split(' ').next().unwrap()).collect();
    assert_eq!(kinds[..4], ["http-01", "tls-alpn-01", "http-01", "tls-alpn-01"], "each is tried in turn");
    assert!(attempts[1].0 - attempts[0].0 < 10, "the other challenge is tried at once");
    assert!(attempts[2].0 - attempts[1].0 >= 60, "and then there is a pause");
    for (n, (at, _)) in attempts.iter().enumerate() {
        let within = attempts.iter().filter(|(other, _)| other >= at && *other < at + HOUR).count();
        assert!(within <= 5, "{within} validations within an hour from attempt {n}");
    }
    assert_eq!(bench.count("new order"), 12, "each failure ends its order");
    let last = bench.ledger().last_failure(&settings(&["a.example"])).unwrap();
    assert_eq!((&*last.step, last.kind), ("validate", ProblemKind::Validation));
    assert_eq!(last.name.as_deref(), Some("a.example"));
    assert_eq!(&*last.text, "connection: Connection refused");
    let notes = bench.notes().join("\n");
    assert!(
        notes.contains("a.example: port 80 of a.example was not reached from ca.example: Connection refused")
    );
    assert!(notes.contains("port 443 of a.example was not reached"), "{notes}");
}

#[test]
fn which_challenge() {
    use Challenge::{Http01, TlsAlpn01};
    // (what can be answered, what is offered, what is done)
    let table: [(&[Challenge], &[Challenge], &str); 6] = [
        (&[Http01, TlsAlpn01], &[TlsAlpn01, Http01], "http-01 a.example"),
        (&[Http01, TlsAlpn01], &[TlsAlpn01], "tls-alpn-01 a.example"),
        (&[TlsAlpn01], &[Http01, TlsAlpn01], "tls-alpn-01 a.example"),
        (&[Http01], &[Http01, TlsAlpn01], "http-01 a.example"),
        (&[Http01], &[TlsAlpn01], "ReleaseLease"),
        (&[], &[Http01], "ReleaseLease"),
    ];
    for (answered, offered, done) in table {
        let settings = Settings { challenges: answered.to_vec(), ..settings(&["a.example"]) };
        let mut bench = Bench::new(settings, Stored::default());
        let mut authorization = authorization("a.example", AuthorizationStatus::Pending);
        authorization.offered = offered.to_vec();
        bench.answer = Box::new(move |action, _| {
            let list = || Outcome::Authorizations(vec![authorization.clone()]);
            matches!(action, Action::Step(Step::Authorizations)).then(list)
        });
        bench.until("authorizations");
        bench.until(done);
        let wrong = if done == "ReleaseLease" { 0 } else { 1 };
        assert_eq!(bench.log.iter().filter(|(_, label)| label.contains("-01")).count(), wrong, "{done}");
    }
}

#[test]
fn what_worked_is_tried_first_the_next_time() {
    let mut bench = empty();
    let refuse = Rc::new(RefCell::new(false));
    let asked = refuse.clone();
    bench.answer = Box::new(move |action, _| match action {
        Action::Step(Step::Validate { challenge: Challenge::Http01, .. }) => {
            *refuse.borrow_mut() = true;
            Some(Outcome::Done)
        }
        Action::Step(Step::Poll) if *asked.borrow() => Some(order(OrderStatus::Invalid)),
        Action::Step(Step::Authorizations) if asked.replace(false) => {
            Some(Outcome::Authorizations(vec![refused("a.example", Challenge::Http01, "connection")]))
        }
        _ => None,
    });
    bench.until("Store");
    assert_eq!((bench.count("http-01"), bench.count("tls-alpn-01")), (1, 1));
    bench.run(70 * DAY);
    assert_eq!((bench.count("http-01"), bench.count("tls-alpn-01"), bench.count("Store")), (1, 2, 2));
}

#[test]
fn authorizations_that_are_valid_already_are_not_validated() {
    let mut bench = Bench::new(settings(&["a.example", "b.example"]), Stored::default());
    bench.answer = Box::new(|action, _| {
        matches!(action, Action::Step(Step::Authorizations)).then(|| {
            Outcome::Authorizations(vec![
                authorization("a.example", AuthorizationStatus::Valid),
                authorization("b.example", AuthorizationStatus::Pending),
            ])
        })
    });
    bench.until("Store");
    assert_eq!((bench.count("http-01 a.example"), bench.count("http-01 b.example")), (0, 1));
    let mut bench = empty();
    bench.answer = first(1, "new order", order(OrderStatus::Ready));
    bench.until("Store");
    assert_eq!((bench.count("authorizations"), bench.count("http-01")), (0, 0));
}

#[test]
fn certificates_that_are_not_what_was_ordered_are_not_used() {
    let good = certificate("c", &["a.example"], START);
    let table = [
        (good.clone(), false, "the certificate is for another key"),
        (certificate("c", &["b.example"], START), true, "the certificate is not for a.example"),
        (certificate("c", &["a.example"], START - 91 * DAY), true, "the certificate has expired already"),
        (certificate("c", &["a.example"], START + 3 * DAY), true, "is not valid before tomorrow"),
    ];
    for (certificate, key_fits, text) in table {
        let mut bench = empty();
        bench.answer = first(1, "download", Outcome::Certificate { certificate, key_fits });
        bench.until("ReleaseLease");
        assert_eq!((bench.count("Store"), bench.count("Serve")), (0, 0), "{text}");
        assert!(bench.notes().join("\n").contains(text), "{text}");
        bench.run(HOUR);
        assert_eq!((bench.count("Store"), bench.count("new order")), (1, 2), "{text}: ordered anew");
    }
}

#[test]
fn an_order_goes_on_after_a_kill_at_any_action() {
    for actions in 0..18 {
        let mut bench = empty();
        while bench.log.len() < actions {
            bench.step(u64::MAX);
        }
        // With and without the outcome of the last action: that action has been done, in any case.
        bench.restart();
        bench.run(400);
        assert!(matches!(bench.folder.certificate, Kept::Whole(_)), "killed after {actions} actions");
        assert!(bench.served.is_some());
        assert!(bench.count("new order") <= 2 && bench.count("finalize") <= 2, "{}", bench.done(0));
        let (new, finalized) = (bench.count("new order"), bench.count("finalize"));
        if bench.log[..actions].iter().any(|(_, label)| label == "authorizations") {
            assert_eq!(new, 1, "the order is gone on with: {}", bench.done(0));
        }
        if actions > 0 && bench.log[..actions].iter().any(|(_, label)| label == "download") {
            assert_eq!(finalized, 1, "{}", bench.done(0));
        }
        assert_eq!(bench.ledger().last_failure(&settings(&["a.example"])), None);
    }
}

#[test]
fn an_order_or_an_account_that_has_gone_is_made_anew() {
    let mut bench = empty();
    bench.until("authorizations");
    bench.restart();
    bench.answer = first(1, "resume", failed(ProblemKind::NoOrder, None));
    bench.until("Store");
    assert_eq!((bench.count("resume"), bench.count("new order")), (1, 2));

    let mut bench = empty();
    bench.folder.account = true;
    bench.answer = first(1, "new order", failed(ProblemKind::NoAccount, None));
    bench.until("Store");
    assert_eq!((bench.count("account"), bench.count("new order")), (2, 2));
    assert!(bench.notes()[1].contains("ca.example does not know the account"));

    let mut bench = empty();
    bench.answer = first(1, "download", failed(ProblemKind::NoKey, None));
    bench.run(HOUR);
    assert_eq!((bench.count("new order"), bench.count("Store")), (2, 1));
}

#[test]
fn the_lease() {
    // Another one has it.
    let mut bench = empty();
    bench.answer = first(5, "TakeLease", Outcome::LeaseHeld);
    bench.until("Store");
    let taken: Vec<u64> = bench.log.iter().filter(|(_, l)| l == "TakeLease").map(|(at, _)| *at).collect();
    assert_eq!(taken.len(), 6);
    assert!(taken.windows(2).all(|pair| (2..=6).contains(&(pair[1] - pair[0]))), "{taken:?}");

    // When it becomes free, it may be asked for at once.
    let mut bench = empty();
    bench.answer = first(1, "TakeLease", Outcome::LeaseHeld);
    bench.step(START);
    assert!(!bench.step(START));
    bench.manager.lease_released();
    assert_eq!(bench.manager.poll(START), Action::TakeLease);

    // It is renewed while half of it is left.
    let mut bench = empty();
    bench.answer = Box::new(|action, _| match action {
        Action::Step(Step::Poll) => Some(Outcome::Order(Order {
            url: "https://ca.example/order/1".into(),
            status: OrderStatus::Pending,
            retry_after: Some(50),
            problem: None,
        })),
        _ => None,
    });
    bench.until("ReleaseLease");
    let mut lease = 0;
    for (at, label) in &bench.log {
        if label == "TakeLease" || label == "RenewLease" {
            lease = at + 120;
        } else if label != "ReleaseLease" {
            assert!(lease - at >= 60, "{label} with {} seconds left", lease - at);
        }
    }
    assert!(bench.count("RenewLease") >= 4 && bench.now >= START + 250, "{}", bench.done(0));

    // It was lost: nothing more is asked.
    for label in ["Save", "RenewLease", "Store"] {
        let mut bench = empty();
        let lost = failed(ProblemKind::LeaseLost, None);
        let mut first = first(1, label, lost);
        bench.answer = Box::new(move |action, now| {
            let slow = matches!(action, Action::Step(Step::Poll)).then(|| order(OrderStatus::Pending));
            first(action, now).or(if label == "RenewLease" { slow } else { None })
        });
        bench.until(label);
        bench.until("TakeLease");
        let place = bench.log.iter().position(|(_, done)| done == label).unwrap();
        assert_eq!(bench.log[place + 1].1, "TakeLease", "after {label}");
    }

    // The process was stopped for longer than the lease: what was learnt is dropped.
    let mut bench = empty();
    bench.until("new order");
    let action = bench.manager.poll(bench.now);
    assert_eq!(action, Action::Save);
    bench.now += 1000;
    bench.manager.handle(bench.now, Outcome::Done);
    assert_eq!(bench.manager.poll(bench.now), Action::TakeLease);
}

#[test]
fn a_folder_that_cannot_be_written() {
    // Nothing is asked that could not be noted.
    let mut bench = empty();
    bench.answer = first(3, "Save", failed(ProblemKind::Disk, None));
    let mut asked = bench.until("account");
    asked -= START;
    assert!((60 + 120 + 240 - 45..600).contains(&asked), "{asked}");
    assert_eq!(
        bench.done(0),
        "TakeLease, Save, ReleaseLease, TakeLease, Save, ReleaseLease, TakeLease, Save, ReleaseLease, TakeLease, Save, account"
    );
    assert!(bench.notes().join("\n").contains("nothing is ordered before that can be written"));

    // A certificate that can't be stored is used all the same, and stored later: it is not ordered again.
    let mut bench = empty();
    bench.answer = first(2, "Store", failed(ProblemKind::Disk, None));
    bench.until("Serve");
    let served = bench.served.clone().expect("it is used");
    assert!(matches!(bench.folder.certificate, Kept::Nothing));
    bench.run(50);
    assert_eq!(bench.served.as_ref(), Some(&served), "looking into the folder changes nothing");
    bench.run(HOUR);
    assert!(matches!(bench.folder.certificate, Kept::Whole(_)));
    assert_eq!((bench.count("new order"), bench.count("finalize"), bench.count("resume")), (1, 1, 2));
    assert_eq!(bench.served, bench.folder.certificate.clone().whole());
}

#[test]
fn damaged_files() {
    let damaged = Kept::Damaged("acme/a.example.pem: the key is of another certificate".into());
    let mut bench =
        Bench::new(settings(&["a.example"]), Stored { certificate: damaged, ..Stored::default() });
    bench.run(60);
    assert_eq!(bench.done(0), GOOD);
    let notes = bench.notes();
    assert_eq!(
        notes[0],
        "a.example: acme/a.example.pem: the key is of another certificate; the certificate is ordered anew"
    );
    assert_eq!(notes.iter().filter(|note| note.contains("another certificate;")).count(), 1, "said once");

    // Without a ledger nothing is known of what was asked: one attempt.
    let ledger = Kept::Damaged("acme/ledger.json: not JSON".into());
    let mut bench = Bench::new(settings(&["a.example"]), Stored { ledger, ..Stored::default() });
    bench.answer = Box::new(|action, _| match action {
        Action::Step(Step::Poll) => Some(order(OrderStatus::Invalid)),
        _ => None,
    });
    bench.run(HOUR);
    assert_eq!(bench.count("http-01") + bench.count("tls-alpn-01"), 1, "{}", bench.done(0));
    assert!(bench.notes()[0].starts_with("acme/ledger.json: not JSON; a new one is begun"));
}

#[test]
fn a_reload() {
    // The same settings: the order goes on.
    for actions in 0..17 {
        let mut bench = empty();
        while bench.log.len() < actions {
            bench.step(u64::MAX);
        }
        let pending = bench.manager.poll(bench.now);
        bench.manager.reconfigure(settings(&["a.example"]));
        if !matches!(pending, Action::Wait(_)) {
            // An action that was handed out before is done after.
            assert_eq!(bench.manager.poll(bench.now), Action::Wait(u64::MAX));
            continue;
        }
        bench.run(60);
        assert_eq!(bench.done(0), GOOD, "reload after {actions} actions");
    }
    for (names, ordered) in [(vec!["a.example", "new.example"], true), (vec!["a.example"], false)] {
        let old = certificate("old", &["a.example", "b.example"], START);
        let mut bench = Bench::new(settings(&["a.example", "b.example"]), with(old.clone()));
        bench.run(DAY);
        assert_eq!(bench.done(0), "");
        bench.manager.reconfigure(settings(&names));
        bench.until("new order");
        if ordered {
            assert!(bench.now <= START + DAY + 10, "a new name is ordered at once");
            assert_eq!(bench.served.as_ref(), Some(&old), "and the certificate used until there is another");
            bench.until("ReleaseLease");
            assert_eq!(bench.served.as_ref().unwrap().names.len(), 2);
        } else {
            assert!(bench.now > START + 50 * DAY, "a name that was removed goes with the next renewal");
        }
    }
    // In the middle of an order for other names.
    for actions in 1..16 {
        let mut bench = empty();
        while bench.log.len() < actions {
            bench.step(u64::MAX);
        }
        bench.manager.reconfigure(settings(&["a.example", "b.example"]));
        bench.run(HOUR);
        let names = bench.served.as_ref().map(|c| c.names.len());
        assert_eq!(names, Some(2), "reload after {actions} actions: {}", bench.done(0));
        let leases = bench.count("TakeLease");
        assert_eq!(bench.count("ReleaseLease"), leases, "the lease is given back");
    }
}

#[test]
fn an_order_for_another_kind_of_certificate_is_not_gone_on_with() {
    let change: [fn(&mut Settings); 3] = [
        |s| s.key_type = config::AcmeKeyType::P384,
        |s| s.profile = Some("shortlived".into()),
        |s| s.email = "other@example.com".into(),
    ];
    for change in change {
        let mut bench = empty();
        bench.until("authorizations");
        let mut settings = settings(&["a.example"]);
        change(&mut settings);
        bench.manager.reconfigure(settings);
        bench.until("Store");
        assert_eq!((bench.count("new order"), bench.count("resume")), (2, 0));
    }
}

#[test]
fn when_an_order_is_read_again() {
    // (its state, `Retry-After`, seconds until it is read again)
    for (status, retry_after, pause) in [
        (OrderStatus::Pending, None, 1),
        (OrderStatus::Pending, Some(0), 1),
        (OrderStatus::Pending, Some(7), 7),
        (OrderStatus::Pending, Some(200), 200),
        (OrderStatus::Processing, Some(60), 60),
        // Others may have the lease in the meantime.
        (OrderStatus::Processing, Some(61), 61),
        (OrderStatus::Processing, Some(DAY), DAY),
        (OrderStatus::Pending, Some(HOUR), HOUR),
        (OrderStatus::Processing, Some(u64::MAX), 7 * DAY),
    ] {
        let url = "https://ca.example/order/1".into();
        let told = Outcome::Order(Order { url, status, retry_after, problem: None });
        let mut bench = empty();
        let step = if status == OrderStatus::Pending { "poll" } else { "finalize" };
        let mut told = Some(told);
        bench.answer = Box::new(move |action, _| match action {
            Action::Step(asked) if asked.label() == step && told.is_some() => told.take(),
            Action::Step(Step::Poll | Step::Resume { .. }) if told.is_none() => {
                let pending = status == OrderStatus::Pending;
                Some(order(if pending { OrderStatus::Ready } else { OrderStatus::Valid }))
            }
            _ => None,
        });
        let at = bench.until(step);
        let from = bench.log.len();
        bench.until("Store");
        let read = bench.log[from..].iter().find(|(_, label)| label == "poll" || label == "resume");
        let after = read.unwrap().0 - at;
        assert!((pause..pause + 10).contains(&after), "{status:?} {retry_after:?}: {after}");
        let alone = pause > 60 && status == OrderStatus::Processing || pause > 300;
        assert_eq!(bench.count("ReleaseLease"), usize::from(alone), "{status:?} {retry_after:?}");
        assert_eq!(bench.ledger().last_failure(&settings(&["a.example"])), None);
    }
}

#[test]
fn another_authority_or_account() {
    type Change = fn(&mut Settings);
    let change: [(Change, bool); 4] = [
        (|s| s.directory = "https://other.example/dir".into(), true),
        (|s| s.email = "other@example.com".into(), false),
        (|s| s.key_type = config::AcmeKeyType::P384, false),
        (|s| s.challenges.truncate(1), false),
    ];
    for (change, ordered) in change {
        let mut bench = empty();
        bench.run(DAY);
        let mut settings = settings(&["a.example"]);
        change(&mut settings);
        bench.manager.reconfigure(settings);
        bench.log.clear();
        bench.run(DAY);
        assert_eq!(bench.count("Store"), usize::from(ordered));
    }
}

#[test]
fn by_hand() {
    let mut bench = empty();
    bench.run(DAY);
    bench.manager.renew();
    bench.log.clear();
    bench.run(60);
    assert_eq!(bench.count("Store"), 1);
    bench.run(DAY);
    assert_eq!(bench.count("Store"), 1, "once");

    // It does not wait for the backoff, but for what the authority has said.
    for (retry_after, at_once) in [(None, true), (Some(HOUR), false)] {
        let mut bench = empty();
        bench.answer = first(1, "new order", failed(ProblemKind::RateLimited, retry_after));
        bench.until("ReleaseLease");
        bench.manager.renew();
        bench.run(30);
        assert_eq!(bench.count("Store"), usize::from(at_once), "{retry_after:?}");
        bench.run(HOUR);
        assert_eq!(bench.count("Store"), 1, "{retry_after:?}");
    }
}

/// An order that is to be read later is not one that has failed, even if others may have the lease meanwhile.
#[test]
fn an_order_by_hand_may_pause() {
    let pausing = |status, retry_after| {
        let url = "https://ca.example/order/1".into();
        Outcome::Order(Order { url, status, retry_after: Some(retry_after), problem: None })
    };
    // (step, its outcome, whether the order goes on)
    for (step, outcome, goes_on) in [
        ("finalize", pausing(OrderStatus::Processing, 40), true),
        ("finalize", pausing(OrderStatus::Processing, HOUR), true),
        ("finalize", failed(ProblemKind::Busy, Some(HOUR)), false),
        ("new order", failed(ProblemKind::RateLimited, Some(HOUR)), false),
        ("new order", failed(ProblemKind::Rejected, None), false),
    ] {
        let mut bench = empty();
        bench.run(DAY);
        bench.log.clear();
        bench.answer = first(1, step, outcome);
        bench.manager.renew();
        bench.run(30);
        assert_eq!((bench.count(step), bench.count("Store")), (1, 0), "{step}");
        assert_eq!(bench.manager.is_renewing(), goes_on, "{step}");
        bench.run(2 * HOUR);
        assert!(!bench.manager.is_renewing(), "{step}");
    }
}

/// What is done between two looks at an order does not make the second one come too early.
#[test]
fn an_order_is_not_read_before_its_time() {
    let mut bench = empty();
    let outcome = |status, retry_after| {
        let url = "https://ca.example/order/1".into();
        Outcome::Order(Order { url, status, retry_after, problem: None })
    };
    bench.answer = first(1, "new order", outcome(OrderStatus::Pending, Some(77)));
    let validated = bench.until("http-01 a.example");
    assert!(bench.until("poll") >= validated + 70);
    bench.until("Store");
}

#[test]
fn retired() {
    for actions in 0..17 {
        let mut bench = empty();
        while bench.log.len() < actions {
            bench.step(u64::MAX);
        }
        bench.manager.retire();
        for _ in 0..10 {
            bench.step(START + DAY);
        }
        assert_eq!(bench.manager.poll(bench.now), Action::Wait(u64::MAX));
        assert_eq!(
            bench.count("TakeLease"),
            bench.count("ReleaseLease"),
            "after {actions}: {}",
            bench.done(0)
        );
        assert!(bench.log.len() <= actions + 1, "after {actions}: {}", bench.done(0));
    }
}

#[test]
fn windows_of_the_authority() {
    let renewal_info = |start: u64, end: u64, retry_after| {
        Outcome::RenewalInfo(Some(RenewalInfo { start, end, retry_after, explanation: None }))
    };
    let old = || {
        let mut old = certificate("old", &["a.example"], START);
        old.ari_id = Some("ari-old".into());
        old
    };
    let (third, end) = (30 * DAY, 90 * DAY);
    // (window, when it is renewed: from, to)
    for (start, until, from, to) in [
        (START + 40 * DAY, START + 42 * DAY, 40 * DAY, 42 * DAY + 60),
        (START + 70 * DAY, START + 71 * DAY, 70 * DAY, 71 * DAY + 60),
        // At once, but not sooner than a fiftieth of its life.
        (START - DAY, START - DAY + 1, 90 * DAY / 50, 90 * DAY / 50 + DAY + 60),
        (0, 1, 90 * DAY / 50, 90 * DAY / 50 + DAY + 60),
        // Never.
        (u64::MAX - 2, u64::MAX, 81 * DAY, 81 * DAY + 60),
        // No window at all: at two thirds.
        (START + 50 * DAY, START + 50 * DAY, 2 * third - 2 * DAY, 2 * third + 2 * DAY),
        (START + 51 * DAY, START + 50 * DAY, 2 * third - 2 * DAY, 2 * third + 2 * DAY),
    ] {
        let mut bench = Bench::new(settings(&["a.example"]), with(old()));
        let info = renewal_info(start, until, Some(6 * HOUR));
        bench.answer = Box::new(move |action, _| {
            matches!(action, Action::Step(Step::RenewalInfo { .. })).then(|| info.clone())
        });
        let at = bench.until("new order") - START;
        assert!((from..=to).contains(&at) && at < end, "{start}..{until}: {at}");
        let windowed = start < until;
        assert_eq!(
            bench.count("new order for ari-old"),
            usize::from(windowed),
            "`replaces`: {start}..{until}"
        );
        let asked: Vec<u64> =
            bench.log.iter().filter(|(_, l)| l == "renewal info").map(|(at, _)| *at).collect();
        assert!(asked[0] == START && asked.windows(2).all(|pair| pair[1] - pair[0] >= 6 * HOUR));
    }
    // The chosen time stays the same while the window does, over restarts; a new window counts.
    let window = Rc::new(RefCell::new((START + 40 * DAY, START + 50 * DAY)));
    let asked = window.clone();
    let mut bench = Bench::new(settings(&["a.example"]), with(old()));
    bench.answer = Box::new(move |action, _| {
        let (start, end) = *asked.borrow();
        matches!(action, Action::Step(Step::RenewalInfo { .. })).then(|| renewal_info(start, end, None))
    });
    bench.run(DAY);
    let chosen = bench.manager.renews_at();
    for _ in 0..20 {
        bench.restart();
        bench.run(DAY / 2);
        assert_eq!(bench.manager.renews_at(), chosen);
    }
    *window.borrow_mut() = (START + 20 * DAY, START + 21 * DAY);
    bench.run(DAY);
    assert!((START + 20 * DAY..START + 21 * DAY).contains(&bench.manager.renews_at()));
    // `Retry-After` of windows is kept within a minute and a day.
    for (retry_after, pause) in [(Some(0), 60), (Some(u64::MAX), DAY), (Some(7200), 7200), (None, 6 * HOUR)] {
        let mut bench = Bench::new(settings(&["a.example"]), with(old()));
        bench.answer = Box::new(move |action, _| {
            let info = || renewal_info(START + 40 * DAY, START + 50 * DAY, retry_after);
            matches!(action, Action::Step(Step::RenewalInfo { .. })).then(info)
        });
        let (one, two) = (bench.until("renewal info"), bench.until("renewal info"));
        assert_eq!(two - one, pause, "{retry_after:?}");
    }
    // It does not say: that fails nothing.
    let mut bench = Bench::new(settings(&["a.example"]), with(old()));
    bench.answer = first(usize::MAX, "renewal info", failed(ProblemKind::Unreachable, None));
    let at = bench.until("new order") - START;
    assert!((58 * DAY..62 * DAY).contains(&at), "{at}");
    // The certificate was replaced by another order, which is not known here.
    let mut bench = Bench::new(settings(&["a.example"]), with(old()));
    bench.answer = Box::new(move |action, _| match action {
        Action::Step(Step::RenewalInfo { .. }) => Some(renewal_info(0, 1, None)),
        Action::Step(Step::NewOrder { replaces: Some(_) }) => {
            Some(failed(ProblemKind::AlreadyReplaced, None))
        }
        _ => None,
    });
    bench.until("Store");
    assert_eq!(bench.count("new order"), 2);
    assert_eq!(bench.ledger().last_failure(&settings(&["a.example"])), None);
}

#[test]
fn certificates_of_a_minute_are_always_valid() {
    for seed in 0..3 {
        let mut bench = empty();
        let mut issued = 0;
        bench.answer = Box::new(move |action, now| {
            matches!(action, Action::Step(Step::Download)).then(|| {
                issued += 1;
                let mut certificate = certificate(&format!("{seed}-{issued}"), &["a.example"], now);
                certificate.not_after = now + 60;
                Outcome::Certificate { certificate, key_fits: true }
            })
        });
        // The limits of Let's Encrypt are not for these.
        let other = Settings { limits: Limits::OTHERS, ..settings(&["a.example"]) };
        bench.manager.reconfigure(other);
        bench.run(20);
        let end = START + 6 * HOUR;
        while bench.now < end {
            bench.step(end);
            let served = bench.served.as_ref().expect("a certificate");
            assert!(bench.now < served.not_after, "it has expired at {}", bench.now - START);
        }
        let count = bench.count("Store");
        assert!((6 * 60 * 60 / 45..6 * 60 * 60 / 36).contains(&count), "{count}");
    }
}

#[test]
fn limits_are_kept_whatever_is_asked() {
    let limits = Limits { orders: 4, duplicates: 3, ..Limits::LETS_ENCRYPT };
    let set = Settings { limits, ..settings(&["a.example"]) };
    let mut bench = Bench::new(set.clone(), Stored::default());
    for _ in 0..400 {
        bench.manager.renew();
        bench.run(HOUR / 2);
    }
    let times = |bench: &Bench, label: &str| {
        bench.log.iter().filter(|(_, l)| l == label).map(|(at, _)| *at).collect::<Vec<u64>>()
    };
    let most = |times: &[u64], window: u64| {
        times.iter().map(|from| times.iter().filter(|at| (*from..from + window).contains(at)).count()).max()
    };
    let stored = times(&bench, "Store");
    assert_eq!((most(&stored, 7 * DAY), stored.len()), (Some(3), 6), "the limit is used");
    // Orders, which go wrong at the end.
    let mut bench = Bench::new(set, Stored::default());
    bench.answer = first(usize::MAX, "authorizations", failed(ProblemKind::Rejected, None));
    for _ in 0..400 {
        bench.manager.renew();
        bench.run(60);
    }
    let ordered = times(&bench, "new order");
    assert_eq!(most(&ordered, 3 * HOUR), Some(4));
    assert!(ordered.len() >= 8, "{ordered:?}");
}

#[test]
fn the_clock_is_set() {
    // Years ahead, and back again.
    let mut bench = empty();
    bench.run(DAY);
    bench.now += 3650 * DAY;
    bench.answer = first(usize::MAX, "account", failed(ProblemKind::Rejected, None));
    bench.run(5 * DAY);
    bench.now = START + 2 * DAY;
    bench.log.clear();
    bench.answer = Box::new(|_, _| None);
    bench.run(2 * DAY);
    assert_eq!(bench.count("Store"), 0, "the certificate is not due: {}", bench.done(0));
    bench.manager.renew();
    bench.run(DAY);
    assert_eq!(bench.count("Store"), 1, "and can be renewed");
    // Back in the middle of an order.
    for actions in 1..17 {
        let mut bench = empty();
        while bench.log.len() < actions {
            bench.step(u64::MAX);
        }
        bench.now -= 1000 * DAY;
        bench.run(2 * DAY);
        let ok = matches!(bench.folder.certificate, Kept::Whole(_));
        assert!(ok, "set back after {actions} actions: {}", bench.done(0));
    }
}

#[test]
fn settings_of_a_configuration() {
    let text = "http_address = '[::]:80'\nhttps_address = '[::]:443'\n\
        [certificates.'b.example']\nACME = { email = 'a@b', persist_dir = 'p', names = ['www.b.example', 'a.example'] }\n\
        [certificates.'c.example']\nACME = { email = 'a@b', persist_dir = 'p', staging = true, key_type = 'P-384', profile = 'x' }\n\
        [certificates.'d.example']\nACME = { email = 'a@b', persist_dir = 'p', directory_url = 'https://ca.example/d' }\n\
        [certificates.'e.example']\nLocal = { certificate_path = 'c', private_key_path = 'k' }\n\
        [[backend_pools]]\naddresses = ['127.0.0.1:1']\n";
    let parse = |text: &str| config::parse(text).config.expect("a good configuration");
    let all = |config: &config::Config| {
        config.certificates.iter().map(|c| Settings::of(c, config)).collect::<Vec<_>>()
    };
    let config = parse(text);
    let [Some(b), Some(c), Some(d), None] = &all(&config)[..] else { panic!("three of four") };
    assert_eq!((&*b.primary, &*b.name_set()), ("b.example", "a.example,b.example,www.b.example"));
    assert_eq!((&*b.directory, b.limits), (LETS_ENCRYPT, Limits::LETS_ENCRYPT));
    assert_eq!(b.challenges, [Challenge::Http01, Challenge::TlsAlpn01]);
    assert_eq!((&*c.directory, c.limits), (LETS_ENCRYPT_STAGING, Limits::OTHERS));
    assert_eq!((c.key_type, c.profile.as_deref()), (config::AcmeKeyType::P384, Some("x")));
    assert_eq!(&*d.directory, "https://ca.example/d");
    let secure = parse(&text.replace("http_address = '[::]:80'\n", ""));
    assert_eq!(all(&secure)[0].as_ref().unwrap().challenges, [Challenge::TlsAlpn01]);
}

#[test]
fn what_the_log_says() {
    let problem =
        |kind, acme_type: &str| Problem { acme_type: acme_type.into(), ..Problem::new(kind, "why") };
    use ProblemKind::{Busy, RateLimited, Rejected, Unreachable};
    for (step, kind, acme_type, text) in [
        (
            "account",
            Rejected,
            "externalAccountRequired",
            "ca.example makes accounts for its customers only: set `eab`",
        ),
        ("account", Unreachable, "", "ca.example does not answer (account)"),
        ("new order", RateLimited, "rateLimited", "ca.example has a limit that is reached (new order)"),
        ("new order", Rejected, "rejectedIdentifier", "ca.example makes no certificates for a.example"),
        ("new order", Rejected, "malformed", "ca.example has refused (new order)"),
        (
            "finalize",
            Rejected,
            "caa",
            "the CAA record of a.example does not allow certificates of ca.example",
        ),
        ("download", Busy, "", "ca.example has trouble of its own (download)"),
    ] {
        let mut bench = empty();
        bench.answer = first(usize::MAX, step, Outcome::Failed(problem(kind, acme_type)));
        bench.until("ReleaseLease");
        let note = bench.notes().pop().unwrap();
        let wanted = format!("a.example: {text}: why; next attempt in ");
        assert!(note.starts_with(&wanted), "{note}\n{wanted}");
        assert!(note.ends_with("; there is no certificate yet"), "{note}");
    }
    for (challenge, acme_type, text) in [
        (Challenge::Http01, "connection", "port 80 of b.example was not reached from ca.example"),
        (Challenge::TlsAlpn01, "connection", "port 443 of b.example was not reached from ca.example"),
        (
            Challenge::Http01,
            "dns",
            "ca.example found no address of b.example: its A or AAAA record has to lead here",
        ),
        (
            Challenge::Http01,
            "unauthorized",
            "ca.example got something else than the answer to its challenge from port 80 of b.example: does each of the name's addresses lead here?",
        ),
        (
            Challenge::TlsAlpn01,
            "tls",
            "port 443 of b.example is reached, but something else than this server ends TLS there",
        ),
        (Challenge::Http01, "caa", "the CAA record of b.example does not allow certificates of ca.example"),
        (Challenge::Http01, "other", "the http-01 challenge of b.example has failed"),
    ] {
        let mut bench = Bench::new(
            settings(&["a.example", "b.example"]),
            with(certificate("old", &["a.example", "b.example"], START - 61 * DAY - 20 * DAY)),
        );
        let acme_type = acme_type.to_owned();
        let mut asked = false;
        bench.answer = Box::new(move |action, _| match action {
            Action::Step(Step::Poll) => Some(order(OrderStatus::Invalid)),
            Action::Step(Step::Authorizations) if std::mem::replace(&mut asked, true) => {
                Some(Outcome::Authorizations(vec![
                    authorization("a.example", AuthorizationStatus::Valid),
                    refused("b.example", challenge, &acme_type),
                ]))
            }
            _ => None,
        });
        bench.until("ReleaseLease");
        let note = bench.notes().pop().unwrap();
        let wanted = format!(
            "a.example: {text}: Connection refused; next attempt in 5 seconds; the certificate in use is valid until 2027-01-24"
        );
        assert_eq!(note, wanted);
    }
    // What comes from outside is put on one line, and cut.
    let mut bench = empty();
    let long = Problem::new(Rejected, format!("\u{1b}[31m\n{}", "ä".repeat(10_000)));
    bench.answer = first(1, "account", Outcome::Failed(long));
    bench.until("ReleaseLease");
    let note = bench.notes().pop().unwrap();
    assert!(note.len() < 600 && !note.contains(char::is_control) && note.contains('…'), "{note}");
    let kept = &bench.ledger().last_failure(&settings(&["a.example"])).unwrap().text;
    assert!(kept.len() <= 300 && !kept.contains(char::is_control), "{kept}");
}
