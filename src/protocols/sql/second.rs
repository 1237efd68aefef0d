//! A second reader of the same statement. Where it sees more than the first
//! did, the statement is opaque: two readings, and the stricter one counts.

use std::ops::ControlFlow;

use sqlparser::ast::visit_relations;
use sqlparser::dialect::{MySqlDialect, PostgreSqlDialect};
use sqlparser::parser::Parser;

use super::Dialect;
use super::analysis::{Class, Statement};
use super::keywords::Keyword as K;
use super::lexer::Kind;
use super::shape;
use super::words::{NAME_BYTES_MAX, Words};

/// What it may be asked, literals aside: its time grows with nesting and its stack with
/// operators, neither of which it bounds itself.
const TEXT_BYTES_MAX: usize = 4 << 10;
const OPERATORS_MAX: usize = 100;
/// A list of a thousand values is short without them, and takes it 0.6 ms.
const WORDS_MAX: usize = 400;
const DEPTH_MAX: usize = 6;

/// Compares what it reads with `statement`.
pub(super) fn opinion(words: Words<'_>, statement: &mut Statement) {
    let reads = matches!(statement.class, Class::Read | Class::Write);
    // It knows servers only as they come.
    let usual = [Dialect::POSTGRES, Dialect::MYSQL].contains(&words.dialect);
    let short = words.len() <= WORDS_MAX && is_harmless(words);
    // It takes the databases of a `SHOW` for tables.
    let shows = words.is(0, K::Show);
    if !reads || shows || !usual || statement.opaque.is_some() || !short {
        return;
    }
    let Some(text) = shape::statement(words, TEXT_BYTES_MAX) else {
        return;
    };
    let parsed = if words.dialect.is_postgres() {
        Parser::parse_sql(&PostgreSqlDialect {}, &text)
    } else {
        Parser::parse_sql(&MySqlDialect {}, &text)
    };
    // It knows less grammar than a server does: what it cannot read says nothing.
    let Ok(parsed) = parsed else { return };
    let longest = match words.dialect.is_postgres() {
        true => NAME_BYTES_MAX,
        false => usize::MAX,
    };
    let more = parsed.len() > 1 || sees_more(&parsed, statement, longest);
    if more {
        statement.class = Class::Opaque;
        statement.opaque = Some("two readers of it disagree");
    }
}

/// Whether it names a relation that `statement` does not. Of names, `longest` bytes count.
fn sees_more(parsed: &[sqlparser::ast::Statement], statement: &Statement, longest: usize) -> bool {
    let sees_more = |name: &sqlparser::ast::ObjectName| {
        let last = name.0.last().and_then(|part| part.as_ident());
        let Some(last) = last else {
            return ControlFlow::Continue(());
        };
        // What PostgreSQL cuts off a name, the first reader does not show.
        let longest = longest.min(last.value.len());
        let name = last.value.get(..last.value.floor_char_boundary(longest));
        let name = name.unwrap_or_default();
        // It takes table functions, and `ONLY`, for tables; a name that hides a
        // table is one that the text defines.
        let relations = statement.relations.iter().map(|relation| &relation.name);
        let known = relations.chain(&statement.functions).any(|known| {
            let known = known.rsplit('.').next().unwrap_or_default();
            known.eq_ignore_ascii_case(name)
        });
        // So it does with the reserved word of `UPDATE IGNORE t`.
        match known
            || ["only", "ignore"]
                .iter()
                .any(|word| name.eq_ignore_ascii_case(word))
        {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    };
    let mut parsed = parsed.iter();
    parsed.any(|one| visit_relations(one, sees_more).is_break())
}

fn is_harmless(words: Words<'_>) -> bool {
    let (mut operators, mut depth, mut deepest) = (0_usize, 0_usize, 0_usize);
    for word in words.words {
        match (word.token.kind, word.keyword) {
            (Kind::Operator, _) | (_, K::And | K::Or | K::Not | K::Union | K::Except) => {
                operators = operators.saturating_add(1);
            }
            (Kind::Mark(b'(' | b'[' | b'{'), _) | (_, K::Case) => depth = depth.saturating_add(1),
            (Kind::Mark(b')' | b']' | b'}'), _) | (_, K::End) => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    operators <= OPERATORS_MAX
        && deepest <= DEPTH_MAX
        // A name that hides a table only in a part of the text needs scopes,
        // which the visitor does not know.
        && !words.has(K::With)
}
