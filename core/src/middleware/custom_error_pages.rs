//! `CustomErrorPages`: the content of errors, from files that were read with the configuration.

use std::sync::Arc;

use super::{Ctx, Middleware};
use crate::config::FileRef;
use crate::http::{ResponseHead, asks_for_connection_credentials};
use crate::local_reply::Body;

/// The media type of a page whose own is not known.
const UNKNOWN_TYPE: &str = "application/octet-stream";

/// Puts pages in the place of errors' content.
#[derive(Debug)]
pub(super) struct CustomErrorPages {
    /// By status.
    pages: Vec<Page>,
}

#[derive(Debug)]
struct Page {
    status: u16,
    content: Arc<[u8]>,
    content_type: &'static str,
}

impl CustomErrorPages {
    pub(super) fn new(pages: &[(u16, FileRef)]) -> Self {
        let page = |(status, file): &(u16, FileRef)| Page {
            status: *status,
            content: file.content.clone(),
            content_type: file.media_type().unwrap_or(UNKNOWN_TYPE),
        };
        let mut pages: Vec<Page> = pages.iter().map(page).collect();
        pages.sort_by_key(|page| page.status);
        Self { pages }
    }
}

impl Middleware for CustomErrorPages {
    fn on_response(&self, ctx: &mut Ctx<'_>, head: &mut ResponseHead) {
        let status = head.status();
        if !status.is_client_error() && !status.is_server_error() {
            return;
        }
        let Ok(place) = self.pages.binary_search_by_key(&status.as_u16(), |page| page.status) else { return };
        // In several steps, and nobody sees these responses: the connection to the backend has to stay.
        if asks_for_connection_credentials(status.as_u16(), head.fields()) {
            return;
        }
        let page = &self.pages[place];
        ctx.replace_content(head, Body::Shared(page.content.clone()), page.content_type);
    }
}
