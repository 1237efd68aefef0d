//! Queries and changes of rows, through all that they hold, by the scopes of their
//! common table expressions.

use openbox_sidecar::protocols::sql::Class;
use pg_raw_parse::walk::{Recurse, walk_manual};
use pg_raw_parse::{Node, nodes, raw};

use crate::says::{Says, name};

/// Names that hide tables.
#[derive(Clone, Default)]
pub(crate) struct Scope(Vec<String>);

/// Takes what `node` does.
pub(crate) fn walk(node: Node<'_>, scope: &Scope, says: &mut Says) {
    match node {
        Node::None => {}
        Node::SelectStmt(select) => {
            // `VALUES` of an `INSERT` select nothing.
            if select.values_lists().is_empty() {
                says.verbs.insert("SELECT");
            }
            says.at_least(Class::Read);
            if let Some(into) = select.into_clause() {
                says.make(into.rel());
            }
            let scope = with(select.with_clause(), scope, says);
            children(node, None, &scope, says);
        }
        Node::InsertStmt(insert) => {
            says.verbs.insert("INSERT");
            let scope = with(insert.with_clause(), scope, says);
            if let Some(conflict) = insert.on_conflict_clause()
                && conflict.action == raw::OnConflictAction::ONCONFLICT_UPDATE
            {
                says.verbs.insert("UPDATE");
            }
            changed(node, insert.relation(), &scope, says);
        }
        Node::UpdateStmt(update) => {
            says.verbs.insert("UPDATE");
            says.no_where |= matches!(update.where_clause(), Node::None);
            let scope = with(update.with_clause(), scope, says);
            changed(node, update.relation(), &scope, says);
        }
        Node::DeleteStmt(delete) => {
            says.verbs.insert("DELETE");
            says.no_where |= matches!(delete.where_clause(), Node::None);
            let scope = with(delete.with_clause(), scope, says);
            changed(node, delete.relation(), &scope, says);
        }
        Node::MergeStmt(merge) => {
            says.verbs.insert("MERGE");
            for when in merge.merge_when_clauses() {
                match when.command_type {
                    raw::CmdType::CMD_INSERT => _ = says.verbs.insert("INSERT"),
                    raw::CmdType::CMD_UPDATE => _ = says.verbs.insert("UPDATE"),
                    raw::CmdType::CMD_DELETE => _ = says.verbs.insert("DELETE"),
                    _ => {}
                }
            }
            let scope = with(merge.with_clause(), scope, says);
            changed(node, merge.relation(), &scope, says);
        }
        Node::RangeVar(relation) => {
            let name = name(relation);
            // A name with a schema is hidden by nothing.
            if relation.schemaname().is_some() || !scope.0.contains(&name) {
                says.reads.insert(name);
            }
        }
        Node::FuncCall(call) => {
            if call.funcformat == raw::CoercionForm::COERCE_EXPLICIT_CALL {
                let parts = call.funcname().iter().filter_map(Node::as_str);
                let name = parts.collect::<Vec<_>>().join(".");
                let name = name.trim_start_matches("pg_catalog.");
                // What the grammar makes of `LIKE … ESCAPE`.
                if !matches!(name, "like_escape" | "similar_to_escape") {
                    says.functions.insert(name.to_owned());
                }
            }
            children(node, None, scope, says);
        }
        // Read already; and names of what is read elsewhere.
        Node::WithClause(_) | Node::IntoClause(_) | Node::LockingClause(_) => {}
        _ => children(node, None, scope, says),
    }
}

fn changed(node: Node<'_>, target: Option<&nodes::RangeVar>, scope: &Scope, says: &mut Says) {
    says.write(target);
    children(node, target, scope, says);
}

/// All that `node` holds, but for the table that it changes.
fn children(node: Node<'_>, target: Option<&nodes::RangeVar>, scope: &Scope, says: &mut Says) {
    walk_manual::<()>(node, |child| {
        let is_target = match (child, target) {
            (Node::RangeVar(child), Some(target)) => std::ptr::eq(child, target),
            _ => false,
        };
        if !is_target {
            walk(child, scope, says);
        }
        Recurse::no()
    });
}

/// The scope behind a `WITH`, whose queries are read on the way.
fn with(clause: Option<&nodes::WithClause>, outer: &Scope, says: &mut Says) -> Scope {
    let mut scope = outer.clone();
    let Some(clause) = clause else { return scope };
    let names = |one: &nodes::CommonTableExpr| one.ctename().map(str::to_owned);
    if clause.recursive {
        says.is_recursive = true;
        scope.0.extend(clause.ctes().iter().filter_map(names));
    }
    for one in clause.ctes() {
        walk(one.ctequery(), &scope, says);
        scope.0.extend(names(one));
    }
    scope
}
