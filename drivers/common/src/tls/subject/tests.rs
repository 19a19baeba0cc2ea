use rcgen::{DistinguishedName, DnType, DnValue, KeyPair};

use super::*;
use crate::tls::test_files::{Folder, params};

const DC: &[u64] = &[0, 9, 2342, 19_200_300, 100, 1, 25];
const UID: &[u64] = &[0, 9, 2342, 19_200_300, 100, 1, 1];
const EMAIL: &[u64] = &[1, 2, 840, 113_549, 1, 9, 1];

/// The subject of a certificate that is made of these attributes, the least specific first.
fn subject(attributes: Vec<(DnType, DnValue)>) -> String {
    let mut params = params(&["a.example"]);
    params.distinguished_name = DistinguishedName::new();
    for (kind, value) in attributes {
        params.distinguished_name.push(kind, value);
    }
    let certificate = params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate");
    of_certificate(certificate.der()).expect("a certificate")
}

fn common_name(text: &str) -> String {
    subject(vec![(DnType::CommonName, DnValue::Utf8String(text.into()))])
}

fn oid(arcs: &[u64]) -> DnType {
    DnType::CustomDnType(arcs.to_vec())
}

#[test]
fn attributes_have_the_names_of_the_standard() {
    let text = |t: &str| DnValue::Utf8String(t.into());
    let found = subject(vec![
        (oid(DC), text("com")),
        (DnType::CountryName, DnValue::PrintableString("DE".try_into().expect("letters"))),
        (DnType::StateOrProvinceName, text("S")),
        (DnType::LocalityName, text("L")),
        (oid(&[2, 5, 4, 9]), text("Street 1")),
        (DnType::OrganizationName, text("Example")),
        (DnType::OrganizationalUnitName, text("people")),
        (oid(&[2, 5, 4, 5]), text("17")),
        (oid(UID), text("alice")),
        (oid(EMAIL), DnValue::Ia5String("alice@example.com".try_into().expect("ASCII"))),
        (DnType::CommonName, text("Alice")),
    ]);
    assert_eq!(
        found,
        "CN=Alice,emailAddress=alice@example.com,UID=alice,serialNumber=17,OU=people,O=Example,STREET=Street 1,L=L,ST=S,C=DE,DC=com"
    );
    assert_eq!(subject(vec![]), "");
    assert_eq!(of_certificate(&CertificateDer::from_slice(b"\x30\x00")), None);
}

#[test]
fn what_would_be_taken_for_something_else_is_escaped() {
    for (text, expected) in [
        ("alice", "CN=alice"),
        ("", "CN="),
        ("a,OU=admins", "CN=a\\,OU=admins"),
        ("a+b;c<d>e\"f\\g=h", "CN=a\\+b\\;c\\<d\\>e\\\"f\\\\g=h"),
        ("#1 #2", "CN=\\#1 #2"),
        (" a b ", "CN=\\ a b\\ "),
        (" ", "CN=\\ "),
        ("  ", "CN=\\ \\ "),
        ("a\r\nX-Admin: 1", "CN=a\\0D\\0AX-Admin: 1"),
        ("\0\t\u{1b}[2J\u{7f}", "CN=\\00\\09\\1B[2J\\7F"),
        ("Jörg", "CN=J\\C3\\B6rg"),
        ("\u{202e}x\u{1f600}", "CN=\\E2\\80\\AEx\\F0\\9F\\98\\80"),
    ] {
        assert_eq!(common_name(text), expected, "{text:?}");
    }
}

#[test]
fn other_encodings_of_text() {
    let bmp = DnValue::BmpString("Jö,".try_into().expect("two bytes each"));
    assert_eq!(subject(vec![(DnType::CommonName, bmp)]), "CN=J\\C3\\B6\\,");
    let universal = DnValue::UniversalString("a😀".try_into().expect("four bytes each"));
    assert_eq!(subject(vec![(DnType::CommonName, universal)]), "CN=a\\F0\\9F\\98\\80");
    let teletex = DnValue::TeletexString("ab".try_into().expect("one byte each"));
    assert_eq!(subject(vec![(DnType::CommonName, teletex)]), "CN=ab");
}

#[test]
fn attributes_without_a_name_are_in_hexadecimal() {
    let value = DnValue::Utf8String("hi, all".into());
    assert_eq!(subject(vec![(oid(&[1, 2, 3, 4]), value)]), "1.2.3.4=#0c0768692c20616c6c");
}

#[test]
fn several_values_at_one_place() {
    let folder = Folder::new();
    folder.openssl("genpkey -algorithm ED25519 -out a.key");
    folder.openssl("req -x509 -key a.key -multivalue-rdn -subj /O=x/CN=a+UID=b -outform DER -out a.der");
    let der = std::fs::read(folder.path().join("a.der")).expect("a file");
    let found = of_certificate(&CertificateDer::from(der)).expect("a certificate");
    // Their order is that of DER, by their bytes.
    assert_eq!(found, "CN=a+UID=b,O=x");
}

#[test]
fn a_line_has_a_longest_length() {
    // "CN=" is three bytes of 256.
    let fits = "x".repeat(253);
    assert_eq!(common_name(&fits), format!("CN={fits}"));
    assert_eq!(common_name(&"x".repeat(254)), format!("CN={}...", "x".repeat(250)));
    assert_eq!(common_name(&"x".repeat(60_000)), format!("CN={}...", "x".repeat(250)));
    // What is escaped is never cut within: at each offset there is a whole number of escapes.
    for lead in 0..12 {
        let found = common_name(&("x".repeat(lead) + &"ö".repeat(200)));
        let rest = found.strip_prefix(&format!("CN={}", "x".repeat(lead))).expect("the start");
        let escapes = rest.strip_suffix("...").expect("it is cut");
        assert!(found.len() <= MAX_BYTES && found.len() > MAX_BYTES - 9, "{}", found.len());
        assert_eq!(escapes, "\\C3\\B6".repeat(escapes.len() / 6), "{lead}");
    }
    let hex = subject(vec![(oid(&[1, 2, 3, 4]), DnValue::Utf8String("z".repeat(70_000)))]);
    assert!(
        hex.len() <= MAX_BYTES && hex.starts_with("1.2.3.4=#0c83011170") && hex.ends_with("7a..."),
        "{hex}"
    );
    let long = subject(vec![(oid(&[1, 2, 3, 4]), DnValue::Utf8String("z".repeat(200)))]);
    assert!(long.starts_with("1.2.3.4=#0c81c87a7a") && long.ends_with("..."), "{long}");
    let longer = subject(vec![(oid(&[1, 2, 3, 4]), DnValue::Utf8String("z".repeat(300)))]);
    assert!(longer.starts_with("1.2.3.4=#0c82012c7a7a"), "{longer}");
    // An attribute that no longer fits leaves the line as it is.
    let two = subject(vec![
        (DnType::OrganizationName, DnValue::Utf8String("y".repeat(100))),
        (DnType::CommonName, DnValue::Utf8String("x".repeat(251))),
    ]);
    assert_eq!(two, format!("CN={}...", "x".repeat(250)));
}
