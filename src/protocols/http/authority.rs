//! Where a request really goes: one authority, and every place that names one
//! must agree with it (CONNECT target, absolute URI, Host).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use http::uri::{Authority, Scheme, Uri};
use http::{HeaderMap, Method, Request, StatusCode, header};

use crate::net::dial;

/// The pinned destination of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Target {
    /// `http` or `https`.
    pub(super) scheme: &'static str,
    /// Lower case, without brackets and final dot.
    pub(super) host: Box<str>,
    /// Never zero.
    pub(super) port: u16,
}

/// Why a request's destination is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mismatch {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) detail: &'static str,
}

const fn bad(detail: &'static str) -> Mismatch {
    Mismatch {
        status: StatusCode::BAD_REQUEST,
        code: "bad_authority",
        detail,
    }
}

const AUTHORITY_FORM: Mismatch =
    bad("the request line names a host and no path: only CONNECT does that (RFC 9112 §3.2.3)");

const MISDIRECTED: Mismatch = Mismatch {
    status: StatusCode::MISDIRECTED_REQUEST,
    code: "misdirected_request",
    detail: "the request names another host or port than the tunnel it came through",
};

impl Target {
    /// The destination of a CONNECT request.
    pub(super) fn of_connect<B>(request: &Request<B>) -> Result<Self, Mismatch> {
        let authority = request
            .uri()
            .authority()
            .ok_or(bad("CONNECT needs a host and a port"))?;
        // Replaced once the first bytes of the tunnel are known.
        let target = Self::new("https", authority)?;
        if authority.port_u16().is_none() {
            return Err(bad("CONNECT needs a port: CONNECT example.com:443"));
        }
        if let Some(host) = host_field(request.headers())? {
            // Without a port it stands for either, as what the tunnel carries is not known yet:
            // Node's own client asks for port 80 so.
            let named = [Self::new("https", &host)?, Self::new("http", &host)?];
            let agrees = |one: &Self| (&one.host, one.port) == (&target.host, target.port);
            if !named.iter().any(agrees) {
                return Err(bad("the Host field and the CONNECT target differ"));
            }
        }
        Ok(target)
    }

    /// The destination of a request that came through no tunnel.
    pub(super) fn of_absolute<B>(request: &Request<B>) -> Result<Self, Mismatch> {
        let (Some(scheme), Some(authority)) = (request.uri().scheme(), request.uri().authority())
        else {
            return Err(bad(
                "this is a forward proxy: the request line needs an absolute URI (GET http://example.com/ HTTP/1.1) or CONNECT; set HTTP_PROXY to this address instead of calling it as a server",
            ));
        };
        if *scheme != Scheme::HTTP {
            return Err(bad(
                "only http:// URIs may be sent in absolute form; for https:// use CONNECT",
            ));
        }
        let target = Self::new("http", authority)?;
        target.agrees(
            request.headers(),
            bad("the Host field and the request URI name different hosts"),
        )?;
        Ok(target)
    }

    /// Checks that a request inside a tunnel to `self` is for `self`.
    pub(super) fn check_inner<B>(&self, request: &Request<B>) -> Result<(), Mismatch> {
        if *request.method() == Method::CONNECT {
            return Err(bad("a tunnel inside a tunnel is not supported"));
        }
        if is_authority_form(request.uri()) {
            return Err(AUTHORITY_FORM);
        }
        if let Some(authority) = request.uri().authority() {
            let scheme = request.uri().scheme_str().unwrap_or(self.scheme);
            if scheme != self.scheme || Self::new(self.scheme, authority)? != *self {
                return Err(MISDIRECTED);
            }
        }
        self.agrees(request.headers(), MISDIRECTED)
    }

    /// What a request names that came without a proxy's knowledge, at `port` where it names none.
    pub(super) fn named<B>(request: &Request<B>, port: u16) -> Result<Option<Self>, Mismatch> {
        if *request.method() == Method::CONNECT {
            return Err(bad(
                "a proxy of somebody else's is not used: the sidecar is the only one",
            ));
        }
        if is_authority_form(request.uri()) {
            return Err(AUTHORITY_FORM);
        }
        let authority = match request.uri().authority() {
            Some(authority) => Some(authority.clone()),
            None => host_field(request.headers())?,
        };
        let Some(authority) = authority else {
            return Ok(None);
        };
        let target = Self::new("http", &authority)?;
        Ok((target.port == port).then_some(target))
    }

    /// The address itself.
    pub(super) fn of_address(scheme: &'static str, address: SocketAddr) -> Self {
        Self {
            scheme,
            host: address.ip().to_canonical().to_string().into(),
            port: address.port(),
        }
    }

    fn agrees(&self, headers: &HeaderMap, otherwise: Mismatch) -> Result<(), Mismatch> {
        if self.is_plainly_named(headers) {
            return Ok(());
        }
        match host_field(headers)? {
            Some(host) if Self::new(self.scheme, &host)? == *self => Ok(()),
            Some(_) => Err(otherwise),
            // HTTP/1.0 may leave it out; the URI or the tunnel says it all.
            None => Ok(()),
        }
    }

    /// Whether the one Host field names this destination letter for letter, as
    /// it nearly always does. `false` says nothing: it may do so otherwise.
    fn is_plainly_named(&self, headers: &HeaderMap) -> bool {
        let mut all = headers.get_all(header::HOST).iter();
        let (Some(value), None) = (all.next(), all.next()) else {
            return false;
        };
        if self.host.contains(':') {
            return false;
        }
        match value.as_bytes().strip_prefix(self.host.as_bytes()) {
            Some([]) => self.port == self.default_port(),
            Some([b':', port @ ..]) => self.is_port(port),
            Some(_) | None => false,
        }
    }

    fn is_port(&self, text: &[u8]) -> bool {
        let text = std::str::from_utf8(text).ok();
        let digits =
            text.filter(|text| text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit()));
        digits.is_some_and(|digits| digits.parse() == Ok(self.port))
    }

    fn default_port(&self) -> u16 {
        if self.scheme == "https" { 443 } else { 80 }
    }

    /// What `authority` names, with the port of `scheme` if it says none.
    pub(super) fn new(scheme: &'static str, authority: &Authority) -> Result<Self, Mismatch> {
        if authority.as_str().contains('@') {
            return Err(bad(
                "an authority may not carry credentials (user:password@host)",
            ));
        }
        Ok(Self {
            scheme,
            host: host_of(authority)?,
            port: port_of(authority)?.unwrap_or(if scheme == "https" { 443 } else { 80 }),
        })
    }

    /// Host, and the port if it is not the scheme's.
    pub(super) fn authority(&self) -> String {
        let mut url = self.origin();
        url.split_off(self.scheme.len().saturating_add("://".len()))
    }

    /// Scheme, host and port as a URL begins with them.
    pub(super) fn origin(&self) -> String {
        self.url("")
    }

    /// The URL of `path` there.
    pub(super) fn url(&self, path: &str) -> String {
        let port = match self.port == self.default_port() {
            true => String::new(),
            false => self.port.to_string(),
        };
        let (open, close) = match self.host.contains(':') {
            true => ("[", "]"),
            false => ("", ""),
        };
        let colon = if port.is_empty() { "" } else { ":" };
        [
            self.scheme,
            "://",
            open,
            &self.host,
            close,
            colon,
            &port,
            path,
        ]
        .concat()
    }
}

/// Whether a host and a port is all that `uri` says.
fn is_authority_form(uri: &Uri) -> bool {
    uri.authority().is_some() && uri.scheme().is_none()
}

/// Makes an empty path that of the root: HTTP/2 can leave it out, and it is judged, routed and sent
/// as that.
pub(super) fn complete_path<B>(request: &mut Request<B>) {
    if request.uri().path().is_empty() && request.uri().authority().is_none() {
        *request.uri_mut() = Uri::from_static("/");
    }
}

/// The host that `authority` names, as a target has it.
fn host_of(authority: &Authority) -> Result<Box<str>, Mismatch> {
    let written = authority.host();
    let inner = written
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    if let Some(inner) = inner {
        // One that carries an IPv4 address is told as that, which is where it leads.
        let address = inner.parse().map(|ip: Ipv6Addr| ip.to_canonical());
        let address = address.map_err(|_| bad("only an IPv6 address may stand in brackets"))?;
        return Ok(address.to_string().into());
    }
    let host = written.strip_suffix('.').unwrap_or(written);
    let named = !host.is_empty()
        && host.len() <= 255
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte));
    if !named {
        return Err(bad(
            "the host is empty or contains a character that host names may not have",
        ));
    }
    // What rules know as a.test is not reached as `a.test..`: dialing takes a dot away, too.
    if host.split('.').any(str::is_empty) {
        return Err(bad(
            "the host has an empty label: a dot at its beginning, or two in a row",
        ));
    }
    // Resolvers know `127.1` and `0x7f.1`; rules know addresses as they are written here.
    if host.parse::<Ipv4Addr>().is_err() && !dial::is_name(host) {
        return Err(bad(
            "the host ends in a number and is no IP address as these are written: four decimal numbers, or IPv6 in brackets",
        ));
    }
    Ok(host.to_ascii_lowercase().into())
}

/// The port that `authority` says, if it says one. `example.com:` and `example.com:99999` have a
/// colon but no port, and what has a sign or more digits than a port is read in several ways.
fn port_of(authority: &Authority) -> Result<Option<u16>, Mismatch> {
    let text = authority.as_str();
    let after_host = text.rsplit(']').next().unwrap_or(text);
    let Some((_, port)) = after_host.rsplit_once(':') else {
        return Ok(None);
    };
    let digits = (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|port| digits && *port != 0);
    port.map(Some).ok_or(bad(
        "the port must be a number from 1 to 65535, of five digits at most",
    ))
}

/// The Host field, of which the sentinel let at most one through.
fn host_field(headers: &HeaderMap) -> Result<Option<Authority>, Mismatch> {
    let mut all = headers.get_all(header::HOST).iter();
    let Some(value) = all.next() else {
        return Ok(None);
    };
    if all.next().is_some() {
        return Err(bad("there is more than one Host field"));
    }
    let malformed = bad("the Host field is not a host with an optional port");
    Authority::try_from(value.as_bytes())
        .map(Some)
        .map_err(|_| malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(method: &str, uri: &str, host: Option<&str>) -> Request<()> {
        let mut request = Request::builder().method(method).uri(uri);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn an_absolute_request_has_one_destination_or_none() {
        #[rustfmt::skip]
        let table = [
            // URI                     Host                    destination
            ("http://a.test/x",        Some("a.test"),         Ok("http://a.test")),
            ("http://A.test./x",       Some("a.TEST:80"),      Ok("http://a.test")),
            ("http://a.test:8080/x",   Some("a.test:8080"),    Ok("http://a.test:8080")),
            ("http://[::1]:8080/x",    Some("[::1]:8080"),     Ok("http://[::1]:8080")),
            ("http://a.test/x",        None,                   Ok("http://a.test")),
            ("http://a.test:8080/x",   Some("a.test:08080"),   Ok("http://a.test:8080")),
            ("http://a.test/x",        Some("b.test"),         Err(400)),
            ("http://a.test/x",        Some("a.test.b"),       Err(400)),
            ("http://a.test:8080/x",   Some("a.test"),         Err(400)),
            ("http://a.test:8080/x",   Some("a.test:80800"),   Err(400)),
            ("http://a.test:8080/x",   Some("a.test:008080"),  Err(400)),
            ("http://a.test:8080/x",   Some("a.test:+8080"),   Err(400)),
            ("http://a.test/x",        Some("[a.test]"),       Err(400)),
            ("http://[::ffff:192.0.2.1]/", Some("[::FFFF:c000:201]"), Ok("http://192.0.2.1")),
            ("http://a.test:8080/x",   Some("a.test:"),        Err(400)),
            ("http://a.test/x",        Some("a.test:81"),      Err(400)),
            ("http://u:p@a.test/x",    Some("a.test"),         Err(400)),
            ("http://a.test/x",        Some("u@a.test"),       Err(400)),
            ("http://a.test:0/x",      Some("a.test:0"),       Err(400)),
            ("https://a.test/x",       Some("a.test"),         Err(400)),
            ("/x",                     Some("a.test"),         Err(400)),
        ];
        for (uri, host, expected) in table {
            let found = Target::of_absolute(&parts("GET", uri, host));
            let found = found.map(|t| t.origin()).map_err(|m| m.status.as_u16());
            assert_eq!(found, expected.map(str::to_owned), "{uri} {host:?}");
        }
    }

    #[test]
    fn a_host_has_no_empty_labels() {
        for (authority, expected) in [
            ("api.test..:443", None),
            ("api.test...:443", None),
            (".api.test:443", None),
            ("api..test:443", None),
            (".:443", None),
            ("..:443", None),
            ("api.test.:443", Some("api.test")),
            ("[::1]:443", Some("::1")),
            ("[::ffff:192.0.2.1]:443", Some("192.0.2.1")),
            ("[2001:DB8:0::0:1]:443", Some("2001:db8::1")),
            ("192.0.2.1:443", Some("192.0.2.1")),
            // Other spellings of addresses, which resolvers know.
            ("127.1:443", None),
            ("127.1.:443", None),
            ("2130706433:443", None),
            ("0x7f.1:443", None),
            ("0X7F000001:443", None),
            ("0177.0.0.1:443", None),
            ("a.0x:443", None),
            ("a.7:443", None),
            ("7.test:443", Some("7.test")),
            // Brackets are for IPv6, and ports have digits, five at most.
            ("[origin.test]:443", None),
            ("[192.0.2.1]:443", None),
            ("origin.test:+443", None),
            ("origin.test:0000443", None),
            ("origin.test:00443", Some("origin.test")),
        ] {
            let found = Target::new("https", &authority.parse().unwrap());
            let code = found.as_ref().err().map(|mismatch| mismatch.code);
            let host = found.as_ref().ok().map(|target| &*target.host);
            assert_eq!(host, expected, "{authority}");
            let refused = expected.is_none().then_some("bad_authority");
            assert_eq!(code, refused, "{authority}");
        }
    }

    #[test]
    fn a_tunnel_pins_what_comes_through_it() {
        let tunnel =
            Target::of_connect(&parts("CONNECT", "a.test:443", Some("a.test:443"))).unwrap();
        #[rustfmt::skip]
        let table = [
            // URI                    Host                 status
            ("/x",                    Some("a.test"),      None),
            ("/x",                    Some("A.test:443"),  None),
            ("https://a.test/x",      Some("a.test"),      None),
            ("/x",                    Some("b.test"),      Some(421)),
            ("/x",                    Some("a.test:80"),   Some(421)),
            ("https://b.test/x",      Some("a.test"),      Some(421)),
            ("http://a.test/x",       Some("a.test"),      Some(421)),
            ("/x",                    Some("a b"),         Some(400)),
            ("a.test",                Some("a.test"),      Some(400)),
            ("a.test:443",            Some("a.test"),      Some(400)),
            ("b.test",                Some("a.test"),      Some(400)),
        ];
        for (uri, host, status) in table {
            let found = tunnel.check_inner(&parts("GET", uri, host)).err();
            assert_eq!(found.map(|m| m.status.as_u16()), status, "{uri} {host:?}");
        }
        // Nor does it name a place to whoever was led here.
        for (uri, named) in [
            ("/x", Ok(Some("http://a.test"))),
            ("http://a.test/x", Ok(Some("http://a.test"))),
            ("a.test", Err(400)),
            ("a.test:80", Err(400)),
        ] {
            let found = Target::named(&parts("GET", uri, Some("a.test")), 80);
            let found = found.map(|target| target.map(|target| target.origin()));
            let found = found.map_err(|wrong| wrong.status.as_u16());
            assert_eq!(found, named.map(|named| named.map(str::to_owned)), "{uri}");
        }
        for (uri, host) in [
            ("a.test:443", Some("b.test:443")),
            ("a.test:443", Some("a.test:444")),
            ("a.test:80", Some("b.test")),
            ("a.test:8080", Some("a.test")),
        ] {
            assert!(Target::of_connect(&parts("CONNECT", uri, host)).is_err());
        }
        for (uri, host) in [
            ("a.test:443", Some("a.test")),
            ("a.test:80", Some("a.test")),
            ("a.test:8080", Some("a.test:8080")),
        ] {
            assert!(Target::of_connect(&parts("CONNECT", uri, host)).is_ok());
        }
    }
}
