//! Assertions of the SDK and our own, and every way to be none.

use std::sync::Arc;

use http::HeaderMap;
use serde_json::json;

use super::*;
use crate::policy::core::okta::Asserted;
use crate::policy::core::rsa::tests::{another_pem, key};
use crate::policy::core::rsa::{Claim, RsaKey};
use crate::policy::core::tests::identities::names;
use crate::policy::core::{
    ApiKey, Checked, Known, Okta, Rejection, ToldByCore, Unsigned, Verifier,
};
use crate::redact::Secret;

const VECTOR: &str = include_str!("../golden/okta_v2_assertion.json");
const API_KEY: &str = "obx_test_capture_key_0003";
const PATH: &str = "/api/v2/governance/evaluate";
const BODY: &[u8] = b"{\"a\": 1}";

fn now() -> Timestamp {
    Timestamp(1_767_323_045_000_000_000)
}

fn with(assertion: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, format!("Bearer {API_KEY}").parse().unwrap());
    headers.insert(ASSERTION, assertion.parse().unwrap());
    headers
}

fn post(headers: &HeaderMap) -> Signed<'_> {
    Signed {
        method: "POST",
        path: PATH,
        headers,
        body: BODY,
    }
}

fn verifier(key: &RsaKey) -> Verifier {
    let okta = Okta {
        key: key.clone(),
        names: Some(Arc::new(names())),
        told: ToldByCore::default(),
    };
    verifier_of(&okta)
}

fn verifier_of(okta: &Okta) -> Verifier {
    Verifier::new(Some((Known::Okta(okta.known()), Unsigned::Taken)))
}

/// What we assert ourselves, about `names` and a request, `at`.
fn asserted(key: &RsaKey, names: &OktaNames, at: Timestamp) -> HeaderMap {
    let mut headers = with("x");
    let api_key = ApiKey::parse(Secret::new(API_KEY)).unwrap();
    let request = Asserted {
        method: "POST",
        path: PATH,
        body: BODY,
    };
    names.assert(&mut headers, key, &api_key, request, at);
    headers
}

/// `RSAPublicKey` of these numbers, which are of 256 and 3 bytes.
fn der(n: &[u8], e: &[u8]) -> Vec<u8> {
    let mut integers = vec![0x02, 0x82, 0x01, 0x01, 0x00];
    integers.extend_from_slice(n);
    integers.extend_from_slice(&[0x02, 0x03]);
    integers.extend_from_slice(e);
    let length = u16::try_from(integers.len()).unwrap().to_be_bytes();
    [&[0x30, 0x82], &length[..], &integers].concat()
}

#[test]
fn what_the_sdk_asserted_is_taken_in_its_time() {
    let vector: Value = serde_json::from_str(VECTOR).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let number = |name: &str| {
        let number = text(&vector["public_jwk"][name]);
        URL_SAFE_NO_PAD.decode(number).unwrap()
    };
    let public = der(&number("n"), &number("e"));
    let headers = with(&text(&vector["assertion"]));
    let (body, path) = (text(&vector["body_utf8"]), text(&vector["path"]));
    let signed = Signed {
        method: "POST",
        path: &path,
        headers: &headers,
        body: body.as_bytes(),
    };
    let checked = |after: u64| {
        let at = now().after(Duration::from_secs(after));
        check(&names(), &public, signed, at)
    };
    assert_eq!(checked(0), Ok(("fixed-jti-0001".to_owned(), now())));
    assert_eq!(checked(89), checked(0));
    assert_eq!(checked(90), Err(Flaw::Expired));
    let early = Timestamp(now().0 - 30_000_000_000);
    assert_eq!(check(&names(), &public, signed, early), checked(0));
    let too_early = Timestamp(now().0 - 31_000_000_000);
    let early = check(&names(), &public, signed, too_early);
    assert_eq!(early, Err(Flaw::Expired));
}

#[test]
fn an_assertion_is_taken_once_and_only_over_its_request() {
    let key = key();
    let verifier = verifier(&key);
    let headers = asserted(&key, &names(), now());
    let flaw = |signed: Signed<'_>| match verifier.check(signed, now()) {
        Err(Rejection::Assertion(flaw)) => flaw,
        other => panic!("{other:?}"),
    };
    let request = post(&headers);
    assert_eq!(
        flaw(Signed {
            method: "GET",
            ..request
        }),
        Flaw::Endpoint
    );
    let approval = "/api/v2/governance/approval";
    assert_eq!(
        flaw(Signed {
            path: approval,
            ..request
        }),
        Flaw::Endpoint
    );
    assert_eq!(
        flaw(Signed {
            body: b"{}",
            ..request
        }),
        Flaw::Binding
    );
    let mut other = headers.clone();
    other.insert(AUTHORIZATION, "Bearer obx_test_other".parse().unwrap());
    assert_eq!(flaw(post(&other)), Flaw::Binding);
    let mut none = headers.clone();
    none.remove(ASSERTION);
    assert_eq!(flaw(post(&none)), Flaw::Missing);
    // None of these used it up.
    assert_eq!(verifier.check(request, now()), Ok(Checked::Signed));
    assert_eq!(flaw(request), Flaw::Replayed);
    let again = asserted(&key, &names(), now());
    let taken = verifier.check(post(&again), now());
    assert_eq!(taken, Ok(Checked::Signed));
}

#[test]
fn another_key_or_agent_asserts_nothing() {
    let key = key();
    let another = RsaKey::parse(&Secret::new(another_pem())).unwrap();
    let changed = |change: fn(&mut OktaNames)| {
        let mut names = names();
        change(&mut names);
        names
    };
    #[rustfmt::skip]
    let table = [
        (&another, names(),                                     Flaw::Signature),
        (&key,     changed(|n| n.key_id = "k".into()),          Flaw::Signature),
        (&key,     changed(|n| n.agent_id = "a".into()),        Flaw::Binding),
        (&key,     changed(|n| n.organization_id = "a".into()), Flaw::Binding),
        (&key,     changed(|n| n.deployment_id = "a".into()),   Flaw::Binding),
        (&key,     changed(|n| n.audience = "a".into()),        Flaw::Binding),
        (&key,     changed(|n| n.external_agent_id = "a".into()), Flaw::Binding),
    ];
    for (by, names, flaw) in table {
        let headers = asserted(by, &names, now());
        let checked = verifier(&key).check(post(&headers), now());
        assert_eq!(checked, Err(Rejection::Assertion(flaw)), "{names:?}");
    }
}

#[test]
fn what_is_no_assertion_has_its_reason_code() {
    let key = key();
    let good = asserted(&key, &names(), now());
    let good = good[ASSERTION].to_str().unwrap();
    let parts: Vec<_> = good.split('.').collect();
    let [header, claims, signature] = parts[..] else {
        panic!()
    };
    let headed = |header: Value| {
        let header = URL_SAFE_NO_PAD.encode(header.to_string());
        format!("{header}.{claims}.{signature}")
    };
    let head = |name: &str, value: Value| {
        let mut header = json!({"alg": "RS256", "kid": "kid-1", "typ": "openbox-agent-proof+jwt"});
        header[name] = value;
        headed(header)
    };
    let seconds = now().unix_seconds();
    // Well signed, and without what has to be there; or for too long.
    let poor = key
        .jws(
            "kid-1",
            "openbox-agent-proof+jwt",
            &[("exp", Claim::Seconds(1))],
        )
        .unwrap();
    #[rustfmt::skip]
    let table = [
        (String::new(),                                   "assertion_malformed"),
        ("a.b".to_owned(),                                "assertion_malformed"),
        (format!("{header}.{claims}."),                   "signature_invalid"),
        (format!("{header}.{claims}.%"),                  "assertion_malformed"),
        (format!("{header}.{claims}.{claims}"),           "signature_invalid"),
        (format!("{claims}.{header}.{signature}"),        "typ_mismatch"),
        (format!("{header}.{header}.{signature}"),        "signature_invalid"),
        (format!(".{good}"),                              "assertion_malformed"),
        (format!("{good}{}", "A".repeat(8_192)),          "assertion_malformed"),
        (poor,                                            "assertion_malformed"),
        (head("typ", "JWT".into()),                       "typ_mismatch"),
        (head("alg", "none".into()),                      "alg_rejected"),
        (head("alg", "HS256".into()),                     "alg_rejected"),
        (head("jwk", json!({})),                          "embedded_key_rejected"),
        (head("jku", "https://evil.example".into()),      "embedded_key_rejected"),
        (head("crit", json!([])),                         "assertion_malformed"),
        (head("kid", "other".into()),                     "signature_invalid"),
        (headed(json!([])),                               "assertion_malformed"),
    ];
    for (assertion, code) in table {
        let rejected = verifier(&key)
            .check(post(&with(&assertion)), now())
            .unwrap_err();
        assert_eq!(rejected.code(), code, "{assertion}");
        assert!(!rejected.to_string().is_empty());
    }
    let claims = Claims {
        exp: seconds + 61,
        iat: seconds,
        ..part::<Claims>(claims).unwrap()
    };
    assert_eq!(claims.holds(now()), Err(Flaw::Expired));
    let backwards = Claims {
        exp: seconds - 1,
        ..claims
    };
    assert_eq!(backwards.holds(now()), Err(Flaw::Expired));
}

#[test]
fn who_knows_no_agent_of_okta_takes_no_assertion_and_nobody_takes_a_token() {
    let key = key();
    let headers = asserted(&key, &names(), now());
    let nobody = Verifier::new(None);
    assert_eq!(
        nobody.check(post(&headers), now()),
        Err(Rejection::NoVerifier)
    );
    // Also where v1 is asked, and where nothing is asserted in v2.
    let v1 = Signed {
        path: "/api/v1/governance/evaluate",
        ..post(&headers)
    };
    assert_eq!(nobody.check(v1, now()), Err(Rejection::NoVerifier));
    let bare = HeaderMap::new();
    assert_eq!(nobody.check(post(&bare), now()), Err(Rejection::NoVerifier));
    let v1 = Signed {
        headers: &bare,
        ..v1
    };
    assert_eq!(nobody.check(v1, now()), Ok(Checked::Unsigned));
    assert_eq!(
        verifier(&key).check(v1, now()),
        Ok(Checked::Unsigned),
        "the sidecar signs for it"
    );
    let mut token = HeaderMap::new();
    token.insert("x-openbox-workload-token", "t".parse().unwrap());
    for path in [PATH, "/api/v1/governance/evaluate"] {
        let signed = Signed {
            path,
            headers: &token,
            ..v1
        };
        assert_eq!(
            verifier(&key).check(signed, now()),
            Err(Rejection::Workload)
        );
    }
    let v3 = Signed {
        path: "/api/v3/governance/evaluate",
        ..v1
    };
    let rejected = nobody.check(v3, now()).unwrap_err();
    assert_eq!(rejected.code(), "verifier_not_configured");
}

#[test]
fn an_agent_that_core_tells_about_is_known_from_then_on() {
    let key = key();
    let okta = Okta {
        key: key.clone(),
        names: None,
        told: ToldByCore::default(),
    };
    let verifier = verifier_of(&okta);
    let headers = asserted(&key, &names(), now());
    let check = || verifier.check(post(&headers), now());
    let early = check().unwrap_err();
    assert_eq!(early, Rejection::NotToldYet);
    assert_eq!(early.code(), "verifier_not_configured");
    assert!(verifier.okta().unwrap().bootstrap().is_none());
    okta.told.keep(Arc::new(names()), "{}".into());
    assert_eq!(check(), Ok(Checked::Signed));
    assert_eq!(verifier.okta().unwrap().bootstrap().unwrap(), "{}");
}
