//! Transforms that hold something back put it out when no more comes for now; those that are done are asked
//! once for what there is to count; and who comes behind a transform knows no length.

use ruststrom_core::http::Framing;
use ruststrom_core::local_reply::LocalReply;
use ruststrom_core::middleware::{Action, Counter, Transform, TransformProgress};

use crate::hooks::{Hooks, Trace, Twice, get, letters, nothing_left, ok, rig};
use crate::two_wires::{PAIRS, Speaks};

/// Puts nothing out until it has to.
#[derive(Debug, Default)]
struct HoldsBack {
    held: Vec<u8>,
}

impl HoldsBack {
    fn put(&mut self, output: &mut [u8]) -> usize {
        let n = self.held.len().min(output.len());
        output[..n].copy_from_slice(&self.held[..n]);
        self.held.drain(..n);
        n
    }
}

impl Transform for HoldsBack {
    fn run(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        ended: bool,
    ) -> Result<TransformProgress, Box<LocalReply>> {
        self.held.extend_from_slice(input);
        let put = if ended { self.put(output) } else { 0 };
        Ok(TransformProgress { taken: input.len(), put, done: ended && self.held.is_empty() })
    }

    fn flush(&mut self, output: &mut [u8]) -> Result<usize, Box<LocalReply>> {
        Ok(self.put(output))
    }

    fn counter(&self) -> Option<Counter> {
        Some(Counter::AuthFailure)
    }
}

fn holds_back() -> Hooks {
    Hooks::new()
        .request(|ctx| {
            ctx.transform(Box::new(HoldsBack::default()));
            Action::Continue
        })
        .response(|ctx, _| ctx.transform(Box::new(HoldsBack::default())))
}

#[test]
fn what_is_held_back_passes_on_when_no_more_comes() {
    let doubles = || Hooks::new().response(|ctx, _| ctx.transform(Twice::boxed(b'!')));
    let body = letters(30_000);
    for pair in PAIRS {
        for most in [usize::MAX, 700] {
            let mut rig = rig(pair, vec![holds_back(), doubles(), holds_back()]);
            rig.most = most;
            let c = rig.client();
            let put = "PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 30000\r\n\r\n";
            let far = rig.ask(c, put, false);
            let mut sent = 0;
            let pieces = [1, 20, 4000, 25_979];
            for piece in pieces {
                rig.send_all(far, &body[sent..sent + piece]);
                sent += piece;
                let backend = rig.asked()[0];
                assert!(rig.message(backend).body == body[..sent], "{pair:?} {most}: {sent} of the request");
            }
            rig.end(far, "");
            let backend = rig.asked()[0];
            assert!(rig.message(backend).ended, "{pair:?}");
            assert_eq!(rig.proxy.observer_mut().counters.len(), 2, "one for each that is done");
            rig.respond_head(backend, "HTTP/1.1 200 OK\r\nContent-Length: 30000\r\n\r\n");
            sent = 0;
            for piece in pieces {
                rig.send_all(backend, &body[sent..sent + piece]);
                sent += piece;
                let got = rig.message(far).body;
                assert!(
                    got.starts_with(&Twice::of(&body[..sent], b'!')[..2 * sent]),
                    "{pair:?} {most}: {sent}"
                );
            }
            rig.end(backend, "");
            let got = rig.message(far);
            assert!(got.ended && got.body == Twice::of(&body, b'!'), "{pair:?} {most}");
            let counted = ("api".to_owned(), Counter::AuthFailure);
            assert_eq!(rig.proxy.observer_mut().counters, vec![counted; 4], "{pair:?}");
            nothing_left(&mut rig);
        }
    }
}

#[test]
fn what_comes_behind_a_transform_has_no_known_length() {
    for pair in PAIRS {
        let trace = Trace::default();
        let noted = |trace: &Trace| {
            let trace = trace.clone();
            Hooks::new().response(move |_, head| {
                let known = matches!(head.framing(), Framing::Length(_));
                trace.add(if known { "known" } else { "unknown" });
            })
        };
        let chain = vec![noted(&trace), holds_back(), noted(&trace)];
        let mut rig = rig(pair, chain);
        let c = rig.client();
        let far = rig.ask(c, &get("/"), true);
        let backend = rig.asked()[0];
        rig.respond(backend, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", b"abc");
        let got = rig.message(far);
        assert!(got.ended && got.body == b"abc", "{pair:?} {got:?}");
        assert_eq!(got.head.contains("Transfer-Encoding: chunked"), pair.0 == Speaks::Http1, "{}", got.head);
        assert_eq!(trace.take(), ["known", "unknown"]);
        nothing_left(&mut rig);
    }
}

/// Puts out all that it takes, and finds out one call later that it is done, as encoders do that have just
/// filled their room.
#[derive(Debug, Default)]
struct DoneLate;

impl Transform for DoneLate {
    fn run(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        ended: bool,
    ) -> Result<TransformProgress, Box<LocalReply>> {
        let n = input.len().min(output.len());
        output[..n].copy_from_slice(&input[..n]);
        Ok(TransformProgress { taken: n, put: n, done: ended && input.is_empty() })
    }

    fn flush(&mut self, _: &mut [u8]) -> Result<usize, Box<LocalReply>> {
        Ok(0)
    }
}

// To a client of HTTP/1.0 an end without a byte is nothing that is sent.
#[test]
fn a_response_ends_though_its_transform_is_done_without_output() {
    const PAGE: usize = ruststrom_core::page::SMALL_BYTES;
    let late = || Hooks::new().response(|ctx, _| ctx.transform(Box::new(DoneLate)));
    for pair in PAIRS {
        for len in [1, PAGE - 1, PAGE] {
            let mut rig = rig(pair, vec![late()]);
            let c = rig.client();
            let request = get("/");
            let old = request.replace("HTTP/1.1", "HTTP/1.0");
            let far = rig.ask(c, if pair.0 == Speaks::Http1 { &old } else { &request }, true);
            let backend = rig.asked()[0];
            let body = letters(len);
            rig.slow_down(c);
            rig.respond(backend, &ok(len), &body);
            while rig.take_once(c) {}
            let whole = match pair.0 {
                Speaks::Http1 => rig.received(c).ends_with(&body),
                _ => rig.message(far).ended && rig.message(far).body == body,
            };
            assert!(whole, "{pair:?} {len}");
            assert_eq!(rig.proxy.observer_mut().records, [(200, None)], "{pair:?} {len}");
            nothing_left(&mut rig);
        }
    }
}
