//! How connections begin, and what does not speak the protocol.

use std::io::Write;
use std::net::TcpListener;

use crate::World;
use crate::support::mysql::{CAPABILITIES, Client, Server, frame, login};
use crate::support::sidecar::Setup;
use crate::support::{PATIENCE, free_port, until};

#[test]
fn my_1_only_what_is_understood_is_offered() {
    let world = World::new();
    let mut client = Client::open(world.port);
    let body = client.next().unwrap().body;
    let at = body.iter().position(|byte| *byte == 0).unwrap() + 1 + 4 + 9;
    let lower = u32::from(u16::from_le_bytes([body[at], body[at + 1]]));
    let upper = u32::from(u16::from_le_bytes([body[at + 5], body[at + 6]]));
    let offered = lower | upper << 16;
    for (bit, what) in [
        (5, "compression"),
        (7, "local files"),
        (11, "TLS"),
        (29, "more"),
    ] {
        assert_eq!(offered & 1 << bit, 0, "{what}");
    }
    assert_ne!(offered & 1 << 16, 0, "several statements");
}

#[test]
fn my_2_my_12_a_wrong_password_is_the_servers_to_refuse() {
    let world = World::new();
    let mut client = Client::open(world.port);
    client.next().unwrap();
    client.send(1, &login(CAPABILITIES, "nobody"));
    let (code, _) = client.next().unwrap().error();
    assert_eq!(code, 1045);
    assert_eq!(client.next(), None);
    assert!(world.told("started").is_empty());
}

#[test]
fn my_2_a_login_that_stops_half_way_is_told_so_and_is_counted() {
    // The server itself would end it sooner.
    let server = Server::start(&["--connect-timeout=120"]);
    let world = World::before(server, "", |setup| {
        setup.config("mysql:\n  login_within: 20s\n")
    });
    let wait = Some(PATIENCE * 2);
    // One hears the greeting, and says nothing.
    let mut silent = Client::open(world.port);
    silent.socket.set_read_timeout(wait).unwrap();
    silent.next().unwrap();
    let mut client = Client::open(world.port);
    client.socket.set_read_timeout(wait).unwrap();
    client.next().unwrap();
    let mut other = login(CAPABILITIES, "bob");
    other.truncate(other.len() - b"mysql_native_password\0".len());
    other.extend(b"client_ed25519\0");
    client.send(1, &other);
    // The server asks for its own method, and hears nothing.
    assert_eq!(client.next().unwrap().body[0], 0xfe);
    // What each has to say first has a number of its own.
    for (mut client, number) in [(silent, 2), (client, 4)] {
        let told = client.next().unwrap();
        let (code, text) = told.error();
        assert_eq!((told.number, code), (number, 1159), "{text}");
        assert!(
            text.contains("#08S01") && text.contains("mysql.login_within"),
            "{text}"
        );
        assert_eq!(client.next(), None);
    }
    let counted = "openbox_connections_refused_total{cause=\"slow\",protocol=\"mysql\"}";
    assert_eq!(world.sidecar.metric(counted), 2);
}

#[test]
fn my_3_a_command_before_the_login_is_over_does_not_reach_the_server() {
    let world = World::new();
    let mut client = Client::open(world.port);
    client.next().unwrap();
    let early = [
        frame(1, &login(CAPABILITIES, "bob")),
        frame(0, b"\x03DELETE FROM forbidden"),
    ];
    client.raw(&early.concat());
    assert_eq!(client.next().unwrap().body[0], 0);
    // It is judged like any other, in its turn.
    let (code, text) = client.next().unwrap().error();
    assert!(code == 1227 && text.contains("block"), "{text}");
}

#[test]
fn c_8_my_24_my_30_bad_input_is_told_and_the_connection_ends() {
    let world = World::new();
    for (bytes, expected) in [
        (
            &b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..],
            "not MySQL's protocol",
        ),
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            "not MySQL's protocol",
        ),
        // The X protocol's first words.
        (b"\x01\0\0\0\x01", "not MySQL's protocol"),
        (b"\x05\0\0\x01abcde", "a login is malformed"),
        // Nobody needs so much to say who they are.
        (b"\x01\0\x01\x01\x0d\xa2\x0f\0", "longer than is read"),
        (&frame(1, &login(CAPABILITIES | 0x20, "bob")), "compression"),
        (
            &frame(1, &login(CAPABILITIES & !0x200, "bob")),
            "before 4.1",
        ),
        (
            &frame(1, &login(CAPABILITIES | 0x800, "bob")[..32]),
            "without TLS",
        ),
    ] {
        let mut client = Client::open(world.port);
        client.next().unwrap();
        client.raw(bytes);
        let packet = client
            .next()
            .unwrap_or_else(|| panic!("{expected}: nothing was said"));
        let (_, text) = packet.error();
        assert!(text.contains(expected), "{expected}: {text}");
        assert_eq!(client.next(), None);
    }
    let refused = |cause: &str| {
        let labels = format!("{{cause=\"{cause}\",protocol=\"mysql\"}}");
        let name = format!("openbox_connections_refused_total{labels}");
        world.sidecar.metric(&name)
    };
    assert_eq!((refused("malformed"), refused("tls")), (7, 1));
    let broken = || {
        let name = "openbox_malformed_total{protocol=\"mysql\"}";
        world.sidecar.metric(name)
    };
    for (count, bytes, code) in [
        (1, frame(1, b"\x0e"), 1156),
        (2, frame(0, b""), 1156),
        (3, b"GET / HTTP/1.1\r\n\r\n".to_vec(), 1156),
        // An execution that does not say of what.
        (4, frame(0, b"\x17\x01"), 1156),
        // A name that nobody needs so long.
        (5, b"\x70\x11\x01\0\x02".to_vec(), 1156),
    ] {
        let mut client = world.client();
        client.raw(&bytes);
        assert_eq!(client.next().unwrap().error().0, code);
        assert_eq!(client.next(), None);
        assert_eq!(broken(), count, "{:?}", &bytes[..8.min(bytes.len())]);
    }
    // As if compression had been agreed on: a longer header, and the command behind it.
    let mut client = world.client();
    let inner = frame(0, b"\x03DELETE FROM t");
    client.raw(&[frame(0, b"")[..3].to_vec(), vec![0, 0, 0, 0], inner.clone()].concat());
    assert_eq!(client.next().unwrap().error().0, 1156);
    assert_eq!((client.next(), broken()), (None, 6));
    let mut client = world.client();
    let length = u8::try_from(inner.len()).unwrap();
    client.raw(&[vec![length, 0, 0, 0, 0, 0, 0], inner].concat());
    let (code, text) = client.next().unwrap().error();
    assert!(code == 1227 && text.contains("not known"), "{text}");
    // A command that nobody knows, and no statement.
    let told = world.told("started").into_iter();
    let told: Vec<_> = told.map(|line| line["db_operation"].clone()).collect();
    assert_eq!(told, ["COM_0"]);
    assert_eq!(world.client().rows("SELECT 1"), ["1"]);
}

#[test]
fn c_11_my_30_a_server_that_says_something_else_is_told_of() {
    let port = free_port();
    for (greeting, expected) in [
        (&b""[..], "ended the connection"),
        (b"\x05\0\0\0\x0b\x08\x05\x1a\0", "X protocol"),
        (b"\x02\0\0\0\x09x", "protocol 9"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not MySQL's protocol"),
        (
            b"\x17\0\0\0\xff\x10\x04Too many connections",
            "Too many connections",
        ),
        (b"\x30\0\0\0\x0a", "ended the connection"),
        (b"\x01\0\0\x03\x0a", "packet number 3"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream = listener.local_addr().unwrap();
        let url = format!("127.0.0.1:{port}=mysql://{upstream}");
        let sidecar = Setup::new()
            .policy(crate::POLICY)
            .flag("--mysql", &url)
            .start();
        let speaker = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            socket.write_all(greeting).unwrap();
        });
        let told = until("an answer", || Client::open(port).next());
        speaker.join().unwrap();
        let (_, text) = told.error();
        assert!(
            text.contains(expected) && told.number == 0,
            "{expected}: {text}"
        );
        drop(sidecar);
    }
}
