//! Handoffs: whose proof Core is shown, and what its answer becomes.

use super::server::{Act, Core, reply, say, signed};
use super::*;
use crate::policy::core::{CoreClient, connect_plain};
use crate::policy::{HandedOver, HandingOver, Handoff, PolicyBackend, PolicyError};

const TEXT: &[u8] = br#"{"target_agent_id": "other"}"#;
const TAKEN: &str = r#"{"status":"ok"}"#;

async fn handed(settings: Settings, proof: bool) -> Result<HandedOver, PolicyError> {
    let client = CoreClient::new(settings, connect_plain());
    let named = [
        ("x-openbox-agent-did", Box::from("did:aip:the-agents")),
        ("x-openbox-agent-signature", Box::from("its-own")),
    ];
    let handoff = Handoff {
        id: OperationId::new(0, 7),
        text: TEXT,
        proof: proof.then_some(&named[..]),
    };
    match client.hand_over(handoff) {
        HandingOver::Later(asked) => asked.await,
        other @ (HandingOver::Here | HandingOver::Unproven) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn our_own_identity_goes_before_the_agents() {
    for proof in [false, true] {
        let core = Core::start(vec![say(TAKEN)]).await;
        let taken = handed(signed(&core.url()), proof).await.unwrap();
        assert_eq!(taken.text, TAKEN.as_bytes());
        let request = core.requests().concat();
        assert!(
            request.starts_with("POST /base/api/v1/handoffs "),
            "{request}"
        );
        assert!(request.as_bytes().ends_with(TEXT), "{request}");
        assert_eq!(request.matches("X-Openbox-Agent-Did").count(), 1);
        assert!(!request.contains("the-agents"), "{request}");
    }
    let core = Core::start(vec![say(TAKEN)]).await;
    assert!(handed(settings(&core.url()), true).await.is_ok());
    let request = core.requests().concat();
    assert!(request.contains("did:aip:the-agents") && request.contains("its-own"));
}

#[tokio::test]
async fn without_any_proof_core_is_not_asked() {
    let core = Core::start(vec![say(TAKEN)]).await;
    let client = CoreClient::new(settings(&core.url()), connect_plain());
    let handoff = Handoff {
        id: OperationId::new(0, 7),
        text: TEXT,
        proof: None,
    };
    let asked = client.hand_over(handoff);
    assert!(matches!(asked, HandingOver::Unproven), "{asked:?}");
    assert!(core.requests().is_empty());
}

#[tokio::test]
async fn an_answer_is_passed_on_and_anything_else_is_told_apart() {
    let said = |status, body| vec![Act::Say(reply(status, body))];
    #[rustfmt::skip]
    let table = [
        (said(200, TAKEN),                            Some(200), ""),
        (said(403, r#"{"reason_code":"x"}"#),         Some(403), ""),
        (said(503, r#"{"message":"x"}"#),             Some(503), ""),
        (said(200, "ok"),                             None,      "unjudgeable"),
        (said(200, "[1]"),                            None,      "unjudgeable"),
        (said(404, "nothing here"),                   None,      "unjudgeable"),
        (said(502, "bad gateway"),                    None,      "unavailable"),
        (vec![Act::SayAndClose(String::new())],       None,      "unavailable"),
    ];
    for (script, status, error) in table {
        let row = format!("{script:?}");
        let core = Core::start(script).await;
        match handed(signed(&core.url()), false).await {
            Ok(handed) => assert_eq!(Some(handed.status), status, "{row}"),
            Err(PolicyError::Unavailable(_)) => assert_eq!(error, "unavailable", "{row}"),
            Err(PolicyError::Unjudgeable(_)) => assert_eq!(error, "unjudgeable", "{row}"),
        }
        assert_eq!(core.requests().len(), 1, "asked once: {row}");
    }
}
