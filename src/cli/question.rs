//! One question over HTTP/1.1 and its answer, within one deadline and one size.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tokio::time::Instant;

/// Most that is read at once, bytes.
const PIECE_BYTES: usize = 8_192;

/// How much an answer may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Longest for the connection, the question and the whole answer together.
    pub(super) within: Duration,
    /// Longest answer read, its head included, bytes.
    pub(super) bytes_max: usize,
}

/// Status and body of what `address` answers to `request`. The body ends where its length says, else where the
/// connection does or `bounds` do.
///
/// # Errors
/// Nobody answers there in time, or not in HTTP.
pub(super) fn ask(
    address: SocketAddr,
    request: &[u8],
    bounds: Bounds,
) -> io::Result<(u16, String)> {
    let Bounds { within, bytes_max } = bounds;
    let begun = Instant::now();
    // Of the whole, and not of each read: who sends a byte now and then would hold us for days.
    let left = || match within.saturating_sub(begun.elapsed()) {
        Duration::ZERO => Err(late(within)),
        left => Ok(left),
    };
    let mut stream = TcpStream::connect_timeout(&address, left()?)?;
    stream.set_write_timeout(Some(left()?))?;
    stream.write_all(request)?;
    let mut answer = Answer::default();
    let mut piece = [0; PIECE_BYTES];
    while !answer.is_whole() {
        let room = bytes_max.saturating_sub(answer.bytes.len());
        let room = piece.get_mut(..room.min(PIECE_BYTES)).unwrap_or_default();
        if room.is_empty() {
            break;
        }
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(room) {
            Ok(0) => break,
            Ok(count) => answer.take(room.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if is_late(&error) => return Err(late(within)),
            Err(error) => return Err(error),
        }
    }
    answer.read()
}

fn late(within: Duration) -> io::Error {
    let said = format!("no whole answer within {} s", within.as_secs_f32());
    io::Error::new(io::ErrorKind::TimedOut, said)
}

/// Systems differ in what they call a read that took too long.
fn is_late(error: &io::Error) -> bool {
    [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut].contains(&error.kind())
}

/// What has come so far.
#[derive(Default)]
struct Answer {
    bytes: Vec<u8>,
    head: Option<Head>,
}

#[derive(Clone, Copy)]
struct Head {
    /// Where the body begins.
    ends_at: usize,
    /// Of the body, bytes, where the head says it.
    length: Option<usize>,
}

impl Answer {
    fn take(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
        if self.head.is_none() {
            self.head = Head::of(&self.bytes);
        }
    }

    fn is_whole(&self) -> bool {
        self.head.is_some_and(|head| {
            head.length
                .is_some_and(|length| self.bytes.len().saturating_sub(head.ends_at) >= length)
        })
    }

    fn read(&self) -> io::Result<(u16, String)> {
        let not_http = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP");
        let head = self.head.ok_or_else(not_http)?;
        let (said, body) = self
            .bytes
            .split_at_checked(head.ends_at)
            .ok_or_else(not_http)?;
        let status = std::str::from_utf8(said)
            .ok()
            .and_then(|said| said.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok())
            .ok_or_else(not_http)?;
        let length = head.length.unwrap_or(body.len()).min(body.len());
        let body = body.get(..length).unwrap_or_default();
        Ok((status, String::from_utf8_lossy(body).into_owned()))
    }
}

impl Head {
    fn of(bytes: &[u8]) -> Option<Self> {
        const END: &[u8] = b"\r\n\r\n";
        let ends_at = bytes
            .windows(END.len())
            .position(|at| at == END)?
            .checked_add(END.len())?;
        let head = String::from_utf8_lossy(bytes.get(..ends_at)?);
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let is_length = name.eq_ignore_ascii_case("content-length");
            value.trim().parse().ok().filter(|_| is_length)
        });
        Some(Self { ends_at, length })
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const BYTES_MAX: usize = 64;
    /// No machine is so busy.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// What is read within that of one that says these, with a pause behind each, and closes much later.
    fn of(pieces: Vec<&'static str>, within: Duration) -> (io::Result<(u16, String)>, Duration) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            for piece in pieces {
                // Who asks may have gone.
                if peer.write_all(piece.as_bytes()).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            std::thread::sleep(3 * PATIENCE);
        });
        let bounds = Bounds {
            within,
            bytes_max: BYTES_MAX,
        };
        let begun = Instant::now();
        let said = ask(address, b"GET / HTTP/1.1\r\n\r\n", bounds);
        (said, begun.elapsed())
    }

    #[test]
    fn who_sends_a_byte_now_and_then_holds_nobody_beyond_the_deadline() {
        let mut pieces = vec!["HTTP/1.1 200 OK\r\n\r\n"];
        pieces.extend(["x"; 800]);
        let (said, took) = of(pieces, Duration::from_millis(500));
        assert_eq!(said.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(took < PATIENCE, "{took:?}");
    }

    #[test]
    fn an_answer_ends_where_its_length_says() {
        let pieces = vec![
            "HTTP/1.1 200 OK\r\nContent-",
            "Length: 2\r\n\r\no",
            "k, and more",
        ];
        let (said, took) = of(pieces, PATIENCE);
        assert_eq!(said.unwrap(), (200, "ok".to_owned()));
        assert!(took < PATIENCE, "{took:?}");
    }

    #[test]
    fn no_more_is_read_than_may_be() {
        let (said, took) = of(vec!["HTTP/1.1 200 OK\r\n\r\n", LONG], PATIENCE);
        let (_, body) = said.unwrap();
        assert_eq!(body.len() + "HTTP/1.1 200 OK\r\n\r\n".len(), BYTES_MAX);
        assert!(took < PATIENCE, "{took:?}");
    }

    /// Longer than may be read.
    const LONG: &str = "0123456789012345678901234567890123456789012345678901234567890123456789";
}
