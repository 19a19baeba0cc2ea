//! What shards share, in every order in which two of them can meet: `RUSTFLAGS="--cfg loom" cargo test -p ruststrom-core --test loom`.
#![cfg(loom)]

use std::net::IpAddr;
use std::sync::Arc;

use loom::thread;
use ruststrom_core::balance::{Ask, Balancer, Choice, Tried};
use ruststrom_core::config::{self, Config};
use ruststrom_core::observe::HealthState;
use ruststrom_core::shared::PoolState;
use ruststrom_core::{Instant, Shared};

const NOW: Instant = Instant::from_millis(1_000);

fn config(backends: &str) -> Config {
    let text =
        format!("http_address = \"192.0.2.1:80\"\n[health_interval]\ncheck_every = 1\n[[backend_pools]]\naddresses = [{backends}]\n");
    config::parse(&text).config.expect("a good text")
}

fn pool(config: &Config) -> Arc<PoolState> {
    Shared::new("lb.test", 2).adopt(config).swap_remove(0)
}

/// Takes a slot of the only backend, as an exchange on `shard` does: again after the mark, before it waits.
fn start_or_wait(pool: &PoolState, shard: u16) -> bool {
    pool.backends()[0].try_start(Some(1)) || {
        pool.wait(shard);
        pool.backends()[0].try_start(Some(1))
    }
}

#[test]
fn a_cap_holds() {
    let config = config("\"10.0.0.1:80\"");
    loom::model(move || {
        let pool = pool(&config);
        let other = pool.clone();
        let t = thread::spawn(move || other.backends()[0].try_start(Some(1)));
        let mine = pool.backends()[0].try_start(Some(1));
        assert!(mine ^ t.join().unwrap());
        assert_eq!(pool.backends()[0].in_flight(), 1);
    });
}

#[test]
fn whoever_waits_is_nudged_or_has_its_slot() {
    let config = config("\"10.0.0.1:80\"");
    loom::model(move || {
        let pool = pool(&config);
        assert!(pool.backends()[0].try_start(Some(1)));
        let other = pool.clone();
        let finishing = thread::spawn(move || other.finish(0).collect::<Vec<u16>>());
        let got = start_or_wait(&pool, 1);
        let nudged = finishing.join().unwrap();
        assert!(got || nudged.contains(&1), "a lost wake-up");
        // A mark that is left over costs a nudge; a slot is never taken twice.
        assert_eq!(pool.backends()[0].in_flight(), u32::from(got));
    });
}

#[test]
fn of_two_that_wait_none_is_forgotten() {
    let config = config("\"10.0.0.1:80\"");
    loom::model(move || {
        let pool = pool(&config);
        assert!(pool.backends()[0].try_start(Some(1)));
        let (finisher, waiter) = (pool.clone(), pool.clone());
        let finishing = thread::spawn(move || finisher.finish(0).collect::<Vec<u16>>());
        let waiting = thread::spawn(move || start_or_wait(&waiter, 1));
        let first = start_or_wait(&pool, 0);
        let (nudged, second) = (finishing.join().unwrap(), waiting.join().unwrap());
        assert!(!(first && second));
        if first || second {
            // Who has the slot gives it back, and whoever is not nudged yet is nudged then.
            let then: Vec<u16> = pool.finish(0).collect();
            let loser = u16::from(first);
            assert!(nudged.contains(&loser) || then.contains(&loser), "a lost wake-up");
        } else {
            assert_eq!(nudged, [0, 1], "a lost wake-up");
        }
    });
}

#[test]
fn the_third_failure_is_told_once() {
    let config = config("\"10.0.0.1:80\"");
    loom::model(move || {
        let pool = pool(&config);
        assert_eq!(pool.connect_failed(0, NOW), None);
        let before = pool.version();
        let other = pool.clone();
        let t = thread::spawn(move || other.connect_failed(0, NOW).is_some());
        let mine = pool.connect_failed(0, NOW).is_some();
        assert!(mine ^ t.join().unwrap(), "a failure was lost, or told twice");
        assert_eq!(pool.backends()[0].health().state(), HealthState::Unhealthy);
        assert_eq!(pool.version(), before + 1);
    });
}

#[test]
fn turns_are_taken_once() {
    let config = config("\"10.0.0.1:80\", \"10.0.0.2:80\"");
    loom::model(move || {
        let pool = pool(&config);
        let choose = |pool: Arc<PoolState>, config: &Config, seed| {
            let ask = Ask { client: IpAddr::from([192, 0, 2, 7]), sticky: None, tried: &Tried::new() };
            Balancer::new(&config.pools[0], pool, seed).choose(&ask, NOW)
        };
        let (other, others) = (pool.clone(), config.clone());
        let t = thread::spawn(move || choose(other, &others, 1));
        let mine = choose(pool, &config, 2);
        let theirs = t.join().unwrap();
        assert!(matches!((mine, theirs), (Choice::Backend(0), Choice::Backend(1)) | (Choice::Backend(1), Choice::Backend(0))));
    });
}

#[test]
fn clients_are_counted() {
    loom::model(|| {
        let shared = Arc::new(Shared::new("lb.test", 2));
        let ip = IpAddr::from([192, 0, 2, 7]);
        let other = shared.clone();
        let t = thread::spawn(move || other.admit(ip, 10, 1).is_ok());
        let mine = shared.admit(ip, 10, 1).is_ok();
        assert!(mine ^ t.join().unwrap());
        assert_eq!(shared.connections(), 1);
        shared.leave(ip, true);
        assert_eq!((shared.admit(ip, 10, 1), shared.connections()), (Ok(()), 1));
    });
}
