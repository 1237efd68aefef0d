//! Secrets that do not travel: never into a log, a metric, the journal or policy.

use std::fmt;

use zeroize::Zeroizing;

/// What stands where a secret stood.
pub const REDACTED: &str = "[REDACTED]";

/// A secret text. It is wiped when dropped, and `Debug` does not show it.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes over `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The secret itself, for the one place that sends or compares it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

/// Whether a header of this name carries a secret: the list of the SDKs
/// (contract §3.3), and what SDKs themselves show Core.
pub fn is_secret_header(name: &str) -> bool {
    const NAMES: [&str; 10] = [
        "authorization",
        "proxy-authorization",
        "cookie",
        "set-cookie",
        "x-api-key",
        "api-key",
        "x-auth-token",
        "x-amz-security-token",
        "x-openbox-agent-assertion",
        "x-openbox-workload-token",
    ];
    NAMES.iter().any(|secret| name.eq_ignore_ascii_case(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_itself_only_when_asked() {
        let secret = Secret::new("obx_live_1");
        assert_eq!(format!("{secret:?}"), "[REDACTED]");
        assert_eq!(secret.expose(), "obx_live_1");
    }

    #[test]
    fn secret_headers_are_known_in_any_case() {
        assert!(is_secret_header("Set-Cookie"));
        assert!(is_secret_header("X-OpenBox-Workload-Token"));
        assert!(!is_secret_header("accept"));
    }
}
