//! More clients than there are descriptors.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::daemon::Daemon;
use crate::scripted::Backend;
use crate::talk::{Client, WAIT};

/// Clients, over all the helpers: more than one process may have open here.
const CLIENTS: usize = 20_000;
const HELPERS: usize = 4;

/// Opens as many connections as it is told, says so, and holds them until its input ends.
const HOLDER: &str = "
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

struct Holder(Child);

impl Holder {
    fn start(to: SocketAddr, nth: usize) -> Self {
        let arguments = [
            to.ip().to_string(),
            to.port().to_string(),
            format!("127.0.1.{}", nth + 1),
            (CLIENTS / HELPERS).to_string(),
        ];
        let mut command = Command::new("python3");
        command.args(["-c", HOLDER]).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(command.spawn().expect("python3 is needed (Debian package python3)"))
    }

    fn wait_until_all_are_there(&mut self) {
        let mut said = String::new();
        BufReader::new(self.0.stdout.as_mut().expect("piped")).read_line(&mut said).expect("text");
        assert_eq!(said.trim(), (CLIENTS / HELPERS).to_string(), "the helper could not open its connections");
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn twenty_thousand_clients_under_a_low_file_limit() {
    let good = Backend::good("good");
    let config = format!(
        "http_address = \"127.0.0.1:0\"\nmetrics_address = \"127.0.0.1:0\"\naccess_log = {{ enabled = false }}\n\
         timeouts = {{ head = 60, idle = 60 }}\n[[backend_pools]]\naddresses = [\"{}\"]\nschemes = [\"HTTP\"]\n",
        good.address
    );
    let mut daemon =
        Daemon::start_limited(&config, &["--workers", "2", "--driver", crate::driver()], Some(1024));
    let (address, page) = (daemon.address(), daemon.listens("own page"));
    let idle_files = daemon.files();
    // Those who were there before.
    let mut early: Vec<Client> = (0..20).map(|_| Client::to(address)).collect();
    for client in &mut early {
        assert_eq!(client.get("/").map(|a| a.text()), Ok("good".into()));
    }
    let mut holders: Vec<Holder> = (0..HELPERS).map(|nth| Holder::start(address, nth)).collect();
    holders.iter_mut().for_each(Holder::wait_until_all_are_there);
    daemon.wait_for("accepting is paused");
    assert!(daemon.runs());
    let ticks = daemon.cpu_ticks();
    let begun = Instant::now();
    // They are served all the same, and so is our own page.
    for round in 0..20 {
        for client in &mut early {
            let response =
                client.get("/").unwrap_or_else(|e| panic!("round {round}: {e}: {}", daemon.said()));
            assert_eq!(response.text(), "good");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(Client::to(page).get("/healthz").map(|a| a.status), Ok(200));
    assert!(daemon.files() <= 1024, "{} files", daemon.files());
    // Nobody spins: a second of one core in over a second of two would be far more than this.
    let (spent, took) = (daemon.cpu_ticks() - ticks, begun.elapsed());
    assert!(u128::from(spent) * 10 < took.as_millis() / 2, "{spent} ticks in {took:?}");
    // They go, and whoever comes is served.
    drop(holders);
    let begun = Instant::now();
    loop {
        let mut client = Client::to(address);
        client.stream().set_read_timeout(Some(Duration::from_secs(2))).expect("a socket");
        if client.get("/").is_ok_and(|a| a.status == 200) {
            break;
        }
        assert!(begun.elapsed() < WAIT, "nobody is served any more: {}", daemon.said());
    }
    drop(early);
    let begun = Instant::now();
    // Idle connections to the backend stay.
    while daemon.files() > idle_files + 64 {
        assert!(begun.elapsed() < WAIT, "{} files stay open: {}", daemon.files(), daemon.said());
        std::thread::sleep(Duration::from_millis(20));
    }
    let last = Client::to(address);
    let mut all = Vec::new();
    last.stream().write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("sent");
    last.stream().read_to_end(&mut all).expect("in time");
    assert!(all.ends_with(b"good"), "{}", String::from_utf8_lossy(&all));
    daemon.stop();
}
