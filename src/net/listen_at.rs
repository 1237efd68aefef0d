//! Listening where database clients look: at an address, or at a path of this machine.
//!
//! A socket at a path has the permissions that were asked for before anybody can connect to it. One that a process
//! left behind when it died is replaced; one that somebody listens on, or what is no socket, never is. It is removed
//! when its listener ends, unless it was replaced meanwhile.

use std::fmt;
use std::fs::{self, Metadata, Permissions};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

use crate::net::client_socket::ClientSocket;
use crate::net::listen::{self, BACKLOG, Patience};

/// Where clients connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum At {
    /// This address; port 0 takes a free one.
    Tcp(SocketAddr),
    /// This path.
    Unix(PathBuf),
}

impl At {
    /// The address, where it is one.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Whether only this machine can connect.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// A listening socket of either kind.
#[derive(Debug)]
pub enum Listening {
    /// At an address.
    Tcp(listen::Bound),
    /// At a path.
    Unix(BoundPath),
}

impl Listening {
    /// Listens at `at`; `mode` are the permissions of a path, as of a file.
    ///
    /// # Errors
    ///
    /// When it is in use, or not ours to take.
    pub fn bind(at: &At, mode: u32) -> Result<Self, BindError> {
        match at {
            At::Tcp(address) => listen::bind(*address)
                .map(Self::Tcp)
                .map_err(BindError::Address),
            At::Unix(path) => BoundPath::bind(path, mode)
                .map(Self::Unix)
                .map_err(|problem| BindError::Path {
                    path: path.clone(),
                    problem,
                }),
        }
    }

    /// Where clients connect to, with the port that the system chose.
    #[must_use]
    pub fn at(&self) -> At {
        match self {
            Self::Tcp(bound) => At::Tcp(bound.address()),
            Self::Unix(bound) => At::Unix(bound.path.clone()),
        }
    }

    /// The next connection; see [`listen::Bound::accept`], which it is like in everything.
    pub async fn accept(&self) -> ClientSocket {
        match self {
            Self::Tcp(bound) => bound.accept().await.0,
            Self::Unix(bound) => bound.accept().await,
        }
    }
}

/// A socket that listens at a path.
#[derive(Debug)]
pub struct BoundPath {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode, by which it is known again.
    file: (u64, u64),
}

impl BoundPath {
    fn bind(path: &Path, mode: u32) -> Result<Self, PathProblem> {
        clear(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::unix(path)?)?;
        let made = (|| {
            // Nobody can connect before it listens.
            fs::set_permissions(path, Permissions::from_mode(mode))?;
            socket.listen(BACKLOG)?;
            let file = identity(&fs::symlink_metadata(path)?);
            let listener = UnixListener::from_std(std::os::unix::net::UnixListener::from(socket))?;
            Ok(Self {
                listener,
                path: path.to_path_buf(),
                file,
            })
        })();
        made.map_err(|error: io::Error| {
            remove(path);
            error.into()
        })
    }

    async fn accept(&self) -> ClientSocket {
        let mut patience = Patience::default();
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return ClientSocket::new(stream),
                Err(error) => patience.after(&error, &self.path.display()).await,
            }
        }
    }
}

impl Drop for BoundPath {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|file| identity(&file) == self.file);
        if ours {
            remove(&self.path);
        }
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "a socket stays behind");
    }
}

/// Removes a socket on which nobody listens any more.
fn clear(path: &Path) -> Result<(), PathProblem> {
    let file = match fs::symlink_metadata(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if !file.file_type().is_socket() {
        return Err(PathProblem::NoSocket);
    }
    // Nobody is kept waiting: a listener that is busy says so.
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path)?;
            Ok(())
        }
        Ok(()) | Err(_) => Err(PathProblem::InUse),
    }
}

/// What cannot be listened on, and why.
#[derive(Debug)]
pub enum BindError {
    /// An address.
    Address(listen::BindError),
    /// A path.
    Path {
        /// What was asked for.
        path: PathBuf,
        /// What is wrong with it.
        problem: PathProblem,
    },
}

/// What is wrong with a path.
#[derive(Debug)]
pub enum PathProblem {
    /// Somebody listens there.
    InUse,
    /// It is something else.
    NoSocket,
    /// What the system says.
    Io(io::Error),
}

impl From<io::Error> for PathProblem {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, problem) = match self {
            Self::Address(error) => return error.fmt(f),
            Self::Path { path, problem } => (path.display(), problem),
        };
        write!(f, "cannot listen on {path}: ")?;
        match problem {
            PathProblem::InUse => f.write_str(
                "another program (a server, perhaps another sidecar) listens there; stop it, or choose another path",
            ),
            PathProblem::NoSocket => f.write_str(
                "it exists and is no socket, and is left as it is; choose another path, or remove it",
            ),
            PathProblem::Io(error) if error.kind() == ErrorKind::NotFound => {
                f.write_str("its folder does not exist; create it")
            }
            PathProblem::Io(error) if error.kind() == ErrorKind::PermissionDenied => {
                f.write_str("this process may not write to its folder; choose another")
            }
            PathProblem::Io(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for BindError {}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener as Plain, UnixStream as Connected};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;

    fn at(folder: &tempfile::TempDir) -> (PathBuf, At) {
        let path = folder.path().join(".s.PGSQL.5432");
        (path.clone(), At::Unix(path))
    }

    #[tokio::test]
    async fn bytes_pass_and_a_client_that_leaves_is_seen_although_nobody_reads() {
        let folder = tempfile::tempdir().unwrap();
        let (path, at) = at(&folder);
        let bound = Listening::bind(&at, 0o600).unwrap();
        assert_eq!(bound.at(), at);
        let (client, socket) = tokio::join!(UnixStream::connect(&path), bound.accept());
        let mut client = client.unwrap();
        let mut socket = ClientSocket::attach(socket.detach().unwrap()).unwrap();
        client.write_all(b"ping").await.unwrap();
        let mut read = [0; 4];
        socket.read_exact(&mut read).await.unwrap();
        socket.write_all(b"pong").await.unwrap();
        client.read_exact(&mut read).await.unwrap();
        assert_eq!((&read, socket.local_ip()), (b"pong", None));
        client.write_all(b"unread").await.unwrap();
        drop(client);
        socket.watch().hung_up().await;
    }

    #[tokio::test]
    async fn a_path_has_its_permissions_and_goes_when_its_listener_does() {
        let folder = tempfile::tempdir().unwrap();
        let (path, at) = at(&folder);
        for mode in [0o600, 0o666] {
            let bound = Listening::bind(&at, mode).unwrap();
            let file = fs::metadata(&path).unwrap();
            assert_eq!(file.permissions().mode() & 0o777, mode);
            drop(bound);
            assert!(!path.exists());
        }
        // What took its place meanwhile is another's.
        let bound = Listening::bind(&at, 0o600).unwrap();
        fs::remove_file(&path).unwrap();
        let _other = Plain::bind(&path).unwrap();
        drop(bound);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_socket_left_behind_is_replaced_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let (path, at) = at(&folder);
        drop(Plain::bind(&path).unwrap());
        assert!(path.exists());
        let bound = Listening::bind(&at, 0o600).unwrap();
        let told = Listening::bind(&at, 0o600).unwrap_err().to_string();
        assert!(told.contains("another program"), "{told}");
        assert!(Connected::connect(&path).is_ok(), "it was left alone");
        drop(bound);
        fs::write(&path, "precious").unwrap();
        let told = Listening::bind(&at, 0o600).unwrap_err().to_string();
        assert!(told.contains("is no socket"), "{told}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        let nowhere = At::Unix(folder.path().join("a/b"));
        let told = Listening::bind(&nowhere, 0o600).unwrap_err().to_string();
        assert!(told.contains("folder does not exist"), "{told}");
    }
}
