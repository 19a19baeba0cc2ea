//! Clients of the admin listener: each asks for one page, whatever else there is to do.

use super::{Client, Segment, SendCondition};
use crate::coverage::Mark;
use crate::http1::ParsedHead;
use crate::net::{Net, PeerRead};
use crate::scenario::{ADMIN_PAGE, ADMIN_REQUESTS};

impl Client {
    /// Puts its request into the output.
    pub(super) fn queue_admin_request(&mut self, which: usize) {
        let (request, _) = ADMIN_REQUESTS[which];
        let head = format!("{request} HTTP/1.1\r\nHost: lb.test\r\nConnection: close\r\n\r\n");
        self.output.push_back(Segment {
            bytes: head.into_bytes(),
            sent: 0,
            condition: SendCondition::Immediately,
            is_head: true,
            cookie_of: None,
        });
    }

    /// A turn of a client of the admin listener.
    pub(super) fn admin_turn(&mut self, net: &mut Net, socket: usize, which: usize) {
        self.write(net, socket);
        let mut reply = std::mem::take(&mut self.reply);
        let found = net.peer_read(socket, 65_536, &mut reply);
        self.reply = reply;
        match found {
            PeerRead::Bytes => net.wake_peer(socket, net.now + 1),
            PeerRead::WouldBlock => {}
            PeerRead::End | PeerRead::Reset => {
                let whole = found == PeerRead::End;
                if let Err(why) = self.check_admin_reply(net, which, whole) {
                    let reply = String::from_utf8_lossy(&self.reply);
                    let details =
                        format!("client {}, {}: {why}: {reply:?}", self.index, ADMIN_REQUESTS[which].0);
                    net.ledger.fail("admin-page", details);
                }
                self.finish(net);
            }
        }
    }

    /// Whether the response is one that the documentation has for its page.
    fn check_admin_reply(&self, net: &mut Net, which: usize, whole: bool) -> Result<(), String> {
        let (request, good) = ADMIN_REQUESTS[which];
        let Some(end) = self.reply.windows(4).position(|w| w == b"\r\n\r\n").filter(|_| whole) else {
            // A drain has cut it, or its head has come too late.
            let late = net.scenario.timeouts.head > 0;
            return if net.drain_by.is_some() || late { Ok(()) } else { Err("no response".into()) };
        };
        let head = ParsedHead::parse(&self.reply[..end + 4]).ok_or("no head")?;
        let body = &self.reply[end + 4..];
        let status = head.start.get(9..12).unwrap_or_default();
        if head.number("content-length")? != Some(body.len() as u64) {
            return Err("another length".into());
        }
        let asks = matches!(request, "GET /metrics" | "GET /status");
        let faults = &net.scenario.system;
        let may_fail = faults.slow_lookup + faults.lost_lookup + faults.failed_lookup > 0;
        match status {
            "503" if asks && may_fail => net.mark(Mark::AdminPageFailed),
            "503" if net.scenario.page_limit > 0 => {}
            "408" if net.scenario.timeouts.head > 0 => {}
            "200" if asks && body != ADMIN_PAGE.as_bytes() => return Err("another page".into()),
            status if good.contains(&status) => {
                net.mark(if asks { Mark::AdminPage } else { Mark::AdminReply });
            }
            status => return Err(format!("status {status}")),
        }
        Ok(())
    }
}
