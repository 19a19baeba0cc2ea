//! `Respond`: a response of our own to every request.

use std::sync::Arc;

use super::headers::Value;
use super::{Action, Ctx, Middleware};
use crate::config::template::Template;
use crate::config::{self, RespondContent};
use crate::http::StatusCode;
use crate::local_reply::{Body, LocalReply};

/// Responds itself.
#[derive(Debug)]
pub(super) struct Respond {
    status: StatusCode,
    content: Option<Arc<[u8]>>,
    content_type: Box<str>,
    fields: Vec<(Box<str>, Template)>,
}

impl Respond {
    /// `None` if there is no such status.
    pub(super) fn new(configured: &config::Respond) -> Option<Self> {
        let (content, known_type) = match &configured.content {
            RespondContent::Empty => (None, None),
            RespondContent::Text(text) => {
                (Some(Arc::from(text.as_bytes())), Some("text/plain; charset=utf-8"))
            }
            RespondContent::File(file) => (Some(file.content.clone()), file.media_type()),
        };
        let written = configured.content_type.as_deref().or(known_type);
        Some(Self {
            status: StatusCode::from_u16(configured.status).ok()?,
            content,
            content_type: written.unwrap_or("application/octet-stream").into(),
            fields: configured.fields.clone(),
        })
    }
}

impl Middleware for Respond {
    fn on_request(&self, ctx: &mut Ctx<'_>) -> Action {
        let mut reply = LocalReply::new(self.status);
        if let Some(content) = &self.content {
            reply.body = Body::Shared(content.clone());
            reply = reply.with_field("Content-Type", &self.content_type);
        }
        for (name, template) in &self.fields {
            let value = Value::of(template, ctx);
            reply = reply.with_field(name, &String::from_utf8_lossy(value.bytes()));
        }
        Action::reply(reply)
    }

    fn sees_responses(&self) -> bool {
        false
    }
}
