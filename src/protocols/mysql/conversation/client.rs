//! What the client says.

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};

use crate::metrics::Passage;
use crate::protocols::sql::TEXT_BYTES_MAX;

use super::super::Replication;
use super::super::answer::Form;
use super::super::attributes;
use super::super::capability::Capabilities;
use super::super::commands::{self, Code, Treatment};
use super::super::greeting;
use super::super::statement::{TOO_LONG, Text};
use super::super::whole_password::{self, Key, Said};
use super::super::wire::{Cursor, HEADER_BYTES, Header, WireError, packet};
use super::{
    Ask, Conversation, Current, Effect, File, Hides, Kind, Phase, Received, Rest, SMALL_BYTES_MAX,
    Step, Tail, Turn, Upload, no_login,
};

/// Most attributes of a query in bytes, beside its text.
const ATTRIBUTES_BYTES_MAX: usize = 64 << 10;
/// The attribute that says whose a statement is.
const TRACE: &[u8] = b"traceparent";
/// A longer packet is judged by so much of its beginning.
const BEGINNING_BYTES: usize = 64 << 10;

impl Conversation {
    /// Deals with at most one command of the client.
    ///
    /// # Errors
    ///
    /// Where it breaks the protocol: the connection cannot go on.
    pub(in super::super) fn client(&mut self, input: &mut BytesMut) -> Result<Step, WireError> {
        if self.ended {
            input.clear();
            return Ok(Step::More);
        }
        if self.tail.is_open() {
            return self.tail(input);
        }
        match &mut self.phase {
            Phase::Login(turn) => {
                let step = proof(turn, &self.received, input)?;
                // What is said in a login by us, and leaves nothing to say, ends it.
                self.ended = matches!(step, Step::Say(_)) && turn.expects.is_none();
                self.refused_login = self.ended;
                Ok(step)
            }
            Phase::Answering(answering) => match &mut answering.upload {
                Upload::Running(file) => file.contents(input),
                Upload::No | Upload::Denied(_, _) => Ok(Step::More),
            },
            Phase::Entering(entering) => Ok(entering.step()),
            Phase::Own(_) => Ok(Step::More),
            Phase::Idle => self.command(input),
        }
    }

    /// The rest of a packet that was dealt with.
    fn tail(&mut self, input: &mut BytesMut) -> Result<Step, WireError> {
        let Tail {
            left,
            full,
            next,
            what,
        } = &mut self.tail;
        if *left == 0 {
            let Some(header) = Header::of(input) else {
                return Ok(Step::More);
            };
            in_order(header, *next)?;
            *next = next.wrapping_add(1);
            (*left, *full) = (header.whole(), header.is_full());
        }
        let now = (*left).min(input.len());
        if now == 0 {
            return Ok(Step::More);
        }
        *left = left.saturating_sub(now);
        let bytes = input.split_to(now).freeze();
        if let Rest::Pass(passage) = what {
            let passage = *passage;
            // The answer is numbered behind the last frame.
            let next = *next;
            if let Phase::Answering(answering) = &mut self.phase {
                answering.next = next;
            }
            return Ok(Step::Pass(bytes, passage));
        }
        if self.tail.is_open() {
            return Ok(Step::Drop);
        }
        match std::mem::replace(&mut self.tail.what, Rest::Waits) {
            Rest::Drop(statement, answered) => Ok(self.refuse_now(statement, answered)),
            Rest::Waits | Rest::Pass(_) => Ok(Step::Drop),
        }
    }

    fn command(&mut self, input: &mut BytesMut) -> Result<Step, WireError> {
        let Some(header) = Header::of(input) else {
            return Ok(Step::More);
        };
        in_order(header, 0)?;
        if header.length == 0 {
            return Err(WireError::Malformed("a command"));
        }
        let Some(code) = input.get(HEADER_BYTES).copied().map(Code) else {
            return Ok(Step::More);
        };
        let needed = HEADER_BYTES.saturating_add(needed(code, header)?);
        if input.len() < needed {
            return Ok(Step::More);
        }
        let seen = input.get(..input.len().min(header.whole()));
        let body = seen
            .and_then(|seen| seen.get(HEADER_BYTES..))
            .unwrap_or_default();
        let whole = body.len() == header.length && !header.is_full();
        match code.treatment() {
            Treatment::Judge(form) => self.judge(code, form, whole, header, input),
            Treatment::Pass(passage, form) => {
                let effect = match code {
                    Code::STMT_PREPARE => {
                        let text = body.get(1..).unwrap_or_default();
                        if self.current == Current::Doubted
                            || (whole && self.reading.must_ask(text))
                        {
                            return Ok(Step::Own(self.probes(Bytes::new())));
                        }
                        Effect::Prepare(self.prepares(text, whole))
                    }
                    Code::RESET_CONNECTION => Effect::Reset,
                    Code::STMT_RESET => {
                        let number = number(body).and_then(|number| self.statements.number(number));
                        self.ahead.gone(number);
                        Effect::None
                    }
                    Code::STMT_FETCH => number(body).map_or(Effect::None, Effect::Fetched),
                    _ => Effect::None,
                };
                let bytes =
                    self.begin(input, header.whole(), header.is_full(), Rest::Pass(passage));
                self.answers(form, effect, None);
                Ok(Step::Pass(bytes, passage))
            }
            Treatment::PassSilently(passage) => {
                let named = number(body);
                let known = named.and_then(|number| self.statements.number(number));
                match (code, named) {
                    (Code::STMT_CLOSE, Some(number)) => {
                        self.statements.close(number);
                        self.ahead.gone(known);
                    }
                    _ => self.ahead.sent(known),
                }
                let rest = Rest::Pass(passage);
                let bytes = self.begin(input, header.whole(), header.is_full(), rest);
                Ok(Step::Pass(bytes, passage))
            }
            Treatment::Login => {
                let body = body.get(1..).unwrap_or_default();
                let malformed = WireError::Malformed("a change of user");
                let changed = greeting::changed_user(body, self.capabilities);
                let (who, plugin) = changed.ok_or(malformed)?;
                let plugin = plugin.as_deref().unwrap_or_default();
                if let Some(why) = self.legs.stops(plugin.as_bytes()) {
                    self.misses_tls = self.legs.misses_tls(&who);
                    // As the server does after a login that failed.
                    (self.ended, self.refused_login) = (true, true);
                    return Ok(Step::Say(no_login(why, 1)));
                }
                self.phase = Phase::Login(Box::new(Turn {
                    shift: 0,
                    expects: None,
                    owed: 1,
                    rounds: 0,
                    plugin: None,
                    hides: Hides::No,
                    said: None,
                    who,
                    first: false,
                }));
                self.statements.clear();
                self.names.clear();
                self.ahead.clear();
                self.reading.stale();
                let rest = Rest::Pass(Passage::DatabaseLogin);
                let bytes = self.begin(input, header.whole(), false, rest);
                Ok(Step::Pass(bytes, Passage::DatabaseLogin))
            }
            Treatment::Goodbye => Ok(Step::Goodbye(
                input.split_to(header.whole().min(input.len())).freeze(),
            )),
            Treatment::Replicate(form) => Ok(match self.stops_replication() {
                Some(why) => self.asks_by_name(code, (Form::Done, Some(why)), whole, header, input),
                None => self.asks_by_name(code, (form, None), whole, header, input),
            }),
            Treatment::Refuse(why) => {
                Ok(self.asks_by_name(code, (Form::Done, Some(why)), whole, header, input))
            }
        }
    }

    /// Why nobody may follow the server here, whatever policy says.
    fn stops_replication(&self) -> Option<&'static str> {
        match (self.replication, self.most_rows) {
            (Replication::Refuse, _) => {
                Some("replication is not relayed here: see the sidecar's mysql.replication")
            }
            (Replication::Judge, Some(_)) => {
                Some("a session with a limit of rows does not replicate, as changes are no rows")
            }
            (Replication::Judge, None) => None,
        }
    }

    /// Asks about a command by its name: what it says is not read. Where it `stays`, it does not
    /// go on, and is known, recorded and counted.
    fn asks_by_name(
        &mut self,
        code: Code,
        (form, stays): (Form, Option<&'static str>),
        whole: bool,
        header: Header,
        input: &mut BytesMut,
    ) -> Step {
        let mut text = self.reading.names(&commands::called(code));
        text.why = stays.or(Some("what a server has changed passes unread"));
        let bytes = self.begin(input, header.whole(), header.is_full(), Rest::Waits);
        let body = bytes.get(HEADER_BYTES..).and_then(|body| body.get(1..));
        let digest = body.filter(|_| whole).map(|body| digest(&text, code, body));
        Step::Ask(Box::new(Ask {
            kind: Kind {
                form,
                statement: None,
                kills: None,
                by_name: true,
                stays,
            },
            text,
            database: self.who.database.clone(),
            digest,
            trace: None,
            bytes,
        }))
    }

    fn prepares(&self, text: &[u8], whole: bool) -> Text {
        let text = match whole {
            true => self.reading.read(text, self.status.no_backslash_escapes()),
            false => Text::opaque(text, TOO_LONG),
        };
        self.placed(text)
    }

    /// A text as it is understood where nobody may know in which database it runs.
    fn placed(&self, text: Text) -> Text {
        match self.current {
            Current::Known | Current::Doubted => text,
            Current::Untold => text.nowhere(),
        }
    }

    /// The `traceparent` among the attributes of an execution.
    fn trace_of_execution(&self, body: &[u8]) -> Option<Box<str>> {
        let said = self.capabilities.has(Capabilities::QUERY_ATTRIBUTES);
        let value = attributes::of_execution(body, TRACE).filter(|_| said);
        value.map(shown)
    }

    fn judge(
        &mut self,
        code: Code,
        form: Form,
        whole: bool,
        header: Header,
        input: &mut BytesMut,
    ) -> Result<Step, WireError> {
        let seen = input.get(HEADER_BYTES..header.whole().min(input.len()));
        let body = seen.and_then(|seen| seen.get(1..)).unwrap_or_default();
        // What it is about depends on the database.
        if self.current == Current::Doubted {
            return Ok(Step::Own(self.probes(Bytes::new())));
        }
        let mut trace = None;
        let mut statement = None;
        let mut prepared_in = None;
        let mut has_variables = false;
        let text = match code {
            Code::QUERY => {
                let attributes = self.capabilities.has(Capabilities::QUERY_ATTRIBUTES);
                let behind = match attributes {
                    true => attributes::text_behind(body, TRACE),
                    false => Some((body, None)),
                };
                match behind {
                    None => Text::opaque(body, "where its text begins is not known"),
                    Some((text, _)) if whole && self.reading.must_ask(text) => {
                        return Ok(Step::Own(self.probes(Bytes::new())));
                    }
                    Some((text, attribute)) => {
                        trace = attribute.map(shown);
                        let text = self.prepares(text, whole);
                        match self.names.executed(&text) {
                            Some((executed, database)) => {
                                prepared_in = Some(database);
                                // Its values are those of variables that it names itself.
                                has_variables = text.has_variables();
                                executed
                            }
                            None => text,
                        }
                    }
                }
            }
            Code::STMT_EXECUTE | Code::STMT_BULK_EXECUTE => {
                let number = Cursor::new(body).u32();
                let number = number.ok_or(WireError::Malformed("an execution"))?;
                let (text, database) = self.statements.get(number);
                // Prepared again, it is read as all texts are now.
                if text
                    .ambiguous()
                    .is_some_and(|text| self.reading.must_ask(text))
                {
                    return Ok(Step::Own(self.probes(Bytes::new())));
                }
                statement = self.statements.number(number);
                prepared_in = Some(database);
                if code == Code::STMT_EXECUTE && !self.ahead.has(statement) {
                    trace = self.trace_of_execution(body);
                }
                self.reading.still(text)
            }
            _ => match commands::as_statement(code, body) {
                Some(text) if self.reading.must_ask(text.as_bytes()) => {
                    return Ok(Step::Own(self.probes(Bytes::new())));
                }
                Some(text) => self.placed(self.reading.names(&text)),
                None => Text::opaque(
                    commands::shown(code, body).as_bytes(),
                    "what it names cannot be read",
                ),
            },
        };
        let is_empty = |text: &Text| {
            let analysis = text.analysis.as_ref().filter(|_| text.why.is_none());
            analysis.is_some_and(|analysis| analysis.statements.is_empty())
        };
        if code == Code::QUERY && whole && is_empty(&text) {
            let passage = Passage::DatabaseFlow;
            let bytes = self.begin(input, header.whole(), false, Rest::Pass(passage));
            self.answers(form, Effect::None, None);
            return Ok(Step::Pass(bytes, passage));
        }
        let executes = matches!(code, Code::STMT_EXECUTE | Code::STMT_BULK_EXECUTE);
        // What it does must be all here, or an approval of it would be one of something else, too.
        has_variables |= text.has_variables();
        let is_all = whole && !(executes && self.ahead.has(statement)) && !has_variables;
        let digest = is_all.then(|| digest(&text, code, body));
        let given = || attributes::number_of_execution(body, self.capabilities);
        let kills = text.killed(|| given().filter(|_| is_all && code == Code::STMT_EXECUTE));
        self.ahead.gone(statement);
        let bytes = self.begin(input, header.whole(), header.is_full(), Rest::Waits);
        let within = text.within.clone();
        let current = || prepared_in.unwrap_or_else(|| self.who.database.clone());
        let database = within.or_else(current);
        Ok(Step::Ask(Box::new(Ask {
            kind: Kind {
                form,
                statement,
                kills,
                by_name: false,
                stays: None,
            },
            text,
            database,
            digest,
            trace,
            bytes,
        })))
    }
}

/// The value of an attribute.
fn shown(value: &[u8]) -> Box<str> {
    String::from_utf8_lossy(value).into()
}

/// Of what is executed: the text, and behind the number of a statement, which is
/// another one with each connection, its values.
fn digest(text: &Text, code: Code, body: &[u8]) -> [u8; 32] {
    let values = match code {
        Code::STMT_EXECUTE | Code::STMT_BULK_EXECUTE => body.get(4..).unwrap_or_default(),
        _ => body,
    };
    let mut all = Sha256::new();
    all.update([code.0]);
    all.update(text.text.as_deref().unwrap_or_default());
    all.update([0]);
    all.update(values);
    all.finalize().into()
}

/// The number of a statement behind a command's own byte.
fn number(body: &[u8]) -> Option<u32> {
    Cursor::new(body.get(1..)?).u32()
}

/// How many bytes of the body of a command must be there for it to be dealt with.
fn needed(code: Code, header: Header) -> Result<usize, WireError> {
    let texts = TEXT_BYTES_MAX.saturating_add(ATTRIBUTES_BYTES_MAX);
    Ok(match code {
        Code::QUERY | Code::STMT_PREPARE if header.length <= texts => header.length,
        Code::QUERY | Code::STMT_PREPARE | Code::STMT_EXECUTE | Code::STMT_BULK_EXECUTE => {
            header.length.min(BEGINNING_BYTES)
        }
        Code::STMT_SEND_LONG_DATA => header.length.min(7),
        _ if header.length <= SMALL_BYTES_MAX => header.length,
        _ => match code.treatment() {
            // It is not read at all.
            Treatment::Refuse(_) => 1,
            Treatment::Judge(_)
            | Treatment::Pass(_, _)
            | Treatment::PassSilently(_)
            | Treatment::Replicate(_)
            | Treatment::Login
            | Treatment::Goodbye => return Err(WireError::TooLong("a command")),
        },
    })
}

fn in_order(header: Header, expected: u8) -> Result<(), WireError> {
    match header.sequence == expected {
        true => Ok(()),
        false => Err(WireError::OutOfOrder {
            expected,
            found: header.sequence,
        }),
    }
}

/// What the client proves itself with, where it is its turn. Never a packet
/// numbered as a command is: the server would take it for one.
fn proof(turn: &mut Turn, received: &Received, input: &mut BytesMut) -> Result<Step, WireError> {
    // What it says when it is not its turn must not reach the server.
    let Some(expected) = turn.expects else {
        return Ok(Step::More);
    };
    let Some(header) = Header::of(input) else {
        return Ok(Step::More);
    };
    in_order(header, expected)?;
    if header.length > SMALL_BYTES_MAX || header.sequence == 0 {
        return Err(WireError::TooLong("a login"));
    }
    if input.len() < header.whole() {
        return Ok(Step::More);
    }
    turn.expects = None;
    turn.owed = header.sequence.wrapping_add(1);
    let mut bytes = input.split_to(header.whole());
    if let (Hides::Next | Hides::Told, Some(key)) = (turn.hides, &received.key) {
        return Ok(hidden(turn, key, &received.nonce, &bytes, header));
    }
    if turn.hides == Hides::Says
        && let Some(step) = said(turn, &mut bytes, header)
    {
        return Ok(step);
    }
    if let Some(number) = bytes.get_mut(3) {
        *number = number.wrapping_add(turn.shift);
    }
    Ok(Step::Pass(bytes.freeze(), Passage::DatabaseLogin))
}

/// A client's password as it is, and our question for the key that it goes on under; `None`
/// where there is none, which nobody hides, or where the client asks for the key itself: the
/// server's leg is in clear, and the two agree.
fn said(turn: &mut Turn, bytes: &mut [u8], header: Header) -> Option<Step> {
    turn.hides = Hides::No;
    let plugin = turn.plugin.as_deref().unwrap_or_default();
    let question = whole_password::question(plugin.as_bytes());
    let is_password = |body: &&mut [u8]| **body != [0] && **body != [question];
    let body = bytes.get_mut(HEADER_BYTES..).filter(is_password)?;
    turn.said = Some(Said::taken(body));
    let number = header.sequence.wrapping_add(turn.shift);
    Some(Step::Own(packet(number, &[question])))
}

/// A client's password under our key, or its question for that.
fn hidden(turn: &mut Turn, key: &Key, nonce: &[u8], bytes: &[u8], header: Header) -> Step {
    let body = bytes.get(HEADER_BYTES..).unwrap_or_default();
    let next = header.sequence.wrapping_add(1);
    // Nobody hides that there is no password.
    if body == [0] {
        turn.hides = Hides::No;
        let none = packet(header.sequence.wrapping_add(turn.shift), body);
        return Step::Pass(none, Passage::DatabaseLogin);
    }
    let plugin = turn.plugin.as_deref().unwrap_or_default();
    if body == [whole_password::question(plugin.as_bytes())] && turn.hides == Hides::Next {
        turn.hides = Hides::Told;
        turn.expects = Some(next.wrapping_add(1));
        // The server hears neither of the question nor of its answer.
        turn.shift = turn.shift.wrapping_sub(2);
        return Step::Say(packet(next, &key.told()));
    }
    turn.hides = Hides::No;
    match key.password(body, nonce) {
        Some(password) => {
            let number = header.sequence.wrapping_add(turn.shift);
            Step::Password(whole_password::packet(number, &password))
        }
        None => Step::Say(no_login(
            "the password is not hidden under the sidecar's key: let the client ask for that (--get-server-public-key, allowPublicKeyRetrieval), and name no key of the server's (mysql.whole_password)",
            next,
        )),
    }
}

impl File {
    /// What the client sends of it, up to an empty packet.
    fn contents(&mut self, input: &mut BytesMut) -> Result<Step, WireError> {
        if self.left == 0 {
            if self.last {
                return Ok(Step::More);
            }
            let Some(header) = Header::of(input) else {
                return Ok(Step::More);
            };
            in_order(header, self.next)?;
            self.next = self.next.wrapping_add(1);
            self.left = header.whole();
            // Behind a full frame, an empty one ends the packet that this began.
            self.last = header.length == 0 && !self.full;
            self.full = header.is_full();
        }
        let now = self.left.min(input.len());
        if now == 0 {
            return Ok(Step::More);
        }
        self.left = self.left.saturating_sub(now);
        Ok(Step::Pass(
            input.split_to(now).freeze(),
            Passage::DatabaseCopy,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::whole_password::WholePassword;
    use super::*;
    use std::sync::Arc;

    #[test]
    fn my_5_the_sidecars_key_is_told_once_in_a_login() {
        let received = Received {
            key: Key::of(WholePassword::Receive).map(Arc::new),
            nonce: vec![7; 20],
        };
        let mut turn = Turn {
            shift: 1,
            expects: Some(3),
            owed: 2,
            rounds: 0,
            plugin: None,
            hides: Hides::Next,
            said: None,
            who: greeting::Who::default(),
            first: true,
        };
        let mut input = BytesMut::from(&[packet(3, &[2]), packet(5, &[2])].concat()[..]);
        let mut says = || match proof(&mut turn, &received, &mut input) {
            Ok(Step::Say(bytes)) => (bytes, turn.expects),
            other => panic!("{other:?}"),
        };
        let (told, expects) = says();
        let begins = told.get(HEADER_BYTES..).unwrap();
        assert!(begins.starts_with(b"\x01-----BEGIN PUBLIC KEY"), "{told:?}");
        assert_eq!(expects, Some(5));
        // Another question is a password that is not under the key.
        let (told, expects) = says();
        let text = String::from_utf8_lossy(&told);
        assert!(text.contains("mysql.whole_password"), "{text}");
        assert_eq!(expects, None);
    }
}
