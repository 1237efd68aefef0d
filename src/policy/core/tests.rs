//! The wire against the vectors, the table of answers, and a Core that behaves
//! in every way.

mod answers;
mod contract;
mod failing;
mod handoffs;
pub(super) mod identities;
mod identity_failing;
mod published;
mod server;
mod told;
mod vectors;

use std::sync::Arc;

use crate::domain::{
    Action, ActivityRef, Attribution, Capture, Captured, Context, Fingerprint, Headers, HttpCall,
    JsonText, Operation, OperationId, SpanId, Timestamp, TraceId,
};
use crate::redact::Secret;

use super::{ApiKey, CoreUrl, Settings};

const KEY: &str = "obx_test_capture_key_0003";

fn settings(url: &str) -> Settings {
    // What is asked again is a matter of its own: `failing`.
    Settings {
        retries_max: 0,
        ..Settings::new(
            CoreUrl::parse(url).unwrap(),
            ApiKey::parse(Secret::new(KEY.to_owned())).unwrap(),
        )
    }
}

fn headers(fields: &[(&str, &str)]) -> Headers {
    let mut headers = Headers::default();
    for (name, value) in fields {
        headers.push(name, value);
    }
    headers
}

fn whole(text: &str) -> Capture {
    Capture {
        trailers: None,
        text: Some(text.to_owned()),
        bytes: text.len() as u64,
        digest: None,
        state: Captured::Whole,
        ..Capture::default()
    }
}

pub(super) fn context(activity: Option<ActivityRef>) -> Arc<Context> {
    Arc::new(Context {
        workflow_id: "wf-conf".into(),
        run_id: "run-conf".into(),
        workflow_type: "ConfWorkflow".into(),
        task_queue: "conf-queue".into(),
        activity,
    })
}

fn activity() -> ActivityRef {
    ActivityRef {
        id: "act-1".into(),
        kind: "conf_activity".into(),
        attempt: 2,
        input: JsonText(r#"[{"q": "x"}]"#.into()),
    }
}

pub(super) fn operation(context: Arc<Context>) -> Operation {
    Operation {
        id: OperationId::new(1, 2),
        trace: TraceId(0x5c05_5c74_a9b0_39f8_f942_6ec9_cf9f_37d4),
        span: SpanId(0xb2be_242e_1afc_d25b),
        parent: None,
        started_at: Timestamp(1_795_205_533_597_146_704),
        context,
        attribution: Attribution::OwnSession,
        fingerprint: Some(Fingerprint([0xab; 16])),
        action: Action::Http(HttpCall {
            method: "POST".into(),
            secrets: None,
            url: "http://127.0.0.1:18087/items".into(),
            scheme: "http",
            host: "127.0.0.1".into(),
            port: 18087,
            path: "/items".into(),
            headers: headers(&[
                ("User-Agent", "python-requests/2.34.2"),
                ("Accept-Encoding", "gzip, deflate"),
                ("Accept", "*/*"),
                ("Connection", "keep-alive"),
                ("Content-Length", "8"),
                ("Content-Type", "application/json"),
            ]),
            body: whole(r#"{"a": 1}"#),
            tool: None,
        }),
        reported: None,
    }
}
