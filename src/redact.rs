//! Secrets that do not travel: never into a log, a metric, the journal or policy.

use std::borrow::Cow;
use std::fmt;
use std::fs::{File, Metadata};
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// What stands where a secret stood.
pub const REDACTED: &str = "[REDACTED]";

/// Longest file with a secret that is read, bytes: an RSA key of 8192 bits has 6,500.
const FILE_BYTES_MAX: u64 = 16_384;

/// A secret text. It is wiped when dropped, and `Debug` does not show it.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes over `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// What stands in a file, without space around it, and what that file was then.
    ///
    /// # Errors
    ///
    /// When it cannot be read, is no text, or is longer than any secret: what is wrong, in words.
    pub fn in_file(path: &Path) -> Result<(Self, Metadata), String> {
        let told = |error: std::io::Error| error.to_string();
        let file = File::open(path).map_err(told)?;
        // Of what is read, though another may take its place meanwhile.
        let found = file.metadata().map_err(told)?;
        let mut text = Zeroizing::new(String::new());
        // One byte more than allowed, so that too long is seen.
        let limit = FILE_BYTES_MAX.saturating_add(1);
        file.take(limit).read_to_string(&mut text).map_err(told)?;
        if u64::try_from(text.len()).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
            return Err(format!("it is longer than {FILE_BYTES_MAX} bytes"));
        }
        Ok((Self::new(text.trim()), found))
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
/// (contract §3.3), what SDKs themselves show Core, and keys and tokens of much used APIs. The list
/// is in the README.
pub fn is_secret_header(name: &str) -> bool {
    const NAMES: [&str; 23] = [
        "authorization",
        "proxy-authorization",
        "cookie",
        "set-cookie",
        "x-api-key",
        "api-key",
        "x-auth-token",
        "x-amz-security-token",
        "x-goog-api-key",
        "x-goog-iam-authorization-token",
        "x-openbox-agent-assertion",
        "x-openbox-workload-token",
        "private-token",
        "x-vault-token",
        "ocp-apim-subscription-key",
        "x-functions-key",
        "x-shopify-access-token",
        "dd-api-key",
        "dd-application-key",
        "x-github-token",
        "apikey",
        "x-access-token",
        "x-auth-key",
    ];
    NAMES.iter().any(|secret| name.eq_ignore_ascii_case(secret))
}

/// Whether a parameter of this name in the query of a URL carries a secret. The list is in the
/// README.
fn is_secret_parameter(name: &str) -> bool {
    const NAMES: [&str; 25] = [
        "access_key",
        "access_token",
        "api-key",
        "api_key",
        "apikey",
        "auth_token",
        "client_assertion",
        "client_secret",
        "id_token",
        "key",
        "passwd",
        "password",
        "pwd",
        "refresh_token",
        "secret",
        "sig",
        "signature",
        "subscription-key",
        "token",
        "x-amz-credential",
        "x-amz-security-token",
        "x-amz-signature",
        "x-api-key",
        "x-goog-credential",
        "x-goog-signature",
    ];
    NAMES.iter().any(|secret| name.eq_ignore_ascii_case(secret))
}

/// A URL as it may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown<'a> {
    /// With [`REDACTED`] in the place of what is secret in its query.
    pub url: Cow<'a, str>,
    /// The SHA-256 of what is not shown, so that two that differ there are told apart.
    pub secrets: Option<[u8; 32]>,
}

/// `url` without the values of parameters that are secrets by their name. What there is no name
/// for, as in `?abc`, and what is in the path, is shown.
pub fn url(url: &str) -> Shown<'_> {
    let whole = Shown {
        url: Cow::Borrowed(url),
        secrets: None,
    };
    let Some((before, query)) = url.split_once('?') else {
        return whole;
    };
    let mut shown = String::with_capacity(url.len());
    let mut digest = None;
    shown.push_str(before);
    let mut between = '?';
    for part in query.split('&') {
        shown.push(std::mem::replace(&mut between, '&'));
        let Some((name, secret)) = secret_in(part) else {
            shown.push_str(part);
            continue;
        };
        let digest = digest.get_or_insert_with(Sha256::new);
        // With its length: two values are not one.
        digest.update(secret.len().to_be_bytes());
        digest.update(secret);
        shown.push_str(name);
        shown.push_str(REDACTED);
    }
    match digest {
        Some(digest) => Shown {
            url: Cow::Owned(shown),
            secrets: Some(digest.finalize().into()),
        },
        None => whole,
    }
}

/// What stands between two `&`, cut behind the first `=` whose name means a secret, if one does and
/// anything follows it. Some servers have parameters end with `;`, too.
fn secret_in(part: &str) -> Option<(&str, &str)> {
    let mut at = 0_usize;
    for piece in part.split_inclusive(';') {
        if let Some((name, _)) = piece.split_once('=')
            && is_secret_parameter(&decoded(name))
        {
            let cut = at.saturating_add(name.len()).saturating_add(1);
            let (name, secret) = part.split_at_checked(cut)?;
            return (!secret.is_empty()).then_some((name, secret));
        }
        at = at.saturating_add(piece.len());
    }
    None
}

/// `name` as a server reads it that decodes it: `access%5Ftoken` is no way around.
fn decoded(name: &str) -> Cow<'_, str> {
    if !name.contains('%') {
        return Cow::Borrowed(name);
    }
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let digits = (*first == b'%')
            .then(|| behind.split_at_checked(2))
            .flatten();
        let read = digits.and_then(|(digits, behind)| {
            let digits = std::str::from_utf8(digits).ok()?;
            Some((u8::from_str_radix(digits, 16).ok()?, behind))
        });
        let (byte, behind) = read.unwrap_or((*first, behind));
        bytes.push(byte);
        rest = behind;
    }
    String::from_utf8_lossy(&bytes).into_owned().into()
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
        for name in ["Private-Token", "X-Vault-Token", "apikey", "DD-API-KEY"] {
            assert!(is_secret_header(name), "{name}");
        }
        assert!(!is_secret_header("accept"));
    }

    #[test]
    fn a_secret_in_a_query_is_not_shown_and_all_else_is() {
        #[rustfmt::skip]
        let table = [
            // URL                                          shown
            ("https://a.test/x",                            "https://a.test/x"),
            ("https://a.test/token=1?q=key",                "https://a.test/token=1?q=key"),
            ("https://a.test/x?api_key=abc&q=1",            "https://a.test/x?api_key=[REDACTED]&q=1"),
            ("https://a.test/?q=1&Access_Token=a=b&r",      "https://a.test/?q=1&Access_Token=[REDACTED]&r"),
            ("https://a.test/?access%5Ftoken=abc",          "https://a.test/?access%5Ftoken=[REDACTED]"),
            ("https://a.test/?a=1;sig=2;b=3&c=4",           "https://a.test/?a=1;sig=[REDACTED]&c=4"),
            ("https://a.test/?X-Amz-Signature=9&X-Amz-Date=8", "https://a.test/?X-Amz-Signature=[REDACTED]&X-Amz-Date=8"),
            ("https://a.test/?token=&key",                  "https://a.test/?token=&key"),
            ("https://a.test/?monkey=1&tokens=2&%=3&%6=4",  "https://a.test/?monkey=1&tokens=2&%=3&%6=4"),
            ("https://a.test/?",                            "https://a.test/?"),
            ("/?a?key=1&key=2",                             "/?a?key=1&key=[REDACTED]"),
        ];
        for (whole, expected) in table {
            let shown = url(whole);
            assert_eq!(shown.url, expected);
            assert_eq!(shown.secrets.is_some(), shown.url != whole, "{whole}");
        }
    }

    #[test]
    fn what_is_not_shown_is_told_apart() {
        let secrets = |query: &str| url(&format!("https://a.test/?{query}")).secrets.unwrap();
        assert_eq!(secrets("key=1&a=2"), secrets("key=1&a=3"));
        assert_ne!(secrets("key=1"), secrets("key=2"));
        assert_ne!(secrets("key=12&sig=3"), secrets("key=1&sig=23"));
        assert_ne!(secrets("key=1&sig=2"), secrets("key=2&sig=1"));
    }
}
