//! From OpenMetrics 1.0, which is what the encoder writes, to the text format 0.0.4 of Prometheus. Samples
//! are the same in both; the format 0.0.4 has the name of a counter's samples in `HELP` and `TYPE`, and
//! neither `UNIT` nor `EOF`.

/// Media type of the text format.
pub const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Media type of OpenMetrics.
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The same page in the text format.
#[must_use]
pub fn from_open_metrics(page: &str) -> String {
    let mut text = String::with_capacity(page.len() + page.len() / 16);
    let mut help = None;
    for line in page.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            text.extend([line, "\n"]);
            continue;
        };
        if comment.starts_with("HELP ") {
            help = comment.splitn(3, ' ').nth(2);
        } else if let Some((name, kind)) = comment.strip_prefix("TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some(help) = help.take() {
                text.extend(["# HELP ", name, suffix, " ", help, "\n"]);
            }
            text.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_have_the_names_of_their_samples() {
        let page = "# HELP a_requests All of them: # TYPE is no type.\n# TYPE a_requests counter\n\
                    a_requests_total{pool=\"# HELP x y\"} 3\n\
                    # HELP a_time Time.\n# TYPE a_time histogram\n# UNIT a_time seconds\n\
                    a_time_sum 1.5\na_time_count 2\na_time_bucket{le=\"+Inf\"} 2\n\
                    # HELP a_up Up.\n# TYPE a_up gauge\na_up 1\n# EOF\n";
        let text = "# HELP a_requests_total All of them: # TYPE is no type.\n# TYPE a_requests_total counter\n\
                    a_requests_total{pool=\"# HELP x y\"} 3\n\
                    # HELP a_time Time.\n# TYPE a_time histogram\n\
                    a_time_sum 1.5\na_time_count 2\na_time_bucket{le=\"+Inf\"} 2\n\
                    # HELP a_up Up.\n# TYPE a_up gauge\na_up 1\n";
        assert_eq!(from_open_metrics(page), text);
    }
}
