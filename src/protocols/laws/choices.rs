//! Bytes read as choices, so that whatever a fuzzer changes in them makes
//! another case, and one that is not far from the last.

/// The choices that are left. Behind the last byte all of them are the first.
#[derive(Clone, Debug)]
pub(in crate::protocols) struct Choices<'a> {
    rest: &'a [u8],
}

impl<'a> Choices<'a> {
    pub(in crate::protocols) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether there is something left to choose by.
    pub(in crate::protocols) fn are_left(&self) -> bool {
        !self.rest.is_empty()
    }

    pub(in crate::protocols) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else {
            return 0;
        };
        self.rest = rest;
        *first
    }

    /// A number below `end`, which is at most 256 and not 0.
    pub(in crate::protocols) fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()).checked_rem(end).unwrap_or(0)
    }

    pub(in crate::protocols) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Up to `most` bytes as they are.
    pub(in crate::protocols) fn bytes(&mut self, most: usize) -> &'a [u8] {
        let (now, rest) = self.rest.split_at(most.min(self.rest.len()));
        self.rest = rest;
        now
    }

    /// All that is left, as it is.
    pub(in crate::protocols) fn all(self) -> &'a [u8] {
        self.rest
    }
}

/// The pieces of `whole` that `sizes` cuts it into: as large as the bytes say,
/// over and over; the last is what is left.
pub(in crate::protocols) fn pieces<'a>(whole: &'a [u8], sizes: &[u8]) -> Vec<&'a [u8]> {
    let (mut rest, mut pieces) = (whole, Vec::new());
    let mut sizes = sizes.iter().cycle();
    while !rest.is_empty() {
        let size = sizes.next().map_or(1, |size| usize::from(*size).max(1));
        let (piece, next) = rest.split_at(size.min(rest.len()));
        pieces.push(piece);
        rest = next;
    }
    pieces
}
