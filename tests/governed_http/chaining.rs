//! Through a real proxy of the network: tinyproxy, which is asked by CONNECT,
//! and microsocks, which speaks SOCKS5. Both ask for a login, and both alone
//! know what the origins' names stand for.

use std::fs;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use crate::clients::curl;
use crate::support::authority::{Authority, Dates};
use crate::support::origin::Origin;
use crate::support::policies::AS_THE_PATH_SAYS;
use crate::support::sidecar::{Setup, Sidecar};
use crate::support::{free_port, until};

pub(crate) const LOGIN: &str = "agent:correct-horse";

/// A proxy in a file system where names are found; stopped when dropped.
pub(crate) struct Network {
    child: Child,
    url: String,
    folder: tempfile::TempDir,
}

impl Network {
    pub(crate) fn tinyproxy(origins: &[&Origin]) -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let log = folder.path().join("log");
        let config = format!(
            "Port {port}\nListen 127.0.0.1\nAllow 127.0.0.1\nTimeout 60\nMaxClients 50\n\
             LogFile \"{}\"\nLogLevel Connect\nBasicAuth agent correct-horse\n",
            log.display()
        );
        fs::write(folder.path().join("conf"), config).unwrap();
        let file = folder.path().join("conf").display().to_string();
        let words = ["tinyproxy", "-d", "-c", &file];
        Self::begin(&words, origins, folder, format!("http://127.0.0.1:{port}"))
    }

    fn microsocks(origins: &[&Origin]) -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let at = port.to_string();
        let who = ["-u", "agent", "-P", "correct-horse"];
        let words = [&["microsocks", "-i", "127.0.0.1", "-p", &at], &who[..]].concat();
        Self::begin(
            &words,
            origins,
            folder,
            format!("socks5://127.0.0.1:{port}"),
        )
    }

    fn begin(words: &[&str], origins: &[&Origin], folder: tempfile::TempDir, url: String) -> Self {
        let names: String = origins
            .iter()
            .map(|origin| format!("127.0.0.1 {}\n", host(origin)))
            .collect();
        fs::write(folder.path().join("hosts"), names).unwrap();
        let child = Command::new("unshare")
            .args(["--mount", "--map-root-user", "sh", "-c"])
            .arg("mount --bind \"$1\" /etc/hosts && shift && exec \"$@\"")
            .arg("sh")
            .arg(folder.path().join("hosts"))
            .args(words)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("scripts/needs.sh was not run");
        let port = url.rsplit_once(':').unwrap().1.to_owned();
        until("the proxy to listen", || {
            TcpStream::connect(format!("127.0.0.1:{port}")).ok()
        });
        Self { child, url, folder }
    }

    /// What tinyproxy was asked for.
    fn asked(&self) -> Vec<String> {
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap();
        let all = log.lines().filter_map(|line| line.split_once(": CONNECT "));
        all.map(|(_, rest)| rest.split(' ').next().unwrap().to_owned())
            .collect()
    }

    /// A sidecar behind it, which knows no names of its own.
    pub(crate) fn governed(&self, login: &str, authority: &Authority, more: &str) -> Sidecar {
        let setup = Setup::new().policy(AS_THE_PATH_SAYS).trust(authority);
        let login = setup.write("login", login);
        let config = format!("upstream:\n  proxy_login_file: {login}\n{more}");
        let setup = setup.config(&config);
        setup.env("OPENBOX_UPSTREAM_PROXY", &self.url).start()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        if let Err(error) = ended {
            eprintln!("a proxy of a test could not be stopped: {error}");
        }
    }
}

fn host(origin: &Origin) -> String {
    let authority = origin.authority();
    authority.rsplit_once(':').unwrap().0.to_owned()
}

pub(crate) fn through(sidecar: &Sidecar, url: &str) -> String {
    let (proxy, ca) = (
        format!("http://{}", sidecar.http),
        sidecar.ca().display().to_string(),
    );
    let words = [
        "--proxy",
        &proxy,
        "--cacert",
        &ca,
        "--write-out",
        " %{http_code}",
        url,
    ];
    curl(&words).out
}

#[test]
fn http_https_and_tunnels_go_through_a_proxy_that_is_asked_by_connect() {
    let authority = Authority::new();
    let plain = Origin::site();
    let secure = Origin::site_tls(authority.server("secure.test", Dates::Current));
    let network = Network::tinyproxy(&[&plain, &secure]);
    let sidecar = network.governed(LOGIN, &authority, "");
    for site in [&plain, &secure] {
        let allowed = through(&sidecar, &site.url("/started/allow"));
        assert_eq!(allowed, "hello from /started/allow 200");
        let before = network.asked().len();
        let blocked = through(&sidecar, &site.url("/started/block"));
        assert!(blocked.ends_with(" 403"), "{blocked}");
        assert_eq!(network.asked().len(), before, "nothing leaves undecided");
        assert_eq!(site.times("/started/block"), 0);
    }
    assert_eq!(network.asked(), [plain.authority(), secure.authority()]);
    let journal = fs::read_to_string(sidecar.state.join("journal.jsonl")).unwrap();
    assert!(!journal.contains("horse") && !sidecar.log().contains("horse"));
}

#[test]
fn what_passes_through_is_led_through_the_proxy_as_well() {
    let authority = Authority::new();
    let secure = Origin::site_tls(authority.server("secure.test", Dates::Current));
    let network = Network::tinyproxy(&[&secure]);
    let sidecar = network.governed(LOGIN, &authority, "http:\n  passthrough: [secure.test]\n");
    // Its certificate is the origin's own.
    let ca = network.folder.path().join("ca.pem");
    fs::write(&ca, &authority.pem).unwrap();
    let (proxy, ca) = (format!("http://{}", sidecar.http), ca.display().to_string());
    let passed = curl(&["--proxy", &proxy, "--cacert", &ca, &secure.url("/x")]);
    assert_eq!(passed.out, "hello from /x", "{passed:?}");
    assert_eq!(network.asked(), [secure.authority()]);
}

#[test]
fn https_goes_through_a_socks_proxy_that_wants_a_login() {
    let authority = Authority::new();
    let secure = Origin::site_tls(authority.server("secure.test", Dates::Current));
    let network = Network::microsocks(&[&secure]);
    let sidecar = network.governed(LOGIN, &authority, "");
    let allowed = through(&sidecar, &secure.url("/started/allow"));
    assert_eq!(allowed, "hello from /started/allow 200");
    let stranger = network.governed("agent:wrong", &authority, "");
    let failed = through(&stranger, &secure.url("/started/allow"));
    assert!(failed.ends_with(" 502"), "{failed}");
    assert!(failed.contains("upstream.proxy"), "{failed}");
}

#[test]
fn what_need_not_or_must_not_go_through_the_proxy_does_not() {
    let authority = Authority::new();
    let (near, far) = (Origin::site(), Origin::site());
    let network = Network::tinyproxy(&[&far]);
    let direct = "  no_proxy: [10.99.0.0/16]\n  private: refuse\n";
    // What has an address here is not the proxy's to find.
    let sidecar = {
        let setup = Setup::new()
            .policy(AS_THE_PATH_SAYS)
            .trust(&authority)
            .reach(&near);
        let login = setup.write("login", LOGIN);
        let config = format!("upstream:\n  proxy_login_file: {login}\n{direct}");
        let setup = setup.config(&config);
        setup.env("OPENBOX_UPSTREAM_PROXY", &network.url).start()
    };
    assert_eq!(sidecar.get(&near.url("/x")).status(), 200);
    for host in [
        "10.0.0.7",
        "10.99.0.1",
        "metadata.google.internal",
        "169.254.169.254",
    ] {
        let refused = sidecar.get(&format!("http://{host}/x"));
        let found = (refused.status(), refused.code());
        assert_eq!(found, (403, "address_refused".to_owned()), "{host}");
    }
    // The proxy's resolver would take it for the last of these.
    assert_eq!(sidecar.get("http://2852039166/x").status(), 400);
    assert!(network.asked().is_empty());
}

#[test]
fn a_proxy_that_refuses_or_is_not_there_is_named() {
    let authority = Authority::new();
    let site = Origin::site();
    let network = Network::tinyproxy(&[&site]);
    let stranger = network.governed("agent:wrong", &authority, "");
    let unknown = network.governed(LOGIN, &authority, "");
    let gone = free_port();
    let nobody = Setup::new()
        .policy(AS_THE_PATH_SAYS)
        .env(
            "OPENBOX_UPSTREAM_PROXY",
            &format!("http://127.0.0.1:{gone}"),
        )
        .start();
    let elsewhere = "http://no-such-name.test/x".to_owned();
    for (sidecar, url, expected) in [
        (
            &stranger,
            site.url("/x"),
            "it answered 401 Unauthorized: it does not take the login",
        ),
        (&unknown, elsewhere, "it answered 5"),
        (&nobody, site.url("/x"), "refused"),
    ] {
        let answer = sidecar.get(&url);
        let found = (answer.status(), answer.code());
        assert_eq!(found, (502, "upstream_unreachable".to_owned()), "{url}");
        let text = answer.text();
        assert!(
            text.contains("(upstream.proxy)") && text.contains(expected),
            "{text}"
        );
    }
}
