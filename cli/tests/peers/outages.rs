//! Backends that die, freeze and come back under load, and a stop in the middle of it.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::daemon::Daemon;
use crate::nginx::{Nginx, program, quick_start};
use crate::scripted::{Backend, ok};
use crate::talk::Client;

/// One request of the load.
#[derive(Clone, Debug)]
struct Hit {
    begun: Instant,
    took: Duration,
    /// Who answered, or what went wrong.
    got: Result<String, String>,
}

/// Clients that ask all the time, each on a connection that it renews now and then.
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
                    stream.set_read_timeout(Some(crate::talk::WAIT)).expect("a socket");
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

    /// It has seen no error.
    fn end(mut self) {
        let mut said = String::new();
        std::io::Read::read_to_string(self.0.stdout.as_mut().expect("piped"), &mut said).expect("text");
        assert!(
            said.contains("requests in") && !said.contains("Non-2xx") && !said.contains("Socket errors"),
            "{said}"
        );
    }
}

/// What the retry rule lets be lost when a backend dies in the middle of an answer: nothing here, an answer
/// is one write.
#[test]
fn no_client_sees_that_backends_die_freeze_and_come_back() {
    let mut backends = ["alpha", "beta", "gamma"].map(Nginx::start);
    let addresses: Vec<SocketAddr> = backends.iter().map(|b| b.address).collect();
    let top = "health_interval = { check_every = 1 }\ntimeouts = { backend_head = \"1s\" }\naccess_log = { enabled = false }";
    let daemon = Daemon::start(&quick_start(&addresses, top, "ramp_up = 1"), &["--workers", "2"]);
    let address = SocketAddr::new([127, 0, 0, 1].into(), daemon.address().port());
    let (wrk, load) = (Wrk::start(address, 10), Load::start(address, 8, "/"));
    sleep(Duration::from_millis(500));
    backends[0].kill();
    sleep(Duration::from_millis(1500));
    backends[0].restart();
    sleep(Duration::from_millis(1000));
    let frozen = Instant::now();
    backends[1].signal(Signal::STOP);
    sleep(Duration::from_millis(3500));
    backends[1].signal(Signal::CONT);
    let thawed = Instant::now();
    sleep(Duration::from_millis(500));
    // A polite stop: what it has begun is answered, its idle connections close.
    backends[2].signal(Signal::QUIT);
    sleep(Duration::from_millis(1000));
    backends[2].kill();
    backends[2].restart();
    sleep(Duration::from_millis(2500));
    let hits = load.end();
    wrk.end();
    let bad: Vec<_> = hits.iter().filter(|h| h.got.is_err()).take(5).collect();
    assert!(bad.is_empty(), "{bad:?} of {}\n{}", hits.len(), daemon.said());
    // Whoever asks later than check_every and its jitter and the timeout after it froze does not meet it any
    // more.
    let late = |h: &&Hit| {
        h.begun > frozen + Duration::from_millis(1100 + 500 + 300)
            && h.begun < thawed
            && h.took > Duration::from_millis(950)
    };
    assert_eq!(
        hits.iter().filter(late).count(),
        0,
        "requests still met the frozen backend: {}",
        daemon.said()
    );
    assert!(
        hits.iter().any(|h| h.begun > frozen && h.begun < thawed && h.took >= Duration::from_millis(950)),
        "it was never met: was it frozen?"
    );
    // All are back.
    let last = hits.iter().rev().take(300);
    let names: std::collections::BTreeSet<_> = last.filter_map(|h| h.got.clone().ok()).collect();
    assert_eq!(names.len(), 3, "{names:?}: {}", daemon.said());
    daemon.stop();
}

/// What no retry can save: a client must not take the half of it for the whole.
#[test]
fn transfers_that_a_death_cuts_are_seen_to_be_cut() {
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
        "half a download looked like a whole one: {:?}",
        got.map(|a| (a.status, a.body.len()))
    );
    // The rest may find a closed connection; the answer has to come all the same.
    let _ = upload.send(vec![b'x'; 1 << 20]);
    assert_eq!(upload.response(false).map(|a| a.status), Ok(502));
    // Nobody is there, and that is said at once; then somebody is.
    let status = || Client::to(address).get_from("example.com", "/").map(|a| a.status);
    assert!(matches!(status(), Ok(502 | 503)), "{:?}", status());
    backend.restart();
    let begun = Instant::now();
    while status() != Ok(200) {
        assert!(begun.elapsed() < Duration::from_secs(4), "it is back, and not used: {}", daemon.said());
        sleep(Duration::from_millis(20));
    }
    daemon.stop();
}

/// Backends whose freezing can be seen from inside: they note when a request came, and go on with it when
/// they thaw.
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
fn a_frozen_backend_gets_nothing_after_its_time_and_ramps_back() {
    std::thread::scope(|s| {
        for fall in [1, 2] {
            s.spawn(move || freeze(fall));
        }
    });
}

fn freeze(fall: u32) {
    const TIMEOUT: Duration = Duration::from_millis(500);
    const RAMP_UP: Duration = Duration::from_secs(3);
    let freezers = ["alpha", "beta", "gamma"].map(Freezer::start);
    let addresses: Vec<SocketAddr> = freezers.iter().map(|f| f.backend.address).collect();
    let top = "health_interval = { check_every = 1 }\ntimeouts = { backend_head = \"1s\" }\naccess_log = { enabled = false }";
    let config = quick_start(&addresses, top, &format!("ramp_up = 3\nfall = {fall}"));
    let daemon = Daemon::start(&config, &["--workers", "2"]);
    let address = SocketAddr::new([127, 0, 0, 1].into(), daemon.address().port());
    let load = Load::start(address, 8, "/");
    // Past the shorter first interval.
    sleep(Duration::from_millis(1500));
    let [_, beta, _] = &freezers;
    beta.frozen.store(true, Ordering::SeqCst);
    let frozen = Instant::now();
    let limit = Duration::from_millis(1100) + TIMEOUT * fall;
    sleep(limit + Duration::from_millis(2000));
    let last = *beta.came().last().expect("it was used");
    assert!(
        last < frozen + limit + Duration::from_millis(300),
        "fall {fall}: a request {:?} after it froze: {}",
        last - frozen,
        daemon.said()
    );
    assert!(last > frozen, "it was never met after it froze");
    beta.frozen.store(false, Ordering::SeqCst);
    let thawed = Instant::now();
    sleep(Duration::from_millis(1100) + RAMP_UP + Duration::from_millis(2000));
    let hits = load.end();
    let bad: Vec<_> = hits.iter().filter(|h| h.got.is_err()).take(5).collect();
    assert!(bad.is_empty(), "{bad:?} of {}\n{}", hits.len(), daemon.said());
    // What it got since it came back, of all that were asked in the same time.
    let back = *beta.came().iter().find(|at| **at > thawed).expect("it comes back");
    assert!(back < thawed + Duration::from_millis(1100 + 500), "it came back only after {:?}", back - thawed);
    let share = |from: Duration, to: Duration| {
        let within = |at: Instant| at >= back + from && at < back + to;
        let its = beta.came().into_iter().filter(|at| within(*at)).count();
        let all = hits.iter().filter(|h| within(h.begun)).count();
        assert!(all > 100, "{all} requests in {from:?} to {to:?}");
        its as f64 / all as f64
    };
    // Its weight grows from nothing to one in three seconds, beside two of one: a sixth of a third, about a
    // half, all of it.
    let (early, middle, late) = (
        share(Duration::ZERO, RAMP_UP / 6),
        share(RAMP_UP * 2 / 6, RAMP_UP * 4 / 6),
        share(RAMP_UP, RAMP_UP + Duration::from_secs(1)),
    );
    assert!(
        early < 0.12 && (0.12..0.28).contains(&middle) && (0.31..0.36).contains(&late),
        "fall {fall}: {early:.3} {middle:.3} {late:.3}"
    );
    daemon.stop();
}

#[test]
fn a_stop_under_load_cuts_nobody() {
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
        sleep(Duration::from_millis(700));
        let stopped = Instant::now();
        daemon.signal(signal);
        assert_eq!(daemon.end().code(), Some(0), "{}", daemon.said());
        let hits = load.end();
        // Whatever had been sent a little before, so that it was in flight when the signal came.
        let in_flight: Vec<_> =
            hits.iter().filter(|h| h.begun < stopped - Duration::from_millis(10)).collect();
        let bad: Vec<_> = in_flight.iter().filter(|h| h.got.is_err()).collect();
        assert!(bad.is_empty(), "{bad:?} of {}: {}", in_flight.len(), daemon.said());
        assert!(in_flight.iter().any(|h| h.begun + h.took > stopped), "nothing was in flight");
        assert!(in_flight.len() > 100, "{}", in_flight.len());
    }
}
