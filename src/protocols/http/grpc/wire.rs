//! The fields of a message of Protocol Buffers (Protocol Buffers, "Encoding"), read without its schema.

/// How deep groups are read in groups: as deep as any decoder skips them (that of Go; others go to 100).
const GROUPS_MAX: usize = 10_000;
/// Most fields of one message that are read; one with more counts as not all shown.
pub(super) const FIELDS_MAX: usize = 4_096;

/// Whether all bytes of a value are here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// All.
    Whole,
    /// Its end is not.
    Cut,
}

/// What was read of a message.
pub(super) struct Read<'a> {
    pub(super) fields: Vec<Field<'a>>,
    /// There is more in it ([`FIELDS_MAX`], [`GROUPS_MAX`]), or not all read it like this.
    pub(super) partial: bool,
}

pub(super) struct Field<'a> {
    pub(super) number: u32,
    pub(super) content: Content<'a>,
}

pub(super) enum Content<'a> {
    Number(u64),
    Fixed32(u32),
    Fixed64(u64),
    Bytes(&'a [u8], Extent),
    /// What stands between the marks of a group, which decoders still skip or read.
    Group(&'a [u8]),
}

/// The fields of `bytes`, if they are a message; of one that is cut, those that are here.
pub(super) fn fields(bytes: &[u8], extent: Extent) -> Option<Read<'_>> {
    let mut reader = Reader::new(bytes);
    let mut fields = Vec::new();
    let mut more = false;
    while !reader.left.is_empty() {
        match reader.field(extent) {
            Ok(field) if fields.len() < FIELDS_MAX => fields.push(field),
            Ok(_) | Err(TooDeep) => {
                more = true;
                break;
            }
            Err(Short) if extent == Extent::Cut && !fields.is_empty() => break,
            Err(Short | NoField) => return None,
        }
    }
    Some(Read {
        fields,
        partial: more || reader.disputed,
    })
}

/// The numbers that `bytes` are; ends early, with `None`, where they are something else.
pub(super) fn numbers(bytes: &[u8]) -> impl Iterator<Item = Option<u64>> {
    let mut reader = Reader::new(bytes);
    std::iter::from_fn(move || {
        let number = (!reader.left.is_empty()).then(|| reader.varint().ok())?;
        if number.is_none() {
            reader.left = &[];
        }
        Some(number)
    })
}

use Wrong::{NoField, Short, TooDeep};

enum Wrong {
    /// It ends inside a field.
    Short,
    /// It is none.
    NoField,
    /// Groups stand deeper than [`GROUPS_MAX`], so that nobody here knows.
    TooDeep,
}

struct Reader<'a> {
    left: &'a [u8],
    /// A tag or a length was beyond 32 bits: some drop what is beyond (Java, JavaScript), to others it is an error.
    disputed: bool,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            left: bytes,
            disputed: false,
        }
    }

    fn field(&mut self, extent: Extent) -> Result<Field<'a>, Wrong> {
        let (number, kind) = self.tag()?;
        let content = match kind {
            3 => Content::Group(self.group(number)?),
            // The end of a group that has not begun.
            4 => return Err(NoField),
            kind => self.single(kind, extent)?,
        };
        Ok(Field { number, content })
    }

    /// The number of a field, and the kind of what follows.
    fn tag(&mut self) -> Result<(u32, u32), Wrong> {
        let tag = self.narrow()?;
        match tag >> 3 {
            0 => Err(NoField),
            number => Ok((number, tag & 7)),
        }
    }

    fn single(&mut self, kind: u32, extent: Extent) -> Result<Content<'a>, Wrong> {
        match kind {
            0 => self.varint().map(Content::Number),
            1 => Ok(Content::Fixed64(u64::from_le_bytes(self.array()?))),
            2 => self.bytes(extent),
            5 => Ok(Content::Fixed32(u32::from_le_bytes(self.array()?))),
            _ => Err(NoField),
        }
    }

    fn bytes(&mut self, extent: Extent) -> Result<Content<'a>, Wrong> {
        let length = usize::try_from(self.narrow()?).map_err(|_| NoField)?;
        let (value, here, rest) = match self.left.split_at_checked(length) {
            Some((value, rest)) => (value, Extent::Whole, rest),
            None if extent == Extent::Cut => (self.left, Extent::Cut, [].as_slice()),
            None => return Err(Short),
        };
        self.left = rest;
        Ok(Content::Bytes(value, here))
    }

    fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], Wrong> {
        let (bytes, rest) = self.left.split_first_chunk().ok_or(Short)?;
        self.left = rest;
        Ok(*bytes)
    }

    /// What stands in the group `number` that has begun. It is walked once, however deep groups stand in it.
    fn group(&mut self, number: u32) -> Result<&'a [u8], Wrong> {
        let begun = self.left;
        let mut open = vec![number];
        loop {
            let read = begun.len().saturating_sub(self.left.len());
            let (number, kind) = self.tag()?;
            match kind {
                3 if open.len() >= GROUPS_MAX => return Err(TooDeep),
                3 => open.push(number),
                4 if open.pop() != Some(number) => return Err(NoField),
                4 if open.is_empty() => return Ok(begun.get(..read).unwrap_or_default()),
                4 => {}
                kind => {
                    self.single(kind, Extent::Whole)?;
                }
            }
        }
    }

    /// The low 32 bits of a number.
    fn narrow(&mut self) -> Result<u32, Wrong> {
        let number = self.varint()?;
        self.disputed |= number > u64::from(u32::MAX);
        u32::try_from(low(number)).map_err(|_| NoField)
    }

    /// A number of one to ten bytes. Bits beyond 64 are dropped, as decoders do.
    fn varint(&mut self) -> Result<u64, Wrong> {
        let mut number = 0_u64;
        for (at, byte) in self.left.iter().enumerate().take(10) {
            let shift = u32::try_from(at).unwrap_or(0).saturating_mul(7);
            number |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                let behind = at.saturating_add(1);
                self.left = self.left.get(behind..).unwrap_or_default();
                return Ok(number);
            }
        }
        Err(if self.left.len() < 10 { Short } else { NoField })
    }
}

/// The 32 bits that fields of type `int32`, `uint32`, `bool` and of enums have of a number.
pub(super) fn low(number: u64) -> u64 {
    number & u64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> Vec<u8> {
        [[0x0b].repeat(depth), [0x0c].repeat(depth)].concat()
    }

    #[test]
    fn groups_are_read_as_deep_as_any_decoder_goes_and_deeper_ones_are_not_called_no_message() {
        let deepest = nested(GROUPS_MAX);
        let deepest = fields(&deepest, Extent::Whole).unwrap();
        assert_eq!((deepest.fields.len(), deepest.partial), (1, false));
        let before = [b"\x10\x01".as_slice(), &nested(GROUPS_MAX + 1)].concat();
        let deeper = fields(&before, Extent::Whole).unwrap();
        assert_eq!((deeper.fields.len(), deeper.partial), (1, true));
        // Text that begins like a group, and the end of another one.
        assert!(fields(&[b'c'; 200], Extent::Whole).is_none());
        assert!(fields(b"\x0b\x13\x0c\x14", Extent::Whole).is_none());
    }

    #[test]
    fn of_tags_and_lengths_beyond_32_bits_the_low_ones_count_and_not_all_read_them_so() {
        #[rustfmt::skip]
        let table: [(&str, &[u8], bool); 5] = [
            ("tag",          b"\x8a\x80\x80\x80\x10\x04drop",     true),
            ("length",       b"\x0a\x84\x80\x80\x80\x10drop",     true),
            ("end of group", b"\x0b\x8c\x80\x80\x80\x10",         true),
            ("overlong",     b"\x8a\x80\x80\x80\x00\x04drop",     false),
            ("32 bits",      b"\xfa\xff\xff\xff\x0f\x04drop",     false),
        ];
        for (name, bytes, disputed) in table {
            let read = fields(bytes, Extent::Whole).expect(name);
            assert_eq!((read.fields.len(), read.partial), (1, disputed), "{name}");
            let whole = match read.fields[0].content {
                Content::Bytes(bytes, _) => bytes == b"drop",
                Content::Group(bytes) => bytes.is_empty(),
                Content::Number(_) | Content::Fixed32(_) | Content::Fixed64(_) => false,
            };
            assert!(whole, "{name}");
        }
        // Field 0, once the upper bits are dropped.
        assert!(fields(b"\x82\x80\x80\x80\x10\x04drop", Extent::Whole).is_none());
    }
}
