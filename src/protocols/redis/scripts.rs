//! The texts of scripts, by what `EVALSHA` calls them. A server names a script
//! by the SHA-1 of its text, so whoever saw the text knows the name.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use sha1::{Digest, Sha1};

type Name = [u8; 20];

/// Scripts seen lately, of all sessions. A name that is not here is opaque.
#[derive(Debug)]
pub(super) struct Scripts {
    bytes_max: usize,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    texts: HashMap<Name, Arc<str>>,
    /// Oldest first.
    order: VecDeque<Name>,
    bytes: usize,
}

impl Scripts {
    /// Keeps texts of at most `bytes_max` together, about.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            known: Mutex::default(),
        }
    }

    /// Remembers a script that is on its way to the server.
    pub(super) fn seen(&self, text: &[u8]) {
        // What is no text cannot be shown, so its name stays unknown.
        let Ok(shown) = std::str::from_utf8(text) else {
            return;
        };
        if text.len() > self.bytes_max {
            return;
        }
        let name: Name = Sha1::digest(text).into();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.texts.contains_key(&name) {
            return;
        }
        known.bytes = known.bytes.saturating_add(text.len());
        known.texts.insert(name, shown.into());
        known.order.push_back(name);
        while known.bytes > self.bytes_max {
            let Some(oldest) = known.order.pop_front() else {
                return;
            };
            if let Some(text) = known.texts.remove(&oldest) {
                known.bytes = known.bytes.saturating_sub(text.len());
            }
        }
    }

    /// The text of the script called this, in hexadecimal digits.
    pub(super) fn text(&self, name: &[u8]) -> Option<Arc<str>> {
        let mut bytes = Name::default();
        if name.len() != 40 {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(name.chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.texts.get(&bytes).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rd_11_a_script_is_known_by_its_sha1_until_too_many_are() {
        let scripts = Scripts::new(20);
        scripts.seen(b"return 1");
        let name = b"e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
        assert_eq!(scripts.text(name).as_deref(), Some("return 1"));
        assert_eq!(
            scripts.text(&name.to_ascii_uppercase()).as_deref(),
            Some("return 1")
        );
        assert_eq!(scripts.text(b"e0e1"), None);
        scripts.seen(b"return 22");
        scripts.seen(b"return 333");
        assert_eq!(scripts.text(name), None);
    }
}
