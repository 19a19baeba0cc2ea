//! Asks an LDAP server (RFC 4511) whether a name and a password are good: the name is looked for, and the
//! password is that of the entry which is found if a bind as it succeeds.
//!
//! The connection on which names are looked for is kept. A bind as a user has a connection of its own, which
//! is closed afterwards: it has that user's rights.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ldap3::tokio::net::TcpStream;
use ldap3::tokio::runtime::{Builder, Runtime};
use ldap3::tokio::task::JoinHandle;
use ldap3::tokio::time;
use ldap3::{Ldap, LdapConnAsync, LdapConnSettings, Scope, SearchEntry, SearchOptions, StdStream};
use rustls::ClientConfig;
use ruststrom_core::LookupResult;
use ruststrom_core::config::{CredentialSource, Directory};

use super::directory_tls;
use super::job_queue::Job;

/// The result codes (RFC 4511 §4.1.9) that say something of the user.
const SUCCESS: u32 = 0;
const INVALID_CREDENTIALS: u32 = 49;

/// Whether a directory cannot be asked at the moment, so that the log says so once, and not for each request.
#[derive(Default)]
pub(super) struct Outages(AtomicBool);

impl Outages {
    fn note(&self, directory: &Directory, result: &Result<bool, String>) {
        let failing = result.is_err();
        if self.0.swap(failing, Ordering::Relaxed) == failing {
            return;
        }
        match result {
            Err(why) => log::warn!("directory {}: nobody can be authenticated: {why}", directory.url()),
            Ok(_) => log::info!("directory {}: it can be asked again", directory.url()),
        }
    }
}

/// What one thread has of a directory.
pub(super) struct Session {
    source: Arc<CredentialSource>,
    outages: Arc<Outages>,
    /// Runs on this thread alone, while it waits for a result.
    runtime: Option<Runtime>,
    tls: Option<Arc<ClientConfig>>,
    /// On which names are looked for.
    search: Option<Connection>,
}

/// A connection, and what carries its bytes.
struct Connection {
    ldap: Ldap,
    carrier: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.carrier.abort();
    }
}

impl Connection {
    /// Ends it, and waits until its socket is closed.
    async fn close(mut self) {
        // If the server is gone that is as good.
        let _ = self.ldap.unbind().await;
        self.carrier.abort();
        let _ = (&mut self.carrier).await;
    }
}

impl Session {
    pub(super) fn new(source: Arc<CredentialSource>, outages: Arc<Outages>) -> Self {
        Self { source, outages, runtime: None, tls: None, search: None }
    }

    /// Whether the name and the password of a job are good. It returns when the job's time is over, whatever
    /// the directory does.
    pub(super) fn check(&mut self, job: &Job) -> LookupResult {
        let source = self.source.clone();
        let CredentialSource::Directory(directory) = &*source else {
            return LookupResult::Failed("there is no directory".into());
        };
        let result = self.ask(directory, job);
        if result.is_err() {
            // What is half done is dropped, the sockets too.
            self.search = None;
            if let Some(runtime) = self.runtime.take() {
                runtime.shutdown_background();
            }
        }
        self.outages.note(directory, &result);
        match result {
            Ok(good) => LookupResult::Authenticated(good),
            Err(why) => LookupResult::Failed(why.into()),
        }
    }

    fn ask(&mut self, directory: &Directory, job: &Job) -> Result<bool, String> {
        if directory.is_encrypted() && self.tls.is_none() {
            self.tls = Some(directory_tls::client_config(directory)?);
        }
        let tls = self.tls.as_ref();
        let runtime = match &mut self.runtime {
            Some(runtime) => runtime,
            None => {
                let made = Builder::new_current_thread().enable_all().build();
                self.runtime.insert(made.map_err(|e| format!("no runtime can be made: {e}"))?)
            }
        };
        let left = job.deadline.saturating_duration_since(Instant::now());
        let search = &mut self.search;
        let asked = async {
            let Some(dn) = find(directory, tls, search, &job.user).await? else { return Ok(false) };
            let mut connection = connect(directory, tls).await?;
            let bound = connection.ldap.simple_bind(&dn, &job.password.0).await;
            let result = match bound {
                Ok(result) if result.rc == SUCCESS => Ok(true),
                Ok(result) if result.rc == INVALID_CREDENTIALS => Ok(false),
                Ok(result) => Err(format!("a bind as a user is refused: {result}")),
                Err(e) => Err(format!("a bind as a user fails: {e}")),
            };
            connection.close().await;
            result
        };
        let late = || format!("no answer within {} s", job.timeout.as_secs_f32());
        runtime.block_on(async { time::timeout(left, asked).await }).unwrap_or_else(|_| Err(late()))
    }
}

/// The distinguished name of the one entry with this name; `None` if there is none. A kept connection that
/// has ended meanwhile is replaced once.
async fn find(
    directory: &Directory,
    tls: Option<&Arc<ClientConfig>>,
    kept: &mut Option<Connection>,
    user: &str,
) -> Result<Option<String>, String> {
    if let Some(mut connection) = kept.take()
        && let Ok(found) = search(directory, &mut connection.ldap, user).await
    {
        *kept = Some(connection);
        return found;
    }
    let mut connection = connect(directory, tls).await?;
    if let Some(bind) = &directory.bind {
        // An empty password would be no bind at all, and succeed (RFC 4513 §5.1.2).
        let password = bind.password.text().ok_or("there is no password for `bind_dn`")?;
        let bound = connection.ldap.simple_bind(&bind.dn, password).await;
        let result = bound.map_err(|e| format!("the bind as `bind_dn` fails: {e}"))?;
        if result.rc != SUCCESS {
            return Err(format!("the bind as `bind_dn` is refused: {result}"));
        }
    }
    let found = search(directory, &mut connection.ldap, user).await;
    let found = found.map_err(|e| format!("the search fails: {e}"))?;
    *kept = Some(connection);
    found
}

/// The outer error: the connection is of no use.
async fn search(
    directory: &Directory,
    ldap: &mut Ldap,
    user: &str,
) -> Result<Result<Option<String>, String>, ldap3::LdapError> {
    let filter = format!("({}={})", directory.rdn_identifier, ldap3::ldap_escape(user));
    let scope = if directory.recursive { Scope::Subtree } else { Scope::OneLevel };
    // No attributes (RFC 4511 §4.5.1.8), and enough entries to see that there is more than one.
    ldap.with_search_options(SearchOptions::new().sizelimit(2));
    let mut stream = ldap.streaming_search(&directory.user_directory, scope, &filter, ["1.1"]).await?;
    let mut found: Vec<String> = Vec::new();
    while let Some(entry) = stream.next().await? {
        if entry.is_ref() || entry.is_intermediate() {
            continue;
        }
        found.push(SearchEntry::construct(entry).dn);
        if found.len() > 1 {
            break;
        }
    }
    let result = stream.finish().await;
    Ok(match found.pop() {
        _ if !found.is_empty() => Err("more than one entry has the name of a user".into()),
        _ if result.rc != SUCCESS => Err(format!("the search is refused: {result}")),
        // A bind as nobody would succeed.
        Some(dn) if dn.is_empty() => Err("the entry of a user has no name".into()),
        found => Ok(found),
    })
}

/// A new connection, on which nobody is bound.
async fn connect(directory: &Directory, tls: Option<&Arc<ClientConfig>>) -> Result<Connection, String> {
    let stream = reach(directory).await?;
    let mut settings = LdapConnSettings::new().set_std_stream(StdStream::Tcp(stream));
    settings = settings.set_starttls(directory.starttls);
    if let Some(tls) = tls {
        settings = settings.set_config(tls.clone());
    }
    let opened = LdapConnAsync::with_settings(settings, &directory.url()).await;
    let (connection, ldap) = opened.map_err(|e| format!("no connection: {e}"))?;
    let carrier = ldap3::tokio::spawn(async move {
        if let Err(e) = connection.drive().await {
            log::debug!("a connection to a directory broke: {e}");
        }
    });
    Ok(Connection { ldap, carrier })
}

/// A connected socket: of the addresses of the host, the first that takes a connection.
async fn reach(directory: &Directory) -> Result<std::net::TcpStream, String> {
    let (host, port) = (directory.host.clone(), directory.port);
    // The system's resolver blocks, and may do so for longer than anybody waits here.
    let found = smol::unblock(move || Ok((&*host, port).to_socket_addrs()?.collect::<Vec<SocketAddr>>()));
    let found: std::io::Result<Vec<SocketAddr>> = found.await;
    let addresses = found.map_err(|e| format!("its name does not resolve: {e}"))?;
    let mut failed = "its name has no address".to_owned();
    for address in addresses {
        match TcpStream::connect(address).await.and_then(TcpStream::into_std) {
            Ok(stream) => return Ok(stream),
            Err(e) => failed = format!("cannot connect to {address}: {e}"),
        }
    }
    Err(failed)
}
