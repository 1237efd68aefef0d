//! Reading a policy's syntax tree: names, references and calls.
//!
//! The only file that knows the shape of the engine's tree; everything here
//! matches it exhaustively, so a new kind of expression fails to compile.

use std::collections::{BTreeMap, BTreeSet};

use regorus::Value;
use regorus::unstable::{Expr, Literal, LiteralStmt, Module, Query, Rule, RuleHead, Span};

/// A path such as `data.openbox.result`, one component an element.
pub(super) type Path = Vec<String>;

/// One module with its names resolved.
#[derive(Debug)]
pub(super) struct Scope<'a> {
    pub(super) module: &'a Module,
    /// `data` and the package's components.
    pub(super) package: Path,
    /// What an imported name stands for.
    pub(super) imports: BTreeMap<String, Path>,
}

impl<'a> Scope<'a> {
    pub(super) fn new(module: &'a Module) -> Self {
        let mut package = vec!["data".to_owned()];
        package.extend(static_path(&module.package.refr).unwrap_or_default());
        let imports = module
            .imports
            .iter()
            .filter_map(|import| {
                let path = static_path(&import.refr)?;
                let name = match &import.r#as {
                    Some(alias) => alias.text().to_owned(),
                    None => path.last()?.clone(),
                };
                Some((name, path))
            })
            .collect();
        Self {
            module,
            package,
            imports,
        }
    }

    /// The same path with an imported first name written out.
    pub(super) fn expand(&self, path: &[String]) -> Option<Path> {
        let (first, rest) = path.split_first()?;
        let target = self.imports.get(first)?;
        Some(target.iter().chain(rest).cloned().collect())
    }

    /// `path` as a name of this module's own package.
    pub(super) fn own(&self, path: &[String]) -> Path {
        self.package.iter().chain(path).cloned().collect()
    }

    /// The path of a rule, as far as it is known without evaluating.
    pub(super) fn rule_path(&self, rule: &Rule) -> Path {
        let refr = match rule {
            Rule::Default { refr, .. } => refr,
            Rule::Spec { head, .. } => head_ref(head),
        };
        self.own(&static_prefix(refr))
    }
}

/// The reference a rule defines.
pub(super) fn head_ref(head: &RuleHead) -> &Expr {
    match head {
        RuleHead::Compr { refr, .. } | RuleHead::Set { refr, .. } | RuleHead::Func { refr, .. } => {
            refr
        }
    }
}

/// Whether a rule is a function, and of how many arguments.
pub(super) fn arguments(rule: &Rule) -> Option<usize> {
    match rule {
        Rule::Spec {
            head: RuleHead::Func { args, .. },
            ..
        } => Some(args.len()),
        Rule::Default { args, .. } if !args.is_empty() => Some(args.len()),
        Rule::Default { .. }
        | Rule::Spec {
            head: RuleHead::Compr { .. } | RuleHead::Set { .. },
            ..
        } => None,
    }
}

/// A literal key: `"name"` in brackets.
pub(super) fn literal_key(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::String { value, .. } | Expr::RawString { value, .. } => text(value),
        Expr::Number { .. }
        | Expr::Bool { .. }
        | Expr::Null { .. }
        | Expr::Var { .. }
        | Expr::Array { .. }
        | Expr::Set { .. }
        | Expr::Object { .. }
        | Expr::ArrayCompr { .. }
        | Expr::SetCompr { .. }
        | Expr::ObjectCompr { .. }
        | Expr::Call { .. }
        | Expr::UnaryExpr { .. }
        | Expr::RefDot { .. }
        | Expr::RefBrack { .. }
        | Expr::BinExpr { .. }
        | Expr::BoolExpr { .. }
        | Expr::ArithExpr { .. }
        | Expr::AssignExpr { .. }
        | Expr::Membership { .. } => None,
    }
}

pub(super) fn text(value: &Value) -> Option<&str> {
    value.as_string().ok().map(|text| &**text)
}

/// The name, if the expression is nothing but a name.
pub(super) fn variable(expr: &Expr) -> Option<&str> {
    if let Expr::Var { span, .. } = expr {
        Some(span.text())
    } else {
        None
    }
}

/// All components of a reference; `None` if one is not known.
pub(super) fn static_path(expr: &Expr) -> Option<Path> {
    let (path, whole) = walk_reference(expr)?;
    whole.then_some(path)
}

/// The components of a reference up to the first that is not known.
pub(super) fn static_prefix(expr: &Expr) -> Path {
    walk_reference(expr).map_or_else(Vec::new, |(path, _)| path)
}

/// Where the name stands that a reference begins with.
pub(super) fn base(expr: &Expr) -> Option<&Span> {
    let (base, _) = reference(expr);
    variable(base).map(|_| base.span())
}

/// One key of a reference.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step<'a> {
    /// The key, if it is a literal.
    pub(super) key: Option<&'a str>,
    /// What stands in the brackets, if there are brackets.
    pub(super) index: Option<&'a Expr>,
    /// The reference up to here.
    pub(super) span: &'a Span,
}

/// What a reference begins with and its keys in order. Iterative, as a policy
/// may write a reference of any length.
pub(super) fn reference(expr: &Expr) -> (&Expr, Vec<Step<'_>>) {
    let mut steps = Vec::new();
    let mut at = expr;
    loop {
        let (step, before) = if let Expr::RefDot {
            refr, field, span, ..
        } = at
        {
            let key = text(&field.1);
            (
                Step {
                    key,
                    index: None,
                    span,
                },
                refr,
            )
        } else if let Expr::RefBrack {
            refr, index, span, ..
        } = at
        {
            let key = literal_key(index);
            (
                Step {
                    key,
                    index: Some(index),
                    span,
                },
                refr,
            )
        } else {
            steps.reverse();
            return (at, steps);
        };
        steps.push(step);
        at = before;
    }
}

/// The reference's components up to the first unknown, and whether that is all
/// of it.
fn walk_reference(expr: &Expr) -> Option<(Path, bool)> {
    let (base, steps) = reference(expr);
    let mut path = vec![variable(base)?.to_owned()];
    for step in steps {
        match step.key {
            Some(key) => path.push(key.to_owned()),
            None => return Some((path, false)),
        }
    }
    Some((path, true))
}

/// Direct parts of an expression. Not the function of a call, nor the names of
/// fields.
pub(super) fn parts(expr: &Expr) -> Vec<&Expr> {
    match expr {
        Expr::String { .. }
        | Expr::RawString { .. }
        | Expr::Number { .. }
        | Expr::Bool { .. }
        | Expr::Null { .. }
        | Expr::Var { .. } => Vec::new(),
        Expr::Array { items, .. } | Expr::Set { items, .. } => {
            items.iter().map(|item| &**item).collect()
        }
        Expr::Object { fields, .. } => fields
            .iter()
            .flat_map(|(_, key, value)| [&**key, &**value])
            .collect(),
        Expr::ArrayCompr { term, .. } | Expr::SetCompr { term, .. } => vec![term],
        Expr::ObjectCompr { key, value, .. } => vec![key, value],
        Expr::Call { params, .. } => params.iter().map(|param| &**param).collect(),
        Expr::UnaryExpr { expr, .. } => vec![expr],
        Expr::RefDot { refr, .. } => vec![refr],
        Expr::RefBrack { refr, index, .. } => vec![refr, index],
        Expr::BinExpr { lhs, rhs, .. }
        | Expr::BoolExpr { lhs, rhs, .. }
        | Expr::ArithExpr { lhs, rhs, .. }
        | Expr::AssignExpr { lhs, rhs, .. } => vec![lhs, rhs],
        Expr::Membership {
            key,
            value,
            collection,
            ..
        } => key
            .iter()
            .map(|key| &**key)
            .chain([&**value, &**collection])
            .collect(),
    }
}

/// The query inside a comprehension.
pub(super) fn inner_query(expr: &Expr) -> Option<&Query> {
    match expr {
        Expr::ArrayCompr { query, .. }
        | Expr::SetCompr { query, .. }
        | Expr::ObjectCompr { query, .. } => Some(query),
        Expr::String { .. }
        | Expr::RawString { .. }
        | Expr::Number { .. }
        | Expr::Bool { .. }
        | Expr::Null { .. }
        | Expr::Var { .. }
        | Expr::Array { .. }
        | Expr::Set { .. }
        | Expr::Object { .. }
        | Expr::Call { .. }
        | Expr::UnaryExpr { .. }
        | Expr::RefDot { .. }
        | Expr::RefBrack { .. }
        | Expr::BinExpr { .. }
        | Expr::BoolExpr { .. }
        | Expr::ArithExpr { .. }
        | Expr::AssignExpr { .. }
        | Expr::Membership { .. } => None,
    }
}

/// What [`visit_rule`] comes across.
#[derive(Clone, Copy, Debug)]
pub(super) enum Visited<'a> {
    /// An expression, before its parts.
    Expr(&'a Expr),
    /// A statement, before its expressions.
    Statement(&'a LiteralStmt),
}

/// Calls `see` with everything in `rule`, from the outside in.
pub(super) fn visit_rule<'a>(rule: &'a Rule, see: &mut dyn FnMut(Visited<'a>)) {
    match rule {
        Rule::Default {
            refr, args, value, ..
        } => {
            visit(refr, see);
            args.iter().for_each(|arg| visit(arg, see));
            visit(value, see);
        }
        Rule::Spec { head, bodies, .. } => {
            for expr in head_expressions(head) {
                visit(expr, see);
            }
            for body in bodies {
                if let Some(assign) = &body.assign {
                    visit(&assign.value, see);
                }
                visit_query(&body.query, see);
            }
        }
    }
}

/// The expressions of a rule's head.
pub(super) fn head_expressions(head: &RuleHead) -> Vec<&Expr> {
    match head {
        RuleHead::Compr { refr, assign, .. } => {
            let value = assign.iter().map(|assign| &*assign.value);
            std::iter::once(&**refr).chain(value).collect()
        }
        RuleHead::Set { refr, key, .. } => {
            let key = key.iter().map(|key| &**key);
            std::iter::once(&**refr).chain(key).collect()
        }
        RuleHead::Func {
            refr, args, assign, ..
        } => {
            let value = assign.iter().map(|assign| &*assign.value);
            let args = args.iter().map(|arg| &**arg);
            std::iter::once(&**refr).chain(args).chain(value).collect()
        }
    }
}

fn visit_query<'a>(query: &'a Query, see: &mut dyn FnMut(Visited<'a>)) {
    for statement in &query.stmts {
        see(Visited::Statement(statement));
        for change in &statement.with_mods {
            visit(&change.refr, see);
            visit(&change.r#as, see);
        }
        match &statement.literal {
            Literal::SomeVars { .. } => {}
            Literal::SomeIn {
                key,
                value,
                collection,
                ..
            } => {
                if let Some(key) = key {
                    visit(key, see);
                }
                visit(value, see);
                visit(collection, see);
            }
            Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => visit(expr, see),
            Literal::Every { domain, query, .. } => {
                visit(domain, see);
                visit_query(query, see);
            }
        }
    }
}

fn visit<'a>(expr: &'a Expr, see: &mut dyn FnMut(Visited<'a>)) {
    see(Visited::Expr(expr));
    for part in parts(expr) {
        visit(part, see);
    }
    if let Some(query) = inner_query(expr) {
        visit_query(query, see);
    }
}

/// Every name in a pattern.
pub(super) fn names<'a>(pattern: &'a Expr, into: &mut BTreeSet<&'a str>) {
    visit(pattern, &mut |visited| {
        if let Visited::Expr(expr) = visited
            && let Some(name) = variable(expr)
        {
            into.insert(name);
        }
    });
}

/// `file:line` of a span.
pub(super) fn position(span: &Span) -> String {
    format!("{}:{}", span.source.get_path(), span.line)
}
