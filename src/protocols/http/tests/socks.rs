//! Clients that speak SOCKS5, byte by byte.

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;

use super::world::{Origin, World, hear};
use super::*;
use crate::protocols::http::Settings;

/// The request for `address`, after a greeting without a name.
fn request(command: u8, kind: u8, address: &[u8], port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    [&[5, command, 0, kind], address, &[high, low]].concat()
}

/// What comes back for `bytes`, sent at once, to the end of the connection.
async fn said(world: &World, bytes: &[u8]) -> Vec<u8> {
    let mut client = world.connect().await;
    client.write_all(bytes).await.unwrap();
    let mut said = Vec::with_capacity(64);
    while client.read_buf(&mut said).await.unwrap() > 0 {}
    said
}

#[tokio::test]
async fn a_tunnel_is_opened_by_socks_and_governed_as_any() {
    let world = World::new(Scripted::always(Verdict::Allow)).await;
    let origin = Origin::saying(HELLO).await;
    let mut client = world.connect().await;
    // Everything at once, as a client may that knows the answers.
    let a = origin.address;
    let inner = format!("GET /in HTTP/1.1\r\nHost: {a}\r\n\r\n");
    let ask = request(1, 1, &[127, 0, 0, 1], a.port());
    let all = [&[5, 1, 0], &*ask, inner.as_bytes()].concat();
    client.write_all(&all).await.unwrap();
    let heard = hear(&mut client).await;
    let answers = "\u{5}\0\u{5}\0\0\u{1}\0\0\0\0\0\0HTTP/1.1 200 OK\r\n";
    assert!(
        heard.starts_with(answers) && heard.ends_with("hello"),
        "{heard:?}"
    );
    let decided = ["decision allow", "completion release"];
    world.decided(&decided).await;
    let other = b"GET /out HTTP/1.1\r\nHost: other.test\r\n\r\n";
    client.write_all(other).await.unwrap();
    assert!(hear(&mut client).await.starts_with("HTTP/1.1 200 "));
    // A name that does not lead to the address is nobody's: the request was for the address.
    let heard = origin.heard();
    assert!(
        heard.contains("/out") && !heard.contains("other.test"),
        "{heard}"
    );
}

#[tokio::test]
async fn a_request_for_another_host_than_the_name_that_was_asked_for_is_refused() {
    let world = World::new(Scripted::always(Verdict::Allow)).await;
    let origin = Origin::saying(HELLO).await;
    let mut client = world.connect().await;
    let ask = request(1, 3, b"\x09localhost", origin.address.port());
    let inner = b"GET /out HTTP/1.1\r\nHost: other.test\r\n\r\n";
    let all = [&[5, 1, 0], &*ask, inner].concat();
    client.write_all(&all).await.unwrap();
    assert!(hear(&mut client).await.contains("HTTP/1.1 421 "));
    assert_eq!(origin.heard(), "");
}

#[tokio::test]
async fn what_is_blocked_inside_never_reaches_the_origin() {
    let world = World::new(Scripted::always(Verdict::Block)).await;
    let origin = Origin::saying(HELLO).await;
    let mut client = world.connect().await;
    let name = b"\x09localhost";
    let ask = request(1, 3, name, origin.address.port());
    client
        .write_all(&[&[5, 2, 0, 1], &*ask].concat())
        .await
        .unwrap();
    let mut answers = [0; 12];
    client.read_exact(&mut answers).await.unwrap();
    let inner = format!(
        "GET / HTTP/1.1\r\nHost: localhost:{}\r\n\r\n",
        origin.address.port()
    );
    client.write_all(inner.as_bytes()).await.unwrap();
    assert!(hear(&mut client).await.starts_with("HTTP/1.1 403 "));
    assert_eq!(origin.heard(), "");
}

#[tokio::test]
async fn what_is_no_socks_or_cannot_be_served_is_told_so_and_closed() {
    let world = World::new(Scripted::always(Verdict::Allow)).await;
    let greeting = [5, 1, 0];
    let after = |ask: &[u8]| [&greeting, ask].concat();
    #[rustfmt::skip]
    let table: [(&str, Vec<u8>, &[u8]); 9] = [
        ("GSSAPI alone",      vec![5, 1, 1],                               &[5, 0xff]),
        ("no method",         vec![5, 0],                                  &[5, 0xff]),
        ("no such user",      vec![5, 1, 2, 1, 1, b'c', 1, b't'],          &[5, 2, 1, 1]),
        ("a name of another version", vec![5, 1, 2, 9, 1, b'c', 1, b't'],  &[5, 2]),
        ("BIND",              after(&request(2, 1, &[127, 0, 0, 1], 80)),  &[5, 0, 5, 7, 0, 1, 0, 0, 0, 0, 0, 0]),
        ("UDP",               after(&request(3, 4, &[0; 16], 80)),         &[5, 0, 5, 7, 0, 1, 0, 0, 0, 0, 0, 0]),
        ("no such address",   after(&[5, 1, 0, 2]),                        &[5, 0, 5, 8, 0, 1, 0, 0, 0, 0, 0, 0]),
        ("no host",           after(&request(1, 3, b"\x03a b", 80)),       &[5, 0, 5, 1, 0, 1, 0, 0, 0, 0, 0, 0]),
        ("no port",           after(&request(1, 1, &[127, 0, 0, 1], 0)),   &[5, 0, 5, 1, 0, 1, 0, 0, 0, 0, 0, 0]),
    ];
    for (what, bytes, expected) in table {
        assert_eq!(said(&world, &bytes).await, expected, "{what}");
    }
    assert!(
        world
            .journal()
            .iter()
            .all(|line| line.get("decision").is_none())
    );
}

#[tokio::test]
async fn a_client_that_stops_in_the_middle_is_let_go() {
    let settings = Settings {
        head_within: Duration::from_millis(50),
        ..Settings::default()
    };
    let world = World::with(Scripted::always(Verdict::Allow), settings).await;
    for bytes in [&[5][..], &[5, 3, 0], &[5, 1, 0, 5, 1, 0, 3, 200, b'a']] {
        let heard = said(&world, bytes).await;
        assert!(heard.is_empty() || heard == [5, 0], "{bytes:?} {heard:?}");
    }
}
