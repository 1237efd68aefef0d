//! An accepted connection, and a handle that notices its client leave while nobody reads from it.
//!
//! hyper drops a request's future when it reads the end of the stream, but it does not read while a body is
//! unfinished or a pipelined request is buffered. A held request must see its client go in these cases too,
//! so the socket is shared between the one who reads and writes and any number of watchers.

use std::io::{self, IoSlice, Read as _};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::Interest;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::domain::Process;
use crate::net::caller::{self, Callers};
use crate::net::captured;
use crate::net::stream::{Detached, Stream};

/// The reading and writing end of an accepted connection. One task owns it.
#[derive(Debug)]
pub struct ClientSocket {
    stream: Arc<Stream>,
    callers: Option<Arc<[Process]>>,
}

/// Sees the client of a [`ClientSocket`] leave; it neither reads nor writes, and holds the connection open
/// for as long as it lives.
#[derive(Debug, Clone)]
pub struct Watch {
    stream: Arc<Stream>,
    callers: Option<Arc<[Process]>>,
}

impl ClientSocket {
    /// Wraps a connected stream.
    #[must_use]
    pub fn new(stream: impl Into<Stream>) -> Self {
        Self {
            stream: Arc::new(stream.into()),
            callers: None,
        }
    }

    /// Finds out which process the client is, where `callers` wants that known. To be called before anything is
    /// watched.
    pub async fn identify(&mut self, callers: Callers) {
        match callers {
            Callers::Unknown => {}
            Callers::Identified => self.callers = Some(caller::find(&self.stream).await),
        }
    }

    /// Whether the client is this very process, which only what leads our own connections back to us makes it. Costs
    /// a look at all connections that there are.
    pub async fn is_our_own(&self) -> bool {
        caller::is_us(&self.stream).await
    }

    /// The process that the client is, then its parents; empty where that is not known.
    #[must_use]
    pub fn callers(&self) -> &[Process] {
        self.callers.as_deref().unwrap_or_default()
    }

    /// Takes the connection away from the runtime it was accepted in, for [`Self::attach`] in another.
    ///
    /// # Errors
    ///
    /// When a [`Watch`] or another part of it is in use, or the system does not let go of it.
    pub fn detach(self) -> io::Result<Detached> {
        let stream = Arc::into_inner(self.stream).ok_or(io::ErrorKind::ResourceBusy)?;
        stream.detach()
    }

    /// Gives a detached connection to the runtime this is called in.
    ///
    /// # Errors
    ///
    /// When the system does not take it into the event queue.
    pub fn attach(stream: Detached) -> io::Result<Self> {
        Stream::attach(stream).map(Self::new)
    }

    /// A handle that notices the client leave.
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch {
            stream: Arc::clone(&self.stream),
            callers: self.callers.clone(),
        }
    }

    /// The address of ours that the client came to; `None` where it came by a path, or is gone.
    #[must_use]
    pub fn local_ip(&self) -> Option<IpAddr> {
        self.stream.local_address().map(|address| address.ip())
    }

    /// Where the client wanted to go, where the kernel led it here instead.
    ///
    /// # Errors
    ///
    /// When it came here by itself, or the system does not say.
    pub fn wanted(&self) -> io::Result<SocketAddr> {
        match &*self.stream {
            Stream::Tcp(stream) => captured::wanted(SockRef::from(stream)),
            Stream::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// The address that the client takes for its server's: where it wanted to go, else as [`Self::local_ip`].
    #[must_use]
    pub fn asked_ip(&self) -> Option<IpAddr> {
        let wanted = self.wanted().ok().map(|wanted| wanted.ip());
        wanted.or_else(|| self.local_ip())
    }

    /// The first byte that the client sends, which stays to be read. `None` where it came by a path, or left
    /// without one.
    pub async fn peek(&self) -> Option<u8> {
        let Stream::Tcp(stream) = &*self.stream else {
            return None;
        };
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(1) => Some(first[0]),
            Ok(_) | Err(_) => None,
        }
    }
}

impl Watch {
    /// See [`ClientSocket::callers`].
    #[must_use]
    pub fn callers(&self) -> &[Process] {
        self.callers.as_deref().unwrap_or_default()
    }

    /// The address that the client came from; `None` where it came by a path, or is gone.
    #[must_use]
    pub fn peer_ip(&self) -> Option<IpAddr> {
        match &*self.stream {
            Stream::Tcp(stream) => stream.peer_addr().ok().map(|address| address.ip()),
            Stream::Unix(_) => None,
        }
    }

    /// Ends the sending side, where nobody has, then reads and drops what the client still sends, until it closes,
    /// `bytes_max` have come or the time is over: closing a socket with unread data resets the connection, and the
    /// reset can overtake an answer the client has not read yet.
    pub async fn linger(self, bytes_max: usize, within: std::time::Duration) {
        // A client whose answer broke off hears so now, and not when the time is over. What is closed already has
        // nobody to tell.
        drop(SockRef::from(&*self.stream).shutdown(Shutdown::Write));
        let drained = async {
            let mut left = bytes_max;
            let mut waste = [0; 4096];
            while left > 0 && self.stream.ready(Interest::READABLE).await.is_ok() {
                match self.stream.try_read(&mut waste) {
                    Ok(0) => return,
                    Ok(read) => left = left.saturating_sub(read),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        };
        // Either way the socket is closed next.
        drop(tokio::time::timeout(within, drained).await);
    }

    /// Waits until the client has shut down its sending side or reset the connection, even while bytes it
    /// sent before are unread. Data alone does not end the wait.
    ///
    /// Cancel-safe, and any number of watchers may wait.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub async fn hung_up(&self) {
        // PRIORITY is satisfied by the closing of the read side but not by data; READABLE would spin on bytes
        // that nobody is reading. Urgent data is not seen either: tokio does not register sockets for it.
        // An error is the runtime shutting down.
        drop(
            self.stream
                .ready(Interest::PRIORITY | Interest::ERROR)
                .await,
        );
    }

    /// Waits until the client has shut down its sending side or reset the connection, even while bytes it
    /// sent before are unread. Data alone does not end the wait.
    ///
    /// Cancel-safe, and any number of watchers may wait.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub async fn hung_up(&self) {
        // kqueue has no readiness for the closing alone, so the flag is looked at now and then.
        const LOOK_AGAIN_AFTER: std::time::Duration = std::time::Duration::from_millis(250);
        loop {
            match self
                .stream
                .ready(Interest::READABLE | Interest::ERROR)
                .await
            {
                Ok(ready) if !ready.is_read_closed() && !ready.is_error() => {
                    tokio::time::sleep(LOOK_AGAIN_AFTER).await;
                }
                Ok(_) | Err(_) => return,
            }
        }
    }
}

impl AsyncRead for ClientSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            let space = buf.initialize_unfilled();
            let mut short = 0;
            let read = self.stream.try_io(Interest::READABLE, || {
                let read = (&*SockRef::from(&*self.stream)).read(space)?;
                if read > 0 && read < space.len() {
                    // There is no more for now, and saying so here, with the readiness as it was before the
                    // read, saves the system call that would find nothing.
                    short = read;
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(read)
            });
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && short == 0 => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    buf.advance(short);
                    return Poll::Ready(Ok(()));
                }
                done => return Poll::Ready(done.map(|read| buf.advance(read))),
            }
        }
    }
}

impl ClientSocket {
    fn poll_write_with(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&Stream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            match write(&self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }
}

impl AsyncWrite for ClientSocket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, |stream| stream.try_write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, |stream| stream.try_write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = SockRef::from(&*self.stream).shutdown(Shutdown::Write);
        Poll::Ready(match done {
            // The client was faster.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            done => done,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::net::listen;

    async fn pair() -> (TcpStream, ClientSocket) {
        let bound = listen::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let (client, (socket, _)) =
            tokio::join!(TcpStream::connect(bound.address()), bound.accept());
        (client.unwrap(), socket)
    }

    /// Lets everything that can happen without the future happen, then polls it once.
    async fn is_pending(future: Pin<&mut impl Future<Output = ()>>) -> bool {
        let mut future = future;
        tokio::select! {
            biased;
            () = &mut future => false,
            () = settle() => true,
        }
    }

    /// A round trip through the reactor on another connection: events that were due have been delivered.
    async fn settle() {
        for _ in 0..3 {
            let (mut client, mut socket) = pair().await;
            client.write_all(b"x").await.unwrap();
            socket.read_exact(&mut [0]).await.unwrap();
        }
    }

    #[tokio::test]
    async fn bytes_pass_both_ways() {
        let (mut client, mut socket) = pair().await;
        client.write_all(b"ping").await.unwrap();
        let mut read = [0; 4];
        socket.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"ping");

        let parts = [IoSlice::new(b"po"), IoSlice::new(b"ng")];
        let wrote = socket.write_vectored(&parts).await.unwrap();
        assert_eq!(wrote, 4);
        socket.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "pong");
    }

    #[tokio::test]
    async fn large_writes_wait_for_the_reader_and_lose_nothing() {
        let (mut client, mut socket) = pair().await;
        let sent = vec![7_u8; 8 << 20];
        let mut received = Vec::new();
        let write = async {
            socket.write_all(&sent).await.unwrap();
            socket.shutdown().await.unwrap();
        };
        let read = async {
            let mut part = vec![0; 65_536];
            loop {
                match client.read(&mut part).await.unwrap() {
                    0 => break,
                    n => received.extend_from_slice(&part[..n]),
                }
            }
        };
        tokio::join!(write, read);
        assert!(received == sent);
    }

    #[tokio::test]
    async fn unread_data_alone_is_not_a_hang_up() {
        let (mut client, socket) = pair().await;
        client.write_all(b"pipelined").await.unwrap();
        let watch = socket.watch();
        let mut hung_up = std::pin::pin!(watch.hung_up());
        assert!(is_pending(hung_up.as_mut()).await);
        client.write_all(b"more").await.unwrap();
        assert!(is_pending(hung_up.as_mut()).await);
    }

    #[tokio::test]
    async fn who_is_lingered_for_hears_the_end_at_once() {
        let (mut client, socket) = pair().await;
        let hour = std::time::Duration::from_secs(3600);
        let lingering = socket.watch().linger(1 << 10, hour);
        let mut lingering = std::pin::pin!(lingering);
        assert!(is_pending(lingering.as_mut()).await);
        let mut byte = [0];
        let end = tokio::time::timeout(hour / 180, client.read(&mut byte)).await;
        assert_eq!(end.expect("an end").unwrap(), 0);
        // What it still sends is nobody's, and its end is ours.
        client.write_all(b"too late").await.unwrap();
        assert!(is_pending(lingering.as_mut()).await);
        drop(client);
        lingering.await;
    }

    #[tokio::test]
    async fn a_shutdown_behind_unread_data_is_seen() {
        let (mut client, socket) = pair().await;
        let watch = socket.watch();
        client.write_all(b"unread").await.unwrap();
        let mut hung_up = std::pin::pin!(watch.hung_up());
        assert!(is_pending(hung_up.as_mut()).await);
        client.shutdown().await.unwrap();
        hung_up.await;
    }

    #[tokio::test]
    async fn a_reset_is_seen_by_every_watcher() {
        let (client, socket) = pair().await;
        let (one, two) = (socket.watch(), socket.watch());
        SockRef::from(&client)
            .set_linger(Some(std::time::Duration::ZERO))
            .unwrap();
        let waiting = async { tokio::join!(one.hung_up(), two.hung_up()) };
        let reset = async { drop(client) };
        tokio::join!(waiting, reset);
    }

    #[tokio::test]
    async fn a_hang_up_before_the_wait_began_is_seen() {
        let (client, socket) = pair().await;
        drop(client);
        settle().await;
        socket.watch().hung_up().await;
        socket.watch().hung_up().await;
    }

    #[tokio::test]
    async fn watching_does_not_take_data_from_the_reader() {
        let (mut client, mut socket) = pair().await;
        let watch = socket.watch();
        client.write_all(b"last words").await.unwrap();
        client.shutdown().await.unwrap();
        watch.hung_up().await;
        let mut words = String::new();
        socket.read_to_string(&mut words).await.unwrap();
        assert_eq!(words, "last words");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn urgent_data_is_not_a_hang_up() {
        let (client, socket) = pair().await;
        let watch = socket.watch();
        SockRef::from(&client).send_out_of_band(b"!").unwrap();
        let mut hung_up = std::pin::pin!(watch.hung_up());
        assert!(is_pending(hung_up.as_mut()).await);
        drop(client);
        hung_up.await;
    }
}
