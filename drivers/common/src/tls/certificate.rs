//! The files of a certificate: its chain and its private key, read and checked against each other.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;
use x509_parser::public_key::PublicKey;
use x509_parser::time::ASN1Time;

use super::pem::{self, Pem};
use super::problem::{Flaw, Part};
use super::subject;

/// Shortest RSA key, in bits: clients refuse shorter ones.
const MIN_RSA_BITS: usize = 2048;
/// Longest RSA key, in bits, that AWS-LC signs with.
const MAX_RSA_BITS: usize = 8192;

/// Labels of private keys that can be read (RFC 7468 §10, and the older ones of OpenSSL).
const KEYS: &[&str] = &["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"];
const ENCRYPTED_KEY: &str = "ENCRYPTED PRIVATE KEY";

const RSA: &str = "1.2.840.113549.1.1.1";
const EC: &str = "1.2.840.10045.2.1";
const ED25519: &str = "1.3.101.112";
/// P-256, P-384 and P-521.
const CURVES: &[&str] = &["1.2.840.10045.3.1.7", "1.3.132.0.34", "1.3.132.0.35"];
const KINDS: &str = "use RSA with 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, or Ed25519";

/// Whose certificate it is: the words of messages.
struct Holder {
    /// The key of the configuration that names the certificate's file.
    certificate_path: &'static str,
    /// The key that names the private key's file.
    private_key_path: &'static str,
    /// The holder.
    who: &'static str,
    /// Those that the certificate is shown to.
    others: &'static str,
}

const SERVER: Holder = Holder {
    certificate_path: "certificate_path",
    private_key_path: "private_key_path",
    who: "server",
    others: "clients",
};
const CLIENT: Holder = Holder {
    certificate_path: "client_certificate",
    private_key_path: "client_key",
    who: "client",
    others: "backends",
};

impl Holder {
    fn swapped(&self) -> String {
        format!("are `{}` and `{}` swapped?", self.certificate_path, self.private_key_path)
    }

    fn order(&self) -> String {
        format!("the {}'s own certificate comes first, then the one that signed it, and so on", self.who)
    }
}

/// A certificate that can be served.
pub(super) struct LoadedCertificate {
    /// The chain in the order of the file, and its key.
    pub(super) key: Arc<CertifiedKey>,
    /// The DNS names that it is for, see [`Certificate::sans`](ruststrom_core::config::Certificate::sans).
    pub(super) sans: Vec<Box<str>>,
}

/// When a certificate ends, in seconds since 1970.
pub(super) fn end(key: &CertifiedKey) -> Option<i64> {
    let (_, parsed) = parse_x509_certificate(key.cert.first()?).ok()?;
    Some(parsed.validity().not_after.timestamp())
}

/// Reads the two files of the certificate for `name`, and appends what is wrong with them. `now` is in
/// seconds since 1970. `None` after an error.
pub(super) fn load(
    name: &str,
    (certificate_path, private_key_path): (&Path, &Path),
    now: i64,
    provider: &CryptoProvider,
    flaws: &mut Vec<Flaw>,
) -> Option<LoadedCertificate> {
    let chain = flaw_of(read_chain(certificate_path, &SERVER), flaws);
    let key = flaw_of(read_key(private_key_path, &SERVER, provider), flaws);
    // What is wrong with the certificate itself is said even if there is no key.
    let (file, chain) = chain?;
    let parsed = flaw_of(parse(&file, &chain), flaws)?;
    flaw_of(check_kind(&file, &parsed[0], &SERVER), flaws)?;
    let sans = flaw_of(sans(&file, &parsed[0]), flaws)?;
    let (key_file, key) = key?;
    flaw_of(check_key(&file, &parsed, (&key_file, &*key), &SERVER), flaws)?;
    flaw_of(check_order(&file, &parsed, &SERVER), flaws)?;
    warn_of_dates(&file, &parsed, now, &SERVER, flaws);
    warn_of_names(&file, &parsed[0], name, &sans, flaws);
    let key = flaw_of(join((&file, chain), (&key_file, key)), flaws)?;
    Some(LoadedCertificate { key, sans })
}

/// Reads the two files of a certificate that is shown to servers, and appends what is wrong with them, as
/// [`load`] does.
pub(super) fn load_of_client(
    (certificate_path, private_key_path): (&Path, &Path),
    now: i64,
    provider: &CryptoProvider,
    flaws: &mut Vec<Flaw>,
) -> Option<Arc<CertifiedKey>> {
    let chain = flaw_of(read_chain(certificate_path, &CLIENT), flaws);
    let key = flaw_of(read_key(private_key_path, &CLIENT, provider), flaws);
    let (file, chain) = chain?;
    let parsed = flaw_of(parse(&file, &chain), flaws)?;
    flaw_of(check_kind(&file, &parsed[0], &CLIENT), flaws)?;
    let (key_file, key) = key?;
    flaw_of(check_key(&file, &parsed, (&key_file, &*key), &CLIENT), flaws)?;
    flaw_of(check_order(&file, &parsed, &CLIENT), flaws)?;
    warn_of_dates(&file, &parsed, now, &CLIENT, flaws);
    if let Ok(Some(usage)) = parsed[0].extended_key_usage()
        && !usage.value.client_auth
        && !usage.value.any
    {
        let message = format!("the certificate {file} is not for clients: its extended key usage says so");
        let help = "backends refuse it: make one with clientAuth";
        flaws.push(Flaw::warning(Part::CertificatePath, message, help));
    }
    flaw_of(join((&file, chain), (&key_file, key)), flaws)
}

/// A chain and its key.
fn join(
    (file, chain): (&str, Vec<Vec<u8>>),
    (key_file, key): (&str, Arc<dyn SigningKey>),
) -> Result<Arc<CertifiedKey>, Flaw> {
    let chain = chain.into_iter().map(CertificateDer::from).collect();
    let key = CertifiedKey::new(chain, key);
    match key.keys_match() {
        Ok(()) => Ok(Arc::new(key)),
        // A kind of key that does not tell its public half counts as wrong too.
        Err(error) => {
            let message = format!("the certificate {file} cannot be used with {key_file}: {error}");
            Err(Flaw::error(Part::CertificatePath, message, "make a new certificate of version 3"))
        }
    }
}

fn flaw_of<T>(result: Result<T, Flaw>, flaws: &mut Vec<Flaw>) -> Option<T> {
    result.map_err(|flaw| flaws.push(flaw)).ok()
}

/// The name of a file, and the certificates in it: at least one.
fn read_chain(path: &Path, holder: &Holder) -> Result<(String, Vec<Vec<u8>>), Flaw> {
    const PART: Part = Part::CertificatePath;
    let pem = Pem::read(path, PART, "certificate")?;
    let chain = pem.certificates(PART)?;
    if !chain.is_empty() {
        return Ok((pem.name, chain));
    }
    let name = &pem.name;
    let (message, help) = if pem.sections().any(|(label, _)| label.ends_with("PRIVATE KEY")) {
        (format!("there is no certificate in {name}, but a private key"), holder.swapped())
    } else if pem.sections().any(|(label, _)| label.ends_with("CERTIFICATE REQUEST")) {
        (
            format!("there is no certificate in {name}, but a request for one"),
            "give the file that the CA made of the request".into(),
        )
    } else {
        (
            format!("there is no certificate in {name}, but {}", pem.content()),
            "give a file with -----BEGIN CERTIFICATE-----".into(),
        )
    };
    Err(Flaw::error(PART, message, help))
}

/// The name of a file, and the private key in it.
fn read_key(
    path: &Path,
    holder: &Holder,
    provider: &CryptoProvider,
) -> Result<(String, Arc<dyn SigningKey>), Flaw> {
    const PART: Part = Part::PrivateKeyPath;
    let pem = Pem::read(path, PART, "private key")?;
    let name = &pem.name;
    let error = |message: String, help: &str| Err(Flaw::error(PART, message, help));
    // Headers of RFC 1421 say that a key in one of the older forms is encrypted.
    let is_encrypted = |label: &str, text: &[u8]| {
        label == ENCRYPTED_KEY
            || KEYS.contains(&label) && text.windows(10).any(|w| w.eq_ignore_ascii_case(b"Proc-Type:"))
    };
    if pem.sections().any(|(label, text)| is_encrypted(label, text)) {
        let message = format!(
            "the private key {name} is encrypted, and a server that starts by itself has no passphrase"
        );
        return error(message, &format!("decrypt it: openssl pkey -in {name} -out {name}.decrypted"));
    }
    let keys: Vec<&[u8]> =
        pem.sections().filter(|(label, _)| KEYS.contains(label)).map(|(_, text)| text).collect();
    let text = match keys.as_slice() {
        [text] => *text,
        [] if pem.sections().any(|(label, _)| label == pem::CERTIFICATE) => {
            return error(format!("there is no private key in {name}, but a certificate"), &holder.swapped());
        }
        [] => {
            let message = format!("there is no private key in {name}, but {}", pem.content());
            return error(message, "give a file with -----BEGIN PRIVATE KEY-----");
        }
        keys => {
            let message = format!("there are {} private keys in {name}", keys.len());
            return error(message, "give a file with the certificate's own key only");
        }
    };
    let der = match PrivateKeyDer::from_pem_slice(text) {
        Ok(der) => der,
        Err(e) => {
            let message = format!("the private key {name} is damaged: {}", pem::explain(&e));
            return error(message, "copy the file again");
        }
    };
    match provider.key_provider.load_private_key(der) {
        Ok(key) => Ok((pem.name, key)),
        Err(_) => error(format!("the private key {name} is damaged or of a kind that is not served"), KINDS),
    }
}

fn parse<'c>(file: &str, chain: &'c [Vec<u8>]) -> Result<Vec<X509Certificate<'c>>, Flaw> {
    let mut parsed = Vec::with_capacity(chain.len());
    for (number, der) in (1..).zip(chain) {
        match parse_x509_certificate(der) {
            Ok(([], certificate)) => parsed.push(certificate),
            Ok(_) | Err(_) => {
                let message = format!("certificate {number} in {file} is damaged: it is not X.509");
                return Err(Flaw::error(Part::CertificatePath, message, "copy the file again"));
            }
        }
    }
    Ok(parsed)
}

/// Whether clients accept the certificate's kind of key, and it can be served.
fn check_kind(file: &str, certificate: &X509Certificate<'_>, holder: &Holder) -> Result<(), Flaw> {
    let key = certificate.public_key();
    let problem = match &*key.algorithm.algorithm.to_id_string() {
        RSA => match key.parsed() {
            Ok(PublicKey::RSA(key)) => match bits(key.modulus) {
                bits @ ..MIN_RSA_BITS => {
                    Some(format!("an RSA key of {bits} bits, which {} refuse as weak", holder.others))
                }
                bits if bits > MAX_RSA_BITS => Some(format!("an RSA key of {bits} bits")),
                _ => None,
            },
            _ => Some("a damaged RSA key".into()),
        },
        EC => {
            let curve = key.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
            match curve.map(|c| c.to_id_string()) {
                Some(curve) if CURVES.contains(&&*curve) => None,
                Some(curve) => Some(format!("an ECDSA key on the curve {curve}")),
                None => Some("an ECDSA key on a curve without a name".into()),
            }
        }
        ED25519 => None,
        other => Some(format!("a key of the kind {other}")),
    };
    match problem {
        None => Ok(()),
        Some(has) => {
            let message = format!("the certificate {file} has {has}");
            Err(Flaw::error(Part::CertificatePath, message, KINDS))
        }
    }
}

/// The length of a number.
fn bits(number: &[u8]) -> usize {
    let digits = &number[number.iter().take_while(|&&b| b == 0).count()..];
    digits.first().map_or(0, |first| digits.len() * 8 - first.leading_zeros() as usize)
}

/// The DNS names of a certificate.
fn sans(file: &str, certificate: &X509Certificate<'_>) -> Result<Vec<Box<str>>, Flaw> {
    let Ok(extension) = certificate.subject_alternative_name() else {
        let message = format!("the names of the certificate {file} are damaged");
        return Err(Flaw::error(Part::CertificatePath, message, "make a new certificate"));
    };
    let mut names: Vec<Box<str>> = Vec::new();
    for name in extension.iter().flat_map(|e| &e.value.general_names) {
        if let GeneralName::DNSName(name) = name
            && let Some(name) = dns_name(name)
            && !names.contains(&name)
        {
            names.push(name);
        }
    }
    Ok(names)
}

/// A name in lower case and without a final dot. `None` if no client would accept it: a wildcard stands for
/// the whole of the first label (RFC 6125 §6.4.3).
fn dns_name(name: &str) -> Option<Box<str>> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let host = name.strip_prefix("*.").unwrap_or(name);
    let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let fits = !host.is_empty() && name.len() <= 253 && host.bytes().all(valid);
    fits.then(|| name.to_ascii_lowercase().into())
}

/// Whether one of `sans` covers `name`, which may be a wildcard itself.
fn covers(sans: &[Box<str>], name: &str) -> bool {
    let wildcard = name.split_once('.').map(|(_, parent)| parent);
    sans.iter()
        .any(|san| **san == *name || san.strip_prefix("*.").is_some_and(|parent| Some(parent) == wildcard))
}

/// Whether the key belongs to the first certificate.
fn check_key(
    file: &str,
    chain: &[X509Certificate<'_>],
    (key_file, key): (&str, &dyn SigningKey),
    holder: &Holder,
) -> Result<(), Flaw> {
    let Some(public) = key.public_key() else { return Ok(()) };
    let of_key = |c: &X509Certificate<'_>| c.public_key().raw == &*public;
    match chain.iter().position(of_key) {
        Some(0) => Ok(()),
        Some(place) => {
            let message = format!(
                "the chain in {file} is in the wrong order: the {}'s own certificate is number {}",
                holder.who,
                place + 1
            );
            Err(Flaw::error(Part::CertificatePath, message, holder.order()))
        }
        None => {
            let message = format!(
                "the private key {key_file} is not that of the certificate {file}, but of another one"
            );
            let help = format!(
                "compare: openssl pkey -in {key_file} -pubout; openssl x509 -in {file} -noout -pubkey"
            );
            Err(Flaw::error(Part::PrivateKeyPath, message, help))
        }
    }
}

/// Whether each certificate is followed by the one of its issuer.
fn check_order(file: &str, chain: &[X509Certificate<'_>], holder: &Holder) -> Result<(), Flaw> {
    for (number, pair) in (1..).zip(chain.windows(2)) {
        let (issuer, next) = (pair[0].issuer(), pair[1].subject());
        if issuer.as_raw() != next.as_raw() {
            let (issuer, next) = (subject::line(issuer), subject::line(next));
            let message = format!(
                "the chain in {file} is in the wrong order: certificate {number} was issued by \"{issuer}\", but \"{next}\" follows"
            );
            return Err(Flaw::error(Part::CertificatePath, message, holder.order()));
        }
    }
    Ok(())
}

fn warn_of_dates(
    file: &str,
    chain: &[X509Certificate<'_>],
    now: i64,
    holder: &Holder,
    flaws: &mut Vec<Flaw>,
) {
    let others = holder.others;
    for (number, certificate) in (1..).zip(chain) {
        let (start, end) = (certificate.validity().not_before, certificate.validity().not_after);
        let what = match number {
            1 => format!("the certificate {file}"),
            _ => format!("certificate {number} in {file}"),
        };
        let (message, help) = if end.timestamp() < now {
            (format!("{what} expired on {}", date(end)), format!("{others} refuse it: renew it"))
        } else if start.timestamp() > now {
            let message = format!("{what} is not valid before {}", date(start));
            (message, format!("{others} refuse it until then: is the clock of this machine right?"))
        } else {
            continue;
        };
        flaws.push(Flaw::warning(Part::CertificatePath, message, help));
    }
}

fn warn_of_names(
    file: &str,
    certificate: &X509Certificate<'_>,
    name: &str,
    sans: &[Box<str>],
    flaws: &mut Vec<Flaw>,
) {
    const SHOWN: usize = 5;
    let mut warn = |message: String, help: &str| {
        flaws.push(Flaw::warning(Part::CertificatePath, message, help));
    };
    let names = certificate.subject_alternative_name().ok().flatten();
    if names.is_none_or(|e| e.value.general_names.is_empty()) {
        let message = format!("the certificate {file} has no subject alternative name");
        warn(message, "clients refuse it, whatever its common name: make one with the name in it");
    } else if sans.is_empty() {
        warn(format!("the certificate {file} is for no DNS name"), "clients refuse it for this name");
    } else if !covers(sans, name) {
        let mut shown = sans.iter().take(SHOWN).map(|s| &**s).collect::<Vec<_>>().join(", ");
        if sans.len() > SHOWN {
            shown.push_str(", …");
        }
        let message = format!("the certificate {file} is not for \"{name}\", but for {shown}");
        warn(message, "clients refuse it for this name: give the certificate that belongs to it");
    }
    if let Ok(Some(usage)) = certificate.extended_key_usage()
        && !usage.value.server_auth
        && !usage.value.any
    {
        let message = format!("the certificate {file} is not for servers: its extended key usage says so");
        warn(message, "clients refuse it: make one with serverAuth");
    }
}

/// A date as people write it, in UTC.
pub(super) fn date(time: ASN1Time) -> String {
    let t = time.to_datetime();
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02} UTC",
        t.year(),
        u8::from(t.month()),
        t.day(),
        t.hour(),
        t.minute(),
        t.second()
    )
}

#[cfg(test)]
mod tests;
