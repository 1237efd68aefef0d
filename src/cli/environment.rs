//! What a program needs in its environment to go through a sidecar.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::redact::Secret;

/// The sidecar as its agent sees it.
#[derive(Debug)]
pub(super) struct Environment {
    /// Where the HTTP proxy listens.
    pub(super) http: Option<SocketAddr>,
    /// Where the agent API listens.
    pub(super) agent: Option<SocketAddr>,
    /// What opens the agent API.
    pub(super) token: Secret,
    /// Where `ca.pem` and `bundle.pem` are.
    pub(super) state_dir: PathBuf,
}

/// One variable, and its value or that it is taken out.
pub(super) type Change = (OsString, Option<OsString>);

impl Environment {
    /// The changes to `parent`, each variable once.
    pub(super) fn changes(&self, parent: &[(OsString, OsString)]) -> Vec<Change> {
        // PLUG(net): child_env::changes(parent, &Given { .. }) with ca.pem, bundle.pem and the
        // Java store of `state_dir`; env_text::render for the `env` verb. Until then the least:
        // nothing of ours reaches the child, and its plain HTTP goes through us.
        let private = parent.iter().map(|(name, _)| name);
        let private = private.filter(|name| name.to_string_lossy().starts_with("OPENBOX_"));
        let mut changes: Vec<_> = private.map(|name| (name.clone(), None)).collect();
        let mut set = |name: &str, value: String| {
            changes.retain(|(known, _)| known != name);
            changes.push((name.into(), Some(value.into())));
        };
        if let Some(http) = self.http {
            for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"] {
                set(name, format!("http://{http}"));
            }
            set(
                "SSL_CERT_FILE",
                self.state_dir.join("bundle.pem").display().to_string(),
            );
        }
        if let Some(agent) = self.agent {
            set("OPENBOX_URL", format!("http://{agent}"));
            set("OPENBOX_API_KEY", self.token.expose().to_owned());
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_child_gets_the_agents_token_and_no_secret_of_ours() {
        let environment = Environment {
            http: None,
            agent: Some("127.0.0.1:1".parse().unwrap()),
            token: Secret::new("obx_test_child".to_owned()),
            state_dir: PathBuf::from("/s"),
        };
        let parent = [
            ("OPENBOX_API_KEY", "obx_live_real"),
            ("OPENBOX_AGENT_PRIVATE_KEY", "pem"),
            ("PATH", "/bin"),
        ];
        let parent = parent.map(|(name, value)| (name.into(), value.into()));
        let changes = environment.changes(&parent);
        let of = |name: &str| {
            changes
                .iter()
                .find(|(known, _)| known == name)
                .map(|c| c.1.clone())
        };
        assert_eq!(of("OPENBOX_API_KEY"), Some(Some("obx_test_child".into())));
        assert_eq!(of("OPENBOX_AGENT_PRIVATE_KEY"), Some(None));
        assert_eq!(of("PATH"), None);
    }
}
