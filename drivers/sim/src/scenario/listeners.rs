//! Where the proxy listens: on one port at first, on others after a reload.

use super::{MiddlewareSpec, Scenario};
use crate::random::SplitMix64;

/// The ports of the listeners, by kind and in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListenPorts {
    pub(crate) http: Vec<u16>,
    /// None without TLS.
    pub(crate) https: Vec<u16>,
}

impl ListenPorts {
    /// The text of a list of addresses.
    pub(super) fn list(ports: &[u16]) -> String {
        let all: Vec<String> = ports.iter().map(|port| format!("\"192.0.2.1:{port}\"")).collect();
        format!("[{}]", all.join(", "))
    }
}

impl Scenario {
    /// Those of the first configuration.
    pub(crate) fn first_ports(&self) -> ListenPorts {
        ListenPorts { http: vec![80], https: if self.tls.clients > 0 { vec![443] } else { Vec::new() } }
    }

    /// Draws others: some stay, some come, some go, and one may be there for the other kind.
    pub(crate) fn draw_ports(&self, rng: &mut SplitMix64) -> ListenPorts {
        let mut some = |of: &[u16]| {
            let mut chosen: Vec<u16> = of.iter().copied().filter(|_| rng.below(2) == 0).collect();
            if chosen.is_empty() {
                chosen.push(rng.pick(of));
            }
            if rng.below(3) == 0 {
                chosen.reverse();
            }
            chosen
        };
        let http = some(&[80, 8080, 8081]);
        // A redirection names the port.
        let is_redirector = |spec: &MiddlewareSpec| matches!(spec, MiddlewareSpec::HttpsRedirector);
        let redirects = self.chains().flatten().any(is_redirector);
        let https = if self.tls.clients == 0 || redirects {
            self.first_ports().https
        } else {
            let mut https = some(&[443, 8443, 8080]);
            https.retain(|port| !http.contains(port));
            if https.is_empty() { vec![443] } else { https }
        };
        ListenPorts { http, https }
    }
}
