//! An HTTP/1.1 client that sends exactly the bytes it is given and reads responses strictly.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, sockopt};

/// The longest wait for a single event in a test.
pub(crate) const WAIT: Duration = Duration::from_secs(20);

/// A connection with read and write timeouts of [`WAIT`].
pub(crate) fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap_or_else(|e| panic!("{to} does not listen: {e}"));
    with_timeouts(stream)
}

/// A connection with read and write timeouts of [`WAIT`], from the local address `from`.
pub(crate) fn connect_from(from: IpAddr, to: SocketAddr) -> TcpStream {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket: OwnedFd = rustix::net::socket(family, SocketType::STREAM, None).expect("a socket");
    rustix::net::bind(&socket, &SocketAddr::new(from, 0)).expect("an address of the loopback");
    rustix::net::connect(&socket, &to).expect("listening");
    with_timeouts(TcpStream::from(socket))
}

fn with_timeouts(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(WAIT)).expect("a socket");
    stream.set_write_timeout(Some(WAIT)).expect("a socket");
    stream.set_nodelay(true).expect("a socket");
    stream
}

/// Closes a connection with a reset.
pub(crate) fn reset(stream: TcpStream) {
    sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("a socket");
    drop(stream);
}

/// A complete final response, and how many interim responses came before it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) interims: usize,
    /// Status line and field lines, without the empty line.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The value of the first field of this name.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().skip(1).filter_map(|l| l.split_once(": "));
        fields.find_map(|(n, v)| n.eq_ignore_ascii_case(name).then_some(v))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A connection, with the bytes read beyond the last response.
pub(crate) struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    /// Connects to `address`.
    pub(crate) fn to(address: SocketAddr) -> Self {
        Self::over(connect(address))
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        Self { reader: BufReader::new(stream) }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), String> {
        self.reader.get_mut().write_all(bytes.as_ref()).map_err(|e| format!("sending: {e}"))
    }

    /// Sends a GET request for host `localhost` and reads the response.
    pub(crate) fn get(&mut self, target: &str) -> Result<Response, String> {
        self.get_from("localhost", target)
    }

    /// Sends a GET request for a host and reads the response.
    pub(crate) fn get_from(&mut self, host: &str, target: &str) -> Result<Response, String> {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"))?;
        self.response(false)
    }

    /// The next final response; an error says where in it the connection ended. `to_head`: the request was
    /// HEAD.
    pub(crate) fn response(&mut self, to_head: bool) -> Result<Response, String> {
        let mut response = Response::default();
        loop {
            let head = self.head()?;
            response.status = head
                .get(9..12)
                .and_then(|s| s.parse().ok())
                .ok_or_else(|| format!("no status line: {head:?}"))?;
            response.head = head;
            if response.status >= 200 || response.status == 101 {
                break;
            }
            response.interims += 1;
        }
        if to_head || matches!(response.status, 101 | 204 | 304) {
            return Ok(response);
        }
        response.body = if response.field("Transfer-Encoding").is_some() {
            self.chunks()?
        } else if let Some(length) = response.field("Content-Length") {
            let length = length.parse().map_err(|_| format!("a length: {length:?}"))?;
            self.exact(length)?
        } else {
            self.rest()?
        };
        Ok(response)
    }

    /// A head up to and without the empty line.
    fn head(&mut self) -> Result<String, String> {
        let mut head = String::new();
        loop {
            let before = head.len();
            let n = self.reader.read_line(&mut head).map_err(|e| format!("in the head {head:?}: {e}"))?;
            if n == 0 {
                return Err(if head.is_empty() {
                    "closed".into()
                } else {
                    format!("closed in the head {head:?}")
                });
            }
            if !head.ends_with("\r\n") {
                return Err(format!("no CRLF: {head:?}"));
            }
            if n == 2 && before > 0 {
                return Ok(head);
            }
        }
    }

    /// Exactly `length` bytes.
    pub(crate) fn exact(&mut self, length: usize) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        let got = self
            .reader
            .by_ref()
            .take(length as u64)
            .read_to_end(&mut body)
            .map_err(|e| format!("in the body: {e}"))?;
        if got == length {
            Ok(body)
        } else {
            Err(format!("closed after {got} of {length} bytes of the body"))
        }
    }

    fn chunks(&mut self) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line).map_err(|e| format!("in a chunk's head: {e}"))?;
            let size = line.strip_suffix("\r\n").and_then(|l| usize::from_str_radix(l, 16).ok());
            let size = size.ok_or_else(|| format!("a chunk's size: {line:?}"))?;
            body.extend(self.exact(size)?);
            if self.exact(2)? != b"\r\n" {
                return Err("a chunk has no end".into());
            }
            if size == 0 {
                return Ok(body);
            }
        }
    }

    /// Everything until the end of the connection; an error if it ends with a reset.
    pub(crate) fn rest(&mut self) -> Result<Vec<u8>, String> {
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest).map_err(|e| format!("after {} bytes: {e}", rest.len()))?;
        Ok(rest)
    }

    /// Whether the connection ends, by a close or a reset, without another byte.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.reader.read(&mut [0; 64]) {
            Ok(n) => n == 0,
            Err(e) => !matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
        }
    }

    pub(crate) fn into_stream(self) -> TcpStream {
        self.reader.into_inner()
    }
}
