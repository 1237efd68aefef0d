//! The connections that processes of this machine have open, where the system shows them: Linux, of processes in our
//! namespaces of processes and of the network, whose open files we may see (see [`super::caller`]).

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Most of one table of connections that is read, bytes: some 400,000 connections.
const TABLE_BYTES_MAX: u64 = 64 << 20;
/// Most open files that are looked at.
pub(super) const FILES_MAX: usize = 1_000_000;

/// Tables of the kernel; see proc(5), `/proc/net/tcp`.
const TABLES: [(&str, Transport); 4] = [
    ("/proc/net/tcp", Transport::Tcp),
    ("/proc/net/tcp6", Transport::Tcp),
    ("/proc/net/udp", Transport::Udp),
    ("/proc/net/udp6", Transport::Udp),
];

/// What carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// A stream.
    Tcp,
    /// Datagrams to one address, as QUIC has them.
    Udp,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Made,
    Asked,
    Listening,
    Other,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    transport: Transport,
    local: SocketAddr,
    remote: SocketAddr,
    state: State,
    inode: u64,
}

/// A connection that a process made, or is making.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection {
    /// The process, by its id.
    pub process: u32,
    /// What carries it.
    pub transport: Transport,
    /// Where it leads.
    pub remote: SocketAddr,
}

/// What the system shows at one moment.
#[derive(Debug)]
pub struct Connections {
    rows: Vec<Row>,
    /// Who has a socket open, by its inode.
    owners: HashMap<u64, Vec<u32>>,
    /// The processes that were looked at.
    processes: Vec<u32>,
}

impl Connections {
    /// Looks, at those processes alone that `wanted` names by their ids.
    ///
    /// # Errors
    /// The system has no such tables.
    pub fn now(wanted: impl Fn(u32) -> bool) -> io::Result<Self> {
        let mut rows = rows()?;
        // A table shows who listens first, and is no picture of one moment: what was accepted in the middle of
        // it must not be taken for what was made here.
        let listening = |row: &Row| row.state == State::Listening;
        rows.extend(self::rows()?.into_iter().filter(listening));
        let mut found = Self {
            rows,
            owners: HashMap::new(),
            processes: Vec::new(),
        };
        found.take_owners(wanted)?;
        Ok(found)
    }

    /// The processes that were looked at.
    pub fn processes(&self) -> impl Iterator<Item = u32> {
        self.processes.iter().copied()
    }

    /// Those that lead off this machine, each once: made here, not accepted, and not questions for names.
    pub fn leading_off(&self) -> Vec<Connection> {
        let accepting: Vec<u16> = self.listening().map(|row| row.local.port()).collect();
        let leads_off = |row: &&Row| {
            let ip = row.remote.ip().to_canonical();
            let is_open = matches!(row.state, State::Made | State::Asked);
            let is_accepted =
                row.transport == Transport::Tcp && accepting.contains(&row.local.port());
            let is_here =
                ip.is_loopback() || ip.is_unspecified() || ip == row.local.ip().to_canonical();
            let asks_for_names = row.remote.port() == 53;
            is_open && !is_accepted && !is_here && !asks_for_names
        };
        let mut found: Vec<Connection> = self
            .rows
            .iter()
            .filter(leads_off)
            .flat_map(|row| {
                self.owners_of(row).map(|process| Connection {
                    process,
                    transport: row.transport,
                    remote: SocketAddr::new(row.remote.ip().to_canonical(), row.remote.port()),
                })
            })
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The processes that listen at `address`, or at its port on all addresses.
    pub fn listeners_at(&self, address: SocketAddr) -> Vec<u32> {
        let at = |row: &&Row| {
            let ip = row.local.ip().to_canonical();
            row.local.port() == address.port() && (ip.is_unspecified() || ip == address.ip())
        };
        let mut all: Vec<u32> = self
            .listening()
            .filter(at)
            .flat_map(|row| self.owners_of(row))
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    fn take_owners(&mut self, wanted: impl Fn(u32) -> bool) -> io::Result<()> {
        let mut left = FILES_MAX;
        for (id, files) in processes()?.filter(|(id, _)| wanted(*id)) {
            self.processes.push(id);
            // Those of others are not ours to read.
            let Ok(files) = fs::read_dir(files) else {
                continue;
            };
            for file in files.map_while(Result::ok) {
                left = match left.checked_sub(1) {
                    Some(left) => left,
                    None => return Ok(()),
                };
                if let Some(inode) = fs::read_link(file.path())
                    .ok()
                    .and_then(|target| socket(&target))
                {
                    self.owners.entry(inode).or_default().push(id);
                }
            }
        }
        Ok(())
    }

    fn listening(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.state == State::Listening)
    }

    fn owners_of(&self, row: &Row) -> impl Iterator<Item = u32> {
        self.owners.get(&row.inode).into_iter().flatten().copied()
    }
}

fn rows() -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (path, transport) in TABLES {
        match File::open(path) {
            Ok(table) => rows.extend(read(table, transport)),
            // A system without IPv6 has no table of it.
            Err(_) if path.ends_with('6') => {}
            Err(error) => return Err(error),
        }
    }
    Ok(rows)
}

fn read(table: impl Read, transport: Transport) -> Vec<Row> {
    lines(table)
        .filter_map(|line| row(&line, transport))
        .collect()
}

/// The lines of one table, as many as are read.
pub(super) fn lines(table: impl Read) -> impl Iterator<Item = String> {
    let table = BufReader::new(table.take(TABLE_BYTES_MAX));
    table.lines().map_while(Result::ok)
}

/// Every process, with the folder of its open files.
pub(super) fn processes() -> io::Result<impl Iterator<Item = (u32, PathBuf)>> {
    let all = fs::read_dir("/proc")?.map_while(Result::ok);
    Ok(all.filter_map(|entry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        Some((id, entry.path().join("fd")))
    }))
}

fn row(line: &str, transport: Transport) -> Option<Row> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let local = address(fields.next()?)?;
    let remote = address(fields.next()?)?;
    let state = match fields.next()? {
        "01" => State::Made,
        "02" => State::Asked,
        "0A" => State::Listening,
        _ => State::Other,
    };
    // A connection that nobody owns any more has 0.
    let inode = fields.nth(5)?.parse().ok().filter(|inode| *inode != 0)?;
    Some(Row {
        transport,
        local,
        remote,
        state,
        inode,
    })
}

/// An address as the tables have it: words in the order of this machine, then a port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let digits = ip.get(at..at.checked_add(8)?)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let ip = match ip.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let octets: [u8; 16] = words.concat().try_into().ok()?;
            IpAddr::from(Ipv6Addr::from(octets))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

fn socket(target: &Path) -> Option<u64> {
    let inode = target
        .to_str()?
        .strip_prefix("socket:[")?
        .strip_suffix(']')?;
    inode.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn what_the_kernel_writes_is_read() {
        let written = |words: &[[u8; 4]]| -> String {
            words
                .iter()
                .map(|word| format!("{:08X}", u32::from_ne_bytes(*word)))
                .collect()
        };
        let v4 = format!("{}:01BB", written(&[[192, 0, 2, 7]]));
        assert_eq!(address(&v4).unwrap().to_string(), "192.0.2.7:443");
        let v6 = written(&[[0x20, 1, 0xd, 0xb8], [0; 4], [0; 4], [0, 0, 0, 1]]);
        assert_eq!(
            address(&format!("{v6}:0050")).unwrap().to_string(),
            "[2001:db8::1]:80"
        );
        let line = format!(
            "   1: {v4} {v4} 01 00000000:00000000 00:00000000 00000000  1000  0 4711 1 0000000000000000 20 4 30 10 -1"
        );
        let row = row(&line, Transport::Tcp).unwrap();
        assert_eq!((row.inode, row.state), (4711, State::Made));
        for wrong in ["", "xx:00", "0100007F", "0100007F:zz"] {
            assert!(address(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_listener_is_found_and_what_stays_here_does_not_lead_off() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let _client = TcpStream::connect(at).unwrap();
        let ours = std::process::id();
        let now = Connections::now(|id| id == ours).unwrap();
        assert_eq!(now.listeners_at(at), [ours]);
        assert!(
            now.leading_off()
                .iter()
                .all(|one| !one.remote.ip().is_loopback())
        );
    }
}
