//! What waits to be written to one side, in order.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

/// Most slices written at once.
const SLICES_MAX: usize = 16;
/// Most bytes of several pieces that are copied together, as that costs the
/// system less than a list of them does.
const JOINED_BYTES_MAX: usize = 4 << 10;

/// What waits to be written.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pieces: VecDeque<Bytes>,
    bytes: usize,
}

impl Outbox {
    pub(super) fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.bytes = self.bytes.saturating_add(piece.len());
            self.pieces.push_back(piece);
        }
    }

    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// All of them in one piece, where they are one or few bytes.
    pub(super) fn joined(&self) -> Option<Cow<'_, [u8]>> {
        match self.pieces.front() {
            Some(first) if first.len() == self.bytes => Some(Cow::Borrowed(first)),
            Some(_) if self.bytes <= JOINED_BYTES_MAX => {
                let mut all = Vec::with_capacity(self.bytes);
                for piece in &self.pieces {
                    all.extend_from_slice(piece);
                }
                Some(Cow::Owned(all))
            }
            Some(_) | None => None,
        }
    }

    /// The first of them.
    pub(super) fn slices(&self) -> Vec<IoSlice<'_>> {
        let pieces = self.pieces.iter().take(SLICES_MAX);
        pieces.map(|piece| IoSlice::new(piece)).collect()
    }

    /// So many of them were written.
    pub(super) fn written(&mut self, bytes: usize) {
        let mut left = bytes;
        self.bytes = self.bytes.saturating_sub(bytes);
        while left > 0 {
            let Some(first) = self.pieces.front_mut() else {
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
}
