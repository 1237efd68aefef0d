//! A device of the network, as `--from` names it.

use std::fmt;
use std::str::FromStr;

/// Longest name of a device, bytes (`IFNAMSIZ` without the zero at its end).
const NAME_BYTES_MAX: usize = 15;

/// A device's name; displayed as `nft` reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Device(Box<str>);

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Nothing that could end the quotes, nor the asterisk, by which nft means more than one.
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:@".contains(&byte);
        if text.is_empty() || text.len() > NAME_BYTES_MAX || !text.bytes().all(fits) {
            return Err("expected the name of a network device, for example br0".to_owned());
        }
        if text == "lo" {
            return Err("nothing that is routed on comes by lo".to_owned());
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_inside_its_quotes() {
        for (text, expected) in [
            ("br0", Some("\"br0\"")),
            ("veth1a@if2", Some("\"veth1a@if2\"")),
            ("eth0.100", Some("\"eth0.100\"")),
            ("lo", None),
            ("", None),
            ("a\"; flush", None),
            ("veth*", None),
            ("sixteen-bytes-xx", None),
        ] {
            let read = text.parse::<Device>().ok().map(|device| device.to_string());
            assert_eq!(read.as_deref(), expected, "{text}");
        }
    }
}
