//! The files that a configuration names and that are read with it.

use std::path::{Path, PathBuf};

use ruststrom_core::config::{CertificateSource, Parsed};

/// Their paths; those that several places name may come more than once. `folder` is the configuration's. Of
/// one with errors, those that are known.
pub(crate) fn of(parsed: &Parsed, folder: &Path) -> Vec<PathBuf> {
    let mut names: Vec<&str> = parsed.places.middleware_files.iter().map(|file| &*file.path).collect();
    if let Some(config) = &parsed.config {
        for certificate in &config.certificates {
            match &certificate.source {
                CertificateSource::Local { certificate_path, private_key_path } => {
                    names.extend([&**certificate_path, &**private_key_path]);
                }
                CertificateSource::Acme(acme) => names.extend(acme.ca_file.as_deref()),
            }
            names.extend(certificate.client_ca.as_deref());
        }
        // The backends of a pool have the same.
        for tls in config.pools.iter().filter_map(|pool| pool.backends.iter().find_map(|b| b.protocol.tls()))
        {
            names.extend(tls.settings.ca_file.as_deref());
            names.extend(tls.settings.client.iter().flat_map(|files| [&*files.certificate, &*files.key]));
        }
    }
    names.into_iter().map(|name| folder.join(name)).collect()
}
