//! What an error of rustls means for a connection to a backend.

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};
use ruststrom_core::TlsFault;

/// The fault to tell the core. That the connection was closed before its handshake was over is no error of
/// rustls: it is [`TlsFault::Closed`].
#[must_use]
pub fn fault_of_tls(error: &Error) -> TlsFault {
    match error {
        Error::InvalidCertificate(error) => fault_of_certificate(error),
        Error::NoCertificatesPresented => TlsFault::BadCertificate,
        Error::UnsupportedNameType => TlsFault::WrongName,
        Error::AlertReceived(alert) => fault_of_alert(*alert),
        // What other protocols begin with is neither the type of a record nor its version.
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => TlsFault::NotTls,
        _ => TlsFault::Protocol,
    }
}

fn fault_of_certificate(error: &CertificateError) -> TlsFault {
    match error {
        CertificateError::UnknownIssuer => TlsFault::UnknownCa,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            TlsFault::WrongName
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsFault::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => TlsFault::NotYetValid,
        _ => TlsFault::BadCertificate,
    }
}

/// An alert of a server about certificates is about the one of its client.
fn fault_of_alert(alert: AlertDescription) -> TlsFault {
    match alert {
        AlertDescription::CertificateRequired
        | AlertDescription::NoCertificate
        | AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied => TlsFault::ClientCertificate,
        _ => TlsFault::Refused,
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{ServerName, UnixTime};
    use rustls::{PeerIncompatible, PeerMisbehaved};

    use super::*;

    #[test]
    fn every_kind_of_error() {
        let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1));
        let expected = ServerName::try_from("a.test").expect("a name");
        let certificates = [
            (CertificateError::UnknownIssuer, TlsFault::UnknownCa),
            (CertificateError::NotValidForName, TlsFault::WrongName),
            (
                CertificateError::NotValidForNameContext { expected, presented: Vec::new() },
                TlsFault::WrongName,
            ),
            (CertificateError::Expired, TlsFault::Expired),
            (CertificateError::ExpiredContext { time, not_after: time }, TlsFault::Expired),
            (CertificateError::NotValidYet, TlsFault::NotYetValid),
            (CertificateError::NotValidYetContext { time, not_before: time }, TlsFault::NotYetValid),
            (CertificateError::BadEncoding, TlsFault::BadCertificate),
            (CertificateError::BadSignature, TlsFault::BadCertificate),
            (CertificateError::InvalidPurpose, TlsFault::BadCertificate),
            (CertificateError::Revoked, TlsFault::BadCertificate),
            (CertificateError::UnhandledCriticalExtension, TlsFault::BadCertificate),
            (CertificateError::ApplicationVerificationFailure, TlsFault::BadCertificate),
        ];
        for (error, fault) in certificates {
            assert_eq!(fault_of_tls(&error.clone().into()), fault, "{error:?}");
        }
        let ours = [
            AlertDescription::CertificateRequired,
            AlertDescription::BadCertificate,
            AlertDescription::UnknownCA,
            AlertDescription::CertificateExpired,
            AlertDescription::AccessDenied,
        ];
        let others = [
            AlertDescription::HandshakeFailure,
            AlertDescription::ProtocolVersion,
            AlertDescription::InsufficientSecurity,
            AlertDescription::UnrecognisedName,
            AlertDescription::NoApplicationProtocol,
            AlertDescription::InternalError,
            AlertDescription::Unknown(200),
        ];
        for (alerts, fault) in [(&ours[..], TlsFault::ClientCertificate), (&others, TlsFault::Refused)] {
            for alert in alerts {
                assert_eq!(fault_of_tls(&Error::AlertReceived(*alert)), fault, "{alert:?}");
            }
        }
        let rest = [
            (Error::InvalidMessage(InvalidMessage::InvalidContentType), TlsFault::NotTls),
            (Error::InvalidMessage(InvalidMessage::UnknownProtocolVersion), TlsFault::NotTls),
            (Error::InvalidMessage(InvalidMessage::MessageTooLarge), TlsFault::Protocol),
            (Error::NoCertificatesPresented, TlsFault::BadCertificate),
            (Error::UnsupportedNameType, TlsFault::WrongName),
            (Error::DecryptError, TlsFault::Protocol),
            (Error::PeerSentOversizedRecord, TlsFault::Protocol),
            (PeerMisbehaved::TooManyEmptyFragments.into(), TlsFault::Protocol),
            (PeerIncompatible::NoCipherSuitesInCommon.into(), TlsFault::Protocol),
            (Error::General("x".into()), TlsFault::Protocol),
        ];
        for (error, fault) in rest {
            assert_eq!(fault_of_tls(&error), fault, "{error:?}");
        }
    }
}
