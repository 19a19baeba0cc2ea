//! Sticky cookies: the backend that a client's cookie names gets its requests while it is usable; a cookie is
//! set when there is none, or another backend than the one that it names was chosen.

use crate::choices::NO_COOKIE;
use crate::coverage::Mark;
use crate::exchanges::ExchangeEntry;
use crate::net::Net;

impl Net {
    /// Label of the backend that the cookie of a request names.
    pub(crate) fn cookie_names(&self, id: u64, pool: &str) -> Option<&'static str> {
        let value = self.ledger.get(id).cookie.as_ref()?;
        let (of, label) = self.choices.cookies.values.get(value)?;
        (*of == pool).then_some(*label)
    }

    /// A cookie of another pool, if there is one.
    pub(crate) fn cookie_of_other_pool(&self, pool: Option<&str>) -> Option<String> {
        let mut others = self.choices.cookies.values.iter().filter(|(_, (of, _))| Some(*of) != pool);
        others.next().map(|(value, _)| value.clone())
    }

    /// A backend's response to this request sets these sticky cookies. Returns the value that the client
    /// keeps.
    pub(crate) fn judge_cookies(
        &mut self,
        entry: &ExchangeEntry,
        set: &[&str],
    ) -> Result<Option<String>, String> {
        let (Some(pool), Some(chosen)) = (entry.pool, entry.chosen) else { return Ok(None) };
        let is_sticky = self.scenario.pools.iter().any(|p| p.name == pool && p.sticky);
        // Over the connection of a client alone nobody is chosen.
        if self.scenario.identities {
            return Ok(None);
        }
        let named = self.cookie_names(entry.id, pool);
        if !is_sticky || named == Some(chosen) {
            if named.is_some() {
                self.mark(Mark::StickyCookie);
            }
            return if set.is_empty() {
                Ok(None)
            } else {
                Err(format!("a cookie that nobody needs: {set:?}"))
            };
        }
        let [cookie] = set else { return Err(format!("not one cookie for {chosen}: {set:?}")) };
        let mut parts: Vec<&str> = cookie.split("; ").collect();
        parts.sort_unstable();
        let (attributes, value) = match parts[..] {
            [http_only, path, value, same_site, secure] => ([http_only, path, same_site, secure], value),
            _ => return Err(format!("the cookie {cookie}")),
        };
        let value = value.strip_prefix("S=").unwrap_or_default();
        if attributes != ["HttpOnly", "Path=/", "SameSite=Lax", "Secure"] || value.len() != NO_COOKIE.len() {
            return Err(format!("the cookie {cookie}"));
        }
        if named.is_some() {
            self.mark(Mark::CookieOfOther);
        }
        let of = (pool, chosen);
        let known = self.choices.cookies.values.entry(value.to_owned()).or_insert(of);
        if *known != of {
            return Err(format!("the cookie {value} of {known:?} for {of:?}"));
        }
        let other = self.choices.cookies.values.iter().find(|(v, known)| **known == of && *v != value);
        if let Some((other, _)) = other {
            return Err(format!("the cookie {value} for {of:?}, which has {other}"));
        }
        Ok(Some(value.to_owned()))
    }
}
