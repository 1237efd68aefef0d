//! What the engine would find out only while evaluating: calls of functions
//! that do not exist, and functions that call themselves without end (which
//! the engine answers by overflowing its stack).

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::{AssignOp, BUILTINS, Expr, Literal, Rule, RuleHead, Span};

use super::syntax::{
    Path, Scope, Visited, arguments, base, head_ref, names, static_path, static_prefix, visit_rule,
};

/// Whom a call reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Callee {
    /// A function of the policy, by its path.
    Policy(Path),
    /// A function of the engine, by its name.
    Builtin(String),
}

/// Every function and rule of all modules together.
#[derive(Debug, Default)]
pub(super) struct Symbols {
    functions: BTreeMap<Path, usize>,
    rules: BTreeSet<Path>,
}

impl Symbols {
    pub(super) fn new(scopes: &[Scope<'_>]) -> Self {
        let mut symbols = Self::default();
        for scope in scopes {
            for rule in &scope.module.policy {
                let path = scope.rule_path(rule);
                if let Some(count) = arguments(rule) {
                    symbols.functions.insert(path.clone(), count);
                }
                symbols.rules.insert(path);
            }
        }
        symbols
    }

    /// Whom the call of `function` in `scope` reaches, in the engine's order:
    /// imported, own package, built in.
    pub(super) fn callee(&self, scope: &Scope<'_>, function: &Expr) -> Option<Callee> {
        let path = static_path(function)?;
        if let Some(imported) = scope.expand(&path)
            && self.functions.contains_key(&imported)
        {
            return Some(Callee::Policy(imported));
        }
        let own = if path.first().is_some_and(|first| first == "data") {
            path.clone()
        } else {
            scope.own(&path)
        };
        if self.functions.contains_key(&own) {
            return Some(Callee::Policy(own));
        }
        let name = path.join(".");
        (name == "print" || BUILTINS.contains_key(name.as_str())).then_some(Callee::Builtin(name))
    }

    fn takes(&self, callee: &Callee) -> Option<usize> {
        match callee {
            Callee::Policy(path) => self.functions.get(path).copied(),
            Callee::Builtin(name) => BUILTINS
                .get(name.as_str())
                .map(|(_, count)| usize::from(*count)),
        }
    }
}

/// Everything wrong with the policies, each as a message with file, line,
/// column and the offending text.
pub(super) fn problems(scopes: &[Scope<'_>], symbols: &Symbols) -> Vec<String> {
    let mut problems = Vec::new();
    for scope in scopes {
        for rule in &scope.module.policy {
            visit_rule(rule, &mut |visited| {
                if let Visited::Expr(Expr::Call {
                    span, fcn, params, ..
                }) = visited
                {
                    problems.extend(call_problem(scope, symbols, span, fcn, params.len()));
                }
            });
        }
    }
    problems.extend(recursion(scopes, symbols));
    problems
}

fn call_problem(
    scope: &Scope<'_>,
    symbols: &Symbols,
    span: &Span,
    function: &Expr,
    given: usize,
) -> Option<String> {
    let Some(callee) = symbols.callee(scope, function) else {
        let name = function.span();
        let path = static_prefix(function).join(".");
        return Some(complain(name, &unknown(&path)));
    };
    let takes = symbols.takes(&callee)?;
    // One more than it takes is the old way to name the result.
    (given != takes && given != takes.saturating_add(1)).then(|| {
        complain(
            span,
            &format!("this function takes {takes} arguments, {given} are given"),
        )
    })
}

fn unknown(path: &str) -> String {
    match path {
        "http.send" => "http.send is not available: a verdict must not wait for a network; \
                        put what the policy needs into data.json"
            .to_owned(),
        "opa.runtime" | "rand.intn" => format!(
            "{path} is not available: a policy decides by what it is told about an operation"
        ),
        _ => format!("unknown function {path}"),
    }
}

/// A message as a compiler writes it.
pub(super) fn complain(span: &Span, message: &str) -> String {
    span.message("error", message)
        .trim_start_matches('\n')
        .to_owned()
}

/// A chain of rules and functions that leads back to its beginning.
fn recursion(scopes: &[Scope<'_>], symbols: &Symbols) -> Option<String> {
    let mut edges: BTreeMap<Path, BTreeSet<Path>> = BTreeMap::new();
    let mut spans: BTreeMap<Path, &Span> = BTreeMap::new();
    for scope in scopes {
        for rule in &scope.module.policy {
            let from = scope.rule_path(rule);
            spans.entry(from.clone()).or_insert_with(|| rule.span());
            let targets = edges.entry(from).or_default();
            targets.extend(uses(scope, symbols, rule));
        }
    }
    let cycle = find_cycle(&edges)?;
    let span = spans.get(cycle.first()?)?;
    let names: Vec<String> = cycle.iter().map(|path| path.join(".")).collect();
    Some(complain(
        span,
        &format!("this rule depends on itself: {}", names.join(" -> ")),
    ))
}

/// The rules and functions that `rule` needs.
fn uses(scope: &Scope<'_>, symbols: &Symbols, rule: &Rule) -> BTreeSet<Path> {
    let local = locals(rule);
    let mut used = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let head = match rule {
        Rule::Default { refr, .. } => refr.span(),
        Rule::Spec { head, .. } => head_ref(head).span(),
    };
    visit_rule(rule, &mut |visited| {
        let Visited::Expr(expr) = visited else {
            return;
        };
        if let Expr::Call { fcn, .. } = expr
            && let Some(Callee::Policy(path)) = symbols.callee(scope, fcn)
        {
            used.insert(path);
        }
        let Some(base) = base(expr) else {
            return;
        };
        // The longest reference comes first; its prefixes are no uses of their
        // own. Nor is a rule's own head a use of it.
        let is_prefix = !seen.insert(base.start);
        let within_head = base.start >= head.start && base.start < head.end;
        let path = static_prefix(expr);
        let Some(first) = path.first() else {
            return;
        };
        if is_prefix || within_head || local.contains(first.as_str()) {
            return;
        }
        let path = if first == "data" {
            path
        } else if let Some(imported) = scope.expand(&path) {
            imported
        } else {
            scope.own(&path)
        };
        used.extend(
            symbols
                .rules
                .iter()
                .filter(|rule| rule.starts_with(&path) || path.starts_with(rule))
                .filter(|_| path.len() > 1)
                .cloned(),
        );
    });
    used
}

/// Names that a rule declares for itself.
pub(super) fn locals(rule: &Rule) -> BTreeSet<&str> {
    let mut local = BTreeSet::new();
    if let Rule::Spec {
        head: RuleHead::Func { args, .. },
        ..
    } = rule
    {
        args.iter().for_each(|arg| names(arg, &mut local));
    }
    visit_rule(rule, &mut |visited| match visited {
        Visited::Expr(Expr::AssignExpr {
            op: AssignOp::ColEq,
            lhs,
            ..
        }) => names(lhs, &mut local),
        Visited::Expr(_) => {}
        Visited::Statement(statement) => match &statement.literal {
            Literal::SomeVars { vars, .. } => local.extend(vars.iter().map(Span::text)),
            Literal::SomeIn { key, value, .. } => {
                if let Some(key) = key {
                    names(key, &mut local);
                }
                names(value, &mut local);
            }
            Literal::Every { key, value, .. } => {
                local.extend(key.iter().map(Span::text));
                local.insert(value.text());
            }
            Literal::Expr { .. } | Literal::NotExpr { .. } => {}
        },
    });
    local
}

/// Depth-first, with its own stack: policies choose how deep this goes.
fn find_cycle(edges: &BTreeMap<Path, BTreeSet<Path>>) -> Option<Vec<Path>> {
    let mut done: BTreeSet<&Path> = BTreeSet::new();
    for start in edges.keys() {
        let mut trail: Vec<(&Path, Vec<&Path>)> = vec![(start, successors(edges, start))];
        while let Some((at, next)) = trail.last_mut() {
            let Some(to) = next.pop() else {
                done.insert(*at);
                trail.pop();
                continue;
            };
            if let Some(from) = trail.iter().position(|(path, _)| *path == to) {
                let cycle = trail.iter().skip(from).map(|(path, _)| (*path).clone());
                return Some(cycle.chain([to.clone()]).collect());
            }
            if !done.contains(to) {
                trail.push((to, successors(edges, to)));
            }
        }
    }
    None
}

fn successors<'a>(edges: &'a BTreeMap<Path, BTreeSet<Path>>, of: &Path) -> Vec<&'a Path> {
    edges.get(of).into_iter().flatten().collect()
}
