//! What of the input a policy reads, proved from its text.
//!
//! A verdict may be remembered only under everything it depends on, so this
//! errs on one side: whatever is not understood completely turns the memory
//! off. The same proof lets a document leave out what is not read.
//!
//! A reference is followed from `input` key by key; the objects on the
//! way may be walked through, but not handed on, iterated or indexed with
//! something that is not a literal. The one exception is `spans`, which has one
//! element whatever the index.

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::{AssignOp, Expr, Literal, LiteralStmt, Query, Rule, RuleHead, Span};

use super::check::{Callee, Symbols, locals};
use super::fields::{FIELDS, Field, Keyed, Place, REQUEST_HEADERS, RESPONSE_HEADERS, Told};
use super::syntax::{
    Scope, head_expressions, inner_query, literal_key, names, parts, position, reference,
    static_path, variable,
};

/// Everything a policy reads of an operation's document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reads {
    /// Rows of [`FIELDS`] it depends on.
    pub(super) rows: BTreeSet<usize>,
    /// Those of them whose whole value matters.
    whole: BTreeSet<usize>,
    /// Texts that it looks for in the others, by row: whether they are there is all that
    /// matters of those, and of a body of any length that is a byte of the key.
    searched: BTreeSet<(usize, String)>,
    /// Members of `db_reading` it depends on; all else of it does not matter.
    pub(super) reading: BTreeSet<String>,
    /// It depends on `db_reading` as a whole.
    pub(super) whole_reading: bool,
    /// Request headers it depends on, by lower-case name.
    pub(super) request_headers: BTreeSet<String>,
    /// Response headers it depends on, by lower-case name.
    pub(super) response_headers: BTreeSet<String>,
}

impl Reads {
    /// The fields whose values tell one operation from another.
    pub(super) fn keyed(&self) -> BTreeSet<Field> {
        self.whole
            .iter()
            .filter_map(|row| FIELDS.get(*row))
            .map(|(_, _, field)| *field)
            .filter(|field| field.keyed() == Keyed::Always)
            .filter(|field| *field != READING || self.whole_reading)
            .collect()
    }

    /// Texts that matter where they stand in a field whose whole value does not.
    pub(super) fn searched(&self) -> Vec<(Field, &str)> {
        let keyed = self.keyed();
        let fields = self.searched.iter().filter_map(|(row, part)| {
            let (_, _, field) = FIELDS.get(*row)?;
            Some((*field, part.as_str()))
        });
        let fields = fields.filter(|(field, _)| !keyed.contains(field));
        // Several keys show the same field.
        fields.collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// What the sidecar has read of a statement: an object of which policies mostly
/// look at a member or two, and of which the others differ from one statement
/// to the next.
const READING: Field = Field::Told(Told::DatabaseReading);

/// A place in the input document.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Input,
    Spans,
    Span,
    Attributes,
    Status,
    RequestHeaders,
    ResponseHeaders,
    /// A field, or something within one, by its row.
    Leaf(usize, Field),
    /// A member of [`READING`], or something within it.
    Member(usize, String),
    RequestHeader(String),
    ResponseHeader(String),
    /// Never there, whatever the operation.
    Nothing,
}

/// Why nothing can be remembered.
type Why = String;

/// Proves what `scopes` read.
///
/// # Errors
/// Why it cannot be proved, in words for the policy's author.
pub(super) fn reads(scopes: &[Scope<'_>], symbols: &Symbols) -> Result<Reads, Why> {
    let mut reads = Reads::default();
    for scope in scopes {
        for import in &scope.module.imports {
            let path = static_path(&import.refr);
            match path
                .as_ref()
                .and_then(|path| path.first())
                .map(String::as_str)
            {
                Some("data" | "rego" | "future") => {}
                Some(_) | None => {
                    return Err(format!("{}: it imports input", position(&import.span)));
                }
            }
        }
        for rule in &scope.module.policy {
            let mut reader = Reader {
                scope,
                symbols,
                aliases: BTreeMap::new(),
                reads: &mut reads,
            };
            reader.rule(rule)?;
        }
    }
    Ok(reads)
}

struct Reader<'a, 'b> {
    scope: &'b Scope<'a>,
    symbols: &'b Symbols,
    /// Names of this rule that stand for a place in the input. The same name
    /// means the same in all of a rule; see [`Reader::aliases`].
    aliases: BTreeMap<&'a str, Node>,
    reads: &'b mut Reads,
}

impl<'a> Reader<'a, '_> {
    fn rule(&mut self, rule: &'a Rule) -> Result<(), Why> {
        self.find_aliases(rule)?;
        match rule {
            Rule::Default { args, value, .. } => {
                self.values(args.iter().map(|arg| &**arg))?;
                self.value(value)
            }
            Rule::Spec { head, bodies, .. } => {
                for expr in head_expressions(head) {
                    self.value(expr)?;
                }
                for body in bodies {
                    if let Some(assign) = &body.assign {
                        self.value(&assign.value)?;
                    }
                    self.query(&body.query)?;
                }
                Ok(())
            }
        }
    }

    /// Finds the names that stand for places, until no more turn up: one may
    /// be defined by another.
    fn find_aliases(&mut self, rule: &'a Rule) -> Result<(), Why> {
        let local = locals(rule);
        if local.contains("input") || local.contains("data") {
            return Err(format!(
                "{}: it declares a name `input` or `data` of its own",
                position(rule.span())
            ));
        }
        loop {
            let mut found: Vec<(&'a str, Node, &'a Span)> = Vec::new();
            let mut others: BTreeSet<&'a str> = BTreeSet::new();
            each_query(rule, &mut |query| {
                for statement in &query.stmts {
                    match self.alias(statement) {
                        Some(alias) => found.push(alias),
                        None => declares(statement, &mut others),
                    }
                }
            });
            if let Rule::Spec {
                head: RuleHead::Func { args, .. },
                ..
            } = rule
            {
                for arg in args {
                    names(arg, &mut others);
                }
            }
            let before = self.aliases.len();
            for (name, node, span) in found {
                if self.aliases.get(name).is_some_and(|known| *known != node) {
                    return Err(format!(
                        "{}: `{name}` stands for different parts of input",
                        position(span)
                    ));
                }
                self.aliases.insert(name, node);
            }
            if self.aliases.len() > before {
                continue;
            }
            return match self.aliases.keys().find(|name| others.contains(*name)) {
                Some(name) => Err(format!(
                    "{}: `{name}` stands for a part of input and for something else",
                    position(rule.span())
                )),
                None => Ok(()),
            };
        }
    }

    /// The name a statement gives to a place that has keys of its own:
    /// `x := input.spans[0]`, `some x in input.spans`, `every x in input.spans`.
    fn alias(&self, statement: &'a LiteralStmt) -> Option<(&'a str, Node, &'a Span)> {
        if !statement.with_mods.is_empty() {
            return None;
        }
        let (name, node) = match &statement.literal {
            Literal::Expr { expr, .. } => {
                let Expr::AssignExpr {
                    op: AssignOp::ColEq,
                    lhs,
                    rhs,
                    ..
                } = &**expr
                else {
                    return None;
                };
                (variable(lhs)?, self.place(rhs).ok()??)
            }
            Literal::SomeIn {
                key: None,
                value,
                collection,
                ..
            } => (variable(value)?, self.element(collection)?),
            Literal::Every {
                key: None,
                value,
                domain,
                ..
            } => (value.text(), self.element(domain)?),
            Literal::SomeVars { .. }
            | Literal::SomeIn { .. }
            | Literal::NotExpr { .. }
            | Literal::Every { .. } => return None,
        };
        is_container(&node).then_some((name, node, &statement.span))
    }

    fn element(&self, collection: &'a Expr) -> Option<Node> {
        match self.place(collection) {
            Ok(Some(Node::Spans)) => Some(Node::Span),
            Ok(_) | Err(_) => None,
        }
    }

    fn query(&mut self, query: &'a Query) -> Result<(), Why> {
        query.stmts.iter().try_for_each(|s| self.statement(s))
    }

    fn statement(&mut self, statement: &'a LiteralStmt) -> Result<(), Why> {
        if !statement.with_mods.is_empty() {
            return Err(format!("{}: it uses `with`", position(&statement.span)));
        }
        let is_alias = self.alias(statement).is_some();
        match &statement.literal {
            Literal::SomeVars { .. } => Ok(()),
            Literal::SomeIn {
                key,
                value,
                collection,
                ..
            } => {
                if is_alias {
                    return self.indexes(collection);
                }
                self.values(key.iter().map(|key| &**key))?;
                self.value(value)?;
                self.value(collection)
            }
            Literal::Expr { expr, .. } => {
                if is_alias && let Expr::AssignExpr { rhs, .. } = &**expr {
                    return self.indexes(rhs);
                }
                self.value(expr)
            }
            Literal::NotExpr { expr, .. } => self.value(expr),
            Literal::Every { domain, query, .. } => {
                if is_alias {
                    self.indexes(domain)?;
                } else {
                    self.value(domain)?;
                }
                self.query(query)
            }
        }
    }

    fn values(&mut self, exprs: impl Iterator<Item = &'a Expr>) -> Result<(), Why> {
        let mut exprs = exprs;
        exprs.try_for_each(|expr| self.value(expr))
    }

    /// An expression whose value matters.
    fn value(&mut self, expr: &'a Expr) -> Result<(), Why> {
        match expr {
            Expr::Var { span, .. } | Expr::RefDot { span, .. } | Expr::RefBrack { span, .. } => {
                match self.place(expr)? {
                    Some(node) => {
                        self.indexes(expr)?;
                        return self.read(node, span);
                    }
                    None => return self.values(parts(expr).into_iter()),
                }
            }
            Expr::Call {
                span, fcn, params, ..
            } => {
                self.call(fcn, span)?;
                let params: Vec<_> = params.iter().map(|param| &**param).collect();
                if self.search(fcn, &params)? {
                    return Ok(());
                }
            }
            Expr::String { .. }
            | Expr::RawString { .. }
            | Expr::Number { .. }
            | Expr::Bool { .. }
            | Expr::Null { .. }
            | Expr::Array { .. }
            | Expr::Set { .. }
            | Expr::Object { .. }
            | Expr::ArrayCompr { .. }
            | Expr::SetCompr { .. }
            | Expr::ObjectCompr { .. }
            | Expr::UnaryExpr { .. }
            | Expr::BinExpr { .. }
            | Expr::BoolExpr { .. }
            | Expr::ArithExpr { .. }
            | Expr::AssignExpr { .. }
            | Expr::Membership { .. } => {}
        }
        self.values(parts(expr).into_iter())?;
        inner_query(expr).map_or(Ok(()), |query| self.query(query))
    }

    /// The bracketed parts of a reference into input: their values matter too.
    fn indexes(&mut self, expr: &'a Expr) -> Result<(), Why> {
        let (_, steps) = reference(expr);
        self.values(steps.into_iter().filter_map(|step| step.index))
    }

    /// Which place of the input an expression names; `None` if none.
    fn place(&self, expr: &'a Expr) -> Result<Option<Node>, Why> {
        let (base, steps) = reference(expr);
        let Some(name) = variable(base) else {
            return Ok(None);
        };
        let mut node = match self.aliases.get(name) {
            Some(node) => node.clone(),
            None if name == "input" => Node::Input,
            None => return Ok(None),
        };
        for one in steps {
            node = step(&node, one.key).ok_or_else(|| {
                format!(
                    "{}: `{}` looks up a part of input by a key known only at run time",
                    position(one.span),
                    expr.span().text()
                )
            })?;
        }
        Ok(Some(node))
    }

    fn call(&self, function: &Expr, span: &Span) -> Result<(), Why> {
        let why = match self.symbols.callee(self.scope, function) {
            Some(Callee::Policy(_)) => return Ok(()),
            Some(Callee::Builtin(name)) if is_pure(&name) => return Ok(()),
            Some(Callee::Builtin(name)) => format!("{name} does not depend on input alone"),
            None => "it calls a function that is not known".to_owned(),
        };
        Err(format!("{}: {why}", position(span)))
    }

    /// `contains(field, "text")`: its value depends on whether the text is there, and not
    /// on what else the field says.
    fn search(&mut self, function: &Expr, params: &[&'a Expr]) -> Result<bool, Why> {
        let [field, part] = params else {
            return Ok(false);
        };
        let callee = self.symbols.callee(self.scope, function);
        let is_search = matches!(callee, Some(Callee::Builtin(name)) if name == "contains");
        let (true, Some(part)) = (is_search, literal_key(part)) else {
            return Ok(false);
        };
        match self.place(field)? {
            Some(Node::Leaf(row, of)) if of.keyed() == Keyed::Always && of != READING => {
                self.indexes(field)?;
                self.reads.rows.insert(row);
                self.reads.searched.insert((row, part.to_owned()));
                Ok(true)
            }
            Some(_) | None => Ok(false),
        }
    }

    fn read(&mut self, node: Node, span: &Span) -> Result<(), Why> {
        match node {
            Node::Nothing => {}
            Node::Leaf(row, field) => match field.keyed() {
                Keyed::Never | Keyed::Always => {
                    self.reads.rows.insert(row);
                    self.reads.whole.insert(row);
                    self.reads.whole_reading |= field == READING;
                }
                Keyed::Useless => {
                    return Err(format!(
                        "{}: `{}` is new with every operation",
                        position(span),
                        span.text()
                    ));
                }
            },
            Node::Member(row, name) => {
                self.reads.rows.insert(row);
                self.reads.reading.insert(name);
            }
            Node::RequestHeader(name) => {
                self.reads.request_headers.insert(name);
            }
            Node::ResponseHeader(name) => {
                self.reads.response_headers.insert(name);
            }
            Node::Input
            | Node::Spans
            | Node::Span
            | Node::Attributes
            | Node::Status
            | Node::RequestHeaders
            | Node::ResponseHeaders => {
                return Err(format!(
                    "{}: `{}` is used as a whole",
                    position(span),
                    span.text()
                ));
            }
        }
        Ok(())
    }
}

/// One key further; `None` where the key must be known and is not.
fn step(node: &Node, key: Option<&str>) -> Option<Node> {
    let field = |place, key| {
        FIELDS
            .iter()
            .enumerate()
            .find(|(_, (at, name, _))| *at == place && *name == key)
            .map_or(Node::Nothing, |(row, (_, _, field))| {
                Node::Leaf(row, *field)
            })
    };
    Some(match node {
        Node::Input => match key? {
            "spans" => Node::Spans,
            key => field(Place::Top, key),
        },
        Node::Spans => key.map_or(Node::Span, |_| Node::Nothing),
        Node::Span => match key? {
            "attributes" => Node::Attributes,
            "status" => Node::Status,
            REQUEST_HEADERS => Node::RequestHeaders,
            RESPONSE_HEADERS => Node::ResponseHeaders,
            key => field(Place::Span, key),
        },
        Node::Attributes => field(Place::Attribute, key?),
        Node::Status => field(Place::Status, key?),
        Node::RequestHeaders => Node::RequestHeader(key?.to_ascii_lowercase()),
        Node::ResponseHeaders => Node::ResponseHeader(key?.to_ascii_lowercase()),
        Node::Leaf(row, READING) => match key {
            Some(name) => Node::Member(*row, name.to_owned()),
            None => node.clone(),
        },
        Node::Leaf(..)
        | Node::Member(..)
        | Node::RequestHeader(_)
        | Node::ResponseHeader(_)
        | Node::Nothing => node.clone(),
    })
}

fn is_container(node: &Node) -> bool {
    match node {
        Node::Input
        | Node::Spans
        | Node::Span
        | Node::Attributes
        | Node::Status
        | Node::RequestHeaders
        | Node::ResponseHeaders => true,
        Node::Leaf(..)
        | Node::Member(..)
        | Node::RequestHeader(_)
        | Node::ResponseHeader(_)
        | Node::Nothing => false,
    }
}

/// Built-in functions whose result is their arguments' alone. A list of what
/// is known to be so: one that a later engine adds is not on it.
fn is_pure(name: &str) -> bool {
    const NAMES: [&str; 45] = [
        "abs",
        "ceil",
        "concat",
        "contains",
        "count",
        "endswith",
        "floor",
        "format_int",
        "indexof",
        "indexof_n",
        "intersection",
        "is_array",
        "is_boolean",
        "is_null",
        "is_number",
        "is_object",
        "is_set",
        "is_string",
        "lower",
        "max",
        "min",
        "net.cidr_contains",
        "net.cidr_expand",
        "net.cidr_is_valid",
        "print",
        "product",
        "replace",
        "round",
        "sort",
        "split",
        "sprintf",
        "startswith",
        "substring",
        "sum",
        "to_number",
        "trace",
        "trim",
        "trim_left",
        "trim_prefix",
        "trim_right",
        "trim_space",
        "trim_suffix",
        "type_name",
        "union",
        "upper",
    ];
    const FAMILIES: [&str; 15] = [
        "array.",
        "base64.",
        "base64url.",
        "bits.",
        "glob.",
        "graph.",
        "hex.",
        "json.",
        "numbers.",
        "object.",
        "regex.",
        "semver.",
        "strings.",
        "units.",
        "urlquery.",
    ];
    name == "walk" || NAMES.contains(&name) || FAMILIES.iter().any(|f| name.starts_with(f))
}

/// The names a statement declares, and those declared by assignments in its
/// expressions.
fn declares<'a>(statement: &'a LiteralStmt, into: &mut BTreeSet<&'a str>) {
    match &statement.literal {
        Literal::SomeVars { vars, .. } => into.extend(vars.iter().map(Span::text)),
        Literal::SomeIn { key, value, .. } => {
            if let Some(key) = key {
                names(key, into);
            }
            names(value, into);
        }
        Literal::Every { key, value, .. } => {
            into.extend(key.iter().map(Span::text));
            into.insert(value.text());
        }
        Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => assigned(expr, into),
    }
}

fn assigned<'a>(expr: &'a Expr, into: &mut BTreeSet<&'a str>) {
    if let Expr::AssignExpr {
        op: AssignOp::ColEq,
        lhs,
        ..
    } = expr
    {
        names(lhs, into);
    }
    for part in parts(expr) {
        assigned(part, into);
    }
}

/// Every query of a rule, however deep.
fn each_query<'a>(rule: &'a Rule, see: &mut dyn FnMut(&'a Query)) {
    match rule {
        Rule::Default { args, value, .. } => {
            args.iter().for_each(|arg| queries_in(arg, see));
            queries_in(value, see);
        }
        Rule::Spec { head, bodies, .. } => {
            for expr in head_expressions(head) {
                queries_in(expr, see);
            }
            for body in bodies {
                if let Some(assign) = &body.assign {
                    queries_in(&assign.value, see);
                }
                queries_below(&body.query, see);
            }
        }
    }
}

fn queries_below<'a>(query: &'a Query, see: &mut dyn FnMut(&'a Query)) {
    see(query);
    for statement in &query.stmts {
        match &statement.literal {
            Literal::SomeVars { .. } => {}
            Literal::SomeIn {
                key,
                value,
                collection,
                ..
            } => {
                key.iter().for_each(|key| queries_in(key, see));
                queries_in(value, see);
                queries_in(collection, see);
            }
            Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => queries_in(expr, see),
            Literal::Every { domain, query, .. } => {
                queries_in(domain, see);
                queries_below(query, see);
            }
        }
    }
}

fn queries_in<'a>(expr: &'a Expr, see: &mut dyn FnMut(&'a Query)) {
    for part in parts(expr) {
        queries_in(part, see);
    }
    if let Some(query) = inner_query(expr) {
        queries_below(query, see);
    }
}
