//! A request in the form that the version of HTTP on its connection asks for.

use http::header::{self, HeaderValue};
use http::uri::{PathAndQuery, Uri};
use http::{Request, Version};
use http_body::Body;

use super::authority::Target;

/// As HTTP/1.1 has it: the path, a Host, and a body that says where it ends.
pub(super) fn for_http1<B: Body>(request: &mut Request<B>, target: &Target) {
    let host = request.uri().authority().cloned();
    *request.uri_mut() = path_alone(request.uri());
    let from_http2 = request.version() == Version::HTTP_2;
    *request.version_mut() = Version::HTTP_11;
    let body = request.body();
    let ends_unsaid = !body.is_end_stream() && body.size_hint().exact().is_none();
    let headers = request.headers_mut();
    // The library would say so itself, but for methods that seldom have a body: of those it would
    // leave out what was judged.
    if ends_unsaid && !headers.contains_key(header::CONTENT_LENGTH) {
        let chunked = HeaderValue::from_static("chunked");
        headers.insert(header::TRANSFER_ENCODING, chunked);
    }
    if !headers.contains_key(header::HOST) {
        let host = match host.filter(|_| from_http2) {
            Some(host) => HeaderValue::try_from(host.as_str()),
            None => HeaderValue::try_from(target.authority()),
        };
        if let Ok(host) = host {
            headers.insert(header::HOST, host);
        }
    }
    if from_http2 {
        join_cookies(headers);
    }
}

/// Path and query of `uri`, and nothing else of it.
pub(super) fn path_alone(uri: &Uri) -> Uri {
    let path = uri.path_and_query().cloned();
    // One that is empty has no form of its own (RFC 9112 §3.2.1); the default is `/`.
    path.map(Uri::from)
        .filter(|path| !path.path().is_empty())
        .unwrap_or_default()
}

/// As HTTP/2 has it: scheme, authority and path together, and no Host beside
/// them (RFC 9113 §8.3.1).
pub(super) fn for_http2<B>(request: &mut Request<B>, target: &Target) {
    let path = request.uri().path_and_query().cloned();
    let whole = Uri::builder()
        .scheme(target.scheme)
        .authority(target.authority())
        .path_and_query(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    // A target is always an authority; the request would be refused by what sends it.
    if let Ok(whole) = whole.build() {
        *request.uri_mut() = whole;
    }
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().remove(header::HOST);
}

/// HTTP/2 may have them apart, HTTP/1.1 has one field (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut http::HeaderMap) {
    let mut all = headers.get_all(header::COOKIE).iter();
    if let (Some(_), Some(_)) = (all.next(), all.next()) {
        let parts: Vec<&[u8]> = headers
            .get_all(header::COOKIE)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        if let Ok(mut joined) = HeaderValue::from_bytes(&parts.join(&b"; "[..])) {
            joined.set_sensitive(true);
            headers.insert(header::COOKIE, joined);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target::new("https", &"a.test:8443".parse().unwrap()).unwrap()
    }

    #[test]
    fn a_request_changes_its_form_there_and_back() {
        let request = Request::builder()
            .uri("/x?y=1")
            .header("host", "A.test:8443");
        let mut request = request.body(String::new()).unwrap();
        for_http2(&mut request, &target());
        assert_eq!(request.uri(), "https://a.test:8443/x?y=1");
        assert_eq!(request.version(), Version::HTTP_2);
        assert!(request.headers().is_empty());
        for_http1(&mut request, &target());
        assert_eq!(request.uri(), "/x?y=1");
        assert_eq!(request.version(), Version::HTTP_11);
        assert_eq!(request.headers()["host"], "a.test:8443");
    }

    #[test]
    fn a_path_that_is_empty_is_that_of_the_root() {
        for (uri, path) in [
            ("https://a.test", "/"),
            ("https://a.test?x=1", "/?x=1"),
            ("https://a.test/#x", "/"),
            ("/x?y#z", "/x?y"),
            ("*", "*"),
        ] {
            let mut request = Request::builder().uri(uri).body(String::new()).unwrap();
            for_http1(&mut request, &target());
            assert_eq!(request.uri().to_string(), path, "{uri}");
        }
        // As HTTP/2 can have it.
        let mut parts = Uri::from_static("https://a.test/").into_parts();
        parts.path_and_query = Some("#x".parse().unwrap());
        let whole = Uri::from_parts(parts).unwrap();
        let mut request = Request::builder().uri(whole).body(String::new()).unwrap();
        for_http1(&mut request, &target());
        assert_eq!(
            (request.uri().path(), &*request.uri().to_string()),
            ("/", "/")
        );
    }

    #[test]
    fn cookies_that_came_apart_are_one_field_for_http_1() {
        let request = Request::builder()
            .version(Version::HTTP_2)
            .uri("https://a.test/")
            .header("cookie", "a=1")
            .header("cookie", "b=2");
        let mut request = request.body(String::new()).unwrap();
        for_http1(&mut request, &target());
        let cookies: Vec<_> = request.headers().get_all("cookie").iter().collect();
        assert_eq!(cookies, ["a=1; b=2"]);
        assert_eq!(request.headers()["host"], "a.test");
    }
}
