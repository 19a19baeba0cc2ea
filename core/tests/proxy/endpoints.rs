//! The addresses of a name, each an endpoint of its own, and what becomes of connections when they change.

use ruststrom_core::LookupResult;
use ruststrom_core::observe::HealthState::{Healthy, Unhealthy, Unknown};

use crate::world::{Open, Reply, World, addr, endpoint, get};

const A: &str = "10.0.0.1:80";
const B: &str = "10.0.0.2:80";
const C: &str = "10.0.0.3:80";

/// A pool whose only backend is a name, checked every so many seconds.
fn named(check_every: u32) -> World {
    World::new(&format!(
        "http_address = \"192.0.2.1:80\"\n[health_interval]\ncheck_every = {check_every}\n[timeouts]\nbackend_head = 90\n[[backend_pools]]\n\
         addresses = [\"a.test:80\"]\nretries = 0\n"
    ))
}

fn resolve(w: &mut World, addresses: &[&str]) {
    w.advance_ms(0);
    if w.lookups.is_empty() {
        w.advance_ms(30_010);
    }
    let query = w.lookups.pop().expect("asked");
    w.response(query, LookupResult::Addresses(addresses.iter().map(|a| addr(a)).collect()));
    w.advance_ms(0);
}

/// The statuses of `n` requests one after the other, each of a client of its own.
fn ask(w: &mut World, n: usize) -> Vec<u16> {
    (0..n)
        .flat_map(|_| {
            let c = w.client_sends(&get("/"));
            w.end(c);
            w.exchanges().into_iter().map(|ended| ended.status)
        })
        .collect()
}

fn served_by(w: &mut World) -> Vec<String> {
    std::mem::take(&mut w.served).into_iter().map(|(at, _)| at.to_string()).collect()
}

/// Connections to an address that the name no longer has are not used again; busy ones finish.
#[test]
fn a_name_moves() {
    let mut w = named(0);
    resolve(&mut w, &[A]);
    assert_eq!(ask(&mut w, 2), [200, 200]);
    assert_eq!((w.made_to(A), w.to(A).len()), (1, 1));
    w.backend(A).replies.push_back(Reply::Hold);
    let busy = w.client_sends(&get("/busy"));
    resolve(&mut w, &[B]);
    served_by(&mut w);
    assert_eq!(ask(&mut w, 2), [200, 200]);
    assert_eq!(served_by(&mut w), [B, B]);
    let held = w.to(A);
    assert_eq!(held.len(), 1, "the one that is busy");
    w.reply(held[0], "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(w.statuses(busy), [200]);
    assert_eq!(w.to(A), [], "and then it is closed");
    w.finish();
}

/// Another order of the same addresses, or one more, changes nothing about connections to those that stay.
#[test]
fn a_name_changes_in_part() {
    let mut w = named(0);
    resolve(&mut w, &[A, B]);
    assert_eq!(ask(&mut w, 1), [200]);
    let first = if w.made_to(A) == 1 { A } else { B };
    for next in [&[B, A][..], &[A, B, C], &[C, B, A]] {
        resolve(&mut w, next);
        assert_eq!(ask(&mut w, 1), [200]);
        assert_eq!(w.made_to(A) + w.made_to(B) + w.made_to(C), 1, "{next:?}: the same connection");
    }
    let others: Vec<&str> = [A, B, C].into_iter().filter(|at| *at != first).collect();
    resolve(&mut w, &others);
    assert_eq!(ask(&mut w, 1), [200]);
    assert_eq!((w.to(first), w.made_to(first)), (vec![], 1));
    w.finish();
}

/// An address that is named twice hides none that is gone.
#[test]
fn an_address_named_twice() {
    let mut w = named(0);
    resolve(&mut w, &[A, B]);
    resolve(&mut w, &[B, B]);
    for at in [A, B] {
        w.backend(at).reply = Reply::Hold;
    }
    for _ in 0..4 {
        w.client_sends(&get("/"));
    }
    assert_eq!((w.made_to(A), w.made_to(B)), (0, 4));
    w.finish();
}

/// A backend that was unhealthy may have been away: connections of before are not used afterwards.
#[test]
fn idle_connections_do_not_outlive_health() {
    let mut w = World::new(
        "http_address = \"192.0.2.1:80\"\n[health_interval]\ncheck_every = 1\n[[backend_pools]]\n\
         addresses = [\"10.0.0.1:80\"]\nretries = 0\n[backend_pools.health_config]\nramp_up = 0\n",
    );
    w.advance_ms(0);
    assert_eq!(ask(&mut w, 2), [200, 200]);
    assert_eq!(w.made_to(A), 1);
    w.backend(A).probe = Reply::Close;
    w.advance_ms(2_000);
    w.backend(A).probe = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into();
    w.advance_ms(3_000);
    let states: Vec<_> = w.health().into_iter().map(|(_, from, to)| (from, to)).collect();
    assert_eq!(states, [(Unknown, Healthy), (Healthy, Unhealthy), (Unhealthy, Healthy)]);
    assert_eq!((ask(&mut w, 1), w.made_to(A), w.to(A).len()), (vec![200], 2, 1));
    w.finish();
}

/// One address of two takes no connection, in either way, or the checks find it ill: the other serves, and
/// the backend is up.
#[test]
fn one_of_two_addresses_is_ill() {
    let refuses = Open::Fails(ruststrom_core::Fault::Refused);
    for check_every in [0, 10] {
        for (what, open) in [("swallows", Open::Silent), ("refuses", refuses)] {
            for ill in [A, B] {
                let mut w = named(check_every);
                w.backend(ill).open = open;
                resolve(&mut w, &[A, B]);
                w.advance_ms(600);
                let waiting: Vec<_> = (0..4).map(|n| (n, w.client_sends(&get("/")))).collect();
                w.advance_ms(260);
                for (n, c) in waiting {
                    assert_eq!(w.statuses(c), [200], "{what} {ill}, checks {check_every}, request {n}");
                }
                let well = if ill == A { B } else { A };
                assert!(served_by(&mut w).iter().all(|at| at == well));
                w.exchanges();
                let made = w.made_to(ill);
                assert_eq!(ask(&mut w, 4), [200; 4]);
                assert_eq!(w.made_to(ill), made, "{what} {ill}: not tried again at once");
                if check_every > 0 {
                    assert_eq!(w.health(), [("a.test:80".to_owned(), Unknown, Healthy)]);
                }
                w.lookups.clear();
                w.finish();
            }
        }
    }
}

/// An address that took no connection once is left alone until the name has been looked up again, whatever
/// that finds.
#[test]
fn a_refused_address_after_the_next_lookup() {
    for next in [&[A, B][..], &[B, A], &[A, B, C]] {
        let mut w = named(0);
        w.backend(A).open = Open::Fails(ruststrom_core::Fault::Refused);
        for at in [A, B, C] {
            w.backend(at).reply = Reply::Hold;
        }
        resolve(&mut w, &[A, B]);
        for _ in 0..4 {
            w.client_sends(&get("/"));
        }
        assert_eq!((w.made_to(A), w.to(B).len()), (1, 4));
        w.backend(A).open = Open::Take;
        for _ in 0..4 {
            w.client_sends(&get("/"));
        }
        assert_eq!((w.made_to(A), w.to(B).len()), (1, 8), "not yet");
        resolve(&mut w, next);
        for _ in 0..6 {
            w.client_sends(&get("/"));
        }
        assert_eq!((w.to(A).len(), w.to(B).len() - 8), (6 / next.len(), 6 / next.len()), "{next:?}");
        w.finish();
    }
}

/// An address whose check fails gets no requests, though others of the name do; when it is well again it
/// does.
#[test]
fn one_of_two_addresses_fails_its_check() {
    let mut w = named(1);
    w.backend(B).probe = "HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n".into();
    resolve(&mut w, &[A, B]);
    assert_eq!(ask(&mut w, 6), [200; 6]);
    assert_eq!(served_by(&mut w), [A; 6]);
    assert!(w.notes().iter().any(|note| note.contains("address 10.0.0.2:80") && note.contains("HTTP 500")));
    w.backend(B).probe = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into();
    w.advance_ms(1_500);
    assert!(w.notes().iter().any(|note| note.contains("address 10.0.0.2:80") && note.contains("is healthy")));
    w.backend(A).reply = Reply::Hold;
    w.backend(B).reply = Reply::Hold;
    for _ in 0..4 {
        w.client_sends(&get("/"));
    }
    assert!(!w.to(A).is_empty() && !w.to(B).is_empty(), "each has its turn");
    // All of them fail: the backend does.
    for at in [A, B] {
        w.backend(at).probe = Reply::Close;
    }
    w.advance_ms(1_500);
    let last = w.health().pop().map(|(_, from, to)| (from, to));
    assert_eq!(last, Some((Healthy, Unhealthy)));
    w.lookups.clear();
    w.finish();
}

/// Connections to an address are not used again once its check has failed, though others of the name do well.
#[test]
fn idle_connections_to_an_address_that_fails_its_check() {
    for ill in [A, B] {
        let mut w = named(1);
        for at in [A, B] {
            w.backend(at).reply = Reply::Hold;
        }
        resolve(&mut w, &[A, B]);
        w.client_sends(&get("/1"));
        w.client_sends(&get("/2"));
        let well = if ill == A { B } else { A };
        // The one that is used next is the one that was used last.
        for at in [well, ill] {
            let held = w.to(at)[0];
            w.reply(held, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
        assert_eq!(w.counts().backends_idle, 2);
        w.backend(ill).probe = Reply::Close;
        w.advance_ms(1_500);
        served_by(&mut w);
        w.client_sends(&get("/3"));
        assert_eq!(
            (w.arrived.len(), w.peer(w.arrived[0].0).to.clone(), w.to(ill)),
            (1, Some(endpoint(well)), vec![])
        );
        w.lookups.clear();
        w.finish();
    }
}

/// A backend leaves the configuration while it is checked, and comes back while an exchange of before keeps
/// it known: both checks end, each for itself.
#[test]
fn a_check_outlives_two_reloads() {
    let text = |address: &str| {
        crate::world::config(&format!(
            "http_address = \"192.0.2.1:80\"\n[health_interval]\ncheck_every = 10\n[[backend_pools]]\nname = \"p\"\n\
             addresses = [\"{address}\"]\n[backend_pools.health_config]\ntimeout = 20000\n"
        ))
    };
    let mut w = World::of(&text(A), 1);
    w.advance_ms(0);
    w.backend(A).reply = Reply::Hold;
    let busy = w.client_sends(&get("/"));
    w.backend(A).probe = Reply::Hold;
    w.advance_ms(11_000);
    assert_eq!(w.probes().len(), 1);
    w.reconfigure(&text(B));
    w.reconfigure(&text(A));
    w.advance_ms(0);
    let checks = w.probes();
    assert_eq!(checks.len(), 2);
    for check in checks {
        w.send(check, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    }
    assert_eq!(w.counts().probes, 0);
    let held = w.to(A)[0];
    w.reply(held, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(w.statuses(busy), [200]);
    w.finish();
}
