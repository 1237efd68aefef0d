//! Which process a connection of this machine comes from, where the system shows it: Linux, with the client in
//! our namespace of processes, and for connections to an address with the right to see what it has open (the same
//! user, or `CAP_SYS_PTRACE` and `CAP_DAC_READ_SEARCH`).

use std::fs::{self, File};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use socket2::SockRef;
use tokio::sync::Semaphore;

use crate::domain::Process;

use super::captured;
use super::connections::{self, FILES_MAX};
use super::stream::Stream;

/// Whether it is found out which process opened a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Callers {
    /// Never.
    #[default]
    Unknown,
    /// For every connection, before anything is read from it. That costs a look at all processes there are.
    Identified,
}

/// Most generations of a process that are looked at.
const GENERATIONS_MAX: usize = 64;

/// How many look at once: each keeps a thread busy, and a burst of connections must not keep all.
static LOOKING: Semaphore = Semaphore::const_new(2);

/// The other end of a connection, as far as the socket tells.
enum Origin {
    /// A socket of this machine at this address, connected to that one: ours, or one whose connections come to us.
    Address {
        theirs: SocketAddr,
        ours: SocketAddr,
    },
    /// This process, by its id.
    Process(u32),
}

/// The process at the other end of `stream`, then its parents, the nearest first. Empty where the system does not
/// show it. Waits for its turn; cancel-safe.
pub(super) async fn find(stream: &Stream) -> Arc<[Process]> {
    let Some(origin) = origin(stream) else {
        return Arc::default();
    };
    let Ok(turn) = LOOKING.acquire().await else {
        return Arc::default();
    };
    let found = tokio::task::spawn_blocking(move || {
        let process = match origin {
            Origin::Address { theirs, ours } => owner(inode(theirs, ours)?)?,
            Origin::Process(id) => id,
        };
        Some(lineage(process))
    });
    let found = found.await.ok().flatten().unwrap_or_default();
    drop(turn);
    found.into()
}

/// Whether it is a socket of this very process that is at the other end of `stream`, as far as the system shows it.
/// Waits for its turn; cancel-safe.
pub(super) async fn is_us(stream: &Stream) -> bool {
    let (Some(Origin::Address { theirs, ours }), Ok(turn)) =
        (origin(stream), LOOKING.acquire().await)
    else {
        return false;
    };
    let found = tokio::task::spawn_blocking(move || {
        let mut left = FILES_MAX;
        has_open(Path::new("/proc/self/fd"), inode(theirs, ours)?, &mut left)
    });
    let found = found.await.ok().flatten().unwrap_or_default();
    drop(turn);
    found
}

fn origin(stream: &Stream) -> Option<Origin> {
    match stream {
        Stream::Tcp(stream) => {
            let (theirs, ours) = (stream.peer_addr().ok()?, stream.local_addr().ok()?);
            // Its socket is still connected to whom it wanted; and nobody's is led here but of this machine.
            if let Ok(wanted) = captured::wanted(SockRef::from(stream)) {
                return Some(Origin::Address {
                    theirs,
                    ours: wanted,
                });
            }
            let is_here = theirs.ip().to_canonical().is_loopback() || theirs.ip() == ours.ip();
            is_here.then_some(Origin::Address { theirs, ours })
        }
        Stream::Unix(stream) => {
            let id = stream.peer_cred().ok()?.pid()?;
            u32::try_from(id).ok().map(Origin::Process)
        }
    }
}

/// The process called `id`, if there is one that we see.
#[must_use]
pub fn process(id: u32) -> Option<Process> {
    stat(id).map(|(process, _)| process)
}

/// The process called `id`, then its parents, the nearest first; those that we see.
#[must_use]
pub fn lineage(id: u32) -> Vec<Process> {
    let mut all = Vec::new();
    let mut next = id;
    while all.len() < GENERATIONS_MAX {
        let Some((process, parent)) = stat(next) else {
            break;
        };
        all.push(process);
        next = parent;
    }
    all
}

/// A process and its parent's id; see proc(5), `/proc/pid/stat`.
fn stat(id: u32) -> Option<(Process, u32)> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // Its name may have anything in it, also what ends a name.
    let (_, fields) = text.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(1);
    let parent = fields.next()?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    Some((Process { id, started }, parent))
}

/// The inode of the socket that is bound to `theirs` and connected to `ours`. One of the newer kind may name an
/// address of the older.
fn inode(theirs: SocketAddr, ours: SocketAddr) -> Option<u64> {
    let v4 = match (theirs.ip().to_canonical(), ours.ip().to_canonical()) {
        (IpAddr::V4(one), IpAddr::V4(other)) => Some((one, other)),
        (IpAddr::V4(_) | IpAddr::V6(_), _) => None,
    };
    let written = |ip: &[u8], port: u16| {
        let words = ip.chunks_exact(4);
        let words = words.filter_map(|word| word.try_into().ok());
        let words: String = words
            .map(|word| format!("{:08X}", u32::from_ne_bytes(word)))
            .collect();
        format!("{words}:{port:04X}")
    };
    let row = |one: &[u8], other: &[u8]| [written(one, theirs.port()), written(other, ours.port())];
    let older =
        v4.and_then(|(one, other)| in_table("/proc/net/tcp", &row(&one.octets(), &other.octets())));
    older.or_else(|| {
        let wide = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let octets = |ip: IpAddr| Ipv6Addr::octets(&wide(ip));
        in_table(
            "/proc/net/tcp6",
            &row(&octets(theirs.ip()), &octets(ours.ip())),
        )
    })
}

fn in_table(path: &str, [local, remote]: &[String; 2]) -> Option<u64> {
    connections::lines(File::open(path).ok()?).find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        if fields.next()? != local || fields.next()? != remote {
            return None;
        }
        // A connection that nobody owns any more has 0.
        let inode = fields.nth(6)?.parse().ok()?;
        (inode != 0).then_some(inode)
    })
}

/// The process that has the socket open; of several, any.
fn owner(inode: u64) -> Option<u32> {
    let mut left = FILES_MAX;
    for (id, files) in connections::processes().ok()? {
        if has_open(&files, inode, &mut left)? {
            return Some(id);
        }
    }
    None
}

/// Whether the socket is open in `folder`, that of a process's open files; `None` where `left`, how many more may be
/// looked at, is not enough to tell.
fn has_open(folder: &Path, inode: u64, left: &mut usize) -> Option<bool> {
    let wanted = format!("socket:[{inode}]");
    // Those of others are not ours to read.
    let Ok(files) = fs::read_dir(folder) else {
        return Some(false);
    };
    for file in files.map_while(Result::ok) {
        *left = left.checked_sub(1)?;
        if fs::read_link(file.path()).is_ok_and(|target| target == Path::new(&wanted)) {
            return Some(true);
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::parent_id;

    use tokio::net::{TcpStream, UnixStream};

    use super::*;
    use crate::net::client_socket::ClientSocket;
    use crate::net::listen_at::{At, Listening};

    async fn callers(socket: ClientSocket) -> Vec<u32> {
        let mut socket = socket;
        assert!(socket.callers().is_empty());
        socket.identify(Callers::Unknown).await;
        assert!(socket.callers().is_empty());
        socket.identify(Callers::Identified).await;
        assert_eq!(socket.watch().callers(), socket.callers());
        socket.callers().iter().map(|process| process.id).collect()
    }

    /// This process and its parents.
    fn are_ours(found: &[u32]) {
        assert_eq!(found.first(), Some(&std::process::id()));
        assert_eq!(found.get(1), Some(&parent_id()));
    }

    #[tokio::test]
    async fn a_connection_to_an_address_is_its_process_and_those_that_started_it() {
        for (listens, connects) in [
            ("127.0.0.1:0", "127.0.0.1"),
            ("[::1]:0", "::1"),
            // One socket for both kinds of addresses.
            ("[::]:0", "127.0.0.1"),
        ] {
            let bound = Listening::bind(&At::Tcp(listens.parse().unwrap()), 0).unwrap();
            let port = bound.at().address().unwrap().port();
            let to: IpAddr = connects.parse().unwrap();
            let (client, socket) = tokio::join!(TcpStream::connect((to, port)), bound.accept());
            let _client = client.unwrap();
            are_ours(&callers(socket).await);
        }
    }

    #[tokio::test]
    async fn a_connection_of_ours_is_told_from_one_of_a_program_that_we_have_started() {
        let bound = Listening::bind(&At::Tcp(([127, 0, 0, 1], 0).into()), 0).unwrap();
        let at = bound.at().address().unwrap();
        let (client, socket) = tokio::join!(TcpStream::connect(at), bound.accept());
        assert!(socket.is_our_own().await);
        drop(client);
        assert!(!socket.is_our_own().await);
        let script = format!(
            "exec 3<>/dev/tcp/{}/{}; read -r line <&3",
            at.ip(),
            at.port()
        );
        let mut command = std::process::Command::new("bash");
        let mut child = command.args(["-c", &script]).spawn().unwrap();
        let socket = bound.accept().await;
        assert!(!socket.is_our_own().await);
        drop(socket);
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn a_connection_to_a_path_is_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let bound = Listening::bind(&At::Unix(path.clone()), 0o600).unwrap();
        let (client, socket) = tokio::join!(UnixStream::connect(&path), bound.accept());
        let _client = client.unwrap();
        are_ours(&callers(socket).await);
    }

    #[tokio::test]
    async fn of_a_client_that_has_gone_nothing_is_known() {
        let bound = Listening::bind(&At::Tcp(([127, 0, 0, 1], 0).into()), 0).unwrap();
        let at = bound.at().address().unwrap();
        let (client, socket) = tokio::join!(TcpStream::connect(at), bound.accept());
        drop(client);
        assert!(callers(socket).await.is_empty());
    }

    #[test]
    fn an_id_that_is_used_again_is_another_process() {
        let ours = process(std::process::id()).unwrap();
        let parent = process(parent_id()).unwrap();
        assert!(ours.started >= parent.started && ours.started > 0);
        assert_eq!(process(u32::MAX), None);
    }
}
