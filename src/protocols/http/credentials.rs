//! Credentials that agents need not hold: a header out of a file, added to what may leave.
//!
//! Whether a request gets one is told by what is judged: its host and path. What it is, is read only
//! once the request may leave, so that policy, journal and approvals never have it, and a request that
//! was held for an hour leaves with the credential there is then.

use std::fmt;
use std::fs::Metadata;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Request};
use tokio::sync::Semaphore;

use crate::gate::Cleared;
use crate::process::Stamp;
use crate::redact::Secret;

use super::authority::Target;
use super::fields;
use super::mask::Mask;
use super::places::Place;
use super::settings::Settings;

/// Longest wait for the file, which may be in a network that is gone.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// Most threads that read one file at once: where it is gone, each stays with it for longer than
/// it is waited for.
const READERS_MAX: usize = 4;

/// How long a file has been as it is before what was read of it is kept. A second of it is what is left
/// out of the times that are compared.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// A header that requests to a place leave with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Where.
    pub place: Place,
    /// The port there, where not any is meant.
    pub port: Option<u16>,
    /// The file that has it, and nothing else but space around it.
    pub file: PathBuf,
    /// The field; see [`credential_header`].
    pub header: HeaderName,
    /// What stands before it in the field, `Bearer ` for example.
    pub prefix: Box<str>,
    /// Whether it may go where there is no TLS.
    pub in_clear: InClear,
}

/// Over which connections without TLS a credential goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InClear {
    /// Those to a named port of a loopback address or of `localhost`: nobody else is on the way,
    /// and at another port the agent itself may listen.
    ToLoopback,
    /// All.
    Everywhere,
}

/// Why a request leaves without the credential of its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withheld {
    /// There is no TLS on its way.
    InClear,
    /// It leads to this machine, where anybody may listen at some port, and no port is said.
    AnyPort,
    /// Origins may read its path as another than the one it was given for.
    Ambiguous,
    /// Its method is TRACE, whose answer says what came (RFC 9110 §9.3.8).
    Traced,
}

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InClear => "the request goes in the clear, and the line does not say `plain`",
            Self::AnyPort => {
                "it goes to this machine without TLS, and the line says no port: HOST:PORT"
            }
            Self::Ambiguous => {
                "an origin may read its path as another: it has an encoded or backward slash, `;`, `//`, `.` or `..`"
            }
            Self::Traced => "the answer to TRACE says what came",
        })
    }
}

/// `name` as the field of a credential; `None` where it is no name, or one that frames or routes a
/// message, or is the sidecar's own.
#[must_use]
pub fn credential_header(name: &str) -> Option<HeaderName> {
    let name: HeaderName = name.parse().ok()?;
    (!fields::is_reserved(&name)).then_some(name)
}

impl Credential {
    /// Looks whether it could be used as it is now; says whether every user of this machine can read
    /// the file.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self) -> Result<Readable, Unusable> {
        let (text, found) = read(&self.file)?;
        self.value(&text)?;
        Ok(match found.permissions().mode() & 0o004 {
            0 => Readable::ByFew,
            _ => Readable::ByAll,
        })
    }

    /// Why a request does not get it although its place fits; `None` where it does.
    #[must_use]
    pub fn withheld(
        &self,
        method: &str,
        (scheme, host, path): (&str, &str, &str),
    ) -> Option<Withheld> {
        let (clear, here) = (scheme != "https", is_here(host));
        match () {
            () if method.eq_ignore_ascii_case(Method::TRACE.as_str()) => Some(Withheld::Traced),
            () if clear && here && self.port.is_none() => Some(Withheld::AnyPort),
            () if clear && !here && self.in_clear == InClear::ToLoopback => Some(Withheld::InClear),
            () if self.place.is_ambiguous(path) => Some(Withheld::Ambiguous),
            () => None,
        }
    }

    fn covers(&self, host: &str, port: u16, path: &str) -> bool {
        self.port.is_none_or(|only| only == port) && self.place.covers(host, path)
    }

    /// The field's value. That copy is not wiped: it belongs to the request, and goes with it.
    fn value(&self, text: &Secret) -> Result<HeaderValue, Unusable> {
        let whole = Secret::new([&self.prefix, text.expose()].concat());
        // Other than ASCII, a server may read what we did not mean (RFC 9110 §5.5).
        let ascii = Some(whole.expose()).filter(|text| text.is_ascii());
        let value = ascii.and_then(|text| HeaderValue::from_str(text).ok());
        let mut value = value.ok_or(Unusable::NoValue)?;
        // Neither shown by `Debug` nor remembered by the compression of HTTP/2 (RFC 7541 §7.1.3).
        value.set_sensitive(true);
        Ok(value)
    }
}

/// Whether `host` is this machine, by its own name for itself.
fn is_here(host: &str) -> bool {
    let address = host.parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|ip| ip.to_canonical().is_loopback())
}

impl Settings {
    /// The credential of such requests, with its place in the list: the first whose place fits.
    #[must_use]
    pub fn credential(&self, host: &str, port: u16, path: &str) -> Option<(usize, &Credential)> {
        let mut all = self.credentials.iter().enumerate();
        all.find(|(_, credential)| credential.covers(host, port, path))
    }
}

/// Who can read the file of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readable {
    /// Its owner, and perhaps its group.
    ByFew,
    /// Every user of this machine.
    ByAll,
}

/// Why a credential cannot be used.
#[derive(Debug)]
pub enum Unusable {
    /// The file cannot be read, in words.
    Unreadable(String),
    /// It is a folder, a pipe or the like.
    NoFile,
    /// There is nothing in it.
    Empty,
    /// It cannot stand in a header.
    NoValue,
    /// It was not there in time.
    TooSlow,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => f.write_str(why),
            Self::NoFile => f.write_str("it is no file"),
            Self::Empty => f.write_str("it is empty"),
            Self::NoValue => f.write_str(
                "it has more than one line, or a character that cannot stand in a header",
            ),
            Self::TooSlow => write!(f, "reading it took over {} s", READ_WITHIN.as_secs()),
        }
    }
}

/// What `file` is now.
fn look(file: &Path) -> Result<Metadata, Unusable> {
    std::fs::metadata(file).map_err(|error| Unusable::Unreadable(error.to_string()))
}

/// Reads the credential in `file`, as it is now.
fn read(file: &Path) -> Result<(Secret, Metadata), Unusable> {
    // Looked at first: opening a pipe would wait for who writes to it.
    if !look(file)?.is_file() {
        return Err(Unusable::NoFile);
    }
    let (secret, found) = Secret::in_file(file).map_err(Unusable::Unreadable)?;
    match secret.expose() {
        "" => Err(Unusable::Empty),
        _ => Ok((secret, found)),
    }
}

/// The credentials of the configuration, with what was read of their files.
#[derive(Debug)]
pub(super) struct Credentials(Box<[Arc<Kept>]>);

/// A credential, and what its file had when it was last read.
#[derive(Debug)]
pub(super) struct Kept {
    credential: Credential,
    known: Mutex<Option<Known>>,
    readers: Arc<Semaphore>,
}

#[derive(Debug)]
struct Known {
    stamp: Stamp,
    text: Arc<Secret>,
}

impl Credentials {
    pub(super) fn new(credentials: &[Credential]) -> Self {
        let kept = credentials.iter().map(|credential| {
            Arc::new(Kept {
                credential: credential.clone(),
                known: Mutex::default(),
                readers: Arc::new(Semaphore::new(READERS_MAX)),
            })
        });
        Self(kept.collect())
    }

    /// The one that a request of `method` to `target` for `path` gets, once it may leave.
    pub(super) fn of(
        &self,
        settings: &Settings,
        method: &Method,
        target: &Target,
        path: &str,
    ) -> Option<Arc<Kept>> {
        let (at, credential) = settings.credential(&target.host, target.port, path)?;
        let to = (target.scheme, &*target.host, path);
        match credential.withheld(method.as_str(), to) {
            Some(_) => None,
            None => self.0.get(at).cloned(),
        }
    }
}

impl Kept {
    pub(super) fn file(&self) -> &Path {
        &self.credential.file
    }

    /// Adds it to a request that may leave, in place of what the agent sent in its field; returns what
    /// keeps it out of sight where the origin says it again. Cancelled, the request has nothing.
    ///
    /// # Errors
    /// Why it cannot be used; then the request must not leave.
    pub(super) async fn add<B>(
        self: &Arc<Self>,
        cleared: &mut Cleared<Request<B>>,
    ) -> Result<Mask, Unusable> {
        let kept = self.clone();
        // A file may be slow to answer, and others are served by this thread.
        let reading = async {
            let reader = kept.readers.clone().acquire_owned().await;
            let reading = tokio::task::spawn_blocking(move || {
                // It stays with the thread, which goes on after nobody waits any more.
                let _reader = reader;
                kept.current()
            });
            let read = reading.await;
            read.unwrap_or_else(|ended| Err(Unusable::Unreadable(ended.to_string())))
        };
        let reading = tokio::time::timeout(READ_WITHIN, reading);
        let text = reading.await.unwrap_or(Err(Unusable::TooSlow))?;
        let value = self.credential.value(&text)?;
        let header = self.credential.header.clone();
        cleared.amend(|request| drop(request.headers_mut().insert(header, value)));
        Ok(Mask::of(text))
    }

    /// What the file has now.
    fn current(&self) -> Result<Arc<Secret>, Unusable> {
        let stamp = Stamp::of(&look(&self.credential.file)?);
        if let Some(known) = &*self.known.lock().unwrap_or_else(PoisonError::into_inner)
            && known.stamp == stamp
        {
            return Ok(known.text.clone());
        }
        let (text, found) = read(&self.credential.file)?;
        let (text, stamp) = (Arc::new(text), Stamp::of(&found));
        let known = stamp.has_been_for(SETTLED_AFTER).then(|| Known {
            stamp,
            text: text.clone(),
        });
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(text)
    }
}

/// The field of a credential that does not say which.
pub const DEFAULT_HEADER: HeaderName = header::AUTHORIZATION;

/// What stands before a credential in that field, where it does not say.
pub const DEFAULT_PREFIX: &str = "Bearer ";

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::SystemTime;

    use super::*;

    fn credential(place: Place, file: &Path, in_clear: InClear) -> Credential {
        Credential {
            place,
            port: None,
            file: file.to_owned(),
            header: DEFAULT_HEADER,
            prefix: DEFAULT_PREFIX.into(),
            in_clear,
        }
    }

    #[test]
    fn a_credential_goes_over_tls_or_to_this_machine_and_never_where_it_is_echoed() {
        use InClear::{Everywhere, ToLoopback};
        #[rustfmt::skip]
        let table = [
            // in clear    method   scheme   host            withheld
            (ToLoopback,  "GET",   "https", "a.test",       None),
            (ToLoopback,  "GET",   "http",  "a.test",       Some(Withheld::InClear)),
            (Everywhere,  "GET",   "http",  "a.test",       None),
            (ToLoopback,  "GET",   "https", "localhost",    None),
            (ToLoopback,  "GET",   "http",  "localhost",    Some(Withheld::AnyPort)),
            (Everywhere,  "GET",   "http",  "127.9.9.9",    Some(Withheld::AnyPort)),
            (ToLoopback,  "GET",   "http",  "::ffff:127.0.0.1", Some(Withheld::AnyPort)),
            (ToLoopback,  "GET",   "http",  "a.localhost",  Some(Withheld::InClear)),
            (ToLoopback,  "TRACE", "https", "a.test",       Some(Withheld::Traced)),
            (Everywhere,  "trace", "http",  "a.test",       Some(Withheld::Traced)),
        ];
        for (in_clear, method, scheme, host, withheld) in table {
            let credential = credential(Place::new("*", None), Path::new("x"), in_clear);
            let found = credential.withheld(method, (scheme, host, "/"));
            assert_eq!(found, withheld, "{in_clear:?} {method} {scheme}://{host}");
        }
        let mut here = credential(Place::new("*", None), Path::new("x"), ToLoopback);
        here.port = Some(8200);
        for host in ["localhost", "127.9.9.9", "::ffff:127.0.0.1"] {
            assert_eq!(here.withheld("GET", ("http", host, "/")), None, "{host}");
            assert!(here.covers(host, 8200, "/"), "{host}");
            assert!(!here.covers(host, 9999, "/"), "{host}");
        }
    }

    #[test]
    fn a_path_that_an_origin_may_read_as_another_gets_no_credential_of_a_path() {
        let of = |path| {
            let place = Place::new("a.test", path);
            let credential = credential(place, Path::new("x"), InClear::ToLoopback);
            move |path: &str| credential.withheld("GET", ("https", "a.test", path))
        };
        let (scoped, whole) = (of(Some("/v1/*")), of(None));
        for path in [
            "/v1/..%2fadmin",
            "/v1/..%5Cadmin",
            "/v1/..\\admin",
            "/v1/..;/admin",
            "/v1/%252e%252e/a",
            "/v1/..%00/a",
            "/admin/../v1/x",
            "/admin/%2e%2E/v1/x",
            "/v1/./x",
            "/v1//x",
            "/v1/;/../admin",
            "/v1/.;/../admin",
            "/v1/;a=b/../admin",
            "/admin;/../v1/x",
            "/v1/a;b",
            "/v1/a%3Bb",
            "/v1/x/..",
        ] {
            assert_eq!(scoped(path), Some(Withheld::Ambiguous), "{path}");
            assert_eq!(whole(path), None, "{path}");
        }
        for path in [
            "/v1/x",
            "/v1/",
            "/v1/a.b..c/.d",
            "/v1/%41",
            "/v1/a%20b",
            "/v1/%C3%A9",
        ] {
            assert_eq!(scoped(path), None, "{path}");
        }
    }

    #[test]
    fn the_value_is_marked_as_secret_in_the_request() {
        let credential = credential(Place::new("*", None), Path::new("x"), InClear::ToLoopback);
        let value = credential.value(&Secret::new("hush")).unwrap();
        assert_eq!(value, "Bearer hush");
        assert!(value.is_sensitive() && !format!("{value:?}").contains("hush"));
    }

    #[test]
    fn the_first_credential_whose_place_fits_is_the_one() {
        let of = |place: Place| credential(place, Path::new("x"), InClear::ToLoopback);
        let settings = Settings {
            credentials: vec![
                of(Place::new("a.test", Some("/x/*"))),
                of(Place::new("a.test", None)),
            ],
            ..Settings::default()
        };
        for (host, path, at) in [
            ("a.test", "/x/y", Some(0)),
            ("a.test", "/y", Some(1)),
            ("b.test", "/x/y", None),
        ] {
            let found = settings.credential(host, 443, path).map(|(at, _)| at);
            assert_eq!(found, at, "{host}{path}");
        }
    }

    #[test]
    fn a_file_has_one_line_that_can_stand_in_a_header() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x");
        let check = |path: &Path| {
            let credential = credential(Place::new("*", None), path, InClear::ToLoopback);
            credential.check().map_err(|unusable| unusable.to_string())
        };
        let long = "x".repeat(16_385);
        #[rustfmt::skip]
        let table = [
            ("token",         None),
            ("token\r\n\n",   None),
            (" to ken ",      None),
            ("",              Some("it is empty")),
            ("\n \n",         Some("it is empty")),
            ("a\nb",          Some("it has more than one line")),
            ("a\0b",          Some("it has more than one line")),
            ("schlüssel",     Some("it has more than one line")),
            (long.as_str(),   Some("it is longer than 16384 bytes")),
        ];
        for (text, told) in table {
            std::fs::write(&file, text).unwrap();
            let found = check(&file).err();
            let fits = found
                .as_deref()
                .map(|found| told.is_some_and(|told| found.starts_with(told)));
            assert_eq!(fits, told.map(|_| true), "{text:?}: {found:?}");
        }
        std::fs::write(&file, [0xff, 0xfe]).unwrap();
        assert!(check(&file).is_err());
        assert_eq!(check(folder.path()).unwrap_err(), "it is no file");
        assert!(check(&folder.path().join("none")).is_err());
    }

    #[test]
    fn what_was_read_is_kept_until_the_file_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x");
        let old = SystemTime::now() - Duration::from_secs(60);
        let write = |text: &str, at: SystemTime| {
            std::fs::write(&file, text).unwrap();
            File::options()
                .write(true)
                .open(&file)
                .unwrap()
                .set_modified(at)
                .unwrap();
        };
        write("one", old);
        // When it was changed shows as well, and nobody can set that.
        std::thread::sleep(SETTLED_AFTER);
        let kept = Credentials::new(&[credential(
            Place::new("*", None),
            &file,
            InClear::ToLoopback,
        )]);
        let kept = kept.0.first().unwrap();
        let first = kept.current().unwrap();
        assert!(Arc::ptr_eq(&first, &kept.current().unwrap()));
        // Of the same length and age: it shows by when it was changed.
        write("two", old);
        assert_eq!(kept.current().unwrap().expose(), "two");
        // As Kubernetes does it.
        let other = folder.path().join("y");
        std::fs::write(&other, "three").unwrap();
        std::fs::rename(&other, &file).unwrap();
        let third = kept.current().unwrap();
        assert_eq!(third.expose(), "three");
        // It may still be written to, unseen.
        assert!(!Arc::ptr_eq(&third, &kept.current().unwrap()));
        std::fs::remove_file(&file).unwrap();
        assert!(kept.current().is_err());
    }

    #[test]
    fn no_credential_frames_or_routes_a_message() {
        for (name, fits) in [
            ("authorization", true),
            ("X-API-Key", true),
            ("cookie", true),
            ("host", false),
            ("Content-Length", false),
            ("transfer-encoding", false),
            ("connection", false),
            ("proxy-authorization", false),
            ("sec-websocket-key", false),
            ("x-openbox-run-id", false),
            (":authority", false),
            ("two words", false),
            ("", false),
        ] {
            assert_eq!(credential_header(name).is_some(), fits, "{name}");
        }
    }
}
