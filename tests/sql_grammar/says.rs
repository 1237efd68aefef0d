//! What PostgreSQL's own grammar says of a statement, in the words of the sidecar.

use std::collections::BTreeSet;

use openbox_sidecar::protocols::sql::Class;
use pg_raw_parse::{Node, nodes, raw};

use crate::rows::{self, Scope};

/// What a statement does, at the least.
#[derive(Debug, Default)]
pub(crate) struct Says {
    /// Relations whose rows it changes.
    pub(crate) writes: BTreeSet<String>,
    /// Relations that it reads.
    pub(crate) reads: BTreeSet<String>,
    /// What it does to rows: `SELECT`, `INSERT`, `UPDATE`, `DELETE`, `MERGE`.
    pub(crate) verbs: BTreeSet<&'static str>,
    /// Functions it calls by their names.
    pub(crate) functions: BTreeSet<String>,
    /// The mildest class that is true of it; `None` for a statement that is too
    /// powerful for any class but the opaque one.
    pub(crate) class: Option<Class>,
    /// Whether a change of rows in it has no `WHERE`.
    pub(crate) no_where: bool,
    /// Whether it runs a program on the server.
    pub(crate) program: bool,
    /// Whether it reads or writes a file of the server.
    pub(crate) server_file: bool,
    /// Whether a name in it may be used before it is given.
    pub(crate) is_recursive: bool,
    /// Relations that it makes of a query.
    pub(crate) makes: BTreeSet<String>,
    /// Whether all it does is to read or change rows.
    pub(crate) is_dml: bool,
}

/// One statement, and where it stands in its text.
pub(crate) struct Cut<'a> {
    /// Its own text.
    pub(crate) text: &'a str,
    /// What it does.
    pub(crate) says: Says,
}

/// The statements of `text`; `None` where the grammar refuses it.
pub(crate) fn statements(text: &str) -> Option<Vec<Cut<'_>>> {
    let tree = pg_raw_parse::parse(text).ok()?;
    let cut = tree.iter().map(|raw: &nodes::RawStmt| {
        let start = usize::try_from(raw.stmt_location).unwrap_or_default();
        let length = usize::try_from(raw.stmt_len).unwrap_or_default();
        // A length of nought is the rest.
        let end = if length == 0 {
            text.len()
        } else {
            start + length
        };
        Cut {
            text: &text[start..end],
            says: says(raw.stmt()),
        }
    });
    Some(cut.collect())
}

fn says(node: Node<'_>) -> Says {
    let mut says = Says {
        class: Some(Class::Session),
        ..Says::default()
    };
    statement(node, &mut says);
    says
}

impl Says {
    pub(crate) fn at_least(&mut self, class: Class) {
        self.class = self.class.map(|known| known.max(class));
    }

    pub(crate) fn write(&mut self, relation: Option<&nodes::RangeVar>) {
        self.at_least(Class::Write);
        self.writes.extend(relation.map(name));
    }

    pub(crate) fn make(&mut self, relation: Option<&nodes::RangeVar>) {
        self.at_least(Class::Schema);
        self.makes.extend(relation.map(name));
    }

    fn query(&mut self, node: Node<'_>) {
        rows::walk(node, &Scope::default(), self);
    }
}

/// With its schema where that is written.
pub(crate) fn name(relation: &nodes::RangeVar) -> String {
    let parts = [
        relation.catalogname(),
        relation.schemaname(),
        relation.relname(),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    parts.join(".")
}

fn statement(node: Node<'_>, says: &mut Says) {
    match node {
        Node::SelectStmt(_)
        | Node::InsertStmt(_)
        | Node::UpdateStmt(_)
        | Node::DeleteStmt(_)
        | Node::MergeStmt(_) => {
            says.is_dml = true;
            says.query(node);
        }
        Node::ExplainStmt(explain) => explained(explain, says),
        Node::CopyStmt(copy) => copied(copy, says),
        Node::DeclareCursorStmt(cursor) => says.query(cursor.query()),
        Node::PrepareStmt(prepare) => statement(prepare.query(), says),
        Node::CreateTableAsStmt(made) => {
            says.make(made.into().and_then(nodes::IntoClause::rel));
            statement(made.query(), says);
        }
        Node::ViewStmt(view) => {
            says.at_least(Class::Schema);
            says.query(view.query());
        }
        Node::TruncateStmt(truncate) => {
            says.no_where = true;
            relations(truncate.relations(), says);
        }
        Node::LockStmt(lock) => relations(lock.relations(), says),
        Node::RefreshMatViewStmt(refresh) => says.write(refresh.relation()),
        // What they run is not in the text.
        Node::ExecuteStmt(_) | Node::DoStmt(_) | Node::CallStmt(_) | Node::FetchStmt(_) => {
            says.class = None;
        }
        Node::VariableSetStmt(set) => says.at_least(setting(set)),
        Node::TransactionStmt(_)
        | Node::ClosePortalStmt(_)
        | Node::DeallocateStmt(_)
        | Node::DiscardStmt(_)
        | Node::ListenStmt(_)
        | Node::UnlistenStmt(_)
        | Node::ConstraintsSetStmt(_) => {}
        Node::VariableShowStmt(_) => says.at_least(Class::Read),
        Node::NotifyStmt(_) => says.at_least(Class::Write),
        Node::VacuumStmt(vacuum) if !vacuum.is_vacuumcmd => says.at_least(Class::Write),
        node if is_admin(node) => says.at_least(Class::Admin),
        _ => says.at_least(Class::Schema),
    }
}

fn relations(list: &pg_raw_parse::list::NodeList, says: &mut Says) {
    for node in list {
        if let Node::RangeVar(relation) = node {
            says.write(Some(relation));
        }
    }
}

/// What is explained is planned; with `ANALYZE` it is done, too. `(ANALYZE false)`
/// counts: the sidecar takes the stricter reading.
fn explained(explain: &nodes::ExplainStmt, says: &mut Says) {
    says.at_least(Class::Read);
    let mut options = explain.options().iter();
    if options.any(|option| option.defname() == Some("analyze")) {
        return statement(explain.query(), says);
    }
    let mut planned = Says {
        class: Some(Class::Session),
        ..Says::default()
    };
    statement(explain.query(), &mut planned);
    says.reads.extend(planned.reads);
    says.reads.extend(planned.writes);
    says.reads.extend(planned.makes);
    says.functions.extend(planned.functions);
    if planned.class.is_none() {
        says.class = None;
    }
}

fn copied(copy: &nodes::CopyStmt, says: &mut Says) {
    says.at_least(Class::Read);
    statement_or_none(copy.query(), says);
    says.query(copy.where_clause());
    if copy.is_from {
        says.write(copy.relation());
    } else {
        says.reads.extend(copy.relation().map(name));
    }
    says.program = copy.is_program;
    says.server_file = copy.filename().is_some() && !copy.is_program;
    if copy.filename().is_some() {
        says.at_least(Class::Admin);
    }
}

fn statement_or_none(node: Node<'_>, says: &mut Says) {
    if !matches!(node, Node::None) {
        says.query(node);
    }
}

/// Who one is, and what the server checks, are more than a setting.
fn setting(set: &nodes::VariableSetStmt) -> Class {
    let strict = [
        "role",
        "session_authorization",
        "session_replication_role",
        "row_security",
    ];
    let all = set.kind == raw::VariableSetKind::VAR_RESET_ALL;
    match set.name().is_some_and(|name| strict.contains(&name)) || all {
        true => Class::Admin,
        false => Class::Session,
    }
}

/// Who may do what, the server itself, its files and programs.
fn is_admin(node: Node<'_>) -> bool {
    use raw::ObjectType as Of;
    let object = match node {
        Node::DropStmt(drop) => drop.remove_type,
        Node::RenameStmt(rename) => rename.rename_type,
        _ => Of::OBJECT_TABLE,
    };
    let objects = [
        Of::OBJECT_ACCESS_METHOD,
        Of::OBJECT_CAST,
        Of::OBJECT_DATABASE,
        Of::OBJECT_EVENT_TRIGGER,
        Of::OBJECT_EXTENSION,
        Of::OBJECT_FDW,
        Of::OBJECT_FOREIGN_SERVER,
        Of::OBJECT_LANGUAGE,
        Of::OBJECT_POLICY,
        Of::OBJECT_PUBLICATION,
        Of::OBJECT_ROLE,
        Of::OBJECT_SUBSCRIPTION,
        Of::OBJECT_TABLESPACE,
        Of::OBJECT_TRANSFORM,
        Of::OBJECT_USER_MAPPING,
    ];
    objects.contains(&object)
        || matches!(
            node,
            Node::AlterDatabaseRefreshCollStmt(_)
                | Node::AlterDatabaseSetStmt(_)
                | Node::AlterDatabaseStmt(_)
                | Node::AlterDefaultPrivilegesStmt(_)
                | Node::AlterEventTrigStmt(_)
                | Node::AlterExtensionContentsStmt(_)
                | Node::AlterExtensionStmt(_)
                | Node::AlterFdwStmt(_)
                | Node::AlterForeignServerStmt(_)
                | Node::AlterPolicyStmt(_)
                | Node::AlterPublicationStmt(_)
                | Node::AlterRoleSetStmt(_)
                | Node::AlterRoleStmt(_)
                | Node::AlterSubscriptionStmt(_)
                | Node::AlterSystemStmt(_)
                | Node::AlterTableSpaceOptionsStmt(_)
                | Node::AlterUserMappingStmt(_)
                | Node::CheckPointStmt(_)
                | Node::ClusterStmt(_)
                | Node::CreateAmStmt(_)
                | Node::CreateCastStmt(_)
                | Node::CreateEventTrigStmt(_)
                | Node::CreateExtensionStmt(_)
                | Node::CreateFdwStmt(_)
                | Node::CreateForeignServerStmt(_)
                | Node::CreatePLangStmt(_)
                | Node::CreatePolicyStmt(_)
                | Node::CreatePublicationStmt(_)
                | Node::CreateRoleStmt(_)
                | Node::CreateSubscriptionStmt(_)
                | Node::CreateTableSpaceStmt(_)
                | Node::CreateTransformStmt(_)
                | Node::CreateUserMappingStmt(_)
                | Node::CreatedbStmt(_)
                | Node::DropOwnedStmt(_)
                | Node::DropRoleStmt(_)
                | Node::DropSubscriptionStmt(_)
                | Node::DropTableSpaceStmt(_)
                | Node::DropUserMappingStmt(_)
                | Node::DropdbStmt(_)
                | Node::GrantRoleStmt(_)
                | Node::GrantStmt(_)
                | Node::LoadStmt(_)
                | Node::ReassignOwnedStmt(_)
                | Node::ReindexStmt(_)
                | Node::SecLabelStmt(_)
                | Node::VacuumStmt(_)
        )
}
