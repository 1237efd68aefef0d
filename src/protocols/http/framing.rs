//! One strict reading of a request's head and framing (RFC 9112), before the
//! HTTP library reads it.
//!
//! The library accepts more than one spelling of where a message ends: bare
//! line feeds, a Content-Length next to a Transfer-Encoding, a second Host.
//! Whatever this refuses is never shown to it, so the two cannot disagree: what
//! passes here has exactly one reading.

/// Why a request is not read any further. The connection ends with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    /// The status to answer with.
    pub(super) status: u16,
    /// Stable machine-readable code.
    pub(super) code: &'static str,
    /// What was found and what was expected.
    pub(super) detail: &'static str,
}

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// A body of this many bytes, perhaps none.
    Length(u64),
    /// A body in chunks.
    Chunked,
    /// Whatever the tunnel carries.
    Tunnel,
}

/// Bounds of a head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) bytes_max: usize,
    pub(super) fields_max: usize,
}

const fn bad(detail: &'static str) -> Malformed {
    Malformed {
        status: 400,
        code: "malformed_request",
        detail,
    }
}

pub(super) const TOO_LARGE: Malformed = Malformed {
    status: 431,
    code: "header_section_too_large",
    detail: "the header section is larger than http.head_bytes_max or has more fields than http.head_fields_max",
};

/// Length of the head at the front of `input`, with its empty line; `None`
/// while it is incomplete.
pub(super) fn head_length(input: &[u8], searched: usize) -> Option<usize> {
    // The empty line may straddle what was searched before and what is new.
    let from = searched.saturating_sub(3);
    let found = memchr::memmem::find(input.get(from..)?, b"\r\n\r\n")?;
    from.checked_add(found)?.checked_add(4)
}

/// Whether `input` can no longer become a head that is read: a line ends in a
/// bare line feed. Looked for before the head is complete, or a client that
/// ends its lines like that would wait for ever.
pub(super) fn has_bare_line_feed(input: &[u8], from: usize) -> bool {
    memchr::memchr_iter(b'\n', input.get(from..).unwrap_or_default()).any(|at| {
        let before = from.checked_add(at).and_then(|at| at.checked_sub(1));
        before.and_then(|at| input.get(at)) != Some(&b'\r')
    })
}

/// Reads one complete head, empty line included.
pub(super) fn read_head(head: &[u8], limits: Limits) -> Result<Framing, Malformed> {
    if head.len() > limits.bytes_max {
        return Err(TOO_LARGE);
    }
    let mut lines = Lines(head);
    let request = RequestLine::read(lines.next()?.ok_or(bad("there is no request line"))?)?;
    let mut fields = Fields::default();
    let mut count = 0_usize;
    while let Some(line) = lines.next()? {
        count = count.saturating_add(1);
        if count > limits.fields_max {
            return Err(TOO_LARGE);
        }
        fields.read(line)?;
    }
    fields.framing(&request)
}

/// Whether a field of this name would change framing, routing or credentials behind a body
/// (RFC 9110 §6.5.1).
pub(super) fn is_no_trailer(name: &[u8]) -> bool {
    const NONE: [&str; 8] = [
        "content-length",
        "transfer-encoding",
        "host",
        "content-encoding",
        "content-type",
        "authorization",
        "te",
        "trailer",
    ];
    NONE.iter()
        .any(|none| name.eq_ignore_ascii_case(none.as_bytes()))
}

/// Reads one line of a trailer section.
pub(super) fn read_trailer(line: &[u8]) -> Result<(), Malformed> {
    let (name, _) = field(line)?;
    if is_no_trailer(name) {
        return Err(bad(
            "a trailer field may not change framing, routing or credentials (RFC 9110 §6.5.1)",
        ));
    }
    Ok(())
}

/// Lines that end in CRLF, up to the empty one.
struct Lines<'a>(&'a [u8]);

impl<'a> Lines<'a> {
    fn next(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        let end = memchr::memchr(b'\n', self.0).ok_or(bad("a line has no end"))?;
        let (line, rest) = self
            .0
            .split_at_checked(end)
            .ok_or(bad("a line has no end"))?;
        let line = line.strip_suffix(b"\r").ok_or(bad(
            "a line ends in a bare line feed; every line must end in CRLF",
        ))?;
        self.0 = rest.strip_prefix(b"\n").unwrap_or_default();
        if line.is_empty() {
            return Ok(None);
        }
        if memchr::memchr2(0, b'\r', line).is_some() {
            return Err(bad("a line contains a NUL or a bare carriage return"));
        }
        Ok(Some(line))
    }
}

struct RequestLine {
    connect: bool,
    one_zero: bool,
}

impl RequestLine {
    fn read(line: &[u8]) -> Result<Self, Malformed> {
        let mut parts = line.split(|byte| *byte == b' ');
        let (method, target, version) = (parts.next(), parts.next(), parts.next());
        let (Some(method), Some(target), Some(version), None) =
            (method, target, version, parts.next())
        else {
            return Err(bad(
                "the request line must be method, target and version, with one space between them",
            ));
        };
        if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
            return Err(bad("the method is not a token"));
        }
        if target.is_empty() || !target.iter().all(|byte| (0x21..0x7f).contains(byte)) {
            return Err(bad(
                "the request target contains a control or non-ASCII character",
            ));
        }
        let one_zero = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            b"HTTP/2.0" => {
                return Err(Malformed {
                    status: 505,
                    code: "http_version_not_supported",
                    detail: "HTTP/2 was begun without negotiating it; this proxy speaks HTTP/1.1",
                });
            }
            _ => return Err(bad("the version must be HTTP/1.1 or HTTP/1.0")),
        };
        Ok(Self {
            connect: method == b"CONNECT",
            one_zero,
        })
    }
}

/// The fields that decide framing and routing.
#[derive(Default)]
struct Fields {
    hosts: usize,
    length: Option<u64>,
    chunked: bool,
    websocket: bool,
}

impl Fields {
    fn read(&mut self, line: &[u8]) -> Result<(), Malformed> {
        let (name, value) = field(line)?;
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                self.hosts = self.hosts.saturating_add(1);
            }
            6 if name.eq_ignore_ascii_case(b"expect")
                && !value.eq_ignore_ascii_case(b"100-continue") =>
            {
                return Err(Malformed {
                    status: 417,
                    code: "expectation_failed",
                    detail: "the only expectation this proxy can meet is 100-continue",
                });
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.websocket |= names_websocket(value);
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                if self.length.is_some() {
                    return Err(bad("there is more than one Content-Length"));
                }
                self.length = Some(length(value)?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.chunked {
                    return Err(bad("there is more than one Transfer-Encoding"));
                }
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(bad(
                        "the only Transfer-Encoding of a request is chunked, alone",
                    ));
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn framing(&self, request: &RequestLine) -> Result<Framing, Malformed> {
        match self.hosts {
            1 => {}
            0 if request.one_zero => {}
            0 => return Err(bad("there is no Host field")),
            _ => return Err(bad("there is more than one Host field")),
        }
        if self.chunked && self.length.is_some() {
            return Err(bad(
                "Content-Length and Transfer-Encoding exclude each other",
            ));
        }
        if self.chunked && request.one_zero {
            return Err(bad("HTTP/1.0 has no Transfer-Encoding"));
        }
        let has_body = self.chunked || self.length.is_some_and(|length| length > 0);
        if has_body && request.connect {
            return Err(bad("CONNECT has no body"));
        }
        // Of other upgrades the field ends at this hop, so what follows the head is the body: nothing else can.
        if has_body && self.websocket {
            return Err(bad("a request that asks for WebSocket may have no body"));
        }
        Ok(if request.connect {
            Framing::Tunnel
        } else if self.chunked {
            Framing::Chunked
        } else {
            Framing::Length(self.length.unwrap_or(0))
        })
    }
}

/// Name and value of one field line, without the white space around the value.
fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    if line
        .first()
        .is_some_and(|byte| matches!(byte, b' ' | b'\t'))
    {
        return Err(bad(
            "a field is continued on a second line (obsolete folding)",
        ));
    }
    let colon = memchr::memchr(b':', line).ok_or(bad("a field line has no colon"))?;
    let (name, rest) = line
        .split_at_checked(colon)
        .ok_or(bad("a field line has no colon"))?;
    if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
        return Err(bad(
            "a field name is empty or contains a character that names may not have",
        ));
    }
    let value = rest.strip_prefix(b":").unwrap_or_default().trim_ascii();
    if value
        .iter()
        .any(|byte| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f)
    {
        return Err(bad("a field value contains a control character"));
    }
    Ok((name, value))
}

/// Whether one of the protocols that an Upgrade offers is WebSocket, of whatever version.
fn names_websocket(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|offer| {
        let name = offer.split(|byte| *byte == b'/').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(b"websocket")
    })
}

fn length(value: &[u8]) -> Result<u64, Malformed> {
    let malformed = bad("Content-Length must be one decimal number");
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return Err(malformed);
    }
    let text = std::str::from_utf8(value).map_err(|_| malformed)?;
    text.parse().map_err(|_| malformed)
}

/// `tchar` of RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        bytes_max: 400,
        fields_max: 5,
    };

    fn read(head: &str) -> Result<Framing, u16> {
        let head = head.replace('\n', "\r\n").replace('¶', "\n");
        assert_eq!(
            head_length(head.as_bytes(), 0),
            Some(head.len()),
            "{head:?}"
        );
        read_head(head.as_bytes(), LIMITS).map_err(|malformed| malformed.status)
    }

    #[test]
    fn every_head_has_one_reading_or_none() {
        let long = format!("GET / HTTP/1.1\nHost: a\nX: {}\n\n", "x".repeat(400));
        #[rustfmt::skip]
        let table = [
            // head                                                                        reading
            ("GET http://a/ HTTP/1.1\nHost: a\n\n",                                        Ok(Framing::Length(0))),
            ("POST / HTTP/1.1\nHost: a\nContent-Length: 5\n\n",                            Ok(Framing::Length(5))),
            ("POST / HTTP/1.1\nHost: a\ncontent-length:\t5 \n\n",                          Ok(Framing::Length(5))),
            ("POST / HTTP/1.1\nHost: a\nTransfer-Encoding: Chunked\n\n",                   Ok(Framing::Chunked)),
            ("CONNECT a:443 HTTP/1.1\nHost: a:443\n\n",                                    Ok(Framing::Tunnel)),
            ("CONNECT a:443 HTTP/1.0\n\n",                                                 Ok(Framing::Tunnel)),
            ("GET / HTTP/1.1\nHost: a\nUpgrade: websocket\nConnection: upgrade\n\n",       Ok(Framing::Length(0))),
            ("POST / HTTP/1.1\nHost: a\nContent-Length: 5\nTransfer-Encoding: chunked\n\n", Err(400)),
            ("POST / HTTP/1.1\nHost: a\nContent-Length: 5\nContent-Length: 5\n\n",         Err(400)),
            ("POST / HTTP/1.1\nHost: a\nContent-Length: 5, 5\n\n",                         Err(400)),
            ("POST / HTTP/1.1\nHost: a\nContent-Length: +5\n\n",                           Err(400)),
            ("POST / HTTP/1.1\nHost: a\nContent-Length: 0x5\n\n",                          Err(400)),
            ("POST / HTTP/1.1\nHost: a\nContent-Length:\n\n",                              Err(400)),
            ("POST / HTTP/1.1\nHost: a\nContent-Length: 99999999999999999999\n\n",         Err(400)),
            ("POST / HTTP/1.1\nHost: a\nTransfer-Encoding: gzip, chunked\n\n",             Err(400)),
            ("POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked\n\n", Err(400)),
            ("POST / HTTP/1.1\nHost: a\nTransfer-Encoding: identity\n\n",                  Err(400)),
            ("POST / HTTP/1.0\nHost: a\nTransfer-Encoding: chunked\n\n",                   Err(400)),
            ("POST / HTTP/1.1\nHost: a\nTransfer-Encoding : chunked\n\n",                  Err(400)),
            ("GET / HTTP/1.1\nHost: a\nHost: a\n\n",                                       Err(400)),
            ("GET / HTTP/1.1\n\n",                                                         Err(400)),
            ("GET / HTTP/1.1\nHost: a\nX: 1\n 2\n\n",                                      Err(400)),
            ("GET / HTTP/1.1\nHost: a\nX: a\0b\n\n",                                       Err(400)),
            ("GET / HTTP/1.1\nHost: a\nX: a\u{7f}b\n\n",                                   Err(400)),
            ("GET / HTTP/1.1¶Host: a\n\n",                                                 Err(400)),
            ("GET / HTTP/1.1\nHost: a¶X: 1\n\n",                                           Err(400)),
            ("GET / HTTP/1.1\nHost: a\nno colon\n\n",                                      Err(400)),
            ("GET / HTTP/1.1\nHost: a\n: empty\n\n",                                       Err(400)),
            ("GET  / HTTP/1.1\nHost: a\n\n",                                               Err(400)),
            ("GET /ä HTTP/1.1\nHost: a\n\n",                                               Err(400)),
            ("G@T / HTTP/1.1\nHost: a\n\n",                                                Err(400)),
            ("GET / HTTP/1.2\nHost: a\n\n",                                                Err(400)),
            ("GET / HTTP/9\nHost: a\n\n",                                                  Err(400)),
            ("PRI * HTTP/2.0\n\n",                                                         Err(505)),
            ("POST / HTTP/1.1\nHost: a\nExpect: tea\n\n",                                  Err(417)),
            ("CONNECT a:443 HTTP/1.1\nHost: a:443\nContent-Length: 5\n\n",                 Err(400)),
            ("POST / HTTP/1.1\nHost: a\nUpgrade: h2c\nContent-Length: 5\n\n",              Ok(Framing::Length(5))),
            ("POST / HTTP/1.1\nHost: a\nUpgrade: h2c\nTransfer-Encoding: chunked\n\n",     Ok(Framing::Chunked)),
            ("POST / HTTP/1.1\nHost: a\nUpgrade: WebSocket\nContent-Length: 5\n\n",        Err(400)),
            ("GET / HTTP/1.1\nHost: a\nUpgrade: h2c, websocket/13\nContent-Length: 5\n\n", Err(400)),
            ("GET / HTTP/1.1\nHost: a\nUpgrade: websocket\nUpgrade: h2c\nContent-Length: 5\n\n", Err(400)),
            ("GET / HTTP/1.1\nHost: a\nA: 1\nB: 2\nC: 3\nD: 4\nE: 5\n\n",                  Err(431)),
            (long.as_str(),                                                                Err(431)),
        ];
        for (head, reading) in table {
            assert_eq!(read(head), reading, "{head:?}");
        }
    }

    #[test]
    fn a_head_is_found_however_it_arrives() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let whole = [head.as_slice(), b"rest"].concat();
        for searched in 0..head.len() {
            assert_eq!(head_length(&whole[..searched], 0), None);
            assert_eq!(head_length(&whole, searched), Some(head.len()));
        }
    }

    #[test]
    fn a_bare_line_feed_is_noticed_before_the_head_ends() {
        assert!(has_bare_line_feed(b"GET / HTTP/1.1\nHost", 0));
        assert!(has_bare_line_feed(b"\n", 0));
        assert!(!has_bare_line_feed(b"GET / HTTP/1.1\r\nHost: a\r", 0));
        assert!(!has_bare_line_feed(b"\r\n", 1));
    }

    #[test]
    fn a_trailer_cannot_change_what_was_said() {
        assert!(read_trailer(b"grpc-status: 0").is_ok());
        for line in [
            &b"Content-Length: 4"[..],
            b"host: b",
            b" folded",
            b"no colon",
        ] {
            assert!(read_trailer(line).is_err(), "{line:?}");
        }
    }
}
