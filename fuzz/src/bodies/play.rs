//! Bytes as actions on a world of two shards, several clients and three backends: requests, faults, time,
//! reloads in any order. Each client gets its own responses or an error, and in the end nothing is left.

use ruststrom_core::{Fault, config::Config};
use std::sync::{Arc, OnceLock};

use super::input::Input;
use crate::world::{Open, Reply, Sock, World, config};

const BACKENDS: [&str; 3] = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"];
const CLIENTS: usize = 8;
const ACTIONS: usize = 200;

fn settings(choice: usize) -> Arc<Config> {
    static ALL: OnceLock<Vec<Arc<Config>>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let text = |strategy: &str, cap: u32, retries: u32, more: &str| {
            config(&format!(
                "http_address = \"192.0.2.1:80\"\n[health_interval]\ncheck_every = {more}\n[[backend_pools]]\nretries = {retries}\n\
                 addresses = [\"10.0.0.1:80\", {{ address = \"10.0.0.2:80\", weight = 3 }}, {{ address = \"10.0.0.3:80\", max_connections = \
                 {cap}, backup = {} }}]\nstrategy = {{ {strategy} = {{}} }}\n[backend_pools.client]\npool_max_idle_per_host = 2\n\
                 [timeouts]\nhead = 3\nidle = 8\nconnect = 1\nbackend_head = 4\nstall = 4\nqueue = 2\n",
                cap == 2
            ))
        };
        vec![
            text("RoundRobin", 1, 1, "0"),
            text("Random", 2, 0, "0"),
            text("LeastConnection", 1000, 2, "1"),
            text("RoundRobin", 2, 3, "2"),
            text("IPHash", 1, 1, "2"),
        ]
    });
    // Tables for hashing clients take longer than most scripts.
    let at = if choice % 64 == 63 { 4 } else { choice % 4 };
    all[at].clone()
}

fn body(id: usize, len: usize) -> String {
    let piece = format!("{id};");
    let mut body = piece.repeat(len.div_ceil(piece.len()));
    body.truncate(len);
    body
}

const LENGTHS: [usize; 4] = [0, 5, 3000, 40_000];

/// The target says what to answer: `/id/length/form`.
fn response(request: &str) -> (Vec<u8>, bool) {
    let (head, sent) = request.split_once("\r\n\r\n").expect("a head");
    if head.contains("rust-strom-health") {
        return ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into(), false);
    }
    let mut numbers = head
        .split(' ')
        .nth(1)
        .expect("a target")
        .split('/')
        .skip(1)
        .map(|n| n.parse::<usize>().expect("a number"));
    let (id, len, form) =
        (numbers.next().expect("id"), numbers.next().expect("length"), numbers.next().expect("form"));
    if !head.to_ascii_lowercase().contains("transfer-encoding") {
        assert_eq!(sent, body(id, sent.len()), "another's content");
    }
    let content = body(id, len);
    let head_only = head.starts_with("HEAD ");
    let sent = if head_only { "" } else { &*content };
    let text = match form {
        1 if !head_only => {
            let chunk = if len > 0 { format!("{len:x}\r\n{content}\r\n") } else { String::new() };
            format!("HTTP/1.1 200 OK\r\nX-Id: {id}\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}0\r\n\r\n")
        }
        2 => format!("HTTP/1.1 200 OK\r\nX-Id: {id}\r\nConnection: close\r\n\r\n{sent}"),
        3 => format!(
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nX-Id: {id}\r\nContent-Length: {len}\r\n\r\n{sent}"
        ),
        _ => format!("HTTP/1.1 200 OK\r\nX-Id: {id}\r\nContent-Length: {len}\r\n\r\n{sent}"),
    };
    (text.into_bytes(), form == 2)
}

#[derive(Default)]
struct Client {
    sock: Option<Sock>,
    /// Ids asked for on this connection, and whether with HEAD.
    asked: Vec<(usize, usize, bool)>,
    /// We broke or ended it: answers may be missing.
    gone: bool,
}

pub(super) fn run(data: &[u8]) {
    let mut input = Input(data);
    let mut w = World::of(&settings(usize::from(input.byte())), 2);
    if input.byte() & 1 != 0 {
        w.chaos = Some(ruststrom_core::rng::Rng::new(u64::from(input.byte())));
    }
    for at in BACKENDS {
        // The world guesses which connections are probes', and may be wrong: requests say it themselves.
        (w.backend(at).reply, w.backend(at).probe) = (Reply::Made(response), Reply::Made(response));
    }
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::default()).collect();
    let mut all: Vec<Client> = Vec::new();
    let mut next = 0;
    for _ in 0..ACTIONS {
        if input.is_empty() {
            break;
        }
        let (what, which) = (input.byte(), input.byte());
        let client = &mut clients[usize::from(which) % CLIENTS];
        let at = BACKENDS[usize::from(which) % 3];
        match what % 16 {
            0..=3 => ask(&mut w, client, &mut all, &mut next, what, which, input.byte()),
            4 => {
                let _ = (0..which).all(|_| w.step());
            }
            5 => w.settle(),
            6 => {
                w.backend(at).open =
                    [Open::Take, Open::Silent, Open::Fails(Fault::Refused), Open::Fails(Fault::NoResources)]
                        [input.below(4)]
            }
            7 => {
                let reply = [
                    Reply::Close,
                    Reply::Reset,
                    Reply::Hold,
                    "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n".into(),
                ];
                let reply = reply[input.below(4)].clone();
                w.backend(at).replies.push_back(reply);
            }
            8 | 9 => {
                let open = w.sockets();
                if let Some(&sock) = open.get(usize::from(which) % open.len().max(1)) {
                    match input.below(3) {
                        0 => w.put_end(sock),
                        1 => w.put_fault(sock, Fault::Reset),
                        _ => w.put_room(sock, usize::from(input.byte()) * 40),
                    }
                    clients.iter_mut().filter(|c| c.sock == Some(sock)).for_each(|c| c.gone = true);
                }
            }
            10 => w.sockets().into_iter().for_each(|s| w.put_room(s, usize::MAX)),
            11 => w.reconfigure_unsettled(&settings(usize::from(which))),
            12 => w.advance_unsettled(u64::from(which) * 40),
            13 => w.advance_ms(u64::from(which) * 100),
            14 => {
                w.backend(at).probe_open =
                    [None, Some(Open::Silent), Some(Open::Fails(Fault::Refused))][input.below(3)]
            }
            _ => w.backend(at).replies.clear(),
        }
    }
    for at in BACKENDS {
        let script = w.backend(at);
        (script.open, script.probe_open) = (Open::Take, None);
        script.replies.clear();
    }
    w.sockets().into_iter().for_each(|s| w.put_room(s, usize::MAX));
    w.settle();
    // Every timeout, one after the other.
    w.advance_ms(40_000);
    for client in clients.into_iter().chain(all) {
        let Some(sock) = client.sock else { continue };
        let over = client.gone || w.peer(sock).closed || w.peer(sock).shut;
        let got = w.got(sock);
        judge(&got, &client.asked, over);
    }
    w.finish();
}

fn ask(
    w: &mut World,
    client: &mut Client,
    all: &mut Vec<Client>,
    next: &mut usize,
    what: u8,
    which: u8,
    form: u8,
) {
    if client.sock.is_none_or(|s| w.peer(s).closed || w.peer(s).shut || client.gone) {
        all.push(std::mem::take(client));
        client.sock = Some(w.client_at(usize::from(which) / CLIENTS % 2));
    }
    let Some(sock) = client.sock else { return };
    *next += 1;
    let (id, len) = (*next, LENGTHS[usize::from(form) % 4]);
    let target = format!("/{id}/{len}/{}", form / 4 % 4);
    let sent = body(id, LENGTHS[usize::from(form) / 16 % 4]);
    let head = format!("{target} HTTP/1.1\r\nHost: a.test\r\n");
    let text = match what % 4 {
        0 => format!("GET {head}\r\n"),
        1 => format!("HEAD {head}\r\n"),
        2 => format!("POST {head}Content-Length: {}\r\n\r\n{sent}", sent.len()),
        _ if sent.is_empty() => format!("PUT {head}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        _ => format!("PUT {head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{sent}\r\n0\r\n\r\n", sent.len()),
    };
    client.asked.push((id, len, what % 4 == 1));
    w.put(sock, text);
}

/// Answers come in order, each the one that was asked for or an error, whole unless the connection is over.
fn judge(got: &str, asked: &[(usize, usize, bool)], over: bool) {
    let (mut rest, mut responses) = (got, 0);
    while let Some((head, after)) = rest.split_once("\r\n\r\n") {
        rest = after;
        let status = head
            .get(9..12)
            .and_then(|s| s.parse::<u16>().ok())
            .unwrap_or_else(|| panic!("no response: {head}"));
        if status < 200 {
            continue;
        }
        let Some(&(id, len, is_head)) = asked.get(responses) else { panic!("a response to nothing: {head}") };
        responses += 1;
        assert!(
            status != 200 || head.contains(&format!("X-Id: {id}\r\n")),
            "another's response to {id}: {head}"
        );
        if is_head {
            continue;
        }
        let lower = head.to_ascii_lowercase();
        let declared = lower.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse::<usize>().ok());
        let (content, next) = match declared {
            Some(n) => (rest.get(..n).unwrap_or(rest).to_owned(), rest.get(n..)),
            None if lower.contains("transfer-encoding: chunked") => chunks(rest),
            None => (rest.to_owned(), Some("")),
        };
        let expected = body(id, len);
        if status == 200 {
            assert!(expected.starts_with(&*content), "not the content of {id}");
        }
        match next {
            Some(next) => {
                let cut_by_close = declared.is_none() && !lower.contains("chunked");
                assert!(
                    status != 200 || content == expected || cut_by_close,
                    "{id} is cut, and nobody can tell"
                );
                rest = next;
            }
            None => {
                assert!(over, "half of {id} on an open connection");
                return;
            }
        }
    }
    assert!(over || rest.is_empty(), "half a head on an open connection");
    assert!(
        over || responses == asked.len(),
        "{responses} of {} answers, and the connection is open",
        asked.len()
    );
}

/// Content as far as it has come, and what follows if it is whole.
fn chunks(mut rest: &str) -> (String, Option<&str>) {
    let mut content = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a chunk size");
        if size == 0 {
            return (content, after.strip_prefix("\r\n"));
        }
        content += after.get(..size).unwrap_or(after);
        match after.get(size..).and_then(|rest| rest.strip_prefix("\r\n")) {
            Some(next) => rest = next,
            None => break,
        }
    }
    (content, None)
}
