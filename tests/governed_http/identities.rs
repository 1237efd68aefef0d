//! Origins that know whose requests are whose by the connection that they come over.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::origin::Origin;
use crate::support::policies::ALLOW;
use crate::support::sidecar::{Setup, request};
use crate::support::wire::{Message, Wire};

/// Says by which connection a request came, and who is known on it: NTLM in two steps, as IIS and
/// Samba have it.
fn by_connection(scheme: &'static str) -> Origin {
    let count = Arc::new(AtomicUsize::new(0));
    Origin::raw(move |mut wire, shared| {
        let number = count.fetch_add(1, Ordering::Relaxed) + 1;
        let mut known = "nobody".to_owned();
        while let Some(request) = wire.request() {
            shared.log(&request);
            let said = request.head.get("authorization").unwrap_or_default();
            let wants = request.head.path() != "/open" && known == "nobody";
            let mut challenge = String::new();
            match said.split_once(' ') {
                Some((_, "hello")) => {
                    challenge = format!("www-authenticate: Basic realm=\"x\", {scheme} riddle\r\n");
                }
                Some((_, user)) => known = user.to_owned(),
                _ if wants => challenge = format!("www-authenticate: {scheme}\r\n"),
                _ => {}
            }
            let status = if challenge.is_empty() { 200 } else { 401 };
            let body = format!("{known} on {number}");
            let answer = format!(
                "HTTP/1.1 {status} Whatever\r\ncontent-type: text/plain\r\n{challenge}content-length: {}\r\n\r\n{body}",
                body.len()
            );
            if wire.try_say(answer).is_err() {
                return;
            }
        }
    })
}

fn ask(wire: &mut Wire, site: &Origin, path: &str, authorization: &str) -> Message {
    let fields = [("authorization", authorization)];
    let fields = &fields[..usize::from(!authorization.is_empty())];
    wire.say(request("GET", &site.url(path), fields, ""));
    wire.answer()
}

#[test]
fn a_connection_that_is_somebodys_is_used_for_nobody_else() {
    for scheme in ["NTLM", "Negotiate"] {
        let site = by_connection(scheme);
        // One worker: each has a pool of its own.
        let setup = Setup::new().policy(ALLOW).flag("--workers", "1");
        let sidecar = setup.reach(&site).start();
        let (mut one, mut other) = (sidecar.wire(), sidecar.wire());
        // Nobody's, and free for all.
        assert_eq!(ask(&mut other, &site, "/open", "").text(), "nobody on 1");
        let answer = ask(&mut one, &site, "/x", "");
        assert_eq!(
            (answer.status(), answer.text()),
            (401, "nobody on 1".into())
        );
        // From here on it is the first client's.
        assert_eq!(ask(&mut other, &site, "/open", "").text(), "nobody on 2");
        let answer = ask(&mut one, &site, "/x", &format!("{scheme} hello"));
        assert_eq!(
            (answer.status(), answer.text()),
            (401, "nobody on 1".into())
        );
        let answer = ask(&mut one, &site, "/x", &format!("{scheme} ada"));
        assert_eq!((answer.status(), answer.text()), (200, "ada on 1".into()));
        assert_eq!(ask(&mut other, &site, "/open", "").text(), "nobody on 2");
        assert_eq!(ask(&mut one, &site, "/x", "").text(), "ada on 1");
        // Who begins with it does not get around.
        let answer = ask(&mut other, &site, "/x", &format!("{scheme} hello"));
        assert_eq!(answer.text(), "nobody on 2");
        let mut third = sidecar.wire();
        assert_eq!(ask(&mut third, &site, "/open", "").text(), "nobody on 3");
        assert_eq!(
            ask(&mut other, &site, "/x", &format!("{scheme} bob")).text(),
            "bob on 2"
        );
        drop((one, other));
        for _ in 0..3 {
            assert_eq!(ask(&mut third, &site, "/open", "").text(), "nobody on 3");
        }
        // Nor who is let in without a riddle.
        let mut fourth = sidecar.wire();
        let answer = ask(&mut fourth, &site, "/x", &format!("{scheme} eve"));
        assert_eq!((answer.status(), answer.text()), (200, "eve on 3".into()));
        assert_eq!(ask(&mut third, &site, "/open", "").text(), "nobody on 4");
    }
}
