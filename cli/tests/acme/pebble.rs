//! Pebble, a CA for tests, and the DNS that it asks.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::address::reserve;
use crate::client::WAIT;
use crate::daemon::TempDir;

/// What is unusual about a CA.
#[derive(Default)]
pub(crate) struct Oddities {
    /// Of a hundred nonces so many are refused.
    pub(crate) nonces_refused: u8,
    /// Of a hundred orders so many find authorizations of earlier ones.
    pub(crate) authorizations_reused: u8,
    /// The most that it waits before it validates, in seconds.
    pub(crate) slow: u8,
    /// Key identifiers and keys (base64url) of external accounts; with any, no other account is made.
    pub(crate) external: Vec<(&'static str, &'static str)>,
    /// How long certificates are valid, in seconds.
    pub(crate) validity: Option<u32>,
}

/// A CA that asks a daemon for challenges: each has ports of its own.
pub(crate) struct Pebble {
    child: Option<Child>,
    names: Child,
    folder: TempDir,
    oddities: Oddities,
    api: SocketAddr,
    management: SocketAddr,
    dns: SocketAddr,
    /// Where every name leads: port 80 and 443 as the CA sees them.
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
}

fn start(command: &mut Command, folder: &TempDir, log: &str) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.0.join(log)).expect("a log");
    let errors = log.try_clone().expect("a log");
    command.stdin(Stdio::null()).stdout(log).stderr(errors);
    command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}; .ci/test installs it"))
}

fn wait_for(address: SocketAddr, what: &str) {
    let begun = Instant::now();
    while std::net::TcpStream::connect(address).is_err() {
        assert!(begun.elapsed() < WAIT, "{what} does not listen on {address}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Pebble {
    /// A CA that runs, and the DNS that it asks.
    pub(crate) fn start(oddities: Oddities) -> Self {
        let mut pebble = Self::stopped(oddities);
        pebble.run();
        pebble
    }

    /// A CA that does not run yet.
    pub(crate) fn stopped(oddities: Oddities) -> Self {
        let folder = TempDir::new("pebble");
        make_certificate(&folder);
        let (api, management) = (reserve(), reserve());
        let (dns, dns_management) = (reserve(), reserve());
        let http = reserve();
        // Both ports of the names are on one address.
        let https = SocketAddr::new(http.ip(), free_port(http));
        let mut command = Command::new("pebble-challtestsrv");
        command.args(["-dns01", &dns.to_string(), "-management", &dns_management.to_string()]);
        command.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""]);
        command.args(["-defaultIPv4", &http.ip().to_string()]);
        let names = start(&mut command, &folder, "names.log");
        wait_for(dns_management, "pebble-challtestsrv");
        Self { child: None, names, folder, oddities, api, management, dns, http, https }
    }

    pub(crate) fn run(&mut self) {
        let Oddities { nonces_refused, authorizations_reused, slow, external, validity } = &self.oddities;
        let keys: Vec<String> = external.iter().map(|(kid, key)| format!("\"{kid}\": \"{key}\"")).collect();
        let mut config = format!(
            "{{ \"pebble\": {{ \"listenAddress\": \"{}\", \"managementListenAddress\": \"{}\",\n\
             \"certificate\": \"{folder}/server.crt\", \"privateKey\": \"{folder}/server.key\",\n\
             \"httpPort\": {}, \"tlsPort\": {}, \"ocspResponderURL\": \"\",\n\
             \"externalAccountBindingRequired\": {}, \"externalAccountMACKeys\": {{ {} }}",
            self.api,
            self.management,
            self.http.port(),
            self.https.port(),
            !external.is_empty(),
            keys.join(", "),
            folder = self.folder.0.display(),
        );
        if let Some(seconds) = validity {
            write!(config, ",\n\"certificateValidityPeriod\": {seconds}").expect("memory");
        }
        let file = self.folder.write("pebble.json", config + " } }\n");
        let mut command = Command::new("pebble");
        command.arg("-config").arg(file).args(["-strict=true", "-dnsserver", &self.dns.to_string()]);
        command.env("PEBBLE_WFE_NONCEREJECT", nonces_refused.to_string());
        command.env("PEBBLE_AUTHZREUSE", authorizations_reused.to_string());
        match slow {
            0 => command.env("PEBBLE_VA_NOSLEEP", "1"),
            seconds => command.env("PEBBLE_VA_SLEEPTIME", seconds.to_string()),
        };
        self.child = Some(start(&mut command, &self.folder, "pebble.log"));
        wait_for(self.management, "pebble");
        wait_for(self.api, "pebble");
        // It has another root each time.
        let root = Command::new("curl")
            .args(["-sS", "--cacert"])
            .arg(self.folder.0.join("ca.crt"))
            .arg(format!("https://{}/roots/0", self.management))
            .output()
            .expect("curl is installed");
        assert!(root.status.success(), "{}", String::from_utf8_lossy(&root.stderr));
        self.folder.write("root.pem", root.stdout);
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.0.join("pebble.log")).unwrap_or_default()
    }

    /// How often a line with this was logged.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.log().lines().filter(|line| line.contains(text)).count()
    }

    /// The keys of `ACME` that lead to this CA.
    pub(crate) fn keys(&self) -> String {
        let file = self.folder.0.join("ca.crt");
        format!("directory_url = \"https://{}/dir\", ca_file = \"{}\"", self.api, file.display())
    }

    /// A request by curl over HTTPS, which trusts this CA alone: whether the certificate is accepted.
    pub(crate) fn trusts(&self, name: &str) -> bool {
        let out = Command::new("curl")
            .args(["-sS", "-o", "/dev/null", "--max-time", "10", "--cacert"])
            .arg(self.folder.0.join("root.pem"))
            .args(["--connect-to", &format!("::{}", self.https), &format!("https://{name}/")])
            .output()
            .expect("curl is installed");
        out.status.success()
    }

    /// Waits until the daemon has a certificate of this CA for a name.
    pub(crate) fn wait_until_trusted(&self, name: &str, daemon: &crate::daemon::Daemon) {
        let begun = Instant::now();
        while !self.trusts(name) {
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "no certificate for {name}:\n{}\n{}",
                daemon.output(),
                self.log()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.stop();
        let _ = self.names.kill();
        let _ = self.names.wait();
    }
}

/// A free port on the address of another one.
fn free_port(other: SocketAddr) -> u16 {
    let listener = std::net::TcpListener::bind((other.ip(), 0)).expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    if port == other.port() { free_port(other) } else { port }
}

/// `server.crt` and `server.key` for the CA's own listeners, signed by `ca.crt`.
fn make_certificate(folder: &TempDir) {
    let key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "a CA's own CA");
    folder.write("ca.crt", ca.self_signed(&key).expect("a CA").pem());
    let issuer = Issuer::new(ca, key);
    let key = KeyPair::generate().expect("a key");
    // Every address of the loopback that a test may get is one of these.
    let addresses = (1..=254).map(|nth| {
        let [.., high, low] = std::process::id().to_be_bytes();
        format!("127.{nth}.{high}.{low}")
    });
    let mut params = CertificateParams::new(addresses.collect::<Vec<_>>()).expect("names");
    params.distinguished_name.push(DnType::CommonName, "a CA");
    folder.write("server.crt", params.signed_by(&key, &issuer).expect("a certificate").pem());
    folder.write("server.key", key.serialize_pem());
}
