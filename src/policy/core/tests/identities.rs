//! What shows who we are, held against what the SDK sent for the same.

use serde_json::Value;

use super::server::{ALLOW, Act, Core, reply, say, signed};
use super::*;
use crate::domain::{Event, EventKind};
use crate::policy::core::okta::Asserted;
use crate::policy::core::rsa::tests::{key, opened};
use crate::policy::core::{
    CoreClient, Identities, Known, Okta, OktaNames, Own, Prepared, RsaKey, StartError, ToldByCore,
    connect_plain, okta, prove,
};
use crate::policy::{ApprovalState, Judging, PolicyBackend, PolicyError, Question, Ruling};

const VECTOR: &str = include_str!("../golden/okta_v2_assertion.json");

macro_rules! vectors {
    ($($path:literal),+) => {
        [$(include_str!(concat!("../../../../tests/golden/contract/", $path)),)+]
            .map(|text| serde_json::from_str::<Value>(text).unwrap())
    };
}

pub(in super::super) fn names() -> OktaNames {
    OktaNames {
        agent_id: "11111111-1111-4111-8111-111111111111".into(),
        organization_id: "org-1".into(),
        deployment_id: "dep-1".into(),
        audience: "https://core.example.test/aud".into(),
        external_agent_id: "wlp-okta-1".into(),
        key_id: "kid-1".into(),
    }
}

pub(super) fn okta(names: Option<OktaNames>) -> Identities {
    let names = names.map(Arc::new);
    Identities {
        own: Own::Okta(Okta {
            key: key(),
            names,
            told: ToldByCore::default(),
        }),
        workload: None,
    }
}

pub(super) fn workload(own: Own) -> Identities {
    Identities {
        own,
        workload: Some(key()),
    }
}

pub(super) fn client(core: &Core, identity: Identities) -> CoreClient {
    let settings = Settings {
        identity,
        ..settings(&core.url())
    };
    CoreClient::new(settings, connect_plain())
}

/// What the capture's Core answered, with the thumbprint of our key.
pub(super) fn document_v2() -> Value {
    let [vector] = vectors!("v2-okta/01-bootstrap.json");
    let mut document = vector["response"]["body"].clone();
    document["okta"]["public_jwk_thumbprint"] = key().thumbprint().into();
    document
}

/// And the one of a workload whose identity provider is `at`.
pub(super) fn document_v3(at: std::net::SocketAddr) -> Value {
    let [vector] = vectors!("v3-workload/01-bootstrap.json");
    let text = vector["response"]["body"].to_string();
    serde_json::from_str(&text.replace("127.0.0.1:18086", &at.to_string())).unwrap()
}

pub(super) const TOKEN: &str =
    r#"{"access_token":"eyJ.fake.token","token_type":"Bearer","expires_in":300}"#;

/// The event of the captures, which says nothing but who and when.
fn started(vector: &Value) -> Event {
    let body = vector["request"]["body_raw"].as_str().unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    Event {
        id: OperationId::new(1, 2),
        kind: EventKind::WorkflowStarted,
        context: Arc::new(Context {
            workflow_id: "wf-base".into(),
            run_id: "run-base".into(),
            workflow_type: "BaseWorkflow".into(),
            task_queue: "base-queue".into(),
            activity: None,
        }),
        at: crate::policy::core::time::read(body["timestamp"].as_str().unwrap()).unwrap(),
        fields: Vec::new(),
    }
}

pub(super) async fn tell(client: &CoreClient, vector: &Value) -> Result<Arc<Ruling>, PolicyError> {
    let event = started(vector);
    match client.judge(Question::Event(&event)) {
        Judging::Now(answer) => answer,
        Judging::Later(answer) => answer.await,
    }
}

async fn poll(client: &CoreClient) {
    let mut context = Context::clone(&context(Some(activity())));
    (context.workflow_id, context.run_id) = ("wf".into(), "run".into());
    context.activity.as_mut().unwrap().id = "act".into();
    let state = client.approval(&context).await.unwrap();
    assert!(matches!(state, ApprovalState::Pending { .. }), "{state:?}");
}

/// Method, path, headers in order, and body.
#[derive(Debug, PartialEq)]
struct Sent {
    line: String,
    headers: Vec<(String, String)>,
    body: String,
}

/// What was captured, as it would be sent to `core` by this sidecar.
fn captured(vector: &Value, core: &Core) -> Sent {
    let request = &vector["request"];
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let fields = request["headers"].as_array().unwrap().iter();
    let host = core.url();
    let host = host
        .trim_start_matches("http://")
        .trim_end_matches("/base/");
    let version = concat!("openbox-sidecar-rust-v", env!("CARGO_PKG_VERSION"));
    let ours = |name: &str, value: String| match name {
        "host" => host.to_owned(),
        // Answers are read as they are.
        "accept-encoding" => "identity".to_owned(),
        "user-agent" => format!("OpenBox-SDK/{version}"),
        "x-openbox-sdk-version" => version.to_owned(),
        "content-length" => "masked".to_owned(),
        _ => value,
    };
    Sent {
        line: format!(
            "{} {} HTTP/1.1",
            text(&request["method"]),
            text(&request["path"])
        ),
        headers: fields
            .map(|field| {
                let name = text(&field[0]).to_ascii_lowercase();
                let value = ours(&name, text(&field[1]));
                (name, value)
            })
            .collect(),
        body: text(&request["body_raw"]).replace("127.0.0.1:18086", host),
    }
}

/// What we sent, without what only this sidecar sends.
fn sent(request: &str) -> Sent {
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let fields = lines.clone().skip(1).map(|line| {
        let (name, value) = line.split_once(": ").unwrap();
        let name = name.to_ascii_lowercase();
        let value = if name == "content-length" {
            "masked"
        } else {
            value
        };
        (name, value.to_owned())
    });
    Sent {
        line: lines.next().unwrap().replace(" /base/", " /"),
        headers: fields
            .filter(|(name, _)| name != "idempotency-key")
            .collect(),
        body: body.to_owned(),
    }
}

/// Replaces the compact signature in `ours` by the one in `theirs`, if both are
/// the same but for what differs at every signing, and ours is by `key`.
fn same_but_for_the_moment(ours: &mut String, theirs: &str, key: &RsaKey) {
    let (header, claims) = opened(key, ours);
    let part = |n: usize| {
        use base64::Engine;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let part = theirs.split('.').nth(n).unwrap();
        String::from_utf8(URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    };
    assert_eq!(header, part(0));
    let (said, expected): (Value, Value) = (
        serde_json::from_str(&claims).unwrap(),
        serde_json::from_str(&part(1)).unwrap(),
    );
    assert_eq!(
        said["exp"].as_u64().unwrap(),
        said["iat"].as_u64().unwrap() + 60
    );
    assert_eq!(said["jti"].as_str().unwrap().len(), 32);
    let mut masked = part(1);
    for name in ["exp", "iat", "jti"] {
        masked = masked.replace(&expected[name].to_string(), &said[name].to_string());
    }
    // The realm of the capture is another address.
    if let (Some(ours), Some(theirs)) = (said["aud"].as_str(), expected["aud"].as_str())
        && ours.starts_with("http://127.0.0.1:")
    {
        masked = masked.replace(theirs, ours);
    }
    assert_eq!(claims, masked);
    theirs.clone_into(ours);
}

fn assertion(sent: &mut Sent) -> &mut String {
    let mut fields = sent.headers.iter_mut();
    let field = fields.find(|(name, _)| name == okta::ASSERTION);
    &mut field.unwrap().1
}

#[test]
fn an_assertion_is_the_one_of_the_sdk_byte_for_byte() {
    let vector: Value = serde_json::from_str(VECTOR).unwrap();
    let text = |name: &str| vector[name].as_str().unwrap();
    let request = Asserted {
        method: "post",
        path: text("path"),
        body: text("body_utf8").as_bytes(),
    };
    let api_key = ApiKey::parse(Secret::new(text("api_key"))).unwrap();
    let at = Timestamp(1_767_323_045_999_999_999);
    let moment = ("fixed-jti-0001", at);
    let ours = names().assertion(&key(), &api_key, request, moment, None);
    let ours = ours.unwrap();
    // Whole but for the signature, whose private key is not known.
    let signed = text("assertion").rsplit_once('.').unwrap().0;
    assert_eq!(ours.rsplit_once('.').unwrap().0, signed);
    opened(&key(), &ours);
}

#[tokio::test]
async fn an_okta_agent_asks_as_the_sdk_asks() {
    let vectors = vectors!(
        "v2-okta/01-bootstrap.json",
        "v2-okta/02-validate.json",
        "v2-okta/03-WorkflowStarted.json",
        "v2-okta/04-approval.json"
    );
    let core = Core::start(vec![
        say(&document_v2().to_string()),
        say("{}"),
        say(ALLOW),
        say(r#"{"action":"require_approval"}"#),
    ])
    .await;
    let identity = okta(None);
    let known = identity.known();
    let client = client(&core, identity);
    client.validate().await.unwrap();
    // Whoever checks what the agent asserts is told with us.
    let Some(Known::Okta(known)) = known else {
        panic!("{known:?}")
    };
    let told: Value = serde_json::from_slice(&known.bootstrap().unwrap()).unwrap();
    assert_eq!(told, document_v2());
    tell(&client, &vectors[2]).await.unwrap();
    poll(&client).await;
    let requests = core.requests();
    assert_eq!(requests.len(), vectors.len());
    for (n, (request, vector)) in requests.iter().zip(&vectors).enumerate() {
        let (mut ours, mut theirs) = (sent(request), captured(vector, &core));
        if n > 0 {
            same_but_for_the_moment(assertion(&mut ours), assertion(&mut theirs), &key());
        }
        assert_eq!(ours, theirs, "{n}");
    }
    // The digest in an assertion is of what came with it: said anew each time.
    let own = |n: usize| assertion(&mut sent(&requests[n])).clone();
    assert!(own(1) != own(2) && own(2) != own(3));
}

#[tokio::test]
async fn a_configured_okta_agent_needs_no_bootstrap() {
    let core = Core::start(vec![say("{}")]).await;
    client(&core, okta(Some(names()))).validate().await.unwrap();
    let [vector] = vectors!("v2-okta/02-validate.json");
    let (mut ours, mut theirs) = (sent(&core.requests()[0]), captured(&vector, &core));
    same_but_for_the_moment(assertion(&mut ours), assertion(&mut theirs), &key());
    assert_eq!(ours, theirs);
}

#[tokio::test]
async fn a_workload_asks_as_the_sdk_asks() {
    let vectors = vectors!(
        "v3-workload/01-bootstrap.json",
        "v3-workload/02-token.json",
        "v3-workload/03-validate.json",
        "v3-workload/04-WorkflowStarted.json",
        "v3-workload/05-approval.json"
    );
    let core = Core::start_with(|address| {
        vec![
            say(&document_v3(address).to_string()),
            say(TOKEN),
            say("{}"),
            say(ALLOW),
            say(r#"{"action":"require_approval"}"#),
        ]
    })
    .await;
    let client = client(&core, workload(Own::Unsigned));
    client.validate().await.unwrap();
    tell(&client, &vectors[3]).await.unwrap();
    poll(&client).await;
    let requests = core.requests();
    assert_eq!(requests.len(), vectors.len());
    for (n, (request, vector)) in requests.iter().zip(&vectors).enumerate() {
        let (mut ours, mut theirs) = (sent(request), captured(vector, &core));
        if n == 1 {
            // An identity provider is not shown the API key.
            assert!(!request.contains(KEY), "{request}");
            let at = "client_assertion=";
            let (form, jws) = ours.body.rsplit_once(at).unwrap();
            let (form, mut jws) = (form.to_owned(), jws.to_owned());
            same_but_for_the_moment(&mut jws, theirs.body.rsplit_once(at).unwrap().1, &key());
            ours.body = format!("{form}{at}{jws}");
            // Whose product asks is ours to say.
            theirs.headers.iter_mut().for_each(|(name, value)| {
                if name == "user-agent" {
                    let version = env!("CARGO_PKG_VERSION");
                    *value = format!("OpenBox-SDK/openbox-sidecar-rust-v{version}");
                }
            });
        }
        assert_eq!(ours, theirs, "{n}");
    }
}

#[tokio::test]
async fn without_a_workload_identity_core_is_asked_as_before() {
    let [bootstrap, first, second] = vectors!(
        "v3-workload-unavailable-falls-back-to-v1/01-bootstrap.json",
        "v3-workload-unavailable-falls-back-to-v1/02-WorkflowStarted.json",
        "v3-workload-unavailable-falls-back-to-v1/03-WorkflowStarted.json"
    );
    let unavailable = bootstrap["response"]["body"].to_string();
    for refused in [reply(409, &unavailable), reply(404, "")] {
        let core = Core::start(vec![Act::Say(refused), say(ALLOW)]).await;
        let client = client(&core, workload(Own::Unsigned));
        tell(&client, &first).await.unwrap();
        tell(&client, &second).await.unwrap();
        let ours: Vec<_> = core.requests().iter().map(|text| sent(text)).collect();
        let theirs = [&bootstrap, &first, &second].map(|vector| captured(vector, &core));
        assert_eq!(ours, theirs);
    }
    // As whoever we are without it.
    let script = || {
        vec![
            Act::Say(reply(409, &unavailable)),
            say(&document_v2().to_string()),
            say(ALLOW),
        ]
    };
    let core = Core::start(script()).await;
    tell(&client(&core, workload(okta(None).own)), &first)
        .await
        .unwrap();
    let lines = core
        .requests()
        .iter()
        .map(|text| sent(text).line)
        .collect::<Vec<_>>();
    assert_eq!(
        lines,
        [
            "GET /api/v3/auth/bootstrap HTTP/1.1",
            "GET /api/v2/auth/bootstrap HTTP/1.1",
            "POST /api/v2/governance/evaluate HTTP/1.1"
        ]
    );
    let core = Core::start(vec![Act::Say(reply(404, "")), say(ALLOW)]).await;
    let did = signed(&core.url()).identity.own;
    tell(&client(&core, workload(did)), &first).await.unwrap();
    assert!(core.requests()[1].contains("X-Openbox-Agent-Did: did:aip:"));
}

/// Proves `identity` to `core`, and answers the requests it was.
async fn proved(
    core: &Core,
    identity: Identities,
    (id, challenge): (&str, Option<&str>),
) -> Result<Vec<Sent>, StartError> {
    let settings = Settings {
        identity,
        ..settings(&core.url())
    };
    let prepared = Prepared {
        id: id.to_owned(),
        challenge: challenge.map(str::to_owned),
    };
    let said = prove(&settings, connect_plain(), &prepared).await?;
    assert_eq!(said, r#"{"status":"proved"}"#);
    Ok(core.requests().iter().map(|text| sent(text)).collect())
}

const PROVED: &str = r#"{"status":"proved"}"#;

#[tokio::test]
async fn a_did_is_proved_as_the_sdk_proves_it() {
    let [vector] = vectors!("transition-proof-v1/01-transition-proof.json");
    let core = Core::start(vec![say(PROVED)]).await;
    let identity = signed(&core.url()).identity;
    let verifier = identity.did().unwrap().clone();
    let mut ours = proved(&core, identity, ("tr-1", Some("challenge-xyz")))
        .await
        .unwrap();
    let mut theirs = captured(&vector, &core);
    let header = |name: &str| {
        let mut fields = ours[0].headers.iter();
        fields.find(|(is, _)| is == name).unwrap().1.clone()
    };
    let canonical = format!(
        "POST\n/api/v1/auth/transition-proof\n{}\n{}\n{}",
        header("x-openbox-agent-timestamp"),
        header("x-openbox-agent-nonce"),
        header("x-openbox-body-sha256")
    );
    assert!(verifier.has_signed(&canonical, &header("x-openbox-agent-signature")));
    for fields in [&mut ours[0].headers, &mut theirs.headers] {
        for (name, value) in fields {
            if ["timestamp", "nonce", "signature"]
                .iter()
                .any(|end| name.ends_with(end))
            {
                "masked".clone_into(value);
            }
        }
    }
    assert_eq!(ours, [theirs]);
}

#[tokio::test]
async fn an_okta_agent_is_proved_as_the_sdk_proves_it() {
    let [vector] = vectors!("transition-proof-v2/01-transition-proof.json");
    let core = Core::start(vec![say(PROVED)]).await;
    let prepared = ("tr-2", Some("challenge-xyz"));
    let mut ours = proved(&core, okta(Some(names())), prepared).await.unwrap();
    let mut theirs = captured(&vector, &core);
    same_but_for_the_moment(assertion(&mut ours[0]), assertion(&mut theirs), &key());
    assert_eq!(ours, [theirs]);
}

#[tokio::test]
async fn a_workload_is_proved_as_the_sdk_proves_it() {
    const ID: &str = "99999999-9999-4999-8999-999999999999";
    let vectors = vectors!(
        "v3-transition/01-bootstrap.json",
        "v3-transition/02-proof.json"
    );
    let document = |at: std::net::SocketAddr| {
        let text = vectors[0]["response"]["body"].to_string();
        text.replace("127.0.0.1:18086", &at.to_string())
    };
    let core = Core::start_with(|at| vec![say(&document(at)), say(PROVED)]).await;
    let identity = workload(Own::Unsigned);
    let mut ours = proved(&core, identity.clone(), (ID, None)).await.unwrap();
    let theirs = [0, 1].map(|n| captured(&vectors[n], &core));
    let jws = |body: &str| {
        let body: Value = serde_json::from_str(body).unwrap();
        body["client_assertion"].as_str().unwrap().to_owned()
    };
    let (own, expected) = (jws(&ours[1].body), jws(&theirs[1].body));
    let mut masked = own.clone();
    same_but_for_the_moment(&mut masked, &expected, &key());
    ours[1].body = ours[1].body.replace(&own, &masked);
    assert_eq!(ours, theirs);

    // Another transition, one that has ended, one that is none.
    let core = Core::start_with(|at| vec![say(&document(at))]).await;
    let other = "99999999-9999-4999-8999-999999999990";
    let ended = Core::start(vec![Act::Say(reply(409, "{}"))]).await;
    for (core, id, words) in [
        (&core, other, "another transition"),
        (&ended, ID, "does not wait for a proof"),
        (&ended, "1&transition_id=2", "a UUID"),
    ] {
        let error = proved(core, identity.clone(), (id, None))
            .await
            .unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test]
async fn nothing_is_proved_by_another_key_than_the_one_that_is_configured() {
    let core = Core::start(vec![Act::Say(reply(
        401,
        r#"{"reason_code":"proof_expired"}"#,
    ))])
    .await;
    for (identity, challenge, words) in [
        (Identities::default(), Some("c"), "neither is set"),
        (
            Identities::default(),
            None,
            "OPENBOX_WORKLOAD_PRIVATE_KEY is not set",
        ),
        (workload(Own::Unsigned), Some("c"), "has no challenge"),
        (okta(None), Some("c"), "OPENBOX_OKTA_AGENT_KEY_ID"),
        (okta(None), None, "OPENBOX_WORKLOAD_PRIVATE_KEY is not set"),
    ] {
        let error = proved(&core, identity, ("tr", challenge))
            .await
            .unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    assert!(core.requests().is_empty());
    let error = proved(&core, okta(Some(names())), ("tr", Some("c"))).await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("rejected us") && error.contains("clock"),
        "{error}"
    );
}
