//! Keys: out of the environment, or out of files that only their owner may read.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::policy::core::ApiKey;
use crate::redact::Secret;

use super::resolve::Resolver;
use super::value::Wrong;

/// Longest secret file read, bytes.
const SECRET_BYTES_MAX: u64 = 4_096;

impl Resolver<'_> {
    /// The API key that goes with a Core; its absence is a problem.
    pub(super) fn api_key(&mut self, in_file: Option<String>) -> Option<ApiKey> {
        let (at, key) = match (
            self.env.get("OPENBOX_API_KEY"),
            self.given("core.api_key_file", in_file),
        ) {
            (Some(_), Some(file)) if file.at == "OPENBOX_API_KEY_FILE" => {
                let found = "OPENBOX_API_KEY is set too".to_owned();
                let wrong = Wrong::new(found, "one of the two", "unset OPENBOX_API_KEY");
                self.tell(&file.at, wrong);
                return None;
            }
            (Some(key), _) => ("OPENBOX_API_KEY".to_owned(), Secret::new(key.to_owned())),
            (None, Some(file)) => (file.at.clone(), self.secret_in(&file.at, &file.text)?),
            (None, None) => {
                let found = "a Core is set, and no API key".to_owned();
                let expected = "the agent's API key, or OPENBOX_API_KEY_FILE with its path";
                let wrong = Wrong::new(found, expected, "OPENBOX_API_KEY=obx_live_…");
                self.tell("OPENBOX_API_KEY", wrong);
                return None;
            }
        };
        match ApiKey::parse(key) {
            Ok(key) => Some(key),
            Err(unfit) => {
                self.tell(&at, unfit.into());
                None
            }
        }
    }

    fn secret_in(&mut self, at: &str, path: &str) -> Option<Secret> {
        match read(Path::new(path)) {
            Ok((secret, mode)) => {
                if mode & 0o004 != 0 {
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

fn read(path: &Path) -> Result<(Secret, u32), String> {
    let told = |error: std::io::Error| error.to_string();
    let file = File::open(path).map_err(told)?;
    let mode = file.metadata().map_err(told)?.permissions().mode();
    let mut text = String::new();
    // One byte more than allowed, so that too long is seen.
    let limit = SECRET_BYTES_MAX.saturating_add(1);
    file.take(limit).read_to_string(&mut text).map_err(told)?;
    let text = Secret::new(text);
    if u64::try_from(text.expose().len()).unwrap_or(u64::MAX) > SECRET_BYTES_MAX {
        return Err(format!("it is longer than {SECRET_BYTES_MAX} bytes"));
    }
    Ok((Secret::new(text.expose().trim().to_owned()), mode))
}
