//! `Authentication` and `BasicAuth`: nobody passes without a name and a password that the driver has found
//! good, or had found good a moment ago.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::basic_credentials::Offered;
use super::success_cache::{Generation, Mark, SuccessCache};
use super::{Action, Counter, Ctx, Middleware};
use crate::cause::Cause;
use crate::config::{self, CredentialSource, UserList, Users};
use crate::event::{LookupResult, Query, Waiting};
use crate::http::may_be_taken_for;
use crate::local_reply::LocalReply;
use crate::planted::planted;

/// For how long users of a list are believed.
const LIST_CACHE_TIME: Duration = Duration::from_secs(60);
/// What backends are told the name by.
const REMOTE_USER: &[u8] = b"X-Remote-User";

/// Asks clients for names and passwords, and a source about them.
#[derive(Debug)]
pub(super) struct Authentication {
    source: Arc<CredentialSource>,
    /// The value of `WWW-Authenticate`.
    challenge: Box<str>,
    successes: Arc<SuccessCache>,
    generation: Generation,
    forward_authorization: bool,
}

/// What is kept of a request while the driver looks.
#[derive(Default)]
struct Asked(Option<(Box<str>, Mark, Waiting)>);

impl Authentication {
    /// That of an LDAP server.
    pub(super) fn of_directory(settings: &config::Authentication, successes: Arc<SuccessCache>) -> Self {
        let source = CredentialSource::Directory(settings.directory.clone());
        let time = settings.cache_time;
        Self::new(source, &settings.realm, time, settings.forward_authorization, successes)
    }

    /// That of a list; `None` if its file is not what it was when the configuration was read.
    pub(super) fn of_users(users: &Users, realm: &str, successes: Arc<SuccessCache>) -> Option<Self> {
        let list = match users {
            Users::Listed(list) => list.clone(),
            Users::File(file) => UserList::of_file(&file.content).ok()?,
        };
        Some(Self::new(CredentialSource::Users(list), realm, LIST_CACHE_TIME, false, successes))
    }

    fn new(
        source: CredentialSource,
        realm: &str,
        cache_time: Duration,
        forward_authorization: bool,
        successes: Arc<SuccessCache>,
    ) -> Self {
        let (source, generation) = successes.adopt(source, cache_time);
        // RFC 9110 §5.6.4: a quoted string.
        let realm = realm.replace('\\', "\\\\").replace('"', "\\\"");
        let challenge = ["Basic realm=\"", &realm, "\", charset=\"UTF-8\""].concat().into();
        Self { source, challenge, successes, generation, forward_authorization }
    }

    /// Asks for other credentials (RFC 9110 §15.5.2).
    fn challenge(&self) -> Action {
        let reply = LocalReply::text(StatusCode::UNAUTHORIZED, b"a name and a password are needed\n");
        Action::reply(reply.with_field("WWW-Authenticate", &self.challenge))
    }

    /// The request is this user's.
    fn admit(&self, ctx: &mut Ctx<'_>, user: &str) -> Action {
        if !self.forward_authorization && !planted!(152) {
            ctx.request.remove_field(b"Authorization");
        }
        if ctx.request.set_field(REMOTE_USER, user.as_bytes()).is_err() {
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            return Action::reply(LocalReply::text(status, b"the head of the request has no room left\n"));
        }
        ctx.set_user(user);
        Action::Continue
    }
}

/// Removes what only we may say, in every spelling that a gateway might take for it.
fn remove_remote_user(ctx: &mut Ctx<'_>) {
    let found = |ctx: &Ctx<'_>| {
        let fields = ctx.request.fields();
        let mut names = fields.iter().map(|f| f.name);
        names.find(|name| may_be_taken_for(name, REMOTE_USER)).map(<[u8]>::to_vec)
    };
    while let Some(name) = found(ctx) {
        ctx.request.remove_field(&name);
    }
}

impl Middleware for Authentication {
    fn on_request(&self, ctx: &mut Ctx<'_>) -> Action {
        remove_remote_user(ctx);
        match Offered::of(ctx.request.fields()) {
            Offered::Repeated => {
                let why = b"more than one Authorization field\n";
                Action::reply(LocalReply::text(StatusCode::BAD_REQUEST, why))
            }
            Offered::Nothing | Offered::Malformed => self.challenge(),
            Offered::Empty => {
                ctx.count(Counter::AuthFailure);
                self.challenge()
            }
            Offered::Credentials { user, password } => {
                let mark = self.successes.mark(&user, &password, || ctx.random());
                if self.successes.knows(mark, self.generation, ctx.now) {
                    return self.admit(ctx, &user);
                }
                let (waiting, wanted) = Waiting::new();
                ctx.state::<Asked>().0 = Some((user.clone(), mark, waiting));
                Action::look_up(Query::Authenticate { source: self.source.clone(), user, password, wanted })
            }
        }
    }

    fn on_lookup(&self, ctx: &mut Ctx<'_>, result: &LookupResult) -> Action {
        match (result, ctx.state::<Asked>().0.take()) {
            (LookupResult::Authenticated(true), Some((user, mark, _))) => {
                self.successes.add(mark, self.generation, ctx.now);
                self.admit(ctx, &user)
            }
            (LookupResult::Authenticated(false), _) => {
                ctx.count(Counter::AuthFailure);
                self.challenge()
            }
            (_, Some((user, ..))) if planted!(151) => self.admit(ctx, &user),
            // Nobody knows whether the credentials are good: asking for others would be wrong.
            _ => Action::reply(LocalReply::error(Cause::LookupFailed)),
        }
    }

    fn sees_responses(&self) -> bool {
        false
    }
}
