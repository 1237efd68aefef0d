//! Where Core is, and as whom we speak to it.

use std::fmt;
use std::time::Duration;

use crate::redact::Secret;

use super::proof::Identities;

/// How to reach OpenBox Core.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it is.
    pub url: CoreUrl,
    /// As whom we ask.
    pub key: ApiKey,
    /// As which agent we ask.
    pub identity: Identities,
    /// How long a question may take, from asking to the whole answer.
    pub answer_within: Duration,
    /// Most times a question is asked again that got no answer, within
    /// `answer_within`; together at most a tenth of all questions.
    pub retries_max: u32,
    /// Most questions asked at once; a further one waits for its turn.
    pub in_flight_max: usize,
    /// Largest answer read, bytes.
    pub answer_bytes_max: usize,
    /// Largest question asked, bytes; a larger one is said shorter. Core itself
    /// fails on larger ones.
    pub question_bytes_max: usize,
}

impl Settings {
    /// The defaults of the SDKs, and bounds where they have none.
    pub fn new(url: CoreUrl, key: ApiKey) -> Self {
        Self {
            url,
            key,
            identity: Identities::default(),
            answer_within: Duration::from_secs(30),
            retries_max: 2,
            in_flight_max: 256,
            answer_bytes_max: 1024 * 1024,
            question_bytes_max: 256_000,
        }
    }
}

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// What was found, in words; never a secret.
    pub found: String,
    /// What is expected.
    pub expected: &'static str,
    /// One that would do.
    pub example: &'static str,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            found,
            expected,
            example,
        } = self;
        write!(f, "{found}; expected {expected}, for example {example}")
    }
}

impl std::error::Error for Unfit {}

/// How Core is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear: loopback only.
    Http,
    /// TLS.
    Https,
}

impl Scheme {
    /// The word of URLs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The checked base URL of Core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreUrl {
    scheme: Scheme,
    host: Box<str>,
    port: u16,
    authority: Box<str>,
    base: Box<str>,
}

impl CoreUrl {
    /// Reads a URL. A path is kept and stands before every route.
    ///
    /// # Errors
    ///
    /// When it is no http or https URL, carries credentials, a query or a
    /// fragment, or is plain http to a host that is not loopback.
    pub fn parse(text: &str) -> Result<Self, Unfit> {
        let unfit = |why: &str| Unfit {
            found: format!("\"{}\" {why}", without_credentials(text)),
            expected: "an https URL, or http to localhost, 127.0.0.1 or [::1]",
            example: "https://core.openbox.ai",
        };
        if text.contains('#') {
            return Err(unfit("has a fragment"));
        }
        let uri: http::Uri = text
            .trim()
            .parse()
            .map_err(|_| unfit("cannot be read as a URL"))?;
        let scheme = match uri.scheme_str() {
            Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            Some(_) => return Err(unfit("is neither http nor https")),
            None => return Err(unfit("does not say http or https")),
        };
        let authority = uri.authority().ok_or_else(|| unfit("names no host"))?;
        if authority.as_str().contains('@') {
            return Err(unfit("carries credentials"));
        }
        if uri.query().is_some() {
            return Err(unfit("has a query"));
        }
        let host = authority.host().to_ascii_lowercase();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(unfit("names no host"));
        }
        let is_loopback = matches!(host, "localhost" | "127.0.0.1" | "::1");
        let default_port = match scheme {
            Scheme::Http if is_loopback => 80,
            Scheme::Http => {
                return Err(unfit("would send the API key in the clear to another host"));
            }
            Scheme::Https => 443,
        };
        let port = match authority.as_str().rsplit_once(':') {
            Some((_, port)) if !port.ends_with(']') => {
                port.parse().map_err(|_| unfit("has no usable port"))?
            }
            _ => default_port,
        };
        Ok(Self {
            scheme,
            host: host.into(),
            port,
            authority: authority.as_str().into(),
            base: uri.path().trim_end_matches('/').into(),
        })
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Lower case, without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, written or not.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port as they were written: the `Host` header.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The path before every route, without a slash at its end.
    pub fn base(&self) -> &str {
        &self.base
    }
}

impl fmt::Display for CoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}://{}{}",
            self.scheme.as_str(),
            self.authority,
            self.base
        )
    }
}

/// What of a mistaken URL may be repeated to whoever wrote it.
fn without_credentials(text: &str) -> &str {
    text.rsplit_once('@').map_or(text, |(_, rest)| rest)
}

/// A checked API key.
#[derive(Clone, Debug)]
pub struct ApiKey(Secret);

impl ApiKey {
    const CHARS_MAX: usize = 512;

    /// Reads a key of an agent: `obx_live_…` or `obx_test_…`.
    ///
    /// # Errors
    ///
    /// When it has another shape. The key itself is never repeated.
    pub fn parse(secret: Secret) -> Result<Self, Unfit> {
        let unfit = |found: &str| Unfit {
            found: found.to_owned(),
            expected: "a key of an agent: obx_live_ or obx_test_, then letters, digits and _",
            example: "obx_test_0123456789abcdef",
        };
        let text = secret.expose();
        if text.starts_with("obx_key_") {
            return Err(unfit(
                "the API key is one of an organisation, which Core does not take",
            ));
        }
        let rest = text
            .strip_prefix("obx_live_")
            .or_else(|| text.strip_prefix("obx_test_"))
            .ok_or_else(|| unfit("the API key begins with neither obx_live_ nor obx_test_"))?;
        let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if rest.is_empty() || rest.len() > Self::CHARS_MAX {
            return Err(unfit("the API key has no usable length"));
        }
        if !rest.bytes().all(is_allowed) {
            return Err(unfit(
                "the API key has a character (a space or line end?) that no key has",
            ));
        }
        Ok(Self(secret))
    }

    /// Whether `secret` is this key.
    pub fn is(&self, secret: &Secret) -> bool {
        self.0.expose() == secret.expose()
    }

    pub(super) fn expose(&self) -> &str {
        self.0.expose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_the_sdks_read_them() {
        // url, host, port, authority, base
        let table = [
            (
                "https://core.example",
                "core.example",
                443,
                "core.example",
                "",
            ),
            (
                "https://Core.Example:8443/a/b//",
                "core.example",
                8443,
                "Core.Example:8443",
                "/a/b",
            ),
            (
                "http://localhost:8086/",
                "localhost",
                8086,
                "localhost:8086",
                "",
            ),
            ("http://127.0.0.1", "127.0.0.1", 80, "127.0.0.1", ""),
            ("http://[::1]:8086", "::1", 8086, "[::1]:8086", ""),
            ("http://[::1]", "::1", 80, "[::1]", ""),
        ];
        for (text, host, port, authority, base) in table {
            let url = CoreUrl::parse(text).unwrap();
            assert_eq!(
                (url.host(), url.port(), url.authority(), url.base()),
                (host, port, authority, base),
                "{text}"
            );
        }
        let url = CoreUrl::parse("https://core.example/base/").unwrap();
        assert_eq!(url.to_string(), "https://core.example/base");
    }

    #[test]
    fn urls_that_must_not_be_used_are_refused_and_say_why() {
        let table = [
            ("http://core.example", "in the clear"),
            ("http://10.0.0.1:80", "in the clear"),
            ("http://localhost.evil.example", "in the clear"),
            ("ftp://core.example", "neither http nor https"),
            ("core.example", "does not say"),
            ("", "cannot be read"),
            ("https://me:secret@core.example", "credentials"),
            ("https://core.example/?a=b", "query"),
            ("https://core.example/#a", "fragment"),
            ("https://core.example:99999", "port"),
            ("https://core.example:", "port"),
        ];
        for (text, why) in table {
            let error = CoreUrl::parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn keys_have_one_shape_and_errors_do_not_repeat_them() {
        for good in ["obx_test_a", "obx_live_0aZ_9"] {
            assert!(
                ApiKey::parse(Secret::new(good.to_owned())).is_ok(),
                "{good}"
            );
        }
        for bad in [
            "",
            "obx_test_",
            "obx_dev_zqx",
            "obx_key_zqx",
            "obx_test_zqx ",
            "obx_test_zqx\r\nx: y",
            "obx_test_zqxä",
            "Bearer obx_test_zqx",
        ] {
            let error = ApiKey::parse(Secret::new(bad.to_owned())).unwrap_err();
            assert!(!error.to_string().contains("zqx"), "{error}");
        }
    }
}
