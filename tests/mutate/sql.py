"""Ways to break the understanding of SQL. Data of `run.py`."""

TESTS = [
    ["--lib", "--", "protocols::sql::", "protocols::laws::"],
    ["--test", "sql_oracle", "--"],
]

SQL = "src/protocols/sql/"
LEXER = SQL + "lexer.rs"

# what is broken, file, text that is there once, text that takes its place
MUTANTS = [
    ("comments do not nest", LEXER, "depth = depth.saturating_add(1);", "depth = depth.max(1);"),
    ("comments nest in MySQL", LEXER, "            _ => self.flat_comment(),\n        }\n    }\n\n    /// A comment that some", "            _ => self.nested_comment(),\n        }\n    }\n\n    /// A comment that some"),
    ("backslashes are read the other way round", LEXER, "} => self.postgres(first, !standard_conforming_strings),", "} => self.postgres(first, standard_conforming_strings),"),
    ("E'…' has no escapes", LEXER, "(b'e', b'\\'') => self.postgres_text(1, true),", "(b'e', b'\\'') => self.postgres_text(1, false),"),
    ("B'…' has escapes", LEXER, "(b'b' | b'x', b'\\'') => self.postgres_text(1, false),", "(b'b' | b'x', b'\\'') => self.postgres_text(1, backslash),"),
    ("a string ends at the end of its line", LEXER, "b'\\'' if broken => return true,", "b'\\'' if broken && false => return true,"),
    ("a string goes on in its line", LEXER, "b'\\'' if broken => return true,", "b'\\'' => return true,"),
    ("any dollar ends a dollar quote", LEXER, "match memchr::memmem::find(rest, tag) {", 'match memchr::memmem::find(rest, tag.get(..1).unwrap_or_default()) {'),
    ("a carriage return is part of a comment", LEXER, "self.skip_while(|byte| byte != b'\\n' && byte != b'\\r');", "self.skip_while(|byte| byte != b'\\n');"),
    ("two minuses begin a comment in MySQL", LEXER, "let plain = postgres || third <= b' ' || third == 0x7f;", "let plain = postgres || third != b'x' || third == 0x7f;"),
    ("an escape is one byte", LEXER, "        self.skip_while(|byte| byte & 0xc0 == 0x80);\n", ""),
    ("an operator swallows a comment", LEXER, "            if comment || (self.executing", "            if (comment && false) || (self.executing"),
    ("what does not end is understood", SQL + "words.rs", "Kind::Unterminated => return Err(Unreadable::Unterminated),", "Kind::Unterminated => {}"),
    ("a NUL is understood", SQL + "words.rs", "Kind::Stray => return Err(Unreadable::Stray),", "Kind::Stray => {}"),
    ("comments of any version are executed", SQL + "dialect.rs", "version <= of_server && !left_out", "!left_out || version > 0"),
    ("a column can be a keyword", SQL + "words.rs", "Kind::Mark(mark) => mark == b'.',", "Kind::Mark(mark) => mark == b'x',"),
    ("names keep their case", SQL + "words.rs", "Kind::Word if self.dialect.is_postgres() => Some(text.to_ascii_lowercase()),", "Kind::Word if self.dialect.is_postgres() => Some(text.to_owned()),"),
    ("the mildest statement counts", SQL + "analysis.rs", "classes.max().unwrap_or(Class::Session)", "classes.min().unwrap_or(Class::Session)"),
    ("flags of one statement are forgotten", SQL + "analysis.rs", "no_where: self.no_where || other.no_where,", "no_where: self.no_where && other.no_where,"),
    ("statements have no limit", SQL + "analysis.rs", "if statements.len() >= STATEMENTS_MAX {", "if statements.len() >= STATEMENTS_MAX * 2 {"),
    ("texts have no limit", SQL + "analysis.rs", "    if text.len() > TEXT_BYTES_MAX {\n", "    if text.len() > TEXT_BYTES_MAX * 2 {\n"),
    ("nobody is asked a second time", SQL + "analysis.rs", "        second::opinion(words, &mut statement);\n", ""),
    ("numbers are shown", SQL + "redaction.rs", "Kind::Text | Kind::Number | Kind::Parameter => literal(&mut out),", "Kind::Text | Kind::Parameter => literal(&mut out),"),
    ("rows of values are not one", SQL + "redaction.rs", "                row(&mut out);\n", ""),
    ("redacted texts have no limit", SQL + "redaction.rs", "if out.len() > REDACTED_BYTES_MAX {", "if out.len() > REDACTED_BYTES_MAX * 4 {"),
    ("passwords are like any value", SQL + "redaction.rs", "words.has(K::Password)", "(words.has(K::Password) && false)"),
    ("texts and numbers have one shape", SQL + "shape.rs", '["\\0t", "\\0n"]', '["\\0t", "\\0t"]'),
    ("dialects share what is remembered", SQL + "memory.rs", "self.by == key.by && self.dialect == key.dialect && *self.text == *key.text", "self.by == key.by && *self.text == *key.text"),
    ("tags belong to the shape", SQL + "memory.rs", "        if tags.is_empty() {\n", "        if tags.is_empty() || true {\n"),
    ("any comment has tags", SQL + "tags.rs", "            _ => last = None,\n", "            _ => {}\n"),
    ("a change without WHERE is like another", SQL + "reading.rs", "Does::Update | Does::Delete if !level.has_where => self.found.flags.no_where = true,", "Does::Update | Does::Delete if !level.has_where => {}"),
    ("names of WITH are known everywhere", SQL + "reading.rs", "        self.known.truncate(closed.known);\n", ""),
]
