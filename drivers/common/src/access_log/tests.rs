//! Lines as tables, and any bytes make valid JSON.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use super::*;
use crate::log_writer::tests::Written;
use ruststrom_core::Cause;
use ruststrom_core::config::{self, Backend};
use ruststrom_core::http::ip::IpText;
use ruststrom_core::observe::{FailedAttempt, FailedAttempts};

const WALL: Wall = Wall { unix_secs: 1_795_435_083, millis: 123 };

static NOTHING: LazyLock<Kept> = LazyLock::new(Kept::default);
static V4: LazyLock<IpText> = LazyLock::new(|| IpText::new([192, 0, 2, 7].into()));
static V6_LONG: LazyLock<IpText> =
    LazyLock::new(|| IpText::new("2001:db8:1111:2222:3333:4444:5555:6666".parse().expect("an address")));
static V6: LazyLock<IpText> = LazyLock::new(|| IpText::new("2001:db8::1".parse().expect("an address")));
static TIMINGS: Timings = Timings {
    head: at(12),
    chosen: at(15),
    connected: at(15),
    sent: at(40),
    responded: at(1530),
    ended: at(1600),
    ..Timings::new(at(0))
};
static TIMEOUT: Timings = Timings { ended: at(10_000_000), ..Timings::new(at(0)) };

const fn at(us: u64) -> Instant {
    Instant::from_nanos(777 + us * 1000)
}

/// What an observer is told of an exchange, at its beginning and at its end.
#[derive(Clone, Copy)]
struct Notified<'a> {
    head: Head<'a>,
    record: Record<'a>,
}

fn full<'a>() -> Notified<'a> {
    let client = "192.0.2.7:50312".parse().expect("an address");
    Notified {
        head: Head {
            client,
            client_ip: &V4,
            scheme: Scheme::Http,
            method: b"GET",
            target: b"/a?b=c",
            version: Some(Version::HTTP_11),
            stream: 0,
            host: b"example.com",
            user_agent: b"curl/8",
            referer: b"http://example.com/",
            request_id: Named::Ours(b"0123456789abcdef0123456789abcdef"),
            tls: None,
        },
        record: Record {
            kept: &NOTHING,
            client,
            pool: "web",
            backend: "127.0.0.1:8081",
            pool_identity: Some(1),
            backend_identity: Some(2),
            user: "",
            status: 200,
            cause: None,
            attempts: 1,
            failed: FailedAttempts::default(),
            reused: true,
            bytes_in: 0,
            bytes_out: 1234,
            timings: &TIMINGS,
        },
    }
}

fn empty<'a>() -> Notified<'a> {
    let (full, client) = (full(), "[2001:db8::1]:9".parse().expect("an address"));
    Notified {
        head: Head {
            client,
            client_ip: &V6,
            method: b"",
            target: b"",
            version: None,
            host: b"",
            user_agent: b"",
            referer: b"",
            request_id: Named::Theirs(b""),
            ..full.head
        },
        record: Record {
            client,
            pool: "",
            backend: "",
            status: 408,
            cause: Some(Cause::HeadTimeout),
            attempts: 0,
            reused: false,
            bytes_out: 0,
            timings: &TIMEOUT,
            ..full.record
        },
    }
}

fn nasty<'a>() -> Notified<'a> {
    let full = full();
    Notified {
        head: Head {
            scheme: Scheme::Https,
            target: b"/\"\\\n\xff",
            version: Some(Version::HTTP_10),
            user_agent: "gr\u{fc}n\r\n".as_bytes(),
            request_id: Named::Theirs(b"a\tb"),
            ..full.head
        },
        record: Record { pool: "a\"b", ..full.record },
    }
}

fn line(format: LogFormat, notified: &Notified<'_>) -> String {
    let (mut buf, mut kept) = (vec![0; 256 << 10], Kept::default());
    keep(format, &notified.head, &mut kept, &mut Vec::new());
    let r = Record { kept: &kept, ..notified.record };
    let mut l = Line::new(&mut buf);
    match format {
        LogFormat::Text => text(&r, Timestamp::default().at(WALL), &mut l),
        LogFormat::Json => json(&r, Timestamp::default().at(WALL), &mut l),
    }
    let len = l.len();
    buf.truncate(len);
    String::from_utf8(buf).expect("UTF-8")
}

#[test]
fn lines() {
    let table = [
        (
            full(),
            concat!(
                r#"2026-11-23T11:58:03.123Z 192.0.2.7:50312 "GET /a?b=c HTTP/1.1" 200 in=0 out=1234 pool="web" backend="127.0.0.1:8081" "#,
                r#"tries=1 reused head=0.012 chosen=0.015 connected=0.015 sent=0.040 answered=1.530 total=1.600 cause=- "#,
                r#"http host="example.com" id="0123456789abcdef0123456789abcdef" agent="curl/8" referer="http://example.com/""#,
                "\n"
            ),
            concat!(
                r#"{"time":"2026-11-23T11:58:03.123Z","client":"192.0.2.7:50312","scheme":"http","method":"GET","target":"/a?b=c","#,
                r#""version":"1.1","host":"example.com","request_id":"0123456789abcdef0123456789abcdef","user_agent":"curl/8","#,
                r#""referer":"http://example.com/","status":200,"cause":null,"pool":"web","backend":"127.0.0.1:8081","attempts":1,"#,
                r#""reused":true,"bytes_in":0,"bytes_out":1234,"head_us":12,"chosen_us":15,"connected_us":15,"sent_us":40,"#,
                r#""answered_us":1530,"total_us":1600}"#,
                "\n"
            ),
        ),
        (
            empty(),
            concat!(
                r#"2026-11-23T11:58:03.123Z [2001:db8::1]:9 "  -" 408 in=0 out=0 pool="" backend="" tries=0 fresh head=- chosen=- connected=- "#,
                r#"sent=- answered=- total=10000.000 cause=head_timeout http host="" id="" agent="" referer="""#,
                "\n"
            ),
            concat!(
                r#"{"time":"2026-11-23T11:58:03.123Z","client":"[2001:db8::1]:9","scheme":"http","method":"","target":"","version":null,"#,
                r#""host":"","request_id":"","user_agent":"","referer":"","status":408,"cause":"head_timeout","pool":"","backend":"","#,
                r#""attempts":0,"reused":false,"bytes_in":0,"bytes_out":0,"head_us":null,"chosen_us":null,"connected_us":null,"#,
                r#""sent_us":null,"answered_us":null,"total_us":10000000}"#,
                "\n"
            ),
        ),
        (
            nasty(),
            concat!(
                r#"2026-11-23T11:58:03.123Z 192.0.2.7:50312 "GET /\"\\\x0a\xff HTTP/1.0" 200 in=0 out=1234 pool="a\"b" "#,
                r#"backend="127.0.0.1:8081" tries=1 reused head=0.012 chosen=0.015 connected=0.015 sent=0.040 answered=1.530 total=1.600 cause=- "#,
                r#"https host="example.com" id="a\x09b" agent="gr\xc3\xbcn\x0d\x0a" referer="http://example.com/""#,
                "\n"
            ),
            concat!(
                r#"{"time":"2026-11-23T11:58:03.123Z","client":"192.0.2.7:50312","scheme":"https","method":"GET","target":"/\"\\\u000a\u00ff","#,
                r#""version":"1.0","host":"example.com","request_id":"a\u0009b","user_agent":"grün\u000d\u000a","#,
                r#""referer":"http://example.com/","status":200,"cause":null,"pool":"a\"b","backend":"127.0.0.1:8081","attempts":1,"#,
                r#""reused":true,"bytes_in":0,"bytes_out":1234,"head_us":12,"chosen_us":15,"connected_us":15,"sent_us":40,"#,
                r#""answered_us":1530,"total_us":1600}"#,
                "\n"
            ),
        ),
    ];
    for (notified, text, json) in table {
        assert_eq!(line(LogFormat::Text, &notified), text);
        assert_eq!(line(LogFormat::Json, &notified), json);
    }
}

#[test]
fn tls_is_in_the_line() {
    let tls = |client_subject| Tls {
        version: "TLSv1.3",
        cipher: "TLS_AES_128_GCM_SHA256",
        server_name: "a.example",
        resumed: true,
        client_subject,
    };
    let line_of = |format, tls| {
        let Notified { head, record } = full();
        line(format, &Notified { head: Head { scheme: Scheme::Https, tls: Some(tls), ..head }, record })
    };
    let text = line_of(LogFormat::Text, tls(""));
    let said = r#" cause=- https tls_version=TLSv1.3 tls_cipher=TLS_AES_128_GCM_SHA256 sni="a.example" tls_resumed=true host="#;
    assert!(text.contains(said), "{text}");
    let text = line_of(LogFormat::Text, tls("CN=a\"b"));
    assert!(text.contains(r#" tls_resumed=true client_subject="CN=a\"b" host="example.com" id="#), "{text}");
    let json = line_of(LogFormat::Json, tls(""));
    let said = concat!(
        r#""scheme":"https","tls_version":"TLSv1.3","tls_cipher":"TLS_AES_128_GCM_SHA256","tls_resumed":true,"#,
        r#""sni":"a.example","method":"GET","#
    );
    assert!(json.contains(said), "{json}");
    let json = line_of(LogFormat::Json, tls("CN=a\"b"));
    assert!(json.contains(r#""sni":"a.example","client_subject":"CN=a\"b","method":"GET","#), "{json}");
    assert_eq!(value(json.as_bytes()), Ok(&b"\n"[..]));
}

#[test]
fn the_stream_of_a_request_is_in_the_line() {
    let Notified { head, record } = full();
    for stream in [1, 2_147_483_647] {
        let head = Head { version: Some(Version::HTTP_2), stream, ..head };
        let text = line(LogFormat::Text, &Notified { head, record });
        assert!(text.contains("\"GET /a?b=c HTTP/2.0\" 200 "), "{text}");
        assert!(text.contains(&format!(" cause=- http stream={stream} host=\"example.com\" ")), "{text}");
        let json = line(LogFormat::Json, &Notified { head, record });
        let said = format!(r#""version":"2.0","stream":{stream},"host":"example.com","#);
        assert!(json.contains(&said), "{json}");
        assert_eq!(value(json.as_bytes()), Ok(&b"\n"[..]));
    }
}

#[test]
fn whose_request_it_was_is_in_the_line() {
    let table = [
        ("", " cause=- http ", r#""attempts":1,"reused""#),
        ("ada", " cause=- user=\"ada\" http ", r#""attempts":1,"user":"ada","reused""#),
        ("a\"\\\u{e9}", r#" user="a\"\\\xc3\xa9" http "#, "\"user\":\"a\\\"\\\\\u{e9}\","),
        ("\u{202e}x", r#" user="\xe2\x80\xaex" http "#, r#""user":"\u202ex","#),
    ];
    for (user, text, json) in table {
        let Notified { head, record } = full();
        let notified = Notified { head, record: Record { user, ..record } };
        let line_of = |format| line(format, &notified);
        assert!(line_of(LogFormat::Text).contains(text), "{}", line_of(LogFormat::Text));
        assert!(line_of(LogFormat::Json).contains(json), "{}", line_of(LogFormat::Json));
        assert_eq!(value(line_of(LogFormat::Json).as_bytes()), Ok(&b"\n"[..]));
    }
}

static BACKENDS: LazyLock<Vec<Backend>> = LazyLock::new(|| {
    let label = |n: usize| if n == 0 { "first:80".to_owned() } else { "\u{7f}".repeat(255) };
    let text =
        "http_address = \"[::]:80\"\n[[backend_pools]]\naddresses = [\"10.0.0.1:80\", \"10.0.0.2:80\"]";
    let mut backends = config::parse(text).config.expect("a good configuration").pools[0].backends.clone();
    backends.iter_mut().enumerate().for_each(|(n, b)| b.label = label(n).into());
    backends
});

#[test]
fn attempts_that_failed_are_in_the_line() {
    let attempt = |backend, cause| FailedAttempt { backend, cause };
    let refused = attempt(0, Cause::ConnectRefused);
    let table: [(&[FailedAttempt], &str, &str); 3] = [
        (&[], " cause=- http ", r#""attempts":1,"reused""#),
        (
            &[refused],
            " cause=- tried=[first:80:connect_refused] http ",
            r#""attempts":1,"tried":[{"backend":"first:80","cause":"connect_refused"}],"reused""#,
        ),
        (
            &[refused, attempt(0, Cause::BackendTimeout)],
            " cause=- tried=[first:80:connect_refused, first:80:backend_timeout] http ",
            r#""tried":[{"backend":"first:80","cause":"connect_refused"},{"backend":"first:80","cause":"backend_timeout"}],"#,
        ),
    ];
    for (failed, text, json) in table {
        let Notified { head, record } = full();
        let failed = FailedAttempts::new(&BACKENDS, failed);
        let notified = Notified { head, record: Record { failed, ..record } };
        let line_of = |format| line(format, &notified);
        assert!(line_of(LogFormat::Text).contains(text), "{}", line_of(LogFormat::Text));
        assert!(line_of(LogFormat::Json).contains(json), "{}", line_of(LogFormat::Json));
        assert_eq!(value(line_of(LogFormat::Json).as_bytes()), Ok(&b"\n"[..]));
    }
}

/// A strict reader of RFC 8259: the rest after one value, or where it broke.
fn value(s: &[u8]) -> Result<&[u8], usize> {
    fn literal<'a>(s: &'a [u8], word: &str) -> Result<&'a [u8], usize> {
        s.strip_prefix(word.as_bytes()).ok_or(s.len())
    }
    fn string(s: &[u8]) -> Result<&[u8], usize> {
        let mut s = s.strip_prefix(b"\"").ok_or(s.len())?;
        loop {
            s = match s {
                [b'"', rest @ ..] => return Ok(rest),
                [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', rest @ ..] => rest,
                [b'\\', b'u', a, b, c, d, rest @ ..]
                    if [a, b, c, d].iter().all(|x| x.is_ascii_hexdigit()) =>
                {
                    rest
                }
                [0..0x20 | b'\\', ..] | [] => return Err(s.len()),
                [_, rest @ ..] => rest,
            }
        }
    }
    match s {
        [b'{', b'}', rest @ ..] => Ok(rest),
        [b'{', rest @ ..] => {
            let mut s = rest;
            loop {
                s = value(string(s)?.strip_prefix(b":").ok_or(s.len())?)?;
                match s {
                    [b',', rest @ ..] => s = rest,
                    [b'}', rest @ ..] => return Ok(rest),
                    _ => return Err(s.len()),
                }
            }
        }
        [b'[', rest @ ..] => {
            let mut s = rest;
            loop {
                s = value(s)?;
                match s {
                    [b',', rest @ ..] => s = rest,
                    [b']', rest @ ..] => return Ok(rest),
                    _ => return Err(s.len()),
                }
            }
        }
        [b'"', ..] => string(s),
        [b'0'..=b'9', ..] => {
            let digits = s.iter().take_while(|b| b.is_ascii_digit()).count();
            if digits > 1 && s[0] == b'0' { Err(s.len()) } else { Ok(&s[digits..]) }
        }
        [b't', ..] => literal(s, "true"),
        [b'f', ..] => literal(s, "false"),
        _ => literal(s, "null"),
    }
}

#[test]
fn any_bytes_make_one_valid_line() {
    let mut state = 7_u64;
    let mut dice = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    for _ in 0..2000 {
        let mut texts: Vec<Vec<u8>> = Vec::new();
        for most in [1024, 255, 255, 64, 64] {
            let len = dice() % (most + 1);
            // Odd bytes, pieces of UTF-8 and plain ones.
            let kind = dice() % 4;
            texts.push(
                (0..len)
                    .map(|_| {
                        if kind == 0 {
                            dice() as u8
                        } else {
                            b"ab\"\\\xc3\xbc\n\x7f"[dice() % if kind == 1 { 8 } else { 2 }]
                        }
                    })
                    .collect(),
            );
        }
        let Notified { head, record } = full();
        let timings = Timings {
            responded: Instant::from_nanos(u64::MAX - 1),
            ended: Instant::from_nanos(u64::MAX - 1),
            ..TIMINGS
        };
        let notified = Notified {
            head: Head {
                target: &texts[0],
                user_agent: &texts[1],
                referer: &texts[2],
                request_id: if dice() % 2 == 0 { Named::Theirs(&texts[3]) } else { head.request_id },
                ..head
            },
            record: Record {
                pool: std::str::from_utf8(&texts[4]).unwrap_or("\u{1f600}\n"),
                bytes_in: u64::MAX,
                bytes_out: dice() as u64,
                timings: &timings,
                ..record
            },
        };
        let json = line(LogFormat::Json, &notified);
        assert_eq!(value(json.as_bytes()), Ok(&b"\n"[..]), "{json}");
        let text = line(LogFormat::Text, &notified);
        assert!(text.is_ascii() && text.bytes().filter(|b| b.is_ascii_control()).eq(*b"\n"), "{text}");
        // Quotes that are not escaped are ours: as many in every line.
        let bare = text.replace("\\\\", "").replace("\\\"", "");
        assert_eq!(bare.matches('"').count(), 14, "{text}");
    }
}

#[test]
fn the_longest_line_fits_the_room_that_is_asked_for() {
    let (target, text) = (vec![0xff; 1024], vec![0xff; 255]);
    let name = "\u{7f}".repeat(255);
    let client = "[2001:db8:1111:2222:3333:4444:5555:6666]:65535".parse().expect("an address");
    let end = Instant::from_nanos(u64::MAX - 1);
    let Notified { head, record } = full();
    let timings = Timings {
        head: end,
        chosen: end,
        connected: end,
        sent: end,
        responded: end,
        ended: end,
        ..Timings::new(Instant::ZERO)
    };
    let failed = [FailedAttempt { backend: 1, cause: Cause::ConnectUnreachable }; 84];
    let notified = Notified {
        head: Head {
            client,
            client_ip: &V6_LONG,
            target: &target,
            user_agent: &text,
            referer: &text,
            request_id: Named::Theirs(&text),
            ..head
        },
        record: Record {
            client,
            pool: &name,
            backend: &name,
            cause: Some(Cause::ConnectUnreachable),
            bytes_in: u64::MAX,
            bytes_out: u64::MAX,
            timings: &timings,
            failed: FailedAttempts::new(&BACKENDS, &failed),
            ..record
        },
    };
    for format in [LogFormat::Text, LogFormat::Json] {
        let mut kept = Kept::default();
        keep(format, &notified.head, &mut kept, &mut Vec::new());
        let names = 2 * 255 * ESCAPED + room_of_failed(&notified.record);
        assert!(line(format, &notified).len() <= kept.len() + names + MARGIN);
    }
}

fn notify(observer: &mut LogObserver) {
    let (Notified { head, record }, mut kept) = (full(), Kept::default());
    observer.head(&head, &mut kept);
    observer.exchange(&Record { kept: &kept, ..record });
}

/// An exchange may last, and there may be many: what is kept of one is little more than its texts.
#[test]
fn what_is_kept_is_short() {
    let (client, ip): (SocketAddr, _) =
        ("[2001:db8:1111:2222:3333:4444:5555:6666]:65535".parse().expect("an address"), &*V6_LONG);
    let (target, text) = ([b'/'; 1024], [b'a'; 255]);
    let Notified { head, .. } = full();
    let long = Head {
        client,
        client_ip: ip,
        target: &target,
        user_agent: &text,
        referer: &text,
        scheme: Scheme::Https,
        ..head
    };
    let odd = Head { user_agent: b"\"", ..long };
    for format in [LogFormat::Text, LogFormat::Json] {
        for (head, most) in [(head, 384), (long, 2048), (odd, 2048)] {
            let mut kept = Kept::default();
            keep(format, &head, &mut kept, &mut Vec::new());
            assert!(kept.room(0).len() <= most, "{format:?}: {} for {}", kept.room(0).len(), kept.len());
        }
    }
}

#[test]
fn lines_arrive_with_the_time_of_their_turn() {
    let to = Written::default();
    let writer = LogWriter::start("test", to.clone()).expect("a thread");
    let mut observer = LogObserver::new(LogFormat::Json, &writer);
    assert!(observer.wants_records());
    let start = Instant::from_millis(5000);
    observer.wall(WALL, start);
    for ms in [0, 876, 877, 60_000] {
        observer.turn(start + Duration::from_millis(ms));
        notify(&mut observer);
        while observer.turn_ended() {}
    }
    drop(observer);
    assert!(writer.flush(Duration::from_secs(20)));
    let text = String::from_utf8(to.bytes.lock().expect("no panic").clone()).expect("UTF-8");
    let times: Vec<&str> = text.lines().map(|l| &l[9..33]).collect();
    assert_eq!(
        times,
        [
            "2026-11-23T11:58:03.123Z",
            "2026-11-23T11:58:03.999Z",
            "2026-11-23T11:58:04.000Z",
            "2026-11-23T11:59:03.123Z"
        ]
    );
    let mut quiet = LogObserver::without_access_log();
    notify(&mut quiet);
    assert!(!quiet.wants_records() && !quiet.turn_ended() && quiet.dropped() == 0);
}

#[test]
fn a_log_writer_that_hangs_costs_lines_and_they_are_counted() {
    let to = Written::default();
    to.closed.store(true, std::sync::atomic::Ordering::Release);
    let writer = LogWriter::start("test", to.clone()).expect("a thread");
    let mut observer = LogObserver::new(LogFormat::Json, &writer);
    let mut lines = 0;
    // One endless turn and many short ones.
    for turns in [1, 2000] {
        for _ in 0..turns {
            for _ in 0..20_000 / turns {
                notify(&mut observer);
                lines += 1;
            }
            let _ = observer.turn_ended();
        }
    }
    let dropped = observer.dropped();
    assert!(dropped > 0 && dropped < lines, "{dropped} of {lines}");
    to.closed.store(false, std::sync::atomic::Ordering::Release);
    drop(observer);
    assert!(writer.flush(Duration::from_secs(20)));
    let written = to.bytes.lock().expect("no panic").iter().filter(|b| **b == b'\n').count() as u64;
    assert_eq!(written + writer.dropped(), lines, "every line is written or counted");
}
