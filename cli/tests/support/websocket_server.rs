//! Servers of WebSocket by Python's `websockets`, over HTTP/1.1.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::daemon::TempDir;
use crate::nginx::program;

/// Argument: the name of the server.
const SERVER: &str = include_str!("websocket_server.py");

/// A running server, killed when dropped.
pub(crate) struct WebSocketServer {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl WebSocketServer {
    pub(crate) fn start(folder: &TempDir, name: &str) -> Self {
        let script = folder.write("server.py", SERVER);
        let mut command = Command::new(python("websockets"));
        command.arg(script).arg(name).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut port = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut port).expect("text");
        let port = port.trim().parse().expect("a port");
        Self { child, address: ([127, 0, 0, 1], port).into() }
    }
}

impl Drop for WebSocketServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Debian's Python, for which this module of Debian's is installed.
pub(crate) fn python(module: &str) -> PathBuf {
    let python = program("python3", "python3");
    let import = format!("import {module}");
    let mut command = Command::new(&python);
    let has = command.args(["-c", &import]).stderr(Stdio::null()).status().expect("it starts").success();
    assert!(
        has,
        "the module {module} is missing and this test needs it: install the Debian package python3-{module}"
    );
    python
}
