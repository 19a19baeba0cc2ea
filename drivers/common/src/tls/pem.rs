//! One PEM file (RFC 7468), read within bounds and cut into its sections.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use rustls::pki_types::pem::{self, PemObject};
use x509_parser::parse_x509_certificate;

use super::problem::{Flaw, Part};

/// Longest file; nothing more is read of a longer one.
pub(super) const MAX_BYTES: u64 = 1 << 20;

/// The label of a certificate.
pub(super) const CERTIFICATE: &str = "CERTIFICATE";

const BEGIN: &[u8] = b"-----BEGIN ";

/// A file with at least one section.
pub(super) struct Pem {
    /// The file as messages name it.
    pub(super) name: String,
    bytes: Vec<u8>,
    /// Label, and where its section is.
    sections: Vec<(String, std::ops::Range<usize>)>,
}

impl Pem {
    /// Reads a file; `part` is the value that names it, `what` is what it should hold, such as "certificate".
    ///
    /// # Errors
    ///
    /// The file can't be read, is too long, or has no PEM in it.
    pub(super) fn read(path: &Path, part: Part, what: &str) -> Result<Self, Flaw> {
        let name = path.display().to_string();
        let bytes = read(path).map_err(|(reason, help)| {
            Flaw::error(part, format!("cannot read the {what} {name}: {reason}"), help)
        })?;
        let sections = sections(&bytes);
        if sections.is_empty() {
            let (reason, help) = without_sections(&bytes, &name);
            return Err(Flaw::error(part, format!("cannot read the {what} {name}: {reason}"), help));
        }
        Ok(Self { name, bytes, sections })
    }

    /// Label and text of each section.
    pub(super) fn sections(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.sections.iter().map(|(label, range)| (&**label, &self.bytes[range.clone()]))
    }

    /// What the file has in it, for messages: `a CERTIFICATE REQUEST and a PRIVATE KEY`.
    pub(super) fn content(&self) -> String {
        let mut labels: Vec<&str> = Vec::new();
        for (label, _) in &self.sections {
            if !labels.contains(&&**label) && labels.len() < 3 {
                labels.push(label);
            }
        }
        labels.iter().map(|label| format!("a {label}")).collect::<Vec<_>>().join(" and ")
    }

    /// Every certificate of the file in DER, in its order.
    ///
    /// # Errors
    ///
    /// One of them is damaged.
    pub(super) fn certificates(&self, part: Part) -> Result<Vec<Vec<u8>>, Flaw> {
        let mut found = Vec::new();
        for (number, (_, text)) in (1..).zip(self.sections().filter(|(label, _)| *label == CERTIFICATE)) {
            let der = rustls::pki_types::CertificateDer::from_pem_slice(text).map_err(|error| {
                let message =
                    format!("certificate {number} in {} is damaged: {}", self.name, explain(&error));
                Flaw::error(part, message, "copy the file again")
            })?;
            found.push(der.to_vec());
        }
        Ok(found)
    }
}

/// Why a section can't be decoded.
pub(super) fn explain(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "its -----END line is missing".into(),
        pem::Error::IllegalSectionStart { .. } => "its -----BEGIN line is not whole".into(),
        pem::Error::Base64Decode(_) => "it is not base64".into(),
        other => other.to_string(),
    }
}

/// The content of a file; otherwise the reason and what to do.
fn read(path: &Path) -> Result<Vec<u8>, (String, &'static str)> {
    let cannot = |e: io::Error| {
        let help = match e.kind() {
            io::ErrorKind::NotFound => {
                "put the file there or correct the path; paths start at the configuration's folder"
            }
            io::ErrorKind::PermissionDenied => {
                "let the user that starts the program read it; files are read before it becomes `user`"
            }
            _ => "give the path of a readable file",
        };
        (e.to_string(), help)
    };
    // Opening a pipe that nobody writes to would wait for ever.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    if metadata.is_dir() {
        return Err(("it is a folder".into(), "give the path of a file in it"));
    }
    if !metadata.is_file() {
        return Err(("it is not a regular file".into(), "give the path of a file in PEM format"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.is_empty() {
        return Err(("it is empty".into(), "write the file again"));
    }
    if bytes.len() as u64 > MAX_BYTES {
        return Err((
            format!("it has more than {MAX_BYTES} bytes"),
            "give a file with one chain or key only",
        ));
    }
    Ok(bytes)
}

/// The label and the place of every section: from its `-----BEGIN` line to the next one's, or to the end.
fn sections(bytes: &[u8]) -> Vec<(String, std::ops::Range<usize>)> {
    let mut found: Vec<(String, std::ops::Range<usize>)> = Vec::new();
    // Editors may put a byte order mark first.
    let mut at = if bytes.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    for line in bytes[at..].split_inclusive(|&b| matches!(b, b'\n' | b'\r')) {
        if let Some(label) = line.strip_prefix(BEGIN) {
            let end = label.iter().position(|b| matches!(b, b'-' | b'\n' | b'\r')).unwrap_or(label.len());
            // What is not a usual label is of no use in a message either.
            let label = String::from_utf8_lossy(&label[..end.min(60)]).trim().to_owned();
            found.push((label, at..bytes.len()));
        }
        at += line.len();
        if let [.., (_, previous), (_, last)] = found.as_mut_slice() {
            previous.end = last.start;
        }
    }
    found
}

/// What a file without PEM may be, and what to do with it.
fn without_sections(bytes: &[u8], name: &str) -> (String, String) {
    if parse_x509_certificate(bytes).is_ok() {
        let help = format!("convert it: openssl x509 -inform DER -in {name} -out {name}.pem");
        return ("it is a certificate in DER, not in PEM".into(), help);
    }
    if bytes.starts_with(b"\x30") {
        let help = "convert it: `openssl pkey -inform DER` for a key, `openssl pkcs12 -nodes` for PKCS#12";
        return ("it is binary, not PEM".into(), help.into());
    }
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return ("it is UTF-16, not PEM".into(), "save it as ASCII or UTF-8".into());
    }
    let help = "a PEM file has a line like -----BEGIN CERTIFICATE----- or -----BEGIN PRIVATE KEY-----";
    ("there is no PEM in it".into(), help.into())
}
