//! Calls in all places where a server sees one, and whether they are read here.

use std::ops::Range;

use openbox_sidecar::protocols::sql::{Analysis, Class, Dialect, Kind, Lexer, Token};

use crate::support::mysql::Client;

/// What the server says of a native function that lacks its arguments, before it asks
/// whether anybody may do anything.
const TOO_FEW: u16 = 1582;
const CALL: &str = "load_file()";
/// Words of a statement in whose places it is put.
const PLACES: usize = 3;
/// What may stand behind a statement, or not: that the server says.
const TAILS: [&str; 16] = [
    " RETURNING load_file()",
    " QUALIFY load_file()",
    " WINDOW w AS (ORDER BY load_file())",
    " ON DUPLICATE KEY UPDATE a = 1, b = load_file()",
    " AS n ON DUPLICATE KEY UPDATE a = load_file()",
    " WHERE load_file()",
    " ORDER BY 1, load_file()",
    " GROUP BY load_file() WITH ROLLUP",
    " HAVING load_file()",
    ", load_file()",
    " PROCEDURE ANALYSE(load_file())",
    " UNION SELECT STRAIGHT_JOIN load_file()",
    " STRAIGHT_JOIN x ON load_file()",
    " JOIN x USING (a) JOIN (SELECT load_file()) AS y (b)",
    " UNION VALUES ROW(load_file())",
    " FOR SYSTEM_TIME AS OF load_file()",
];
/// How many of these are tried with each statement.
const TAILS_EACH: usize = 2;
/// Fewest calls that a server must have seen.
const SEEN_MIN: usize = 10_000;

/// What has been asked.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    seen: usize,
    opaque: usize,
    lost: Vec<String>,
}

impl Calls {
    /// Puts a call into `text`, in several ways, each once.
    pub(crate) fn puts(&mut self, client: &mut Client, text: &str) {
        let mut texts = in_places(text);
        let first = hash(text) % TAILS.len();
        let tails = TAILS.iter().cycle().skip(first).take(TAILS_EACH);
        texts.extend(tails.map(|tail| format!("{text}{tail}")));
        for text in &texts {
            client.send(0, &[b"\x16", text.as_bytes()].concat());
        }
        for text in &texts {
            match client.prepared() {
                Ok(number) => client.send(0, &[b"\x19", &number.to_le_bytes()[..]].concat()),
                Err((TOO_FEW, told)) if told.contains("load_file") => self.saw(text),
                Err(_) => {}
            }
        }
    }

    /// The server has seen the call in `text`.
    fn saw(&mut self, text: &str) {
        self.seen += 1;
        let analysis = Analysis::of(text, Dialect::MYSQL);
        self.opaque += usize::from(analysis.class() == Class::Opaque);
        if analysis.class() < Class::Admin && !defines(&analysis) {
            self.lost.push(format!("{:?}: {text}", analysis.class()));
        }
    }

    pub(crate) fn all_are_read(&self) {
        let Self { seen, opaque, lost } = self;
        eprintln!("{seen} calls seen, {opaque} of them in what is opaque");
        assert!(*seen >= SEEN_MIN, "{seen}");
        assert!(
            lost.is_empty(),
            "{} of {seen} calls are lost:\n{}",
            lost.len(),
            lost.join("\n")
        );
    }
}

/// What a body runs, or an index is made of, is not looked for in what defines it: that is
/// more than a change of rows.
fn defines(analysis: &Analysis) -> bool {
    let first = analysis.statements.first();
    let verb = first.and_then(|one| one.verbs.first());
    analysis.class() == Class::Schema
        && verb.is_some_and(|verb| ["CREATE", "ALTER"].contains(verb))
        && first.is_some_and(|one| !one.verbs.contains(&"SELECT"))
}

/// `text` with a call in the place of some of its words.
fn in_places(text: &str) -> Vec<String> {
    let tokens: Vec<_> = Lexer::new(text, Dialect::MYSQL)
        .filter(|token| !token.kind.is_blank())
        .collect();
    let places: Vec<Range<usize>> = (0..tokens.len())
        .filter(|at| is_place(text, &tokens, *at))
        .map(|at| tokens[at].start..tokens[at].end)
        .collect();
    if places.is_empty() {
        return Vec::new();
    }
    let first = hash(text) % places.len();
    // Spread over all of it.
    let step = (places.len() / PLACES).max(1);
    let chosen = (0..PLACES.min(places.len())).map(|n| &places[(first + n * step) % places.len()]);
    chosen
        .map(|place| format!("{} {CALL} {}", &text[..place.start], &text[place.end..]))
        .collect()
}

/// Whether a value or a name stands at `at` that is no part of a longer one.
fn is_place(text: &str, tokens: &[Token], at: usize) -> bool {
    let of = |at: Option<usize>| {
        at.and_then(|at| tokens.get(at))
            .map_or("", |one| one.of(text))
    };
    let is_word = matches!(
        tokens[at].kind,
        Kind::Word | Kind::Name | Kind::Number | Kind::Text | Kind::Parameter
    );
    let (before, behind) = (of(at.checked_sub(1)), of(Some(at + 1)));
    is_word && !before.ends_with(['.', '@']) && ![".", "("].contains(&behind) && at > 0
}

/// The same at every run.
fn hash(text: &str) -> usize {
    let folded = text.bytes().fold(0_u32, |all, byte| {
        all.wrapping_mul(31).wrapping_add(u32::from(byte))
    });
    usize::try_from(folded).unwrap()
}
