//! The host in a ClientHello that the TLS library would not answer, since it is older than what
//! the library speaks (RFC 5246 §7.4.1.2, RFC 6066 §3).

/// The record type of a handshake.
const HANDSHAKE: u8 = 22;

/// The handshake type of a ClientHello.
const CLIENT_HELLO: u8 = 1;

/// The extension that names the server, and the only type of name there is.
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// The host that the ClientHello in `records` names, if it names one. `None` if it is no whole
/// hello, or names more than one.
pub(super) fn server_name(records: &[u8]) -> Option<Option<Box<str>>> {
    let handshake = handshake(records)?;
    let mut bytes = Bytes(&handshake);
    let is_hello = bytes.number(1)? == u32::from(CLIENT_HELLO);
    let length = bytes.number(3)?;
    let mut hello = Bytes(bytes.take(length)?);
    // The version and the random number.
    hello.take(2 + 32)?;
    // The session, the cipher suites and the compression methods.
    for width in [1, 2, 1] {
        hello.vector(width)?;
    }
    let named = match hello.0.is_empty() {
        true => None,
        false => named_in(hello.vector(2)?)?,
    };
    is_hello.then_some(named)
}

/// What the records carry, together.
fn handshake(records: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Bytes(records);
    let mut handshake = Vec::new();
    while !bytes.0.is_empty() {
        if bytes.number(1)? != u32::from(HANDSHAKE) {
            return None;
        }
        bytes.take(2)?;
        handshake.extend_from_slice(bytes.vector(2)?);
    }
    Some(handshake)
}

/// The name among extensions.
fn named_in(extensions: &[u8]) -> Option<Option<Box<str>>> {
    let mut extensions = Bytes(extensions);
    let mut found = None;
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let extension = extensions.vector(2)?;
        if kind != u32::from(SERVER_NAME) {
            continue;
        }
        let mut names = Bytes(Bytes(extension).vector(2)?);
        let is_host = names.number(1)? == u32::from(HOST_NAME);
        let name = std::str::from_utf8(names.vector(2)?).ok()?;
        if !is_host || !names.0.is_empty() || found.is_some() {
            return None;
        }
        found = Some(name.into());
    }
    Some(found)
}

/// What is left to read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: u32) -> Option<&'a [u8]> {
        let length = usize::try_from(length).ok()?;
        let (taken, left) = self.0.split_at_checked(length)?;
        self.0 = left;
        Some(taken)
    }

    /// A number of `width` bytes.
    fn number(&mut self, width: u32) -> Option<u32> {
        let bytes = self.take(width)?;
        Some(
            bytes
                .iter()
                .fold(0, |number, byte| number << 8 | u32::from(*byte)),
        )
    }

    /// What stands behind its length, a number of `width` bytes.
    fn vector(&mut self, width: u32) -> Option<&'a [u8]> {
        let length = self.number(width)?;
        self.take(length)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn vector(width: usize, bytes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
        [&length[4 - width..], bytes].concat()
    }

    /// A hello of TLS 1.2 with these names and no signature algorithms, in two records.
    pub(in crate::net) fn old_hello(names: &[&[u8]]) -> Vec<u8> {
        let names: Vec<u8> = names
            .iter()
            .flat_map(|name| [vec![0], vector(2, name)].concat())
            .collect();
        let mut extensions = [vec![0, 10], vector(2, &vector(2, &[0, 29]))].concat();
        if !names.is_empty() {
            extensions.extend([vec![0, 0], vector(2, &vector(2, &names))].concat());
        }
        let hello = [
            vec![3, 3],
            vec![7; 32],
            vector(1, &[]),
            vector(2, &[0xc0, 0x2f, 0xc0, 0x30]),
            vector(1, &[0]),
            vector(2, &extensions),
        ]
        .concat();
        let handshake = [vec![1], vector(3, &hello)].concat();
        let (first, second) = handshake.split_at(30);
        let record = |bytes: &[u8]| [vec![22, 3, 1], vector(2, bytes)].concat();
        [record(first), record(second)].concat()
    }

    #[test]
    fn no_beginning_of_a_hello_is_taken_for_one() {
        let hello = old_hello(&[b"a.test"]);
        assert_eq!(server_name(&hello), Some(Some("a.test".into())));
        for end in 0..hello.len() {
            assert_eq!(server_name(&hello[..end]), None, "{end}");
        }
    }
}
