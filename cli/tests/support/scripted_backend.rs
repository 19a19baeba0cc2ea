//! Backends whose behaviour is a function of the test, with a thread for each connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::address;
use crate::client::{self, WAIT};

/// Counters of a backend.
#[derive(Debug, Default)]
pub(crate) struct BackendStats {
    pub(crate) connections: AtomicUsize,
    /// Connections that are open now.
    pub(crate) open: AtomicUsize,
    pub(crate) requests: AtomicUsize,
    pub(crate) body_bytes: AtomicUsize,
    /// Requests inside [`Peer::count_busy`] now.
    pub(crate) busy: AtomicUsize,
    /// The highest value that `busy` ever had.
    pub(crate) max_busy: AtomicUsize,
}

/// A backend. Once dropped it accepts no more connections.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    pub(crate) stats: Arc<BackendStats>,
    stop: Arc<AtomicBool>,
}

impl Backend {
    /// Listens on a free port and calls `serve` for each connection, on a thread of its own.
    pub(crate) fn start(serve: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("a free port"), serve)
    }

    /// As [`Backend::start`], with this listener.
    pub(crate) fn on(listener: TcpListener, serve: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().expect("bound");
        let backend = Self { address, stats: Arc::default(), stop: Arc::default() };
        let (stats, stop, serve) = (backend.stats.clone(), backend.stop.clone(), Arc::new(serve));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (stats, serve) = (stats.clone(), serve.clone());
                std::thread::spawn(move || {
                    let nth = stats.connections.fetch_add(1, Ordering::SeqCst);
                    stats.open.fetch_add(1, Ordering::SeqCst);
                    let open = OpenConnection(stats.clone());
                    let _ = stream.set_nodelay(true);
                    let _ = stream.set_read_timeout(Some(3 * WAIT));
                    let _ = stream.set_write_timeout(Some(3 * WAIT));
                    serve(Peer { reader: BufReader::new(stream), nth, stats });
                    drop(open);
                });
            }
        });
        backend
    }

    /// A backend that answers each request with a 200 and `body`.
    pub(crate) fn good(body: &'static str) -> Self {
        Self::start(move |mut peer| while peer.request().is_some() && peer.send(ok(body)) {})
    }

    /// An address that refuses connections: nothing listens there.
    pub(crate) fn refusing() -> SocketAddr {
        address::reserve()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which then sees `stop`.
        let _ = TcpStream::connect(self.address);
    }
}

/// Counts an open connection down when dropped.
struct OpenConnection(Arc<BackendStats>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A 200 response with this body.
pub(crate) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A connection of the proxy to a backend.
pub(crate) struct Peer {
    reader: BufReader<TcpStream>,
    /// Connections that this backend had accepted before.
    pub(crate) nth: usize,
    pub(crate) stats: Arc<BackendStats>,
}

impl Peer {
    /// The next request's head in lower case; `None` at the end of the connection.
    pub(crate) fn head(&mut self) -> Option<String> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.reader.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        self.stats.requests.fetch_add(1, Ordering::SeqCst);
        Some(head.to_ascii_lowercase())
    }

    /// Reads the next request and counts the bytes of its body; its head in lower case.
    pub(crate) fn request(&mut self) -> Option<String> {
        let head = self.head()?;
        self.content(&head)?;
        Some(head)
    }

    /// Reads and counts the bytes of the body that the head, in lower case, announces; `None` if it is cut.
    pub(crate) fn content(&mut self, head: &str) -> Option<()> {
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
        Some(())
    }

    /// Reads and counts `length` bytes of a body; `None` if the connection ends before.
    pub(crate) fn body(&mut self, mut length: usize) -> Option<()> {
        let mut buf = vec![0; 64 << 10];
        while length > 0 {
            let n = buf.len().min(length);
            let n = self.reader.read(&mut buf[..n]).ok().filter(|n| *n > 0)?;
            self.stats.body_bytes.fetch_add(n, Ordering::SeqCst);
            length -= n;
        }
        Some(())
    }

    /// Sends bytes; false if the proxy has closed the connection.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.reader.get_mut().write_all(bytes.as_ref()).is_ok()
    }

    /// Sends one byte after another, with a pause before each; false as for [`Peer::send`].
    pub(crate) fn trickle(&mut self, bytes: impl AsRef<[u8]>, pause: Duration) -> bool {
        bytes.as_ref().iter().all(|b| {
            std::thread::sleep(pause);
            self.send([*b])
        })
    }

    /// Shuts down the direction to the proxy.
    pub(crate) fn shut_down(&self) {
        let _ = self.reader.get_ref().shutdown(Shutdown::Write);
    }

    /// All bytes until the proxy shuts down its direction; `None` if the connection was reset.
    pub(crate) fn rest(&mut self) -> Option<Vec<u8>> {
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest).ok().map(|_| rest)
    }

    /// The next byte; `None` at the end of the connection.
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        self.reader.read_exact(&mut byte).ok().map(|()| byte[0])
    }

    /// Reads and drops everything until the proxy closes the connection.
    pub(crate) fn wait_for_close(&mut self) {
        while matches!(self.reader.read(&mut [0; 4096]), Ok(1..)) {}
    }

    /// Closes the connection with a reset.
    pub(crate) fn reset(self) {
        client::reset(self.reader.into_inner());
    }

    /// Runs `work` and counts it in `busy` meanwhile.
    pub(crate) fn count_busy(&self, work: impl FnOnce()) {
        let now = self.stats.busy.fetch_add(1, Ordering::SeqCst) + 1;
        self.stats.max_busy.fetch_max(now, Ordering::SeqCst);
        work();
        self.stats.busy.fetch_sub(1, Ordering::SeqCst);
    }
}
