//! A stand-in for OpenBox Core that says what a test tells it to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::origin::Origin;
use super::wire::Wire;

/// What is answered to one question.
#[derive(Clone)]
pub(crate) enum Say {
    /// This status and body.
    Answer(u16, String),
    /// These bytes, and the end of the connection.
    Bytes(&'static [u8]),
    /// Nothing, for as long as the asker waits.
    Nothing,
}

/// A verdict as Core spells it.
pub(crate) fn verdict(word: &str) -> Say {
    let body = serde_json::json!({
        "governance_event_id": "core-event",
        "verdict": word,
        "action": word,
        "reason": format!("core says {word}"),
        "policy_id": "core-policy",
    });
    Say::Answer(200, body.to_string())
}

type Script = Box<dyn Fn(&str, &Value) -> Say + Send>;

pub(crate) struct Core {
    origin: Origin,
    script: Arc<Mutex<Script>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// One question: its route, its idempotency key, its body.
type Asked = (String, String, Value);

impl Core {
    /// Accepts every key and allows everything.
    pub(crate) fn start() -> Self {
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(Box::new(|_, _| verdict("allow"))));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (told, log) = (script.clone(), asked.clone());
        let origin = Origin::raw(move |mut wire, _| {
            while let Some(request) = wire.request() {
                let route = request
                    .head
                    .path()
                    .rsplit('/')
                    .next()
                    .unwrap_or_default()
                    .to_owned();
                let body: Value = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
                let key = request.get("idempotency-key").unwrap_or_default();
                let question = (route.clone(), key.to_owned(), body.clone());
                log.lock().unwrap().push(question);
                let say = match route.as_str() {
                    "validate" => Say::Answer(200, r#"{"valid":true}"#.to_owned()),
                    route => told.lock().unwrap()(route, &body),
                };
                if !answered(&mut wire, &say) {
                    return;
                }
            }
        });
        Self {
            origin,
            script,
            asked,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.address().port())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.origin.address
    }

    /// From now on: the route (`evaluate`, `approval`) and the body of a
    /// question say what is answered.
    pub(crate) fn script(&self, script: impl Fn(&str, &Value) -> Say + Send + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    /// Says `say` to operations at `stage`, and allows everything else.
    pub(crate) fn at(&self, stage: &'static str, say: Say) {
        self.script(move |_, body| {
            if body["spans"][0]["stage"] == stage {
                say.clone()
            } else {
                verdict("allow")
            }
        });
    }

    /// Bodies of all questions to `route` so far.
    pub(crate) fn asked(&self, route: &str) -> Vec<Value> {
        let asked = self.keyed(route);
        asked.into_iter().map(|(_, body)| body).collect()
    }

    /// The same, each with the idempotency key it came under.
    pub(crate) fn keyed(&self, route: &str) -> Vec<(String, Value)> {
        let asked = self.asked.lock().unwrap();
        let questions = asked.iter().filter(|(r, ..)| r == route);
        questions
            .map(|(_, key, body)| (key.clone(), body.clone()))
            .collect()
    }
}

fn answered(wire: &mut Wire, say: &Say) -> bool {
    match say {
        Say::Answer(status, body) => {
            let text = format!(
                "HTTP/1.1 {status} Said\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            wire.try_say(text).is_ok()
        }
        Say::Bytes(bytes) => {
            drop(wire.try_say(bytes));
            false
        }
        Say::Nothing => {
            drop(wire.rest());
            false
        }
    }
}
