//! The way back: from a backend's bytes to a head ready for the client.

use super::Proxy;
use super::exchange::Phase;
use super::request::head_limits;
use crate::cause::Cause;
use crate::conn::Role;
use crate::h1::{
    Event, ParsedResponse, ResponseContext, ResponseForward, Side, Writer, client_framing, find_response_end,
    forward_interim, forward_response, parse_response, parse_response_prefix, was_offered,
};
use crate::http::{Framing, Violation};
use crate::id::{ConnId, ExchangeId};
use crate::observe::Observer;
use crate::page::Pages;
use crate::planted::planted;
use crate::time::Instant;

/// Interim answers that one exchange may have: more is a backend gone wild.
const MOST_INTERIMS: u8 = 32;

/// What a head turned out to be.
enum Outcome {
    /// Another head follows.
    Interim,
    /// Its content follows.
    Final,
    Switched,
    Broken(Cause),
}

impl<O: Observer> Proxy<O> {
    /// Bytes came from a backend.
    pub(super) fn backend_input(&mut self, x: ExchangeId, b: ConnId, now: Instant) {
        let e = &mut self.exchanges[x.0];
        if e.phase == Phase::Sending && e.request.head_sent == 0 && e.reused {
            // What comes before a byte of the request has gone belongs to an earlier one: nothing on this
            // connection can be believed.
            return self.attempt_failed(x, Cause::BackendReset, now);
        }
        e.response_seen = true;
        while self.exchanges[x.0].phase == Phase::Sending {
            let conn = &mut self.conns[b];
            if conn.inbox.raw_len() == 0 {
                break;
            }
            // Most heads come whole and are as they should be: one pass over those, a closer look at all
            // others.
            let whole = if conn.inbox.scanned == 0 { self.take_response(x, b, None, now) } else { None };
            let Some(outcome) = whole.or_else(|| self.look_for_response(x, b, now)) else { break };
            match outcome {
                Outcome::Interim => {
                    let c = self.exchanges[x.0].client.conn;
                    self.list(c);
                }
                Outcome::Final => self.response_began(x),
                Outcome::Switched => self.tunnel_began(x),
                Outcome::Broken(cause) => return self.break_exchange(x, cause, now),
            }
        }
        if matches!(self.exchanges[x.0].phase, Phase::Responding | Phase::Tunnel) {
            self.receive_response(x, now);
        } else {
            self.touch(x);
        }
    }

    /// Looks for the end of a head that has not come whole, or that is not as it should be.
    fn look_for_response(&mut self, x: ExchangeId, b: ConnId, now: Instant) -> Option<Outcome> {
        let most = self.rt(self.exchanges[x.0].runtime.expect("routed")).pool().limits.head_bytes as usize;
        let inbox = &mut self.conns[b].inbox;
        let page = inbox.page.as_ref().expect("bytes lie in a page");
        let raw = &self.pages.bytes(page)[inbox.raw as usize..inbox.end as usize];
        match find_response_end(raw, inbox.scanned as usize) {
            Ok(Some(len)) => self.take_response(x, b, Some(len), now),
            Ok(None) if raw.len() >= most => {
                Some(Outcome::Broken(Cause::BadResponse(Violation::HeadTooLarge)))
            }
            Ok(None) => {
                inbox.scanned = raw.len() as u32;
                self.list(b);
                None
            }
            Err(violation) => Some(Outcome::Broken(Cause::BadResponse(violation))),
        }
    }

    /// Reads the head at the front of the backend's inbox: one of `len` bytes, or else whatever whole and
    /// good one lies there.
    fn take_response(
        &mut self,
        x: ExchangeId,
        b: ConnId,
        len: Option<usize>,
        now: Instant,
    ) -> Option<Outcome> {
        let e = &self.exchanges[x.0];
        let limits = head_limits(&self.rt(e.runtime.expect("routed")).pool().limits);
        let asked = ResponseContext { head: e.head_only, upgrade: e.upgrade };
        let inbox = &mut self.conns[b].inbox;
        let (start, end) = (inbox.raw as usize, inbox.end as usize);
        let page = inbox.page.take().expect("a head lies in a page");
        let memory = self.pages.detach(&page);
        let mut store = std::mem::take(&mut self.store);
        let read = match len {
            Some(len) => match parse_response(&memory[start..start + len], &mut store, &limits, asked) {
                Ok(head) => Some((self.read_response(x, b, &head, now), len)),
                Err(violation) => Some((Outcome::Broken(Cause::BadResponse(violation)), len)),
            },
            None => match parse_response_prefix(&memory[start..end], &mut store, &limits, asked) {
                Ok(Some((head, len))) => Some((self.read_response(x, b, &head, now), len)),
                _ => None,
            },
        };
        self.store = store;
        self.pages.restore(&page, memory);
        let inbox = &mut self.conns[b].inbox;
        inbox.page = Some(page);
        let (outcome, len) = read?;
        inbox.consume_raw(len);
        Some(outcome)
    }

    fn read_response(
        &mut self,
        x: ExchangeId,
        b: ConnId,
        head: &ParsedResponse<'_>,
        now: Instant,
    ) -> Outcome {
        let e = &self.exchanges[x.0];
        let event = match head.status.as_u16() {
            101 => Event::Switch,
            _ if head.is_interim() => Event::Interim,
            _ => Event::Head,
        };
        if event == Event::Switch && !e.request_gone {
            // Whoever switches before all of the request is there has not read it.
            return Outcome::Broken(Cause::BadResponse(Violation::UnexpectedSwitch));
        }
        if let Some(protocols) = head.upgrade.filter(|_| event == Event::Switch) {
            // What was offered still lies in the request's head.
            let forwarded = e
                .request
                .head
                .as_ref()
                .map_or(&[][..], |page| &self.pages.bytes(page)[..e.request.head_len as usize]);
            if !was_offered(rendered_upgrade(forwarded), protocols) {
                return Outcome::Broken(Cause::BadResponse(Violation::UnexpectedSwitch));
            }
        }
        let conn = &mut self.conns[b];
        if conn.machine.apply(Side::Server, event).is_err() {
            return Outcome::Broken(Cause::BadResponse(Violation::UnexpectedSwitch));
        }
        if event == Event::Head && (!head.keep_alive || head.framing == Framing::Close) {
            let _ = conn.machine.apply(Side::Server, Event::NoKeepAlive);
        }
        if let Role::Backend(role) = &mut conn.role {
            role.keep_alive_secs = head.keep_alive_timeout.unwrap_or(u32::MAX);
        }
        if event == Event::Interim { self.pass_interim(x, head) } else { self.pass_head(x, head, now) }
    }

    /// RFC 9110 §15.2: interim answers pass, but not to a client of HTTP/1.0.
    fn pass_interim(&mut self, x: ExchangeId, head: &ParsedResponse<'_>) -> Outcome {
        let e = &mut self.exchanges[x.0];
        e.interims += 1;
        if e.interims > MOST_INTERIMS {
            return Outcome::Broken(Cause::BadResponse(Violation::TooManyInterims));
        }
        if head.status == 100 {
            e.expectation_met();
            if planted!(24) {
                return Outcome::Interim;
            }
        }
        if e.version < 11 && !planted!(23) {
            return Outcome::Interim;
        }
        match self.append(x, |w| forward_interim(w, head)) {
            Ok(()) => {
                let c = self.exchanges[x.0].client.conn;
                let _ = self.conns[c].machine.apply(Side::Server, Event::Interim);
                Outcome::Interim
            }
            Err(cause) => Outcome::Broken(cause),
        }
    }

    fn pass_head(&mut self, x: ExchangeId, head: &ParsedResponse<'_>, now: Instant) -> Outcome {
        let date = self.date;
        let draining = self.drain.is_some();
        let e = &mut self.exchanges[x.0];
        let runtime = e.runtime.expect("routed");
        let rt = self.runtimes[runtime as usize].as_ref().expect("a runtime in use");
        // The last stage of the file is the first to see the answer.
        let has_content = head.framing != Framing::None && head.framing != Framing::Length(0);
        let transform =
            if has_content { rt.chain.iter().rev().find_map(|stage| stage.response(head)) } else { None };
        let from = if transform.is_some() && head.framing != Framing::Chunked {
            Framing::Close
        } else {
            head.framing
        };
        let framing = client_framing(from, e.version);
        // An answer that overtakes its request ends the connection: what is left of the request is not worth
        // reading.
        let client = &self.conns[e.client.conn];
        let last = client.recv_ended && client.inbox.raw_len() == 0;
        e.keep_alive = e.keep_alive && !last && e.request.ended && framing != Framing::Close && !draining;
        let extra = match (rt.balancer.sticky(), e.choice) {
            (Some(sticky), Some(choice)) if e.asked_sticky != Some(choice) => sticky.set_cookie(choice),
            _ => &[],
        };
        // In a buffer that is there: a new client's cookie costs no allocation either.
        let mut line = std::mem::take(&mut self.scratch);
        line.clear();
        line.extend_from_slice(extra);
        let keep_alive = e.keep_alive;
        let forward =
            ResponseForward { date: &date, client_version: e.version, framing, keep_alive, extra: &line };
        e.status = head.status.as_u16();
        e.times.responded = now;
        e.response.trailers_pass = !head.lists_fields;
        e.response.begin(head.framing, framing);
        if e.response.head.is_none() && e.request_gone {
            // No attempt follows an answer: its head gets the page of the request's. Where pages are scarce
            // there might be no other.
            e.response.head = e.request.head.take();
            (e.request.head_len, e.request.head_sent) = (0, 0);
        }
        let written = self.append(x, |w| forward_response(w, head, &forward));
        self.scratch = line;
        if let Err(cause) = written {
            return Outcome::Broken(cause);
        }
        if let Some(transform) = transform {
            let Some(page) = self.pages.lend() else { return Outcome::Broken(Cause::NoPages) };
            self.exchanges[x.0].response.transform(page, transform);
        }
        let c = self.exchanges[x.0].client.conn;
        let machine = &mut self.conns[c].machine;
        let _ = machine.apply(Side::Server, if head.status == 101 { Event::Switch } else { Event::Head });
        if !keep_alive {
            let _ = machine.apply(Side::Server, Event::NoKeepAlive);
        }
        if head.status == 101 { Outcome::Switched } else { Outcome::Final }
    }

    /// Writes behind what of earlier heads has not gone yet.
    fn append(&mut self, x: ExchangeId, write: impl FnOnce(&mut Writer<'_>)) -> Result<(), Cause> {
        let flow = &mut self.exchanges[x.0].response;
        if flow.head.is_none() {
            flow.head = Some(self.pages.lend().ok_or(Cause::NoPages)?);
        }
        let page = flow.head.as_ref().expect("just lent");
        let mut w = Writer::new(&mut self.pages.bytes_mut(page)[flow.head_len as usize..Pages::size(page)]);
        write(&mut w);
        let written = w.finish().ok_or(Cause::BadResponse(Violation::HeadTooLarge))?;
        flow.head_len += written as u32;
        Ok(())
    }

    /// The final head is there: no other attempt will be needed. What has come behind it is received next.
    fn response_began(&mut self, x: ExchangeId) {
        let e = &mut self.exchanges[x.0];
        e.phase = Phase::Responding;
        e.retained = false;
        if e.request.head_sent == e.request.head_len {
            e.request.drop_head(&mut self.pages);
        }
        if !(e.request_gone && e.request.is_bare(&self.conns[e.client.conn].inbox)) {
            self.push_request(x);
        }
        let e = &self.exchanges[x.0];
        if e.response.ended {
            let b = e.backend.expect("answering").conn;
            let _ = self.conns[b].machine.apply(Side::Server, Event::End);
        }
    }

    /// Decodes what lies in the backend's inbox.
    pub(super) fn receive_response(&mut self, x: ExchangeId, now: Instant) {
        let e = &mut self.exchanges[x.0];
        let conn = &mut self.conns[e.backend.expect("answering").conn];
        let had_ended = e.response.ended;
        let limits = head_limits(&self.routing.config.limits);
        if let Err(violation) = e.response.receive(&mut conn.inbox, &mut self.pages, &limits) {
            let _ = conn.machine.apply(Side::Server, Event::Fail);
            return self.break_exchange(x, Cause::BadResponse(violation), now);
        }
        if e.response.ended && !had_ended {
            let _ = conn.machine.apply(Side::Server, Event::End);
        }
        let responding = e.phase == Phase::Responding;
        if self.push_response(x) && responding {
            return self.touch(x);
        }
        // The end of a body may be framing alone, with nothing to send.
        self.finish_if_done(x, now);
    }

    /// Frames what lies ready for the client and lets it look. Whether there is anything to send.
    pub(super) fn push_response(&mut self, x: ExchangeId) -> bool {
        let e = &mut self.exchanges[x.0];
        let Some(leg) = e.backend else { return false };
        let backend = &mut self.conns[leg.conn];
        if e.phase == Phase::Responding {
            e.bytes_out += e.response.join(&mut backend.inbox, &mut self.pages) as u64;
        }
        e.response.frame(Some(&mut backend.inbox), &mut self.pages);
        let (c, output, ended) =
            (e.client.conn, e.response.has_output(Some(&backend.inbox)), e.response.ended);
        backend.inbox.trim(&mut self.pages);
        if !ended {
            self.list_recv(leg.conn);
        }
        if output && !planted!(28) {
            self.list(c);
        }
        output
    }

    /// The backend closed its direction.
    pub(super) fn backend_ended(&mut self, b: ConnId, now: Instant) {
        let conn = &mut self.conns[b];
        let _ = conn.machine.apply(Side::Server, Event::Close);
        let Some(x) = conn.exchange else { return self.close(b) };
        let e = &mut self.exchanges[x.0];
        match e.phase {
            Phase::Tunnel => self.tunnel_ended(x, now),
            Phase::Responding if (e.response.reader.ends_at_close() || planted!(27)) && !e.response.ended => {
                e.response.ended = true;
                self.push_response(x);
                self.touch(x);
                self.finish_if_done(x, now);
            }
            _ => self.backend_lost(x, Cause::BackendClosed, now),
        }
    }
}

/// The value of `Upgrade` in a rendered request head.
#[cold]
fn rendered_upgrade(head: &[u8]) -> &[u8] {
    const NAME: &[u8] = b"\r\nUpgrade: ";
    let Some(at) = memchr::memmem::find(head, NAME) else { return b"" };
    let rest = &head[at + NAME.len()..];
    &rest[..memchr::memchr(b'\r', rest).unwrap_or(rest.len())]
}
