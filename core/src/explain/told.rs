//! From what was seen to what is told.

use super::asked::Sent;
use super::choice::{self, Situation};
use super::rehearsal::{RESPONSE, Seen};
use super::witness::{Chosen, Deed, head_lines};
use super::{Explanation, Middleware, Pool, Reply, Request, settings};
use crate::config::{self, Config};

pub(super) fn told(config: &Config, sent: &Sent<'_>, seen: &Seen) -> Explanation {
    let place = seen.witnesses.pool;
    let pool = place.and_then(|place| config.pools.get(place));
    let middlewares = pool.map(|pool| on_request(pool, &seen.deeds)).unwrap_or_default();
    let responds = |deed: &Deed| deed.responds;
    let local_reply = if seen.no_certificate {
        let why = "There is no certificate for this name, and no default: the handshake fails.".into();
        Some(Reply { status: 0, cause: None, why })
    } else {
        match seen.witnesses.ended {
            Some((_, Some(cause))) => Some(Reply::of(cause)),
            Some((status, None)) if seen.to_backend.is_none() => {
                let by = seen.deeds.iter().find(|deed| responds(deed)).zip(pool);
                let why = match by.and_then(|(deed, pool)| pool.middlewares.get(deed.stage)) {
                    Some(middleware) => format!("{} responds.", middleware.name()),
                    None => "The proxy responds by itself.".into(),
                };
                Some(Reply { status, cause: None, why })
            }
            _ => None,
        }
    };
    let choice = pool.zip(seen.witnesses.chosen.as_ref()).map(|(pool, chosen)| {
        let backend = match chosen {
            Chosen::Backend(label) => Some(&**label),
            Chosen::Nobody => None,
        };
        let client = seen.witnesses.client.unwrap_or(sent.asked.peer);
        choice::told(config, pool, &Situation { client, fields: sent.asked.fields, backend })
    });
    Explanation {
        request: request(config, sent, seen),
        pools: pools(config, seen),
        pool: pool.map(|pool| pool.name.to_string()),
        middlewares,
        choice,
        to_backend: seen.to_backend.as_deref().map(head_lines).unwrap_or_default(),
        backend_response: match seen.to_backend {
            Some(_) => head_lines(RESPONSE.as_bytes()),
            None => Vec::new(),
        },
        response_middlewares: pool.map(|pool| on_response(pool, &seen.deeds)).unwrap_or_default(),
        to_client: match seen.to_client.is_empty() {
            true => Vec::new(),
            false => head_lines(&seen.to_client),
        },
        local_reply,
    }
}

fn request(config: &Config, sent: &Sent<'_>, seen: &Seen) -> Request {
    let listener = &config.listeners[usize::from(sent.listener)];
    let peer = sent.asked.peer.to_canonical();
    Request {
        method: sent.asked.method.into(),
        scheme: if sent.secure { "https" } else { "http" },
        listener: listener.name.to_string(),
        address: listener.address.to_string(),
        host: sent.host.clone(),
        sent_target: sent.target.into(),
        target: seen.witnesses.target.clone(),
        peer,
        peer_is_trusted: config.trusted_proxies.iter().any(|net| net.contains(&peer)),
        client: seen.witnesses.client.unwrap_or(peer),
    }
}

/// Those that were looked at: up to the one that takes it.
fn pools(config: &Config, seen: &Seen) -> Vec<Pool> {
    let Some(verdicts) = &seen.witnesses.verdicts else { return Vec::new() };
    let looked_at = seen.witnesses.pool.map_or(config.pools.len(), |place| place + 1);
    let pools = config.pools.iter().zip(verdicts).take(looked_at).enumerate();
    pools
        .map(|(place, (pool, verdict))| Pool {
            name: pool.name.to_string(),
            takes: seen.witnesses.pool == Some(place),
            verdict: verdict.clone(),
        })
        .collect()
}

/// All middlewares of the pool, and what each did to the request.
fn on_request(pool: &config::Pool, deeds: &[Deed]) -> Vec<Middleware> {
    let one = |(place, middleware): (usize, &config::Middleware)| {
        let mine = || deeds.iter().filter(|deed| !deed.on_response && deed.stage == place);
        Middleware {
            name: middleware.name(),
            settings: settings::in_short(middleware),
            reached: mine().next().is_some(),
            does: mine().flat_map(|deed| deed.does.clone()).collect(),
        }
    };
    pool.middlewares.iter().enumerate().map(one).collect()
}

/// Those that the response passed, in their order.
fn on_response(pool: &config::Pool, deeds: &[Deed]) -> Vec<Middleware> {
    let seen = deeds.iter().filter(|deed| deed.on_response);
    let one = |deed: &Deed| {
        let middleware = pool.middlewares.get(deed.stage)?;
        Some(Middleware {
            name: middleware.name(),
            settings: settings::in_short(middleware),
            reached: true,
            does: deed.does.clone(),
        })
    };
    seen.filter_map(one).collect()
}
