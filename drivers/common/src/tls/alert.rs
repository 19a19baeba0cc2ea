//! Alerts (RFC 8446 §6) as logs name them.

use rustls::{AlertDescription, Error};

/// A record with the fatal alert `decode_error`, while nothing is encrypted.
pub(super) const DECODE_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 50];

/// The name in the RFCs.
pub(super) fn name(alert: AlertDescription) -> &'static str {
    match u8::from(alert) {
        0 => "close_notify",
        10 => "unexpected_message",
        20 => "bad_record_mac",
        21 => "decryption_failed",
        22 => "record_overflow",
        30 => "decompression_failure",
        40 => "handshake_failure",
        41 => "no_certificate",
        42 => "bad_certificate",
        43 => "unsupported_certificate",
        44 => "certificate_revoked",
        45 => "certificate_expired",
        46 => "certificate_unknown",
        47 => "illegal_parameter",
        48 => "unknown_ca",
        49 => "access_denied",
        50 => "decode_error",
        51 => "decrypt_error",
        60 => "export_restriction",
        70 => "protocol_version",
        71 => "insufficient_security",
        80 => "internal_error",
        86 => "inappropriate_fallback",
        90 => "user_canceled",
        100 => "no_renegotiation",
        109 => "missing_extension",
        110 => "unsupported_extension",
        111 => "certificate_unobtainable",
        112 => "unrecognized_name",
        113 => "bad_certificate_status_response",
        114 => "bad_certificate_hash_value",
        115 => "unknown_psk_identity",
        116 => "certificate_required",
        120 => "no_application_protocol",
        _ => "of an unknown kind",
    }
}

/// The alert in a record that is not encrypted; `None` if it is another record.
pub(super) fn in_record(record: &[u8]) -> Option<AlertDescription> {
    match *record {
        [21, _, _, 0, 2, _, alert] => Some(alert.into()),
        _ => None,
    }
}

/// The alert that rustls answers this error with, where there is but one that it can be.
pub(super) fn answering(error: &Error) -> Option<AlertDescription> {
    Some(match error {
        Error::InvalidCertificate(error) => error.clone().into(),
        Error::InvalidMessage(error) => (*error).into(),
        Error::NoCertificatesPresented => AlertDescription::CertificateRequired,
        Error::NoApplicationProtocol => AlertDescription::NoApplicationProtocol,
        Error::PeerSentOversizedRecord => AlertDescription::RecordOverflow,
        Error::DecryptError => AlertDescription::BadRecordMac,
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            AlertDescription::UnexpectedMessage
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_alerts() {
        let read = |record: &[u8]| in_record(record).map(name);
        assert_eq!(read(&crate::tls::server::UNRECOGNIZED_NAME), Some("unrecognized_name"));
        assert_eq!(read(&DECODE_ERROR), Some("decode_error"));
        assert_eq!(read(&[21, 3, 3, 0, 2, 2, 250]), Some("of an unknown kind"));
        // Another type, encrypted, cut, none.
        assert_eq!(read(&[22, 3, 3, 0, 2, 2, 50]), None);
        assert_eq!(read(&[21, 3, 3, 0, 19, 2, 50]), None);
        assert_eq!(read(&DECODE_ERROR[..6]), None);
        assert_eq!(read(&[]), None);
    }
}
