//! Pipelines that are sent whole before a reply is read, as a server lets
//! clients do.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::World;
use crate::support::redis::{array, command, simple};
use crate::support::{PATIENCE, until};

/// Sends all of `said` before anything is read. A client that has to read
/// first would wait here for ever.
fn sent_whole(port: u16, said: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
        .write_all(said)
        .expect("it is taken without being answered");
    socket
}

/// Reads so many bytes, and what they end with.
fn read_through(socket: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut part = vec![0; 1 << 20];
    let mut left = bytes;
    let mut last = Vec::new();
    while left > 0 {
        let now = left.min(part.len());
        socket.read_exact(&mut part[..now]).unwrap();
        last = part[..now].to_vec();
        left -= now;
    }
    last
}

/// So many echoes of a text that is not judged, and how long their replies are.
fn echoes(count: usize) -> (Vec<u8>, usize) {
    let text = [b'e'; 300];
    let reply = "$300\r\n\r\n".len() + text.len();
    (array(&[b"PING", &text]).repeat(count), count * reply)
}

/// A key with so many bytes, asked for so many times, and how long that is.
fn values(world: &World, bytes: usize, count: usize) -> (Vec<u8>, usize) {
    let mut client = world.client();
    client.send(array(&[b"SET", b"big", &vec![b'v'; bytes]]));
    assert_eq!(client.next(), simple("OK"));
    let reply = format!("${bytes}\r\n\r\n").len() + bytes;
    (command("GET big").repeat(count), count * reply)
}

#[test]
fn rd_2_a_pipeline_of_100_000_commands_is_sent_before_a_reply_is_read() {
    let world = World::new();
    let (mut said, values) = values(&world, 16 << 10, 1_000);
    let (more, echoes) = echoes(99_000);
    said.extend(more);
    said.extend(command("GET forbidden"));
    said.extend(command("PING"));
    let mut socket = sent_whole(world.port, &said);
    let last = read_through(&mut socket, values);
    assert!(last.ends_with(b"vv\r\n"));
    let last = read_through(&mut socket, echoes);
    assert!(last.ends_with(b"ee\r\n"));
    let mut rest = vec![0; 1_000];
    let mut got = 0;
    while !rest[..got].ends_with(b"+PONG\r\n") {
        got += socket.read(&mut rest[got..]).unwrap();
    }
    assert!(rest.starts_with(b"-NOPERM blocked by policy: the test says block"));
    let peak = world.sidecar.peak_kib();
    assert!(peak < 300 << 10, "{peak} KiB");
}

#[test]
fn rd_2_commands_behind_a_reply_that_matters_are_taken_before_it_is_read() {
    let world = World::new();
    // What the sidecar must read to go on is behind what the client must read.
    let (mut said, values) = values(&world, 1 << 20, 20);
    said.extend(command("SELECT 0"));
    let (more, echoes) = echoes(60_000);
    said.extend(more);
    let mut socket = sent_whole(world.port, &said);
    let last = read_through(&mut socket, values);
    assert!(last.ends_with(b"vv\r\n"));
    let last = read_through(&mut socket, "+OK\r\n".len() + echoes);
    assert!(last.ends_with(b"ee\r\n"));
}

#[test]
fn rd_2_what_is_sent_ahead_has_a_limit_for_all_together_and_is_counted() {
    let world = World::with(&[], |setup| {
        setup.config("redis:\n  pipeline_bytes_max: 0\n")
    });
    let (mut said, values) = values(&world, 1 << 20, 20);
    said.extend(command("SELECT 0"));
    let (more, echoes) = echoes(60_000);
    said.extend(more);
    let mut socket = TcpStream::connect(("127.0.0.1", world.port)).unwrap();
    let mut reads = socket.try_clone().unwrap();
    let writes = std::thread::spawn(move || socket.write_all(&said).map(|()| socket));
    let hits = "openbox_limit_hits_total{limit=\"pipelined\"}";
    until("the limit", || {
        (world.sidecar.metric(hits) == 1).then_some(())
    });
    assert!(
        !writes.is_finished(),
        "it waits until something of it is read"
    );
    read_through(&mut reads, values);
    let last = read_through(&mut reads, "+OK\r\n".len() + echoes);
    assert!(last.ends_with(b"ee\r\n"));
    drop(writes.join().unwrap().unwrap());
}
