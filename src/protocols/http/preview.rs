//! What would become of a request, or of a message of a WebSocket, said without making one.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri};

use crate::domain::{Capture, Captured, Headers, ToolCall};
use crate::redact;

use super::authority::Target;
use super::credentials::{Credential, Withheld};
use super::routes::{Route, Treatment};
use super::settings::{Leads, Settings};
use super::{fields, mcp};

/// A request as somebody writes it who asks about it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// `GET`, for example; of a `ws` or `wss` URL, `GET` for the handshake and `POST` for a message
    /// that the agent says.
    pub method: &'a str,
    /// `http`, `https`, `ws` or `wss`.
    pub url: &'a str,
    /// `name: value`.
    pub headers: &'a [String],
}

/// A request as the proxy would take it.
#[derive(Debug)]
pub struct Preview<'a> {
    /// What policy would be asked about: the request, the message, or the tunnel to its host.
    pub method: Box<str>,
    /// Its URL, as policy would see it.
    pub url: String,
    /// Its fields, as policy would see them.
    pub headers: Headers,
    /// Without brackets, lower case.
    pub host: Box<str>,
    /// Where it would go.
    pub port: u16,
    /// Whether the request is read at all.
    pub leads: Leads,
    /// What of it is judged.
    pub judged: Judged,
    /// Whether a body with such fields is text to policy.
    pub is_text: bool,
    /// The route that fits, with its place in `http.routes`.
    pub route: Option<(usize, &'a Route)>,
    /// What holds.
    pub treatment: Treatment,
    /// The credential that fits, with its place in `http.credentials`, and why the request leaves
    /// without it, if it does.
    pub credential: Option<(usize, &'a Credential, Option<Withheld>)>,
}

/// What is judged by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// The request, or its tunnel.
    Request,
    /// The request, and each event or message behind it.
    Each,
    /// This message.
    Message,
    /// Nothing: it is a message where those are not judged.
    Nothing,
}

/// What a URL is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    Request,
    Message,
}

/// What would become of what is `asked` about.
///
/// # Errors
/// It is no request that a proxy takes; in words.
pub fn preview<'a>(settings: &'a Settings, asked: &Asked<'_>) -> Result<Preview<'a>, String> {
    let Asked { method, url, .. } = asked;
    let method: Method = method
        .parse()
        .map_err(|_| format!("{method:?} is no method of HTTP"))?;
    let uri: Uri = url.parse().map_err(|_| format!("{url:?} is no URL"))?;
    let (scheme, about) = about(&method, &uri)?;
    let authority = uri.authority().ok_or(format!("{url:?} names no host"))?;
    let target = Target::new(scheme, authority).map_err(|wrong| wrong.detail.to_owned())?;
    let headers = headers(asked.headers)?;
    let leads = match scheme {
        // It is sent in absolute form, which needs no tunnel.
        "http" => Leads::Read,
        _ => settings.leads(&target.host, target.port),
    };
    let (shown_method, path, url) = match leads {
        Leads::Unread => ("CONNECT", "", target.origin()),
        Leads::Read | Leads::Refused => {
            let path = uri.path_and_query().map_or("/", |path| path.as_str());
            let url = target.url(path);
            // As it is shown to policy.
            let shown = redact::url(&url).url.into_owned();
            match about {
                About::Request => (method.as_str(), uri.path(), shown),
                About::Message => ("POST", uri.path(), shown.replacen("http", "ws", 1)),
            }
        }
    };
    // Messages are treated as their handshake is.
    let treated = match about {
        About::Message if leads != Leads::Unread => "GET",
        About::Message | About::Request => shown_method,
    };
    let route = settings.route(treated, &target.host, path);
    let each = leads == Leads::Read && settings.judges_each(&target.host, path);
    let credential = Some(())
        .filter(|()| leads == Leads::Read && about == About::Request)
        .and_then(|()| settings.credential(&target.host, target.port, path));
    Ok(Preview {
        route,
        treatment: route.map_or(settings.treatment, |(_, route)| route.treatment),
        judged: match (about, each) {
            (About::Message, false) if leads == Leads::Read => Judged::Nothing,
            (About::Message, true) => Judged::Message,
            (About::Request, true) => Judged::Each,
            (About::Request | About::Message, false) => Judged::Request,
        },
        credential: credential.map(|(at, credential)| {
            let withheld = credential.withheld(shown_method, (scheme, &target.host, path));
            (at, credential, withheld)
        }),
        is_text: about == About::Message || fields::reading(&headers).is_text(),
        headers: match leads {
            Leads::Unread => Headers::default(),
            Leads::Read | Leads::Refused => fields::captured(&headers),
        },
        method: shown_method.into(),
        url,
        host: target.host,
        port: target.port,
        leads,
    })
}

/// The scheme in which it is sent, and whether it is a request or a message.
fn about(method: &Method, uri: &Uri) -> Result<(&'static str, About), String> {
    let (scheme, socket) = match uri.scheme_str() {
        Some("http") => ("http", false),
        Some("https") => ("https", false),
        Some("ws") => ("http", true),
        Some("wss") => ("https", true),
        Some(_) | None => return Err(format!("\"{uri}\" is no http, https, ws or wss URL")),
    };
    match (socket, method) {
        (false, _) | (true, &Method::GET) => Ok((scheme, About::Request)),
        (true, &Method::POST) => Ok((scheme, About::Message)),
        (true, _) => Err(format!(
            "{method} is not asked about at a WebSocket: GET is its handshake, POST a message that the agent says"
        )),
    }
}

/// The fields that stay of these, each written `name: value`.
fn headers(said: &[String]) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for said in said {
        let field = said.split_once(':').and_then(|(name, value)| {
            let name: HeaderName = name.trim().parse().ok()?;
            Some((name, HeaderValue::from_str(value.trim()).ok()?))
        });
        let (name, value) = field.ok_or_else(|| format!("{said:?} is not name: value"))?;
        headers.append(name, value);
    }
    fields::strip_hop_by_hop(&mut headers);
    Ok(headers)
}

/// The tool that a request with this text for a body calls.
#[must_use]
pub fn tool_called(body: &str) -> Option<ToolCall> {
    mcp::tool_call(&Capture {
        text: Some(body.to_owned()),
        state: Captured::Whole,
        ..Capture::default()
    })
}

#[cfg(test)]
mod tests {
    use super::super::Place;
    use super::*;

    #[test]
    fn a_request_is_previewed_as_the_proxy_takes_it() {
        let settings = Settings {
            passthrough: vec!["pinned.test".to_owned()],
            connect_ports: vec![443],
            judge_each: vec![Place::new("a.test", Some("/x"))],
            ..Settings::default()
        };
        #[rustfmt::skip]
        let table = [
            // method  url                       asked about                        leads           judged
            ("GET",    "http://A.test:81/x?y",   "GET http://a.test:81/x?y",        Leads::Read,    Judged::Each),
            ("GET",    "https://a.test",         "GET https://a.test/",             Leads::Read,    Judged::Request),
            ("GET",    "https://a.test:444/x",   "GET https://a.test:444/x",        Leads::Refused, Judged::Request),
            ("PUT",    "https://pinned.test/x",  "CONNECT https://pinned.test",     Leads::Unread,  Judged::Request),
            ("PUT",    "http://pinned.test/x",   "PUT http://pinned.test/x",        Leads::Read,    Judged::Request),
            ("GET",    "wss://a.test/x",         "GET https://a.test/x",            Leads::Read,    Judged::Each),
            ("POST",   "wss://a.test/x?key=1",   "POST wss://a.test/x?key=[REDACTED]", Leads::Read, Judged::Message),
            ("POST",   "ws://a.test:81/x",       "POST ws://a.test:81/x",           Leads::Read,    Judged::Message),
            ("POST",   "wss://a.test/y",         "POST wss://a.test/y",             Leads::Read,    Judged::Nothing),
            ("POST",   "wss://pinned.test/x",    "CONNECT https://pinned.test",     Leads::Unread,  Judged::Request),
        ];
        for (method, url, asked, leads, judged) in table {
            let request = Asked {
                method,
                url,
                headers: &[],
            };
            let seen = preview(&settings, &request).unwrap();
            let found = (
                format!("{} {}", seen.method, seen.url),
                seen.leads,
                seen.judged,
            );
            assert_eq!(found, (asked.to_owned(), leads, judged), "{method} {url}");
        }
        for (method, url, header) in [
            ("G T", "http://a.test/", "a: b"),
            ("GET", "/x", "a: b"),
            ("GET", "ftp://a.test/", "a: b"),
            ("GET", "http://u@a.test/", "a: b"),
            ("PUT", "ws://a.test/", "a: b"),
            ("GET", "http://a.test/", "a"),
            ("GET", "http://a.test/", "a b: c"),
        ] {
            let request = Asked {
                method,
                url,
                headers: &[header.to_owned()],
            };
            assert!(
                preview(&settings, &request).is_err(),
                "{method} {url} {header}"
            );
        }
    }

    #[test]
    fn fields_are_previewed_as_policy_sees_them() {
        let headers = [
            "Content-Type: image/png",
            "authorization: x",
            "connection: y",
            "y: 1",
        ];
        let request = Asked {
            method: "POST",
            url: "http://a.test/",
            headers: &headers.map(str::to_owned),
        };
        let settings = Settings::default();
        let seen = preview(&settings, &request).unwrap();
        let fields: Vec<_> = seen.headers.iter().collect();
        assert_eq!(
            fields,
            [
                ("content-type", "image/png"),
                ("authorization", "[REDACTED]")
            ]
        );
        assert!(!seen.is_text);
    }
}
