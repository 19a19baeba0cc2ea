//! `ready`: whether the daemon of a configuration is ready, for the health checks of containers, which have
//! neither a shell nor curl.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use ruststrom_core::config::ListenerKind;

use crate::{FAILED, load, output};

/// The longest wait for a connection, and for each part of a response.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of a response that are looked at: its status line.
const STATUS_LINE: usize = "HTTP/1.1 200".len();

/// Asks the admin listener for `/readyz`. Exit code 0: it is ready.
///
/// # Errors
/// A message, if the configuration has no admin listener, or nobody answers there.
pub(crate) fn run(file: &Path) -> Result<ExitCode, String> {
    let text = load::read(file)?;
    let name = file.display();
    let listeners = load::listeners(&text).ok_or_else(|| format!("{name} cannot be used; see --check"))?;
    let admin = listeners.iter().find(|listener| listener.kind == ListenerKind::Admin);
    let address = match admin.map(|listener| reachable(listener.address)) {
        Some(address) if address.port() != 0 => address,
        _ => return Err(format!("{name} has no admin listener with a port to ask: set metrics_address")),
    };
    let status = status(address).map_err(|e| format!("{address} does not answer: {e}"))?;
    let ready = status.ends_with(" 200");
    output::print(if ready { "ready\n" } else { "not ready\n" })?;
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// Where a listener of all addresses can be connected to.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// The beginning of the status line.
fn status(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut line = [0; STATUS_LINE];
    stream.read_exact(&mut line)?;
    Ok(String::from_utf8_lossy(&line).into_owned())
}
