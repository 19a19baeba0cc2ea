//! Backends that do what a test tells them, a thread for each connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::address;
use crate::talk::{self, WAIT};

/// What a backend has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) connections: AtomicUsize,
    /// Connections that are open now.
    pub(crate) open: AtomicUsize,
    pub(crate) requests: AtomicUsize,
    pub(crate) body_bytes: AtomicUsize,
    /// Requests that are being answered now, and the most that ever were at once.
    pub(crate) busy: AtomicUsize,
    pub(crate) most_busy: AtomicUsize,
}

/// A backend; it takes no more connections once dropped.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
}

impl Backend {
    /// `serve` is called for each connection, on a thread of its own.
    pub(crate) fn start(serve: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let backend = Self { address, seen: Arc::default(), stop: Arc::default() };
        let (seen, stop, serve) = (backend.seen.clone(), backend.stop.clone(), Arc::new(serve));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (seen, serve) = (seen.clone(), serve.clone());
                std::thread::spawn(move || {
                    let nth = seen.connections.fetch_add(1, Ordering::SeqCst);
                    seen.open.fetch_add(1, Ordering::SeqCst);
                    let left = Left(seen.clone());
                    let _ = stream.set_nodelay(true);
                    let _ = stream.set_read_timeout(Some(3 * WAIT));
                    let _ = stream.set_write_timeout(Some(3 * WAIT));
                    serve(Peer { reader: BufReader::new(stream), nth, seen });
                    drop(left);
                });
            }
        });
        backend
    }

    /// One that answers each request with `body`.
    pub(crate) fn good(body: &'static str) -> Self {
        Self::start(move |mut peer| while peer.request().is_some() && peer.send(ok(body)) {})
    }

    /// An address where nobody listens.
    pub(crate) fn nobody() -> SocketAddr {
        address::lone()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes it.
        let _ = TcpStream::connect(self.address);
    }
}

struct Left(Arc<Seen>);

impl Drop for Left {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A plain answer.
pub(crate) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A connection of the proxy to a backend.
pub(crate) struct Peer {
    reader: BufReader<TcpStream>,
    /// How many there were before it.
    pub(crate) nth: usize,
    pub(crate) seen: Arc<Seen>,
}

impl Peer {
    /// The next head, in lower case; `None` when there is none any more.
    pub(crate) fn head(&mut self) -> Option<String> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.reader.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        self.seen.requests.fetch_add(1, Ordering::SeqCst);
        Some(head.to_ascii_lowercase())
    }

    /// The next request, its body read and counted.
    pub(crate) fn request(&mut self) -> Option<String> {
        let head = self.head()?;
        let field = |name: &str| head.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "));
        if let Some(length) = field("content-length") {
            self.body(length.parse().ok()?)?;
        } else if field("transfer-encoding").is_some() {
            loop {
                let mut line = String::new();
                self.reader.read_line(&mut line).ok()?;
                let size = usize::from_str_radix(line.trim(), 16).ok()?;
                self.body(size)?;
                line.clear();
                self.reader.read_line(&mut line).ok()?;
                if size == 0 {
                    break;
                }
            }
        }
        Some(head)
    }

    /// Reads and counts so many bytes of a body.
    pub(crate) fn body(&mut self, mut length: usize) -> Option<()> {
        let mut buf = vec![0; 64 << 10];
        while length > 0 {
            let n = buf.len().min(length);
            let n = self.reader.read(&mut buf[..n]).ok().filter(|n| *n > 0)?;
            self.seen.body_bytes.fetch_add(n, Ordering::SeqCst);
            length -= n;
        }
        Some(())
    }

    /// False if the proxy is gone.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.reader.get_mut().write_all(bytes.as_ref()).is_ok()
    }

    /// One byte after another.
    pub(crate) fn trickle(&mut self, bytes: impl AsRef<[u8]>, pause: Duration) -> bool {
        bytes.as_ref().iter().all(|b| {
            std::thread::sleep(pause);
            self.send([*b])
        })
    }

    /// Ends our direction.
    pub(crate) fn finish(&self) {
        let _ = self.reader.get_ref().shutdown(Shutdown::Write);
    }

    /// Everything until the proxy ends its direction; `None` if the connection broke.
    pub(crate) fn rest(&mut self) -> Option<Vec<u8>> {
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest).ok().map(|_| rest)
    }

    /// The next byte.
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        self.reader.read_exact(&mut byte).ok().map(|()| byte[0])
    }

    /// Waits until the proxy is gone, and reads nothing meanwhile.
    pub(crate) fn wait_for_the_end(&mut self) {
        while matches!(self.reader.read(&mut [0; 4096]), Ok(1..)) {}
    }

    /// Closes by a reset.
    pub(crate) fn reset(self) {
        talk::reset(self.reader.into_inner());
    }

    /// Counts what runs at once.
    pub(crate) fn busy(&self, work: impl FnOnce()) {
        let now = self.seen.busy.fetch_add(1, Ordering::SeqCst) + 1;
        self.seen.most_busy.fetch_max(now, Ordering::SeqCst);
        work();
        self.seen.busy.fetch_sub(1, Ordering::SeqCst);
    }
}
