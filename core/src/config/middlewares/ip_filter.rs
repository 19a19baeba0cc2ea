//! `IpAllow` and `IpDeny`: ranges of addresses.

use ipnet::IpNet;

use super::super::middleware_settings::Middleware;
use super::super::reader::{self, Section};
use super::super::report::{Report, Value};

pub(super) fn read_allow(value: &Value<'_>, report: &mut Report<'_>) -> Option<Middleware> {
    Some(Middleware::IpAllow { ranges: ranges(value, "`IpAllow`", report)? })
}

pub(super) fn read_deny(value: &Value<'_>, report: &mut Report<'_>) -> Option<Middleware> {
    Some(Middleware::IpDeny { ranges: ranges(value, "`IpDeny`", report)? })
}

fn ranges(value: &Value<'_>, what: &'static str, report: &mut Report<'_>) -> Option<Vec<IpNet>> {
    let section = Section::new(value, what, &["ranges"], report)?;
    let ranges = section.required("ranges", "[\"10.0.0.0/8\"]", report)?;
    if ranges.get_ref().as_array().is_some_and(|list| list.is_empty()) {
        let error = report.error(ranges.span(), format!("{what} needs a range at least"));
        error.help = Some("for example \"10.0.0.0/8\" or \"192.0.2.7\"".into());
        return None;
    }
    let found = reader::networks(ranges, "`ranges`", report);
    (!found.is_empty()).then_some(found)
}
