//! Request bodies that are larger than policy sees and are to be here whole before they
//! go on: in a file without a name, which nobody else can open and which ends with us.

use std::fs::Permissions;
use std::future::poll_fn;
use std::io::SeekFrom;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncSeekExt, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout};

use super::body::{BodyError, End, Gathered, length};
use super::budget::{Budget, Share};

/// Bytes read of the file at once.
const PIECE: usize = 65_536;

/// What bounds collecting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds<'a> {
    /// Kept in memory; what is longer is spilled, bytes.
    pub(super) memory_max: usize,
    /// Room of all files together.
    pub(super) room: &'a Budget,
    /// Where files are.
    pub(super) folder: &'a Path,
    /// Longest silence.
    pub(super) idle: Duration,
    /// Longest time in all.
    pub(super) total: Duration,
}

/// A body that is here whole.
#[derive(Debug)]
pub(super) enum Collected {
    /// In memory.
    Memory(Gathered),
    /// In a file.
    File(Spilled),
}

/// Why a body is not here.
#[derive(Debug)]
pub(super) enum Uncollected<E> {
    /// It broke off.
    Broken(E),
    /// It took too long.
    Slow,
    /// There is no room for more files.
    Full,
    /// The disk did not take it.
    Disk(std::io::Error),
}

/// A body in a file.
#[derive(Debug)]
pub(super) struct Spilled {
    /// Its beginning, as much as is kept in memory.
    pub(super) first: Bytes,
    /// Its size.
    pub(super) bytes: u64,
    /// Its SHA-256.
    pub(super) digest: [u8; 32],
    /// What reads it.
    pub(super) file: FromFile,
}

/// Reads `body` to its end, into memory or a file. Cancelled, the file is gone.
pub(super) async fn collect<B>(
    body: &mut B,
    bounds: Bounds<'_>,
) -> Result<Collected, Uncollected<B::Error>>
where
    B: Body<Data = Bytes> + Unpin,
{
    let until = Instant::now().checked_add(bounds.total);
    let mut memory = BytesMut::new();
    let mut trailers = None;
    let mut writer: Option<Writer<'_>> = None;
    while !body.is_end_stream() {
        let left = until.map_or(bounds.total, |until| {
            until.saturating_duration_since(Instant::now())
        });
        let next = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
        let next = timeout(bounds.idle.min(left), next).await;
        let Some(frame) = next.map_err(|_| Uncollected::Slow)? else {
            break;
        };
        match frame.map_err(Uncollected::Broken)?.into_data() {
            Err(frame) => trailers = frame.into_trailers().ok(),
            Ok(data) => match &mut writer {
                Some(writer) => writer.write(&data).await?,
                None => {
                    memory.extend_from_slice(&data);
                    if memory.len() > bounds.memory_max {
                        let mut begun = Writer::new(&bounds)?;
                        begun.write(&memory).await?;
                        memory.truncate(bounds.memory_max);
                        writer = Some(begun);
                    }
                }
            },
        }
    }
    let first = memory.freeze();
    match writer {
        None => Ok(Collected::Memory(Gathered {
            data: first,
            trailers,
            end: End::Finished,
        })),
        Some(writer) => writer.finished(first, trailers).await.map(Collected::File),
    }
}

/// A file that nobody finds under a name, and its owner alone may open by way of ours.
fn nameless(folder: &Path) -> std::io::Result<std::fs::File> {
    let file = tempfile::tempfile_in(folder)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

struct Writer<'a> {
    file: File,
    hash: Sha256,
    bytes: u64,
    room: &'a Budget,
    share: Share,
}

impl<'a> Writer<'a> {
    fn new<E>(bounds: &Bounds<'a>) -> Result<Self, Uncollected<E>> {
        let file = nameless(bounds.folder).map_err(Uncollected::Disk)?;
        Ok(Self {
            file: File::from_std(file),
            hash: Sha256::new(),
            bytes: 0,
            room: bounds.room,
            share: Share::default(),
        })
    }

    async fn write<E>(&mut self, data: &[u8]) -> Result<(), Uncollected<E>> {
        self.bytes = self.bytes.saturating_add(length(data));
        if !self.room.grow(&mut self.share, self.bytes) {
            return Err(Uncollected::Full);
        }
        self.hash.update(data);
        self.file.write_all(data).await.map_err(Uncollected::Disk)
    }

    async fn finished<E>(
        mut self,
        first: Bytes,
        trailers: Option<HeaderMap>,
    ) -> Result<Spilled, Uncollected<E>> {
        let rewound = async {
            self.file.flush().await?;
            self.file.seek(SeekFrom::Start(0)).await
        };
        rewound.await.map_err(Uncollected::Disk)?;
        self.file.set_max_buf_size(PIECE);
        Ok(Spilled {
            first,
            bytes: self.bytes,
            digest: self.hash.finalize().into(),
            file: FromFile {
                file: self.file,
                left: self.bytes,
                trailers,
                piece: Vec::new(),
                _share: self.share,
            },
        })
    }
}

/// A body as it is read of a file.
#[derive(Debug)]
pub(super) struct FromFile {
    file: File,
    left: u64,
    trailers: Option<HeaderMap>,
    piece: Vec<u8>,
    /// Its room, until it has gone out.
    _share: Share,
}

impl FromFile {
    /// The next frame.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.left == 0 {
            self.piece = Vec::new();
            return Poll::Ready(self.trailers.take().map(|t| Ok(Frame::trailers(t))));
        }
        self.piece.resize(PIECE, 0);
        let mut piece = ReadBuf::new(&mut self.piece);
        match Pin::new(&mut self.file).poll_read(cx, &mut piece) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(Ok(())) => {
                let data = piece.filled();
                if data.is_empty() {
                    let error = "the file of a spilled body ends before the body";
                    return Poll::Ready(Some(Err(error.into())));
                }
                self.left = self.left.saturating_sub(length(data));
                Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(data)))))
            }
        }
    }

    /// Whether all of it has been read.
    pub(super) fn is_end_stream(&self) -> bool {
        self.left == 0 && self.trailers.is_none()
    }

    /// What is left of it; `None` where trailers follow, which chunks must carry.
    pub(super) fn exact_left(&self) -> Option<u64> {
        self.trailers.is_none().then_some(self.left)
    }
}
