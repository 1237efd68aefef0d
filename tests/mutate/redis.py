"""Ways to break the Redis relay. Data of `run.py`.

The tests with clients of other languages are left out: they see what the others see, and take longer.
"""

TESTS = [
    ["--lib", "--", "protocols::redis::", "protocols::laws::"],
    ["--test", "governed_redis", "--", "--skip", "clients::"],
]

RELAY = "src/protocols/redis/"
TALK = RELAY + "conversation.rs"
SENT = RELAY + "sent.rs"
ANSWERS = RELAY + "answers.rs"
TREAT = RELAY + "treat.rs"
SESSION = RELAY + "session.rs"
LIMITS = RELAY + "limits.rs"
REQUEST = RELAY + "request.rs"
REPLY = RELAY + "reply.rs"

# what is broken, file, text that is there once, text that takes its place
MUTANTS = [
    # What is asked about.
    ("what has no row is passed", TREAT, "passes(name).map_or(Treatment::Judge, Treatment::Pass)", "passes(name).map_or(Treatment::Pass(Passage::DatabaseFlow), Treatment::Pass)"),
    ("MONITOR is relayed", TREAT, '        "MONITOR" => Some("MONITOR shows what others do, and is not relayed"),\n', ""),
    ("what is dangerous is judged like the rest", TREAT, "let dangerous = at.dangerous == Dangerous::Refuse;", "let dangerous = at.dangerous == Dangerous::Judge;"),
    ("subscriptions go on inside a transaction", TREAT, "SUNSUBSCRIBE\"\n            if at.in_transaction || at.silent =>", "SUNSUBSCRIBE\"\n            if at.silent =>"),
    ("scripts are not remembered", TALK, "                    self.scripts.seen(text);\n", "                    let _ = text;\n"),
    ("a database nobody knows is the last one", TALK, "Some(_) if !self.elsewhere => None,", "_ if !self.elsewhere => None,"),
    ("SELECT in a transaction goes unseen", SENT, "Effect::Select(_) => self.elsewhere |= self.in_transaction,", "Effect::Select(_) => {}"),
    ("nothing waits for what changes the reading", SENT, "let barrier = unsettled || effect.is_barrier() && !self.in_transaction;", "let barrier = unsettled && effect.is_barrier();"),
    # Refusing.
    ("the server's error is not rewritten", ANSWERS, "Effect::Poisoned(poison) if head.kind == b'-' && poison.is_meant(head.text) => {", "Effect::Poisoned(poison) if head.kind == b'-' && poison.is_meant(head.text) && false => {"),
    ("any error is rewritten", ANSWERS, "&& poison.is_meant(head.text) =>", "&& (poison.is_meant(head.text) || true) =>"),
    ("the rest of what is refused passes", SENT, "self.tail = Tail::Drop(Some(Box::new(poison)));", "let _ = poison;\n            self.tail = Tail::Pass;"),
    ("a spoilt transaction happens", SENT, "|| !std::mem::take(&mut self.spoilt) {", "|| !std::mem::take(&mut self.spoilt) || true {"),
    ("a redirection leads around the sidecar", ANSWERS, "| Effect::Local(..) => redirected()?,", "| Effect::Local(..) => redirected().filter(|_| false)?,"),
    ("a script refused unseen is refused for good", SESSION, "true => Poison::unseen_script(&refused),", "true => Poison::of(&refused),"),
    ("read_only lets changes pass", LIMITS, "        false => |name| name == READ_ONLY,\n    };\n", "        false => |_| false,\n    };\n"),
    ("what may only read is called as it was", LIMITS, '"EVAL" => Some("EVAL_RO"),', '"EVAL" => Some("EVAL"),'),
    ("a proxy that ends connections goes unnoticed", RELAY + "reach.rs", "true => Refusals::Local,\n", "true => set,\n"),
    ("edge: only the first place of a word counts", RELAY + "commands.rs", "for first in &places {", "for first in places.first() {"),
    ("edge: the server is asked for its name for ever", SESSION, "            None if self.asked_id => {}\n", ""),
    ("edge: a transaction that a cluster ends stays open", ANSWERS, '(Effect::Exec, Said::Error(_)) => {', '(Effect::Exec, Said::Error(text)) if text.starts_with("EXECABORT") => {'),
    ("edge: any end makes refusals local", RELAY + "reach.rs", "if !answers && !self.ends_on_unknown", "if !self.ends_on_unknown"),
    ("edge: a client that quits makes refusals local", TALK, "!self.quits && all.any(", "all.any("),
    ("edge: a reset whose answer is skipped is waited for", SENT, "if self.silence == Silence::Off {\n", "if self.silence != Silence::None {\n"),
    ("edge: who asks changes unseen", TREAT, '"HELLO" | "AUTH" | "CLIENT SETNAME" if at.in_transaction || at.silent =>', '"HELLO" | "AUTH" | "CLIENT SETNAME" if at.in_transaction && at.silent =>'),
    ("edge: a subscriber may ask for silence", TREAT, '"CLIENT REPLY" if !at.answers_anything =>', '"CLIENT REPLY" if !at.answers_anything && false =>'),
    ("edge: a MULTI that is not answered begins nothing", SENT, "let changes = matches!(effect, Effect::Multi | Effect::Reset);", "let changes = matches!(effect, Effect::Reset);"),
    ("keys have no limit", RELAY + "describe.rs", "if keys.len() > KEYS_MAX {", "if keys.len() > KEYS_MAX * 2 {"),
    ("a client that left is not noticed", SESSION, "() = self.watch.hung_up(), if asks => self.left(),", "() = self.watch.hung_up(), if asks && false => self.left(),"),
    ("a hold lasts as long inside a transaction", SESSION, "true => settings\n                .hold_in_transaction_within\n                .min(settings.hold_within),", "true => settings.hold_within,"),
    ("what is watched is no transaction", TALK, "self.in_transaction || self.watches", "self.in_transaction"),
    ("before a login commands are as long as they like", ANSWERS, '"NOAUTH" => Self::Needed,', '"NOAUTH" => Self::Done,'),
    ("a halt leaves what is idle", SESSION, "let Some(reason) = session.halted() else {\n            return Ok(());", "let Some(reason) = session.halted().filter(|_| false) else {\n            return Ok(());"),
    # Whose reply is whose.
    ("what is not answered is owed", SENT, "        if silence != Silence::None {\n", "        if silence != Silence::None && false {\n"),
    ("a push counts as a reply", ANSWERS, "            None if push => Some(Some(Unit::Aside)),\n", "            None if push => None,\n"),
    ("what is queued counts as done", ANSWERS, "if self.multi && said == Said::Queued {", "if self.multi && said == Said::Queued && false {"),
    ("an aborted transaction leaves its commands open", ANSWERS, '(Effect::Exec, Said::Error(_)) => {', '(Effect::Exec, Said::Error(_)) if false => {'),
    ("a changed key leaves its commands open", ANSWERS, '(Effect::Exec, Said::Null) => self.discard("discarded: a watched key has changed"),', "(Effect::Exec, Said::Null) => {}"),
    ("a reset leaves the database", ANSWERS, "(self.resp3, self.database) = (false, Some(0));", "self.resp3 = false;"),
    ("errors are told whole", ANSWERS, "let code = text.split(|byte| *byte == b' ').next().unwrap_or_default();", "let code = text;"),
    # The codec.
    ("an argument may be longer than it says", REQUEST, "                Some(_) => return Err(RequestError::Terminator),\n", "                Some(_) => {}\n"),
    ("HTTP is answered", REQUEST, 'if first.eq_ignore_ascii_case(b"post")', 'if false && first.eq_ignore_ascii_case(b"post")'),
    ("counts have no limit", REQUEST, "if count > ARGUMENTS_MAX {", "if count > ARGUMENTS_MAX * 2 {"),
    ("a map has as many elements as it says", REPLY, "b'%' => length.saturating_mul(2),", "b'%' => length,"),
    ("an attribute stands for itself", REPLY, "b'|' => length.saturating_mul(2).saturating_add(1),", "b'|' => length.saturating_mul(2),"),
    ("elements have no limit", REPLY, "if self.pending > ELEMENTS_MAX || self.skip > ELEMENTS_MAX {", "if self.skip > ELEMENTS_MAX {"),
]
