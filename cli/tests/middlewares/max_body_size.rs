//! `MaxBodySize`: uploads of curl and of clients that send on, whatever they are told.

use std::io::Write;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::client::Client;
use crate::nginx::{output, program};
use crate::proxy::{config, start};
use crate::scripted_backend::{Backend, ok};

on_each_driver!(curl_uploads_up_to_the_limit, a_413_is_read_while_sending, a_cut_upload_is_no_whole_one);

/// As README.md has it.
const TEN_MB: &str = "[backend_pools.middlewares.MaxBodySize]\nlimit = 10485760  # 10MB in bytes\n";
const SMALL: &str = "[backend_pools.middlewares.MaxBodySize]\nlimit = \"64KB\"\n";

fn curl_uploads_up_to_the_limit(driver: &str) {
    let backend = Backend::good("stored");
    let (daemon, address) = start(&config(driver, "", backend.address, TEN_MB));
    let folder = crate::daemon::TempDir::new("uploads");
    for (len, chunked, status) in [
        (10_485_760, false, "200"),
        (10_485_760, true, "200"),
        (0, false, "200"),
        // Last, since the backend may read what it got of these while the next one is under way.
        (10_485_761, false, "413"),
        (10_485_761, true, "413"),
    ] {
        let before = backend.stats.body_bytes.load(Ordering::SeqCst);
        let file = folder.write("body", vec![b'x'; len]);
        let mut curl = Command::new(program("curl", "curl"));
        curl.args(["-sS", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}"]);
        let framing = if chunked { "Transfer-Encoding: chunked" } else { "X-By: length" };
        curl.args(["-H", framing, "-T"]).arg(file).arg(format!("http://{address}/up"));
        assert_eq!(output(&mut curl), status, "{len} {chunked}");
        if status == "200" {
            assert_eq!(backend.stats.body_bytes.load(Ordering::SeqCst) - before, len);
        }
    }
    daemon.stop();
}

/// Two MiB are sent before anything is read: the response must not be lost to a reset.
fn a_413_is_read_while_sending(driver: &str) {
    let backend = Backend::good("stored");
    let (daemon, address) = start(&config(driver, "", backend.address, SMALL));
    let length = 2 << 20;
    for expects in ["", "Expect: 100-continue\r\n"] {
        let mut client = Client::to(address);
        let head = format!("PUT /up HTTP/1.1\r\nHost: a.test\r\n{expects}Content-Length: {length}\r\n\r\n");
        client.send(head).expect("sent");
        for _ in 0..length / 65_536 {
            client.send([b'x'; 65_536]).expect("the rest is read and dropped");
        }
        let got = client.response(false).expect("the whole response");
        assert_eq!((got.status, got.interims), (413, 0), "{}", got.head);
        assert_eq!(got.field("Connection"), Some("close"), "{}", got.head);
        assert!(client.rest().is_ok_and(|rest| rest.is_empty()), "the end is no reset");
    }
    assert_eq!(backend.stats.connections.load(Ordering::SeqCst), 0, "no backend is asked");
    daemon.stop();
}

fn a_cut_upload_is_no_whole_one(driver: &str) {
    let (whole, cut) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<bool>>>::default());
    let counts = (whole.clone(), cut.clone());
    let backend = Backend::start(move |mut peer| {
        while let Some(head) = peer.request() {
            assert!(head.contains("transfer-encoding: chunked"), "{head}");
            counts.0.fetch_add(1, Ordering::SeqCst);
            peer.send(ok("stored"));
        }
        counts.1.lock().expect("no panic").push(true);
    });
    let (daemon, address) = start(&config(driver, "", backend.address, SMALL));
    let chunk = [b"4000\r\n".as_slice(), &[b'x'; 0x4000], b"\r\n"].concat();
    let head = "PUT /up HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut client = Client::to(address);
    client.send(head).expect("sent");
    for _ in 0..4 {
        client.send(&chunk).expect("sent");
    }
    client.send("0\r\n\r\n").expect("sent");
    assert_eq!(client.response(false).expect("a response").status, 200, "64 KiB are not too much");
    assert_eq!(whole.load(Ordering::SeqCst), 1);

    client.send(head).expect("sent");
    for _ in 0..64 {
        client.send(&chunk).expect("what is too much is read and dropped");
    }
    let mut stream = client.stream();
    stream.write_all(b"0\r\n\r\n").expect("sent");
    assert_eq!(client.response(false).expect("a response").status, 413);
    let begun = std::time::Instant::now();
    while cut.lock().expect("no panic").is_empty() {
        assert!(begun.elapsed() < crate::client::WAIT, "the backend is left waiting");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(whole.load(Ordering::SeqCst), 1, "the backend has seen no second whole request");
    daemon.stop();
}
