//! Keys and signatures, against those of the SDK.

use std::sync::OnceLock;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeySize, PublicKeyComponents};
use aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256;
use serde_json::Value;

use super::*;

const VECTOR: &str = include_str!("../golden/okta_v2_assertion.json");

/// A key of 2048 bits, the same one throughout a test program.
pub(crate) fn pem() -> &'static str {
    static PEM: OnceLock<String> = OnceLock::new();
    PEM.get_or_init(another_pem)
}

/// A fresh one.
pub(in super::super) fn another_pem() -> String {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    in_lines("PRIVATE KEY", der.as_ref())
}

pub(in super::super) fn key() -> RsaKey {
    RsaKey::parse(&Secret::new(pem())).unwrap()
}

fn in_lines(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

/// Header and claims of `jws`, whose signature is by `key`.
pub(in super::super) fn opened(key: &RsaKey, jws: &str) -> (String, String) {
    let (signed, signature) = jws.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    aws_lc_rs::signature::UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public())
        .verify(signed.as_bytes(), &signature)
        .expect("a signature by this key");
    let (header, claims) = signed.split_once('.').unwrap();
    let text = |part: &str| String::from_utf8(URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    (text(header), text(claims))
}

#[test]
fn a_thumbprint_is_the_one_of_the_sdk() {
    let vector: Value = serde_json::from_str(VECTOR).unwrap();
    let number = |name: &str| {
        let text = vector["public_jwk"][name].as_str().unwrap();
        URL_SAFE_NO_PAD.decode(text).unwrap()
    };
    let (n, e) = (number("n"), number("e"));
    assert_eq!(thumbprint(&n, &e), vector["jwk_thumbprint_sha256"]);
    // RFC 7638 §3.1 has one of its own.
    let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
    let n = URL_SAFE_NO_PAD.decode(n).unwrap();
    assert_eq!(
        thumbprint(&n, &[1, 0, 1]),
        "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    );
}

#[test]
fn the_public_half_of_a_key_is_read_as_the_library_reads_it() {
    let key = key();
    let (n, e) = public_numbers(key.public()).unwrap();
    assert_eq!((n.len(), e), (256, &[1, 0, 1][..]));
    // Its own signature verifies with the numbers that were read.
    let jws = key.jws("k", "t", &[("a", Claim::Text("b"))]).unwrap();
    let (signed, signature) = jws.rsplit_once('.').unwrap();
    PublicKeyComponents { n, e }
        .verify(
            &RSA_PKCS1_2048_8192_SHA256,
            signed.as_bytes(),
            &URL_SAFE_NO_PAD.decode(signature).unwrap(),
        )
        .unwrap();
    assert!(key.is_of(&thumbprint(n, e)));
    assert!(!key.is_of("VH1QslMUPj-MT0_ALs7VSnCclrBAKIuLcaPoN45Z02U"));
    for cut in 0..key.public().len() {
        assert_eq!(public_numbers(&key.public()[..cut]), None, "{cut}");
    }
}

#[test]
fn what_is_signed_is_compact_and_ascii() {
    let claims = [("a", Claim::Text("ä\"b")), ("b", Claim::Seconds(7))];
    let key = key();
    let (header, claims) = opened(&key, &key.jws("kid-1", "JWT", &claims).unwrap());
    assert_eq!(header, r#"{"alg":"RS256","kid":"kid-1","typ":"JWT"}"#);
    assert_eq!(claims, r#"{"a":"\u00e4\"b","b":7}"#);
    let ids = [fresh_id().unwrap(), fresh_id().unwrap()];
    assert!(ids[0] != ids[1] && ids[0].len() == 32, "{ids:?}");
}

#[test]
fn a_key_that_does_not_fit_is_refused_and_not_repeated() {
    let small = include_str!("small_key.pem");
    let ed25519 = aws_lc_rs::signature::Ed25519KeyPair::generate().unwrap();
    let ed25519 = in_lines("PRIVATE KEY", ed25519.to_pkcs8v1().unwrap().as_ref());
    let table = [
        ("zqx".to_owned(), "no PKCS#8 PEM"),
        (String::new(), "no PKCS#8 PEM"),
        (pem().replace("PRIVATE", "RSA PRIVATE"), "PKCS#1"),
        (pem().replace("PRIVATE", "ENCRYPTED PRIVATE"), "encrypted"),
        (pem().replace("-----END", "--END"), "no -----END"),
        (pem().replacen('M', "zqx!", 1), "not base64"),
        (
            pem().lines().take(9).collect::<String>() + "-----END PRIVATE KEY-----",
            "no RSA key",
        ),
        (ed25519, "no RSA key"),
        (small.to_owned(), "fewer than 2048 bits"),
    ];
    for (text, why) in table {
        let error = RsaKey::parse(&Secret::new(text.as_str())).unwrap_err();
        let told = error.to_string();
        assert!(told.contains(why), "{why}: {told}");
        let inner = text.lines().nth(1).unwrap_or("zqx");
        assert!(!told.contains(inner) && !told.contains("zqx"), "{told}");
    }
    // White space around and inside does no harm.
    let spaced = format!("\n  {}\r\n", pem().replace('\n', "\r\n"));
    assert!(RsaKey::parse(&Secret::new(spaced)).is_ok());
    assert_eq!(format!("{:?}", key()), "[REDACTED]");
}
