//! What clients have received, held against the records of their exchanges when all is over.

use super::documented::status_of;
use crate::exchanges::{ClientResult, ExchangeEntry, ObservedRecord};
use crate::net::Net;

impl Net {
    /// The run is over: every record is there.
    pub(crate) fn judge_results(&mut self) {
        self.judge_queues();
        self.judge_cuts();
        self.judge_streams();
        let judge = |entry: &ExchangeEntry| {
            let record = entry.record.as_ref()?;
            let secure = self.sockets.get(self.client_sockets[entry.client]).is_some_and(|s| s.secure);
            let why = judge_result(entry, record, secure).err()?;
            Some(format!("exchange {}: {why}: {:?}, {record:?}", entry.id, entry.result))
        };
        if let Some(details) = self.ledger.entries.iter().find_map(judge) {
            self.ledger.fail("result-recorded", details);
        }
    }
}

fn judge_result(entry: &ExchangeEntry, record: &ObservedRecord, secure: bool) -> Result<(), String> {
    match entry.result {
        ClientResult::Response(status) => {
            // A backend may have ended no stream whose content has come whole.
            let tunnel = record.is_of_tunnel(entry);
            let cut = record.cause.is_some() && !tunnel;
            if record.status != status || cut && !entry.answered_on_stream {
                return Err("the client has a whole response".into());
            }
            if record.bytes_out != entry.reply_len && !matches!(entry.method, "HEAD") && !tunnel {
                return Err(format!("the client has {} bytes", entry.reply_len));
            }
            let answered_by = entry.answered_by.map(|n| n as usize);
            if !cut && answered_by.is_some() && super::record::backend_of(&record.backend) != answered_by {
                return Err(format!("backend {answered_by:?} has answered"));
            }
        }
        ClientResult::LocalReply(status) => {
            let cause = entry.reply_cause.as_deref();
            if record.cause != cause || record.status != status {
                return Err(format!("the client was told of {cause:?}"));
            }
            let by_backend = record.cause_kind == Some("bad_response");
            let documented = cause.and_then(|cause| status_of(cause, by_backend));
            if documented != Some(status) {
                return Err(format!("the documentation says {documented:?}"));
            }
            // With TLS the core hears of the last byte behind all others, and may not hear of it any more.
            let told =
                record.bytes_out == entry.reply_len || secure && record.bytes_out + 1 == entry.reply_len;
            if entry.method != "HEAD" && !told {
                return Err(format!("the client has {} bytes", entry.reply_len));
            }
        }
        ClientResult::MiddlewareReply(status) => {
            // With TLS the core hears of the last byte behind all others, or not: then it is cut. Without
            // content that byte is of the head.
            let untold = secure && record.bytes_out + 1 == entry.reply_len.max(1);
            if record.attempts > 0 || record.cause.is_some() && !untold || record.status != status {
                return Err("the client has the response of a middleware".into());
            }
            if entry.method != "HEAD" && record.bytes_out != entry.reply_len && !untold {
                return Err(format!("the client has {} bytes", entry.reply_len));
            }
        }
        ClientResult::Pending | ClientResult::Incomplete => {}
    }
    Ok(())
}
