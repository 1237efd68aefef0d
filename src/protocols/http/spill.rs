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
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeekExt, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout};

use super::body::{BodyError, End, Gathered, length};
use super::budget::{Budget, Share};
use super::fields;

/// Bytes read of the file at once.
const PIECE: usize = 65_536;

/// What bounds collecting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds<'a> {
    /// Kept in memory; what is longer is spilled, bytes.
    pub(super) memory_max: usize,
    /// Room of all bodies in memory together.
    pub(super) memory: &'a Budget,
    /// Longest wait for some of it, once all of a body is here.
    pub(super) memory_within: Duration,
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
    /// In memory, and the room that it has there.
    Memory(Gathered, Share),
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
    /// There is no room in memory for what policy is to see.
    NoMemory,
    /// The disk did not take it.
    Disk(std::io::Error),
}

/// A body in a file.
#[derive(Debug)]
pub(super) struct Spilled {
    /// Its beginning, as much as is kept in memory.
    pub(super) first: Bytes,
    /// The room that this has.
    pub(super) share: Share,
    /// Its size.
    pub(super) bytes: u64,
    /// Its SHA-256.
    pub(super) digest: [u8; 32],
    /// What reads it.
    pub(super) file: FromFile,
}

/// Reads `body` to its end, into memory or a file. Cancelled, the file is gone.
///
/// It has room for what there is of it, and for no more: room grows with it, without a wait,
/// since whoever waits with some may wait for another that does. Where memory has none left,
/// the body goes on in a file, and what policy sees of it is read from there at the end, when
/// nothing in memory is held while that is waited for.
pub(super) async fn collect<B>(
    body: &mut B,
    bounds: Bounds<'_>,
) -> Result<Collected, Uncollected<B::Error>>
where
    B: Body<Data = Bytes> + Unpin,
{
    let until = Instant::now().checked_add(bounds.total);
    let mut memory = BytesMut::new();
    let mut share = Share::default();
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
            Err(frame) => trailers = frame.into_trailers().ok().and_then(fields::strip_trailers),
            Ok(data) => match &mut writer {
                Some(writer) => writer.write(&data).await?,
                None => {
                    let fits = memory.len().saturating_add(data.len()) <= bounds.memory_max;
                    let shown = bounds.memory_max.saturating_sub(memory.len());
                    let shown = data.get(..shown).unwrap_or(&data);
                    let held = memory.len().saturating_add(shown.len());
                    let has_room = bounds.memory.fit(&mut share, held);
                    if !fits || !has_room {
                        let mut begun = Writer::new(&bounds)?;
                        begun.write(&memory).await?;
                        begun.write(&data).await?;
                        writer = Some(begun);
                    }
                    if has_room {
                        memory.extend_from_slice(shown);
                    } else {
                        (memory, share) = (BytesMut::new(), Share::default());
                    }
                }
            },
        }
    }
    let first = memory.freeze();
    match writer {
        None => Ok(Collected::Memory(whole(first, trailers), share)),
        Some(writer) if first.is_empty() => writer.shown(&bounds, trailers).await,
        Some(writer) => {
            let spilled = writer.finished((first, share), trailers).await;
            spilled.map(Collected::File)
        }
    }
}

fn whole(data: Bytes, trailers: Option<HeaderMap>) -> Gathered {
    Gathered {
        data,
        trailers,
        end: End::Finished,
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

    /// Has what policy is to see in memory again: all of it, if that is all.
    async fn shown<E>(
        mut self,
        bounds: &Bounds<'_>,
        trailers: Option<HeaderMap>,
    ) -> Result<Collected, Uncollected<E>> {
        let all = usize::try_from(self.bytes).unwrap_or(usize::MAX);
        let bytes = all.min(bounds.memory_max);
        let share = bounds.memory.share(bytes, bounds.memory_within).await;
        let share = share.ok_or(Uncollected::NoMemory)?;
        let mut first = vec![0; bytes];
        let read = async {
            self.rewind().await?;
            self.file.read_exact(&mut first).await
        };
        read.await.map_err(Uncollected::Disk)?;
        let first = Bytes::from(first);
        if bytes == all {
            return Ok(Collected::Memory(whole(first, trailers), share));
        }
        let spilled = self.finished((first, share), trailers).await;
        spilled.map(Collected::File)
    }

    async fn rewind(&mut self) -> std::io::Result<()> {
        self.file.flush().await?;
        self.file.seek(SeekFrom::Start(0)).await.map(drop)
    }

    async fn finished<E>(
        mut self,
        (first, share): (Bytes, Share),
        trailers: Option<HeaderMap>,
    ) -> Result<Spilled, Uncollected<E>> {
        self.rewind().await.map_err(Uncollected::Disk)?;
        self.file.set_max_buf_size(PIECE);
        Ok(Spilled {
            first,
            share,
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

    /// The fields behind it.
    pub(super) fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_ref()
    }

    /// What is left of it; `None` where trailers follow, which chunks must carry.
    pub(super) fn exact_left(&self) -> Option<u64> {
        self.trailers.is_none().then_some(self.left)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::sync::Arc;

    use crate::metrics::{LimitHit, Metrics};

    use super::*;

    const KIB: usize = 1_024;
    const CAP: usize = 8 * KIB;

    /// A body of these frames, which falls silent for good behind them, or ends.
    struct Frames {
        left: VecDeque<Bytes>,
        endless: bool,
    }

    impl Body for Frames {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            match self.left.pop_front() {
                Some(frame) => Poll::Ready(Some(Ok(Frame::data(frame)))),
                None if self.endless => Poll::Pending,
                None => Poll::Ready(None),
            }
        }
    }

    fn frames(sizes: &[usize], endless: bool) -> Frames {
        let left = sizes.iter().map(|size| Bytes::from(vec![b'x'; *size]));
        Frames {
            left: left.collect(),
            endless,
        }
    }

    fn budget(bytes: usize) -> Budget {
        Budget::new(bytes, LimitHit::Bodies, Arc::new(Metrics::new().unwrap()))
    }

    fn bounds<'a>(memory: &'a Budget, room: &'a Budget, folder: &'a Path) -> Bounds<'a> {
        Bounds {
            memory_max: CAP,
            memory,
            memory_within: Duration::from_secs(2),
            room,
            folder,
            idle: Duration::from_secs(300),
            total: Duration::from_secs(300),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_comes_slowly_has_room_for_what_came_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        #[rustfmt::skip]
        let table: [(&[usize], usize, usize); 5] = [
            // frames                      memory   files, KiB
            (&[],                          0,       0),
            (&[1],                         1,       0),
            (&[KIB, KIB],                  2,       0),
            (&[CAP],                       8,       0),
            (&[KIB, 9 * KIB, 20 * KIB],    8,       30),
        ];
        for (sizes, in_memory, in_files) in table {
            let (memory, room) = (budget(64 * KIB), budget(64 * KIB));
            let bounds = bounds(&memory, &room, folder.path());
            let mut body = frames(sizes, true);
            {
                let mut collecting = std::pin::pin!(collect(&mut body, bounds));
                let early = timeout(Duration::from_secs(30), collecting.as_mut()).await;
                assert!(early.is_err());
                let taken = (memory.taken(), room.taken());
                assert_eq!(taken, (in_memory * KIB, in_files * KIB), "{sizes:?}");
            }
            // What is cancelled has none.
            assert_eq!((memory.taken(), room.taken()), (0, 0), "{sizes:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_memory_has_no_room_a_body_is_in_a_file_until_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let (memory, room) = (budget(9 * KIB), budget(64 * KIB));
        let bounds = bounds(&memory, &room, folder.path());
        let take = || memory.share(6 * KIB, Duration::ZERO);
        for (sizes, all, first) in [
            (&[2 * KIB, 3 * KIB][..], 5 * KIB, 5 * KIB),
            (&[2 * KIB, 3 * KIB, CAP], 13 * KIB, CAP),
        ] {
            let other = take().await.unwrap();
            let mut body = frames(sizes, false);
            let mut collecting = std::pin::pin!(collect(&mut body, bounds));
            let early = timeout(Duration::from_secs(1), collecting.as_mut()).await;
            assert!(early.is_err(), "{sizes:?}");
            assert_eq!(room.taken(), all, "{sizes:?}");
            drop(other);
            let collected = collecting.await.unwrap();
            assert_eq!(memory.taken(), first, "{sizes:?}");
            match collected {
                Collected::Memory(gathered, _) => {
                    assert_eq!((gathered.data.len(), gathered.end), (all, End::Finished));
                    assert_eq!(room.taken(), 0);
                }
                Collected::File(spilled) => {
                    let found = (spilled.first.len(), spilled.bytes);
                    assert_eq!(found, (CAP, length(&vec![0; all])));
                    assert_eq!(room.taken(), all);
                }
            }
        }
        let _other = take().await.unwrap();
        let began = Instant::now();
        let none = collect(&mut frames(&[4 * KIB], false), bounds).await;
        assert!(matches!(none, Err(Uncollected::NoMemory)));
        assert_eq!(began.elapsed(), Duration::from_secs(2));
        assert_eq!((memory.taken(), room.taken()), (6 * KIB, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn many_slow_bodies_end_though_together_they_want_more_than_there_is() {
        let folder = tempfile::tempdir().unwrap();
        let (memory, room) = (budget(9 * KIB), budget(1 << 20));
        let bounds = bounds(&memory, &room, folder.path());
        let all = (0..20).map(|nth| async move {
            let mut body = frames(&[KIB, 2 * KIB, nth * KIB], false);
            let collected = collect(&mut body, bounds).await.unwrap();
            let (bytes, first) = match &collected {
                Collected::Memory(gathered, _) => (gathered.data.len(), gathered.data.len()),
                Collected::File(spilled) => {
                    (usize::try_from(spilled.bytes).unwrap(), spilled.first.len())
                }
            };
            assert_eq!(bytes, (3 + nth) * KIB);
            assert_eq!(first, bytes.min(CAP));
            // Judged for a moment, it makes room for the next.
            tokio::time::sleep(Duration::from_millis(10)).await;
        });
        futures_util::future::join_all(all).await;
        assert_eq!((memory.taken(), room.taken()), (0, 0));
    }
}
