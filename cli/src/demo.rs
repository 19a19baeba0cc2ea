//! `rust-strom demo`: three small backends and the proxy in one process.

use std::fs::DirBuilder;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use ruststrom_core::config::{Driver, ListenerKind};
use ruststrom_driver::watch::Contents;

use crate::load;
use crate::serve::{Start, serve};
use crate::signals;

const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];
/// The longest head that a backend reads, in bytes; the proxy sends no longer ones.
const MAX_HEAD: u64 = 64 << 10;
/// A connection without a request for this long is closed: longer than the proxy keeps idle connections.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// Runs the demo until a signal stops it; the exit code. `tls`: over TLS too.
///
/// # Errors
/// A message if a backend or the proxy cannot start.
pub(crate) fn run(tls: bool, workers: Option<u16>, driver: Option<Driver>) -> Result<ExitCode, String> {
    let backend = |name: &&'static str| {
        backend(name).map_err(|e| format!("cannot start the demo's backend {name}: {e}"))
    };
    let backends = NAMES.iter().map(backend).collect::<Result<Vec<_>, _>>()?;
    let certificate = match tls {
        true => Some(Certificate::make().map_err(|e| format!("cannot make the demo's certificate: {e}"))?),
        false => None,
    };
    let signals = signals::hold()?;
    let text = configuration("127.0.0.1:0", certificate.as_ref().map(|c| ("127.0.0.1:0", c)), &backends);
    let loaded = load::load("demo", &text, Path::new(""), None, &mut Contents::default())?;
    let start = Start {
        loaded,
        file: None,
        folder: PathBuf::new(),
        workers,
        driver,
        pid_file: None,
        signals,
        predecessor: None,
    };
    serve(start, |bound| {
        let find = |kind| bound.iter().find(|l| l.kind == kind).map(|l| l.address.to_string());
        let Some(address) = find(ListenerKind::Http) else { return };
        let https = find(ListenerKind::Https);
        let secured = https.as_deref().zip(certificate.as_ref());
        let over_tls = match &https {
            Some(https) => format!("    curl -k https://{https}/hello\n"),
            None => String::new(),
        };
        let printed = writeln!(
            io::stdout(),
            "Three backends ({}) are behind this proxy. Try it a few times:\n\n    curl http://{address}/hello\n{over_tls}\n\
             Ctrl-C ends it. This is the configuration it runs with:\n\n{}",
            NAMES.join(", "),
            configuration(&address, secured, &backends)
        );
        // Standard output may be closed; the demo runs all the same.
        drop(printed);
    })
}

/// `https`: where to listen for TLS, and with what.
fn configuration(http: &str, https: Option<(&str, &Certificate)>, backends: &[SocketAddr]) -> String {
    let addresses = backends.iter().map(|b| format!("\"{b}\"")).collect::<Vec<_>>().join(", ");
    let (listener, certificate) = match https {
        Some((address, made)) => {
            let file = |name| made.folder.join(name).display().to_string();
            let (certificate, key) = (file(CERTIFICATE), file(KEY));
            (
                format!("https_address = \"{address}\"\n"),
                format!(
                    "[certificates.localhost]\ndefault = true\n\
                     Local = {{ certificate_path = '{certificate}', private_key_path = '{key}' }}\n\n"
                ),
            )
        }
        None => Default::default(),
    };
    let schemes = if https.is_some() { "\"HTTP\", \"HTTPS\"" } else { "\"HTTP\"" };
    format!(
        "http_address = \"{http}\"\n{listener}metrics_address = false\n\n{certificate}[[backend_pools]]\naddresses = [{addresses}]\n\
         schemes = [{schemes}]\nstrategy = {{ RoundRobin = {{}} }}\n"
    )
}

const CERTIFICATE: &str = "localhost.crt";
const KEY: &str = "localhost.key";

/// A certificate for this machine that signs itself, in files that live as long as this value.
struct Certificate {
    folder: PathBuf,
}

impl Certificate {
    fn make() -> io::Result<Self> {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).map_err(io::Error::other)?;
        let folder = std::env::temp_dir().join(format!("rust-strom-demo-{}", std::process::id()));
        // Whoever was there first may read what is in it, or have a link in the place of a file.
        DirBuilder::new().mode(0o700).create(&folder)?;
        let certificate = Self { folder };
        std::fs::write(certificate.folder.join(CERTIFICATE), made.cert.pem())?;
        std::fs::write(certificate.folder.join(KEY), made.signing_key.serialize_pem())?;
        Ok(certificate)
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        // What is left lies in a folder for such things.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Starts a backend that responds with its name; its address.
fn backend(name: &'static str) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    std::thread::Builder::new().name(name.into()).spawn(move || {
        for stream in listener.incoming() {
            // Out of file descriptors: wait for some to be closed.
            let Ok(stream) = stream else {
                std::thread::sleep(Duration::from_millis(50));
                continue;
            };
            let _ = std::thread::Builder::new()
                .stack_size(128 << 10)
                .spawn(move || serve_connection(name, stream));
        }
    })?;
    Ok(address)
}

/// Responds to the requests on one connection until it ends.
fn serve_connection(name: &str, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(IDLE_TIMEOUT))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let Some(request) = read_head(&mut reader)? else { return Ok(()) };
        if request.expects_continue {
            writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        skip_body(&mut reader, request.body)?;
        let body = format!("{name} answers {} {}\n", request.method, request.target);
        let mut response = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nX-Backend: {name}\r\n\r\n",
            body.len()
        );
        if request.method != "HEAD" {
            response.push_str(&body);
        }
        writer.write_all(response.as_bytes())?;
        if request.close {
            return Ok(());
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Body {
    Length(u64),
    Chunked,
}

#[derive(Debug, PartialEq, Eq)]
struct Request {
    method: String,
    target: String,
    body: Body,
    expects_continue: bool,
    close: bool,
}

/// The next head; `None` at the end of the stream. The proxy has validated it, so this parser is lenient.
fn read_head(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let mut lines = reader.take(MAX_HEAD).lines();
    let Some(first) = lines.next().transpose()? else { return Ok(None) };
    let mut words = first.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Err(bad()) };
    let mut request = Request {
        method: method.into(),
        target: target.into(),
        body: Body::Length(0),
        expects_continue: false,
        close: first.ends_with("/1.0"),
    };
    loop {
        let line = lines.next().ok_or_else(bad)??;
        if line.is_empty() {
            return Ok(Some(request));
        }
        let (field, value) = line.split_once(':').ok_or_else(bad)?;
        let value = value.trim().to_ascii_lowercase();
        match field.to_ascii_lowercase().as_str() {
            "content-length" => request.body = Body::Length(value.parse().map_err(|_| bad())?),
            "transfer-encoding" => request.body = Body::Chunked,
            "expect" => request.expects_continue = value == "100-continue",
            "connection" => request.close |= value == "close",
            _ => {}
        }
    }
}

/// Reads and drops a body.
fn skip_body(reader: &mut impl BufRead, body: Body) -> io::Result<()> {
    let skip = |reader: &mut dyn BufRead, n: u64| io::copy(&mut reader.take(n), &mut io::sink()).map(|_| ());
    match body {
        Body::Length(n) => skip(reader, n),
        Body::Chunked => loop {
            let mut line = String::new();
            reader.by_ref().take(MAX_HEAD).read_line(&mut line)?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let size =
                u64::from_str_radix(digits, 16).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            if size > 0 {
                skip(reader, size.saturating_add(2))?;
                continue;
            }
            // Trailers end with an empty line.
            loop {
                line.clear();
                if reader.by_ref().take(MAX_HEAD).read_line(&mut line)? <= 2 {
                    return Ok(());
                }
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn backends_respond_to_pipelined_requests() {
        let address = backend("alpha").expect("a free port");
        let mut stream = TcpStream::connect(address).expect("listening");
        let table = [
            ("GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n", "alpha answers GET /a?b\n"),
            ("POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody", "alpha answers POST /p\n"),
            (
                "PUT /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nTrailer: t\r\n\r\n",
                "alpha answers PUT /c\n",
            ),
            ("HEAD /h HTTP/1.1\r\nHost: x\r\n\r\n", ""),
            ("GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "alpha answers GET /last\n"),
        ];
        // All requests at once: the responses come in order.
        stream.write_all(table.map(|t| t.0).concat().as_bytes()).expect("sent");
        let mut responses = String::new();
        stream.read_to_string(&mut responses).expect("closed after the last");
        let mut rest = responses.as_str();
        for (request, body) in table {
            let (head, after) = rest.split_once("\r\n\r\n").expect("a head");
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{request}: {head}");
            rest = after.strip_prefix(body).unwrap_or_else(|| panic!("{request}: {after}"));
        }
        assert_eq!(rest, "");
    }

    #[test]
    fn the_demo_configuration_is_valid() {
        let text = configuration("127.0.0.1:0", None, &["127.0.0.1:1".parse().expect("an address")]);
        assert_eq!(load::check("demo", &text, Path::new("")).report, "");
        let loaded = load::load("demo", &text, Path::new(""), None, &mut Contents::default());
        let loaded = loaded.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((loaded.config.pools[0].backends.len(), loaded.warnings.len()), (1, 0));
    }
}
