//! Sidecars whose ways out lead to each other: what goes around in circles ends where it meets itself.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::chaining::through;
use crate::support::origin::Origin;
use crate::support::policies::ALLOW;
use crate::support::sidecar::{Setup, Sidecar};

/// An address that is known before there is anybody to lead to.
struct Door {
    address: SocketAddr,
    leads_to: Arc<Mutex<Option<SocketAddr>>>,
    passed: Arc<AtomicUsize>,
}

impl Door {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let door = Self {
            address: listener.local_addr().unwrap(),
            leads_to: Arc::default(),
            passed: Arc::default(),
        };
        let (leads_to, passed) = (door.leads_to.clone(), door.passed.clone());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let to = leads_to.lock().unwrap().expect("it leads nowhere yet");
                passed.fetch_add(1, Ordering::SeqCst);
                let (client, server) = (client.unwrap(), TcpStream::connect(to).unwrap());
                copy(client.try_clone().unwrap(), server.try_clone().unwrap());
                copy(server, client);
            }
        });
        door
    }

    fn opens_to(&self, sidecar: &Sidecar) {
        *self.leads_to.lock().unwrap() = Some(sidecar.http);
    }

    fn passed(&self) -> usize {
        self.passed.load(Ordering::SeqCst)
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        // Either end may go whenever it likes.
        drop(io::copy(&mut from, &mut to));
        drop(to.shutdown(std::net::Shutdown::Write));
    });
}

fn behind(proxy: SocketAddr) -> Sidecar {
    let setup = Setup::new().policy(ALLOW);
    let setup = setup
        .flag("--allow-address", "127.0.0.1/32")
        .config("http:\n  passthrough: [unread.test]\n");
    let proxy = format!("http://{proxy}");
    setup.env("OPENBOX_UPSTREAM_PROXY", &proxy).start()
}

#[test]
fn two_sidecars_that_are_each_others_way_out_say_so_after_one_round() {
    let door = Door::new();
    let one = behind(door.address);
    let two = behind(one.http);
    door.opens_to(&two);
    let answer = through(&one, "http://a.test/x");
    assert!(answer.ends_with(" 508"), "{answer}");
    assert!(
        answer.contains("proxy_loop") && answer.contains("upstream.proxy"),
        "{answer}"
    );
    assert_eq!(door.passed(), 1);
    // So does a tunnel that is not opened anywhere on its way.
    let mut wire = one.wire();
    wire.say("CONNECT unread.test:443 HTTP/1.1\r\nHost: unread.test:443\r\n\r\n");
    let told = wire.answer();
    assert_eq!((told.status(), told.code()), (508, "proxy_loop".to_owned()));
    assert_eq!(door.passed(), 2);
}

#[test]
fn a_sidecar_that_is_its_own_way_out_says_so_at_once() {
    let door = Door::new();
    let one = behind(door.address);
    door.opens_to(&one);
    let answer = one.get("http://a.test/x");
    assert_eq!(
        (answer.status(), answer.code()),
        (508, "proxy_loop".to_owned())
    );
    assert_eq!(door.passed(), 1);
}

#[test]
fn a_row_of_sidecars_is_no_circle_and_no_origin_hears_of_it() {
    let site = Origin::site();
    let last = Setup::new().policy(ALLOW).reach(&site).start();
    let second = behind(last.http);
    let first = behind(second.http);
    let answer = first.get(&site.url("/x"));
    assert_eq!(
        (answer.status(), answer.text()),
        (200, "hello from /x".to_owned())
    );
    assert_eq!(site.heard()[0].get("via"), None);
}

#[test]
fn a_way_that_is_too_long_ends() {
    let nowhere = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let sidecar = behind(nowhere);
    let via = |count: usize| {
        let names = (0..count).map(|at| format!("1.1 openbox-{at:016x}"));
        names.collect::<Vec<_>>().join(", ")
    };
    for (count, expected) in [(7, 200), (8, 508)] {
        let mut wire = sidecar.wire();
        let via = via(count);
        wire.say(format!(
            "CONNECT a.test:80 HTTP/1.1\r\nHost: a.test:80\r\nVia: {via}\r\n\r\n"
        ));
        assert_eq!(wire.answer_to("CONNECT").status(), expected, "{count}");
    }
}
