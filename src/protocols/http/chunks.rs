//! Where a chunked body ends (RFC 9112 §7.1), read strictly and without
//! copying: it only counts, and says how much may be passed on.

use super::framing::{Malformed, read_trailer};

/// Longest chunk-size line, with extensions.
const SIZE_LINE_MAX: usize = 256;

/// Position inside a chunked body.
#[derive(Debug)]
pub(super) struct Chunks {
    at: At,
    /// The current line, as far as it has come.
    line: Vec<u8>,
    trailer_bytes: usize,
    trailer_bytes_max: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    End,
}

const fn bad(detail: &'static str) -> Malformed {
    Malformed {
        status: 400,
        code: "malformed_request",
        detail,
    }
}

impl Chunks {
    pub(super) fn new(trailer_bytes_max: usize) -> Self {
        Self {
            at: At::Size,
            line: Vec::new(),
            trailer_bytes: 0,
            trailer_bytes_max,
        }
    }

    /// Whether the body is over.
    pub(super) fn has_ended(&self) -> bool {
        self.at == At::End
    }

    /// How many bytes at the front of `input` belong to this body.
    pub(super) fn read(&mut self, input: &[u8]) -> Result<usize, Malformed> {
        let mut used = 0_usize;
        while let Some(rest) = input.get(used..).filter(|rest| !rest.is_empty()) {
            if self.at == At::End {
                break;
            }
            let step = match self.at {
                At::Data(left) => self.data(left, rest.len()),
                At::Size | At::DataEnd | At::Trailers => self.line(rest)?,
                At::End => 0,
            };
            used = used.saturating_add(step);
        }
        Ok(used)
    }

    fn data(&mut self, left: u64, available: usize) -> usize {
        let step = usize::try_from(left).map_or(available, |left| left.min(available));
        let left = left.saturating_sub(u64::try_from(step).unwrap_or(u64::MAX));
        self.at = if left == 0 {
            At::DataEnd
        } else {
            At::Data(left)
        };
        step
    }

    fn line(&mut self, rest: &[u8]) -> Result<usize, Malformed> {
        let max = match self.at {
            At::Trailers => self.trailer_bytes_max.saturating_sub(self.trailer_bytes),
            At::Size | At::Data(_) | At::DataEnd | At::End => SIZE_LINE_MAX,
        };
        let end = memchr::memchr(b'\n', rest);
        let step = end.map_or(rest.len(), |at| at.saturating_add(1));
        if self.line.len().saturating_add(step) > max {
            return Err(bad("a chunk line or the trailer section is too long"));
        }
        self.line
            .extend_from_slice(rest.get(..step).unwrap_or_default());
        if end.is_some() {
            let line = std::mem::take(&mut self.line);
            self.line_ended(&line)?;
            self.line = line;
            self.line.clear();
        }
        Ok(step)
    }

    fn line_ended(&mut self, line: &[u8]) -> Result<(), Malformed> {
        let line = line
            .strip_suffix(b"\r\n")
            .ok_or(bad("a line of a chunked body ends in a bare line feed"))?;
        if memchr::memchr2(0, b'\r', line).is_some() {
            return Err(bad(
                "a line of a chunked body contains a NUL or a bare carriage return",
            ));
        }
        self.at = match self.at {
            At::Size => match chunk_size(line)? {
                0 => At::Trailers,
                size => At::Data(size),
            },
            At::DataEnd if line.is_empty() => At::Size,
            At::DataEnd => return Err(bad("a chunk is longer than its size says")),
            At::Trailers if line.is_empty() => At::End,
            At::Trailers => {
                read_trailer(line)?;
                self.trailer_bytes = self.trailer_bytes.saturating_add(line.len());
                At::Trailers
            }
            At::Data(left) => At::Data(left),
            At::End => At::End,
        };
        Ok(())
    }
}

fn chunk_size(line: &[u8]) -> Result<u64, Malformed> {
    let malformed = bad("a chunk size must be up to 15 hexadecimal digits");
    let digits = match memchr::memchr(b';', line) {
        Some(at) => line.get(..at).unwrap_or_default(),
        None => line,
    };
    if digits.is_empty() || digits.len() > 15 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(malformed);
    }
    let text = std::str::from_utf8(digits).map_err(|_| malformed)?;
    u64::from_str_radix(text, 16).map_err(|_| malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where a body ends, that it is incomplete, or that it is refused.
    type End = Result<Option<usize>, ()>;

    fn whole(body: &[u8]) -> Result<Option<usize>, Malformed> {
        let mut chunks = Chunks::new(100);
        let used = chunks.read(body)?;
        Ok(chunks.has_ended().then_some(used))
    }

    #[test]
    fn a_chunked_body_ends_in_one_place_or_is_refused() {
        let long = [b"5;".as_slice(), &[b'x'; 300], b"\r\nhello\r\n0\r\n\r\n"].concat();
        #[rustfmt::skip]
        let table: [(&[u8], End); 16] = [
            (b"0\r\n\r\n",                                  Ok(Some(5))),
            (b"5\r\nhello\r\n0\r\n\r\nGET /",               Ok(Some(15))),
            (b"5;name=value\r\nhello\r\n0\r\n\r\n",         Ok(Some(26))),
            (b"0\r\nX-Sum: 1\r\n\r\n",                      Ok(Some(15))),
            (b"5\r\nhel",                                   Ok(None)),
            (b"5\nhello\r\n0\r\n\r\n",                      Err(())),
            (b"5\r\nhello!\r\n0\r\n\r\n",                   Err(())),
            (b"5\r\nhello\n0\r\n\r\n",                      Err(())),
            (b"-5\r\nhello\r\n",                            Err(())),
            (b"0x5\r\nhello\r\n",                           Err(())),
            (b"5 \r\nhello\r\n",                            Err(())),
            (b"\r\nhello\r\n",                              Err(())),
            (b"ffffffffffffffff\r\n",                       Err(())),
            (b"5;a\rb\r\nhello\r\n",                        Err(())),
            (b"0\r\nContent-Length: 4\r\n\r\n",             Err(())),
            (&long,                                         Err(())),
        ];
        for (body, end) in table {
            let found = whole(body).map_err(drop);
            assert_eq!(found, end, "{:?}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn chunking_of_the_input_never_changes_where_the_body_ends() {
        let body = b"5;x=1\r\nhello\r\nA\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\nNEXT";
        for size in 1..body.len() {
            let mut chunks = Chunks::new(100);
            let mut end = 0;
            for piece in body.chunks(size) {
                end += chunks.read(piece).unwrap();
            }
            assert!(chunks.has_ended());
            assert_eq!(end, body.len() - 4, "pieces of {size}");
        }
    }
}
