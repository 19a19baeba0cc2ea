//! Where a connection to a backend leads.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// What a driver connects to. Cheap to clone: it allocates nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    /// An IP address and a port.
    Ip(SocketAddr),
    /// A Unix stream socket (unix(7)) at an absolute path: 2 to 107 bytes, none of them NUL.
    Unix(Arc<str>),
}

impl Endpoint {
    /// Its IP address and port; `None` for a Unix socket.
    #[must_use]
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl fmt::Display for Endpoint {
    /// As a configuration file has it: `10.0.0.1:8080`, `unix:/run/app.sock`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Endpoint;

    #[test]
    fn it_is_written_as_in_a_file() {
        let ip: std::net::SocketAddr = "[2001:db8::1]:80".parse().unwrap();
        assert_eq!(Endpoint::from(ip).to_string(), "[2001:db8::1]:80");
        assert_eq!(Endpoint::Unix("/run/app.sock".into()).to_string(), "unix:/run/app.sock");
    }

    #[test]
    fn it_is_no_larger_than_an_ip_address_and_port() {
        assert_eq!(size_of::<Endpoint>(), size_of::<std::net::SocketAddr>());
    }
}
