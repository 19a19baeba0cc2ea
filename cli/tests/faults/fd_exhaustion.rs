//! More clients than the process may have file descriptors.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ruststrom_core::config::Driver;

use crate::client::{Client, WAIT};
use crate::daemon::Daemon;
use crate::driver_name;
use crate::scripted_backend::Backend;

/// Connections of all holder processes together: more than one process may have open here.
const CLIENTS: usize = 20_000;
const HOLDERS: usize = 4;

/// A Python program that opens as many connections as its last argument says, prints that number, and holds
/// them open until its standard input ends.
const HOLDER_SCRIPT: &str = "
import errno, resource, socket, sys
host, port, source, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
held = []
for _ in range(count):
    s = socket.socket()
    s.setblocking(False)
    s.bind((source, 0))
    e = s.connect_ex((host, port))
    if e not in (0, errno.EINPROGRESS):
        sys.exit(errno.errorcode[e])
    held.append(s)
print(len(held), flush=True)
sys.stdin.read()
";

/// A process that runs [`HOLDER_SCRIPT`], killed when dropped.
struct Holder(Child);

impl Holder {
    fn start(to: SocketAddr, nth: usize) -> Self {
        let arguments = [
            to.ip().to_string(),
            to.port().to_string(),
            format!("127.0.1.{}", nth + 1),
            (CLIENTS / HOLDERS).to_string(),
        ];
        let mut command = Command::new("python3");
        command.args(["-c", HOLDER_SCRIPT]).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(command.spawn().expect("python3 is needed (Debian package python3)"))
    }

    fn wait_until_all_are_open(&mut self) {
        let mut line = String::new();
        BufReader::new(self.0.stdout.as_mut().expect("piped")).read_line(&mut line).expect("text");
        assert_eq!(line.trim(), (CLIENTS / HOLDERS).to_string(), "the holder could not open its connections");
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One test for both drivers, one after the other: together they would need too many ports and too much
/// memory.
#[test]
fn twenty_thousand_clients_under_a_low_file_limit() {
    for driver in [Driver::Mio, Driver::Smol] {
        exhaust_descriptors(driver);
    }
}

fn exhaust_descriptors(driver: Driver) {
    let good = Backend::good("good");
    let config = format!(
        "http_address = \"127.0.0.1:0\"\nmetrics_address = \"127.0.0.1:0\"\naccess_log = {{ enabled = false }}\n\
         timeouts = {{ head = 60, idle = 60 }}\nhealth_interval = {{ check_every = 0 }}\n\
         [[backend_pools]]\naddresses = [\"{}\"]\nschemes = [\"HTTP\"]\n",
        good.address
    );
    let mut daemon =
        Daemon::start_limited(&config, &["--workers", "2", "--driver", driver_name(driver)], Some(1024));
    let (address, admin) = (daemon.address(), daemon.listens("admin"));
    let idle_files = daemon.files();
    // Clients that are connected before the descriptors run out.
    let mut early: Vec<Client> = (0..20).map(|_| Client::to(address)).collect();
    for client in &mut early {
        assert_eq!(client.get("/").map(|a| a.text()), Ok("good".into()));
    }
    let mut holders: Vec<Holder> = (0..HOLDERS).map(|nth| Holder::start(address, nth)).collect();
    holders.iter_mut().for_each(Holder::wait_until_all_are_open);
    daemon.wait_for("accepting is paused");
    assert!(daemon.runs());
    let ticks = daemon.cpu_ticks();
    let begun = Instant::now();
    // Open connections are still served, and so is the admin listener.
    for round in 0..20 {
        for client in &mut early {
            let response =
                client.get("/").unwrap_or_else(|e| panic!("round {round}: {e}: {}", daemon.output()));
            assert_eq!(response.text(), "good");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(Client::to(admin).get("/healthz").map(|a| a.status), Ok(200));
    assert!(daemon.files() <= 1024, "{} files", daemon.files());
    // No worker spins: one that did would use a whole core, which is far more than this.
    let (spent, took) = (daemon.cpu_ticks() - ticks, begun.elapsed());
    assert!(u128::from(spent) * 10 < took.as_millis() / 2, "{spent} ticks in {took:?}");
    // Once the others have closed, new clients are served.
    drop(holders);
    let begun = Instant::now();
    loop {
        let mut client = Client::to(address);
        client.stream().set_read_timeout(Some(Duration::from_secs(2))).expect("a socket");
        if client.get("/").is_ok_and(|a| a.status == 200) {
            break;
        }
        assert!(begun.elapsed() < WAIT, "no new client is served: {}", daemon.output());
    }
    drop(early);
    let begun = Instant::now();
    // Idle connections to the backend stay open.
    while daemon.files() > idle_files + 64 {
        assert!(begun.elapsed() < WAIT, "{} files stay open: {}", daemon.files(), daemon.output());
        std::thread::sleep(Duration::from_millis(20));
    }
    let last = Client::to(address);
    let mut all = Vec::new();
    last.stream().write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("sent");
    last.stream().read_to_end(&mut all).expect("in time");
    assert!(all.ends_with(b"good"), "{}", String::from_utf8_lossy(&all));
    daemon.stop();
}
