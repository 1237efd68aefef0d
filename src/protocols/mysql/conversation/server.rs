//! What the server says.

use bytes::{Buf, Bytes, BytesMut};

use super::super::Sessions;
use super::super::answer::{Answer, Form, Said, ServerError, columns};
use super::super::capability::Capabilities;
use super::super::refuse::Answered;
use super::super::statement::{Text, Uses};
use super::super::whole_password::{NONCE_BYTES, SHA256};
use super::super::wire::{Cursor, HEADER_BYTES, Header, WireError, packet};
use super::entering::Entering;
use super::{
    Answering, Conversation, Current, Effect, File, Hides, Legs, MissesTls, Own, Phase, Purpose,
    ROUNDS_MAX, Received, SMALL_BYTES_MAX, Sides, Skip, Upload, no_login,
};

/// The code of `ER_SECURE_TRANSPORT_REQUIRED`, 3159, as it is sent.
const NEEDS_TLS: [u8; 2] = [0x57, 0x0c];

/// What becomes of a packet.
enum Fate {
    /// It is forwarded, under this number.
    Forward(u8),
    Drop,
}

impl Conversation {
    /// Deals with all that has come. What is for the client goes there in the
    /// pieces that it came in.
    ///
    /// # Errors
    ///
    /// Where it breaks the protocol: the connection cannot go on.
    pub(in super::super) fn server(
        &mut self,
        input: &mut BytesMut,
        sides: &mut Sides<'_>,
    ) -> Result<(), WireError> {
        let mut run = 0_usize;
        let said = loop {
            if self.skip.left > 0 {
                self.skips(input, &mut run, sides);
                if self.skip.left > 0 {
                    break Ok(());
                }
            }
            let rest = input.get(run..).unwrap_or_default();
            let Some(header) = Header::of(rest) else {
                break Ok(());
            };
            if self.skip.full {
                self.goes_on(header, input, run);
                continue;
            }
            let body = rest.get(HEADER_BYTES..).unwrap_or_default();
            let wanted = match self.looks_at(header, body.first().copied()) {
                Ok(Some(wanted)) if wanted <= body.len() => wanted,
                Ok(_) => break Ok(()),
                Err(wrong) => break Err(wrong),
            };
            if !matches!(self.phase, Phase::Answering(_)) && run > 0 {
                forward(input, &mut run, sides);
                continue;
            }
            let fate = match body.get(..wanted) {
                Some(body) => self.packet(body, header, sides),
                None => break Ok(()),
            };
            match fate {
                Ok(Fate::Forward(number)) => {
                    if let Some(place) = input.get_mut(run.saturating_add(3)) {
                        *place = number;
                    }
                    self.skip = Skip {
                        left: header.whole(),
                        full: header.is_full(),
                        dropped: false,
                    };
                }
                Ok(Fate::Drop) => {
                    forward(input, &mut run, sides);
                    self.skip = Skip {
                        left: header.whole(),
                        full: header.is_full(),
                        dropped: true,
                    };
                }
                Err(wrong) => break Err(wrong),
            }
        };
        forward(input, &mut run, sides);
        said
    }

    fn skips(&mut self, input: &mut BytesMut, run: &mut usize, sides: &mut Sides<'_>) {
        let there = input.len().saturating_sub(*run).min(self.skip.left);
        self.skip.left = self.skip.left.saturating_sub(there);
        if self.skip.dropped {
            forward(input, run, sides);
            input.advance(there.min(input.len()));
        } else {
            *run = run.saturating_add(there);
        }
    }

    /// Another frame of the same packet.
    fn goes_on(&mut self, header: Header, input: &mut BytesMut, run: usize) {
        (self.skip.left, self.skip.full) = (header.whole(), header.is_full());
        if let Phase::Answering(answering) = &mut self.phase
            && !self.skip.dropped
        {
            let number = answering.numbered(header.sequence);
            if let Some(place) = input.get_mut(run.saturating_add(3)) {
                *place = number;
            }
        }
    }

    /// How many bytes of a packet's body must be there; `None` until that is
    /// known.
    fn looks_at(&self, header: Header, first: Option<u8>) -> Result<Option<usize>, WireError> {
        if header.length == 0 {
            return Ok(Some(0));
        }
        let Phase::Answering(answering) = &self.phase else {
            return match header.length <= SMALL_BYTES_MAX {
                true => Ok(Some(header.length)),
                false => Err(WireError::TooLong("what the server says")),
            };
        };
        Ok(first.map(|first| answering.answer.looks_at(first, header.length)))
    }

    fn packet(
        &mut self,
        body: &[u8],
        header: Header,
        sides: &mut Sides<'_>,
    ) -> Result<Fate, WireError> {
        match &self.phase {
            Phase::Login(_) => self.of_login(body, header, sides),
            Phase::Own(_) => self.of_own(body, header, sides),
            Phase::Answering(_) => self.of_answer(body, header, sides),
            Phase::Entering(entering) => {
                let number = entering.number;
                self.of_nobodys(body, number)
            }
            Phase::Idle => self.of_nobodys(body, header.sequence),
        }
    }

    /// What nobody asked for, and has `number` for the client.
    fn of_nobodys(&mut self, body: &[u8], number: u8) -> Result<Fate, WireError> {
        match body.first() {
            // It is about to end the connection, and says why.
            Some(0xff) => {
                self.farewell = true;
                Ok(Fate::Forward(number))
            }
            Some(_) | None => Err(WireError::Unexpected("a packet")),
        }
    }

    fn of_login(
        &mut self,
        body: &[u8],
        header: Header,
        sides: &mut Sides<'_>,
    ) -> Result<Fate, WireError> {
        let Phase::Login(turn) = &mut self.phase else {
            return Err(WireError::Unexpected("a login"));
        };
        turn.rounds = turn.rounds.saturating_add(1);
        if turn.rounds > ROUNDS_MAX {
            return Err(WireError::TooLong("a login"));
        }
        let number = header.sequence.wrapping_sub(turn.shift);
        let answer = Some(number.wrapping_add(1));
        if let [1, key @ ..] = body
            && let Some(said) = turn.said.take()
        {
            let Some(hidden) = said.hidden(key, &self.received.nonce) else {
                let why = "the server's key cannot hide the password";
                return self.no_login(why, number, sides);
            };
            // The client hears neither of our question nor of its answer.
            turn.shift = turn.shift.wrapping_add(2);
            let next = header.sequence.wrapping_add(1);
            sides.to_server.push(packet(next, &hidden));
            return Ok(Fate::Drop);
        }
        match body {
            [0, ..] => {
                let mut ok = Answer::new(Form::Done, self.capabilities);
                ok.packet(body, header.length)?;
                self.status = ok.status.unwrap_or_default();
                self.who = std::mem::take(&mut turn.who);
                let claimed = self.who.database.take();
                self.is_in(ok.database.or(claimed));
                let told = packet(number, body);
                match self.enters.sessions {
                    Sessions::Judge => {
                        self.phase = Phase::Entering(Box::new(Entering::new(told, number)));
                    }
                    Sessions::Pass => {
                        let probe = self.probes(told);
                        sides.to_server.push(probe);
                    }
                }
                return Ok(Fate::Drop);
            }
            [0xff, rest @ ..] if turn.first => {
                let needs_tls = rest.starts_with(&NEEDS_TLS) && !self.legs.server_tls;
                self.misses_tls = needs_tls.then_some(MissesTls::Anybody);
                (self.farewell, self.ended) = (true, true);
            }
            // MariaDB goes on with whoever was there before, and what was set on the session is
            // gone.
            [0xff, ..] => {
                self.phase = Phase::Idle;
                self.reading.stale();
                if let Some(imposes) = self.imposes_again() {
                    sides.to_server.push(imposes);
                }
            }
            [0xfe] => {
                return self.no_login("the server asks for a password of MySQL 4.0", number, sides);
            }
            // Another method, or another factor (AuthNextFactor), which names its own.
            [0xfe | 2, rest @ ..] => {
                let mut at = Cursor::new(rest);
                let name = at.until_nul().unwrap_or(rest);
                let nonce = at.rest().get(..NONCE_BYTES);
                let hides = self.received.hides(name, self.legs);
                let stops = match hides {
                    Hides::Next | Hides::Told => self.legs.receives().err(),
                    Hides::Says => None,
                    Hides::No => self.legs.stops(name),
                };
                if let Some(why) = stops {
                    self.misses_tls = self.legs.misses_tls(&turn.who);
                    return self.no_login(why, number, sides);
                }
                turn.hides = hides;
                self.received.nonce = nonce.unwrap_or_default().to_vec();
                turn.plugin = Some(String::from_utf8_lossy(name).into());
                turn.expects = answer;
            }
            // The server knows the client already.
            [1, 3] => {}
            [1, 4]
                if self.received.key.is_some()
                    && self.legs.server_tls
                    && !self.legs.client_is_secret =>
            {
                if let Err(why) = self.legs.receives() {
                    return self.no_login(why, number, sides);
                }
                (turn.expects, turn.hides) = (answer, Hides::Next);
            }
            [1, 4]
                if self.received.key.is_some()
                    && self.legs.hides_here()
                    && self.legs.client_is_secret =>
            {
                (turn.expects, turn.hides) = (answer, Hides::Says);
            }
            [1, 4] if self.legs.client_is_secret != self.legs.server_tls => {
                return self.no_login(self.legs.apart(), number, sides);
            }
            _ => turn.expects = answer,
        }
        Ok(Fate::Forward(number))
    }

    /// Ends a login that cannot go on.
    fn no_login(
        &mut self,
        why: &str,
        number: u8,
        sides: &mut Sides<'_>,
    ) -> Result<Fate, WireError> {
        sides.to_client.push(no_login(why, number));
        (self.ended, self.refused_login) = (true, true);
        Ok(Fate::Drop)
    }

    fn of_own(
        &mut self,
        body: &[u8],
        header: Header,
        sides: &mut Sides<'_>,
    ) -> Result<Fate, WireError> {
        let Phase::Own(own) = &mut self.phase else {
            return Err(WireError::Unexpected("an answer"));
        };
        match own.answer.packet(body, header.length)? {
            Said::Row => {
                own.row.get_or_insert_with(|| Bytes::copy_from_slice(body));
            }
            Said::Part | Said::Next => {}
            Said::File => return Err(WireError::Unexpected("a question for a file")),
            Said::End => {
                if let Phase::Own(own) = std::mem::replace(&mut self.phase, Phase::Idle) {
                    self.own_ended(*own, sides);
                }
            }
        }
        Ok(Fate::Drop)
    }

    fn own_ended(&mut self, own: Own, sides: &mut Sides<'_>) {
        self.status = own.answer.status.unwrap_or(self.status);
        match own.purpose {
            Purpose::Probe(behind) => {
                let row = own.row.as_deref().and_then(columns);
                let values = row.filter(|_| own.answer.error.is_none());
                let (rules, database) = match values.as_deref() {
                    Some([rules @ .., database]) => (Some(rules), Some(*database)),
                    Some([]) | None => (None, None),
                };
                match own.answer.error {
                    Some(_) => self.reading.failed(),
                    None => self.reading.said(rules),
                }
                match database {
                    Some([]) => self.is_in(None),
                    // In another encoding they are no digits, and what is known stays.
                    Some(digits) => {
                        if let Some(name) = from_hex(digits) {
                            self.is_in(Some(name));
                        }
                    }
                    None => {}
                }
                if self.reading.have_changed() {
                    self.statements.doubt();
                }
                sides.to_client.push(behind);
            }
            Purpose::Reset(number, answered) => self.says(number, &answered, sides.to_client),
            Purpose::Begins(entering, running) => {
                let failed = own.answer.error.is_some();
                running.answered(None, own.answer.error.as_ref());
                match failed {
                    true => self.says(entering.number, &Self::unlimited(), sides.to_client),
                    false => {
                        let probe = self.probes(entering.told);
                        sides.to_server.push(probe);
                    }
                }
            }
            // As the answer to what it will ask next.
            Purpose::Imposes if own.answer.error.is_some() => {
                self.says(1, &Self::unlimited(), sides.to_client);
            }
            Purpose::Imposes => {}
        }
    }

    fn of_answer(
        &mut self,
        body: &[u8],
        header: Header,
        sides: &mut Sides<'_>,
    ) -> Result<Fate, WireError> {
        let Phase::Answering(answering) = &mut self.phase else {
            return Err(WireError::Unexpected("an answer"));
        };
        let said = answering.answer.packet(body, header.length)?;
        let denied = matches!(answering.upload, Upload::Denied(_, _));
        let fate = match said {
            _ if denied => Fate::Drop,
            Said::Row if answering.is_beyond() => {
                answering.cut = true;
                answering.dropped = answering.dropped.saturating_add(1);
                Fate::Drop
            }
            Said::File => {
                let whole = body.len() == header.length;
                let name = body.get(1..).filter(|_| whole);
                let judged = self.capabilities.has(Capabilities::LOCAL_FILES);
                let escapes_nothing = self.status.no_backslash_escapes();
                return Ok(answering.asked_for_file(
                    name,
                    (judged, escapes_nothing),
                    header,
                    sides,
                ));
            }
            Said::Part | Said::Row | Said::Next | Said::End => {
                Fate::Forward(answering.numbered(header.sequence))
            }
        };
        match said {
            Said::Next => answering.rows = 0,
            Said::End => {
                if let Phase::Answering(answering) = std::mem::replace(&mut self.phase, Phase::Idle)
                {
                    self.answered(*answering, sides);
                }
            }
            Said::Part | Said::Row | Said::File => {}
        }
        Ok(fate)
    }

    fn answered(&mut self, answering: Answering, sides: &mut Sides<'_>) {
        let Answering {
            answer,
            running,
            effect,
            upload,
            rows,
            dropped,
            ..
        } = answering;
        self.tail.next = 1;
        self.status = answer.status.unwrap_or(self.status);
        let failed = answer.error.is_some();
        if let Some(database) = answer.database.clone() {
            self.is_in(Some(database));
        }
        match effect {
            Effect::None => {}
            Effect::Prepare(text) => {
                let number = answer.prepared.filter(|_| !failed);
                let database = self.who.database.clone();
                self.statements.prepared(number, (text, database));
            }
            Effect::Reset => {
                self.statements.clear();
                self.names.clear();
                self.ahead.clear();
                self.reading.stale();
                if !failed && let Some(imposes) = self.imposes_again() {
                    sides.to_server.push(imposes);
                }
            }
            Effect::Ran(text, killed) => {
                if !failed && self.reading.can_ask_again() {
                    // Nor could it say that.
                    self.current = Current::Doubted;
                }
                self.names.ran(&text, failed, self.who.database.as_deref());
                self.ran((&text, killed), &answer, failed);
            }
            Effect::Fetched(number) => {
                let told = rows.saturating_sub(dropped);
                self.statements.fetched(number, told);
            }
        }
        let error: Option<&ServerError> = answer.error.as_ref();
        if let Some(running) = running {
            let rows = answer.rows.map(|rows| rows.saturating_sub(dropped));
            running.answered(rows, error);
        }
        if let Upload::Denied(number, answered) = upload {
            self.says(number, &answered, sides.to_client);
        }
    }

    fn ran(&mut self, (text, killed): (&Text, Option<u32>), answer: &Answer, failed: bool) {
        if text.changes_reading() {
            self.reading.stale();
            if self.current == Current::Untold {
                self.current = Current::Doubted;
            }
        }
        // Each statement has a result, up to one that fails.
        let executed = answer.results.saturating_add(usize::from(!failed));
        let told = answer.database.as_deref();
        match text.used_database(executed, self.who.database.as_deref()) {
            Uses::None => {}
            // Of one statement the server says all; of several, one may have told it not to
            // (`session_track_schema`).
            _ if told.is_some() && answer.results == 0 => {}
            Uses::Database(database) if told.is_none_or(|told| *told == *database) => {
                self.is_in(Some(database));
            }
            Uses::Database(_) | Uses::Unknown => {
                self.who.database = None;
                self.current = Current::Doubted;
            }
        }
        if !failed {
            self.killed = killed;
        }
    }
}

/// What these digits say; `None` for what is no text.
fn from_hex(digits: &[u8]) -> Option<Box<str>> {
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(pair, 16).ok()
    };
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
    String::from_utf8(bytes?).ok().map(Into::into)
}

impl Received {
    /// How a client says its password by this method, where the server asks for it anew.
    fn hides(&self, method: &[u8], legs: Legs) -> Hides {
        let both = legs.client_tls == legs.server_tls;
        match (method == SHA256, &self.key) {
            (true, Some(_)) if !both && legs.server_tls => Hides::Next,
            (true, Some(_)) if !both && legs.hides_here() => Hides::Says,
            _ => Hides::No,
        }
    }
}

impl Answering {
    /// Whether a row is one more than the client may get.
    fn is_beyond(&mut self) -> bool {
        self.rows = self.rows.saturating_add(1);
        self.limit.is_some_and(|limit| self.rows > limit)
    }

    /// The number that the server's frame gets.
    fn numbered(&mut self, number: u8) -> u8 {
        let number = if self.cut { self.next } else { number };
        self.next = number.wrapping_add(1);
        number
    }

    /// The server asks for a file: for the one that the statement names, or the
    /// client is not asked.
    fn asked_for_file(
        &mut self,
        name: Option<&[u8]>,
        (judged, no_backslash_escapes): (bool, bool),
        header: Header,
        sides: &mut Sides<'_>,
    ) -> Fate {
        let wanted = match &self.effect {
            Effect::Ran(text, _) => text.local_file(no_backslash_escapes),
            Effect::None | Effect::Prepare(_) | Effect::Reset | Effect::Fetched(_) => None,
        };
        let is_known = wanted.is_some();
        let is_named = is_known && name == wanted.as_deref().map(str::as_bytes);
        let number = self.numbered(header.sequence);
        let next = number.wrapping_add(1);
        if judged && is_named {
            self.upload = Upload::Running(File {
                left: 0,
                next,
                full: false,
                last: false,
            });
            return Fate::Forward(number);
        }
        let why = match judged {
            true if !is_known => {
                "which file it names is not known: a packet that asks for a file is one LOAD DATA LOCAL, and the name one literal"
            }
            true => "the server asked for another file than the statement names",
            false => "files of clients are not read here (mysql.local_files)",
        };
        if let Some(running) = &mut self.running {
            running.failed(why);
        }
        self.upload = Upload::Denied(number, Answered::unasked(why));
        sides
            .to_server
            .push(packet(header.sequence.wrapping_add(1), &[]));
        Fate::Drop
    }
}

/// Sends on what has come so far.
fn forward(input: &mut BytesMut, run: &mut usize, sides: &mut Sides<'_>) {
    if *run > 0 {
        let bytes = input.split_to((*run).min(input.len())).freeze();
        sides.to_client.push(bytes);
        *run = 0;
    }
}
