//! What a compressed body says, read beside it: the bytes that go on are as they came.
//!
//! Two readers must not disagree: a body that goes on behind its end is not read at all,
//! and neither is one of another coding. Nothing is decoded beyond what policy is shown,
//! nor what swells out of all proportion.

use std::io::Read;

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use flate2::bufread::{DeflateDecoder, GzDecoder, ZlibDecoder};
use http::header::{self, HeaderMap};
use ruzstd::decoding::{BlockDecodingStrategy, StreamingDecoder};

/// Most codings of one body.
const CODINGS_MAX: usize = 2;
/// How many times its size a body may swell to, beyond [`SWELL_FREE`].
const SWELL_MAX: usize = 200;
/// To this size, bytes, every body may swell.
const SWELL_FREE: usize = 16_384;
/// Largest window of a zstd frame (RFC 9659 §3), bytes.
const WINDOW_MAX: u64 = 8 << 20;
/// Bytes decoded at once.
const PIECE: usize = 8_192;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

/// What was read of a compressed body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// All of it.
    Whole(Vec<u8>),
    /// Its beginning: the rest is not here, or too long.
    Beginning(Vec<u8>),
    /// It is not what its fields say, or has more than one reading.
    Not,
}

/// The codings that the fields of a body name, outermost last; `None` where one is not
/// known here.
pub(super) fn codings(headers: &HeaderMap) -> Option<Vec<Coding>> {
    let mut all = Vec::new();
    for value in headers.get_all(header::CONTENT_ENCODING) {
        for name in value.to_str().ok()?.split(',') {
            match name.trim() {
                "" => {}
                name if name.eq_ignore_ascii_case("identity") => {}
                name => all.push(coding(name.as_bytes())?),
            }
        }
    }
    (all.len() <= CODINGS_MAX).then_some(all)
}

/// The coding of that name, if it is known here.
pub(super) fn coding(name: &[u8]) -> Option<Coding> {
    match name.to_ascii_lowercase().as_slice() {
        b"gzip" | b"x-gzip" => Some(Coding::Gzip),
        b"deflate" => Some(Coding::Deflate),
        b"br" => Some(Coding::Brotli),
        b"zstd" => Some(Coding::Zstd),
        _ => None,
    }
}

/// What `data` says, at most `bytes_max` of it. `ended` where nothing of the body comes
/// behind.
pub(super) fn decoded(data: &[u8], codings: &[Coding], ended: bool, bytes_max: usize) -> Decoded {
    let mut layer = Decoded::Whole(data.to_vec());
    let mut ended = ended;
    for coding in codings.iter().rev() {
        layer = match layer {
            Decoded::Not => Decoded::Not,
            Decoded::Whole(data) => coding.decode(&data, ended, bytes_max),
            Decoded::Beginning(data) => coding.decode(&data, false, bytes_max),
        };
        ended = matches!(layer, Decoded::Whole(_));
    }
    layer
}

impl Coding {
    fn decode(self, data: &[u8], ended: bool, bytes_max: usize) -> Decoded {
        let room = Room::new(data.len(), bytes_max);
        let (out, end) = match self {
            Self::Gzip => {
                let mut decoder = GzDecoder::new(data);
                let (out, end) = room.read(&mut decoder);
                (out, end.behind(decoder.into_inner()))
            }
            Self::Deflate if is_zlib(data) => {
                let mut decoder = ZlibDecoder::new(data);
                let (out, end) = room.read(&mut decoder);
                (out, end.behind(decoder.into_inner()))
            }
            Self::Deflate => {
                let mut decoder = DeflateDecoder::new(data);
                let (out, end) = room.read(&mut decoder);
                (out, end.behind(decoder.into_inner()))
            }
            Self::Brotli => brotli(data, &room),
            Self::Zstd => zstd(data, &room),
        };
        match end {
            End::Here if ended => Decoded::Whole(out),
            // Cut off, it ends somewhere inside.
            End::Broken if !ended && !out.is_empty() => Decoded::Beginning(out),
            End::Here | End::Full => Decoded::Beginning(out),
            End::Broken => Decoded::Not,
        }
    }
}

/// How reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The stream ended with the data.
    Here,
    /// There is no room for more.
    Full,
    /// It is no such stream, or not all of one, or something stands behind it.
    Broken,
}

impl End {
    fn behind(self, rest: &[u8]) -> Self {
        match self {
            Self::Here if !rest.is_empty() => Self::Broken,
            Self::Here | Self::Full | Self::Broken => self,
        }
    }
}

/// How much may be decoded.
struct Room(usize);

impl Room {
    fn new(encoded: usize, bytes_max: usize) -> Self {
        let swollen = encoded.saturating_mul(SWELL_MAX).max(SWELL_FREE);
        Self(bytes_max.min(swollen))
    }

    fn read(&self, decoder: &mut impl Read) -> (Vec<u8>, End) {
        let mut out = Vec::new();
        let end = self.read_on(&mut out, decoder);
        (out, end)
    }

    /// Goes on where `out` ends.
    fn read_on(&self, out: &mut Vec<u8>, decoder: &mut impl Read) -> End {
        let mut piece = [0; PIECE];
        loop {
            match decoder.read(&mut piece) {
                Ok(0) => return End::Here,
                Ok(read) => {
                    let left = self.0.saturating_sub(out.len());
                    let fits = piece.get(..read.min(left)).unwrap_or_default();
                    out.extend_from_slice(fits);
                    if read > left {
                        return End::Full;
                    }
                }
                Err(_) => return End::Broken,
            }
        }
    }
}

/// Whether `deflate` is in the wrapping that it should have (RFC 9110 §8.4.1.2); some
/// leave it out.
fn is_zlib(data: &[u8]) -> bool {
    match data {
        [first, second, ..] => {
            let check = u16::from_be_bytes([*first, *second]);
            first & 0x0f == 8 && check.is_multiple_of(31)
        }
        _ => false,
    }
}

fn brotli(data: &[u8], room: &Room) -> (Vec<u8>, End) {
    let alloc = StandardAlloc::default;
    // Without the large windows that are no part of the coding.
    let mut state = BrotliState::new_strict(alloc(), alloc(), alloc());
    let (mut left, mut at, mut total) = (data.len(), 0, 0);
    let mut out = Vec::new();
    let mut piece = [0; PIECE];
    loop {
        let (mut space, mut written) = (PIECE, 0);
        let result = BrotliDecompressStream(
            &mut left,
            &mut at,
            data,
            &mut space,
            &mut written,
            &mut piece,
            &mut total,
            &mut state,
        );
        let fits = written.min(room.0.saturating_sub(out.len()));
        out.extend_from_slice(piece.get(..fits).unwrap_or_default());
        if fits < written {
            return (out, End::Full);
        }
        match result {
            BrotliResult::NeedsMoreOutput => {}
            BrotliResult::ResultSuccess if left == 0 => return (out, End::Here),
            BrotliResult::ResultSuccess
            | BrotliResult::NeedsMoreInput
            | BrotliResult::ResultFailure => return (out, End::Broken),
        }
    }
}

fn zstd(mut data: &[u8], room: &Room) -> (Vec<u8>, End) {
    let Ok(mut decoder) = StreamingDecoder::new_with_max_window_size(&mut data, WINDOW_MAX) else {
        return (Vec::new(), End::Broken);
    };
    let (mut out, end) = room.read(&mut decoder);
    let mut frame = decoder.into_frame_decoder();
    if end == End::Broken {
        // As much as its window is given out only once the frame is over. So it ends here,
        // before the block that is broken or not all there.
        let over = frame.decode_blocks(LAST_BLOCK, BlockDecodingStrategy::All);
        if over.is_ok() && room.read_on(&mut out, &mut frame) == End::Full {
            return (out, End::Full);
        }
    }
    (out, end.behind(data))
}

/// The last block of a frame, with nothing in it (RFC 8878 §3.1.1.2), and a checksum, which
/// is read where the frame announces one.
const LAST_BLOCK: &[u8] = &[1, 0, 0, 0, 0, 0, 0];

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    const TEXT: &[u8] =
        b"hello, hello, hello, hello, hello, hello: to ann@example.com, ann@example.com";
    const ALL: [Coding; 4] = [Coding::Gzip, Coding::Deflate, Coding::Brotli, Coding::Zstd];

    /// `TEXT` in Brotli, by Node.
    const BROTLI: &[u8] = &[
        0x1b, 0x4c, 0x00, 0xf8, 0x45, 0x27, 0x47, 0xfa, 0xf9, 0x81, 0xa2, 0x48, 0x83, 0xb6, 0xe0,
        0xfb, 0xa5, 0x16, 0xa4, 0x17, 0x65, 0xea, 0xd1, 0x09, 0x80, 0xb0, 0x4a, 0x30, 0xbe, 0x5b,
        0x29, 0x04, 0x2e, 0x7c, 0x30, 0x76, 0x5f, 0xb4, 0xa4,
    ];

    fn encoded(coding: Coding, text: &[u8]) -> Vec<u8> {
        match coding {
            Coding::Gzip => {
                let mut to = GzEncoder::new(Vec::new(), Compression::best());
                to.write_all(text).unwrap();
                to.finish().unwrap()
            }
            Coding::Deflate => {
                let mut to = ZlibEncoder::new(Vec::new(), Compression::best());
                to.write_all(text).unwrap();
                to.finish().unwrap()
            }
            Coding::Brotli => BROTLI.to_vec(),
            Coding::Zstd => {
                let level = ruzstd::encoding::CompressionLevel::Fastest;
                ruzstd::encoding::compress_to_vec(text, level)
            }
        }
    }

    #[test]
    fn each_coding_is_read_whole_or_as_far_as_it_goes_or_not_at_all() {
        for coding in ALL {
            let data = encoded(coding, TEXT);
            let read = |data: &[u8], ended, max| decoded(data, &[coding], ended, max);
            let whole = Decoded::Whole(TEXT.to_vec());
            assert_eq!(read(&data, true, 100), whole, "{coding:?}");
            assert_eq!(read(&data, true, TEXT.len()), whole, "{coding:?}");
            let beginning = Decoded::Beginning(TEXT[..10].to_vec());
            assert_eq!(read(&data, true, 10), beginning, "{coding:?}");
            assert_eq!(
                read(&data[..data.len() - 1], true, 100),
                Decoded::Not,
                "{coding:?}"
            );
            assert_eq!(
                read(b"no such thing at all", true, 100),
                Decoded::Not,
                "{coding:?}"
            );
            // Whoever reads on behind the end reads something else.
            let twice = [data.as_slice(), data.as_slice()].concat();
            assert_eq!(read(&twice, true, 100), Decoded::Not, "{coding:?}");
        }
    }

    #[test]
    fn deflate_is_read_with_its_wrapping_and_without() {
        let mut bare = DeflateEncoder::new(Vec::new(), Compression::fast());
        bare.write_all(TEXT).unwrap();
        let bare = bare.finish().unwrap();
        let read = decoded(&bare, &[Coding::Deflate], true, 100);
        assert_eq!(read, Decoded::Whole(TEXT.to_vec()));
    }

    #[test]
    fn what_is_encoded_twice_is_decoded_from_the_outside() {
        let data = encoded(Coding::Zstd, &encoded(Coding::Gzip, TEXT));
        let both = [Coding::Gzip, Coding::Zstd];
        assert_eq!(
            decoded(&data, &both, true, 100),
            Decoded::Whole(TEXT.to_vec())
        );
    }

    #[test]
    fn what_swells_out_of_proportion_is_not_read_on() {
        let data = encoded(Coding::Gzip, &[b'x'; 1 << 20]);
        let max = data.len() * SWELL_MAX;
        assert!(max < 1 << 19, "{max}");
        let Decoded::Beginning(read) = decoded(&data, &[Coding::Gzip], true, 1 << 20) else {
            panic!("read whole");
        };
        assert_eq!(read.len(), max.max(SWELL_FREE));
    }

    #[test]
    fn of_a_frame_that_is_cut_the_blocks_before_the_cut_are_its_beginning() {
        // Three blocks of the coding's largest size, that differ.
        let text: Vec<u8> = (0..70_000_u32)
            .flat_map(|n| n.to_string().into_bytes())
            .collect();
        let data = encoded(Coding::Zstd, &text);
        let read = |data: &[u8], ended, max| decoded(data, &[Coding::Zstd], ended, max);
        assert_eq!(read(&data, true, 1 << 20), Decoded::Whole(text.clone()));
        let cut = &data[..data.len() * 5 / 6];
        let Decoded::Beginning(found) = read(cut, false, 1 << 20) else {
            panic!("nothing of it is shown");
        };
        assert_eq!(found.len(), 2 * (128 << 10));
        assert_eq!(found, text[..found.len()]);
        let short = read(cut, false, 100_000);
        assert_eq!(short, Decoded::Beginning(text[..100_000].to_vec()));
        // The same, though all of the body is here: it is no such frame.
        assert_eq!(read(cut, true, 1 << 20), Decoded::Not);
        // Cut in its first block, there is nothing to show.
        assert_eq!(read(&data[..1_000], false, 1 << 20), Decoded::Not);
    }

    #[test]
    fn a_frame_that_is_cut_in_its_checksum_is_shown() {
        // Magic number, a window of 1 KiB with a checksum, one last raw block of 3 bytes.
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x04, 0, 3 << 3 | 1, 0, 0];
        frame.extend_from_slice(b"ann");
        let read = |data: &[u8], ended| decoded(data, &[Coding::Zstd], ended, 100);
        assert_eq!(read(&frame, false), Decoded::Beginning(b"ann".to_vec()));
        assert_eq!(read(&frame, true), Decoded::Not);
    }

    #[test]
    fn a_frame_that_wants_a_large_window_is_not_read() {
        // Magic number, no single segment, a window of 16 MiB, an empty last block.
        let large = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 14 << 3, 0x01, 0x00, 0x00];
        let small = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 10 << 3, 0x01, 0x00, 0x00];
        let read = |data: &[u8]| decoded(data, &[Coding::Zstd], true, 100);
        assert_eq!(read(&large), Decoded::Not);
        assert_eq!(read(&small), Decoded::Whole(Vec::new()));
    }
}
