//! The reference of the middlewares: what those of a pool make of a request and of its response, by what the
//! documentation says of each.

use crate::codings;
use crate::credentials;
use crate::exchanges::{ExchangeEntry, Limited};
use crate::fields::{self, FieldList};
use crate::http1::{BodyFraming, ParsedHead};
use crate::http2::HTTP_2;
use crate::scenario::{FieldChanges, MiddlewareSpec, Moved, Scenario, client_ip, error_page, is_let_in};

/// What a browser is told where `security` is on, if nobody has told it otherwise.
const SECURITY: [(&str, &str); 3] = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "SAMEORIGIN"),
    ("Referrer-Policy", "strict-origin-when-cross-origin"),
];

/// Content that is known to be no longer is never compressed.
const NEVER_COMPRESSED: u64 = 64;

/// What belongs to the content of an error that a page replaces.
const OF_CONTENT: &[&str] = &["Content-Type", "Content-Encoding", "ETag"];

/// The middlewares that a request and its response pass.
#[derive(Clone, Copy)]
pub(crate) struct Chain<'a> {
    scenario: &'a Scenario,
    entry: &'a ExchangeEntry,
    pub(crate) specs: &'a [MiddlewareSpec],
}

/// A response on its way out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    pub(crate) status: u16,
    pub(crate) fields: FieldList,
    /// Bytes of its content, if they are announced.
    pub(crate) len: Option<u64>,
    /// The coding that a middleware has put its content in.
    pub(crate) coding: Option<&'static str>,
    /// A page is in the place of its content.
    pub(crate) page: Option<Vec<u8>>,
}

impl Message {
    fn field(&self, name: &str) -> Option<&str> {
        let named = |(known, _): &&(&str, String)| known.eq_ignore_ascii_case(name);
        self.fields.iter().find(named).map(|(_, value)| &**value)
    }

    fn remove(&mut self, name: &str) {
        self.fields.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
    }
}

impl<'a> Chain<'a> {
    /// Those of the pool of an exchange, as they were when it began.
    pub(crate) fn of(scenario: &'a Scenario, entry: &'a ExchangeEntry) -> Self {
        Self { scenario, entry, specs: scenario.middlewares_of(entry.pool, entry.chain) }
    }

    /// What of a forwarding field is believed.
    fn told(&self, name: &str) -> Option<String> {
        if !self.scenario.is_trusted(self.entry.client) {
            return None;
        }
        fields::of_request(self.entry.id, self.entry.version)
            .into_iter()
            .find(|f| f.name == name)
            .map(|f| f.value)
    }

    /// How the client speaks to whom it connected to.
    fn scheme(&self) -> &'static str {
        let secure = self.scenario.client_tls(self.entry.client).is_some();
        if secure || self.told("X-Forwarded-Proto").is_some() { "https" } else { "http" }
    }

    /// The address of the client.
    pub(crate) fn client_ip(&self) -> String {
        let own = || client_ip(self.entry.client).to_string();
        self.told("X-Forwarded-For").unwrap_or_else(own)
    }

    /// The place of a limit among those of its chain.
    fn nth_limit(&self, at: usize) -> usize {
        self.specs[..at].iter().filter(|s| matches!(s, MiddlewareSpec::RateLimiter { .. })).count()
    }

    fn limited(&self, at: usize) -> Option<Limited> {
        let nth = self.nth_limit(at);
        self.entry.limited.iter().find(|(known, _)| *known == nth).map(|(_, limited)| *limited)
    }

    /// Why no byte of the request may reach a backend.
    pub(crate) fn kept_out(&self) -> Option<&'static str> {
        self.specs.iter().enumerate().find_map(|(at, spec)| match *spec {
            MiddlewareSpec::HttpsRedirector => (self.scheme() == "http").then_some("plain HTTP"),
            MiddlewareSpec::MaxBodySize { limit } => {
                let announced = matches!(self.entry.framing, BodyFraming::Length(len) if len > limit);
                announced.then_some("more content than allowed is announced")
            }
            MiddlewareSpec::RateLimiter { .. } => match self.limited(at) {
                Some(Limited::Admitted) => None,
                Some(Limited::Refused(_)) => Some("a rate limit has refused it"),
                None => Some("no rate limit has counted it"),
            },
            MiddlewareSpec::Authentication { .. } => {
                credentials::of_request(self.entry.id).user.is_none().then_some("bad credentials")
            }
            MiddlewareSpec::IpFilter { allows } => {
                (!is_let_in(allows, &self.client_ip())).then_some("an address that is not let in")
            }
            MiddlewareSpec::Redirect { moved, .. } => {
                self.location(at, moved).map(|_| "it is sent elsewhere")
            }
            MiddlewareSpec::Respond { .. } => Some("a middleware responds"),
            MiddlewareSpec::Rewrite(_)
            | MiddlewareSpec::Headers { .. }
            | MiddlewareSpec::Compression { .. }
            | MiddlewareSpec::ErrorPages { .. } => None,
        })
    }

    /// The path behind the first `passed` middlewares, and what was taken away of it.
    fn path_at(&self, passed: usize) -> (String, String) {
        let path = self.entry.target.split('?').next().unwrap_or_default();
        let mut found = (path.to_owned(), String::new());
        for spec in &self.specs[..passed] {
            if let MiddlewareSpec::Rewrite(rewrite) = spec {
                let (path, stripped) = rewrite.apply(&found.0);
                found = (path, found.1 + stripped.unwrap_or_default());
            }
        }
        found
    }

    /// The query with its question mark, if there is one.
    fn query(&self) -> &str {
        let target = &self.entry.target;
        target.find('?').map_or("", |at| &target[at..])
    }

    /// The target that the backend gets.
    pub(crate) fn target(&self) -> String {
        self.path_at(self.specs.len()).0 + self.query()
    }

    /// Where the request is sent by a redirection with `passed` middlewares before it.
    fn location(&self, passed: usize, moved: Moved) -> Option<String> {
        moved.location(self.scheme(), self.entry.host, &self.path_at(passed).0, self.query())
    }

    /// Whether the request has more content than allowed.
    pub(crate) fn is_too_large(&self) -> bool {
        let len = self.entry.len;
        self.specs.iter().any(|s| matches!(s, MiddlewareSpec::MaxBodySize { limit } if len > *limit))
    }

    /// Whether content may arrive as other bytes than the backend has sent.
    pub(crate) fn changes_content(&self) -> bool {
        let changes =
            |s: &_| matches!(s, MiddlewareSpec::Compression { .. } | MiddlewareSpec::ErrorPages { .. });
        self.specs.iter().any(changes)
    }

    /// The fields of a request, from what the client has sent to what the backend gets.
    pub(crate) fn change_request(&self, head: &ParsedHead<'_>, fields: &mut FieldList) -> Result<(), String> {
        let request_id = head.get("x-request-id")?.unwrap_or_default();
        for spec in self.specs {
            match spec {
                MiddlewareSpec::Headers { request, .. } => {
                    change(request, fields, |value| Some(self.value(value, request_id, "")));
                }
                MiddlewareSpec::Authentication { forward, .. } => {
                    let own = ["X-Remote-User", if *forward { "" } else { "Authorization" }];
                    fields.retain(|(name, _)| !own.iter().any(|own| own.eq_ignore_ascii_case(name)));
                    let user = credentials::of_request(self.entry.id).user.unwrap_or_default();
                    fields.push(("X-Remote-User", user.to_owned()));
                }
                _ => {}
            }
        }
        let (_, stripped) = self.path_at(self.specs.len());
        if !stripped.is_empty() {
            fields.push(("X-Forwarded-Prefix", stripped));
        }
        Ok(())
    }

    /// What becomes of a response that passes the first `passed` middlewares, from the last of them to the
    /// first. `backend`: the label of the one that has responded; empty: none.
    fn change_response(&self, passed: usize, backend: &str, message: &mut Message) {
        for spec in self.specs[..passed].iter().rev() {
            match spec {
                MiddlewareSpec::Headers { response, security, .. } => {
                    change(response, &mut message.fields, |value| {
                        let unknown = value.contains("{backend}") && backend.is_empty();
                        (!unknown).then(|| self.value(value, "", backend))
                    });
                    if *security {
                        self.secure(message);
                    }
                }
                MiddlewareSpec::Compression { algorithms, min_bytes } => {
                    self.compress(algorithms, *min_bytes, message);
                }
                MiddlewareSpec::ErrorPages { statuses } => replace(statuses, message),
                _ => {}
            }
        }
    }

    fn secure(&self, message: &mut Message) {
        let hsts = ("Strict-Transport-Security", "max-age=31536000");
        let hsts = (self.scheme() == "https").then_some(hsts);
        for (name, value) in SECURITY.into_iter().chain(hsts) {
            if message.field(name).is_none() {
                message.fields.push((name, value.to_owned()));
            }
        }
    }

    fn compress(&self, algorithms: &[&'static str], min_bytes: u64, message: &mut Message) {
        let is_text = message.field("Content-Type").is_some_and(codings::is_text);
        let coded = message.field("Content-Encoding").is_some();
        if matches!(message.status, 204 | 205 | 304) || coded || !is_text {
            return;
        }
        if message.field("Vary").is_none() {
            message.fields.push(("Vary", "Accept-Encoding".to_owned()));
        }
        let accepted = codings::accepted(self.entry.id).map_or(&[][..], |(_, accepted)| accepted);
        let coding = accepted.iter().find(|coding| algorithms.contains(coding));
        let short = message.len.is_some_and(|len| len < min_bytes.max(NEVER_COMPRESSED + 1));
        let Some(coding) = coding.filter(|_| !short && self.entry.method != "HEAD") else { return };
        message.fields.push(("Content-Encoding", (*coding).to_owned()));
        if let Some(tag) = message.field("ETag").map(str::to_owned) {
            message.remove("ETag");
            message.fields.push(("ETag", format!("W/{tag}")));
        }
        (message.coding, message.len) = (Some(*coding), None);
    }

    /// The value of a field with all its placeholders.
    fn value(&self, template: &str, request_id: &str, backend: &str) -> String {
        let known = [
            ("{client_ip}", self.client_ip()),
            ("{host}", self.entry.host.to_owned()),
            ("{scheme}", self.scheme().to_owned()),
            ("{request_id}", request_id.to_owned()),
            ("{backend}", backend.to_owned()),
            ("{{", "{".to_owned()),
            ("}}", "}".to_owned()),
        ];
        known.iter().fold(template.to_owned(), |text, (name, value)| text.replace(name, value))
    }

    /// The response that a client should get for a backend's; `Err`: what differs in the head from that.
    /// `streams`: the backend speaks HTTP/2.
    pub(crate) fn response(
        &self,
        received: &[(&str, &str)],
        own: &[&str],
        mut sent: Message,
        streams: bool,
    ) -> Result<Message, String> {
        if self.specs.is_empty() {
            let lower = self.entry.version == HTTP_2 || streams;
            return fields::difference(received, own, &sent.fields, lower).map_or(Ok(sent), Err);
        }
        // Which of its labels the backend has is looked at by the caller.
        let served_by = |(name, _): &&(&str, &str)| name.eq_ignore_ascii_case("X-Served-By");
        let backend = received.iter().find(served_by).map_or("", |(_, value)| value);
        let backend = if backend.is_empty() { "nobody" } else { backend };
        self.change_response(self.specs.len(), backend, &mut sent);
        fields::difference_in_any_order(received, own, &sent.fields).map_or(Ok(sent), Err)
    }

    /// The response that a client should get for one of the proxy itself, which has passed the first `passed`
    /// middlewares; `None`: an error, which has passed any of them. `Err`: what differs in the head.
    pub(crate) fn reply(
        &self,
        received: &[(&str, &str)],
        own: &[&str],
        made: &Message,
        passed: Option<usize>,
    ) -> Result<Message, String> {
        let mut found = Err(String::new());
        for passed in passed.map_or(0..=self.specs.len(), |passed| passed..=passed).rev() {
            let mut message = made.clone();
            self.change_response(passed, "", &mut message);
            match fields::difference_in_any_order(received, own, &message.fields) {
                None => return Ok(message),
                Some(difference) => found = found.and(Err(difference)),
            }
        }
        found.map_err(|difference: String| format!("{difference}, or what fewer middlewares make of it"))
    }

    /// The middleware that has made a response with this head: how many stand before it. `Err`: none may
    /// have.
    pub(crate) fn maker(&self, status: u16, head: &ParsedHead<'_>) -> Result<usize, String> {
        for (at, spec) in self.specs.iter().enumerate() {
            match *spec {
                MiddlewareSpec::HttpsRedirector if self.scheme() == "http" => {
                    let want = format!("https://{}{}", self.entry.host, self.entry.target);
                    let simple = matches!(self.entry.method, "GET" | "HEAD");
                    if status != if simple { 301 } else { 308 } {
                        return Err(format!("status {status} for {}", self.entry.method));
                    }
                    if head.get("location")? != Some(want.as_str()) {
                        return Err(format!("not to {want}"));
                    }
                    return Ok(at);
                }
                MiddlewareSpec::RateLimiter { .. } => match self.limited(at) {
                    Some(Limited::Admitted) => {}
                    Some(Limited::Refused(secs)) => {
                        if status != 429 || head.number("retry-after")? != Some(secs) {
                            return Err(format!("status {status}, not 429 with Retry-After {secs}"));
                        }
                        return Ok(at);
                    }
                    None => return Err("no rate limit has counted it".into()),
                },
                MiddlewareSpec::Authentication { .. } => {
                    let credentials = credentials::of_request(self.entry.id);
                    if credentials.user.is_none() {
                        let want = credentials.refused.unwrap_or(401);
                        let challenged = head.get("www-authenticate")?.is_some();
                        if status != want || challenged != (want == 401) {
                            return Err(format!("status {status}, not {want}"));
                        }
                        return Ok(at);
                    }
                }
                MiddlewareSpec::IpFilter { allows } => {
                    if !is_let_in(allows, &self.client_ip()) {
                        return if status == 403 { Ok(at) } else { Err(format!("status {status}, not 403")) };
                    }
                }
                MiddlewareSpec::Redirect { moved, status: want } => {
                    if let Some(location) = self.location(at, moved) {
                        if status != want || head.get("location")? != Some(location.as_str()) {
                            return Err(format!("not {want} to {location}"));
                        }
                        return Ok(at);
                    }
                }
                MiddlewareSpec::Respond { status: want, .. } => {
                    // A 2xx would be a WebSocket that is there.
                    let opens = self.entry.websocket && self.entry.version == HTTP_2 && want / 100 == 2;
                    let want = if opens { 501 } else { want };
                    return if status == want { Ok(at) } else { Err(format!("status {status}, not {want}")) };
                }
                // A 413 tells its cause.
                MiddlewareSpec::MaxBodySize { .. }
                | MiddlewareSpec::Rewrite(_)
                | MiddlewareSpec::HttpsRedirector
                | MiddlewareSpec::Headers { .. }
                | MiddlewareSpec::Compression { .. }
                | MiddlewareSpec::ErrorPages { .. } => {}
            }
        }
        Err("no middleware has reason to reply".into())
    }
}

/// Replaces the content of an error that has a page.
fn replace(statuses: &[u16], message: &mut Message) {
    let challenge = message.field("WWW-Authenticate").unwrap_or_default().to_ascii_lowercase();
    let of_connection = challenge.starts_with("ntlm") || challenge.contains("negotiate");
    if !statuses.contains(&message.status) || message.status == 401 && of_connection {
        return;
    }
    for name in OF_CONTENT {
        message.remove(name);
    }
    message.fields.push(("Content-Type", "text/html; charset=utf-8".to_owned()));
    let page = error_page(message.status);
    (message.len, message.coding, message.page) = (Some(page.len() as u64), None, Some(page));
}

/// Changes fields as `Headers` is to; `value`: what a template stands for, if there is anything.
fn change(changes: &FieldChanges, fields: &mut FieldList, value: impl Fn(&str) -> Option<String>) {
    for name in &changes.remove {
        fields.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
    }
    for (name, template) in &changes.set {
        if let Some(value) = value(template) {
            fields.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
            fields.push((name, value));
        }
    }
    for (name, template) in &changes.add {
        fields.extend(value(template).map(|value| (*name, value)));
    }
}
