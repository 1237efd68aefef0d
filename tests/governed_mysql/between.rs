//! What stands between the sidecar and a server, sees what passes, and can end or change it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// From whom to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    ToServer,
    ToSidecar,
}

/// What passes between the sidecar and the server, and where that ends.
#[derive(Debug, Default)]
pub(crate) struct Passing {
    pub(crate) cut: Option<(Way, usize)>,
    /// Behind so much nothing passes any more.
    pub(crate) stall: Option<(Way, usize)>,
    /// What the server says, and as long, what is heard instead.
    pub(crate) swap: Option<(&'static [u8], &'static [u8])>,
    pub(crate) to_server: Vec<u8>,
    pub(crate) to_sidecar: Vec<u8>,
}

/// Listens in front of a server, and forgets what passed with each connection.
pub(crate) fn between(server: u16) -> (u16, Arc<Mutex<Passing>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let passing = Arc::new(Mutex::new(Passing::default()));
    let shared = passing.clone();
    std::thread::spawn(move || {
        for from in listener.incoming() {
            let from = from.unwrap();
            let to = TcpStream::connect(("127.0.0.1", server)).unwrap();
            {
                let mut passing = shared.lock().unwrap();
                passing.to_server.clear();
                passing.to_sidecar.clear();
            }
            for (from, to, way) in [(&from, &to, Way::ToServer), (&to, &from, Way::ToSidecar)] {
                let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                let shared = shared.clone();
                std::thread::spawn(move || pass(from, to, way, &shared));
            }
        }
    });
    (port, passing)
}

fn pass(mut from: TcpStream, mut to: TcpStream, way: Way, shared: &Mutex<Passing>) {
    let mut passed = 0;
    let mut bytes = [0; 16 << 10];
    loop {
        let cut = shared.lock().unwrap().cut.filter(|(at, _)| *at == way);
        let left = cut.map_or(bytes.len(), |(_, after)| after.saturating_sub(passed));
        if left == 0 {
            break;
        }
        let stall = shared.lock().unwrap().stall.filter(|(at, _)| *at == way);
        let stalls = stall.and_then(|(_, after)| after.checked_sub(passed));
        let most = stalls
            .filter(|rest| *rest > 0)
            .unwrap_or(left)
            .min(left)
            .min(bytes.len());
        let Ok(read @ 1..) = from.read(&mut bytes[..most]) else {
            break;
        };
        let stall = shared.lock().unwrap().stall.filter(|(at, _)| *at == way);
        if stall.is_some_and(|(_, after)| passed >= after) {
            continue;
        }
        passed += read;
        {
            let mut passing = shared.lock().unwrap();
            let all = match way {
                Way::ToServer => &mut passing.to_server,
                Way::ToSidecar => &mut passing.to_sidecar,
            };
            all.extend_from_slice(&bytes[..read]);
        }
        let swap = shared.lock().unwrap().swap;
        if let Some((said, heard)) = swap.filter(|_| way == Way::ToSidecar) {
            let places = bytes[..read].windows(said.len());
            let found: Vec<_> = places
                .enumerate()
                .filter(|(_, part)| *part == said)
                .collect();
            let found: Vec<_> = found.into_iter().map(|(at, _)| at).collect();
            for at in found {
                bytes[at..at + heard.len()].copy_from_slice(heard);
            }
        }
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    for side in [from, to] {
        // It may be gone already.
        drop(side.shutdown(Shutdown::Both));
    }
}
