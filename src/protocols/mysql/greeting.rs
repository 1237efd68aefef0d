//! How a connection begins: what the server says of itself, and what the client
//! answers. Of both, only the capabilities are changed on their way.

use super::capability::Capabilities;
use super::whole_password::NONCE_BYTES;
use super::wire::{Cursor, WireError};

/// Most attributes of a connection that are kept, and their longest name or value, bytes.
const ATTRIBUTES_MAX: usize = 64;
const ATTRIBUTE_BYTES_MAX: usize = 256;
/// The length of a request for TLS, and of what a login begins with.
const FIXED_BYTES: usize = 32;

/// What a server says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    pub(super) capabilities: Capabilities,
    pub(super) version: Box<str>,
    /// By which `KILL` knows the connection.
    pub(super) connection: u32,
    /// What proofs of a password are made with.
    pub(super) nonce: Vec<u8>,
    lower_at: usize,
}

/// Offsets from the lower half of the capabilities: charset 1, status 2.
const UPPER_BEHIND: usize = 5;
/// Behind the upper half: one byte, then six that are reserved.
const ADDED_BEHIND: usize = UPPER_BEHIND + 2 + 1 + 6;

impl Greeting {
    /// Reads the body of the first packet.
    ///
    /// # Errors
    ///
    /// Where it is no greeting of protocol 10, or of a server too old to be
    /// spoken to.
    pub(super) fn of(body: &[u8]) -> Result<Self, WireError> {
        let mut at = Cursor::new(body);
        match at.u8() {
            Some(10) => {}
            Some(9) => return Err(WireError::Malformed("a greeting of protocol 9")),
            // The first word of the X protocol.
            Some(11) => return Err(WireError::Malformed("a greeting of the X protocol")),
            Some(_) | None => return Err(WireError::Malformed("a greeting")),
        }
        let read = || -> Option<Self> {
            let version = at.until_nul()?;
            let connection = at.u32()?;
            let mut nonce = at.take(8)?.to_vec();
            at.take(1)?;
            let lower_at = body.len().checked_sub(at.rest().len())?;
            let lower = at.u16()?;
            at.take(3)?;
            let upper = at.u16()?;
            at.take(7)?;
            let added = at.u32()?;
            let more = NONCE_BYTES.checked_sub(nonce.len())?;
            nonce.extend_from_slice(at.rest().get(..more).unwrap_or_default());
            let mysql = u32::from(lower) | (u32::from(upper) << 16);
            // Those of MySQL leave that space empty, and it means nothing there.
            let is_mariadb = mysql & 1 == 0;
            Some(Self {
                capabilities: Capabilities::from_halves(mysql, if is_mariadb { added } else { 0 }),
                version: String::from_utf8_lossy(version).into(),
                connection,
                nonce,
                lower_at,
            })
        };
        let greeting = { read }().ok_or(WireError::Malformed("a greeting"))?;
        let needed =
            Capabilities::PROTOCOL_41 | Capabilities::SECURE_CONNECTION | Capabilities::PLUGIN_AUTH;
        if !greeting.capabilities.has(needed) {
            return Err(WireError::Malformed(
                "a greeting of a server older than MySQL 5.5.7: it",
            ));
        }
        Ok(greeting)
    }

    /// `body`, which this was read from, offering `offered`.
    pub(super) fn offering(&self, body: &[u8], offered: Capabilities) -> Vec<u8> {
        let mut body = body.to_vec();
        let [a, b, c, d] = offered.of_mysql().to_le_bytes();
        put(&mut body, self.lower_at, &[a, b]);
        put(
            &mut body,
            self.lower_at.saturating_add(UPPER_BEHIND),
            &[c, d],
        );
        if !self.capabilities.has(Capabilities::LONG_PASSWORD) {
            let added = offered.of_mariadb().to_le_bytes();
            put(
                &mut body,
                self.lower_at.saturating_add(ADDED_BEHIND),
                &added,
            );
        }
        body
    }
}

fn put(body: &mut [u8], at: usize, bytes: &[u8]) {
    let end = at.saturating_add(bytes.len());
    if let Some(place) = body.get_mut(at..end) {
        place.copy_from_slice(bytes);
    }
}

/// What a client answers.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Login {
    /// What holds on both legs.
    pub(super) capabilities: Capabilities,
    /// The first plugin that it proves itself by.
    pub(super) plugin: Option<Box<str>>,
    pub(super) who: Who,
}

/// Who logs in, and where to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Who {
    /// `None` for nobody's, or in letters that are not read.
    pub(super) user: Option<Box<str>>,
    pub(super) database: Option<Box<str>>,
    /// What the client says of itself, by name.
    pub(super) attributes: Vec<(Box<str>, Box<str>)>,
}

impl Who {
    /// The attribute of this name.
    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|(known, _)| &**known == name);
        found.map(|(_, value)| &**value)
    }
}

/// A client's first packet.
pub(super) enum First {
    /// It wants TLS first.
    Tls,
    Login(Login),
}

impl First {
    /// Reads its body as the server will, after `offered` was: what the client takes
    /// without having been offered it holds for neither. The parts that say who logs in
    /// may be missing at the end, as some clients leave them out.
    ///
    /// # Errors
    ///
    /// Where it is none of protocol 4.1, or asks for what was not offered and
    /// would change how it is read.
    pub(super) fn of(body: &[u8], offered: Capabilities) -> Result<Self, WireError> {
        let malformed = WireError::Malformed("a login");
        let mut at = Cursor::new(body);
        let fixed = at.take(FIXED_BYTES).ok_or(malformed.clone())?;
        let mut fixed = Cursor::new(fixed);
        let mysql = fixed.u32().ok_or(malformed.clone())?;
        fixed.take(4).ok_or(malformed.clone())?;
        let collation = fixed.u8().ok_or(malformed.clone())?;
        fixed.take(19).ok_or(malformed.clone())?;
        let added = fixed.u32().ok_or(malformed.clone())?;
        let is_mysql = mysql & 1 == 1;
        let asked = Capabilities::from_halves(mysql, if is_mysql { 0 } else { added });
        if !asked.has(Capabilities::PROTOCOL_41) {
            return Err(WireError::Malformed("a login of a protocol before 4.1: it"));
        }
        if at.is_empty() && asked.has(Capabilities::TLS) {
            return Ok(Self::Tls);
        }
        for compression in [Capabilities::COMPRESS, Capabilities::ZSTD] {
            if asked.has(compression) {
                return Err(WireError::Malformed("a login that asks for compression"));
            }
        }
        let capabilities = asked.agreed(offered);
        let user = at.until_nul().ok_or(malformed.clone())?;
        let proof = if capabilities.has(Capabilities::PLUGIN_AUTH_LENENC) {
            at.counted()
        } else if capabilities.has(Capabilities::SECURE_CONNECTION) {
            at.u8().and_then(|length| at.take(length.into()))
        } else {
            at.until_nul()
        };
        proof.ok_or(malformed)?;
        let mut who = Who {
            user: read(unquoted(user), collation.into()),
            ..Who::default()
        };
        if capabilities.has(Capabilities::CONNECT_WITH_DB) {
            who.database = database(&mut at, collation.into());
        }
        let plugin = plugin(&mut at, capabilities);
        who.attributes = attributes(&mut at, capabilities);
        Ok(Self::Login(Login {
            capabilities,
            plugin,
            who,
        }))
    }
}

/// The name that servers take a login's for: in single quotes it is what these hold.
fn unquoted(user: &[u8]) -> &[u8] {
    let inner = user
        .strip_prefix(b"'")
        .and_then(|user| user.strip_suffix(b"'"));
    inner.unwrap_or(user)
}

fn plugin(at: &mut Cursor<'_>, capabilities: Capabilities) -> Option<Box<str>> {
    let has = capabilities.has(Capabilities::PLUGIN_AUTH);
    has.then(|| name(at)).flatten()
}

/// A text up to a NUL or the end; `None` for an empty one.
fn name(at: &mut Cursor<'_>) -> Option<Box<str>> {
    let rest = at.rest();
    let bytes = match at.until_nul() {
        Some(bytes) => bytes,
        None => at.take(rest.len())?,
    };
    (!bytes.is_empty()).then(|| String::from_utf8_lossy(bytes).into())
}

/// The same in the letters of `collation`; `None` also for letters that are not read.
fn database(at: &mut Cursor<'_>, collation: u16) -> Option<Box<str>> {
    let rest = at.rest();
    let bytes = at.until_nul().or_else(|| at.take(rest.len()))?;
    read(bytes, collation)
}

/// A name of somebody or something in the letters of `collation`.
fn read(bytes: &[u8], collation: u16) -> Option<Box<str>> {
    let name = std::str::from_utf8(bytes).ok()?;
    let is_read = name.is_ascii() || is_utf8(collation);
    (is_read && !name.is_empty()).then(|| name.into())
}

/// Whether texts in a collation of this number are in UTF-8: those of MySQL and MariaDB alike.
fn is_utf8(collation: u16) -> bool {
    matches!(collation, 33 | 45 | 46 | 76 | 83 | 192..=247 | 255..=323)
}

fn attributes(at: &mut Cursor<'_>, capabilities: Capabilities) -> Vec<(Box<str>, Box<str>)> {
    let mut all = Vec::new();
    if !capabilities.has(Capabilities::CONNECT_ATTRS) {
        return all;
    }
    let Some(inner) = at.counted() else {
        return all;
    };
    let mut inner = Cursor::new(inner);
    while all.len() < ATTRIBUTES_MAX
        && let (Some(name), Some(value)) = (inner.counted(), inner.counted())
    {
        if name.len().max(value.len()) <= ATTRIBUTE_BYTES_MAX {
            let text = |bytes| String::from_utf8_lossy(bytes).into();
            all.push((text(name), text(value)));
        }
    }
    all
}

/// The body of a login with `agreed` capabilities instead of its own.
pub(super) fn agreeing(body: &[u8], agreed: Capabilities) -> Vec<u8> {
    let mut body = body.to_vec();
    put(&mut body, 0, &agreed.of_mysql().to_le_bytes());
    if !agreed.has(Capabilities::LONG_PASSWORD) {
        put(&mut body, 28, &agreed.of_mariadb().to_le_bytes());
    }
    body
}

/// The request for TLS that goes before this login.
pub(super) fn tls_request(login: &[u8]) -> Vec<u8> {
    login.get(..FIXED_BYTES).unwrap_or_default().to_vec()
}

/// Who a `COM_CHANGE_USER` becomes, and the plugin that it proves that by; `body`
/// begins behind the command's own byte.
pub(super) fn changed_user(
    body: &[u8],
    capabilities: Capabilities,
) -> Option<(Who, Option<Box<str>>)> {
    let mut at = Cursor::new(body);
    let user = at.until_nul()?;
    if capabilities.has(Capabilities::SECURE_CONNECTION) {
        let length = at.u8()?;
        at.take(length.into())?;
    } else {
        at.until_nul()?;
    }
    let mut named = at;
    name(&mut at);
    let collation = at.u16();
    let mut who = Who {
        user: read(user, collation.unwrap_or_default()),
        database: database(&mut named, collation.unwrap_or_default()),
        attributes: Vec::new(),
    };
    let mut by = None;
    if collation.is_some() {
        by = plugin(&mut at, capabilities);
        who.attributes = attributes(&mut at, capabilities);
    }
    Some((who, by))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocols::mysql::capability::LocalFiles;

    fn greeting(lower: u16, upper: u16, added: u32) -> Vec<u8> {
        let mut body = b"\x0a8.0.1\0".to_vec();
        body.extend_from_slice(&7_u32.to_le_bytes());
        body.extend_from_slice(b"nonce678\0");
        body.extend_from_slice(&lower.to_le_bytes());
        body.extend_from_slice(b"\x2d\x02\0");
        body.extend_from_slice(&upper.to_le_bytes());
        body.push(21);
        body.extend_from_slice(&[0; 6]);
        body.extend_from_slice(&added.to_le_bytes());
        body.extend_from_slice(b"nonce9012345\0caching_sha2_password\0");
        body
    }

    #[test]
    fn my_1_my_30_only_greetings_of_protocol_10_are_read() {
        for (body, expected) in [
            (greeting(0xffff, 0xdfff, 0), None),
            (greeting(0x0fff, 0xdfff, 0), Some("older than")),
            (
                greeting(0xffff, 0xffff, 0)[..30].to_vec(),
                Some("a greeting"),
            ),
            (b"\x09old\0".to_vec(), Some("protocol 9")),
            (b"\x0b\x08\x05\x1a\x00".to_vec(), Some("X protocol")),
            (b"".to_vec(), Some("a greeting")),
            (b"HTTP/1.1 400".to_vec(), Some("a greeting")),
        ] {
            let found = Greeting::of(&body).err().map(|error| error.to_string());
            match (expected, found) {
                (None, None) => {}
                (Some(part), Some(found)) if found.contains(part) => {}
                other => panic!("{other:?} {body:?}"),
            }
        }
    }

    #[test]
    fn my_2_only_capabilities_change_and_a_nonce_passes_as_it_is() {
        for body in [greeting(0xffff, 0xdfff, 0), greeting(0xf7fe, 0x81ff, 0x1d)] {
            let read = Greeting::of(&body).unwrap();
            assert_eq!((read.connection, &*read.version), (7, "8.0.1"));
            let offered = read.capabilities.offered(LocalFiles::Refuse);
            let masked = read.offering(&body, offered);
            let again = Greeting::of(&masked).unwrap();
            assert_eq!(again.capabilities, offered);
            assert_eq!(masked.len(), body.len());
            let ends = |body: &[u8]| body.ends_with(b"nonce9012345\0caching_sha2_password\0");
            assert!(ends(&masked) && memchr::memmem::find(&masked, b"nonce678").is_some());
        }
    }

    /// By a server of today.
    const OFFERED: Capabilities = Capabilities(0x0fff_ffdf);

    fn login(capabilities: u32, rest: &[u8]) -> Vec<u8> {
        let mut body = capabilities.to_le_bytes().to_vec();
        body.extend_from_slice(&[0; 28]);
        body.extend_from_slice(rest);
        body
    }

    #[test]
    fn a_login_says_who_logs_in_and_is_refused_where_it_would_be_read_otherwise() {
        let usual = 0x0018_8209_u32;
        let whole = b"bob\0\x03abcshop\0native\0\x0d\x0cprogram_name\x00";
        let Ok(First::Login(read)) = First::of(&login(usual, whole), OFFERED) else {
            panic!()
        };
        assert_eq!(read.who.database.as_deref(), Some("shop"));
        assert_eq!(read.plugin.as_deref(), Some("native"));
        assert_eq!(read.who.attribute("program_name"), None, "it has no value");
        for (body, is_login) in [
            (login(usual, b"bob\0\0"), true),
            (login(usual, b"bob"), false),
            (login(usual | 0x20, b"bob\0\0"), false),
            (login(usual | 1 << 26, b"bob\0\0"), false),
            (login(usual & !0x200, b"bob\0\0"), false),
            (vec![0; 31], false),
        ] {
            assert_eq!(First::of(&body, OFFERED).is_ok(), is_login, "{body:?}");
        }
        assert!(matches!(
            First::of(&login(usual | 0x800, b""), OFFERED),
            Ok(First::Tls)
        ));
        // An old server reads a length of one byte, and no attributes.
        let long = [
            &b"bob\0\xfc\x02\x00ab"[..],
            &[0; 248],
            b"shop\0native\0\x02\x01a\x00",
        ]
        .concat();
        let old = Capabilities(u64::from(0x0008_8209_u32));
        let Ok(First::Login(read)) = First::of(&login(usual | 1 << 21, &long), old) else {
            panic!()
        };
        assert_eq!(read.capabilities, old);
        assert_eq!(read.who.database.as_deref(), Some("shop"));
        assert_eq!(read.who.attributes, []);
        let changed = agreeing(&login(usual, whole), Capabilities(0x200));
        assert_eq!(&changed[..4], &[0, 2, 0, 0]);
        assert!(changed.ends_with(whole));
    }

    #[test]
    fn my_16_a_change_of_user_says_who_comes() {
        let body = b"eve\0\x02xxstock\0\x2d\0native\0\x02\x00\x00";
        let (who, plugin) = changed_user(body, Capabilities(0x0018_8209)).unwrap();
        assert_eq!(who.database.as_deref(), Some("stock"));
        assert_eq!(plugin.as_deref(), Some("native"));
        assert_eq!(changed_user(b"eve", Capabilities(0)), None);
        // Letters of another encoding are not read, nor what is in none.
        for (collation, name, expected) in [
            (45, &b"caf\xc3\xa9"[..], Some("caf\u{e9}")),
            (8, b"caf\xc3\xa9", None),
            (45, b"caf\xe9", None),
            (8, b"cafe", Some("cafe")),
        ] {
            let body = [b"eve\0\0", name, &[0, collation, 0][..], b"native\0"].concat();
            let (who, _) = changed_user(&body, Capabilities(0x0008_8209)).unwrap();
            assert_eq!(who.database.as_deref(), expected, "{collation} {name:?}");
            let mut body = login(0x0008_8209, &[b"eve\0\0", name, b"\0native\0"].concat());
            body[8] = collation;
            let Ok(First::Login(read)) = First::of(&body, OFFERED) else {
                panic!()
            };
            assert_eq!(
                read.who.database.as_deref(),
                expected,
                "{collation} {name:?}"
            );
        }
        // A proof without its length, as agreed.
        let (who, _) = changed_user(b"eve\0\x03ab\0shop\0", Capabilities(0x209)).unwrap();
        assert_eq!(who.database.as_deref(), Some("shop"));
    }
}
