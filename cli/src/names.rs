//! Host names of backends, looked up for `--check`.

use std::collections::BTreeMap;
use std::io;
use std::net::ToSocketAddrs;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ruststrom_core::config::{Diagnostic, HostName, Severity};

/// The longest wait for all lookups together.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Names looked up at once.
const THREADS: usize = 16;

/// A warning for each place of `text` with a name that has no address.
pub(crate) fn unresolvable(text: &str, names: &[HostName]) -> Vec<Diagnostic> {
    warnings(text, names, TIMEOUT, |host| (host, 0).to_socket_addrs().map(|mut found| found.next().is_some()))
}

/// [`unresolvable`] with a time limit and a lookup that says whether a name has an address.
fn warnings(
    text: &str,
    names: &[HostName],
    timeout: Duration,
    lookup: impl Fn(&str) -> io::Result<bool> + Clone + Send + 'static,
) -> Vec<Diagnostic> {
    let mut reasons: BTreeMap<&str, Option<String>> = BTreeMap::new();
    for name in names {
        reasons.insert(&name.host, Some(format!("no answer in {timeout:?}")));
    }
    let (tell, told) = mpsc::channel();
    let hosts: Vec<String> = reasons.keys().map(|&host| host.to_owned()).collect();
    for part in hosts.chunks(hosts.len().div_ceil(THREADS).max(1)) {
        let (part, tell, lookup) = (part.to_vec(), tell.clone(), lookup.clone());
        // A lookup can't be interrupted: the process ends without waiting for the thread. If none can be
        // started the names count as not answered.
        let _ = std::thread::Builder::new().name("lookup".into()).spawn(move || {
            for host in part {
                let found = lookup(&host);
                if tell.send((host, found)).is_err() {
                    return;
                }
            }
        });
    }
    drop(tell);
    let end = Instant::now() + timeout;
    while let Ok((host, found)) = told.recv_timeout(end.saturating_duration_since(Instant::now())) {
        if let Some(reason) = reasons.get_mut(&*host) {
            *reason = match found {
                Ok(true) => None,
                Ok(false) => Some("it has no address".into()),
                Err(e) => Some(e.to_string()),
            };
        }
    }
    let failed = names.iter().filter_map(|name| Some((name, reasons.get(&*name.host)?.as_ref()?)));
    failed
        .map(|(name, reason)| {
            let message = format!("the name \"{}\" cannot be resolved here: {reason}", name.host);
            let help = "a start accepts it, and looks it up again later; until then it is not used";
            Diagnostic::at(text, name.span.clone(), Severity::Warning, message, help)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruststrom_core::config;

    #[test]
    fn names_without_an_address() {
        let text = "http_address = \"[::]:80\"\n[[backend_pools]]\naddresses = [\"good:1\", \"bad:1\", \
                    \"none:1\", \"slow:1\", \"127.0.0.1:1\", \"BAD:2\"]\n";
        let names = config::parse(text).places.host_names;
        let found = warnings(text, &names, Duration::from_secs(3), |host| match host {
            "good" => Ok(true),
            "bad" => Err(io::Error::other("no such host")),
            "none" => Ok(false),
            _ => {
                std::thread::sleep(Duration::from_secs(20));
                Ok(true)
            }
        });
        let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "3:24: warning: the name \"bad\" cannot be resolved here: no such host",
                "3:33: warning: the name \"none\" cannot be resolved here: it has no address",
                "3:43: warning: the name \"slow\" cannot be resolved here: no answer in 3s",
                "3:68: warning: the name \"bad\" cannot be resolved here: no such host",
            ]
        );
    }
}
