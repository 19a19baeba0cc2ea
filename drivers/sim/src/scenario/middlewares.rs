//! The middlewares of pools: in half of the runs each pool has a few of those that are built in, in any
//! order, with settings that matter to requests of simulated sizes and rates.

use std::fmt::Write as _;

use super::{Moved, PathRewrite, Scenario};
use crate::random::{SplitMix64, mix};

/// A middleware as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MiddlewareSpec {
    HttpsRedirector,
    MaxBodySize {
        limit: u64,
    },
    /// At most `limit` requests in `window` seconds.
    RateLimiter {
        limit: u64,
        window: u64,
    },
    /// Backends get the password if `forward`. `listed`: a list of users is asked, not a directory.
    Authentication {
        forward: bool,
        listed: bool,
    },
    Rewrite(PathRewrite),
    Redirect {
        moved: Moved,
        status: u16,
    },
    /// Every request, with or without some text.
    Respond {
        status: u16,
        text: bool,
    },
    /// By the address of the client.
    IpFilter {
        allows: bool,
    },
    Compression {
        algorithms: Vec<&'static str>,
        min_bytes: u64,
    },
    ErrorPages {
        statuses: Vec<u16>,
    },
    Headers {
        request: FieldChanges,
        response: FieldChanges,
        security: bool,
    },
}

/// What `Headers` changes on one side: fields are removed, then set, then added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FieldChanges {
    pub(crate) remove: Vec<&'static str>,
    pub(crate) set: Vec<(&'static str, &'static str)>,
    pub(crate) add: Vec<(&'static str, &'static str)>,
}

impl FieldChanges {
    /// Draws some of each; a name is not both removed and set.
    fn draw(
        rng: &mut SplitMix64,
        remove: &[&'static str],
        set: &[(&'static str, &'static str)],
        add: &[(&'static str, &'static str)],
    ) -> Self {
        let remove = some(rng, remove);
        let mut set = some(rng, set);
        set.retain(|(name, _)| !remove.iter().any(|removed| removed.eq_ignore_ascii_case(name)));
        Self { remove, set, add: some(rng, add) }
    }

    fn write(&self, side: &str, text: &mut String) {
        let table = |fields: &[(&str, &str)]| {
            let entries: Vec<String> = fields.iter().map(|(n, v)| format!("{n} = \"{v}\"")).collect();
            entries.join(", ")
        };
        let remove: Vec<String> = self.remove.iter().map(|name| format!("\"{name}\"")).collect();
        writeln!(
            text,
            "{side} = {{ set = {{ {} }}, add = {{ {} }}, remove = [{}] }}",
            table(&self.set),
            table(&self.add),
            remove.join(", ")
        )
        .expect("memory");
    }
}

/// Each of these or not, but at most three.
fn some<T: Copy>(rng: &mut SplitMix64, of: &[T]) -> Vec<T> {
    of.iter().copied().filter(|_| rng.below(3) == 0).take(3).collect()
}

impl MiddlewareSpec {
    fn draw(rng: &mut SplitMix64, scenario: &Scenario, sticky: bool) -> Self {
        match rng.below(28) {
            0 => Self::HttpsRedirector,
            1 | 2 => Self::MaxBodySize { limit: rng.between(scenario.max_body / 10, scenario.max_body) },
            3..=7 => Self::RateLimiter {
                limit: if rng.below(3) == 0 { rng.between(1, 20) } else { rng.between(1, 5) },
                window: rng.pick(&[1, 1, 2, 5]),
            },
            8..=10 => {
                let listed = rng.below(2) == 0;
                Self::Authentication { forward: rng.below(3) == 0 && !listed, listed }
            }
            11 | 12 => Self::Compression {
                algorithms: if rng.below(2) == 0 { CODINGS.to_vec() } else { vec![rng.pick(CODINGS)] },
                min_bytes: rng.pick(&[0, 100, 1_024]),
            },
            13 | 14 => Self::ErrorPages { statuses: some(rng, &[401, 404, 413, 429, 500, 502, 503, 504]) },
            20..=24 => Self::Rewrite(PathRewrite::draw(rng)),
            25 | 26 => Self::Redirect {
                moved: rng.pick(&[Moved::Directory, Moved::Even]),
                status: rng.pick(&[301, 302, 303, 307, 308]),
            },
            27 => {
                let status = rng.pick(&[200, 204, 404, 503]);
                Self::Respond { status, text: status != 204 && rng.below(4) > 0 }
            }
            15 => Self::IpFilter { allows: rng.below(2) == 0 },
            _ => Self::draw_headers(rng, sticky),
        }
    }

    fn draw_headers(rng: &mut SplitMix64, sticky: bool) -> Self {
        // A sticky cookie is the proxy's own.
        let (cookie, set_cookie) = if sticky { ("x-none", "x-none") } else { ("Cookie", "SET-cookie") };
        let request = FieldChanges::draw(
            rng,
            &["x-multi", cookie, "X-Pad", "accept"],
            &[
                ("X-Client", "{client_ip}"),
                ("X-Seen", "{scheme} {host}, {{x}}"),
                ("X-Multi", "one only"),
                ("X-Req", "id {request_id}"),
                ("Accept", "*/*"),
            ],
            &[("X-Multi", "another"), ("X-Client", "added {client_ip}"), ("X-Long", LONG)],
        );
        let response = FieldChanges::draw(
            rng,
            &["x-multi", set_cookie, "server", "ETag"],
            &[
                ("X-Served-By", "{backend}"),
                ("X-Multi", "one only"),
                ("Server", "{scheme}"),
                ("X-For", "{client_ip} of {host}"),
            ],
            &[("X-Multi", "another"), ("Referrer-Policy", "no-referrer"), ("x-FOR", "added")],
        );
        Self::Headers { request, response, security: rng.below(3) == 0 }
    }

    /// Its table in the configuration file.
    fn write(&self, name: &str, text: &mut String) {
        let mut header = |kind: &str| writeln!(text, "[middlewares.{name}.{kind}]").expect("memory");
        match self {
            Self::HttpsRedirector => header("HttpsRedirector"),
            Self::MaxBodySize { limit } => {
                header("MaxBodySize");
                writeln!(text, "limit = {limit}").expect("memory");
            }
            Self::RateLimiter { limit, window } => {
                header("RateLimiter");
                writeln!(text, "limit = {limit}\nwindow_sec = {window}").expect("memory");
            }
            Self::Authentication { listed: true, .. } => {
                header("BasicAuth");
                writeln!(text, "users = {{ ada = '{HASH}', bob = '{HASH}', cat = '{HASH}' }}")
                    .expect("memory");
            }
            Self::Authentication { forward, .. } => {
                header("Authentication");
                text.push_str("ldap_address = \"ldap://directory.test\"\nuser_directory = \"ou=users\"\n");
                text.push_str("rdn_identifier = \"uid\"\nrecursive = true\ncache_time = \"1s\"\n");
                writeln!(text, "forward_authorization = {forward}").expect("memory");
            }
            Self::Rewrite(rewrite) => {
                let (kind, keys) = rewrite.table();
                header(kind);
                text.push_str(&keys);
            }
            Self::Redirect { moved, status } => {
                header("Redirect");
                moved.write(*status, text);
            }
            Self::Respond { status, text: has_text } => {
                header("Respond");
                writeln!(text, "status = {status}").expect("memory");
                if *has_text {
                    writeln!(text, "body = \"{RESPOND_TEXT}\"").expect("memory");
                }
            }
            Self::IpFilter { allows } => {
                header(if *allows { "IpAllow" } else { "IpDeny" });
                writeln!(text, "ranges = {:?}", if *allows { ALLOWED } else { DENIED }).expect("memory");
            }
            Self::Compression { algorithms, min_bytes } => {
                header("Compression");
                writeln!(text, "algorithms = {algorithms:?}\nmin_bytes = {min_bytes}").expect("memory");
            }
            Self::ErrorPages { statuses } => {
                header("CustomErrorPages");
                for status in statuses {
                    writeln!(text, "\"{status}\" = \"{status}.html\"").expect("memory");
                }
            }
            Self::Headers { request, response, security } => {
                header("Headers");
                request.write("request", text);
                response.write("response", text);
                writeln!(text, "security = {security}").expect("memory");
            }
        }
    }
}

/// Ranges of clients, and of those that trusted proxies name.
const ALLOWED: &[&str] = &["198.51.100.0/30", "198.51.100.5", "2001:db8:0:1::4"];
const DENIED: &[&str] = &["198.51.100.6/31", "203.0.113.0/24", "2001:DB8:0:1::6/127"];

/// Whether a client with this address passes.
pub(crate) fn is_let_in(allows: bool, address: &str) -> bool {
    if let Some(last) = address.strip_prefix("2001:db8:0:1::") {
        return if allows { last == "4" } else { last != "7" };
    }
    match address.strip_prefix("198.51.100.").and_then(|last| last.parse::<u8>().ok()) {
        Some(last) if allows => last < 4 || last == 5,
        Some(last) => !matches!(last, 6 | 7),
        None => false,
    }
}

/// A hash of a password, which nobody computes here.
const HASH: &str = "$2y$10$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234";

/// What `Respond` says, if it says anything.
pub(crate) const RESPOND_TEXT: &str = "closed on Mondays";

const CODINGS: &[&str] = &["br", "zstd", "gzip", "deflate"];

/// A value that is put together outside of the space that short ones have.
const LONG: &str = "0123456789012345678901234567890123456789012345678901234567890123456789\
                    0123456789012345678901234567890123456789012345678901234567890123456789 {host}";

impl Scenario {
    /// Draws the middlewares of the pools: none in half of the runs.
    pub(super) fn draw_middlewares(&mut self) {
        let rng = &mut SplitMix64::new(mix(self.seed ^ 0x3d1e));
        if rng.below(2) == 0 {
            return;
        }
        for at in 0..self.pools.len() {
            let count = rng.below(5);
            let sticky = self.pools[at].sticky;
            let mut chain: Vec<_> = (0..count).map(|_| MiddlewareSpec::draw(rng, self, sticky)).collect();
            keep_possible(&mut chain);
            let changes = self.system.reloads > 0 && rng.below(2) == 0;
            let others = (0..if changes { rng.between(1, 2) } else { 0 })
                .map(|_| self.draw_other_chain(rng, &chain, sticky))
                .collect::<Vec<_>>();
            if changes {
                self.pools[at].chains = std::iter::once(chain.clone()).chain(others).collect();
            }
            self.pools[at].middlewares = chain;
        }
        // Whoever cannot be asked about a password would be rare.
        if !self.fault_free && self.asks_for_passwords() && rng.below(2) == 0 {
            self.system.failed_lookup = self.system.failed_lookup.max(400);
        }
    }

    /// Draws what a chain may become by a reload: its rate limits stay, because they go on counting.
    fn draw_other_chain(
        &self,
        rng: &mut SplitMix64,
        chain: &[MiddlewareSpec],
        sticky: bool,
    ) -> Vec<MiddlewareSpec> {
        let is_limit = |spec: &MiddlewareSpec| matches!(spec, MiddlewareSpec::RateLimiter { .. });
        let mut other: Vec<_> = (0..rng.below(4)).map(|_| MiddlewareSpec::draw(rng, self, sticky)).collect();
        if rng.below(2) == 0 {
            other.extend(chain.iter().filter(|spec| !is_limit(spec)).cloned());
        }
        keep_possible(&mut other);
        other.retain(|spec| !is_limit(spec));
        let mut from = 0;
        for limit in chain.iter().filter(|spec| is_limit(spec)) {
            from = rng.between(from as u64, other.len() as u64) as usize;
            other.insert(from, limit.clone());
            from += 1;
        }
        other
    }

    /// The middlewares of a pool of this name, in one of its chains.
    pub(crate) fn middlewares_of(&self, pool: Option<&str>, chain: usize) -> &[MiddlewareSpec] {
        let pool = self.pools.iter().find(|known| Some(known.name) == pool);
        pool.map_or(&[], |pool| pool.chains.get(chain).unwrap_or(&pool.middlewares))
    }

    /// Every chain of every pool.
    pub(super) fn chains(&self) -> impl Iterator<Item = &Vec<MiddlewareSpec>> {
        self.pools.iter().flat_map(|pool| pool.chains.iter().chain([&pool.middlewares]))
    }

    /// Whether any chain of a pool has such a middleware.
    fn may_have(&self, pool: Option<&str>, is_such: impl Fn(&MiddlewareSpec) -> bool) -> bool {
        let mut pools = self.pools.iter().filter(|known| Some(known.name) == pool);
        pools.any(|pool| pool.chains.iter().chain([&pool.middlewares]).flatten().any(&is_such))
    }

    /// Whether requests of a pool may need names and passwords.
    pub(crate) fn authenticates(&self, pool: Option<&str>) -> bool {
        self.may_have(pool, |spec| matches!(spec, MiddlewareSpec::Authentication { .. }))
    }

    /// Whether somebody is asked about names and passwords.
    fn asks_for_passwords(&self) -> bool {
        let asks =
            |spec: &MiddlewareSpec| matches!(spec, MiddlewareSpec::Authentication { listed: false, .. });
        self.chains().flatten().any(asks)
    }

    /// Whether some requests wait for a lookup before they are sent on.
    pub(crate) fn has_lookups(&self) -> bool {
        self.lookup_stage || self.pools.iter().any(|pool| self.authenticates(Some(pool.name)))
    }

    /// Whether errors of a pool may be replaced by pages.
    pub(crate) fn has_error_pages(&self, pool: Option<&str>) -> bool {
        self.may_have(pool, |spec| matches!(spec, MiddlewareSpec::ErrorPages { .. }))
    }

    /// Whether responses of a pool may be compressed.
    pub(crate) fn compresses(&self, pool: Option<&str>) -> bool {
        self.may_have(pool, |spec| matches!(spec, MiddlewareSpec::Compression { .. }))
    }

    /// Whether any pool has a middleware that is built in.
    pub(crate) fn has_middlewares(&self) -> bool {
        self.chains().any(|chain| !chain.is_empty())
    }
}

/// Leaves out what cannot stand in a chain, or comes to nothing there.
fn keep_possible(chain: &mut Vec<MiddlewareSpec>) {
    // The first one takes the credentials away from a second one.
    let is_authentication = |spec: &MiddlewareSpec| matches!(spec, MiddlewareSpec::Authentication { .. });
    let mut authenticated = false;
    chain.retain(|spec| !(is_authentication(spec) && std::mem::replace(&mut authenticated, true)));
    chain.retain(|spec| !matches!(spec, MiddlewareSpec::ErrorPages { statuses } if statuses.is_empty()));
}

/// The page for an error.
pub(crate) fn error_page(status: u16) -> Vec<u8> {
    format!("<!doctype html><title>{status}</title><p>").repeat(usize::from(status - 399)).into_bytes()
}

/// The tables of named middlewares for a pool, which go before the pools.
pub(super) fn tables(pool: &str, chain: &[MiddlewareSpec]) -> String {
    let mut text = String::new();
    for (at, spec) in chain.iter().enumerate() {
        spec.write(&format!("{pool}{at}"), &mut text);
    }
    text
}

/// The list of a pool that names them.
pub(super) fn list(pool: &str, chain: &[MiddlewareSpec]) -> String {
    let names: Vec<String> = (0..chain.len()).map(|at| format!("\"{pool}{at}\"")).collect();
    format!("middlewares = [{}]\n", names.join(", "))
}
