//! What a relay moves bytes with: what waits to be written to one side, in
//! order, and what was read from one.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::gate::Cleared;
use crate::net::maybe_tls::MaybeTls;

/// Most slices written at once.
const SLICES_MAX: usize = 64;
/// A buffer's first and largest room for one read, bytes.
const READ_BYTES: usize = 2 << 10;
const READ_BYTES_MAX: usize = 64 << 10;
/// Pieces up to this many bytes are copied behind one another: less than what
/// a slice of its own costs.
const COPIED_BYTES_MAX: usize = 1 << 10;

/// What waits to be written.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pieces: VecDeque<Bytes>,
    /// Small pieces behind those.
    small: BytesMut,
    bytes: usize,
    flush: Flush,
}

/// What a write has left to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Flush {
    /// Written is sent: the side is in clear.
    #[default]
    Never,
    /// Nothing now.
    Done,
    /// Some of it may wait inside TLS.
    Due,
}

impl Outbox {
    /// For what is written to `socket`.
    pub(super) fn of<S>(socket: &MaybeTls<S>) -> Self {
        Self {
            flush: match socket.is_tls() {
                true => Flush::Done,
                false => Flush::Never,
            },
            ..Self::default()
        }
    }

    /// Whether there is something to [`Self::write`].
    pub(super) fn has_work(&self) -> bool {
        !self.is_empty() || self.flush == Flush::Due
    }

    pub(super) fn push(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        self.bytes = self.bytes.saturating_add(piece.len());
        if piece.len() <= COPIED_BYTES_MAX {
            self.small.extend_from_slice(&piece);
            return;
        }
        self.settle();
        self.pieces.push_back(piece);
    }

    /// Something that is wiped where it is, and so must be nowhere else.
    pub(super) fn push_uncopied(&mut self, piece: Bytes) {
        self.bytes = self.bytes.saturating_add(piece.len());
        self.settle();
        self.pieces.push_back(piece);
    }

    /// What a permit has opened.
    pub(super) fn push_cleared(&mut self, piece: Cleared<Bytes>) {
        self.push(piece.into_inner());
    }

    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    fn settle(&mut self) {
        if !self.small.is_empty() {
            let small = self.small.split().freeze();
            self.pieces.push_back(small);
        }
    }

    /// All that waits.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn concat(&self) -> Vec<u8> {
        let pieces = self.pieces.iter().map(|piece| &**piece);
        pieces.chain([&*self.small]).collect::<Vec<_>>().concat()
    }

    /// Writes some of it; where nothing is left, flushes and says 0. Tell
    /// [`Self::written`]. Cancel-safe.
    pub(super) async fn write(&self, to: &mut (impl AsyncWrite + Unpin)) -> Result<usize, ()> {
        if self.is_empty() {
            to.flush().await.map_err(|_| ())?;
            return Ok(0);
        }
        // Most often there is one of them, and a list costs more to write.
        let written = match self.pieces.front() {
            None => to.write(&self.small).await,
            Some(only) if only.len() == self.bytes => to.write(only).await,
            Some(_) => to.write_vectored(&self.slices()).await,
        };
        match written {
            Ok(0) | Err(_) => Err(()),
            Ok(written) => Ok(written),
        }
    }

    /// The first of what waits.
    fn slices(&self) -> Vec<IoSlice<'_>> {
        let pieces = self.pieces.iter().take(SLICES_MAX);
        let mut slices: Vec<_> = pieces.map(|piece| IoSlice::new(piece)).collect();
        if slices.len() < SLICES_MAX && !self.small.is_empty() {
            slices.push(IoSlice::new(&self.small));
        }
        slices
    }

    /// So many of them were written.
    pub(super) fn written(&mut self, bytes: usize) {
        if self.flush != Flush::Never {
            self.flush = match bytes {
                0 => Flush::Done,
                _ => Flush::Due,
            };
        }
        let mut left = bytes;
        self.bytes = self.bytes.saturating_sub(bytes);
        while left > 0 {
            let Some(first) = self.pieces.front_mut() else {
                self.small.advance(left.min(self.small.len()));
                return;
            };
            let now = left.min(first.len());
            first.advance(now);
            left = left.saturating_sub(now);
            if first.is_empty() {
                self.pieces.pop_front();
            }
        }
    }

    /// Writes all of it, and ends what it is written to.
    pub(super) async fn drain(&mut self, to: &mut (impl AsyncWrite + Unpin)) -> Result<(), ()> {
        while self.has_work() {
            let written = self.write(to).await?;
            self.written(written);
        }
        drop(to.shutdown().await);
        Ok(())
    }
}

/// What has come from one side, and how much room the next read gets: more
/// while much comes, and little on an idle connection.
#[derive(Debug)]
pub(super) struct Inlet {
    pub(super) bytes: BytesMut,
    room: usize,
}

impl Default for Inlet {
    fn default() -> Self {
        Self {
            bytes: BytesMut::new(),
            room: READ_BYTES,
        }
    }
}

impl From<BytesMut> for Inlet {
    /// What was read already.
    fn from(bytes: BytesMut) -> Self {
        Self {
            bytes,
            ..Self::default()
        }
    }
}

impl Inlet {
    /// One that `bytes` have come to already.
    pub(super) fn having(bytes: BytesMut) -> Self {
        Self {
            bytes,
            ..Self::default()
        }
    }

    /// Reads once.
    pub(super) async fn read(&mut self, from: &mut (impl AsyncRead + Unpin)) -> Result<(), ()> {
        let free = self.bytes.capacity().saturating_sub(self.bytes.len());
        if free < self.room {
            self.bytes.reserve(self.room);
        }
        match from.read_buf(&mut self.bytes).await {
            Ok(0) | Err(_) => Err(()),
            Ok(read) => {
                self.room = if read >= self.room {
                    self.room.saturating_mul(2).min(READ_BYTES_MAX)
                } else if read < self.room >> 2 {
                    (self.room >> 1).max(READ_BYTES)
                } else {
                    self.room
                };
                Ok(())
            }
        }
    }
}
