//! Keys: out of the environment, or out of files that only their owner may read.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::control::auth::Token;
use crate::policy::core::{ApiKey, Unfit};
use crate::redact::Secret;

use super::PolicyMode;
use super::resolve::Resolver;
use super::value::Wrong;

/// A secret, and where it was found.
pub(super) struct Kept {
    pub(super) at: String,
    pub(super) secret: Secret,
    /// The file that it stands in, if it does in one.
    pub(super) file: Option<PathBuf>,
}

/// The problem was told already.
pub(super) struct Told;

impl Resolver<'_> {
    /// The API key that goes with a Core; its absence is a problem.
    pub(super) fn api_key(&mut self, in_file: Option<String>) -> Option<ApiKey> {
        let Kept { at, secret, .. } =
            match self.kept("OPENBOX_API_KEY", "core.api_key_file", in_file) {
                Ok(Some(kept)) => kept,
                Ok(None) => {
                    let found = "a Core is set, and no API key".to_owned();
                    let expected = "the agent's API key, or OPENBOX_API_KEY_FILE with its path";
                    let wrong = Wrong::new(found, expected, "OPENBOX_API_KEY=obx_live_…");
                    self.tell("OPENBOX_API_KEY", wrong);
                    return None;
                }
                Err(Told) => return None,
            };
        match ApiKey::parse(secret) {
            Ok(key) => Some(key),
            Err(unfit) => {
                self.tell(&at, unfit.into());
                None
            }
        }
    }

    /// The agent API's token, where somebody made one; it must not be what opens Core.
    pub(super) fn agent_token(
        &mut self,
        in_file: Option<String>,
        judge: Option<&PolicyMode>,
    ) -> Option<Token> {
        let kept = self.kept("OPENBOX_AGENT_TOKEN", "listen.agent_token_file", in_file);
        let Kept { at, secret, .. } = kept.ok()??;
        let opens_core = match judge {
            Some(PolicyMode::Core(core)) => core.client.key.is(&secret),
            Some(PolicyMode::Local(_)) | None => false,
        };
        let token = Token::of_agent(secret);
        let wrong = match token {
            Ok(_) if opens_core => "the API key of Core, which the agent must not have".to_owned(),
            Ok(token) => return Some(token),
            Err(error) => error.to_string(),
        };
        let expected = "obx_test_ (or obx_live_) and 32 or more letters, digits and _";
        let example = "obx_test_$(openssl rand -hex 24)";
        self.tell(&at, Wrong::new(wrong, expected, example));
        None
    }

    pub(super) fn fit<T>(&mut self, parsed: Result<T, Unfit>, at: &str) -> Option<T> {
        parsed.map_err(|unfit| self.tell(at, unfit.into())).ok()
    }

    /// A secret that stands in `variable`, or in the file that `key` names.
    pub(super) fn kept(
        &mut self,
        variable: &str,
        key: &str,
        in_file: Option<String>,
    ) -> Result<Option<Kept>, Told> {
        let (of_env, of_file) = (self.env.get(variable), self.given(key, in_file));
        match (of_env, of_file) {
            (Some(_), Some(file)) if file.at.strip_suffix("_FILE") == Some(variable) => {
                let found = format!("{variable} is set too");
                let wrong = Wrong::new(found, "one of the two", &format!("unset {variable}"));
                self.tell(&file.at, wrong);
                Err(Told)
            }
            (Some(secret), _) => Ok(Some(Kept {
                at: variable.to_owned(),
                secret: Secret::new(secret),
                file: None,
            })),
            (None, Some(file)) => {
                let secret = self.secret_in(&file.at, &file.text).ok_or(Told)?;
                Ok(Some(Kept {
                    at: file.at,
                    secret,
                    file: Some(PathBuf::from(file.text)),
                }))
            }
            (None, None) => Ok(None),
        }
    }

    fn secret_in(&mut self, at: &str, path: &str) -> Option<Secret> {
        match Secret::in_file(Path::new(path)) {
            Ok((secret, found)) => {
                if found.permissions().mode() & 0o004 != 0 {
                    self.warnings.push(format!(
                        "{at}: every user of this machine can read {path}; chmod 600 it"
                    ));
                }
                Some(secret)
            }
            Err(found) => {
                let expected = "a file with the secret and nothing else";
                let wrong = Wrong::new(
                    format!("{path}: {found}"),
                    expected,
                    "/run/secrets/openbox-api-key",
                );
                self.tell(at, wrong);
                None
            }
        }
    }
}
