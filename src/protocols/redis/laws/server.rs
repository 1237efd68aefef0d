//! A server of Redis, as far as its protocol goes: what it answers to each
//! command, in transactions, with subscriptions, and to who wants no answers.
//!
//! It can judge what it is asked to do before it does it: then it says what a
//! client should hear that talks to any server through the sidecar.

use std::collections::BTreeSet;

use bytes::BytesMut;

use crate::protocols::laws::{FORBIDDEN, Peer};

use super::super::request::{Progress, Scan};

type Words = Vec<Vec<u8>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Silence {
    None,
    Next,
    Off,
}

#[derive(Debug)]
pub(super) struct Server {
    judges: bool,
    input: BytesMut,
    scan: Scan,
    out: Vec<u8>,
    resp3: bool,
    queued: Option<Vec<Words>>,
    dirty: bool,
    silence: Silence,
    channels: BTreeSet<Vec<u8>>,
    patterns: BTreeSet<Vec<u8>>,
    /// Which database commands are for is not known to who judges: one was
    /// chosen in the transaction under way, or without an answer.
    elsewhere: bool,
    lost: bool,
}

impl Server {
    pub(super) fn new(judges: bool) -> Self {
        Self {
            judges,
            input: BytesMut::new(),
            scan: Scan::default(),
            out: Vec::new(),
            resp3: false,
            queued: None,
            dirty: false,
            silence: Silence::None,
            channels: BTreeSet::new(),
            patterns: BTreeSet::new(),
            elsewhere: false,
            lost: false,
        }
    }

    fn command(&mut self, words: &Words) {
        let silent = self.silence != Silence::None;
        let before = self.out.len();
        let name = String::from_utf8_lossy(&words[0]).to_ascii_uppercase();
        let sub = words.get(1).map(|word| word.to_ascii_uppercase());
        if name == "CLIENT" && sub.as_deref() == Some(b"REPLY") && self.queued.is_none() {
            return self.replies(&words[2].to_ascii_uppercase());
        }
        if self.silence == Silence::Next {
            self.silence = Silence::None;
        }
        if let Some(code) = self.refuses(&name, words, silent) {
            self.dirty |= self.queued.is_some();
            let name = String::from_utf8_lossy(&words[0]);
            self.say(&format!(
                "-{code} unknown command '{name}', with args beginning with: \r\n"
            ));
        } else {
            let lost = self.lost;
            self.judged(&name, words);
            // What nobody answers may have happened, or not.
            self.lost |= silent && (lost || name == "SELECT");
        }
        if silent {
            self.out.truncate(before);
        }
    }

    fn listens(&self) -> bool {
        !self.channels.is_empty() || !self.patterns.is_empty()
    }

    fn replies(&mut self, how: &[u8]) {
        self.silence = match (how, self.silence) {
            (b"ON", _) => {
                self.say("+OK\r\n");
                Silence::None
            }
            (b"OFF", _) | (_, Silence::Off) => Silence::Off,
            _ => Silence::Next,
        };
    }

    /// The code of what it says instead of doing it.
    fn refuses(&mut self, name: &str, words: &Words, silent: bool) -> Option<&'static str> {
        let key = words
            .get(1)
            .is_some_and(|word| word == FORBIDDEN.as_bytes());
        let known = [
            "GET",
            "SET",
            "INCR",
            "LRANGE",
            "PUBLISH",
            "SUBSCRIBE",
            "PSUBSCRIBE",
        ]
        .contains(&name);
        let passes = [
            "PING",
            "MULTI",
            "EXEC",
            "DISCARD",
            "SELECT",
            "HELLO",
            "RESET",
            "UNSUBSCRIBE",
            "PUNSUBSCRIBE",
            "WATCH",
        ];
        let subscribes = name.ends_with("SUBSCRIBE") && (self.queued.is_some() || silent);
        let hello = name == "HELLO" && (self.queued.is_some() || silent);
        let hidden = known && (self.elsewhere || self.lost);
        let refused = !passes.contains(&name) && (!known || key || hidden)
            || subscribes
            || hello
            || name == "CLIENT";
        if !self.judges {
            let substitute = name.starts_with("OPENBOX:");
            assert!(
                substitute || !refused || hidden,
                "{name} {words:?} has reached the server"
            );
            return substitute.then_some("ERR");
        }
        refused.then_some("NOPERM")
    }

    fn judged(&mut self, name: &str, words: &Words) {
        if name == "SELECT" {
            self.elsewhere |= self.queued.is_some();
        }
        let wrong = match name {
            "GET" | "INCR" | "SELECT" => words.len() != 2,
            "SET" | "PUBLISH" => words.len() != 3,
            "LRANGE" => words.len() != 4,
            _ => false,
        };
        let limited = self.listens() && !self.resp3;
        let allowed = name.ends_with("SUBSCRIBE") || ["PING", "RESET"].contains(&name);
        if wrong || (limited && !allowed) {
            self.dirty |= self.queued.is_some();
            return self.say("-ERR it cannot be done here\r\n");
        }
        match (&mut self.queued, name) {
            (Some(_), "EXEC" | "DISCARD" | "MULTI" | "RESET" | "WATCH") | (None, _) => {
                self.done(name, words);
            }
            (Some(queued), _) => {
                queued.push(words.clone());
                self.say("+QUEUED\r\n");
            }
        }
    }

    fn done(&mut self, name: &str, words: &Words) {
        match name {
            "MULTI" if self.queued.is_some() => self.say("-ERR nested\r\n"),
            "WATCH" if self.queued.is_some() => self.say("-ERR not inside\r\n"),
            "MULTI" => {
                (self.queued, self.dirty) = (Some(Vec::new()), false);
                self.say("+OK\r\n");
            }
            "DISCARD" => {
                self.elsewhere = false;
                match self.queued.take() {
                    Some(_) => self.say("+OK\r\n"),
                    None => self.say("-ERR without MULTI\r\n"),
                }
            }
            "EXEC" => {
                self.elsewhere = false;
                match self.queued.take() {
                    None => self.say("-ERR without MULTI\r\n"),
                    Some(_) if self.dirty => self.say("-EXECABORT no\r\n"),
                    Some(queued) => {
                        self.say(&format!("*{}\r\n", queued.len()));
                        for words in queued {
                            let name = String::from_utf8_lossy(&words[0]).to_ascii_uppercase();
                            self.done(&name, &words);
                        }
                    }
                }
            }
            "RESET" => {
                *self = Self {
                    input: std::mem::take(&mut self.input),
                    scan: std::mem::take(&mut self.scan),
                    out: std::mem::take(&mut self.out),
                    ..Self::new(self.judges)
                };
                self.say("+RESET\r\n");
            }
            "SELECT" => match &*words[1] {
                b"1" => {
                    self.lost = false;
                    self.say("+OK\r\n");
                }
                _ => self.say("-ERR out of range\r\n"),
            },
            "HELLO" => {
                self.resp3 = words.get(1).is_some_and(|word| word == b"3");
                self.say(if self.resp3 {
                    "%1\r\n+proto\r\n:3\r\n"
                } else {
                    "*2\r\n+proto\r\n:2\r\n"
                });
            }
            "SUBSCRIBE" | "PSUBSCRIBE" => {
                for word in &words[1..] {
                    self.counted(name, Some(word));
                }
            }
            "UNSUBSCRIBE" | "PUNSUBSCRIBE" => self.unsubscribe(name, words),
            "PING" if self.listens() && !self.resp3 => {
                self.say("*2\r\n$4\r\npong\r\n$0\r\n\r\n");
                self.say("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n");
            }
            "GET" => {
                // What a tracked key is told of comes at any time.
                if self.resp3 && self.queued.is_none() {
                    self.say(">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n");
                }
                self.say("$5\r\nvalue\r\n");
            }
            "INCR" => self.say("-WRONGTYPE no\r\n"),
            "LRANGE" => self.say("*2\r\n$1\r\na\r\n$-1\r\n"),
            "PUBLISH" => self.say(":1\r\n"),
            "PING" => self.say("+PONG\r\n"),
            _ => self.say("+OK\r\n"),
        }
    }

    fn unsubscribe(&mut self, name: &str, words: &Words) {
        let known = match name {
            "UNSUBSCRIBE" => &self.channels,
            _ => &self.patterns,
        };
        let all: Vec<_> = match words.len() {
            1 => known.iter().cloned().collect(),
            _ => words[1..].to_vec(),
        };
        if all.is_empty() {
            self.counted(name, None);
        }
        for word in &all {
            self.counted(name, Some(word));
        }
    }

    /// One confirmation.
    fn counted(&mut self, name: &str, word: Option<&Vec<u8>>) {
        let known = match name.contains("PS") || name.starts_with("PUN") {
            true => &mut self.patterns,
            false => &mut self.channels,
        };
        if let Some(word) = word {
            match name.contains("UN") {
                true => known.remove(word),
                false => known.insert(word.clone()),
            };
        }
        let kind = if self.resp3 { '>' } else { '*' };
        let name = name.to_ascii_lowercase();
        let shown = match word {
            Some(word) => format!("${}\r\n{}\r\n", word.len(), String::from_utf8_lossy(word)),
            None if self.resp3 => "_\r\n".to_owned(),
            None => "$-1\r\n".to_owned(),
        };
        let count = self.channels.len() + self.patterns.len();
        self.say(&format!(
            "{kind}3\r\n${}\r\n{name}\r\n{shown}:{count}\r\n",
            name.len()
        ));
    }

    fn say(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }
}

impl Peer for Server {
    fn hears(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        loop {
            let end = match self.scan.advance(&self.input).unwrap() {
                Progress::More => return,
                Progress::Nothing(end) => end,
                Progress::Inline(..) => panic!("what is inline goes on as an array"),
                Progress::Whole(end) => {
                    let word = |at| self.input[self.scan.argument(at).unwrap()].to_vec();
                    let words: Words = (0..self.scan.count()).map(word).collect();
                    self.scan.clear();
                    drop(self.input.split_to(end));
                    self.command(&words);
                    continue;
                }
            };
            self.scan.clear();
            drop(self.input.split_to(end));
        }
    }

    fn said(&self) -> &[u8] {
        &self.out
    }
}
