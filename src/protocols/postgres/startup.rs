//! What comes before the first message: requests for encryption, a request to
//! cancel, or the start of a session.

use bytes::{Bytes, BytesMut};

use super::wire::{Cursor, WireError, message};

/// Longest first packet, bytes: the server's own limit.
pub(super) const PACKET_BYTES_MAX: usize = 10_000;

/// The codes that stand where a version would.
pub(super) const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSS: u32 = 80_877_104;

/// The request for TLS.
pub(super) fn ssl_request() -> [u8; 8] {
    let [a, b, c, d] = SSL.to_be_bytes();
    [0, 0, 0, 8, a, b, c, d]
}

/// The oldest version that is spoken: 3.0.
const VERSION_3: u32 = 0x0003_0000;

/// The newest minor version that is passed on: 3.2, whose keys are longer.
const MINOR_MAX: u32 = 2;

/// What a client begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum First {
    /// It asks for TLS.
    Ssl,
    /// It asks for GSSAPI encryption.
    Gss,
    /// It cancels the session of this key.
    Cancel(Bytes),
    /// It starts a session.
    Start(Start),
    /// It speaks a version that is not spoken here.
    Version(u32),
}

/// The start of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Start {
    minor: u32,
    parameters: Vec<(String, String)>,
}

/// The first packet, once it is there.
pub(super) fn first(input: &mut BytesMut) -> Result<Option<First>, WireError> {
    const WHAT: &str = "the startup packet";
    let Some((length, _)) = input.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length > PACKET_BYTES_MAX {
        return Err(WireError::TooLong(WHAT));
    }
    if length < 8 {
        return Err(WireError::Malformed(WHAT));
    }
    if input.len() < length {
        return Ok(None);
    }
    let packet = input.split_to(length).freeze();
    let mut cursor = Cursor::new(packet.get(4..).unwrap_or_default(), WHAT);
    let code = u32::from_be_bytes(cursor.array()?);
    Ok(Some(match code {
        SSL => {
            cursor.finish()?;
            First::Ssl
        }
        GSS => {
            cursor.finish()?;
            First::Gss
        }
        CANCEL => First::Cancel(packet.slice(8..)),
        version if version >> 16 == 3 => First::Start(Start {
            minor: version & 0xffff,
            parameters: parameters(cursor)?,
        }),
        version => First::Version(version),
    }))
}

fn parameters(mut cursor: Cursor<'_>) -> Result<Vec<(String, String)>, WireError> {
    let mut parameters = Vec::new();
    loop {
        let name = cursor.text()?;
        if name.is_empty() {
            break;
        }
        let value = cursor.text()?;
        let text = |bytes| std::str::from_utf8(bytes).map(ToOwned::to_owned);
        match (text(name), text(value)) {
            (Ok(name), Ok(value)) => parameters.push((name, value)),
            _ => return Err(WireError::Malformed("the startup packet")),
        }
    }
    cursor.finish()?;
    Ok(parameters)
}

impl Start {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self
            .parameters
            .iter()
            .rev()
            .find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn user(&self) -> Option<&str> {
        self.get("user").filter(|user| !user.is_empty())
    }

    /// The database: the one of the user's name where none is told.
    pub(super) fn database(&self) -> &str {
        self.get("database")
            .filter(|name| !name.is_empty())
            .or_else(|| self.user())
            .unwrap_or_default()
    }

    /// Sets `name` to `value`, whatever the client says: the server reads this
    /// behind what stands in `options`.
    pub(super) fn impose(&mut self, name: &str, value: String) {
        let others = |(known, _): &(String, String)| !known.eq_ignore_ascii_case(name);
        self.parameters.retain(others);
        self.parameters.push((name.to_owned(), value));
    }

    /// Whether it asks for replication: another protocol behind the same start.
    pub(super) fn replicates(&self) -> bool {
        self.parameters.iter().any(|(name, value)| {
            let off = ["", "false", "off", "no", "0", "f", "n", "of"];
            name == "replication" && !off.contains(&value.to_ascii_lowercase().as_str())
        })
    }

    /// Whether it says who is to execute what follows, or what names mean in it.
    pub(super) fn renames(&self) -> bool {
        let names = ["options", "search_path", "role", "session_authorization"];
        let mut strict = self.strict_settings();
        strict.any(|(name, _)| names.iter().any(|known| name.eq_ignore_ascii_case(known)))
    }

    /// The settings in it that are more than settings: all but those known to
    /// change how values look or how long things last.
    pub(super) fn strict_settings(&self) -> impl Iterator<Item = (&str, &str)> {
        const HARMLESS: [&str; 22] = [
            "user",
            "database",
            "replication",
            "application_name",
            "client_encoding",
            "datestyle",
            "timezone",
            "intervalstyle",
            "extra_float_digits",
            "bytea_output",
            "client_min_messages",
            "statement_timeout",
            "lock_timeout",
            "idle_in_transaction_session_timeout",
            "idle_session_timeout",
            "transaction_timeout",
            "default_transaction_isolation",
            "default_transaction_read_only",
            "default_transaction_deferrable",
            "standard_conforming_strings",
            "geqo",
            "jit",
        ];
        self.parameters.iter().filter_map(|(name, value)| {
            let known = HARMLESS.contains(&name.to_ascii_lowercase().as_str());
            // An empty `options` says nothing.
            let silent = name == "options" && value.trim().is_empty();
            (!known && !silent && !name.starts_with("_pq_."))
                .then_some((name.as_str(), value.as_str()))
        })
    }

    /// The packet for the server, and what the client is to be told of what was
    /// left out of it: a newer version, and options nobody here knows.
    pub(super) fn forwarded(&self) -> (Bytes, Negotiated) {
        let version = VERSION_3 | self.minor.min(MINOR_MAX);
        let (dropped, kept): (Vec<_>, Vec<_>) = self
            .parameters
            .iter()
            .partition(|(name, _)| name.starts_with("_pq_."));
        let mut body = version.to_be_bytes().to_vec();
        for (name, value) in kept {
            for text in [name, value] {
                body.extend_from_slice(text.as_bytes());
                body.push(0);
            }
        }
        body.push(0);
        let length = u32::try_from(body.len().saturating_add(4)).unwrap_or(u32::MAX);
        let packet = [&length.to_be_bytes()[..], &body].concat().into();
        let negotiated = Negotiated {
            version,
            lowered: self.minor > MINOR_MAX,
            options: dropped.into_iter().map(|(name, _)| name.clone()).collect(),
        };
        (packet, negotiated)
    }
}

/// What of a client's request was not passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Negotiated {
    /// What the server was asked for.
    version: u32,
    lowered: bool,
    options: Vec<String>,
}

impl Negotiated {
    /// Of a client that asked for 3.0 and nothing else.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn plain() -> Self {
        Self {
            version: 3 << 16,
            lowered: false,
            options: Vec::new(),
        }
    }

    /// What the client is told before anything else, where the server says
    /// `of_server` to what it was asked (the body of its
    /// `NegotiateProtocolVersion`), or nothing. `None`: nothing but that.
    pub(super) fn told(&self, of_server: Option<&[u8]>) -> Option<Bytes> {
        if !self.lowered && self.options.is_empty() {
            return None;
        }
        let of_server = of_server.and_then(|body| body.first_chunk::<4>());
        // The whole version, as servers send it, whatever the manual says.
        let version = of_server.map_or(self.version, |version| {
            u32::from_be_bytes(*version).clamp(VERSION_3, self.version)
        });
        let count = u32::try_from(self.options.len()).unwrap_or(u32::MAX);
        let names = self.options.iter();
        let names: Vec<_> = names
            .map(|name| [name.as_bytes(), b"\0"].concat())
            .collect();
        let parts = [
            &version.to_be_bytes()[..],
            &count.to_be_bytes(),
            &names.concat(),
        ];
        Some(message(b'v', &parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(version: u32, parameters: &[&str]) -> BytesMut {
        let mut body = version.to_be_bytes().to_vec();
        for text in parameters {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        body.push(0);
        let length = u32::try_from(body.len() + 4).unwrap();
        BytesMut::from(&[&length.to_be_bytes()[..], &body].concat()[..])
    }

    fn start(version: u32, parameters: &[&str]) -> Start {
        match first(&mut packet(version, parameters)).unwrap() {
            Some(First::Start(start)) => start,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn pg_4_a_startup_packet_is_read_within_its_bounds_or_not_at_all() {
        for (bytes, expected) in [
            (&b"\0\0\0\x08\x04\xd2\x16"[..], Ok(None)),
            (b"\0\0\0\x08\x04\xd2\x16\x2f", Ok(Some(First::Ssl))),
            (b"\0\0\0\x08\x04\xd2\x16\x30", Ok(Some(First::Gss))),
            (
                b"\0\0\0\x09\x04\xd2\x16\x2fx",
                Err(WireError::Malformed("the startup packet")),
            ),
            (b"\0\0\0\x08\0\x02\0\0", Ok(Some(First::Version(0x2_0000)))),
            (
                b"\0\0\0\x07",
                Err(WireError::Malformed("the startup packet")),
            ),
            (
                b"\0\0\x27\x11",
                Err(WireError::TooLong("the startup packet")),
            ),
            (
                b"\0\0\0\x0b\0\x03\0\0a\0b",
                Err(WireError::Malformed("the startup packet")),
            ),
        ] {
            assert_eq!(first(&mut BytesMut::from(bytes)), expected, "{bytes:?}");
        }
        assert_eq!(start(0x3_0000, &["user", "a"]).database(), "a");
        assert_eq!(start(0x3_0000, &["database", "b"]).user(), None);
    }

    #[test]
    fn pg_5_newer_versions_and_unknown_options_are_lowered_to_what_the_server_speaks() {
        let greased = start(0x3_270f, &["user", "a", "_pq_.x", "1"]);
        let (packet, negotiated) = greased.forwarded();
        assert_eq!(&packet[..], &b"\0\0\0\x10\0\x03\0\x02user\0a\0\0"[..]);
        for (of_server, version) in [
            (None, b'\x02'),
            (Some(&b"\0\x03\0\0\0\0\0\0"[..]), b'\0'),
            (Some(b"\0\x03\0\x02\0\0\0\0"), b'\x02'),
            // No client asked for that, and what is no version is the oldest.
            (Some(b"\0\x03\0\x09\0\0\0\0"), b'\x02'),
            (Some(b"\0\0\0\0\0\0\0\0"), b'\0'),
        ] {
            let told = negotiated.told(of_server).unwrap();
            let expected = [
                b"v\0\0\0\x13\0\x03\0",
                &[version][..],
                b"\0\0\0\x01_pq_.x\0",
            ];
            assert_eq!(told, expected.concat(), "{of_server:?}");
        }
        for minor in [0, 2] {
            let (packet, negotiated) = start(0x3_0000 | minor, &["user", "a"]).forwarded();
            assert_eq!(packet[4..8], (0x3_0000 | minor).to_be_bytes());
            assert_eq!(negotiated.told(None), None);
            assert_eq!(negotiated.told(Some(b"\0\x03\0\0\0\0\0\0")), None);
        }
    }

    #[test]
    fn pg_4_pg_43_settings_that_are_more_than_settings_and_replication_are_seen() {
        let start = start(
            0x3_0000,
            &[
                "user",
                "a",
                "DateStyle",
                "ISO",
                "role",
                "b",
                "options",
                "-c x=1",
                "replication",
                "off",
            ],
        );
        let strict: Vec<_> = start.strict_settings().collect();
        assert_eq!(strict, [("role", "b"), ("options", "-c x=1")]);
        assert!(!start.replicates());
        for value in ["true", "database", "on", "1", "yes"] {
            assert!(
                self::start(0x3_0000, &["replication", value]).replicates(),
                "{value}"
            );
        }
    }
}
