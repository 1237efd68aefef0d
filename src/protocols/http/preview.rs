//! What would become of a request, said without making one.

use http::{Method, Uri};

use crate::redact;

use super::authority::Target;
use super::routes::{Route, Treatment};
use super::settings::{Leads, Settings};

/// A request as the proxy would take it.
#[derive(Debug)]
pub struct Preview<'a> {
    /// What policy would be asked about: the request, or the tunnel to its host.
    pub method: Box<str>,
    /// Its URL, as policy would see it.
    pub url: String,
    /// Without brackets, lower case.
    pub host: Box<str>,
    /// Where it would go.
    pub port: u16,
    /// Whether the request is read at all.
    pub leads: Leads,
    /// The route that fits, with its place in `http.routes`.
    pub route: Option<(usize, &'a Route)>,
    /// What holds.
    pub treatment: Treatment,
    /// Whether the events of its answer, or its messages, are judged one by one.
    pub judges_each: bool,
}

/// What would become of `method url`.
///
/// # Errors
/// It is no request that a proxy takes; in words.
pub fn preview<'a>(settings: &'a Settings, method: &str, url: &str) -> Result<Preview<'a>, String> {
    let method: Method = method
        .parse()
        .map_err(|_| format!("{method:?} is no method of HTTP"))?;
    let uri: Uri = url.parse().map_err(|_| format!("{url:?} is no URL"))?;
    let scheme = match uri.scheme_str() {
        Some("http") => "http",
        Some("https") => "https",
        Some(_) | None => return Err(format!("{url:?} is no http or https URL")),
    };
    let authority = uri.authority().ok_or(format!("{url:?} names no host"))?;
    let target = Target::new(scheme, authority).map_err(|wrong| wrong.detail.to_owned())?;
    let leads = match scheme {
        // It is sent in absolute form, which needs no tunnel.
        "http" => Leads::Read,
        _ => settings.leads(&target.host, target.port),
    };
    let (method, path, url) = match leads {
        Leads::Unread => ("CONNECT", "", target.origin()),
        Leads::Read | Leads::Refused => {
            let path = uri.path_and_query().map_or("/", |path| path.as_str());
            let url = target.url(path);
            // As it is shown to policy.
            let shown = redact::url(&url).url.into_owned();
            (method.as_str(), uri.path(), shown)
        }
    };
    let route = settings.route(method, &target.host, path);
    Ok(Preview {
        route,
        treatment: route.map_or(settings.treatment, |(_, route)| route.treatment),
        judges_each: leads == Leads::Read && settings.judges_each(&target.host, path),
        method: method.into(),
        url,
        host: target.host,
        port: target.port,
        leads,
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
            // method  url                       asked about                        leads           each
            ("GET",    "http://A.test:81/x?y",   "GET http://a.test:81/x?y",        Leads::Read,    true),
            ("GET",    "https://a.test",         "GET https://a.test/",             Leads::Read,    false),
            ("GET",    "https://a.test:444/x",   "GET https://a.test:444/x",        Leads::Refused, false),
            ("PUT",    "https://pinned.test/x",  "CONNECT https://pinned.test",     Leads::Unread,  false),
            ("PUT",    "http://pinned.test/x",   "PUT http://pinned.test/x",        Leads::Read,    false),
        ];
        for (method, url, asked, leads, each) in table {
            let seen = preview(&settings, method, url).unwrap();
            let found = (
                format!("{} {}", seen.method, seen.url),
                seen.leads,
                seen.judges_each,
            );
            assert_eq!(found, (asked.to_owned(), leads, each), "{method} {url}");
        }
        for (method, url) in [
            ("G T", "http://a.test/"),
            ("GET", "/x"),
            ("GET", "ftp://a.test/"),
            ("GET", "http://u@a.test/"),
        ] {
            assert!(preview(&settings, method, url).is_err(), "{method} {url}");
        }
    }
}
