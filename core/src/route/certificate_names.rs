//! Which certificate a host belongs to: whether a connection that was secured with one may carry a request
//! for it.

use super::bare_host;
use super::hosts::Hosts;
use crate::config::Certificate;

/// The names of a configuration's certificates.
#[derive(Debug)]
pub struct CertificateNames {
    /// The certificate of each name, without a final dot.
    exact: Hosts,
    /// The certificate of each `*.` name, under the rest of it.
    wildcard: Hosts,
    /// What each certificate covers besides.
    covered: Hosts,
    covered_wildcard: Hosts,
    default: Option<u16>,
}

impl CertificateNames {
    /// Of the certificates of a configuration; the number of each is its place there.
    #[must_use]
    pub fn new(certificates: &[Certificate]) -> Self {
        let names =
            || (0..).zip(certificates).flat_map(|(place, c)| c.served_names().map(move |name| (name, place)));
        let sans =
            || (0..).zip(certificates).flat_map(|(place, c)| c.sans.iter().map(move |san| (&**san, place)));
        Self {
            exact: exact(names()),
            wildcard: wildcard(names()),
            covered: exact(sans()),
            covered_wildcard: wildcard(sans()),
            default: (0..).zip(certificates).find(|(_, c)| c.default).map(|(place, _)| place),
        }
    }

    /// Whether a connection secured with this certificate may carry a request for `host`, which may have a
    /// port. A host with a certificate of its own is served with that one alone: clients are authenticated
    /// by what it demands of them.
    #[must_use]
    pub fn serves(&self, certificate: u16, host: &[u8]) -> bool {
        let host = bare_host(host);
        let parent = memchr::memchr(b'.', host).map_or(&[][..], |dot| &host[dot + 1..]);
        let owner = self.exact.get(host).first().or_else(|| self.wildcard.get(parent).first());
        match owner {
            Some(owner) => *owner == certificate,
            None => {
                self.default == Some(certificate)
                    || self.covered.get(host).contains(&certificate)
                    || self.covered_wildcard.get(parent).contains(&certificate)
            }
        }
    }
}

fn exact<'a>(names: impl Iterator<Item = (&'a str, u16)>) -> Hosts {
    Hosts::new(names.filter(|(name, _)| !name.starts_with("*.")).map(|(n, p)| (bare(n), p)).collect())
}

fn wildcard<'a>(names: impl Iterator<Item = (&'a str, u16)>) -> Hosts {
    Hosts::new(names.filter_map(|(name, p)| Some((bare(name.strip_prefix("*.")?), p))).collect())
}

fn bare(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn a_host_is_served_with_its_own_certificate_or_one_that_covers_it() {
        let local = "Local = { certificate_path = \"c\", private_key_path = \"k\" }";
        let text = format!(
            "https_address = \"127.0.0.1:443\"\n\
             [certificates.\"a.example\"]\n{local}\ndefault = true\n\
             [certificates.\"*.b.example\"]\n{local}\n\
             [certificates.\"own.b.example\"]\n{local}\n\
             [certificates.\"acme.example\"]\n\
             ACME = {{ email = \"a@b\", persist_dir = \"p\", names = [\"www.acme.example\"] }}\n\
             [[backend_pools]]\naddresses = [\"127.0.0.1:1\"]\n"
        );
        let mut certificates = config::parse(&text).config.expect("a good configuration").certificates;
        certificates[1].sans = ["*.b.example", "also.example", "*.more.example"].map(Into::into).into();
        certificates[2].sans = ["own.b.example", "a.example"].map(Into::into).into();
        let names = CertificateNames::new(&certificates);
        let served = |host: &str| [0, 1, 2, 3].map(|c| names.serves(c, host.as_bytes()));
        for (host, expected) in [
            ("a.example", [true, false, false, false]),
            ("A.Example.:443", [true, false, false, false]),
            ("x.b.example:8443", [false, true, false, false]),
            ("own.b.example", [false, false, true, false]),
            // One label only.
            ("x.own.b.example", [true, false, false, false]),
            ("b.example", [true, false, false, false]),
            ("also.example", [true, true, false, false]),
            ("x.more.example", [true, true, false, false]),
            ("x.y.more.example", [true, false, false, false]),
            ("www.acme.example", [false, false, false, true]),
            ("acme.example", [false, false, false, true]),
            ("x.acme.example", [true, false, false, false]),
            ("192.0.2.1", [true, false, false, false]),
            ("[2001:db8::1]:443", [true, false, false, false]),
            ("", [true, false, false, false]),
        ] {
            assert_eq!(served(host), expected, "{host}");
        }
    }
}
