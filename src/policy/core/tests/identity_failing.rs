//! Whoever has to say who we are fails, or says something else: nothing is
//! asked as somebody else.

use serde_json::{Value, json};

use super::identities::{TOKEN, client, document_v2, document_v3, okta, tell, workload};
use super::server::{ALLOW, Act, Core, reply, say};
use super::*;
use crate::domain::Verdict;
use crate::policy::PolicyError;
use crate::policy::core::rsa::tests::{another_pem, pem};
use crate::policy::core::{Identities, Okta, Own, RsaKey, StartError, ToldByCore};

fn vector() -> Value {
    let text = include_str!("../../../../tests/golden/contract/v2-okta/03-WorkflowStarted.json");
    serde_json::from_str(text).unwrap()
}

/// `core` was asked nothing that is governed, and what we are told names no
/// secret.
async fn refused(what: &str, core: &Core, identity: Identities, (is_outage, words): (bool, &str)) {
    let client = client(core, identity);
    let error = tell(&client, &vector()).await.unwrap_err();
    let is = matches!(error, PolicyError::Unavailable(_));
    assert_eq!(is, is_outage, "{what}: {error}");
    let told = error.to_string();
    assert!(told.contains(words), "{what}: {told}");
    let start = client.validate().await.unwrap_err();
    let is = matches!(start, StartError::Unreachable { .. });
    assert_eq!(is, is_outage, "{what}: {start}");
    for request in core.requests() {
        let asked = request.contains("/governance/") || request.contains("/validate");
        assert!(!asked, "{what}: {request}");
    }
    let shown = format!("{told} {start} {client:?}");
    let line = pem().lines().nth(1).unwrap();
    for secret in [KEY, line, "eyJ.fake.token", "BEGIN"] {
        assert!(!shown.contains(secret), "{what}: {shown}");
    }
}

/// The document with one member changed.
fn changed(mut document: Value, at: &str, value: Value) -> Act {
    *document.pointer_mut(at).unwrap() = value;
    say(&document.to_string())
}

#[tokio::test]
async fn an_okta_agent_that_core_does_not_confirm_asks_nothing() {
    let coded = |status: u16, code: &str| {
        Act::Say(reply(status, &format!(r#"{{"reason_code":"{code}"}}"#)))
    };
    let with = |at: &str, value: Value| changed(document_v2(), at, value);
    #[rustfmt::skip]
    let table = [
        ("closes",       Act::HangUp,                                   true,  "broke off"),
        ("500",          Act::Say(reply(500, "")),                      true,  "HTTP 500"),
        ("503",          coded(503, "verifier_unavailable"),            true,  "cannot check identities"),
        ("429",          Act::Say(reply(429, "")),                      true,  "HTTP 429"),
        ("401",          coded(401, "invalid_api_key"),                 false, "check OPENBOX_API_KEY"),
        ("403",          coded(403, "agent_inactive"),                  false, "not active in OpenBox"),
        ("another way",  coded(409, "identity_method_mismatch"),        false, "shows itself in another way"),
        ("none",         coded(409, "selected_credential_missing"),     false, "no Okta credential"),
        ("404",          Act::Say(reply(404, "")),                      false, "too old"),
        ("302",          Act::Say(reply(302, "")),                      false, "HTTP 302"),
        ("no JSON",      say("<html>"),                                 false, "cannot be used"),
        ("an array",     say("[]"),                                     false, "cannot be used"),
        ("no document",  say("{}"),                                     false, "cannot be used"),
        ("no HTTP",      Act::SayAndClose("SSH-2.0\r\n\r\n".to_owned()), false, "does not speak HTTP"),
        ("version",      with("/bootstrap_version", json!(2)),          false, "only version 1"),
        ("method",       with("/identity_method", json!("openbox_did")), false, "unset OPENBOX_OKTA_AGENT_PRIVATE_KEY"),
        ("algorithm",    with("/okta/algorithm", json!("ES256")),       false, "RS256"),
        ("empty",        with("/organization_id", json!("")),           false, "cannot be used"),
        ("generation",   with("/authority/generation_number", json!(0)), false, "cannot be used"),
        ("thumbprint",   with("/okta/public_jwk_thumbprint", json!("x")), false, "thumbprint differs"),
    ];
    for (what, act, is_outage, words) in table {
        let core = Core::start(vec![act]).await;
        refused(what, &core, okta(None), (is_outage, words)).await;
    }
    // Another key of our own.
    let own = Own::Okta(Okta {
        key: RsaKey::parse(&Secret::new(another_pem())).unwrap(),
        names: None,
        told: ToldByCore::default(),
    });
    let identity = Identities {
        own,
        workload: None,
    };
    let core = Core::start(vec![say(&document_v2().to_string())]).await;
    refused(
        "another key",
        &core,
        identity,
        (false, "thumbprint differs"),
    )
    .await;
}

#[tokio::test]
async fn a_workload_that_core_does_not_confirm_asks_nothing() {
    let conflict = r#"{"reason_code":"something_else"}"#;
    #[rustfmt::skip]
    let table = [
        ("closes",       Act::HangUp,                     true,  "broke off"),
        ("500",          Act::Say(reply(500, "")),        true,  "HTTP 500"),
        ("401",          Act::Say(reply(401, "")),        false, "check OPENBOX_API_KEY"),
        ("403",          Act::Say(reply(403, "")),        false, "HTTP 403"),
        ("409",          Act::Say(reply(409, conflict)),  false, "something_else"),
        ("409 and none", Act::Say(reply(409, "")),        false, "HTTP 409"),
        ("410",          Act::Say(reply(410, "")),        false, "HTTP 410"),
        ("no document",  say("{}"),                       false, "cannot be used"),
    ];
    for (what, act, is_outage, words) in table {
        // Also not as whom we would be without it.
        for own in [Own::Unsigned, okta(None).own] {
            let core = Core::start(vec![act.clone()]).await;
            refused(what, &core, workload(own), (is_outage, words)).await;
        }
    }
    #[rustfmt::skip]
    let table = [
        ("/bootstrap_version",  json!(1),                                   "only version 3"),
        ("/contract_version",   json!("3"),                                 "only version 3"),
        ("/service_account_id", json!("me"),                                "no UUID"),
        ("/activation_version", json!("7777"),                              "no UUID"),
        ("/identity_source",    json!("ldap"),                              "identity_source"),
        ("/token_endpoint",     json!("http://127.0.0.1:1/other"),          "of its issuer"),
        ("/issuer",             json!("https://elsewhere.example"),         "of its issuer"),
        ("/client_id",          json!(" "),                                 "empty"),
    ];
    for (at, value, words) in table {
        let core = Core::start_with(|address| vec![changed(document_v3(address), at, value)]).await;
        refused(at, &core, workload(Own::Unsigned), (false, words)).await;
    }
    // A key is never used for an endpoint in the clear.
    let mut document = document_v3(([127, 0, 0, 1], 1).into());
    document["issuer"] = "http://idp.example".into();
    document["token_endpoint"] = "http://idp.example/protocol/openid-connect/token".into();
    let core = Core::start(vec![say(&document.to_string())]).await;
    refused(
        "clear",
        &core,
        workload(Own::Unsigned),
        (false, "in the clear"),
    )
    .await;
}

#[tokio::test]
async fn a_workload_without_a_token_asks_nothing() {
    let changed = |from: &str, to: &str| say(&TOKEN.replace(from, to));
    let told = r#"{"error":"invalid_client"}"#;
    #[rustfmt::skip]
    let table = [
        ("closes",      Act::SayAndClose(String::new()),                              true,  "broke off"),
        ("503",         Act::Say(reply(503, "")),                 true,  "the token endpoint http://127.0.0.1"),
        ("429",         Act::Say(reply(429, "")),                 true,  "HTTP 429"),
        ("400",         Act::Say(reply(400, told)),               false, "invalid_client"),
        ("401",         Act::Say(reply(401, told)),               false, "check OPENBOX_WORKLOAD_PRIVATE_KEY"),
        ("403",         Act::Say(reply(403, "")),                 false, "HTTP 403"),
        ("404",         Act::Say(reply(404, "")),                 false, "HTTP 404"),
        ("no JSON",     say("<html>eyJ.fake.token"),              false, "no usable token"),
        ("no token",    changed("access_token", "token"),         false, "no usable token"),
        ("type",        changed("Bearer", "MAC"),                 false, "not Bearer"),
        ("too short",   changed("300", "30"),                     false, "within 30 s"),
        ("a truth",     changed("300", "true"),                   false, "no usable token"),
        ("negative",    changed("300", "-1"),                     false, "within 30 s"),
        ("a line end",  changed("fake.", "fake\\r\\nX: y"),       false, "a header cannot carry it"),
    ];
    for (what, act, is_outage, words) in table {
        let core = Core::start_with(|address| {
            let document = say(&document_v3(address).to_string());
            // Where it is asked again, it is told again who it is.
            vec![document.clone(), act.clone(), document, act]
        })
        .await;
        refused(what, &core, workload(Own::Unsigned), (is_outage, words)).await;
    }
    // Nobody listens there.
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let closed = listener.local_addr().unwrap();
    drop(listener);
    let core = Core::start(vec![say(&document_v3(closed).to_string())]).await;
    let expected = (true, "cannot be reached");
    refused("nobody", &core, workload(Own::Unsigned), expected).await;
}

#[tokio::test]
async fn many_questions_fetch_one_token() {
    let core = Core::start_with(|address| {
        vec![
            say(&document_v3(address).to_string()),
            say(TOKEN),
            say(ALLOW),
        ]
    })
    .await;
    let client = client(&core, workload(Own::Unsigned));
    let vector = vector();
    let mut tasks = Vec::new();
    for _ in 0..20 {
        tasks.push(Box::pin(tell(&client, &vector)));
    }
    // All at once.
    let mut left: Vec<_> = tasks;
    std::future::poll_fn(|cx| {
        left.retain_mut(|task| match task.as_mut().poll(cx) {
            std::task::Poll::Ready(ruling) => {
                assert_eq!(ruling.unwrap().verdict, Verdict::Allow);
                false
            }
            std::task::Poll::Pending => true,
        });
        if left.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    let requests = core.requests();
    let times = |what: &str| requests.iter().filter(|text| text.contains(what)).count();
    assert_eq!(requests.len(), 22);
    assert_eq!((times("/auth/bootstrap"), times("/token ")), (1, 1));
    assert_eq!(times("X-Openbox-Workload-Token: eyJ.fake.token"), 20);
}

#[tokio::test]
async fn a_token_that_ends_is_fetched_anew_and_the_account_is_not() {
    let core = Core::start_with(|address| {
        vec![
            say(&document_v3(address).to_string()),
            say(&TOKEN.replace("300", "35")),
            say(ALLOW),
            say(&TOKEN.replace("fake", "second")),
            say(ALLOW),
        ]
    })
    .await;
    let client = client(&core, workload(Own::Unsigned));
    tell(&client, &vector()).await.unwrap();
    // It is shown for five seconds.
    tokio::time::sleep(std::time::Duration::from_millis(5_100)).await;
    tell(&client, &vector()).await.unwrap();
    let requests = core.requests();
    assert_eq!(requests.len(), 5);
    assert!(requests[4].contains("X-Openbox-Workload-Token: eyJ.second.token"));
}

#[tokio::test]
async fn what_core_rejects_is_said_in_words_and_is_never_an_outage() {
    for (code, words) in [
        ("assertion_missing", "drop headers"),
        ("binding_invalid", "OPENBOX_ORGANIZATION_ID"),
        ("proof_expired", "clock of this machine"),
        ("proof_replayed", "repeat requests"),
        ("method_endpoint_mismatch", "rewrite paths"),
        ("identity_ineligible", "check its identity"),
        ("key_too_small", "2048 bits"),
        ("signature_invalid", "OPENBOX_OKTA_AGENT_PRIVATE_KEY"),
    ] {
        let body = format!(r#"{{"reason_code":"{code}"}}"#);
        let script = vec![say(&document_v2().to_string()), Act::Say(reply(401, &body))];
        let core = Core::start(script).await;
        let client = client(&core, okta(None));
        let error = tell(&client, &vector()).await.unwrap_err();
        assert!(matches!(error, PolicyError::Unjudgeable(_)), "{error}");
        assert!(error.to_string().contains(words), "{code}: {error}");
        let error = client.validate().await.unwrap_err();
        assert!(matches!(error, StartError::KeyRejected { .. }), "{error}");
        assert!(error.to_string().contains(words), "{code}: {error}");
    }
}
