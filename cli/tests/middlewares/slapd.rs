//! A real directory: Debian's slapd, a single process with a folder of its own.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::address;
use crate::authority::Pair;
use crate::client::WAIT;
use crate::daemon::TempDir;
use crate::nginx::{output, program};

/// What a test wants of a directory.
#[derive(Default)]
pub(crate) struct Wanted<'a> {
    /// Only `cn=reader,dc=example,dc=com`, whose password is "search", may look for entries.
    pub(crate) private: bool,
    /// For TLS, and its authority.
    pub(crate) certificate: Option<&'a Pair>,
}

/// A running slapd, killed when dropped.
pub(crate) struct Slapd {
    /// Of `ldap://`.
    pub(crate) plain: SocketAddr,
    /// Of `ldaps://`, if there is a certificate.
    pub(crate) secure: SocketAddr,
    urls: String,
    config: PathBuf,
    _folder: TempDir,
    child: Child,
}

/// Starts it, and waits until it listens.
fn spawn(plain: SocketAddr, urls: &str, config: &Path) -> Child {
    let mut command = Command::new(program("slapd", "slapd"));
    // `-d 0`: in the foreground.
    command.args(["-d", "0", "-h", urls, "-f"]).arg(config);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("it starts");
    let begun = Instant::now();
    while TcpStream::connect(plain).is_err() {
        assert!(begun.elapsed() < WAIT, "slapd does not listen");
        assert!(child.try_wait().expect("our child").is_none(), "slapd has ended");
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

/// Further below `ou=users` are `bob` (password "hope") and one `twin` ("love"); directly below it are `ada`
/// and another `twin` ("love"), and `äda` ("ünlös").
const DATA: &str = "dn: dc=example,dc=com
objectClass: dcObject
objectClass: organization
dc: example
o: Example

dn: cn=reader,dc=example,dc=com
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: reader
userPassword: search

dn: ou=users,dc=example,dc=com
objectClass: organizationalUnit
ou: users

dn: ou=deep,ou=users,dc=example,dc=com
objectClass: organizationalUnit
ou: deep
";

fn person(uid: &str, below: &str, password: &str) -> String {
    format!(
        "\ndn: uid={uid},{below}ou=users,dc=example,dc=com\nobjectClass: inetOrgPerson\nuid: {uid}\n\
         cn: {uid}\nsn: {uid}\nuserPassword: {password}\n"
    )
}

impl Slapd {
    pub(crate) fn start(wanted: &Wanted<'_>) -> Self {
        let folder = TempDir::new("slapd");
        let path = folder.0.display().to_string();
        std::fs::create_dir(folder.0.join("db")).expect("a folder");
        let (plain, secure) = (address::reserve(), address::reserve());
        let readers = if wanted.private {
            "by dn.exact=\"cn=reader,dc=example,dc=com\" read by anonymous auth by * none"
        } else {
            "by * read"
        };
        let tls = wanted.certificate.map_or(String::new(), |pair| {
            let (certificate, key) = (pair.certificate.display(), pair.key.display());
            format!("TLSCertificateFile {certificate}\nTLSCertificateKeyFile {key}\n")
        });
        // A comment behind a directive would make slapd exit without a word.
        let config = format!(
            "include /etc/ldap/schema/core.schema\ninclude /etc/ldap/schema/cosine.schema\n\
             include /etc/ldap/schema/inetorgperson.schema\npidfile {path}/pid\nargsfile {path}/args\n\
             modulepath /usr/lib/ldap\nmoduleload back_mdb\n{tls}database mdb\nmaxsize 10485760\n\
             suffix \"dc=example,dc=com\"\ndirectory {path}/db\n\
             access to attrs=userPassword by anonymous auth by * none\naccess to * {readers}\n"
        );
        let config = folder.write("slapd.conf", config);
        let people = [
            person("ada", "", "love"),
            person("bob", "ou=deep,", "hope"),
            person("twin", "", "love"),
            person("twin", "ou=deep,", "love"),
            // LDIF has other texts than ASCII in base64 (RFC 2849).
            "\ndn:: dWlkPcOkZGEsb3U9dXNlcnMsZGM9ZXhhbXBsZSxkYz1jb20=\nobjectClass: inetOrgPerson\n\
             uid:: w6RkYQ==\ncn: ada\nsn: ada\nuserPassword:: w7xubMO2cw==\n"
                .to_owned(),
        ];
        let data = folder.write("data.ldif", DATA.to_owned() + &people.concat());
        output(Command::new(program("slaptest", "slapd")).arg("-uf").arg(&config));
        output(Command::new(program("slapadd", "slapd")).arg("-f").arg(&config).arg("-l").arg(data));
        let secure_url = wanted.certificate.map_or(String::new(), |_| format!(" ldaps://{secure}"));
        let urls = format!("ldap://{plain}{secure_url}");
        let child = spawn(plain, &urls, &config);
        Self { plain, secure, urls, config, _folder: folder, child }
    }

    /// Starts it again, where it was.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.child = spawn(self.plain, &self.urls, &self.config);
    }

    /// Ends it.
    pub(crate) fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Slapd {
    fn drop(&mut self) {
        self.stop();
    }
}
