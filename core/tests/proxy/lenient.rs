//! Responses that break rules which other proxies forgive: refused by default, and taken where the pool says
//! so, in the strict form.

use crate::world::{World, get, one_pool};

const A: &str = "10.0.0.1:80";

/// What a backend sends, the rule that it breaks, and what the client gets of it in a lenient pool.
const TABLE: [(&str, &str, &str); 7] = [
    ("\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "bad_status_line", "Content-Length: 2\r\n"),
    ("HTTP/1.1 200 OK\nContent-Length: 2\nA: b\n\nok", "bare_lf", "\r\nA: b\r\n"),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\nA: b\r\n\r\nok", "bare_lf", "\r\nA: b\r\n"),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2  \r\nok\r\n0 \r\n\r\n",
        "bad_chunk_extension",
        "Transfer-Encoding: chunked\r\n",
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        "several_lengths",
        "\r\nContent-Length: 2\r\n",
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: a=\u{1}b\r\n\r\nok",
        "bad_field_value",
        "\r\nSet-Cookie: a= b\r\n",
    ),
    (
        "HTTP/1.1 103 Early\nLink: <x>\n\nHTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        "bare_lf",
        "Content-Length: 2\r\n",
    ),
];

#[test]
fn taken_where_the_pool_says_so() {
    for (response, rule, expected) in TABLE {
        for piece in [usize::MAX, 1, 7] {
            for lenient in [false, true] {
                let mut w = World::new(&one_pool(&format!(
                    "name = \"p\"\naddresses = [\"10.0.0.1:80\"]\nretries = 0\nlenient = {lenient}"
                )));
                w.backend(A).reply = crate::world::Reply::Hold;
                for round in 0..2 {
                    let c = w.client_sends(&get("/"));
                    let (b, _) = w.arrived.pop().expect("asked");
                    w.got(b);
                    for piece in response.as_bytes().chunks(piece.min(response.len())) {
                        if !w.peer(b).closed {
                            w.send(b, piece);
                        }
                    }
                    let got = w.got(c);
                    if lenient {
                        assert!(
                            got.contains("HTTP/1.1 200 OK\r\n") && got.contains(expected),
                            "{response:?}: {got}"
                        );
                        assert!(got.ends_with("\r\n\r\nok") || got.ends_with("k\r\n0\r\n\r\n"), "{got}");
                        assert!(
                            !got.contains('\u{1}') && got.matches("Content-Length").count() <= 1,
                            "{got}"
                        );
                        assert!(!w.peer(b).closed, "the connection is used again");
                    } else if !got.starts_with("HTTP/1.1 200") {
                        assert!(got.ends_with(&format!("502 Bad Gateway: {rule}\n")), "{response:?}: {got}");
                    }
                    w.end(c);
                    let notes = w.notes();
                    let said =
                        notes.iter().filter(|note| note.contains(rule) && note.contains("lenient")).count();
                    // What is refused is told of only if the head has come whole, so that it is known to be
                    // right but for that.
                    let tells = lenient || rule != "bad_chunk_extension";
                    if !lenient && piece != usize::MAX {
                        continue;
                    }
                    assert_eq!(said, usize::from(round == 0 && tells), "{response:?} {piece}: {notes:?}");
                }
                w.finish();
            }
        }
    }
}

/// What no one should forgive stays refused.
#[test]
fn not_everything_is_forgiven() {
    let table = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", "several_lengths"),
        ("HTTP/1.1 200 OK\nContent-Length: 2\nTransfer-Encoding: chunked\n\n", "bare_lf"),
        ("HTTP/1.1 200 OK\r\nA\u{1}: b\r\nContent-Length: 0\r\n\r\n", "bad_field_name"),
        ("\n\n\n\n\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "bad_status_line"),
        ("garbage\n\n", "bad_status_line"),
        // At once, and not when the time of the backend is over.
        ("\r\nSSH-2.0-x", "bad_status_line"),
        ("\u{15}\u{3}\u{1}", "bad_status_line"),
    ];
    for (response, rule) in table {
        let mut w = World::new(&one_pool("addresses = [\"10.0.0.1:80\"]\nretries = 0\nlenient = true"));
        w.backend(A).reply = response.into();
        let c = w.client_sends(&get("/"));
        let got = w.got(c);
        assert!(got.ends_with(&format!("502 Bad Gateway: {rule}\n")), "{response:?}: {got}");
        w.finish();
    }
}
