//! An explanation as text for people.

use std::fmt;

use super::{BackendChoice, Explanation, How, Middleware, Pool};
use crate::route::TermVerdict;

/// The width of the column of a matcher's terms.
const TERM_WIDTH: usize = 44;

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_request(f)?;
        if !self.pools.is_empty() {
            f.write_str("\npools\n")?;
            self.pools.iter().try_for_each(|pool| write_pool(f, pool))?;
        }
        if !self.middlewares.is_empty() {
            writeln!(f, "\nmiddlewares of {}", self.pool.as_deref().unwrap_or_default())?;
            write_middlewares(f, &self.middlewares)?;
        }
        if let Some(choice) = &self.choice {
            write_choice(f, choice)?;
        }
        write_head(f, "the backend gets", &self.to_backend)?;
        write_head(f, "taken to be its response, with content", &self.backend_response)?;
        if !self.response_middlewares.is_empty() {
            f.write_str("\nmiddlewares on the way back\n")?;
            write_middlewares(f, &self.response_middlewares)?;
        }
        if let Some(reply) = &self.local_reply {
            f.write_str("\nno backend is asked: ")?;
            match reply.status {
                0 => f.write_str("no response")?,
                status => write!(f, "{status}")?,
            }
            if let Some(cause) = reply.cause {
                write!(f, " {cause}")?;
            }
            writeln!(f, ". {}", reply.why)?;
        }
        write_head(f, "the client gets", &self.to_client)
    }
}

impl Explanation {
    fn write_request(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let request = &self.request;
        writeln!(f, "request")?;
        writeln!(f, "  {} {}, host \"{}\"", request.method, request.sent_target, request.host)?;
        match &request.target {
            Some(target) if *target != request.sent_target => writeln!(f, "  normalised: {target}")?,
            _ => {}
        }
        writeln!(f, "  by {} on listener \"{}\" ({})", request.scheme, request.listener, request.address)?;
        match request.peer_is_trusted {
            false => writeln!(f, "  from {}", request.client),
            true if request.client == request.peer => {
                writeln!(f, "  from {}, one of trusted_proxies, which speaks for nobody else", request.peer)
            }
            true => writeln!(
                f,
                "  from {}, for whom {} speaks, one of trusted_proxies",
                request.client, request.peer
            ),
        }
    }
}

fn write_pool(f: &mut fmt::Formatter<'_>, pool: &Pool) -> fmt::Result {
    let verdict = &pool.verdict;
    write!(f, "  {}: ", pool.name)?;
    match (pool.takes, &verdict.matcher) {
        (true, None) => return f.write_str("takes the request, as it takes everything\n"),
        (true, Some(_)) => f.write_str("takes the request\n")?,
        (false, _) => f.write_str("does not take it\n")?,
    }
    if !verdict.scheme {
        f.write_str("    schemes has another one only\n")?;
    }
    if !verdict.listener {
        f.write_str("    listeners does not name the listener\n")?;
    }
    verdict.matcher.as_ref().map_or(Ok(()), |term| write_term(f, term, 4))
}

/// A term and its parts, indented.
fn write_term(f: &mut fmt::Formatter<'_>, term: &TermVerdict, indent: usize) -> fmt::Result {
    let holds = if term.holds { "true " } else { "false" };
    // An operator says nothing that its parts do not say themselves.
    let text = match term.operator {
        Some("&&") => "all of these",
        Some("||") => "any of these",
        Some(_) => "not",
        None => &term.text,
    };
    write!(f, "{:indent$}{holds}  {text}", "")?;
    if let Some(saw) = &term.saw {
        let gap = TERM_WIDTH.saturating_sub(indent + text.chars().count());
        write!(f, "{:gap$}  {saw}", "")?;
    }
    f.write_str("\n")?;
    term.parts.iter().try_for_each(|part| write_term(f, part, indent + 2))
}

fn write_middlewares(f: &mut fmt::Formatter<'_>, all: &[Middleware]) -> fmt::Result {
    for middleware in all {
        match middleware.settings.as_str() {
            "" => writeln!(f, "  {}", middleware.name)?,
            settings => writeln!(f, "  {} ({settings})", middleware.name)?,
        }
        if !middleware.reached {
            f.write_str("    is not reached\n")?;
        }
        middleware.does.iter().try_for_each(|deed| writeln!(f, "    {deed}"))?;
    }
    Ok(())
}

fn write_choice(f: &mut fmt::Formatter<'_>, choice: &BackendChoice) -> fmt::Result {
    writeln!(f, "\nbackend")?;
    let how = match choice.how {
        How::Always => "always, while it is usable",
        How::AtFirst => "at first",
        How::ByChance => "by chance",
    };
    match &choice.backend {
        Some(backend) => writeln!(f, "  {backend} by {}, {how}: {}", choice.strategy, choice.why)?,
        None => writeln!(f, "  none: {}", choice.why)?,
    }
    for candidate in &choice.candidates {
        let backup = if candidate.backup { ", backup" } else { "" };
        let usable = if candidate.usable { "may be chosen" } else { "is not to be chosen now" };
        writeln!(
            f,
            "    {}: weight {}{backup}, health {}, {usable}",
            candidate.backend, candidate.weight, candidate.health
        )?;
    }
    for other in &choice.others {
        match &other.backend {
            Some(backend) => writeln!(f, "  {} would choose {backend}: {}", other.strategy, other.why)?,
            None => writeln!(f, "  {}: {}", other.strategy, other.why)?,
        }
    }
    Ok(())
}

fn write_head(f: &mut fmt::Formatter<'_>, title: &str, lines: &[String]) -> fmt::Result {
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(f, "\n{title}")?;
    lines.iter().try_for_each(|line| writeln!(f, "  {line}"))
}
