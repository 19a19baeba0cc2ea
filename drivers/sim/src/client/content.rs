//! The content of responses that middlewares have changed.

use crate::chains::Message;
use crate::codings;
use crate::coverage::Mark;
use crate::exchanges::response_body_len;
use crate::http1::BodyChecker;
use crate::net::Net;
use crate::payload::{self, PayloadKind};
use crate::scenario::RESPOND_TEXT;

/// Whether content that middlewares have changed is what it should be, now that all of it is there.
pub(super) fn check_content(
    net: &mut Net,
    id: u64,
    by_backend: bool,
    message: &Message,
    body: &BodyChecker,
) -> Result<(), String> {
    let coded = body.collected.as_deref().unwrap_or_default();
    let decoded = match message.coding {
        Some(coding) => {
            net.mark(Mark::Compressed);
            Some(codings::decode(coding, coded)?)
        }
        None => None,
    };
    let content = decoded.as_deref().unwrap_or(coded);
    let mut want = Vec::new();
    match &message.page {
        Some(page) => {
            if page.as_slice() != RESPOND_TEXT.as_bytes() {
                net.mark(Mark::ErrorPage);
            }
            want.clone_from(page);
        }
        None if by_backend => {
            let len = response_body_len(net.ledger.get(id));
            payload::fill(id, PayloadKind::Response, 0, len, &mut want);
        }
        None => return Ok(()),
    }
    let same = content.iter().zip(&want).take_while(|(is, want)| is == want).count();
    if same < content.len().max(want.len()) {
        return Err(format!("{} bytes, not {}, the same up to {same}", content.len(), want.len()));
    }
    Ok(())
}
