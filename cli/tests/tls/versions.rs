//! What may be agreed on: versions, cipher suites, groups and protocols, by `openssl s_client`.

use std::io::{Read, Write};

use crate::authority::Authority;
use crate::client::connect;
use crate::client_hello::{X25519, X25519_MLKEM768, client_hello, group_asked_for, records};
use crate::openssl;
use crate::proxy::Proxy;
use crate::scripted_backend::Backend;

on_each_driver!(versions_groups_and_suites_that_must_and_must_not_work, the_hybrid_group_is_known);

/// Arguments of a client that offers so little by itself that only the server's word counts.
const LENIENT: &str = "ALL:@SECLEVEL=0";

fn versions_groups_and_suites_that_must_and_must_not_work(driver: &str) {
    let (authority, backend) = (Authority::new("ca"), Backend::good("hello from behind"));
    let (ec, rsa) = (authority.sign("ec", &["ec.test"]), authority.sign_rsa("rsa", &["rsa.test"]));
    let proxy = Proxy::to(driver, &[("ec.test", &ec, ""), ("rsa.test", &rsa, "")], backend.address);
    let request =
        |name: &str, arguments: &[&str]| openssl::request(proxy.address, name, &authority.file(), arguments);
    let works = |name: &str, arguments: &[&str], expected: &str| {
        let output = request(name, arguments);
        assert!(output.contains("hello from behind"), "{name} {arguments:?}: {output}");
        assert!(output.contains("Verify return code: 0 (ok)"), "{name} {arguments:?}: {output}");
        assert!(output.contains(expected), "{name} {arguments:?}: no {expected}: {output}");
        assert!(!output.contains("unexpected eof"), "{name} {arguments:?}: no close_notify: {output}");
    };
    let fails = |name: &str, arguments: &[&str], alert: &str| {
        let output = request(name, arguments);
        assert!(!output.contains("hello from behind"), "{name} {arguments:?}: {output}");
        assert!(output.contains(&format!("SSL alert number {alert}")), "{name} {arguments:?}: {output}");
    };

    for name in ["ec.test", "rsa.test"] {
        works(name, &["-tls1_3"], "New, TLSv1.3, Cipher is TLS_AES_256_GCM_SHA384");
        works(name, &["-tls1_2"], "New, TLSv1.2, Cipher is ECDHE-");
        for old in ["-tls1", "-tls1_1"] {
            fails(name, &[old, "-cipher", LENIENT], "40");
        }
        for (group, key) in
            [("X25519", "X25519"), ("P-256", "ECDH, prime256v1"), ("P-384", "ECDH, secp384r1")]
        {
            let expected = format!("Server Temp Key: {key}");
            works(name, &["-tls1_3", "-groups", group], &expected);
            // In TLS 1.2 the list is for certificates too.
            if name == "rsa.test" {
                works(name, &["-tls1_2", "-groups", group], &expected);
            }
        }
        for group in ["P-521", "X448"] {
            fails(name, &["-tls1_3", "-groups", group], "40");
        }
        for suite in ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"] {
            works(name, &["-tls1_3", "-ciphersuites", suite], &format!("New, TLSv1.3, Cipher is {suite}"));
        }
        fails(name, &["-tls1_3", "-ciphersuites", "TLS_AES_128_CCM_SHA256"], "40");
    }
    for (name, kind) in [("ec.test", "ECDSA"), ("rsa.test", "RSA")] {
        for suite in ["AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305"] {
            let suite = format!("ECDHE-{kind}-{suite}");
            works(name, &["-tls1_2", "-cipher", &suite], &format!("New, TLSv1.2, Cipher is {suite}"));
        }
        for suite in ["AES128-SHA", "AES256-SHA", "AES128-SHA256", "AES256-SHA384"] {
            let suite = format!("ECDHE-{kind}-{suite}@SECLEVEL=0").replace('@', ":@");
            fails(name, &["-tls1_2", "-cipher", &suite], "40");
        }
        // Keys of RSA alone, finite fields, nobody known, nothing encrypted.
        for suite in ["AES128-GCM-SHA256", "AES256-SHA", "DHE-RSA-AES128-GCM-SHA256", "aNULL", "eNULL"] {
            fails(name, &["-tls1_2", "-cipher", &format!("{suite}:@SECLEVEL=0")], "40");
        }
    }
    // The server's order counts.
    let suites = "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384";
    works("ec.test", &["-ciphersuites", suites], "Cipher is TLS_AES_256_GCM_SHA384");
    let suites = "ECDHE-RSA-CHACHA20-POLY1305:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384";
    works("rsa.test", &["-tls1_2", "-cipher", suites], "Cipher is ECDHE-RSA-AES256-GCM-SHA384");
    // Protocols: the one that is spoken, whatever is better; none is fine; only others are not.
    works("ec.test", &["-alpn", "h3,http/1.0,http/1.1"], "ALPN protocol: http/1.1");
    works("ec.test", &["-alpn", "http/1.0"], "ALPN protocol: http/1.0");
    works("ec.test", &[], "No ALPN negotiated");
    fails("ec.test", &["-alpn", "h3,spdy/3"], "120");
    // A stapled response is asked for, and there is none.
    works("ec.test", &["-status"], "OCSP response: no response sent");
    // The log has a reason for each.
    assert!(proxy.steps("NoCipherSuitesInCommon; it gets the alert handshake_failure", 14).len() >= 14);
    assert_eq!(proxy.steps("it gets the alert no_application_protocol", 1).len(), 1);
    proxy.stop();
}

/// Not every OpenSSL knows the hybrid group: the answer to a first message without any key says which one is
/// wanted.
fn the_hybrid_group_is_known(driver: &str) {
    let (authority, backend) = (Authority::new("ca"), Backend::good("unused"));
    let pair = authority.sign("a", &["a.test"]);
    let proxy = Proxy::to(driver, &[("a.test", &pair, "")], backend.address);
    let asked = |groups: &[u16]| {
        let mut stream = connect(proxy.address);
        stream.write_all(&records(&client_hello("a.test", groups, 0), 16_000)).expect("sent");
        let mut answer = vec![0; 1000];
        let n = stream.read(&mut answer).expect("an answer");
        group_asked_for(&answer[..n])
    };
    assert_eq!(asked(&[X25519_MLKEM768, X25519]), Ok(X25519_MLKEM768));
    assert_eq!(asked(&[X25519_MLKEM768]), Ok(X25519_MLKEM768));
    assert_eq!(asked(&[X25519, X25519_MLKEM768]), Ok(X25519));
    // X448 and FFDHE 2048.
    assert_eq!(asked(&[30, 256]), Err("alert 40".into()));
    proxy.stop();
}
