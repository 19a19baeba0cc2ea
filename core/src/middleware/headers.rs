//! `Headers`: sets, adds and removes fields of requests and responses.

use super::{Action, Ctx, Middleware};
use crate::cause::Cause;
use crate::config::template::{Placeholder, Segment, Template};
use crate::config::{self, FieldChanges};
use crate::http::{HeadFull, ResponseHead, Scheme, Violation, WrittenField};
use crate::local_reply::LocalReply;
use crate::planted::planted;

/// Changes heads as configured.
#[derive(Debug)]
pub(super) struct Headers {
    request: Changes,
    response: Changes,
    security: bool,
}

/// What becomes of the fields of one side.
#[derive(Debug)]
struct Changes {
    remove: Vec<Box<str>>,
    puts: Vec<PutField>,
}

/// A field that is added.
#[derive(Debug)]
struct PutField {
    text: FieldText,
    /// All others of its name go.
    replaces: bool,
}

#[derive(Debug)]
enum FieldText {
    /// The same for every head.
    Written(WrittenField),
    Template(Box<str>, Template),
}

impl Changes {
    fn new(configured: &FieldChanges) -> Self {
        let FieldChanges { set, add, remove } = configured;
        let set = set.iter().map(|field| (field, true));
        let puts = set.chain(add.iter().map(|field| (field, false))).map(|((name, template), replaces)| {
            let written = template.constant().and_then(|v| WrittenField::new(name.as_bytes(), v.as_bytes()));
            let text = match written {
                Some(written) => FieldText::Written(written),
                None => FieldText::Template(name.clone(), template.clone()),
            };
            PutField { text, replaces }
        });
        Self { remove: remove.clone(), puts: puts.collect() }
    }

    fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.puts.is_empty()
    }
}

/// Only over TLS (RFC 6797 §7.2): browsers come back over TLS for a year.
const HSTS: (&str, &str) = ("Strict-Transport-Security", "max-age=31536000");
/// No guessing of types, no frames of other sites, and no paths told to them.
const SECURITY: [(&str, &str); 3] = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "SAMEORIGIN"),
    ("Referrer-Policy", "strict-origin-when-cross-origin"),
];

impl Headers {
    pub(super) fn new(configured: &config::Headers) -> Self {
        let config::Headers { request, response, security } = configured;
        Self { request: Changes::new(request), response: Changes::new(response), security: *security }
    }

    fn change_response(&self, ctx: &Ctx<'_>, head: &mut ResponseHead) -> Result<(), HeadFull> {
        for name in &self.response.remove {
            if planted!(142) {
                let second = head.fields().named(name.as_bytes()).nth(1).map(<[u8]>::to_vec);
                head.remove_field(name.as_bytes());
                if let Some(second) = second {
                    head.add_field(name.as_bytes(), &second)?;
                }
                continue;
            }
            head.remove_field(name.as_bytes());
        }
        for PutField { text, replaces } in &self.response.puts {
            match text {
                FieldText::Written(field) => head.put_written(field, *replaces)?,
                // There is nothing that it stands for.
                FieldText::Template(_, template)
                    if ctx.backend.is_none() && template.has(Placeholder::Backend) => {}
                FieldText::Template(name, template) => {
                    let value = Value::of(template, ctx);
                    match replaces {
                        true => head.set_field(name.as_bytes(), value.bytes())?,
                        false => head.add_field(name.as_bytes(), value.bytes())?,
                    }
                }
            }
        }
        if self.security {
            let fields = SECURITY.iter().chain((ctx.scheme() == Scheme::Https).then_some(&HSTS));
            for (name, value) in fields {
                if head.fields().named(name.as_bytes()).next().is_none() {
                    head.add_field(name.as_bytes(), value.as_bytes())?;
                }
            }
        }
        Ok(())
    }
}

impl Middleware for Headers {
    fn on_request(&self, ctx: &mut Ctx<'_>) -> Action {
        match change_request(&self.request, ctx) {
            Ok(()) => Action::Continue,
            Err(HeadFull) => Action::reply(LocalReply::error(Cause::BadRequest(Violation::HeadTooLarge))),
        }
    }

    fn on_response(&self, ctx: &mut Ctx<'_>, head: &mut ResponseHead) {
        // A head of nearly 64 KiB has no room for more: it goes without.
        let _ = self.change_response(ctx, head);
    }

    fn sees_responses(&self) -> bool {
        self.security || !self.response.is_empty()
    }
}

fn change_request(changes: &Changes, ctx: &mut Ctx<'_>) -> Result<(), HeadFull> {
    for name in &changes.remove {
        ctx.request.remove_field(name.as_bytes());
    }
    for PutField { text, replaces } in &changes.puts {
        match text {
            FieldText::Written(field) => ctx.request.put_written(field, *replaces)?,
            FieldText::Template(name, template) => {
                let value = Value::of(template, ctx);
                match replaces {
                    true => ctx.request.set_field(name.as_bytes(), value.bytes())?,
                    false => ctx.request.add_field(name.as_bytes(), value.bytes())?,
                }
            }
        }
    }
    Ok(())
}

/// A value that is put together: on the stack while it is short.
pub(super) struct Value {
    short: [u8; 128],
    len: usize,
    long: Vec<u8>,
}

impl Value {
    pub(super) fn of(template: &Template, ctx: &Ctx<'_>) -> Self {
        let mut value = Self { short: [0; 128], len: 0, long: Vec::new() };
        for segment in template.segments() {
            match segment {
                Segment::Text(text) => value.push(text.as_bytes()),
                Segment::Placeholder(Placeholder::ClientIp) => {
                    ctx.with_client_text(|text| value.push(text));
                }
                Segment::Placeholder(Placeholder::Host) => value.push(ctx.request.host()),
                Segment::Placeholder(Placeholder::Scheme) => {
                    value.push(if ctx.scheme() == Scheme::Https { b"https" } else { b"http" });
                }
                Segment::Placeholder(Placeholder::RequestId) => value.push(ctx.request_id()),
                Segment::Placeholder(Placeholder::Backend) => {
                    value.push(ctx.backend.unwrap_or_default().as_bytes());
                }
            }
        }
        value
    }

    fn push(&mut self, text: &[u8]) {
        let end = self.len + text.len();
        if let Some(room) = self.short.get_mut(self.len..end).filter(|_| self.long.is_empty()) {
            room.copy_from_slice(text);
            self.len = end;
            return;
        }
        if self.long.is_empty() {
            self.long.extend_from_slice(&self.short[..self.len]);
        }
        self.long.extend_from_slice(text);
    }

    pub(super) fn bytes(&self) -> &[u8] {
        if self.long.is_empty() { &self.short[..self.len] } else { &self.long }
    }
}
