"""Ways to break the PostgreSQL relay. Data of `run.py`.

The tests with drivers are left out: they see what the others see, and take longer.
"""

TESTS = [
    ["--lib", "--", "protocols::postgres::", "protocols::laws::"],
    ["--test", "governed_postgres", "--", "--skip", "clients::"],
]

RELAY = "src/protocols/postgres/"
TALK = RELAY + "conversation.rs"
CLIENT = RELAY + "conversation/client.rs"
SERVER = RELAY + "conversation/server.rs"
OWED = RELAY + "conversation/owed.rs"
RUNNING = RELAY + "conversation/running.rs"
SESSION = RELAY + "session.rs"
QUESTION = RELAY + "session/question.rs"
LOGIN = RELAY + "login.rs"
PASSFILE = RELAY + "login/passfile.rs"
OPENING = RELAY + "session/opening.rs"
LIMITS = RELAY + "limits.rs"

# what is broken, file, text that is there once, text that takes its place
MUTANTS = [
    # What is asked about.
    ("an Execute is not asked about", CLIENT,
     "        let kind = Kind::Execute(portal);\n        Ok(ask_named(kind, text, digest, bytes, changes))",
     "        let _ = (text, digest, changes);\n        self.owed.push_back(Owed::Execute(portal, Executing::Nothing));\n        Ok(Step::Pass(bytes, Passage::DatabaseFlow))"),
    ("an unknown portal passes", CLIENT,
     "Ok(None) => return Ok(ask(Kind::Execute(portal), Text::unknown(), None, bytes)),",
     "Ok(None) => return Ok(Step::Pass(bytes, Passage::DatabaseFlow)),"),
    ("an opaque statement is not asked about when it is bound", CLIENT,
     "let early = text.is_opaque() || (", "let early = ("),
    ("what is suspended is asked about again", CLIENT,
     "if let Some(mut running) = known.running.take() {", "if let Some(mut running) = known.running.take().filter(|_| false) {"),
    ("what the server discards is asked about", CLIENT,
     "b'Q' | b'P' | b'B' | b'E' | b'D' | b'C' | b'F' if self.skipping => {", "b'Q' | b'P' | b'B' | b'E' | b'D' | b'C' | b'F' if self.skipping && false => {"),
    ("an empty query is asked about", CLIENT,
     "        if text.is_empty() {\n            self.owed.push_back(Owed::Query(None));", "        if text.is_empty() && false {\n            self.owed.push_back(Owed::Query(None));"),
    ("a text that is too long passes", CLIENT,
     "return Ok(ask(Kind::Query, Text::too_long(), None, bytes));",
     "self.owed.push_back(Owed::Query(None));\n            return Ok(Step::Pass(bytes, Passage::DatabaseFlow));"),
    ("what ends a COPY ahead is not seen", CLIENT, "            self.ends_data_ahead();\n", ""),
    # What a name means.
    ("a name means what was prepared last, whatever came of it", TALK, "return (!ended).then_some(text);", "let _ = ended; return Some(text);"),
    ("a closed name keeps its text", SERVER, "Some(Owed::Close(b'S', name)) => drop(self.statements.take(&name)),", "Some(Owed::Close(b'S', name)) => drop(name),"),
    ("what SQL prepares leaves names as they were", TALK, "        self.statements.clear_named();\n", ""),
    ("portals outlive their transaction", SERVER, "self.forget_portals(|portal| portal.lasts && !undone);", "let _ = undone;"),
    ("what is executed does not make texts uncertain", TALK, "        self.executed = true;\n", ""),
    # Refusing.
    ("a refused query gets no Sync", TALK, "[execute, message(b'S', &[])].concat().into()", "execute"),
    ("the server's error is not rewritten", SERVER, "                    instead = Some(poison.error());\n", "                    let _ = &mut instead;\n"),
    ("a halt does not end the session", SERVER, "self.ended = poison.ends;", "self.ended = false;"),
    ("the rest of what is refused passes", TALK,
     "        self.drop_rest();\n        match kind", "        match kind"),
    # Waiting.
    ("a client that left is not noticed", SESSION, "() = self.watch.hung_up(), if lasts => {", "() = self.watch.hung_up(), if lasts && false => {"),
    ("a cancel request does not end a hold", SESSION, '                    self.void("canceling statement due to user request");\n', ""),
    ("nobody is told what is waited for", QUESTION, "            self.to_client.push(refuse::waiting(asked.event));\n", ""),
    ("answers owed are not asked for", QUESTION, "                self.to_server.push(message(b'H', &[]));\n", ""),
    ("a hold lasts as long inside a transaction", QUESTION, "            settings.hold_in_transaction_within\n", "            settings.hold_within\n"),
    ("a halt leaves what is idle", SESSION, "        let Some(reason) = session.halted() else {\n            return Ok(());\n        };\n        self.stops", "        let Some(reason) = session.halted().filter(|_| false) else {\n            return Ok(());\n        };\n        self.stops"),
    ("a lost server is not told", SESSION, "if !self.talk.said_farewell() && self.talk.between_replies()", "if self.talk.between_replies()"),
    # Completing.
    ("rows are not counted", RUNNING, "self.rows = Some(self.rows.unwrap_or(0).saturating_add(more));", "let _ = more;"),
    ("values are told in part", RUNNING, "let last = text.rfind(QUOTES).filter(|last| *last > first);", "let last = text.match_indices(QUOTES).map(|(at, _)| at).nth(1);"),
    ("a Sync inside COPY is counted", SERVER, "            drop(self.owed.remove(1));\n", "            break;\n"),
    ("a Sync sent while the server copies is counted", CLIENT, "        if !self.copying {\n            self.skipping", "        {\n            self.skipping"),
    ("an error does not skip its batch", SERVER, "        self.skipping = true;\n", ""),
    # Constraints.
    ("a row limit is not sent", TALK, "            bytes = limit.fit(&bytes);\n", "            drop(limit.fit(&bytes));\n"),
    ("parts are not counted together", LIMITS, "self.left = self.left.saturating_sub(self.asked);", "let _ = self.left;"),
    ("a limit that was reached looks like one of the client", SERVER, "if let Some(rows) = reached {", "if let Some(rows) = reached.filter(|_| false) {"),
    ("a portal is read again", CLIENT, "if known.spent {", "if known.spent && false {"),
    ("a limit is applied in parts sent at once", TALK, "                portal.spent = true;\n", ""),
    ("read_only lets changes pass", LIMITS, "if class > Class::Read {", "if class > Class::Opaque {"),
    ("a query is said to be limited", LIMITS, "matches!(kind, Kind::Execute(_) | Kind::Bind(_) | Kind::Parse(_))", "matches!(kind, Kind::Execute(_) | Kind::Bind(_) | Kind::Parse(_) | Kind::Query)"),
    # Logging in for the agent.
    ("a server that proves nothing is logged in to", LOGIN, "Proof::Half(_) if done => Err(NoLogin::Unproved),", "Proof::Half(_) if done => Ok(true),"),
    ("a password goes out in clear", LOGIN, "IN_CLEAR if self.exposed =>", "IN_CLEAR if self.exposed && false =>"),
    ("any line of the passfile will do", PASSFILE, "rest = behind.filter(|_| is_it)?;", "let _ = is_it;\n                rest = behind?;"),
    ("the agent says as whom it is logged in", OPENING, "        start.impose(\"user\", role.to_string());\n", "        let _ = role;\n"),
]
