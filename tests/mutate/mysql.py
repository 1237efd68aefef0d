"""Ways to break the MySQL relay, and what MySQL alone has in its texts. Data of `run.py`.

The tests with clients of other languages are left out: they see what the others see, and take longer.
"""

TESTS = [
    ["--lib", "--", "protocols::mysql::", "protocols::laws::", "protocols::sql::"],
    ["--test", "governed_mysql", "--", "--skip", "clients::", "--skip", "corpus::"],
]

SQL = "src/protocols/sql/"
READING = SQL + "reading/expression.rs"
PLACES = SQL + "reading/places.rs"
ONLY = SQL + "reading/only_mysql.rs"
MADE = SQL + "commands.rs"
LEXER = SQL + "lexer.rs"
RELAY = "src/protocols/mysql/"
TALK = RELAY + "conversation/client.rs"
HEARD = RELAY + "conversation/server.rs"
TEXT = RELAY + "statement.rs"
DYNAMIC = RELAY + "dynamic.rs"
SESSION = RELAY + "session.rs"
GREETING = RELAY + "greeting.rs"

# what is broken, file, text that is there once, text that takes its place
MUTANTS = [
    # What is called, and which tables are named.
    ("STRAIGHT_JOIN always joins", READING, "K::Straight if query && !self.level.from => {}", "K::Straight if query && !self.level.from && false => {}"),
    ("VALUE is an alias", ONLY, '&& self.is_word(at, "VALUE")\n', '&& self.is_word(at, "VALEU")\n'),
    ("ON DUPLICATE KEY leaves nothing", ONLY, '&& self.is_word(next, "DUPLICATE")', '&& self.is_word(next, "DUPLICATED")'),
    ("any DUPLICATE is a clause", ONLY, "            && self.words.is(next.saturating_add(1), K::Key)\n", ""),
    ("RETURNING is an alias", ONLY, "self.level.does == Does::Insert && !is_alias", "self.level.does == Does::Merge && !is_alias"),
    ("RETURNING is never an alias", ONLY, "self.level.does == Does::Insert && !is_alias", "self.level.does == Does::Insert && (!is_alias || is_alias)"),
    ("WINDOW leaves nothing", ONLY, "            && self.words.is(by, K::As)\n", "            && self.words.is(by, K::Or)\n"),
    ("any name lists names", ONLY, 'is_alias || self.is_word(at, "PARTITION")', 'is_alias || self.is_word(at, "PARTITION") || at > 0'),
    ("lists of names are not looked into", ONLY, "            false => self.open(Inside::Value, At::Start),\n", "            false => self.open(Inside::Columns, At::Expression),\n"),
    ("what is called behind a comma is a table", PLACES, "            self.found.function(&name);\n            self.open(Inside::Value, At::Start);\n", "            self.open(Inside::Value, At::Start);\n"),
    ("the WHERE of HANDLER is not read", SQL + "mysql.rs", "            walk_expression(words.from(2), found);\n        }\n        \"CHECK\"", "        }\n        \"CHECK\""),
    ("LOCK IN SHARE MODE locks nothing", ONLY, "&& self.words.is(next.saturating_add(1), K::Share)", "&& self.words.is(next.saturating_add(1), K::Or)"),
    ("an INSERT locks nothing", READING, "K::For if self.level.does == Does::Insert && locks", "K::For if self.level.does == Does::Merge && locks"),
    ("a second variable is a table", READING, '_ if self.words.of(at) == "@" => {\n                    self.leave_from();\n', '_ if self.words.of(at) == "@" => {\n'),
    ("the time of a system is no clause", ONLY, 'self.level.from && self.is_word(at, "SYSTEM_TIME")', 'self.level.from && self.is_word(at, "SYSTEM")'),
    ("NEXT VALUE FOR reads", ONLY, "        self.draws(&name, takes);\n        Some(behind)", "        self.draws(&name, false);\n        Some(behind)"),
    ("nextval names no sequence", ONLY, 'let takes = is("nextval") || is("setval");', 'let takes = is("setval");'),
    ("an alias VALUE is a sequence", ONLY, "            && !self.words.is(by.saturating_add(1), K::Update);\n", ";\n"),
    ("no table is made of a TABLE", MADE, "K::Select | K::Table => true,", "K::Select => true,"),
    ("no table is made of VALUES", MADE, "K::Values => words.is(next, K::Row) || words.is_mark(next, b'('),", "K::Values => false,"),
    ("no table is made of a query in parentheses", MADE, "if depth == 0 && begins_bare(words, at) {", "if depth == 1 && begins_bare(words, at) {"),
    ("a computed column is a query", MADE, "        } else if depth > 0 {\n", "        } else if depth > 9 {\n"),
    ("defaults are not read", MADE, "K::Default => !words.dialect.is_postgres(),", "K::Default => false,"),
    ("a hint sets what it likes", LEXER, 'has("set_var") && (', 'has("set_vars") && ('),
    ("UPDATE IGNORE is two readings", SQL + "second.rs", '["only", "ignore"]', '["only", "only"]'),
    # Which letters a name has, and which database is current.
    ("names of one byte a letter are read as they are", TEXT, "                        Kind::Word | Kind::Name | Kind::Mark(_) | Kind::Operator\n", "                        Kind::Word | Kind::Mark(_) | Kind::Operator\n"),
    ("names of commands are always UTF-8", TEXT, "if !text.is_ascii() && !is_utf8 {", "if !text.is_ascii() && !is_utf8 && false {"),
    ("the database of a login is always UTF-8", GREETING, "name.is_ascii() || (is_utf8(collation) && ", "name.is_ascii() || ("),
    ("the end of a long text changes nothing", TEXT, "self.text.is_none() || self.why == Some(TOO_LONG);", "self.text.is_none();"),
    ("quotes of USE are the usual ones", TEXT, "if (quotes && !alone) || all", "if all"),
    ("USE in quotes is a name", TEXT, "            _ => Uses::Unknown,\n", "            _ => Uses::Database(word.into()),\n"),
    ("a server says all of a database", HEARD, "self.who.database = None;\n                self.doubts_database = true;\n", "self.who.database = None;\n"),
    ("the last thing told is true", HEARD, "_ if told.is_some() && answer.results == 0 => {}", "_ if told.is_some() => {}"),
    ("a database that is asked for is not heard", HEARD, "from_hex(digits).or(self.who.database.take())", "self.who.database.take()"),
    # What a server could not say, and what is executed by a name.
    ("a server is never asked again", HEARD, "if !failed && self.reading.can_ask_again()", "if failed && self.reading.can_ask_again()"),
    ("a server is asked again for ever", TEXT, "self.failures > FAILURES_MAX", "self.failures == u8::MAX"),
    ("what is opaque leaves the names", DYNAMIC, "            return self.clear();\n", "            return;\n"),
    ("a PREPARE that fails leaves its name", DYNAMIC, "                self.forget(&name);\n                if", "                if"),
    ("a name means the database of now", TALK, "prepared_in = Some(database);\n                                text", "let _ = database;\n                                text"),
    ("a command that is not followed goes on", SESSION, "if let Some(why) = kind.stays {", "if let Some(why) = kind.stays.filter(|_| false) {"),
    ("the number of KILL is not read", TALK, "given().filter(|_| is_all", "given().filter(|_| false && is_all"),
    ("what stands behind a hold goes on", SESSION, "given up, too.\n            self.from_client.bytes.clear();\n", "given up, too.\n"),
    # Values that were sent ahead.
    ("values sent ahead count for nothing", TALK, "let is_all = whole && !(executes && self.ahead.has(statement));", "let is_all = whole && (executes || whole);"),
    ("values sent ahead are never gone", RELAY + "conversation/ahead.rs", "            self.known.remove(&number);\n", "            self.known.contains(&number);\n"),
    ("an execution takes all that was sent ahead", TALK, "        self.ahead.gone(statement);\n        let bytes", "        self.ahead.clear();\n        let bytes"),
    # What is counted.
    ("a client that breaks the protocol is not counted", SESSION, "                self.shared.gate.metrics().malformed(Protocol::Mysql);\n                tracing::info!", "                tracing::info!"),
    ("a server that breaks the protocol is not counted", SESSION, "                self.shared.gate.metrics().malformed(Protocol::Mysql);\n                tracing::warn!", "                tracing::warn!"),
    ("a lost login is not counted", SESSION, "if self.talk.owes_login() {", "if self.talk.owes_login() && self.begun {"),
]
