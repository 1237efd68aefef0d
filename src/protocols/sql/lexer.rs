//! Cuts a text into tokens, by the rules of one dialect, without recursion or
//! allocation. Tokens follow one another without a gap, from first byte to last.

use super::Dialect;
use super::dialect::{Conditional, version};

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// White space.
    Space,
    /// A comment that no server executes.
    Comment,
    /// A keyword or an unquoted name.
    Word,
    /// A quoted name.
    Name,
    /// A quoted name with Unicode escapes: what it names is not decoded.
    EscapedName,
    /// A string, of whatever prefix or quotes.
    Text,
    /// A number.
    Number,
    /// `$1`, or `?` of MySQL.
    Parameter,
    /// One of `( ) [ ] , ; . :` and whatever else stands alone.
    Mark(u8),
    /// An operator.
    Operator,
    /// `/*!50000` or `/*M!`: what follows is executed by some servers.
    Executable,
    /// The `*/` that ends what [`Kind::Executable`] began.
    ExecutableEnd,
    /// A literal, name or comment that the text ends within.
    Unterminated,
    /// A byte no statement has outside literals: NUL.
    Stray,
}

impl Kind {
    /// Whether the token says nothing: white space and plain comments.
    pub fn is_blank(self) -> bool {
        matches!(self, Self::Space | Self::Comment)
    }

    /// Whether the token is a value somebody wrote into the text.
    pub fn is_literal(self) -> bool {
        matches!(self, Self::Text | Self::Number | Self::Unterminated)
    }
}

/// A piece of the text: bytes `start..end`, both on character boundaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// Its first byte.
    pub start: usize,
    /// The byte after its last.
    pub end: usize,
}

impl Token {
    /// The token's own text within `text`, the one it was cut from.
    pub fn of(self, text: &str) -> &str {
        text.get(self.start..self.end).unwrap_or_default()
    }
}

/// Settings of MySQL that check, record, or say whom something is done for; lower case.
pub(super) const STRICT_SETTINGS: [&str; 13] = [
    "sql_log_bin",
    "foreign_key_checks",
    "gtid_next",
    "gtid_domain_id",
    "gtid_seq_no",
    "binlog_format",
    "pseudo_thread_id",
    "pseudo_slave_mode",
    "pseudo_replica_mode",
    "timestamp",
    "server_id",
    "check_constraint_checks",
    "system_versioning_alter_history",
];

/// Whether a hint may set one of them. Names of settings are compared without accents.
fn sets_strictly(hint: &[u8]) -> bool {
    let lower = hint.to_ascii_lowercase();
    let has = |part: &str| memchr::memmem::find(&lower, part.as_bytes()).is_some();
    has("set_var") && (!lower.is_ascii() || STRICT_SETTINGS.iter().any(|name| has(name)))
}

/// The tokens of a text.
#[derive(Clone, Debug)]
pub struct Lexer<'a> {
    bytes: &'a [u8],
    at: usize,
    dialect: Dialect,
    /// Inside a comment that is executed.
    executing: bool,
}

impl<'a> Lexer<'a> {
    /// Reads `text` by the rules of `dialect`.
    pub fn new(text: &'a str, dialect: Dialect) -> Self {
        Self {
            bytes: text.as_bytes(),
            at: 0,
            dialect,
            executing: false,
        }
    }

    /// The byte `ahead` of the current one; 0 behind the end.
    fn peek(&self, ahead: usize) -> u8 {
        let at = self.at.saturating_add(ahead);
        self.bytes.get(at).copied().unwrap_or(0)
    }

    fn ended(&self) -> bool {
        self.at >= self.bytes.len()
    }

    fn skip(&mut self, bytes: usize) {
        self.at = self.at.saturating_add(bytes).min(self.bytes.len());
    }

    fn skip_while(&mut self, fits: impl Fn(u8) -> bool) {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|byte| !fits(*byte));
        self.skip(length.unwrap_or(rest.len()));
    }

    fn rest_has(&self, prefix: &[u8]) -> bool {
        self.bytes
            .get(self.at..)
            .is_some_and(|rest| rest.starts_with(prefix))
    }

    fn one(&mut self, kind: Kind) -> Kind {
        self.skip(1);
        kind
    }

    fn scan(&mut self, first: u8) -> Kind {
        if is_space(first) {
            self.skip_while(is_space);
            return Kind::Space;
        }
        if let Some(kind) = self.comment(first) {
            return kind;
        }
        match self.dialect {
            Dialect::Postgres {
                standard_conforming_strings,
            } => self.postgres(first, !standard_conforming_strings),
            Dialect::Mysql {
                ansi_quotes,
                no_backslash_escapes,
                ..
            } => self.mysql(first, ansi_quotes, !no_backslash_escapes),
        }
    }

    fn comment(&mut self, first: u8) -> Option<Kind> {
        let postgres = self.dialect.is_postgres();
        match (first, self.peek(1)) {
            (b'-', b'-') => {
                let third = self.peek(2);
                // MySQL reads `a--1` as a minus of a minus.
                let plain = postgres || third <= b' ' || third == 0x7f;
                plain.then(|| self.line_comment())
            }
            (b'#', _) if !postgres => Some(self.line_comment()),
            (b'/', b'*') if postgres => Some(self.nested_comment()),
            (b'/', b'*') => Some(self.mysql_comment()),
            (b'*', b'/') if self.executing => {
                self.executing = false;
                self.skip(2);
                Some(Kind::ExecutableEnd)
            }
            _ => None,
        }
    }

    fn line_comment(&mut self) -> Kind {
        // PostgreSQL ends it at a carriage return too; MySQL does not.
        if self.dialect.is_postgres() {
            self.skip_while(|byte| byte != b'\n' && byte != b'\r');
        } else {
            self.skip_while(|byte| byte != b'\n');
        }
        Kind::Comment
    }

    fn nested_comment(&mut self) -> Kind {
        self.skip(2);
        let mut depth = 1_usize;
        while !self.ended() {
            self.skip_while(|byte| byte != b'*' && byte != b'/');
            match (self.peek(0), self.peek(1)) {
                (b'/', b'*') => {
                    depth = depth.saturating_add(1);
                    self.skip(2);
                }
                (b'*', b'/') => {
                    depth = depth.saturating_sub(1);
                    self.skip(2);
                    if depth == 0 {
                        return Kind::Comment;
                    }
                }
                _ => self.skip(1),
            }
        }
        Kind::Unterminated
    }

    fn mysql_comment(&mut self) -> Kind {
        match (self.peek(2), self.peek(3)) {
            (b'!', _) => self.conditional(false),
            (b'M', b'!') => self.conditional(true),
            (b'+', _) => self.hint(),
            _ => self.flat_comment(),
        }
    }

    /// A comment that some servers execute.
    fn conditional(&mut self, only_mariadb: bool) -> Kind {
        let Dialect::Mysql { conditional, .. } = self.dialect else {
            return self.flat_comment();
        };
        let opening = if only_mariadb { 4 } else { 3 };
        let behind = self.at.saturating_add(opening);
        let Ok((version, digits)) = version(self.bytes.get(behind..).unwrap_or_default()) else {
            return self.not_understood();
        };
        if conditional.executes(only_mariadb, version) {
            self.skip(opening.saturating_add(digits));
            self.executing = true;
            return Kind::Executable;
        }
        match conditional {
            Conditional::By { mariadb: false, .. } if only_mariadb => self.flat_comment(),
            Conditional::By { .. } | Conditional::Executed => {
                self.skip(opening.saturating_add(digits));
                self.skipped_comment()
            }
        }
    }

    /// All that is left, which servers read in ways of their own.
    fn not_understood(&mut self) -> Kind {
        self.at = self.bytes.len();
        Kind::Unterminated
    }

    /// A comment that tells the optimizer something. A name in quotes may hide its
    /// end from the server, and `SET_VAR` may set for the statement what `SET` may not
    /// without being told: such a one is not understood.
    fn hint(&mut self) -> Kind {
        let start = self.at;
        let kind = self.flat_comment();
        let hint = self.bytes.get(start..self.at).unwrap_or_default();
        match hint.iter().any(|byte| b"`\"'".contains(byte)) || sets_strictly(hint) {
            true => self.not_understood(),
            false => kind,
        }
    }

    /// The rest of an executable comment for a server that does not execute it;
    /// such a one skips comments within, of one level.
    fn skipped_comment(&mut self) -> Kind {
        while !self.ended() {
            self.skip_while(|byte| byte != b'*' && byte != b'/');
            match (self.peek(0), self.peek(1)) {
                (b'*', b'/') => {
                    self.skip(2);
                    return Kind::Comment;
                }
                (b'/', b'*') => {
                    if self.flat_comment() == Kind::Unterminated {
                        return Kind::Unterminated;
                    }
                }
                _ => self.skip(1),
            }
        }
        Kind::Unterminated
    }

    fn flat_comment(&mut self) -> Kind {
        self.skip(2);
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        match memchr::memmem::find(rest, b"*/") {
            Some(at) => {
                self.skip(at.saturating_add(2));
                Kind::Comment
            }
            None => {
                self.at = self.bytes.len();
                Kind::Unterminated
            }
        }
    }

    fn postgres(&mut self, first: u8, backslash: bool) -> Kind {
        match first {
            b'\'' => self.postgres_text(0, backslash),
            b'"' => self.quoted(0, b'"', false, Kind::Name),
            b'$' => self.dollar(),
            b'0'..=b'9' => self.number(),
            b'.' if self.peek(1).is_ascii_digit() => self.number(),
            _ if is_word_start(first) => self.postgres_word(first, backslash),
            _ if is_operator(first) => self.operator(),
            0 => self.one(Kind::Stray),
            _ => self.one(Kind::Mark(first)),
        }
    }

    fn postgres_word(&mut self, first: u8, backslash: bool) -> Kind {
        let second = self.peek(1);
        match (first | 0x20, second) {
            (b'e', b'\'') => self.postgres_text(1, true),
            (b'b' | b'x', b'\'') => self.postgres_text(1, false),
            (b'n', b'\'') => self.postgres_text(1, backslash),
            (b'u', b'&') if self.peek(2) == b'\'' => self.postgres_text(2, false),
            (b'u', b'&') if self.peek(2) == b'"' => self.quoted(2, b'"', false, Kind::EscapedName),
            _ => self.word(),
        }
    }

    fn word(&mut self) -> Kind {
        self.skip_while(is_word);
        Kind::Word
    }

    /// A string of PostgreSQL: after a line break it may go on in quotes of its
    /// own, which keep the first one's prefix.
    fn postgres_text(&mut self, prefix: usize, backslash: bool) -> Kind {
        let kind = self.quoted(prefix, b'\'', backslash, Kind::Text);
        while kind == Kind::Text && self.continues() {
            if self.quoted(0, b'\'', backslash, Kind::Text) == Kind::Unterminated {
                return Kind::Unterminated;
            }
        }
        kind
    }

    /// Moves to the quote that continues a string, if there is one.
    fn continues(&mut self) -> bool {
        let back = self.at;
        let mut broken = false;
        loop {
            let first = self.peek(0);
            match first {
                _ if is_space(first) => {
                    broken |= first == b'\n' || first == b'\r';
                    self.skip(1);
                }
                b'-' if self.peek(1) == b'-' => {
                    self.line_comment();
                }
                b'\'' if broken => return true,
                _ => {
                    self.at = back;
                    return false;
                }
            }
        }
    }

    /// From a prefix and an opening `quote` to the closing one; a doubled quote
    /// is a letter, and so is what follows a backslash where that escapes.
    fn quoted(&mut self, prefix: usize, quote: u8, backslash: bool, kind: Kind) -> Kind {
        self.skip(prefix.saturating_add(1));
        while !self.ended() {
            self.skip_while(|byte| byte != quote && !(backslash && byte == b'\\'));
            match self.peek(0) {
                b'\\' if backslash => self.skip_escaped(),
                byte if byte == quote && self.peek(1) == quote => self.skip(2),
                byte if byte == quote => {
                    self.skip(1);
                    return kind;
                }
                _ => {}
            }
        }
        Kind::Unterminated
    }

    /// A backslash and the whole character behind it.
    fn skip_escaped(&mut self) {
        self.skip(2);
        self.skip_while(|byte| byte & 0xc0 == 0x80);
    }

    /// `$1`, `$tag$…$tag$`, or a lone dollar sign.
    fn dollar(&mut self) -> Kind {
        if self.peek(1).is_ascii_digit() {
            self.skip(1);
            self.skip_while(|byte| byte.is_ascii_digit());
            return Kind::Parameter;
        }
        let start = self.at;
        self.skip(1);
        if is_word_start(self.peek(0)) {
            self.skip_while(|byte| is_word(byte) && byte != b'$');
        }
        if self.peek(0) != b'$' {
            self.at = start;
            return self.one(Kind::Mark(b'$'));
        }
        self.skip(1);
        let tag = self.bytes.get(start..self.at).unwrap_or_default();
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        match memchr::memmem::find(rest, tag) {
            Some(at) => {
                self.skip(at.saturating_add(tag.len()));
                Kind::Text
            }
            None => {
                self.at = self.bytes.len();
                Kind::Unterminated
            }
        }
    }

    fn number(&mut self) -> Kind {
        if self.peek(0) == b'0' && matches!(self.peek(1) | 0x20, b'x' | b'o' | b'b') {
            let digits = self.peek(2);
            if digits.is_ascii_hexdigit() || digits == b'_' {
                self.skip(2);
                self.skip_while(|byte| byte.is_ascii_hexdigit() || byte == b'_');
                return Kind::Number;
            }
        }
        let digit = |byte: u8| byte.is_ascii_digit() || byte == b'_';
        self.skip_while(digit);
        // `1..2` is a range of a loop, never a number of two points.
        if self.peek(0) == b'.' && self.peek(1) != b'.' {
            self.skip(1);
            self.skip_while(digit);
        }
        let _taken = self.exponent(digit);
        Kind::Number
    }

    fn operator(&mut self) -> Kind {
        self.skip(1);
        while is_operator(self.peek(0)) && !self.ended() {
            let comment = self.rest_has(b"--") || self.rest_has(b"/*");
            if comment || (self.executing && self.rest_has(b"*/")) {
                break;
            }
            // A comment, a name, a parameter.
            if !self.dialect.is_postgres() && matches!(self.peek(0), b'#' | b'`' | b'?') {
                break;
            }
            self.skip(1);
        }
        Kind::Operator
    }

    fn mysql(&mut self, first: u8, ansi_quotes: bool, backslash: bool) -> Kind {
        match first {
            // `@1.as` and `@.5as` are a variable each.
            _ if is_variable(first) && self.follows_one_at() => {
                self.skip_while(is_variable);
                Kind::Word
            }
            // MariaDB's `\N` is a token of its own, whatever follows: `\NFROM`.
            b'\\' => self.not_understood(),
            // `t.2024`.
            b'0'..=b'9' if self.follows_point_of_name() => self.word(),
            b'\'' => self.quoted(0, b'\'', backslash, Kind::Text),
            b'"' if ansi_quotes => self.quoted(0, b'"', false, Kind::Name),
            b'"' => self.quoted(0, b'"', backslash, Kind::Text),
            b'`' => self.quoted(0, b'`', false, Kind::Name),
            b'?' => self.one(Kind::Parameter),
            b'0'..=b'9' => self.mysql_number(),
            // Behind a name the point belongs to the name: `t.1st`.
            b'.' if self.peek(1).is_ascii_digit() && !self.follows_name() => self.mysql_real(),
            b'x' | b'X' | b'b' | b'B' | b'n' | b'N' if self.peek(1) == b'\'' => {
                let escapes = backslash && first | 0x20 == b'n';
                self.quoted(1, b'\'', escapes, Kind::Text)
            }
            b'$' => self.mysql_dollar(),
            _ if is_word_start(first) => self.word(),
            _ if is_operator(first) => self.operator(),
            0 => self.one(Kind::Stray),
            _ => self.one(Kind::Mark(first)),
        }
    }

    /// A name; or, since MySQL 9, a text between two `$tag$`, which older servers
    /// read otherwise: such a one is not understood.
    fn mysql_dollar(&mut self) -> Kind {
        let start = self.at;
        self.skip(1);
        self.skip_while(|byte| is_word(byte) && byte != b'$');
        let quotes = self.peek(0) == b'$';
        self.at = start;
        match quotes {
            true => self.not_understood(),
            false => self.word(),
        }
    }

    /// The byte so many bytes before this one; 0 where there is none.
    fn before(&self, back: usize) -> u8 {
        let at = self.at.checked_sub(back);
        let byte = at.and_then(|at| self.bytes.get(at));
        byte.copied().unwrap_or_default()
    }

    fn follows_name(&self) -> bool {
        ends_name(self.before(1))
    }

    fn follows_point_of_name(&self) -> bool {
        self.before(1) == b'.' && ends_name(self.before(2))
    }

    /// Behind `@`, and not behind `@@`.
    fn follows_one_at(&self) -> bool {
        self.before(1) == b'@' && self.before(2) != b'@'
    }

    /// A number, or a name that starts with digits as MySQL allows: `1st`, `0x1g`, `1_0`.
    fn mysql_number(&mut self) -> Kind {
        // Of small letters only: `0X1` is a name.
        let prefixed = match (self.peek(0), self.peek(1)) {
            (b'0', b'x') => self.prefixed(|byte| byte.is_ascii_hexdigit()),
            (b'0', b'b') => self.prefixed(|byte| matches!(byte, b'0' | b'1')),
            _ => false,
        };
        if prefixed {
            return Kind::Number;
        }
        let start = self.at;
        self.skip_while(is_digit);
        // With digits behind it, whatever follows those: `1e0FROM`.
        if self.exponent(is_digit) {
            return Kind::Number;
        }
        match self.peek(0) {
            byte if is_word(byte) => {
                self.at = start;
                self.word()
            }
            b'.' => self.mysql_real(),
            _ => Kind::Number,
        }
    }

    /// Takes `0x1f`, where digits follow and then no letter.
    fn prefixed(&mut self, digit: impl Fn(u8) -> bool) -> bool {
        let start = self.at;
        self.skip(2);
        let digits = self.at;
        self.skip_while(digit);
        let is_number = self.at > digits && !is_word(self.peek(0));
        if !is_number {
            self.at = start;
        }
        is_number
    }

    /// From the point of a number on.
    fn mysql_real(&mut self) -> Kind {
        self.skip(1);
        self.skip_while(is_digit);
        let is_whole = self.exponent(is_digit) || self.peek(0) | 0x20 != b'e';
        match is_whole {
            true => Kind::Number,
            // MySQL takes `1.e` and a sign as one, and the byte behind them as itself: `1.e-- x` has no comment.
            false => self.not_understood(),
        }
    }

    /// Takes `e1`, `e+1`, of a digit and what `digit` is; whether there is one.
    fn exponent(&mut self, digit: impl Fn(u8) -> bool) -> bool {
        let signed = usize::from(matches!(self.peek(1), b'+' | b'-'));
        let digits = signed.saturating_add(1);
        if self.peek(0) | 0x20 != b'e' || !is_digit(self.peek(digits)) {
            return false;
        }
        self.skip(digits);
        self.skip_while(digit);
        true
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        let start = self.at;
        let first = *self.bytes.get(start)?;
        let kind = self.scan(first);
        Some(Token {
            kind,
            start,
            end: self.at,
        })
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn is_digit(byte: u8) -> bool {
    byte.is_ascii_digit()
}

fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn is_word(byte: u8) -> bool {
    is_word_start(byte) || byte.is_ascii_digit() || byte == b'$'
}

/// What the name of a variable is made of, where it is in no quotes.
fn is_variable(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'$')
}

/// Whether a name may end in it.
fn ends_name(byte: u8) -> bool {
    is_word(byte) || matches!(byte, b'`' | b'"')
}

fn is_operator(byte: u8) -> bool {
    b"+-*/<>=~!@#%^&|`?".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tokens that say something, one a line of the row.
    fn cut(text: &str, dialect: Dialect) -> Vec<String> {
        let tokens = Lexer::new(text, dialect).filter(|token| !token.kind.is_blank());
        tokens
            .map(|token| format!("{:?} {}", token.kind, token.of(text)))
            .collect()
    }

    const OFF: Dialect = Dialect::Postgres {
        standard_conforming_strings: false,
    };
    const ANSI: Dialect = Dialect::Mysql {
        ansi_quotes: true,
        no_backslash_escapes: true,
        conditional: Conditional::By {
            mariadb: true,
            version: 0,
        },
    };

    #[test]
    fn pg_25_and_my_26_each_dialect_ends_literals_and_comments_where_its_server_does() {
        let pg = Dialect::POSTGRES;
        let my = Dialect::MYSQL;
        for (dialect, text, expected) in [
            (pg, r"'a\' x", &[r"Text 'a\'", "Word x"][..]),
            (OFF, r"'a\' x'", &[r"Text 'a\' x'"]),
            (pg, r"E'a\' x'", &[r"Text E'a\' x'"]),
            (pg, r"U&'a\' x", &[r"Text U&'a\'", "Word x"]),
            (OFF, r"B'1\' x", &[r"Text B'1\'", "Word x"]),
            (pg, "E'a'\n'\\' b'", &["Text E'a'\n'\\' b'"]),
            (pg, "'a' 'b'", &["Text 'a'", "Text 'b'"]),
            (pg, "U&\"d\"", &["EscapedName U&\"d\""]),
            (pg, "/* a /* b */ c */ x", &["Word x"]),
            (my, "/* a /* b */ c", &["Word c"]),
            (pg, "$a$ ; $b$ $a$ x", &["Text $a$ ; $b$ $a$", "Word x"]),
            (pg, "a$b$ $1", &["Word a$b$", "Parameter $1"]),
            (pg, "1+--2\n3", &["Number 1", "Operator +", "Number 3"]),
            (my, "1--2", &["Number 1", "Operator --", "Number 2"]),
            (my, "1-- 2", &["Number 1"]),
            (my, "a # b\nc", &["Word a", "Word c"]),
            (pg, "a # b", &["Word a", "Operator #", "Word b"]),
            (my, r#""a\" b""#, &[r#"Text "a\" b""#]),
            (ANSI, r#""a\" b"#, &[r#"Name "a\""#, "Word b"]),
            (ANSI, r"'a\' b", &[r"Text 'a\'", "Word b"]),
            (my, "`a``b`", &["Name `a``b`"]),
            (
                my,
                "1st t.2nd",
                &["Word 1st", "Word t", "Mark(46) .", "Word 2nd"],
            ),
            (pg, "1from", &["Number 1", "Word from"]),
            (my, "1e0from", &["Number 1e0", "Word from"]),
            (my, "1E+0from", &["Number 1E+0", "Word from"]),
            (my, "1.5e0from", &["Number 1.5e0", "Word from"]),
            (my, "1efrom", &["Word 1efrom"]),
            (
                my,
                "0x1f 0b1 0x1g 0X1 0o1 1_0",
                &[
                    "Number 0x1f",
                    "Number 0b1",
                    "Word 0x1g",
                    "Word 0X1",
                    "Word 0o1",
                    "Word 1_0",
                ],
            ),
            (my, "1=`a`", &["Number 1", "Operator =", "Name `a`"]),
            (my, "1=?", &["Number 1", "Operator =", "Parameter ?"]),
            (pg, "'a", &["Unterminated 'a"]),
            (pg, "-- a\rb", &["Word b"]),
            (my, "-- a\rb", &[]),
        ] {
            assert_eq!(cut(text, dialect), expected, "{text}");
        }
    }

    #[test]
    fn my_27_what_some_server_executes_is_not_a_comment() {
        for (text, expected) in [
            (
                "/*!50000 DROP*/ x",
                &[
                    "Executable /*!50000",
                    "Word DROP",
                    "ExecutableEnd */",
                    "Word x",
                ][..],
            ),
            (
                "/*M! a */",
                &["Executable /*M!", "Word a", "ExecutableEnd */"],
            ),
            ("/*!5000012 */", &["Unterminated /*!5000012 */"]),
            ("/*!100100x */", &["Unterminated /*!100100x */"]),
            (
                "/*!100100 x */",
                &["Executable /*!100100", "Word x", "ExecutableEnd */"],
            ),
            (
                "/*!0x'\\'' */",
                &[
                    "Executable /*!",
                    "Word 0x",
                    "Text '\\''",
                    "ExecutableEnd */",
                ],
            ),
            ("/*+ hint */ a", &["Word a"]),
            ("/*+ BKA(`*/`) */ 1", &["Unterminated /*+ BKA(`*/`) */ 1"]),
            ("a $b$ ' $b$; c", &["Word a", "Unterminated $b$ ' $b$; c"]),
            ("$b a$b", &["Word $b", "Word a$b"]),
        ] {
            assert_eq!(cut(text, Dialect::MYSQL), expected, "{text}");
        }
        for (text, expected) in [
            ("/*!50000 ' */ x", &["Word x"][..]),
            ("/*!50000 a", &["Unterminated /*!50000 a"]),
            ("/*M!50000 a /* b */ c */ x", &["Word x"]),
        ] {
            assert_eq!(cut(text, ANSI), expected, "{text}");
        }
        let mysql = Dialect::Mysql {
            ansi_quotes: false,
            no_backslash_escapes: false,
            conditional: Conditional::By {
                mariadb: false,
                version: 80_036,
            },
        };
        for (text, expected) in [
            (
                "/*!80036 a*/",
                &["Executable /*!80036", "Word a", "ExecutableEnd */"][..],
            ),
            ("/*!80037 a*/ x", &["Word x"]),
            ("/*M! # /* */ x", &["Word x"]),
        ] {
            assert_eq!(cut(text, mysql), expected, "{text}");
        }
        assert_eq!(cut("/*! a */", Dialect::POSTGRES), [""; 0]);
    }

    #[test]
    fn tokens_follow_one_another_from_first_byte_to_last_whatever_the_text() {
        let pieces = [
            "'", "\"", "`", "\\", "$", "$a$", "/*", "*/", "/*!", "--", "\n", " ", "é", "E'",
            "U&\"", "1", ".", "e", ";", "(", "#", "\0", "?",
        ];
        let mut seed = 7_u64;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..12 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                text += pieces[(seed >> 33) as usize % pieces.len()];
            }
            for dialect in [Dialect::POSTGRES, OFF, Dialect::MYSQL, ANSI] {
                let mut at = 0;
                for token in Lexer::new(&text, dialect) {
                    assert!(token.start == at && token.end > at, "{text:?} {token:?}");
                    assert!(text.get(token.start..token.end).is_some(), "{text:?}");
                    at = token.end;
                }
                assert_eq!(at, text.len(), "{text:?}");
            }
        }
    }
}
