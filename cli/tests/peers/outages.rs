//! Backends that are killed, stopped and started again under load, and a graceful stop of the proxy under
//! load.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::{Client, WAIT};
use crate::daemon::Daemon;
use crate::nginx::{Nginx, program, quick_start};
use crate::scripted_backend::{Backend, ok};

/// One request of [`Load`].
#[derive(Clone, Debug)]
struct Hit {
    begun: Instant,
    took: Duration,
    /// The body of a 200 response, or what went wrong.
    got: Result<String, String>,
}

/// Clients that send requests all the time, each on a new connection after 50 requests.
struct Load {
    stop: Arc<AtomicBool>,
    hits: Arc<Mutex<Vec<Hit>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(to: SocketAddr, clients: usize, target: &'static str) -> Self {
        let (stop, hits) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<Hit>>>::default());
        let client = |_| {
            let (stop, hits) = (stop.clone(), hits.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let Ok(stream) = std::net::TcpStream::connect(to) else { return };
                    stream.set_read_timeout(Some(WAIT)).expect("a socket");
                    let mut client = Client::over(stream);
                    for _ in 0..50 {
                        let begun = Instant::now();
                        let sent = client.send(format!("GET {target} HTTP/1.1\r\nHost: example.com\r\n\r\n"));
                        let got = sent.and_then(|()| client.response(false));
                        let (closes, got) = match got {
                            Ok(a) if a.status == 200 => {
                                (a.field("Connection") == Some("close"), Ok(a.text()))
                            }
                            Ok(a) => (true, Err(format!("{} {}", a.status, a.text()))),
                            Err(e) => (true, Err(e)),
                        };
                        hits.lock().expect("no panic").push(Hit { begun, took: begun.elapsed(), got });
                        if closes || stop.load(Ordering::SeqCst) {
                            break;
                        }
                        sleep(Duration::from_millis(4));
                    }
                }
            })
        };
        let threads = (0..clients).map(client).collect();
        Self { stop, hits, threads }
    }

    fn end(self) -> Vec<Hit> {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().expect("no panic");
        }
        std::mem::take(&mut *self.hits.lock().expect("no panic"))
    }
}

impl Drop for Wrk {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// wrk in the background.
struct Wrk(std::process::Child);

impl Wrk {
    fn start(to: SocketAddr, seconds: u32) -> Self {
        let mut command = Command::new(program("wrk", "wrk"));
        command.args([
            "-t",
            "1",
            "-c",
            "16",
            "--timeout",
            "15",
            "-d",
            &format!("{seconds}s"),
            "-H",
            "Host: example.com",
            &format!("http://{to}/"),
        ]);
        Self(
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("it starts"),
        )
    }

    /// Waits for its end; panics if it reports errors.
    fn end(mut self) {
        let mut stdout = String::new();
        std::io::Read::read_to_string(self.0.stdout.as_mut().expect("piped"), &mut stdout).expect("text");
        assert!(
            stdout.contains("requests in")
                && !stdout.contains("Non-2xx")
                && !stdout.contains("Socket errors"),
            "{stdout}"
        );
    }
}

/// Responses are short enough to be one write, so no backend can die in the middle of one: every request can
/// be retried, and no client may see an error.
#[test]
fn clients_see_no_error_when_backends_are_killed_stopped_and_restarted() {
    let mut backends = ["alpha", "beta", "gamma"].map(Nginx::start);
    let addresses: Vec<SocketAddr> = backends.iter().map(|b| b.address).collect();
    let top = "health_interval = { check_every = 1 }\ntimeouts = { backend_head = \"1s\" }\naccess_log = { enabled = false }";
    let daemon = Daemon::start(&quick_start(&addresses, top, "ramp_up = 1"), &["--workers", "2"]);
    let address = SocketAddr::new([127, 0, 0, 1].into(), daemon.address().port());
    let (wrk, load) = (Wrk::start(address, 11), Load::start(address, 8, "/"));
    sleep(Duration::from_millis(500));
    backends[0].kill();
    sleep(Duration::from_millis(1500));
    backends[0].restart();
    sleep(Duration::from_millis(1000));
    let frozen = Instant::now();
    backends[1].signal(Signal::STOP);
    sleep(Duration::from_millis(4500));
    backends[1].signal(Signal::CONT);
    let thawed = Instant::now();
    sleep(Duration::from_millis(500));
    // A graceful stop of nginx: it finishes its responses and closes its idle connections.
    backends[2].signal(Signal::QUIT);
    sleep(Duration::from_millis(1000));
    backends[2].kill();
    backends[2].restart();
    let restarted = Instant::now();
    sleep(Duration::from_millis(2500));
    // All three are used again: sooner or later, on a machine that is busy.
    loop {
        let names: std::collections::BTreeSet<_> = {
            let hits = load.hits.lock().expect("no panic");
            let last = hits.iter().rev().take(300).filter(|h| h.begun > restarted);
            last.filter_map(|h| h.got.clone().ok()).collect()
        };
        if names.len() == 3 {
            break;
        }
        assert!(restarted.elapsed() < WAIT, "{names:?}: {}", daemon.output());
        sleep(Duration::from_millis(20));
    }
    let hits = load.end();
    wrk.end();
    let bad: Vec<_> = hits.iter().filter(|h| h.got.is_err()).take(5).collect();
    assert!(bad.is_empty(), "{bad:?} of {}\n{}", hits.len(), daemon.output());
    // A request that begins later than check_every, its jitter and the check's timeout after the freeze does
    // not reach the frozen backend any more; one second is for a machine that is busy.
    let late = |h: &&Hit| {
        h.begun > frozen + Duration::from_millis(1100 + 500 + 1000)
            && h.begun < thawed
            && h.took > Duration::from_millis(950)
    };
    assert_eq!(
        hits.iter().filter(late).count(),
        0,
        "requests still reached the frozen backend: {}",
        daemon.output()
    );
    assert!(
        hits.iter().any(|h| h.begun > frozen && h.begun < thawed && h.took >= Duration::from_millis(950)),
        "no request reached the frozen backend"
    );
    daemon.stop();
}

/// A transfer that is under way when the backend dies cannot be retried: the client must not take it for
/// complete.
#[test]
fn transfers_truncated_by_a_killed_backend_are_detectable() {
    const LARGE: usize = 50 << 20;
    let mut backend = Nginx::start("mortal");
    std::fs::create_dir_all(backend.folder.0.join("files")).expect("a folder");
    std::fs::write(backend.folder.0.join("files/large"), vec![b'x'; LARGE]).expect("a file");
    let daemon = Daemon::start(
        &quick_start(&[backend.address], "health_interval = { check_every = 1 }", "ramp_up = 1"),
        &["--workers", "1"],
    );
    let address = SocketAddr::new([127, 0, 0, 1].into(), daemon.address().port());
    let mut download = Client::to(address);
    download.send("GET /files/large HTTP/1.1\r\nHost: example.com\r\n\r\n").expect("sent");
    let mut upload = Client::to(address);
    upload
        .send(format!("PUT /kept/large HTTP/1.1\r\nHost: example.com\r\nContent-Length: {LARGE}\r\n\r\n"))
        .expect("sent");
    upload.send(vec![b'x'; 1 << 20]).expect("sent");
    sleep(Duration::from_millis(300));
    backend.kill();
    let got = download.response(false);
    assert!(
        got.is_err(),
        "a truncated download looked complete: {:?}",
        got.map(|a| (a.status, a.body.len()))
    );
    // Sending the rest may fail, but the response has to come.
    let _ = upload.send(vec![b'x'; 1 << 20]);
    assert_eq!(upload.response(false).map(|a| a.status), Ok(502));
    // Without a backend the error comes at once; after the restart the backend is used again.
    let status = || Client::to(address).get_from("example.com", "/").map(|a| a.status);
    assert!(matches!(status(), Ok(502 | 503)), "{:?}", status());
    backend.restart();
    let begun = Instant::now();
    while status() != Ok(200) {
        assert!(begun.elapsed() < WAIT, "the restarted backend is not used: {}", daemon.output());
        sleep(Duration::from_millis(20));
    }
    daemon.stop();
}

/// A backend that can be frozen: it records when each request came, and responds only while it is not frozen.
struct Freezer {
    backend: Backend,
    frozen: Arc<AtomicBool>,
    came: Arc<Mutex<Vec<Instant>>>,
}

impl Freezer {
    fn start(name: &'static str) -> Self {
        let (frozen, came) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<Instant>>>::default());
        let (is_frozen, note) = (frozen.clone(), came.clone());
        let backend = Backend::start(move |mut p| {
            while let Some(head) = p.request() {
                if !head.contains(" /health ") {
                    note.lock().expect("no panic").push(Instant::now());
                }
                while is_frozen.load(Ordering::SeqCst) {
                    sleep(Duration::from_millis(2));
                }
                if !p.send(ok(name)) {
                    return;
                }
            }
        });
        Self { backend, frozen, came }
    }

    fn came(&self) -> Vec<Instant> {
        self.came.lock().expect("no panic").clone()
    }
}

#[test]
fn a_frozen_backend_gets_no_requests_and_ramps_up_again() {
    std::thread::scope(|s| {
        for fall in [1, 2] {
            s.spawn(move || freeze(fall));
        }
    });
}

fn freeze(fall: u32) {
    // Long enough that a check of a backend that is not frozen is never late.
    const TIMEOUT: Duration = Duration::from_millis(1500);
    const RAMP_UP: Duration = Duration::from_secs(3);
    let freezers = ["alpha", "beta", "gamma"].map(Freezer::start);
    let addresses: Vec<SocketAddr> = freezers.iter().map(|f| f.backend.address).collect();
    let top = "health_interval = { check_every = 1 }\ntimeouts = { backend_head = \"1s\" }\naccess_log = { enabled = false }";
    let config = quick_start(&addresses, top, &format!("ramp_up = 3\nfall = {fall}"));
    assert!(config.contains("timeout = 500\n"), "{config}");
    let config = config.replace("timeout = 500\n", &format!("timeout = {}\n", TIMEOUT.as_millis()));
    let daemon = Daemon::start(&config, &["--workers", "2"]);
    let address = SocketAddr::new([127, 0, 0, 1].into(), daemon.address().port());
    let load = Load::start(address, 8, "/");
    // Longer than the first check interval, which is shorter than the others.
    sleep(Duration::from_millis(1500));
    let [_, beta, _] = &freezers;
    beta.frozen.store(true, Ordering::SeqCst);
    let frozen = Instant::now();
    let limit = Duration::from_millis(1100) + TIMEOUT * fall;
    sleep(limit + Duration::from_millis(3000));
    let last = *beta.came().last().expect("it was used");
    assert!(
        last < frozen + limit + Duration::from_millis(1000),
        "fall {fall}: a request {:?} after it froze: {}",
        last - frozen,
        daemon.output()
    );
    assert!(last > frozen, "no request reached it after it froze");
    beta.frozen.store(false, Ordering::SeqCst);
    let thawed = Instant::now();
    sleep(Duration::from_millis(1100) + RAMP_UP + Duration::from_millis(3500));
    let hits = load.end();
    let bad: Vec<_> = hits.iter().filter(|h| h.got.is_err()).take(5).collect();
    assert!(bad.is_empty(), "{bad:?} of {}\n{}", hits.len(), daemon.output());
    // Its share of all requests since it is used again.
    let back = *beta.came().iter().find(|at| **at > thawed).expect("it is used again");
    assert!(
        back < thawed + Duration::from_millis(1100 + 2000),
        "it was used again only after {:?}",
        back - thawed
    );
    // And how far it may be off, for two of the requests have come at the edges of that time.
    let share = |from: Duration, to: Duration| {
        let within = |at: Instant| at >= back + from && at < back + to;
        let its = beta.came().into_iter().filter(|at| within(*at)).count();
        let all = hits.iter().filter(|h| within(h.begun)).count();
        assert!(all > 25, "{all} requests in {from:?} to {to:?}");
        (its as f64 / all as f64, 2.0 / all as f64)
    };
    // Its weight grows from 0 to 1 within three seconds, beside two backends of weight 1: in the first half
    // second it gets far less than a third, in the middle second about a fifth, at the end a third.
    let [(early, e), (middle, m), (late, l)] = [
        share(Duration::ZERO, RAMP_UP / 6),
        share(RAMP_UP * 2 / 6, RAMP_UP * 4 / 6),
        share(RAMP_UP, RAMP_UP + Duration::from_secs(1)),
    ];
    assert!(
        early < 0.12 + e && (0.12 - m..0.28 + m).contains(&middle) && (0.31 - l..0.36 + l).contains(&late),
        "fall {fall}: {early:.3} ± {e:.3}, {middle:.3} ± {m:.3}, {late:.3} ± {l:.3}"
    );
    daemon.stop();
}

#[test]
fn a_graceful_stop_under_load_cuts_no_request_off() {
    let backend = Backend::start(|mut p| {
        while p.request().is_some() {
            sleep(Duration::from_millis(60));
            if !p.send(ok("served")) {
                return;
            }
        }
    });
    for signal in [Signal::TERM, Signal::QUIT] {
        let config = quick_start(&[backend.address], "access_log = { enabled = false }", "");
        let mut daemon = Daemon::start(&config, &["--workers", "2"]);
        let address = SocketAddr::new([127, 0, 0, 1].into(), daemon.address().port());
        let load = Load::start(address, 24, "/");
        let begun = Instant::now();
        sleep(Duration::from_millis(700));
        while load.hits.lock().expect("no panic").len() <= 150 {
            assert!(begun.elapsed() < WAIT, "too few responses: {}", daemon.output());
            sleep(Duration::from_millis(20));
        }
        let stopped = Instant::now();
        daemon.signal(signal);
        assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.output());
        let hits = load.end();
        // Requests that were sent at least 10 ms before the signal.
        let in_flight: Vec<_> =
            hits.iter().filter(|h| h.begun < stopped - Duration::from_millis(10)).collect();
        let bad: Vec<_> = in_flight.iter().filter(|h| h.got.is_err()).collect();
        assert!(bad.is_empty(), "{bad:?} of {}: {}", in_flight.len(), daemon.output());
        assert!(in_flight.iter().any(|h| h.begun + h.took > stopped), "nothing was in flight");
        assert!(in_flight.len() > 100, "{}", in_flight.len());
    }
}
