//! Python's `ssl`.

use std::ffi::OsStr;
use std::process::Command;

use crate::nginx::{output, program};

/// What the scripts have in common: connections whose bytes can be had one by one.
const PRELUDE: &str = "
import socket, ssl, struct, sys, threading, time

def context(ca, version=None):
    c = ssl.create_default_context(cafile=ca)
    if version:
        c.minimum_version = c.maximum_version = getattr(ssl.TLSVersion, 'TLSv1_' + version)
    return c

class Wire:
    'A TLS client over a socket, whose records are in its own hands.'
    def __init__(self, address, context, name):
        self.inbound, self.outbound = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.inbound, self.outbound, server_hostname=name)
        self.socket = socket.create_connection(address, timeout=15)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    def first_flight(self):
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        return self.outbound.read()
    def flush(self):
        data = self.outbound.read()
        if data:
            self.socket.sendall(data)
    def feed(self):
        data = self.socket.recv(65536)
        self.inbound.write(data) if data else self.inbound.write_eof()
    def run(self, call):
        while True:
            try:
                result = call()
                self.flush()
                return result
            except ssl.SSLWantReadError:
                self.flush()
                self.feed()
    def handshake(self):
        self.run(self.tls.do_handshake)
        return self
    def send(self, data):
        self.tls.write(data)
        self.flush()
    def close_notify(self):
        'Says that no more will be sent; what comes is read still.'
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        self.flush()
    def rest(self):
        'All bytes up to the end; an end without close_notify is an error.'
        data = b''
        while True:
            try:
                part = self.run(lambda: self.tls.read(65536))
            except ssl.SSLZeroReturnError:
                return data
            if not part:
                return data
            data += part

def raw(sock):
    'All bytes of a socket up to its end.'
    data = b''
    while True:
        part = sock.recv(65536)
        if not part:
            return data
        data += part
";

/// Runs a script behind the prelude; what it prints. Panics unless it succeeds.
pub(crate) fn run<A: AsRef<OsStr>>(script: &str, arguments: &[A]) -> String {
    let mut command = Command::new(program("python3", "python3"));
    output(command.args(["-c", &format!("{PRELUDE}{script}")]).args(arguments))
}
