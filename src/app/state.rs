//! The files in the state folder by which others find a running sidecar.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::control::auth::{Token, write_private};
use crate::net::trust::write_atomically;

use super::{Addresses, StartError};

/// How the command line finds the operator API and the HTTP proxy: url, token, process id, address.
pub(super) const OPERATOR: &str = "operator.json";
/// What opens the agent API.
pub const AGENT_TOKEN: &str = "agent-token";
/// Whoever sees the shared folder is the agent.
const SHARED: u32 = 0o644;

/// Makes the folder, for its owner alone, unless it is there.
pub(super) fn create_folder(folder: &Path) -> Result<(), StartError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(failed(folder))
}

/// Makes the folder that agents see, unless it is there.
pub(super) fn create_shared(folder: &Path) -> Result<(), StartError> {
    let made = DirBuilder::new().recursive(true).mode(0o755).create(folder);
    made.map_err(failed(folder))
}

/// Writes the agent's token where agents under another user read it. Last of the shared files: who waits for
/// it finds the others.
pub(super) fn share_token(folder: &Path, token: &Token) -> Result<(), StartError> {
    let path = folder.join(AGENT_TOKEN);
    write_atomically(&path, token.expose().as_bytes(), SHARED).map_err(failed(&path))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> StartError {
    let path = path.to_path_buf();
    move |source| StartError::State { path, source }
}

/// What opens the two APIs.
pub(super) struct Tokens {
    pub(super) agent: Token,
    pub(super) operator: Token,
}

/// Removes `operator.json` when it is dropped: nothing answers there any more.
#[derive(Debug)]
pub(super) struct StateFiles {
    operator: Option<PathBuf>,
}

impl StateFiles {
    /// Writes the tokens. The caller holds the journal's lock, so nobody else
    /// writes here.
    pub(super) fn write(
        folder: &Path,
        addresses: &Addresses,
        tokens: &Tokens,
    ) -> Result<Self, StartError> {
        let token = folder.join(AGENT_TOKEN);
        write_private(&token, tokens.agent.expose().as_bytes()).map_err(failed(&token))?;
        let path = folder.join(OPERATOR);
        let Some(address) = addresses.operator else {
            // One that a killed sidecar left behind would mislead.
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&path)(error)),
                Ok(()) | Err(_) => Ok(Self { operator: None }),
            };
        };
        let text = serde_json::json!({
            "url": format!("http://{address}"),
            "token": tokens.operator.expose(),
            "pid": std::process::id(),
            "http": addresses.http,
        });
        write_private(&path, text.to_string().as_bytes()).map_err(failed(&path))?;
        Ok(Self {
            operator: Some(path),
        })
    }
}

impl Drop for StateFiles {
    fn drop(&mut self) {
        if let Some(path) = &self.operator
            && let Err(error) = fs::remove_file(path)
        {
            tracing::warn!(path = %path.display(), %error, "cannot be removed");
        }
    }
}
