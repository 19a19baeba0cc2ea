//! Upgrades while clients come and go: no request fails.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::address::reserve;
use crate::client::{Client, connect};
use crate::scripted_backend::{Backend, ok};
use crate::succession::Succession;

on_each_driver!(twenty_upgrades_lose_no_request, other_workers_and_other_listeners, what_runs_is_finished);

const UPGRADES: usize = 20;

fn config(http: SocketAddr, backend: SocketAddr, more: &str) -> String {
    format!(
        "http_address = \"{http}\"\nmetrics_address = false\n{more}\n[[backend_pools]]\nname = \"web\"\n\
         addresses = [\"{backend}\"]\n[backend_pools.health_config]\npath = \"/health\"\n\
         timeout = 5000\nslow_threshold = 0\n"
    )
}

/// Asks until `over`, on connections that are kept and on new ones; how often.
fn ask(http: SocketAddr, over: &AtomicBool, asked: &AtomicUsize, kept: bool) {
    let mut client = Client::to(http);
    while !over.load(Ordering::SeqCst) {
        let nth = asked.fetch_add(1, Ordering::SeqCst);
        let response = client.get("/").unwrap_or_else(|e| panic!("request {nth}, kept: {kept}: {e}"));
        assert_eq!((response.status, response.text().as_str()), (200, "here"));
        if !kept || response.field("Connection") == Some("close") {
            client = Client::to(http);
        }
    }
}

/// Runs `change` while six clients ask; how often they have.
fn under_load(http: SocketAddr, change: impl FnOnce(&AtomicUsize)) -> usize {
    let (over, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..6)
            .map(|nth| {
                scope.spawn({
                    let (over, asked) = (&over, &asked);
                    move || ask(http, over, asked, nth % 2 == 0)
                })
            })
            .collect();
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| change(&asked)));
        over.store(true, Ordering::SeqCst);
        for client in clients {
            client.join().expect("no request fails");
        }
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
    });
    asked.into_inner()
}

fn twenty_upgrades_lose_no_request(driver: &str) {
    let backend = Backend::good("here");
    let http = reserve();
    let pids = crate::daemon::TempDir::new("pid");
    let pid_file = pids.0.join("pid");
    let arguments = ["--driver", driver, "--workers", "2", "--pid-file", pid_file.to_str().expect("a name")];
    let mut succession = Succession::start(&config(http, backend.address, ""), &arguments);
    let served = || std::fs::read_to_string(&pid_file).expect("a PID file").trim().to_owned();
    assert_eq!(served(), succession.daemon.id().to_string());
    let asked = under_load(http, |asked| {
        for _ in 0..UPGRADES {
            succession.upgrade();
            assert_eq!(served(), succession.serving().as_raw_nonzero().to_string());
            // Some requests go to this one, too.
            let before = asked.load(Ordering::SeqCst);
            let begun = Instant::now();
            while asked.load(Ordering::SeqCst) < before + 20 {
                assert!(begun.elapsed() < crate::client::WAIT, "nobody asks");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
    assert!(asked >= 20 * UPGRADES, "{asked}");
    succession.stop();
    assert!(!pid_file.exists(), "removed by the last one");
}

/// The file says other numbers of workers, and other listeners, each time.
fn other_workers_and_other_listeners(driver: &str) {
    let backend = Backend::good("here");
    let (http, more) = (reserve(), reserve());
    let with = |workers: usize, both: bool| {
        let listener = format!("[[listeners]]\nname = \"more\"\naddress = \"{more}\"\nkind = \"http\"\n");
        let listener = if both { &*listener } else { "" };
        config(http, backend.address, &format!("workers = {workers}\ndriver = \"{driver}\"\n{listener}"))
    };
    let mut succession = Succession::start(&with(2, false), &[]);
    under_load(http, |_| {
        for (workers, both) in [(3, true), (1, true), (4, true), (2, false), (1, true)] {
            succession.daemon.directory.write("config.toml", with(workers, both));
            succession.upgrade();
            // Whoever connects reaches the new one, wherever it was left in a queue.
            for _ in 0..50 {
                let response = Client::to(http).get("/").expect("a response");
                assert_eq!(response.status, 200);
            }
            succession.wait_for_the_old();
            assert_eq!(std::net::TcpStream::connect(more).is_ok(), both, "{}", succession.daemon.output());
            let threads = std::fs::read_dir(format!("/proc/{}/task", succession.serving().as_raw_nonzero()));
            let names = threads
                .expect("it runs")
                .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
            assert_eq!(names.filter(|name| name.starts_with("worker-")).count(), workers);
        }
    });
    // A reload of the last one keeps what it was given.
    succession.signal(Signal::HUP);
    succession.wait_for_nth("it says the same", 0);
    assert_eq!(Client::to(http).get("/").expect("a response").status, 200);
    succession.stop();
}

/// The old process finishes what it has begun, and says `close`; who had only connected is served, too.
fn what_runs_is_finished(driver: &str) {
    // However long the upgrade takes, the slow response comes after it.
    let released = Arc::new(AtomicBool::new(false));
    let is_released = released.clone();
    let backend = Backend::start(move |mut peer| {
        while let Some(head) = peer.request() {
            if head.contains("/slow") {
                peer.count_busy(|| {
                    while !is_released.load(Ordering::SeqCst) {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                });
            }
            if !peer.send(ok("here")) {
                return;
            }
        }
    });
    let http = reserve();
    let mut succession = Succession::start(&config(http, backend.address, ""), &["--driver", driver]);
    let mut kept = Client::to(http);
    assert_eq!(kept.get("/").expect("a response").field("Connection"), None);
    let mut slow = Client::to(http);
    slow.send("GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    let silent = connect(http);
    let begun = Instant::now();
    while backend.stats.busy.load(Ordering::SeqCst) == 0 {
        assert!(begun.elapsed() < crate::client::WAIT, "the slow request does not arrive");
        std::thread::sleep(Duration::from_millis(2));
    }
    succession.upgrade();
    assert_eq!(kept.get("/").expect("it may ask once more").field("Connection"), Some("close"));
    released.store(true, Ordering::SeqCst);
    let response = slow.response(false).expect("a response");
    assert_eq!((response.status, response.field("Connection")), (200, Some("close")));
    let mut silent = Client::over(silent);
    assert_eq!(silent.get("/").expect("a response").status, 200);
    succession.stop();
}
