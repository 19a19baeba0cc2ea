use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};
use ruststrom_core::config::Severity;

use super::*;
use crate::tls::provider::provider;
use crate::tls::test_files::{Ca, Folder, params};

/// 2026-01-01.
const NOW: i64 = 1_767_225_600;

/// Reads `a.crt` and `a.key` for `a.example`; the names of the certificate, and what is wrong.
fn read(folder: &Folder) -> (Option<Vec<Box<str>>>, Vec<Flaw>) {
    let mut flaws = Vec::new();
    let files = (&*folder.path().join("a.crt"), &*folder.path().join("a.key"));
    let loaded = load("a.example", files, NOW, &provider(), &mut flaws);
    let good = flaws.iter().all(|f| f.severity == Severity::Warning);
    assert_eq!(loaded.is_some(), good, "{flaws:?}");
    (loaded.map(|l| l.sans), flaws)
}

/// Severity, part, message and help of each flaw, without the folder.
fn shown(folder: &Folder) -> Vec<String> {
    let (_, flaws) = read(folder);
    let prefix = format!("{}/", folder.path().display());
    let line =
        |f: Flaw| format!("{} {:?}: {}; {}", f.severity, f.part, f.message, f.help).replace(&prefix, "");
    flaws.into_iter().map(line).collect()
}

/// A folder with a good certificate for `a.example`.
fn good(ca: &Ca) -> Folder {
    let folder = Folder::new();
    let made = ca.sign(&["a.example"]);
    folder.write("a.crt", made.certificate);
    folder.write("a.key", made.key);
    folder
}

#[test]
fn every_kind_of_key_in_every_form() {
    let folder = Folder::new();
    // (how openssl makes it, the forms of its key)
    let kinds = [
        ("-algorithm RSA -pkeyopt rsa_keygen_bits:2048", &["pkcs8", "traditional"][..]),
        ("-algorithm EC -pkeyopt ec_paramgen_curve:P-256", &["pkcs8", "traditional"]),
        ("-algorithm EC -pkeyopt ec_paramgen_curve:P-384", &["pkcs8", "traditional"]),
        ("-algorithm EC -pkeyopt ec_paramgen_curve:P-521", &["pkcs8", "traditional"]),
        ("-algorithm ED25519", &["pkcs8"]),
    ];
    for (kind, forms) in kinds {
        folder.openssl(&format!("genpkey {kind} -out made.key"));
        folder.openssl(
            "req -x509 -key made.key -days 36500 -subj /CN=a.example -addext subjectAltName=DNS:a.example -out a.crt",
        );
        for form in forms {
            match *form {
                "pkcs8" => folder.openssl("pkey -in made.key -out a.key"),
                _ => folder.openssl("pkey -in made.key -traditional -out a.key"),
            }
            let label = folder.read("a.key").lines().next().expect("a line").to_owned();
            assert_eq!(label == "-----BEGIN PRIVATE KEY-----", *form == "pkcs8", "{label}");
            let (sans, flaws) = read(&folder);
            let not_yet = flaws.iter().all(|f| f.message.contains("not valid before"));
            assert!(sans.is_some_and(|s| *s == ["a.example".into()]) && not_yet, "{kind} {form}: {flaws:?}");
        }
    }
}

#[test]
fn a_curve_may_stand_before_its_key() {
    let folder = Folder::new();
    folder.openssl("ecparam -name prime256v1 -genkey -out a.key");
    assert!(folder.read("a.key").contains("EC PARAMETERS"));
    folder.openssl(
        "req -x509 -key a.key -days 36500 -subj /CN=x -addext subjectAltName=DNS:a.example -out a.crt",
    );
    assert!(read(&folder).0.is_some());
}

#[test]
fn one_file_may_hold_everything() {
    let ca = Ca::new("root");
    let folder = Folder::new();
    let made = ca.sign(&["a.example"]);
    // A byte order mark, text between the sections and lines that end in CR LF do no harm.
    let text = format!("\u{feff}{}some text\n{}{}", made.key, made.certificate, ca.pem).replace('\n', "\r\n");
    folder.write("a.crt", &text);
    folder.write("a.key", &text);
    assert_eq!(shown(&folder), Vec::<String>::new());
}

#[test]
fn chains_in_the_order_of_the_file() {
    let root = Ca::new("root");
    let middle = root.intermediate("middle");
    let made = middle.sign(&["a.example"]);
    let folder = Folder::new();
    folder.write("a.key", &made.key);
    let (leaf, middle, root) = (&made.certificate, &middle.pem, &root.pem);
    let other = &Ca::new("other").pem;
    let order = "error CertificatePath: the chain in a.crt is in the wrong order: ";
    let cases: [(&[&String], &str); 8] = [
        (&[leaf], ""),
        (&[leaf, middle], ""),
        (&[leaf, middle, root], ""),
        (&[middle, leaf], "the server's own certificate is number 2"),
        (&[root, middle, leaf], "the server's own certificate is number 3"),
        (&[leaf, root, middle], "certificate 1 was issued by \"CN=middle\", but \"CN=root\" follows"),
        (&[leaf, middle, other], "certificate 2 was issued by \"CN=root\", but \"CN=other\" follows"),
        (&[leaf, leaf, middle], "certificate 1 was issued by \"CN=middle\", but \"CN=a.example\" follows"),
    ];
    for (chain, expected) in cases {
        folder.write("a.crt", chain.iter().map(|s| s.as_str()).collect::<String>());
        match (shown(&folder).as_slice(), expected) {
            ([], "") => {}
            ([one], _) if !expected.is_empty() => {
                let help = "the server's own certificate comes first, then the one that signed it, and so on";
                assert_eq!(*one, format!("{order}{expected}; {help}"));
            }
            (found, _) => panic!("{expected:?}: {found:?}"),
        }
    }
}

#[test]
fn files_that_cannot_be_read() {
    let ca = Ca::new("root");
    let regular = "put the file there or correct the path; paths start at the configuration's folder";
    type Break = fn(&Folder);
    let cases: &[(Break, &str)] = &[
        (
            |f| std::fs::remove_file(f.path().join("a.crt")).expect("removed"),
            &format!("No such file or directory (os error 2); {regular}"),
        ),
        (
            |f| {
                std::fs::remove_file(f.path().join("a.crt")).expect("removed");
                std::fs::create_dir(f.path().join("a.crt")).expect("a folder");
            },
            "it is a folder; give the path of a file in it",
        ),
        (
            |f| {
                std::fs::remove_file(f.path().join("a.crt")).expect("removed");
                let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
                let kind = rustix::fs::FileType::Fifo;
                rustix::fs::mknodat(rustix::fs::CWD, f.path().join("a.crt"), kind, mode, 0).expect("a pipe");
            },
            "it is not a regular file; give the path of a file in PEM format",
        ),
        (|f| f.write("a.crt", ""), "it is empty; write the file again"),
        (
            |f| f.write("a.crt", vec![b'\n'; 1_048_577]),
            "it has more than 1048576 bytes; give a file with one chain or key only",
        ),
        (
            |f| f.write("a.crt", "MIIB\n"),
            "there is no PEM in it; a PEM file has a line like -----BEGIN CERTIFICATE----- or -----BEGIN PRIVATE KEY-----",
        ),
        (
            |f| f.openssl("x509 -in a.crt -outform DER -out a.crt"),
            "it is a certificate in DER, not in PEM; convert it: openssl x509 -inform DER -in a.crt -out a.crt.pem",
        ),
        (
            |f| f.openssl("pkcs12 -export -in a.crt -inkey a.key -passout pass:x -out a.crt"),
            "it is binary, not PEM; convert it: `openssl pkey -inform DER` for a key, `openssl pkcs12 -nodes` for PKCS#12",
        ),
        (
            |f| {
                let text = f.read("a.crt");
                let wide = text.encode_utf16().flat_map(u16::to_le_bytes);
                f.write("a.crt", [0xff, 0xfe].into_iter().chain(wide).collect::<Vec<u8>>());
            },
            "it is UTF-16, not PEM; save it as ASCII or UTF-8",
        ),
    ];
    for (damage, expected) in cases {
        let folder = good(&ca);
        damage(&folder);
        let expected = format!("error CertificatePath: cannot read the certificate a.crt: {expected}");
        assert_eq!(shown(&folder), [expected]);
    }
    // A longest file is read.
    let folder = good(&ca);
    let mut text = folder.read("a.crt");
    text.push_str(&"\n".repeat(1_048_576 - text.len()));
    folder.write("a.crt", text);
    assert_eq!(shown(&folder), Vec::<String>::new());
}

#[test]
fn a_file_without_the_right_to_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let folder = good(&Ca::new("root"));
    let path = folder.path().join("a.key");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).expect("permissions");
    // Root reads it all the same.
    if rustix::process::geteuid().is_root() {
        assert_eq!(shown(&folder), Vec::<String>::new());
    } else {
        assert_eq!(
            shown(&folder),
            [
                "error PrivateKeyPath: cannot read the private key a.key: Permission denied (os error 13); let the user that starts the program read it; files are read before it becomes `user`"
            ]
        );
    }
}

#[test]
fn what_is_in_the_files() {
    let ca = Ca::new("root");
    type Break = fn(&Folder);
    let cases: &[(&str, Break, &[&str])] = &[
        (
            "swapped",
            |f| {
                let (certificate, key) = (f.read("a.crt"), f.read("a.key"));
                f.write("a.crt", key);
                f.write("a.key", certificate);
            },
            &[
                "error CertificatePath: there is no certificate in a.crt, but a private key; are `certificate_path` and `private_key_path` swapped?",
                "error PrivateKeyPath: there is no private key in a.key, but a certificate; are `certificate_path` and `private_key_path` swapped?",
            ],
        ),
        (
            "a request",
            |f| f.openssl("req -new -key a.key -subj /CN=a.example -out a.crt"),
            &[
                "error CertificatePath: there is no certificate in a.crt, but a request for one; give the file that the CA made of the request",
            ],
        ),
        (
            "other sections",
            |f| {
                f.openssl("pkey -in a.key -pubout -out a.key");
                f.write("a.crt", "-----BEGIN X509 CRL-----\n-----END X509 CRL-----\n");
            },
            &[
                "error CertificatePath: there is no certificate in a.crt, but a X509 CRL; give a file with -----BEGIN CERTIFICATE-----",
                "error PrivateKeyPath: there is no private key in a.key, but a PUBLIC KEY; give a file with -----BEGIN PRIVATE KEY-----",
            ],
        ),
        (
            "not base64",
            |f| {
                f.write("a.crt", f.read("a.crt").replace("MII", "M?I"));
                f.write("a.key", f.read("a.key").replacen('M', "?", 1));
            },
            &[
                "error CertificatePath: certificate 1 in a.crt is damaged: it is not base64; copy the file again",
                "error PrivateKeyPath: the private key a.key is damaged: it is not base64; copy the file again",
            ],
        ),
        (
            "cut",
            |f| {
                f.write("a.crt", f.read("a.crt").split("-----END").next().expect("a start"));
                f.write("a.key", f.read("a.key").split("-----END").next().expect("a start"));
            },
            &[
                "error CertificatePath: certificate 1 in a.crt is damaged: its -----END line is missing; copy the file again",
                "error PrivateKeyPath: the private key a.key is damaged: its -----END line is missing; copy the file again",
            ],
        ),
        (
            "half a line",
            |f| f.write("a.crt", f.read("a.crt").replacen("CERTIFICATE-----", "CERTIFICATE--", 1)),
            &[
                "error CertificatePath: certificate 1 in a.crt is damaged: its -----BEGIN line is not whole; copy the file again",
            ],
        ),
        (
            "other content",
            |f| {
                f.write("a.crt", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n");
                f.write("a.key", "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n");
            },
            &[
                "error PrivateKeyPath: the private key a.key is damaged or of a kind that is not served; use RSA with 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, or Ed25519",
                "error CertificatePath: certificate 1 in a.crt is damaged: it is not X.509; copy the file again",
            ],
        ),
        (
            "another key",
            |f| f.openssl("genpkey -algorithm ED25519 -out a.key"),
            &[
                "error PrivateKeyPath: the private key a.key is not that of the certificate a.crt, but of another one; compare: openssl pkey -in a.key -pubout; openssl x509 -in a.crt -noout -pubkey",
            ],
        ),
        (
            "two keys",
            |f| f.write("a.key", f.read("a.key").repeat(2)),
            &[
                "error PrivateKeyPath: there are 2 private keys in a.key; give a file with the certificate's own key only",
            ],
        ),
        (
            "encrypted",
            |f| f.openssl("pkcs8 -topk8 -in a.key -passout pass:secret -out a.key"),
            &[
                "error PrivateKeyPath: the private key a.key is encrypted, and a server that starts by itself has no passphrase; decrypt it: openssl pkey -in a.key -out a.key.decrypted",
            ],
        ),
        (
            "encrypted by headers",
            |f| f.openssl("pkey -traditional -in a.key -aes128 -passout pass:secret -out a.key"),
            &[
                "error PrivateKeyPath: the private key a.key is encrypted, and a server that starts by itself has no passphrase; decrypt it: openssl pkey -in a.key -out a.key.decrypted",
            ],
        ),
        (
            "a weak key",
            |f| {
                f.openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024 -out a.key");
                f.openssl("req -x509 -key a.key -subj /CN=a.example -addext subjectAltName=DNS:a.example -out a.crt");
            },
            &[
                "error PrivateKeyPath: the private key a.key is damaged or of a kind that is not served; use RSA with 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, or Ed25519",
                "error CertificatePath: the certificate a.crt has an RSA key of 1024 bits, which clients refuse as weak; use RSA with 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, or Ed25519",
            ],
        ),
        (
            "another curve",
            |f| {
                f.openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:secp256k1 -out a.key");
                f.openssl("req -x509 -key a.key -subj /CN=a.example -addext subjectAltName=DNS:a.example -out a.crt");
            },
            &[
                "error PrivateKeyPath: the private key a.key is damaged or of a kind that is not served; use RSA with 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, or Ed25519",
                "error CertificatePath: the certificate a.crt has an ECDSA key on the curve 1.3.132.0.10; use RSA with 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, or Ed25519",
            ],
        ),
        (
            "another kind",
            |f| {
                f.openssl("genpkey -algorithm ED448 -out a.key");
                f.openssl("req -x509 -key a.key -subj /CN=a.example -addext subjectAltName=DNS:a.example -out a.crt");
            },
            &[
                "error PrivateKeyPath: the private key a.key is damaged or of a kind that is not served; use RSA with 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, or Ed25519",
                "error CertificatePath: the certificate a.crt has a key of the kind 1.3.101.113; use RSA with 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, or Ed25519",
            ],
        ),
        (
            "version 1",
            |f| {
                f.openssl("req -new -key a.key -subj /CN=a.example -out a.csr");
                f.openssl("x509 -req -in a.csr -key a.key -out a.crt");
            },
            &[],
        ),
    ];
    for (case, change, expected) in cases {
        let folder = good(&ca);
        change(&folder);
        let found = shown(&folder);
        if *case == "version 1" {
            let error = found.iter().find(|f| f.starts_with("error")).expect("an error");
            assert!(
                error.contains("a.crt") && error.ends_with("make a new certificate of version 3"),
                "{error}"
            );
            continue;
        }
        assert_eq!(found, *expected, "{case}");
    }
}

#[test]
fn dates() {
    let ca = Ca::new("root");
    let table = [
        ((2025, 1, 1), (2027, 1, 1), None),
        (
            (2020, 1, 1),
            (2025, 12, 31),
            Some("the certificate a.crt expired on 2025-12-31 00:00:00 UTC; clients refuse it: renew it"),
        ),
        (
            (2026, 1, 2),
            (2027, 1, 1),
            Some(
                "the certificate a.crt is not valid before 2026-01-02 00:00:00 UTC; clients refuse it until then: is the clock of this machine right?",
            ),
        ),
        // A certificate is valid in the last second of its time.
        ((2020, 1, 1), (2026, 1, 1), None),
        ((2026, 1, 1), (2027, 1, 1), None),
    ];
    for (start, end, expected) in table {
        let folder = Folder::new();
        let mut params = params(&["a.example"]);
        params.not_before = date_time_ymd(start.0, start.1, start.2);
        params.not_after = date_time_ymd(end.0, end.1, end.2);
        let made = ca.sign_with(params);
        folder.write("a.crt", made.certificate);
        folder.write("a.key", made.key);
        let expected: Vec<String> =
            expected.iter().map(|e| format!("warning CertificatePath: {e}")).collect();
        assert_eq!(shown(&folder), expected);
    }
    // Those that follow count too.
    let root = Ca::new("root");
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut old = params(&[]);
    old.distinguished_name.push(rcgen::DnType::CommonName, "middle");
    old.not_after = date_time_ymd(2025, 6, 1);
    old.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let middle = old.signed_by(&key, &root.issuer).expect("a certificate").pem();
    let leaf_key = rcgen::KeyPair::generate().expect("a key");
    let issuer = rcgen::Issuer::new(old, key);
    let leaf = params(&["a.example"]).signed_by(&leaf_key, &issuer).expect("a certificate").pem();
    let folder = Folder::new();
    folder.write("a.crt", leaf + &middle);
    folder.write("a.key", leaf_key.serialize_pem());
    assert_eq!(
        shown(&folder),
        [
            "warning CertificatePath: certificate 2 in a.crt expired on 2025-06-01 00:00:00 UTC; clients refuse it: renew it"
        ]
    );
}

#[test]
fn names() {
    let ca = Ca::new("root");
    let other = "clients refuse it for this name: give the certificate that belongs to it";
    // (names of the certificate, what the core is told, the warning)
    let table: [(&[&str], &[&str], Option<String>); 9] = [
        (&["a.example"], &["a.example"], None),
        (&["A.Example"], &["a.example"], None),
        (&["*.example"], &["*.example"], None),
        (&["b.example", "a.example", "10.0.0.1"], &["b.example", "a.example"], None),
        (
            &["b.example", "*.a.example", "*.b.example"],
            &["b.example", "*.a.example", "*.b.example"],
            Some(format!(
                "the certificate a.crt is not for \"a.example\", but for b.example, *.a.example, *.b.example; {other}"
            )),
        ),
        (
            &["1.x", "2.x", "3.x", "4.x", "5.x", "6.x"],
            &["1.x", "2.x", "3.x", "4.x", "5.x", "6.x"],
            Some(format!("the certificate a.crt is not for \"a.example\", but for 1.x, 2.x, 3.x, 4.x, 5.x, …; {other}")),
        ),
        (
            &["10.0.0.1"],
            &[],
            Some("the certificate a.crt is for no DNS name; clients refuse it for this name".into()),
        ),
        // What no client accepts is no name.
        (
            &["a*.example", "*", "*.*.example"],
            &[],
            Some("the certificate a.crt is for no DNS name; clients refuse it for this name".into()),
        ),
        (
            &[],
            &[],
            Some(
                "the certificate a.crt has no subject alternative name; clients refuse it, whatever its common name: make one with the name in it"
                    .into(),
            ),
        ),
    ];
    for (sans, known, warning) in table {
        let folder = Folder::new();
        let made = ca.sign(sans);
        folder.write("a.crt", made.certificate);
        folder.write("a.key", made.key);
        let expected: Vec<String> = warning.iter().map(|e| format!("warning CertificatePath: {e}")).collect();
        assert_eq!(shown(&folder), expected, "{sans:?}");
        let found = read(&folder).0.expect("it can be served");
        assert_eq!(found.iter().map(|s| &**s).collect::<Vec<_>>(), known, "{sans:?}");
    }
}

#[test]
fn wildcards_cover_one_label() {
    let sans = ["*.example.com".into(), "exact.org".into()];
    for (name, covered) in [
        ("a.example.com", true),
        ("*.example.com", true),
        ("exact.org", true),
        ("example.com", false),
        ("a.b.example.com", false),
        ("*.a.example.com", false),
        ("*.exact.org", false),
        ("a.exact.org", false),
        ("com", false),
    ] {
        assert_eq!(covers(&sans, name), covered, "{name}");
    }
}

#[test]
fn certificates_that_are_not_for_servers() {
    let ca = Ca::new("root");
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, ServerAuth};
    for (purposes, warned) in [
        (vec![], false),
        (vec![ServerAuth], false),
        (vec![ClientAuth, ServerAuth], false),
        (vec![Any], false),
        (vec![ClientAuth], true),
    ] {
        let folder = Folder::new();
        let mut params = params(&["a.example"]);
        params.extended_key_usages = purposes;
        let made = ca.sign_with(params);
        folder.write("a.crt", made.certificate);
        folder.write("a.key", made.key);
        let expected: &[&str] = if warned {
            &[
                "warning CertificatePath: the certificate a.crt is not for servers: its extended key usage says so; clients refuse it: make one with serverAuth",
            ]
        } else {
            &[]
        };
        assert_eq!(shown(&folder), expected);
    }
}

#[test]
fn lengths_of_numbers() {
    for (number, expected) in
        [(&[][..], 0), (&[0], 0), (&[1], 1), (&[0, 0x80], 8), (&[0, 1, 0], 9), (&[0x7f, 0xff], 15)]
    {
        assert_eq!(bits(number), expected, "{number:?}");
    }
}
