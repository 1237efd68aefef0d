//! Answers that name other servers, rewritten to where those are reached
//! through the sidecar: `CLUSTER SLOTS`, `SHARDS`, `NODES`, `REPLICAS`, what
//! Sentinel says, `MOVED` and `ASK`.
//!
//! A master that has no place here makes the whole answer a refusal; replicas
//! and other Sentinels are left out, as if there were none.

use std::net::SocketAddr;

use super::nodes::Route;
use super::reply::{self, ReplyError};

/// Longest answer that is read, bytes: far more than a thousand nodes.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Deepest nesting that is read; none of these answers has half as much.
const DEPTH_MAX: usize = 8;

/// Which answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// `CLUSTER SLOTS`.
    Slots,
    /// `CLUSTER SHARDS`.
    Shards,
    /// `CLUSTER NODES`, `CLUSTER REPLICAS`.
    Lines,
    /// `SENTINEL GET-MASTER-ADDR-BY-NAME`.
    Address,
    /// `SENTINEL MASTER`, `SENTINEL MASTERS`.
    Masters,
    /// `SENTINEL REPLICAS`, `SENTINEL SENTINELS`.
    Others,
    /// A message of a Sentinel.
    Message,
}

impl Answer {
    /// The answer to a command called `name`, if it is one of these.
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "CLUSTER SLOTS" => Self::Slots,
            "CLUSTER SHARDS" => Self::Shards,
            "CLUSTER NODES" | "CLUSTER REPLICAS" | "CLUSTER SLAVES" => Self::Lines,
            "SENTINEL GET-MASTER-ADDR-BY-NAME" => Self::Address,
            "SENTINEL MASTER" | "SENTINEL MASTERS" => Self::Masters,
            "SENTINEL REPLICAS" | "SENTINEL SLAVES" | "SENTINEL SENTINELS" => Self::Others,
            _ => return None,
        })
    }

    /// Whether only a Sentinel gives it.
    pub(super) fn is_of_sentinel(self) -> bool {
        match self {
            Self::Slots | Self::Shards | Self::Lines => false,
            Self::Address | Self::Masters | Self::Others | Self::Message => true,
        }
    }
}

/// A server that has no place here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Nowhere(String);

impl Nowhere {
    /// One that nobody knows.
    pub(super) fn any() -> Self {
        Self("another server".into())
    }

    /// What the client is told.
    pub(super) fn told(&self) -> String {
        format!(
            "openbox-sidecar: {} is not governed, and the answer would lead around the sidecar: give it a --redis of its own, or set redis.nodes to open",
            self.0
        )
    }
}

/// How long the reply at the beginning of `input` is; `None`: not all there.
///
/// # Errors
/// What no server says, or one that is too long to be read.
pub(super) fn whole(input: &[u8]) -> Result<Option<usize>, ReplyError> {
    let mut scan = reply::Scan::default();
    scan.begin();
    let mut at = 0_usize;
    while !scan.is_over() {
        let rest = input.get(at..).unwrap_or_default();
        if at > ANSWER_BYTES_MAX || input.len() > ANSWER_BYTES_MAX {
            return Err(ReplyError::TooLong);
        }
        if rest.is_empty() {
            return Ok(None);
        }
        if let Some(inside) = scan.inside(rest) {
            at = at.saturating_add(inside);
            continue;
        }
        let Some(head) = reply::head(rest)? else {
            return Ok(None);
        };
        scan.element(&head)?;
        at = at.saturating_add(head.bytes);
    }
    Ok(Some(at))
}

/// `bytes`, which is a whole reply, with every server where it is reached here.
/// An answer of another shape than it should have stays as it is only where it
/// names nobody.
pub(super) fn rewritten(answer: Answer, bytes: &[u8], route: &Route) -> Result<Vec<u8>, Nowhere> {
    let unread = || Nowhere("a server in an answer that is not understood".into());
    let (mut value, rest) = Value::read(bytes, 0).ok_or_else(unread)?;
    if !rest.is_empty() {
        return Err(unread());
    }
    if let Value::Many(_, elements) = &mut value {
        match answer {
            Answer::Slots => slots(elements, route)?,
            Answer::Shards => shards(elements, route)?,
            Answer::Lines => {
                for element in elements.iter_mut() {
                    lines(element, route)?;
                }
                elements.retain(|one| !matches!(one, Value::Text(_, text) if text.is_empty()));
            }
            Answer::Address => address(elements, route)?,
            Answer::Masters => {
                match elements.first() {
                    Some(Value::Many(..)) => {
                        for one in elements.iter_mut() {
                            instance(one, route)?;
                        }
                    }
                    _ => instance(&mut value, route)?,
                };
            }
            Answer::Others => elements.retain_mut(|one| instance(one, route).is_ok()),
            Answer::Message => message(elements, route)?,
        }
    } else if answer == Answer::Lines {
        lines(&mut value, route)?;
    }
    let mut out = Vec::with_capacity(bytes.len());
    value.write(&mut out);
    Ok(out)
}

/// `MOVED 3999 127.0.0.1:6381` and its like, leading here.
pub(super) fn redirect(text: &[u8], route: &Route) -> Result<Vec<u8>, Nowhere> {
    let text = String::from_utf8_lossy(text);
    let (front, place) = text.rsplit_once(' ').unwrap_or(("", &text));
    let to = located(place, route)?;
    Ok(format!("-{front} {to}\r\n").into_bytes())
}

/// Where `HOST:PORT` is reached here.
fn located(place: &str, route: &Route) -> Result<SocketAddr, Nowhere> {
    let found = place.rsplit_once(':').and_then(|(host, port)| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        route.place(host, port.parse().ok()?)
    });
    found.ok_or_else(|| Nowhere(place.to_owned()))
}

fn at(host: &str, port: &str, route: &Route) -> Result<SocketAddr, Nowhere> {
    located(&format!("{host}:{port}"), route)
}

/// `[[first, last, master, replica…]…]`, each `[host, port, id, …]`.
fn slots(ranges: &mut [Value], route: &Route) -> Result<(), Nowhere> {
    for range in ranges {
        let Value::Many(_, parts) = range else {
            continue;
        };
        let mut index = 0_usize;
        let mut nowhere = None;
        parts.retain_mut(|part| {
            index = index.saturating_add(1);
            let Value::Many(_, node) = part else {
                return true;
            };
            match (address(node, route), index) {
                (Ok(()), _) => {}
                // The third is the master.
                (Err(error), 3) => nowhere = Some(error),
                (Err(_), _) => return false,
            }
            // What else is said of it may be its name.
            if let Some(Value::Many(_, more)) = node.get_mut(3) {
                more.clear();
            }
            true
        });
        if let Some(error) = nowhere {
            return Err(error);
        }
    }
    Ok(())
}

/// `[host, port, …]`.
fn address(parts: &mut [Value], route: &Route) -> Result<(), Nowhere> {
    if let [host, port, ..] = parts {
        let to = at(&host.text(), &port.text(), route)?;
        host.becomes(&to.ip().to_string());
        port.becomes(&to.port().to_string());
    }
    Ok(())
}

/// `[{slots, nodes: [{id, port, tls-port, ip, endpoint, hostname, role, …}…]}…]`.
fn shards(shards: &mut [Value], route: &Route) -> Result<(), Nowhere> {
    for shard in shards {
        let Some(Value::Many(_, nodes)) = shard.field("nodes") else {
            continue;
        };
        let mut nowhere = None;
        nodes.retain_mut(|node| {
            let is_master = node
                .field("role")
                .is_some_and(|role| role.text() == "master");
            match (shard_node(node, route), is_master) {
                (Ok(()), _) => true,
                (Err(error), true) => {
                    nowhere = Some(error);
                    true
                }
                (Err(_), false) => false,
            }
        });
        if let Some(error) = nowhere {
            return Err(error);
        }
    }
    Ok(())
}

fn shard_node(node: &mut Value, route: &Route) -> Result<(), Nowhere> {
    let mut said = |name: &str| node.field(name).map(|value| value.text());
    let host = said("ip").unwrap_or_default();
    // With TLS on all ports, there is no other.
    let port = said("port").or_else(|| said("tls-port"));
    let to = at(&host, &port.unwrap_or_default(), route)?;
    for name in ["ip", "endpoint", "hostname"] {
        if let Some(value) = node.field(name) {
            value.becomes(&to.ip().to_string());
        }
    }
    for name in ["port", "tls-port"] {
        if let Some(value) = node.field(name) {
            value.becomes(&to.port().to_string());
        }
    }
    Ok(())
}

/// `id host:port@busport[,name…] flags …`, a line each.
fn lines(value: &mut Value, route: &Route) -> Result<(), Nowhere> {
    let text = value.text();
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        let (Some(id), Some(place), Some(flags), rest) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            continue;
        };
        let place = place.split(['@', ',']).next().unwrap_or_default();
        let to = match located(place, route) {
            Ok(to) => to,
            Err(error) if flags.split(',').any(|flag| flag == "master") => return Err(error),
            Err(_) => continue,
        };
        out.push_str(&format!(
            "{id} {to}@0 {flags} {}\n",
            rest.unwrap_or_default()
        ));
    }
    // One line by itself has no end.
    if !text.ends_with('\n') {
        out.truncate(out.trim_end().len());
    }
    value.becomes(&out);
    Ok(())
}

/// `{name, ip, port, …}` of a Sentinel.
fn instance(value: &mut Value, route: &Route) -> Result<(), Nowhere> {
    let said = |value: &mut Value, name: &str| value.field(name).map(|value| value.text());
    let (Some(host), Some(port)) = (said(value, "ip"), said(value, "port")) else {
        return Ok(());
    };
    let to = at(&host, &port, route)?;
    let own_name = format!("{host}:{port}");
    if let Some(name) = value.field("name").filter(|name| name.text() == own_name) {
        name.becomes(&to.to_string());
    }
    let master = (said(value, "master-host"), said(value, "master-port"));
    if let (Some(host), Some(port)) = master {
        let to = at(&host, &port, route);
        let (host, port) = match to {
            Ok(to) => (to.ip().to_string(), to.port().to_string()),
            Err(_) => ("?".to_owned(), "0".to_owned()),
        };
        set(value, "master-host", &host);
        set(value, "master-port", &port);
    }
    set(value, "ip", &to.ip().to_string());
    set(value, "port", &to.port().to_string());
    Ok(())
}

fn set(value: &mut Value, name: &str, text: &str) {
    if let Some(field) = value.field(name) {
        field.becomes(text);
    }
}

/// `+switch-master` and its like: `NAME HOST PORT HOST PORT` at the end of a message.
fn message(parts: &mut [Value], route: &Route) -> Result<(), Nowhere> {
    let Some((last, front)) = parts.split_last_mut() else {
        return Ok(());
    };
    if !front.iter().any(|part| part.text() == "+switch-master") {
        return Ok(());
    }
    let text = last.text();
    let [name, from, from_port, to, to_port] = *text.split(' ').collect::<Vec<_>>() else {
        return Ok(());
    };
    let (from, to) = (at(from, from_port, route)?, at(to, to_port, route)?);
    let text = format!(
        "{name} {} {} {} {}",
        from.ip(),
        from.port(),
        to.ip(),
        to.port()
    );
    last.becomes(&text);
    Ok(())
}

/// A reply, read whole.
enum Value {
    /// A string of a length, of this type.
    Text(u8, Vec<u8>),
    /// A line with its type.
    Line(Vec<u8>),
    /// Elements of a type; a map's one after the other.
    Many(u8, Vec<Self>),
}

impl Value {
    fn read(input: &[u8], depth: usize) -> Option<(Self, &[u8])> {
        let head = reply::head(input).ok()??;
        let mut rest = input.get(head.bytes..)?;
        let line = || input.get(..head.bytes).map(<[u8]>::to_vec);
        match (head.kind, head.length) {
            (b'$' | b'=', Some(length)) => {
                let length = usize::try_from(length).ok()?;
                let text = rest.get(..length)?.to_vec();
                rest = rest.get(length.checked_add(2)?..)?;
                Some((Self::Text(head.kind, text), rest))
            }
            (b'*' | b'~' | b'>' | b'%', Some(length)) if depth < DEPTH_MAX => {
                let each = if head.kind == b'%' { 2 } else { 1 };
                let mut all = Vec::new();
                for _ in 0..length.checked_mul(each)? {
                    let (one, behind) = Self::read(rest, depth.saturating_add(1))?;
                    all.push(one);
                    rest = behind;
                }
                Some((Self::Many(head.kind, all), rest))
            }
            (_, Some(_)) => None,
            (_, None) => Some((Self::Line(line()?), rest)),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Line(line) => out.extend_from_slice(line),
            Self::Text(kind, text) => {
                out.push(*kind);
                out.extend_from_slice(format!("{}\r\n", text.len()).as_bytes());
                out.extend_from_slice(text);
                out.extend_from_slice(b"\r\n");
            }
            Self::Many(kind, all) => {
                let length = if *kind == b'%' {
                    all.len() >> 1
                } else {
                    all.len()
                };
                out.push(*kind);
                out.extend_from_slice(format!("{length}\r\n").as_bytes());
                for one in all {
                    one.write(out);
                }
            }
        }
    }

    /// What it says; nothing where it stands for nothing.
    fn text(&self) -> String {
        match self {
            Self::Text(_, text) => String::from_utf8_lossy(text).into_owned(),
            Self::Line(line) => match line.split_first() {
                Some((b'+' | b':', text)) => String::from_utf8_lossy(text).trim_end().to_owned(),
                Some(_) | None => String::new(),
            },
            Self::Many(..) => String::new(),
        }
    }

    /// Says this instead, as the type that it is.
    fn becomes(&mut self, text: &str) {
        match self {
            Self::Text(_, old) => *old = text.as_bytes().to_vec(),
            Self::Line(line) if matches!(line.first(), Some(b'+' | b':')) => {
                line.truncate(1);
                line.extend_from_slice(text.as_bytes());
                line.extend_from_slice(b"\r\n");
            }
            // Where it said nothing, a string.
            Self::Line(_) => *self = Self::Text(b'$', text.as_bytes().to_vec()),
            Self::Many(..) => {}
        }
    }

    /// The value called `name`, of a map or of a list that stands for one.
    fn field(&mut self, name: &str) -> Option<&mut Self> {
        let Self::Many(_, all) = self else {
            return None;
        };
        let mut pairs = all.chunks_exact_mut(2);
        pairs.find_map(|pair| match pair {
            [key, value] if key.text() == name => Some(value),
            _ => None,
        })
    }
}
